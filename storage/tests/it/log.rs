//! The log under power loss, kills, failing writes and damage; group commit with threads.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use backstay_storage::disk::sim::{CrashPlan, Explore, Fault, Sabotage, SyncKind};
use backstay_storage::disk::{self, Disk, PosixDisk, SimDisk};
use backstay_storage::log::{Log, LogOptions, Seq, inspect};
use backstay_storage::{Error, Result};

const ID: u128 = 42;
const BLOCK: u64 = 4096;

fn dir() -> &'static Path {
    Path::new("/store/log")
}

fn options(window: u64) -> LogOptions {
    LogOptions {
        segment_bytes: 9 * BLOCK,
        compress_over: Some(3000),
        window,
        buffer_bytes: 24_000,
        ..LogOptions::default()
    }
}

fn open(disk: &SimDisk, epoch: u64, window: u64) -> Result<Log> {
    Log::open(Arc::new(disk.clone()), dir(), ID, epoch, options(window))
}

/// A log whose first segment lasts: every operation after opening is the commits' own.
fn open_roomy(disk: &SimDisk, epoch: u64) -> Result<Log> {
    let options = LogOptions { segment_bytes: 128 * BLOCK, ..options(0) };
    Log::open(Arc::new(disk.clone()), dir(), ID, epoch, options)
}

/// A byte that does not compress.
fn noise(i: u64) -> u8 {
    let mixed = i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 56) as u8
}

/// What was asked of the log, to compare with what it has.
#[derive(Clone, Default)]
struct Model {
    /// Payload of record i + 1. Payloads name the life that appended them, so that no ghost looks like another record.
    appended: Vec<Vec<u8>>,
    /// Records that end an append: a crash cuts only behind these.
    ends: BTreeSet<Seq>,
    acknowledged: Seq,
    /// Everything before may have been trimmed.
    trimmed: Seq,
}

impl Model {
    /// Compares with an opened log, and forgets what it has lost.
    fn check(&mut self, log: &Log) -> Result<(), String> {
        let durable = log.durable();
        let state = format!("{durable} of {} records, {} acknowledged", self.appended.len(), self.acknowledged);
        if durable < self.acknowledged || durable > self.appended.len() as u64 {
            return Err(format!("{state}: lost or made up"));
        }
        if durable > 0 && !self.ends.contains(&durable) {
            return Err(format!("{state}: an append was cut in two"));
        }
        let first = log.first_seq();
        if first > self.trimmed.max(1) {
            return Err(format!("{state}: starts at {first}, trimmed before {}", self.trimmed));
        }
        let mut next = first;
        for record in log.scan(first).map_err(|e| e.to_string())? {
            let record = record.map_err(|e| format!("{state}: {e}"))?;
            if record.seq != next || record.payload != self.appended[next as usize - 1] {
                return Err(format!("{state}: record {} is not what was appended", record.seq));
            }
            next += 1;
        }
        if next != durable + 1 {
            return Err(format!("{state}: the scan ended before record {next}"));
        }
        self.appended.truncate(durable as usize);
        self.ends.retain(|end| *end <= durable);
        self.acknowledged = durable;
        Ok(())
    }

    /// Opens the log and checks it.
    fn recover(&mut self, disk: &SimDisk, epoch: u64, window: u64) -> Result<Log, String> {
        let log = open(disk, epoch, window).map_err(|e| e.to_string())?;
        self.check(&log)?;
        Ok(log)
    }

    fn append(&mut self, log: &Log, life: u64, count: u64, len: usize) -> Result<Seq> {
        let first = self.appended.len() as u64 + 1;
        let payloads: Vec<Vec<u8>> = (first..first + count)
            .map(|seq| {
                let mut payload = format!("life {life} record {seq} ").into_bytes();
                payload.extend((0..len as u64).map(|i| noise(i ^ (seq << 20) ^ (life << 40))));
                payload
            })
            .collect();
        let slices: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let range = log.append_batch(&slices)?;
        assert_eq!(range, first..first + count);
        self.appended.extend(payloads);
        self.ends.insert(range.end - 1);
        Ok(range.end - 1)
    }

