//! The process dies and the machine stays up: nothing that was written is lost, nothing that was not synced is durable.
//! Opening anew must not build on what a later loss of power can still take away.

use std::sync::Arc;

use backstay_storage::disk::sim::{CrashPlan, Fault, Sabotage, SyncKind};
use backstay_storage::disk::{Disk, SimDisk};

use super::model::Rng;
use super::seed;
use super::workload::{Embedder, Promised, SCRIPT, Stop, run};

/// How many operations after the second opening's first are tried as the moment of the loss of power.
const WINDOW: u64 = 90;

/// Runs the workload and kills the process at operation `op`. Says what was promised till then, or `None` if it ended
/// before.
fn killed(disk: &SimDisk, seed: u64, op: u64) -> Result<Option<Promised>, String> {
    // An operation that is refused and changes nothing, after which the store does nothing more: as if killed there.
    disk.fail_at(op, Fault::NoSpace);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut promised = Promised::default();
    match run(&shared, seed, SCRIPT, &mut promised) {
        Ok(()) if disk.ops() < op => Ok(None),
        Ok(()) | Err(Stop::Refused(_)) => Ok(Some(promised)),
        Err(stop) => Err(format!("BACKSTAY_SEED={seed}, killed at operation {op}: {stop:?}")),
    }
}

/// Kills the process at each operation, opens again, and then loses power at some operation of what follows: at every
/// `stride`th where a checkpoint was being committed, at a random one elsewhere. With a rule, a sync after the kill is a
/// lie. Fails with the first recovery that went wrong.
fn explore(seed: u64, stride: u64, sabotage: Option<&Sabotage>) -> Result<u64, String> {
    let mut rng = Rng(seed);
    let mut tried = 0;
    for op in 1.. {
        let disk = SimDisk::new(seed);
        let Some(promised) = killed(&disk, seed, op)? else { break };
        let unpromised = format!("-{:08}.manifest", promised.checkpoint + 1);
        let committing = disk.list_all().iter().any(|path| path.to_string_lossy().ends_with(&unpromised));
        let (start, step) = if committing { (rng.below(stride), stride) } else { (rng.below(WINDOW), WINDOW) };
        for after in (start..WINDOW).step_by(step as usize) {
            tried += lose_power(seed, op, after, sabotage)?;
        }
    }
    Ok(tried)
}

/// Kills the process at operation `op`, and loses power `after` operations later.
fn lose_power(seed: u64, op: u64, after: u64, sabotage: Option<&Sabotage>) -> Result<u64, String> {
    let disk = SimDisk::new(seed);
    let Some(mut promised) = killed(&disk, seed, op)? else { return Ok(0) };
    if let Some(rule) = sabotage {
        disk.sabotage(rule.clone());
    }
    let at = format!("BACKSTAY_SEED={seed}, killed at operation {op}, power lost {after} operations later");
    disk.crash_at(disk.ops() + 1 + after);
    let went_on = Embedder::open(Arc::new(disk.clone()), seed, &mut promised)
        .and_then(|mut again| again.steps(1, &mut promised).and_then(|()| again.checkpoint(&mut promised)));
    match went_on {
        Err(Stop::Refused(_)) if disk.is_down() => {}
        Err(stop) => return Err(format!("{at}, before that: {stop:?}")),
        Ok(()) => {}
    }
    let plans = [CrashPlan::KeepNone, CrashPlan::Seeded(seed ^ op)];
    for plan in plans {
        let mut seen = promised;
        let opened = Embedder::open(Arc::new(disk.power_cycle(plan)), seed, &mut seen);
        opened.map_err(|stop| format!("{at} ({plan:?}): {stop:?}"))?;
    }
    Ok(plans.len() as u64)
}

#[test]
fn a_kill_and_then_a_loss_of_power() {
    let seed = seed();
    let tried = explore(seed, 8, None).unwrap_or_else(|failure| panic!("{failure}"));
    println!("BACKSTAY_SEED={seed}: {tried} recoveries");
    assert!(tried > 200, "too few to show anything: {tried}");
}

/// Opening syncs the folder of the manifests before it trusts their names: without that the checkpoint that was opened
/// may be gone after a loss of power.
#[test]
fn a_missing_sync_at_opening_is_noticed() {
    let seed = seed();
    let rule = Sabotage { kind: SyncKind::Dir, path: "checkpoints".into(), nth: Some(1) };
    // Not every seed's operations come to a loss that matters.
    let noticed = (seed..seed + 6).find_map(|seed| explore(seed, 1, Some(&rule)).err());
    let failure =
        noticed.unwrap_or_else(|| panic!("BACKSTAY_SEED={seed}: not noticed, nor with the five seeds after it"));
    println!("without the sync: {}", failure.lines().next().unwrap_or_default());
}
