//! The simulated disk keeps to its own fault model.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use backstay_storage::Error;
use backstay_storage::disk::sim::{CrashPlan, Fault, Sabotage, SyncKind};
use backstay_storage::disk::{ALIGN, AlignedBuf, Create, Disk, File, Op, OpenOptions, SimDisk};

const RW: OpenOptions = OpenOptions { write: true, create: Create::IfAbsent, direct: false };

fn durable_file(disk: &SimDisk, path: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.open(Path::new(path), RW).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    file
}

#[test]
fn each_unsynced_sector_may_go_and_synced_ones_stay() {
    let disk = SimDisk::new(1);
    let file = durable_file(&disk, "/a", &[1; 1536]);
    file.write_at(&[2; 1024], 512).unwrap();
    assert_eq!(disk.read_file("/a").unwrap(), [[1; 512], [2; 512], [2; 512]].concat());
    assert_eq!(disk.pending_units(), 2);
    let outcomes: BTreeSet<Vec<u8>> =
        disk.crash_plans(2).unwrap().map(|plan| disk.power_cycle(plan).read_file("/a").unwrap()).collect();
    let expected = [[1, 1, 1], [1, 1, 2], [1, 2, 1], [1, 2, 2]].map(|s| s.map(|b| [b; 512]).concat());
    assert_eq!(outcomes, BTreeSet::from(expected));
    let mut seen = BTreeSet::new();
    for seed in 0..500 {
        let after = disk.power_cycle(seed).read_file("/a").unwrap();
        assert_eq!(after[..512], [1; 512], "seed {seed}: a synced sector changed");
        let what = |s: &[u8]| if s.iter().all(|b| *b == s[0]) { s[0] } else { b'?' };
        seen.insert((what(&after[512..1024]), what(&after[1024..])));
    }
    for wanted in [(1, 1), (1, 2), (2, 1), (2, 2), (b'?', 1), (2, b'?')] {
        assert!(seen.contains(&wanted), "{wanted:?} never came up: {seen:?}");
    }
    assert!(disk.crash_plans(1).is_none());
}

#[test]
fn a_name_is_lost_unless_its_directory_was_synced() {
    let disk = SimDisk::new(1);
    let file = disk.open(Path::new("/a"), RW).unwrap();
    file.write_at(b"bytes", 0).unwrap();
    file.sync().unwrap();
    assert!(disk.power_cycle(CrashPlan::KeepNone).list_all().is_empty());
    assert_eq!(disk.power_cycle(CrashPlan::KeepAll).read_file("/a").unwrap(), b"bytes");
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(disk.power_cycle(CrashPlan::KeepNone).read_file("/a").unwrap(), b"bytes");
    disk.remove(Path::new("/a")).unwrap();
    assert!(disk.list_all().is_empty());
    assert_eq!(disk.power_cycle(CrashPlan::KeepNone).read_file("/a").unwrap(), b"bytes");
    disk.sync_dir(Path::new("/")).unwrap();
    assert!(disk.power_cycle(CrashPlan::KeepAll).list_all().is_empty());
}

#[test]
fn a_rename_is_atomic() {
    let disk = SimDisk::new(1);
    durable_file(&disk, "/final", b"old");
    let temp = disk.open(Path::new("/temp"), RW).unwrap();
    temp.write_at(b"new", 0).unwrap();
    temp.sync().unwrap();
    disk.rename(Path::new("/temp"), Path::new("/final")).unwrap();
    let mut seen = BTreeSet::new();
    for plan in disk.crash_plans(8).unwrap().chain((0..200).map(CrashPlan::Seeded)) {
        let after = disk.power_cycle(plan);
        let found = after.read_file("/final").unwrap();
        assert!(found == b"old" || found == b"new", "{plan:?}: {found:?}");
        if found == b"new" {
            assert_eq!(after.list_all().len(), 1, "{plan:?}: the file has two names");
        }
        seen.insert(found);
    }
    assert_eq!(seen.len(), 2);
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(disk.power_cycle(CrashPlan::KeepNone).read_file("/final").unwrap(), b"new");
}

#[test]
fn a_directory_that_is_lost_takes_its_files_along() {
    let disk = SimDisk::new(1);
    disk.sabotage(Sabotage { kind: SyncKind::Dir, path: String::new(), nth: Some(2) }); // that of /d's own name
    disk.create_dir_all(Path::new("/d")).unwrap();
    assert_eq!(disk.sabotaged(), 1);
    disk.open(Path::new("/d/a"), RW).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    let after = disk.power_cycle(CrashPlan::KeepNone);
    assert!(after.list_all().is_empty() && after.metadata(Path::new("/d")).unwrap().is_none());
    assert_eq!(disk.power_cycle(CrashPlan::KeepAll).list_all(), [Path::new("/d/a")]);
}

