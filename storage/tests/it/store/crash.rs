//! A crash at every I/O of the workload, and at every I/O of the recovery after it.

use std::sync::Arc;

use backstay_storage::disk::sim::{CrashPlan, Sabotage};
use backstay_storage::disk::{Disk, SimDisk};
use backstay_storage::inspect::inspect;

use super::workload::{DIR, Embedder, Promised, SCRIPT, Stop, run};
use super::{number_from, seed};

/// What an exploration did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub crash_points: u64,
    pub recoveries: u64,
    pub nested: u64,
    pub lies: u64,
}

fn disk(seed: u64, sabotage: Option<&Sabotage>) -> SimDisk {
    let disk = SimDisk::new(seed);
    if let Some(rule) = sabotage {
        disk.sabotage(rule.clone());
    }
    disk
}

fn shared(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// The text of a failure: what, and how to see it again.
fn told(seed: u64, at: &str, stop: Stop) -> String {
    let what = match stop {
        Stop::Refused(e) => format!("refused: {e}"),
        Stop::Wrong(why) => why,
    };
    format!("BACKSTAY_SEED={seed}, {at}: {what}")
}

/// Runs the workload until the power goes at operation `op`, and says what was promised till then. `None` if the
/// workload ended before.
fn run_until(disk: &SimDisk, seed: u64, op: u64) -> Result<Option<Promised>, String> {
    disk.crash_at(op);
    let mut promised = Promised::default();
    match run(&shared(disk), seed, SCRIPT, &mut promised) {
        Err(Stop::Refused(_)) if disk.is_down() => Ok(Some(promised)),
        Err(stop) => Err(told(seed, &format!("before the crash at operation {op}"), stop)),
        Ok(()) if disk.is_down() => Err(format!("BACKSTAY_SEED={seed}: the loss of power at {op} went unnoticed")),
        Ok(()) => Ok(None),
    }
}

/// Opens the store twice: the second time nothing may have changed. Then works on, and looks for leftovers.
fn recover(disk: &SimDisk, seed: u64, mut promised: Promised, go_on: bool) -> Result<(), Stop> {
    let first = Embedder::open(shared(disk), seed, &mut promised)?;
    let found = (first.store.recovered().cloned(), first.step);
    drop(first);
    let mut second = Embedder::open(shared(disk), seed, &mut promised)?;
    let again = (second.store.recovered().cloned(), second.step);
    if found != again {
        return Err(Stop::Wrong(format!("opened twice: first {found:?}, then {again:?}")));
    }
    if go_on {
        second.steps(2, &mut promised)?;
        second.checkpoint(&mut promised)?;
        second.steps(1, &mut promised)?;
        drop(second);
        let mut third = Embedder::open(shared(disk), seed, &mut promised)?;
        third.checkpoint(&mut promised)?;
        let report = inspect(&shared(disk), DIR.as_ref(), true)?;
        if !report.is_sound() || !report.unnamed.is_empty() {
            return Err(Stop::Wrong(format!("not clean after opening and a checkpoint: {report:#?}")));
        }
    }
    Ok(())
}

/// The ways in which what was pending is kept or lost.
fn plans(seed: u64, op: u64, runs: u64) -> Vec<CrashPlan> {
    let drawn = (0..runs).map(|run| CrashPlan::Seeded(seed ^ op << 20 ^ run));
    [CrashPlan::KeepNone, CrashPlan::KeepAll].into_iter().chain(drawn).collect()
}

/// Crashes at every operation of the workload. Fails with the first recovery that went wrong.
pub fn explore(seed: u64, runs: u64, sabotage: Option<&Sabotage>) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for op in 1.. {
        let crashed = disk(seed, sabotage);
        let Some(promised) = run_until(&crashed, seed, op)? else { break };
        tally.crash_points += 1;
        for plan in plans(seed, op, runs) {
            let after = crashed.power_cycle(plan);
            let at = format!("crash at operation {op}, {plan:?}");
            recover(&after, seed, promised, plan == CrashPlan::KeepNone || op % 5 == 0)
                .map_err(|s| told(seed, &at, s))?;
            tally.recoveries += 1;
            tally.lies = tally.lies.max(after.sabotaged());
        }
    }
    Ok(tally)
}

#[test]
fn every_crash_is_recovered_from() {
    let (seed, runs) = (seed(), number_from("BACKSTAY_CRASH_RUNS", 1));
    let tally = explore(seed, runs, None).unwrap_or_else(|failure| panic!("{failure}"));
    println!("BACKSTAY_SEED={seed}: {} crash points, {} recoveries", tally.crash_points, tally.recoveries);
    assert!(tally.crash_points > 200, "the workload has become too short to show anything: {tally:?}");
}

/// A second crash at each operation of the recovery from the first, then a recovery from that.
#[test]
fn every_crash_in_recovery_is_recovered_from() {
    let (seed, runs) = (seed(), number_from("BACKSTAY_CRASH_RUNS", 1));
    let mut tally = Tally::default();
    let mut rng = super::model::Rng(seed);
    let mut op = 1 + rng.below(12);
    loop {
        let crashed = disk(seed, None);
        let Some(promised) = run_until(&crashed, seed, op).unwrap_or_else(|failure| panic!("{failure}")) else { break };
        tally.crash_points += 1;
        let plan = plans(seed, op, runs)[rng.below(2 + runs) as usize];
        for inner in 1.. {
            let again = crashed.power_cycle(plan);
            again.crash_at(inner);
            let mut seen = promised;
            let first = Embedder::open(shared(&again), seed, &mut seen);
            let at = format!("crash at operation {op}, {plan:?}, then at operation {inner} of the recovery");
            match first {
                Ok(_) if !again.is_down() => break,
                Ok(_) => panic!("BACKSTAY_SEED={seed}, {at}: the loss of power went unnoticed"),
                Err(Stop::Refused(_)) if again.is_down() => {}
                Err(stop) => panic!("{}", told(seed, &at, stop)),
            }
            for plan in plans(seed, inner, 1) {
                let after = again.power_cycle(plan);
                let at = format!("{at}, {plan:?}");
                // What the cut-off opening showed of an epoch or a checkpoint was not promised to anyone.
                recover(&after, seed, promised, false).unwrap_or_else(|s| panic!("{}", told(seed, &at, s)));
                tally.nested += 1;
            }
        }
        op += 1 + rng.below(60);
    }
    println!("BACKSTAY_SEED={seed}: {} crash points, {} crashes in recovery", tally.crash_points, tally.nested);
    assert!(tally.nested > 200, "too few crashes to show anything: {tally:?}");
}