    /// One life of a log: single records, batches over blocks, overlapping writes, new segments, a trim.
    fn live(&mut self, log: &Log, life: u64) -> Result<()> {
        for (count, len, wait) in [
            (1, 10, true),
            (2, 3000, false),
            (1, 0, false),
            (3, 2500, true),
            (1, 9000, false),
            (1, 50, false),
            (2, 5000, true),
        ] {
            let last = self.append(log, life, count, len)?;
            log.submit()?;
            if wait {
                log.wait_durable(last)?;
                self.acknowledged = last;
            }
        }
        self.trimmed = self.trimmed.max(self.acknowledged);
        log.trim_before(self.trimmed)?;
        self.append(log, life, 1, 700)?;
        self.acknowledged = log.commit()?;
        // Not committed: may be lost or, having been submitted, be there.
        self.append(log, life, 2, 4100)?;
        log.submit()?;
        let stats = log.stats();
        assert!(
            stats.segments_created + stats.segments_recycled > 2 && stats.segments_trimmed > 0,
            "the life is too short: {stats:?}"
        );
        Ok(())
    }
}

/// Runs two lives on `disk` until it fails.
fn two_lives(disk: &SimDisk, window: u64) -> Model {
    let mut model = Model::default();
    for life in 1..3 {
        let Ok(log) = open(disk, life, window) else { break };
        // The end of a life without a power loss: what was submitted is there or not.
        if let Err(e) = model.check(&log) {
            assert!(disk.is_down(), "{e}");
            break;
        }
        if model.live(&log, life).is_err() {
            break;
        }
    }
    model
}

/// Crashes the two lives at every operation, each with several outcomes of the power loss: recovers, lives on, recovers
/// again; and the same after a second crash at any operation of one in `nested` first recoveries (0 for none).
fn crash_everywhere(window: u64, seeds: u64, nested: u64, sabotage: Option<&Sabotage>) -> Result<(), String> {
    for seed in 0..seeds {
        let (limit, crashes) = if nested > 0 { (0, u64::MAX) } else { (256, 0) };
        let explore = Explore::new(seed).outcomes(limit, 1).nested(nested, crashes);
        let tally = explore.run_on(
            |disk| {
                sabotage.into_iter().for_each(|rule| disk.sabotage(rule.clone()));
                // Trimmed segments lie about: what they held may show where a new one is not written yet.
                disk.show_stale(seed % 2 == 1);
                Ok(two_lives(disk, window))
            },
            |up, model, moment| {
                let epoch = 10 + u64::from(moment.nested.is_some());
                Ok(model.clone().recover(up, epoch, window)?.durable())
            },
            |up, model, _, moment| {
                // New records over ghosts, and then a kill, or one more power loss with all of them acknowledged.
                let mut model = model.clone();
                let log = model.recover(up, 12, window)?;
                model.live(&log, 12).map_err(|e| e.to_string())?;
                drop(log);
                let up = if moment.nested.is_some() { up.power_cycle(CrashPlan::KeepNone) } else { up.clone() };
                model.recover(&up, 13, window).map(drop)
            },
        );
        let tally = tally.map_err(|failure| format!("window {window}, {failure}"))?;
        assert!(tally.operations > 50 && (nested == 0 || tally.nested > 1000), "{tally:?}");
    }
    Ok(())
}

#[test]
fn a_power_loss_at_any_operation_leaves_the_acknowledged_prefix() {
    for window in [0, 1 << 20] {
        crash_everywhere(window, 4, 0, None).unwrap();
    }
}

#[test]
fn a_power_loss_at_any_operation_of_recovery_changes_nothing() {
    crash_everywhere(1 << 20, 1, 1, None).unwrap();
}