/// A workload that touches everything.
fn workload(disk: &SimDisk) -> Result<(), Error> {
    acknowledged_workload(disk, &mut None)
}

/// The same; notes the last round of which everything was acknowledged.
fn acknowledged_workload(disk: &SimDisk, acknowledged: &mut Option<u8>) -> Result<(), Error> {
    let dir = Path::new("/w");
    disk.create_dir_all(dir)?;
    let file = disk.open(&dir.join("log"), OpenOptions::CREATE_DIRECT)?;
    disk.sync_dir(dir)?;
    let mut queue = disk.queue(4)?;
    for round in 0..3u64 {
        let write = |i: u64| {
            let (offset, buf) = ((round * 4 + i) * ALIGN as u64, AlignedBuf::from_slice(&[round as u8 + 1; ALIGN]));
            (i, Op::Write { file: Arc::clone(&file), offset, buf, durable: i.is_multiple_of(2) })
        };
        queue.submit((0..4).map(write).collect())?;
        while queue.in_flight() > 0 {
            for done in queue.wait(1)? {
                done.result?;
            }
        }
        let temp = dir.join("temp");
        disk.open(&temp, RW)?.write_durable(&[round as u8], 0)?;
        disk.rename(&temp, &dir.join("current"))?;
        disk.sync_dir(dir)?;
        *acknowledged = Some(round as u8);
    }
    Ok(())
}

fn contents(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    disk.list_all().iter().map(|p| (p.display().to_string(), disk.read_file(p).unwrap())).collect()
}

#[test]
fn the_same_seed_gives_the_same_outcome() {
    let total = {
        let disk = SimDisk::new(0);
        workload(&disk).unwrap();
        disk.ops()
    };
    let mut differing = BTreeSet::new();
    for seed in 0..6 {
        for op in 1..=total {
            let run = || {
                let disk = SimDisk::new(seed);
                disk.crash_at(op);
                assert!(workload(&disk).is_err(), "seed {seed}, op {op}: the power did not go");
                assert!(disk.is_down() && disk.ops() == op, "seed {seed}, op {op}");
                assert!(disk.list(Path::new("/")).is_err());
                contents(&disk.power_cycle(seed * 1000 + op))
            };
            let first = run();
            assert!(first == run(), "seed {seed}, op {op}: two runs differ");
            differing.insert(first);
        }
    }
    assert!(differing.len() > 20, "the seeds hardly matter: {} outcomes", differing.len());
}

#[test]
fn what_is_acknowledged_survives_a_crash_at_every_operation() {
    for op in 1.. {
        let disk = SimDisk::new(op);
        disk.crash_at(op);
        let mut acknowledged = None;
        let finished = acknowledged_workload(&disk, &mut acknowledged).is_ok();
        for seed in 0..20 {
            let after = disk.power_cycle(seed);
            // "current" is replaced atomically, so whatever it holds is whole, and not older than acknowledged.
            let current = after.read_file("/w/current").ok();
            assert!(matches!(current.as_deref(), None | Some([0..3])), "op {op}, seed {seed}: {current:?}");
            assert!(current.map(|c| c[0]) >= acknowledged, "op {op}, seed {seed}: older than {acknowledged:?}");
            for round in 0..acknowledged.map_or(0, |last| last + 1) {
                let log = after.read_file("/w/log").unwrap();
                for block in [0, 2].map(|i| (round as usize * 4 + i) * ALIGN) {
                    assert!(log[block..block + ALIGN] == [round + 1; ALIGN], "op {op}, seed {seed}, block at {block}");
                }
            }
        }
        if finished {
            break;
        }
    }
}

#[test]
fn removing_one_sync_breaks_the_workload() {
    for kind in [SyncKind::Dir, SyncKind::DurableWrite] {
        let disk = SimDisk::new(3);
        disk.sabotage(Sabotage { kind, path: String::new(), nth: None });
        workload(&disk).unwrap();
        assert!(disk.sabotaged() > 0);
        let after = disk.power_cycle(CrashPlan::KeepNone);
        assert_ne!(after.read_file("/w/current").ok().as_deref(), Some(&[2][..]), "{kind:?}: nothing was lost");
    }
}

#[test]
fn what_is_in_flight_may_reach_the_device() {
    let disk = SimDisk::new(1);
    let file = durable_file(&disk, "/a", &[1; ALIGN]);
    let mut queue = disk.queue(4).unwrap();
    let buf = AlignedBuf::from_slice(&[2; ALIGN]);
    queue.submit(vec![(0, Op::Write { file: Arc::clone(&file), offset: 0, buf, durable: true })]).unwrap();
    assert_eq!(disk.read_file("/a").unwrap(), [1; ALIGN], "not completed, so not seen");
    assert_eq!(disk.power_cycle(CrashPlan::KeepNone).read_file("/a").unwrap(), [1; ALIGN]);
    assert_eq!(disk.power_cycle(CrashPlan::KeepAll).read_file("/a").unwrap(), [2; ALIGN]);
    // The same if the power goes at another operation.
    disk.crash_at(disk.ops() + 1);
    assert!(disk.sync_dir(Path::new("/")).is_err());
    assert!(queue.wait(1).unwrap()[0].result.is_err());
    assert_eq!(disk.power_cycle(CrashPlan::KeepNone).read_file("/a").unwrap(), [1; ALIGN]);
    assert_eq!(disk.power_cycle(CrashPlan::KeepAll).read_file("/a").unwrap(), [2; ALIGN]);
}

