//! Savepoints made and removed, with a loss of power, a kill or a failure at every I/O, and in the recovery from it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use backstay_storage::disk::SimDisk;
use backstay_storage::disk::sim::{CrashPlan, Explore, Fault, Moment, Tally};
use backstay_storage::inspect::inspect;
use backstay_storage::{Error, copy_savepoint};

use super::savepoint::{check_copy, shared};
use super::workload::{DIR, Embedder, Promised, Stop};
use super::{number_from, seed};

#[derive(Clone, Copy, Debug)]
pub enum Act {
    Steps(u64),
    Checkpoint,
    Save(&'static str),
    Remove(&'static str),
    Reopen,
}

/// Savepoints of checkpoints with and without an extra file, that outlive them; a name that is given twice.
const SCRIPT: &[Act] = {
    use Act::{Checkpoint, Remove, Reopen, Save, Steps};
    &[
        Steps(1),
        Checkpoint,
        Save("a"),
        Steps(2),
        Checkpoint,
        Steps(1),
        Checkpoint,
        Save("b"),
        Steps(1),
        Checkpoint,
        Remove("a"),
        Reopen,
        Save("a"),
        Steps(1),
        Checkpoint,
        Steps(2),
        Checkpoint,
        Remove("b"),
        Steps(1),
    ]
};

/// What was promised, of savepoints too.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    pub promised: Promised,
    /// The step of the newest checkpoint that returned.
    checkpointed: u64,
    /// The savepoints that are there, and their steps.
    there: BTreeMap<String, u64>,
    /// One that is being made or removed: it may be there or not.
    doubtful: Option<(String, u64)>,
}

/// The savepoints that a store tells, and their steps.
fn told_by(embedder: &Embedder) -> BTreeMap<String, u64> {
    let step = |blob: &[u8]| u64::from_le_bytes(blob.try_into().expect("a blob of ours"));
    embedder.store.savepoints().into_iter().map(|s| (s.name, step(&s.blob))).collect()
}

impl Saved {
    /// Opens the store and compares what it tells with what was promised, and all that the savepoints name.
    pub fn open(&mut self, disk: &SimDisk, seed: u64) -> Result<Embedder, Stop> {
        let embedder = Embedder::open(shared(disk), seed, &mut self.promised)?;
        let told = told_by(&embedder);
        let mut expected = self.there.clone();
        if let Some((name, step)) = &self.doubtful
            && told.contains_key(name)
        {
            expected.insert(name.clone(), *step);
        }
        if told != expected {
            return Err(Stop::Wrong(format!("savepoints {told:?}, not {expected:?} (in doubt: {:?})", self.doubtful)));
        }
        let report = inspect(&shared(disk), Path::new(DIR), true)?;
        if let Some(unread) = report.unread.first() {
            return Err(Stop::Refused(Error::Invalid(unread.clone())));
        }
        if let Some(broken) = report.savepoints.iter().find(|s| !s.whole) {
            return Err(Stop::Wrong(format!("savepoint {:?} is not whole: {:#?}", broken.name, report.damage)));
        }
        // What is there now is durable.
        (self.there, self.doubtful) = (told, None);
        Ok(embedder)
    }

    pub fn act(&mut self, embedder: Embedder, act: Act, disk: &SimDisk, seed: u64) -> Result<Embedder, Stop> {
        let mut embedder = embedder;
        match act {
            Act::Steps(count) => embedder.steps(count, &mut self.promised)?,
            Act::Checkpoint => {
                let step = embedder.step;
                embedder.checkpoint(&mut self.promised)?;
                self.checkpointed = step;
            }
            Act::Save(name) => {
                self.doubtful = Some((name.into(), self.checkpointed));
                embedder.store.savepoint(name)?;
                self.doubtful = None;
                self.there.insert(name.into(), self.checkpointed);
            }
            Act::Remove(name) => {
                self.doubtful = self.there.remove_entry(name);
                embedder.store.remove_savepoint(name)?;
                self.doubtful = None;
            }
            Act::Reopen => {
                drop(embedder);
                embedder = self.open(disk, seed)?;
            }
        }
        if let (Act::Save(_) | Act::Remove(_), got) = (act, told_by(&embedder))
            && got != self.there
        {
            return Err(Stop::Wrong(format!("savepoints {got:?}, not {:?}", self.there)));
        }
        Ok(embedder)
    }