#[test]
fn every_kind_of_sync_is_needed() {
    for (kind, path) in [(SyncKind::DurableWrite, ".seg"), (SyncKind::File, ".seg.new"), (SyncKind::Dir, "/store/log")]
    {
        let rule = Sabotage { kind, path: path.into(), nth: None };
        let found = crash_everywhere(1 << 20, 2, 0, Some(&rule));
        assert!(found.is_err(), "no crash shows that {kind:?} on {path} is needed");
    }
}

/// What a killed process had written is seen by the next one, though it may not be durable: it must be made so before
/// it is relied on.
fn kill_then_power_loss(sabotage: Option<Sabotage>) -> Result<(), String> {
    let disk = SimDisk::new(1);
    let mut model = Model::default();
    let log = open(&disk, 1, 0).unwrap();
    // As a process that is killed before its write has reached the device.
    disk.sabotage(Sabotage { kind: SyncKind::DurableWrite, path: ".seg".into(), nth: None });
    model.append(&log, 1, 1, 10).unwrap();
    log.commit().unwrap();
    drop(log);
    sabotage.into_iter().for_each(|rule| disk.sabotage(rule));
    drop(model.recover(&disk, 2, 0)?);
    model.recover(&disk.power_cycle(CrashPlan::KeepNone), 3, 0).map(drop)
}

#[test]
fn what_a_killed_process_wrote_is_synced_before_it_is_trusted() {
    kill_then_power_loss(None).unwrap();
    // The first sync of this file is the one at opening.
    let rule = Sabotage { kind: SyncKind::File, path: "0000000000000001.seg".into(), nth: Some(1) };
    let error = kill_then_power_loss(Some(rule)).unwrap_err();
    assert!(error.contains("lost or made up") || error.contains("damaged"), "{error}");
}

/// A process is killed while it trims, after the name has changed and before that is durable; the next one loses power
/// after each operation of its opening, in which it makes a new segment of the trimmed one.
pub(crate) fn killed_trim(sabotage: Option<Sabotage>) -> Result<(), String> {
    for op in 1.. {
        let disk = SimDisk::new(1);
        let mut model = Model::default();
        let log = open(&disk, 1, 0).unwrap();
        for _ in 0..2 {
            model.append(&log, 1, 1, 20_000).unwrap();
            model.acknowledged = log.commit().unwrap();
        }
        model.trimmed = 2;
        disk.fail_at(disk.ops() + 2, Fault::Io);
        log.trim_before(2).unwrap_err();
        drop(log);
        sabotage.iter().for_each(|rule| disk.sabotage(rule.clone()));
        disk.crash_at(disk.ops() + op);
        let opened = open(&disk, 2, 0);
        let recycled = opened.as_ref().is_ok_and(|log| log.stats().segments_recycled > 0);
        drop(opened);
        let plans =
            disk.crash_plans(6).map_or_else(|| (0..32).map(CrashPlan::Seeded).collect(), Iterator::collect::<Vec<_>>);
        for plan in plans {
            let after = model.clone().recover(&disk.power_cycle(plan), 3, 0).map(drop);
            after.map_err(|e| format!("power loss at operation {op} of the opening, {plan:?}: {e}"))?;
        }
        if !disk.is_down() {
            assert!(recycled, "the trimmed segment was not used again");
            return Ok(());
        }
    }
    unreachable!()
}

#[test]
fn names_that_a_killed_process_left_are_synced_before_they_are_relied_on() {
    killed_trim(None).unwrap();
    let rule = Sabotage { kind: SyncKind::Dir, path: "/store/log".into(), nth: Some(1) };
    let error = killed_trim(Some(rule)).unwrap_err();
    assert!(error.contains("damaged"), "{error}");
}

