//! Copying a savepoint, with a loss of power at every I/O: until the copy is whole, its directory does not open.

use std::path::Path;

use backstay_storage::disk::Disk;
use backstay_storage::disk::SimDisk;
use backstay_storage::disk::sim::{CrashPlan, Explore, Fault, Moment, Sabotage, SyncKind, Tally};
use backstay_storage::inspect::inspect;
use backstay_storage::{Error, Store, copy_savepoint};

use super::savepoint::{check_copy, shared};
use super::workload::{DIR, Embedder, Promised, Stop, options};
use super::{number_from, seed};

const COPY: &str = "/copy";

/// What stands where the copy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Nothing,
    Unfinished,
    Whole,
}

/// The savepoint's step.
const STEP: u64 = 3;

/// A store with a savepoint whose checkpoint is no longer kept.
fn original(disk: &SimDisk, seed: u64) -> Result<Embedder, Stop> {
    let mut promised = Promised::default();
    let mut embedder = Embedder::open(shared(disk), seed, &mut promised)?;
    embedder.steps(STEP, &mut promised)?;
    embedder.checkpoint(&mut promised)?;
    embedder.store.savepoint("old")?;
    for _ in 0..2 {
        embedder.steps(1, &mut promised)?;
        embedder.checkpoint(&mut promised)?;
    }
    Ok(embedder)
}

/// Makes the copy while the store is open. Whether it was acknowledged.
fn workload(disk: &SimDisk, seed: u64, rule: Option<&Sabotage>) -> Result<bool, String> {
    if let Some(rule) = rule {
        disk.sabotage(rule.clone());
    }
    let copied = original(disk, seed).and_then(|embedder| {
        copy_savepoint(&shared(disk), Path::new(DIR), "old", Path::new(COPY))?;
        drop(embedder);
        Ok(())
    });
    match copied {
        Ok(()) => Ok(true),
        Err(Stop::Refused(_)) if disk.is_down() => Ok(false),
        Err(stop) => Err(format!("{stop:?}")),
    }
}

/// Opens what stands there.
fn recover(disk: &SimDisk, seed: u64, acknowledged: bool) -> Result<There, String> {
    let names = disk.list(Path::new(COPY)).unwrap_or_default();
    if names.is_empty() {
        // An empty directory is one for a new store.
        return if acknowledged { Err("the copy is gone".into()) } else { Ok(There::Nothing) };
    }
    match Store::open(shared(disk), Path::new(COPY), options(seed)) {
        Ok(store) => match store.recovered().and_then(|r| r.savepoint.clone()) {
            Some(name) if name == "old" => {
                let mut promised = Promised { appended: u64::MAX, ..Promised::default() };
                let embedder = Embedder::take(store, seed, &mut promised).map_err(|stop| format!("{stop:?}"))?;
                let at = (embedder.step, embedder.store.log().next_seq());
                if at == (STEP, STEP + 1) { Ok(There::Whole) } else { Err(format!("the copy stands at {at:?}")) }
            }
            other => Err(format!("{names:?} opened as a store of savepoint {other:?}")),
        },
        Err(Error::Invalid(said)) if said.contains("unfinished copy") && said.contains("copy again") => {
            if acknowledged { Err(format!("acknowledged, but {said}")) } else { Ok(There::Unfinished) }
        }
        Err(e) => Err(e.to_string()),
    }
}

/// A whole copy can be worked with; of an unfinished one `inspect` tells it.
fn work_on(disk: &SimDisk, seed: u64, there: There, moment: &Moment) -> Result<(), String> {
    match there {
        There::Nothing => Ok(()),
        There::Whole if moment.nested.is_some() => Ok(()),
        There::Whole => check_copy(&shared(disk), COPY, seed, "old", STEP),
        There::Unfinished => {
            let report = inspect(&shared(disk), Path::new(COPY), true).map_err(|e| e.to_string())?;
            let tells = report.unread.iter().any(|said| said.contains("unfinished copy"));
            if tells && !report.is_sound() { Ok(()) } else { Err(format!("inspect does not tell: {report:#?}")) }
        }
    }
}

fn explore_as(how: Explore, seed: u64, rule: Option<&Sabotage>) -> Result<(Tally, u64), String> {
    let mut unfinished = 0;
    let tally = how.run_on(
        |disk| workload(disk, seed, rule),
        |disk, acknowledged, _| recover(disk, seed, *acknowledged),
        |disk, _, there, moment| {
            unfinished += u64::from(*there == There::Unfinished);
            work_on(disk, seed, *there, moment)
        },
    );
    tally.map(|tally| (tally, unfinished)).map_err(|failure| format!("BACKSTAY_SEED={seed}: {failure}"))
}

/// Loses power at every operation, and tries every fate of what is pending where it is little enough.
pub fn explore(seed: u64, rule: Option<&Sabotage>) -> Result<(Tally, u64), String> {
    explore_as(Explore::new(seed).outcomes(256, number_from("BACKSTAY_CRASH_RUNS", 1)), seed, rule)
}

#[test]
fn every_crash_leaves_a_whole_copy_or_one_that_does_not_open() {
    let (tally, unfinished) = explore(seed(), None).unwrap_or_else(|failure| panic!("{failure}"));
    println!("BACKSTAY_SEED={}: {tally:?}, {unfinished} unfinished", seed());
    assert!(unfinished > 50, "too few to show anything: {tally:?}");
}

