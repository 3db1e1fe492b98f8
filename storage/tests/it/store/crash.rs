//! A crash at every I/O of the workload, and at every I/O of the recovery after it.

use std::sync::Arc;

use backstay_storage::Recovered;
use backstay_storage::disk::sim::{CrashPlan, Explore, Moment, Sabotage, Tally};
use backstay_storage::disk::{Disk, SimDisk};
use backstay_storage::inspect::inspect;

use super::workload::{DIR, Embedder, Promised, SCRIPT, Stop, run};
use super::{number_from, seed};

fn shared(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn told(stop: Stop) -> String {
    match stop {
        Stop::Refused(e) => format!("refused: {e}"),
        Stop::Wrong(why) => why,
    }
}

/// Runs the workload until it ends or the power goes, and says what was promised till then.
fn workload(disk: &SimDisk, seed: u64, sabotage: Option<&Sabotage>) -> Result<Promised, String> {
    if let Some(rule) = sabotage {
        disk.sabotage(rule.clone());
    }
    let mut promised = Promised::default();
    match run(&shared(disk), seed, SCRIPT, &mut promised) {
        Ok(()) if disk.is_down() => Err("the loss of power went unnoticed".into()),
        Err(Stop::Refused(_)) if disk.is_down() => Ok(promised),
        Ok(()) => Ok(promised),
        Err(stop) => Err(told(stop)),
    }
}

/// Opens the store twice: the second time nothing may have changed.
fn recover(disk: &SimDisk, seed: u64, mut promised: Promised) -> Result<(Option<Recovered>, u64), Stop> {
    let mut open = || -> Result<_, Stop> {
        let embedder = Embedder::open(shared(disk), seed, &mut promised)?;
        // Not an error: that of a recovery that was cut off is taken for the loss of power's.
        assert!(!disk.is_down(), "the loss of power went unnoticed");
        Ok((embedder.store.recovered().cloned(), embedder.step))
    };
    let (first, again) = (open()?, open()?);
    if first != again {
        return Err(Stop::Wrong(format!("opened twice: first {first:?}, then {again:?}")));
    }
    Ok(first)
}

/// Works on after some recoveries, and looks for leftovers.
fn work_on(disk: &SimDisk, seed: u64, mut promised: Promised, moment: &Moment) -> Result<(), Stop> {
    if moment.nested.is_some() || (moment.plan != CrashPlan::KeepNone && !moment.op.is_multiple_of(5)) {
        return Ok(());
    }
    let mut embedder = Embedder::open(shared(disk), seed, &mut promised)?;
    embedder.steps(2, &mut promised)?;
    embedder.checkpoint(&mut promised)?;
    embedder.steps(1, &mut promised)?;
    drop(embedder);
    let mut again = Embedder::open(shared(disk), seed, &mut promised)?;
    again.checkpoint(&mut promised)?;
    let report = inspect(&shared(disk), DIR.as_ref(), true)?;
    if !report.is_sound() || !report.unnamed.is_empty() {
        return Err(Stop::Wrong(format!("not clean after opening and a checkpoint: {report:#?}")));
    }
    Ok(())
}

/// Crashes where `how` says. Fails with the first recovery that went wrong.
fn explore_as(how: Explore, seed: u64, sabotage: Option<&Sabotage>) -> Result<Tally, String> {
    let tally = how.run_on(
        |disk| workload(disk, seed, sabotage),
        |disk, promised, _| recover(disk, seed, *promised).map_err(told),
        |disk, promised, _, moment| work_on(disk, seed, *promised, moment).map_err(told),
    );
    tally.map_err(|failure| format!("BACKSTAY_SEED={seed}: {failure}"))
}

/// Crashes at every operation of the workload.
pub fn explore(seed: u64, runs: u64, sabotage: Option<&Sabotage>) -> Result<Tally, String> {
    explore_as(Explore::new(seed).outcomes(0, runs), seed, sabotage)
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
    let how = Explore::new(seed).crash_every(30).outcomes(0, runs).nested(2 + runs, u64::MAX);
    let tally = explore_as(how, seed, None).unwrap_or_else(|failure| panic!("{failure}"));
    println!("BACKSTAY_SEED={seed}: {} crash points, {} crashes in recovery", tally.crash_points, tally.nested);
    assert!(tally.nested > 200, "too few crashes to show anything: {tally:?}");
}

/// Every fate of what is pending, where it is little enough.
#[test]
fn every_outcome_of_a_crash_is_recovered_from() {
    let seed = seed();
    let how = Explore::new(seed).crash_every(5).outcomes(256, 1);
    let tally = explore_as(how, seed, None).unwrap_or_else(|failure| panic!("{failure}"));
    println!("BACKSTAY_SEED={seed}: {tally:?}");
    assert!(tally.exhausted * 2 > tally.crash_points, "hardly any crash was exhausted: {tally:?}");
}