fn trim_with_crashes(sabotage: Option<Sabotage>) -> Result<(), String> {
    for op in 1.. {
        let disk = SimDisk::new(1);
        let mut model = Model::default();
        let log = open(&disk, 1, 0).unwrap();
        for _ in 0..4 {
            model.append(&log, 1, 1, 20_000).unwrap();
            model.acknowledged = log.commit().unwrap();
        }
        assert_eq!(log.stats().segments_created, 4);
        sabotage.iter().for_each(|rule| disk.sabotage(rule.clone()));
        disk.crash_at(disk.ops() + op);
        model.trimmed = 4;
        let done = log.trim_before(4).is_ok();
        for plan in disk.crash_plans(8).expect("few names are pending") {
            let after = model.clone().recover(&disk.power_cycle(plan), 2, 0).map(drop);
            after.map_err(|e| format!("power loss at operation {op} of the trim, {plan:?}: {e}"))?;
        }
        if done {
            assert!(op > 6);
            return Ok(());
        }
    }
    unreachable!()
}

#[test]
fn a_power_loss_while_trimming_leaves_no_hole() {
    trim_with_crashes(None).unwrap();
    let rule = Sabotage { kind: SyncKind::Dir, path: "/store/log".into(), nth: Some(1) };
    let error = trim_with_crashes(Some(rule)).unwrap_err();
    assert!(error.contains("no such file"), "{error}");
}

#[test]
fn a_rewritten_record_is_never_followed_by_the_ghost_of_the_old_next_one() {
    // Records 1, then 2 and 3 in flight together; the power loss keeps any subset of their sectors.
    let mut ghosts = 0;
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let mut model = Model::default();
        let log = open(&disk, 1, 1 << 20).unwrap();
        model.append(&log, 1, 1, 10).unwrap();
        model.acknowledged = log.commit().unwrap();
        for _ in 0..2 {
            model.append(&log, 1, 1, 10).unwrap();
            log.submit().unwrap();
        }
        let up = disk.power_cycle(seed);
        let segment = up.read_file("/store/log/0000000000000001.seg").unwrap();
        let there = |record: u8| segment.windows(15).any(|w| w == format!("life 1 record {record}").as_bytes());
        let log = model.recover(&up, 2, 1 << 20).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        ghosts += u64::from(log.durable() == 1 && !there(2) && there(3));
        // Record 2 again, unless it has survived.
        model.append(&log, 2, 1, 10).unwrap();
        model.acknowledged = log.commit().unwrap();
        drop(log);
        for (epoch, plan) in [(3, CrashPlan::KeepNone), (4, CrashPlan::KeepAll)] {
            let mut model = model.clone();
            model.recover(&up.power_cycle(plan), epoch, 0).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        }
    }
    assert!(ghosts > 5, "only {ghosts} of 200 crashes left the ghost that this is about");
}

#[test]
fn after_a_failed_write_or_sync_every_call_is_refused() {
    for fault in [Fault::Io, Fault::ShortWrite, Fault::NoSpace] {
        let disk = SimDisk::new(1);
        let mut model = Model::default();
        let log = open_roomy(&disk, 1).unwrap();
        model.append(&log, 1, 1, 10).unwrap();
        model.acknowledged = log.commit().unwrap();
        model.append(&log, 1, 1, 6000).unwrap();
        disk.fail_at(disk.ops() + 1, fault);
        let first = log.commit().unwrap_err();
        assert!(matches!((fault, &first), (Fault::NoSpace, Error::NoSpace { .. }) | (_, Error::Io { .. })), "{first}");
        let later = [
            log.append(b"x").unwrap_err(),
            log.submit().unwrap_err(),
            log.commit().unwrap_err(),
            log.wait_durable(1).unwrap_err(),
            log.scan(1).unwrap_err(),
            log.trim_before(1).unwrap_err(),
        ];
        for error in later {
            assert!(matches!(&error, Error::Poisoned { cause, .. } if *cause == first.to_string()), "{error}");
        }
        assert_eq!(log.durable(), 1);
        drop(log);
        model.recover(&disk.power_cycle(1), 2, 0).unwrap();
    }
}