    fn run(&mut self, disk: &SimDisk, seed: u64) -> Result<(), Stop> {
        let mut embedder = self.open(disk, seed)?;
        for act in SCRIPT {
            embedder = self.act(embedder, *act, disk, seed)?;
        }
        Ok(())
    }
}

fn told(stop: Stop) -> String {
    match stop {
        Stop::Refused(e) => format!("refused: {e}"),
        Stop::Wrong(why) => why,
    }
}

fn workload(disk: &SimDisk, seed: u64) -> Result<Saved, String> {
    let mut saved = Saved::default();
    match saved.run(disk, seed) {
        Ok(()) if disk.is_down() => Err("the loss of power went unnoticed".into()),
        Err(Stop::Refused(_)) if disk.is_down() => Ok(saved),
        Ok(()) => Ok(saved),
        Err(stop) => Err(told(stop)),
    }
}

fn recover(disk: &SimDisk, seed: u64, saved: &Saved) -> Result<(u64, BTreeMap<String, u64>), Stop> {
    let mut saved = saved.clone();
    let mut open = || -> Result<_, Stop> {
        let embedder = saved.open(disk, seed)?;
        assert!(!disk.is_down(), "the loss of power went unnoticed");
        Ok((embedder.step, told_by(&embedder)))
    };
    let (first, again) = (open()?, open()?);
    if first != again {
        return Err(Stop::Wrong(format!("opened twice: first {first:?}, then {again:?}")));
    }
    Ok(first)
}

/// Goes on after some recoveries: nothing is left over, and each savepoint can be copied and opened.
fn work_on(disk: &SimDisk, seed: u64, saved: &Saved, moment: &Moment) -> Result<(), Stop> {
    if moment.nested.is_some() || (moment.plan != CrashPlan::KeepNone && !moment.op.is_multiple_of(5)) {
        return Ok(());
    }
    let mut saved = saved.clone();
    let mut embedder = saved.open(disk, seed)?;
    for _ in 0..3 {
        embedder.steps(1, &mut saved.promised)?;
        embedder.checkpoint(&mut saved.promised)?;
    }
    let report = inspect(&shared(disk), Path::new(DIR), true)?;
    if !report.is_sound() || !report.unnamed.is_empty() {
        return Err(Stop::Wrong(format!("not clean after opening and checkpoints: {report:#?}")));
    }
    for (name, step) in told_by(&embedder) {
        let to = format!("/copy-of-{name}");
        copy_savepoint(&shared(disk), Path::new(DIR), &name, Path::new(&to))?;
        check_copy(&shared(disk), &to, seed, &name, step).map_err(Stop::Wrong)?;
        embedder.store.remove_savepoint(&name)?;
    }
    drop(embedder);
    saved.there.clear();
    saved.open(disk, seed)?;
    let report = inspect(&shared(disk), Path::new(DIR), true)?;
    match report.is_sound() && report.unnamed.is_empty() {
        true => Ok(()),
        false => Err(Stop::Wrong(format!("not clean after the removal of the savepoints: {report:#?}"))),
    }
}

fn explore_as(how: Explore, seed: u64) -> Result<Tally, String> {
    let tally = how.run_on(
        |disk| workload(disk, seed),
        |disk, saved, _| recover(disk, seed, saved).map_err(told),
        |disk, saved, _, moment| work_on(disk, seed, saved, moment).map_err(told),
    );
    tally.map_err(|failure| format!("BACKSTAY_SEED={seed}: {failure}"))
}

/// Loses power at every operation.
pub fn explore(seed: u64, runs: u64) -> Result<Tally, String> {
    explore_as(Explore::new(seed).outcomes(0, runs), seed)
}

#[test]
fn every_crash_leaves_each_savepoint_whole_or_absent() {
    let seed = seed();
    let tally = explore(seed, number_from("BACKSTAY_CRASH_RUNS", 1)).unwrap_or_else(|failure| panic!("{failure}"));
    println!("BACKSTAY_SEED={seed}: {} crash points, {} recoveries", tally.crash_points, tally.recoveries);
    assert!(tally.crash_points > 200, "the workload has become too short to show anything: {tally:?}");
}

#[test]
fn every_crash_in_recovery_leaves_each_savepoint_whole_or_absent() {
    let seed = seed();
    let how = Explore::new(seed).crash_every(30).outcomes(0, 1).nested(3, 60);
    let tally = explore_as(how, seed).unwrap_or_else(|failure| panic!("{failure}"));
    println!("BACKSTAY_SEED={seed}: {} crash points, {} crashes in recovery", tally.crash_points, tally.nested);
    assert!(tally.nested > 200, "too few crashes to show anything: {tally:?}");
}

#[test]
fn every_outcome_of_a_crash_leaves_each_savepoint_whole_or_absent() {
    let seed = seed();
    let how = Explore::new(seed).crash_every(7).outcomes(256, 1);
    let tally = explore_as(how, seed).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(tally.exhausted * 2 > tally.crash_points, "hardly any crash was exhausted: {tally:?}");
}

/// An operation that fails, as at a kill, an I/O error or a full disk: opening anew finds what was promised, with the
/// machine up and then after a loss of power at an operation of what follows.
pub fn fail_everywhere(seed: u64, stride: usize) -> Result<u64, String> {
    let mut tried = 0;
    for (i, fault) in (1..).flat_map(|op| [(op, Fault::NoSpace), (op, Fault::Io)]).step_by(stride) {
        let disk = SimDisk::new(seed);
        disk.fail_at(i, fault);
        let at = format!("BACKSTAY_SEED={seed}, {fault:?} at operation {i}");
        let mut saved = Saved::default();
        match saved.run(&disk, seed) {
            Ok(()) if disk.ops() < i => break,
            Ok(()) => continue, // a fault that does not fit the operation
            Err(Stop::Refused(_)) => {}
            // The file of a savepoint could not be read at an opening, which says so and goes on.
            Err(Stop::Wrong(why)) if why.contains("warnings without damage") && why.contains("cannot be read") => {
                continue;
            }
            Err(stop) => return Err(format!("{at}: {}", told(stop))),
        }
        let after = i * 7 % 60;
        disk.crash_at(disk.ops() + 1 + after);
        let went_on = saved.open(&disk, seed).and_then(|mut again| {
            (0..3).try_for_each(|_| {
                again.steps(1, &mut saved.promised)?;
                again.checkpoint(&mut saved.promised)
            })
        });
        match went_on {
            Err(Stop::Refused(_)) if disk.is_down() => {}
            Err(stop) => return Err(format!("{at}, opened again: {}", told(stop))),
            Ok(()) => {}
        }
        for plan in [CrashPlan::KeepNone, CrashPlan::Seeded(seed ^ i)] {
            let opened = saved.clone().open(&disk.power_cycle(plan), seed);
            opened.map_err(|stop| format!("{at}, power lost {after} operations later ({plan:?}): {}", told(stop)))?;
            tried += 1;
        }
    }
    Ok(tried)
}

#[test]
fn every_failed_operation_leaves_each_savepoint_whole_or_absent() {
    let seed = seed();
    let tried = fail_everywhere(seed, 1).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(tried > 200, "too few to show anything: {tried}");
}

/// A process that is killed between making or removing a savepoint and the sync of the folder, and a loss of power after
/// the next opening has built upon what it saw.
pub fn killed_in_between(seed: u64) -> Result<(), String> {
    for act in [Act::Save("b"), Act::Remove("a")] {
        for op in 1..8 {
            let disk = SimDisk::new(seed);
            let mut saved = Saved::default();
            let mut embedder = saved.open(&disk, seed).map_err(told)?;
            let before = [Act::Steps(1), Act::Checkpoint, Act::Save("a"), Act::Steps(1), Act::Checkpoint];
            for act in before.into_iter().chain([Act::Steps(1), Act::Checkpoint]) {
                embedder = saved.act(embedder, act, &disk, seed).map_err(told)?;
            }
            disk.fail_at(disk.ops() + op, Fault::NoSpace);
            if let Ok(embedder) = saved.act(embedder, act, &disk, seed) {
                drop(embedder);
                continue;
            }
            // Clears up, and is told what is there.
            drop(saved.open(&disk, seed).map_err(told)?);
            let up = disk.power_cycle(CrashPlan::KeepNone);
            let at = format!("killed at operation {op} of {act:?}, opened, power lost");
            saved.open(&up, seed).map_err(|stop| format!("{at}: {}", told(stop)))?;
        }
    }
    Ok(())
}

#[test]
fn an_opening_builds_on_durable_savepoints_only() {
    killed_in_between(seed()).unwrap();
}

/// The same disk under two threads is left to real files.
#[test]
fn savepoints_are_made_and_copied_while_others_write() {
    use backstay_storage::disk::PosixDisk;
    use backstay_storage::{Checkpoint, Store, StoreOptions};
    let dir = tempfile::tempdir().unwrap();
    let (from, disk) = (dir.path().join("store"), Arc::new(PosixDisk::new()));
    let disk: Arc<dyn backstay_storage::disk::Disk> = disk;
    let options = || StoreOptions { log: super::workload::options(1).log, ..StoreOptions::default() };
    let store = Store::open(Arc::clone(&disk), &from, options()).unwrap();
    let mut spine = store.spine("s", backstay_storage::spine::Discipline::Weighted, 1).unwrap();
    let (mut copied, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let (store, disk, from) = (&store, &disk, &from);
        let writer = scope.spawn(move || {
            for step in 1..=61u64 {
                let mut rows = backstay_storage::spine::RowBatch::new();
                rows.push(&step.to_be_bytes(), b"", 1);
                spine.insert_batch(&rows).unwrap();
                store.log().append(&step.to_le_bytes()).unwrap();
                let extras = vec![store.write_extra("pending", &[step as u8; 3000]).unwrap()];
                let blob = step.to_le_bytes().to_vec().into();
                let (frozen, log_from) = (vec![spine.snapshot()], store.log().next_seq());
                store.checkpoint(Checkpoint { frozen, blob, log_from, extras, ..Checkpoint::default() }).unwrap();
                if step % 3 == 1 {
                    store.savepoint("now").unwrap();
                } else if step % 3 == 0 {
                    store.remove_savepoint("now").unwrap();
                }
            }
        });
        for i in 0.. {
            // The last savepoint stays: the last copy finds it.
            let over = writer.is_finished();
            let to = dir.path().join(format!("copy-{i}"));
            match copy_savepoint(disk, from, "now", &to) {
                Ok(_) => {
                    let copy = Store::open(Arc::clone(disk), &to, options()).unwrap();
                    let step = u64::from_le_bytes(copy.recovered().unwrap().blob[..].try_into().unwrap());
                    let extra = copy.read_extra(&copy.recovered().unwrap().extras[0]).unwrap();
                    assert_eq!(extra[..], [step as u8; 3000]);
                    let spine = copy.spine("s", backstay_storage::spine::Discipline::Weighted, 1).unwrap();
                    let mut cursor = spine.cursor().unwrap();
                    for expected in 1..=step {
                        assert_eq!(cursor.key(), expected.to_be_bytes());
                        cursor.next().unwrap();
                    }
                    assert!(!cursor.valid());
                    copied += 1;
                }
                Err(Error::Invalid(said)) => {
                    assert!(said.contains("no savepoint") || said.contains("was removed"), "{said}");
                    refused += 1;
                    if said.contains("was removed") {
                        let e = Store::open(Arc::clone(disk), &to, options()).unwrap_err();
                        assert!(e.to_string().contains("unfinished copy"), "{e}");
                    }
                }
                Err(e) => panic!("{e}"),
            }
            if over {
                break;
            }
        }
        writer.join().unwrap();
    });
    println!("{copied} copied, {refused} refused");
    assert!(copied > 0, "{refused} refused");
}