#[test]
fn a_queue_completes_in_seeded_order() {
    let order = |seed| -> Vec<u64> {
        let disk = SimDisk::new(seed);
        let file = durable_file(&disk, "/a", &[1; ALIGN]);
        let mut queue = disk.queue(8).unwrap();
        queue.submit((0..8).map(|i| (i, Op::Sync { file: Arc::clone(&file) })).collect()).unwrap();
        queue.wait(8).unwrap().iter().map(|c| c.token).collect()
    };
    assert_eq!(order(5), order(5));
    assert!((0..10).map(order).collect::<BTreeSet<_>>().len() > 5);
    assert!((0..10).any(|seed| order(seed) != (0..8).collect::<Vec<_>>()));
}

#[test]
fn a_failed_sync_loses_what_was_pending() {
    let disk = SimDisk::new(1);
    let file = durable_file(&disk, "/a", b"old");
    file.write_at(b"new", 0).unwrap();
    disk.fail_at(disk.ops() + 1, Fault::Io);
    assert!(file.sync().is_err());
    file.sync().unwrap(); // answers as if all were well
    assert_eq!(disk.read_file("/a").unwrap(), b"new");
    assert_eq!(disk.power_cycle(CrashPlan::KeepAll).read_file("/a").unwrap(), b"old");
}

#[test]
fn injected_faults() {
    let disk = SimDisk::new(1);
    let file = durable_file(&disk, "/a", &[1; 4096]);
    disk.fail_at(disk.ops() + 1, Fault::ShortWrite);
    assert!(file.write_at(&[2; 2048], 0).is_err());
    assert_eq!(disk.read_file("/a").unwrap(), [[2; 1024], [1; 1024], [1; 1024], [1; 1024]].concat());
    disk.fail_at(disk.ops() + 1, Fault::Misdirect(2048));
    file.write_durable(&[3; 512], 0).unwrap();
    assert_eq!(disk.read_file("/a").unwrap()[2048..2560], [3; 512]);
    disk.fail_at(disk.ops() + 1, Fault::Misdirect(2048));
    let mut buf = [0; 1];
    file.read_at(&mut buf, 0).unwrap();
    assert_eq!(buf, [3]);
    disk.fail_at(disk.ops() + 1, Fault::NoSpace);
    assert!(matches!(file.write_at(b"x", 0), Err(Error::NoSpace { .. })));
    disk.set_capacity(Some(4100));
    assert!(matches!(file.write_at(&[5; 10], 4096), Err(Error::NoSpace { .. })));
    assert_eq!(file.len().unwrap(), 4100, "what fits is there");
    assert!(matches!(file.set_len(4101), Err(Error::NoSpace { .. })));
    disk.set_capacity(None);
    file.set_len(4101).unwrap();
    disk.flip_bit("/a", 2048, 2).unwrap();
    assert_eq!(disk.read_file("/a").unwrap()[2048], 3 ^ 4);
    assert_eq!(disk.power_cycle(CrashPlan::KeepNone).read_file("/a").unwrap()[2048], 3 ^ 4);
    assert!(disk.flip_bit("/a", 1 << 20, 0).is_err());
}

#[test]
fn a_length_is_pending_too() {
    let disk = SimDisk::new(1);
    let file = durable_file(&disk, "/a", &[1; 1000]);
    file.set_len(10).unwrap();
    assert_eq!(disk.power_cycle(CrashPlan::KeepNone).read_file("/a").unwrap(), [1; 1000]);
    assert_eq!(disk.power_cycle(CrashPlan::KeepAll).read_file("/a").unwrap(), [1; 10]);
    file.set_len(2000).unwrap();
    file.sync().unwrap();
    let after = disk.power_cycle(CrashPlan::KeepNone).read_file("/a").unwrap();
    assert_eq!((after.len(), &after[..11]), (2000, &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0][..]));
}

#[test]
fn a_restart_frees_the_lock() {
    let disk = SimDisk::new(1);
    let _lock = disk.lock_dir(Path::new("/")).unwrap();
    assert!(matches!(disk.lock_dir(Path::new("/")), Err(Error::Locked { .. })));
    disk.power_cycle(1).lock_dir(Path::new("/")).unwrap();
}