#[test]
fn a_failure_of_any_operation_poisons_and_loses_nothing() {
    let whole = SimDisk::new(3);
    let log = open(&whole, 1, 1 << 20).unwrap();
    let opening = whole.ops();
    Model::default().live(&log, 1).unwrap();
    drop(log);
    for op in opening + 1..=whole.ops() {
        for fault in [Fault::Io, Fault::NoSpace] {
            let disk = SimDisk::new(3);
            let mut model = Model::default();
            let log = open(&disk, 1, 1 << 20).unwrap();
            disk.fail_at(op, fault);
            if model.live(&log, 1).is_err() {
                let error = log.commit().unwrap_err();
                assert!(matches!(error, Error::Poisoned { .. }), "operation {op}: {error}");
            }
            drop(log);
            let after = model.recover(&disk.power_cycle(op), 2, 0);
            after.unwrap_or_else(|e| panic!("operation {op}, {fault:?}: {e}"));
        }
    }
}

#[test]
fn a_full_disk_at_opening_is_an_error_and_there_is_a_way_on() {
    let disk = SimDisk::new(1);
    let mut model = Model::default();
    let log = open(&disk, 1, 0).unwrap();
    model.append(&log, 1, 1, 10).unwrap();
    model.acknowledged = log.commit().unwrap();
    drop(log);
    disk.set_capacity(Some(10 * BLOCK));
    let error = open(&disk, 2, 0).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    disk.set_capacity(None);
    model.recover(&disk, 2, 0).unwrap();
}

#[test]
fn rot_is_found_in_headers_sealed_segments_and_below_a_promise() {
    let disk = SimDisk::new(1);
    let mut model = Model::default();
    for epoch in 1..3 {
        let log = open(&disk, epoch, 0).unwrap();
        for _ in 0..5 {
            model.append(&log, epoch, 1, 3900).unwrap();
            log.commit().unwrap();
        }
    }
    let report = inspect(&disk, dir(), true).unwrap();
    assert_eq!((report.damage.len(), report.last_seq, report.segments.len()), (0, 10, 2));
    let (sealed, newest) = ("/store/log/0000000000000001.seg", "/store/log/0000000000000002.seg");
    for (file, offset, opens) in [(sealed, 0, false), (newest, 56, false), (sealed, 9000, true), (newest, 9000, false)]
    {
        disk.flip_bit(file, offset, 3).unwrap();
        let block = offset / BLOCK * BLOCK;
        let check = |error: Error| match error {
            Error::Damaged(d) => assert_eq!((d.file.to_str(), d.offset), (Some(file), block), "{d:?}"),
            other => panic!("{file} at {offset}: {other}"),
        };
        let copy = disk.power_cycle(CrashPlan::KeepAll);
        match open(&copy, 3, 0) {
            Err(error) => {
                assert!(!opens, "{file} at {offset}: {error}");
                check(error);
            }
            Ok(log) => {
                assert!(opens, "{file} at {offset} was not noticed");
                check(log.scan(1).unwrap().find_map(Result::err).expect("the scan finds it"));
            }
        }
        let damage = inspect(&disk, dir(), true).unwrap().damage;
        assert_eq!(damage.iter().map(|d| (d.file.to_str(), d.offset)).collect::<Vec<_>>(), [(Some(file), block)]);
        disk.flip_bit(file, offset, 3).unwrap();
    }
}