#[test]
fn every_crash_in_opening_a_copy_is_recovered_from() {
    let how = Explore::new(seed()).crash_every(4).outcomes(0, 1).nested(1, u64::MAX);
    let (tally, _) = explore_as(how, seed(), None).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(tally.nested > 100, "too few to show anything: {tally:?}");
}

/// The syncs that copying shares with a checkpoint and the log, turned into lies.
#[test]
fn every_missing_sync_of_a_copy_is_noticed() {
    let rules = [
        (SyncKind::File, "copy/checkpoints", "the manifest's bytes"),
        (SyncKind::Dir, "copy/checkpoints", "the manifest's name"),
        (SyncKind::File, "copy/log", "the segment's bytes"),
        (SyncKind::Dir, "copy/log", "the segment's name"),
        (SyncKind::DurableWrite, "copy/log", "the segment's link"),
        (SyncKind::File, "copy/runs", "the runs' bytes"),
        (SyncKind::Dir, "copy/runs", "the runs' names"),
        (SyncKind::File, "copy/queue", "the extra files' bytes"),
        (SyncKind::Dir, "copy/queue", "the extra files' names"),
    ];
    let mut unnoticed = Vec::new();
    for (kind, path, what) in rules {
        let rule = Sabotage { kind, path: path.into(), nth: None };
        match explore(seed(), Some(&rule)) {
            Err(failure) => println!("without {what}: {}", failure.lines().next().unwrap_or_default()),
            Ok((tally, _)) => unnoticed.push(format!("{what} ({kind:?} of {path}): {tally:?}")),
        }
    }
    assert!(unnoticed.is_empty(), "BACKSTAY_SEED={}: not noticed: {unnoticed:#?}", seed());
}

/// An operation of the copy that fails: an error, a directory that does not open, and an original that goes on.
#[test]
fn a_failed_copy_does_not_open_and_harms_nothing() {
    let seed = seed();
    let mut failed = 0;
    for (op, fault) in (1..).flat_map(|op| [(op, Fault::Io), (op, Fault::ShortWrite), (op, Fault::NoSpace)]) {
        let disk = SimDisk::new(seed);
        let mut embedder = original(&disk, seed).unwrap();
        let begun = disk.ops();
        disk.fail_at(begun + op, fault);
        let copied = copy_savepoint(&shared(&disk), Path::new(DIR), "old", Path::new(COPY));
        if disk.ops() < begun + op {
            copied.unwrap();
            break;
        }
        let at = format!("{fault:?} at operation {op}: {copied:?}");
        let there = recover(&disk, seed, copied.is_ok()).unwrap_or_else(|why| panic!("{at}: {why}"));
        assert!(copied.is_ok() || there != There::Whole || op > 20, "{at}");
        failed += u64::from(copied.is_err());
        assert_eq!(embedder.store.poisoned(), None, "{at}");
        let mut promised = Promised { appended: u64::MAX, ..Promised::default() };
        embedder.steps(1, &mut promised).unwrap();
        embedder.checkpoint(&mut promised).unwrap();
        if copied.is_err() && there != There::Nothing {
            let again = copy_savepoint(&shared(&disk), Path::new(DIR), "old", Path::new(COPY)).unwrap_err();
            assert!(matches!(again, Error::Invalid(_)), "{at}: {again}");
        }
        copy_savepoint(&shared(&disk), Path::new(DIR), "old", Path::new("/another")).unwrap();
        check_copy(&shared(&disk), "/another", seed, "old", STEP).unwrap_or_else(|why| panic!("{at}: {why}"));
    }
    assert!(failed > 40, "too few to show anything: {failed}");
}

/// A flipped bit in each file that a savepoint names, at many places: the copy is refused with the original's file, or is
/// what it should be.
pub fn damage_in_the_source(seed: u64) -> Result<u64, String> {
    let disk = SimDisk::new(seed);
    drop(original(&disk, seed).map_err(|stop| format!("{stop:?}"))?);
    let files =
        disk.list_all().into_iter().filter(|p| ["runs", "queue"].iter().any(|f| p.starts_with(Path::new(DIR).join(f))));
    let mut refused = 0;
    for file in files {
        let len = disk.read_file(&file).map_err(|e| e.to_string())?.len() as u64;
        for offset in (0..len).step_by(if len > 4096 { 407 } else { 61 }) {
            let bad = disk.power_cycle(CrashPlan::KeepAll);
            bad.flip_bit(&file, offset, 2).map_err(|e| e.to_string())?;
            match copy_savepoint(&shared(&bad), Path::new(DIR), "old", Path::new(COPY)) {
                Ok(_) => drop(recover(&bad, seed, true)?),
                Err(Error::Damaged(damage)) if damage.file == file => refused += 1,
                Err(e) => return Err(format!("byte {offset} of {}: {e}", file.display())),
            }
        }
    }
    Ok(refused)
}

#[test]
fn damage_is_not_copied() {
    let refused = damage_in_the_source(seed()).unwrap_or_else(|why| panic!("{why}"));
    assert!(refused > 20, "too few to show anything: {refused}");
}
