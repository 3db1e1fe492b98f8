//! Operations that fail, and a disk that is full.

use std::path::Path;
use std::sync::Arc;

use backstay_storage::disk::sim::{CrashPlan, Fault};
use backstay_storage::disk::{Disk, QuotaDisk, SimDisk};
use backstay_storage::{Checkpoint, Error, Store};

use super::seed;
use super::workload::{Action, DIR, Embedder, Promised, SCRIPT, Stop, options, run};

fn told(stop: &Stop) -> String {
    match stop {
        Stop::Refused(e) => format!("refused: {e}"),
        Stop::Wrong(why) => why.clone(),
    }
}

/// An I/O error at each operation: the run ends with an error, and opening anew (with the machine up, then after a loss of
/// power) finds everything that was acknowledged.
#[test]
fn every_failed_operation_is_recovered_from() {
    let seed = seed();
    let mut failed = 0;
    for (op, fault) in (1..).flat_map(|op| [(op, Fault::Io), (op, Fault::ShortWrite)]) {
        let disk = SimDisk::new(seed);
        disk.fail_at(op, fault);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut promised = Promised::default();
        match run(&shared, seed, SCRIPT, &mut promised) {
            Ok(()) if disk.ops() < op => break,
            Ok(()) => continue, // a fault that does not fit the operation
            Err(Stop::Refused(_)) => failed += 1,
            Err(stop) => panic!("BACKSTAY_SEED={seed}, {fault:?} at operation {op}: {}", told(&stop)),
        }
        let at = format!("BACKSTAY_SEED={seed}, {fault:?} at operation {op}");
        let mut first = Embedder::open(Arc::clone(&shared), seed, &mut promised)
            .unwrap_or_else(|stop| panic!("{at}, opened again: {}", told(&stop)));
        first.steps(1, &mut promised).unwrap_or_else(|stop| panic!("{at}, went on: {}", told(&stop)));
        drop(first);
        for plan in [CrashPlan::KeepNone, CrashPlan::Seeded(seed ^ op)] {
            let after: Arc<dyn Disk> = Arc::new(disk.power_cycle(plan));
            let mut promised = promised;
            let opened = Embedder::open(after, seed, &mut promised);
            opened.unwrap_or_else(|stop| panic!("{at}, then a loss of power ({plan:?}): {}", told(&stop)));
        }
    }
    println!("BACKSTAY_SEED={seed}: {failed} failed operations");
    assert!(failed > 100, "too few failures to show anything: {failed}");
}

/// After a failed write in any part, every part refuses to write, with the first cause.
#[test]
fn one_failed_write_poisons_everything() {
    let seed = seed();
    let mut poisoned = 0;
    for skip in 1.. {
        let disk = SimDisk::new(seed);
        let mut promised = Promised::default();
        let mut embedder = Embedder::open(Arc::new(disk.clone()), seed, &mut promised).unwrap();
        embedder.steps(3, &mut promised).unwrap();
        disk.fail_at(disk.ops() + skip, Fault::Io);
        let Err(stop) = embedder.take_checkpoint(&mut promised) else { break };
        let at = format!("BACKSTAY_SEED={seed}, operation {skip} of the checkpoint: {}", told(&stop));
        let Some(cause) = embedder.store.poisoned() else {
            panic!("{at}: not poisoned");
        };
        poisoned += 1;
        let before = disk.stats();
        let refused = embedder.store.checkpoint(Checkpoint::default());
        assert!(matches!(&refused, Err(Error::Poisoned { cause: c, .. }) if *c == cause), "{at}: {refused:?}");
        let refused = embedder.steps(1, &mut promised);
        assert!(matches!(&refused, Err(Stop::Refused(Error::Poisoned { .. }))), "{at}: {refused:?}");
        let refused = embedder.store.write_extra("pending", b"x");
        assert!(matches!(&refused, Err(Error::Poisoned { .. })), "{at}: {refused:?}");
        let after = disk.stats();
        let changes = |s: &backstay_storage::disk::DiskStats| (s.writes, s.durable_writes, s.syncs, s.dir_syncs);
        assert_eq!(changes(&before), changes(&after), "{at}: something was written after the failure");
    }
    assert!(poisoned > 10, "too few failures to show anything: {poisoned}");
}

/// A full disk: a clean error, and exact resumption once there is room.
#[test]
fn a_full_disk_stops_cleanly_and_resumes_exactly() {
    let seed = seed();
    let whole = SimDisk::new(seed);
    let shared: Arc<dyn Disk> = Arc::new(whole.clone());
    run(&shared, seed, SCRIPT, &mut Promised::default()).unwrap();
    let mut refused = 0;
    for limit in (0..400 * 1024).step_by(4099) {
        let disk = SimDisk::new(seed);
        disk.overwrite("/mark", 0, b"").unwrap();
        let quota = Arc::new(QuotaDisk::new(Arc::new(disk.clone()), Path::new("/"), limit).unwrap());
        let shared: Arc<dyn Disk> = quota.clone();
        let mut promised = Promised::default();
        let at = format!("BACKSTAY_SEED={seed}, {limit} bytes of room");
        match run(&shared, seed, SCRIPT, &mut promised) {
            Ok(()) => break,
            Err(Stop::Refused(Error::NoSpace { .. })) => refused += 1,
            Err(stop) => panic!("{at}: {}", told(&stop)),
        }
        quota.set_limit(u64::MAX);
        let mut rest = Embedder::open(Arc::clone(&shared), seed, &mut promised)
            .unwrap_or_else(|stop| panic!("{at}, with room again: {}", told(&stop)));
        let resumed = rest.steps(2, &mut promised).and_then(|()| rest.checkpoint(&mut promised));
        resumed.unwrap_or_else(|stop| panic!("{at}, with room again: {}", told(&stop)));
        drop(rest);
        run(&shared, seed, &[Action::Steps(1)], &mut promised).unwrap_or_else(|stop| panic!("{at}: {}", told(&stop)));
    }
    println!("BACKSTAY_SEED={seed}: {refused} limits were too small");
    assert!(refused > 5, "too few limits to show anything: {refused}");
}

/// A full disk met with the log's first segment leaves a store that opens once there is room.
#[test]
fn a_disk_too_small_to_begin_with_is_a_clear_error() {
    let disk = SimDisk::new(seed());
    let quota = Arc::new(QuotaDisk::new(Arc::new(disk), Path::new("/"), 4096).unwrap());
    let e = Store::open(quota.clone(), Path::new(DIR), options(1)).unwrap_err();
    assert!(matches!(e, Error::NoSpace { .. }) && e.to_string().contains("make room"), "{e}");
    quota.set_limit(1 << 20);
    Store::open(quota, Path::new(DIR), options(1)).unwrap();
}