#[test]
fn a_misdirected_commit_is_not_read_as_another() {
    // Over the link, over the commit before, and to where nothing is yet: what was durable is missed in each case.
    for (elsewhere, damaged) in [(BLOCK, BLOCK), (3 * BLOCK, 3 * BLOCK), (9 * BLOCK, 4 * BLOCK)] {
        let disk = SimDisk::new(1);
        let mut model = Model::default();
        let log = open_roomy(&disk, 1).unwrap();
        for _ in 0..2 {
            model.append(&log, 1, 1, 10).unwrap();
            log.commit().unwrap();
        }
        model.append(&log, 1, 1, 10).unwrap();
        disk.fail_at(disk.ops() + 1, Fault::Misdirect(elsewhere));
        log.commit().unwrap();
        model.append(&log, 1, 1, 10).unwrap();
        log.commit().unwrap();
        drop(log);
        let error = open(&disk, 2, 0).unwrap_err().to_string();
        assert!(error.contains(&format!("0000000000000001.seg, offset {damaged}: expected checksum")), "{error}");
    }
}

#[test]
fn a_commit_is_one_durable_write_and_no_sync() {
    let disk = SimDisk::new(1);
    let log = open_roomy(&disk, 1).unwrap();
    let before = disk.stats();
    for _ in 0..5 {
        log.append_batch(&[b"a", b"b"]).unwrap();
        log.append(b"c").unwrap();
        log.commit().unwrap();
    }
    let after = disk.stats();
    assert_eq!(after.durable_writes - before.durable_writes, 5);
    assert_eq!((after.writes, after.syncs, after.dir_syncs), (before.writes, before.syncs, before.dir_syncs));
    assert_eq!(after.written_bytes - before.written_bytes, 5 * BLOCK);
}

/// 64 threads that append, sometimes start a write, wait for their own record, and end.
fn share_durable_writes(disk: Arc<dyn Disk>) {
    const THREADS: u64 = 64;
    const COMMITS: u64 = 15;
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() };
    let log = Log::open(disk.clone(), directory.path(), ID, 1, options.clone()).unwrap();
    let before = disk.stats();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &log;
            scope.spawn(move || {
                for i in 0..COMMITS {
                    let seq = log.append(format!("{thread} {i}").as_bytes()).unwrap();
                    if i % 3 == 0 {
                        log.submit().unwrap();
                    }
                    log.wait_durable(seq).unwrap();
                    assert!(log.durable() >= seq);
                }
            });
        }
    });
    let durable_writes = disk.stats().durable_writes - before.durable_writes;
    assert!(durable_writes < THREADS * COMMITS, "{durable_writes} durable writes for {} commits", THREADS * COMMITS);
    assert_eq!(durable_writes, log.stats().commits);
    drop(log);
    let log = Log::open(disk, directory.path(), ID, 2, options).unwrap();
    let mut next = vec![0; THREADS as usize];
    for record in log.scan(1).unwrap() {
        let record = record.unwrap();
        let text = std::str::from_utf8(&record.payload).unwrap();
        let (thread, i) = text.split_once(' ').unwrap();
        let expected = &mut next[thread.parse::<usize>().unwrap()];
        assert_eq!(i.parse::<u64>().unwrap(), *expected, "thread {thread}'s records are in its order");
        *expected += 1;
    }
    assert_eq!(next, vec![COMMITS; THREADS as usize]);
}

#[test]
fn threads_share_durable_writes() {
    share_durable_writes(Arc::new(PosixDisk::new()));
    share_durable_writes(disk::system());
}

#[test]
fn a_thread_may_end_while_its_write_is_in_flight() {
    for disk in [Arc::new(PosixDisk::new()), disk::system()] {
        let directory = tempfile::tempdir().unwrap();
        let options = LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() };
        let log = Log::open(disk.clone(), directory.path(), ID, 1, options.clone()).unwrap();
        for i in 0..100_u64 {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    log.append(&i.to_le_bytes()).unwrap();
                    log.submit().unwrap();
                });
            });
            if i % 5 == 4 {
                assert_eq!(log.commit().unwrap(), i + 1);
            }
        }
        drop(log);
        assert_eq!(Log::open(disk, directory.path(), ID, 2, options).unwrap().durable(), 100);
    }
}
