//! Savepoints without trouble: what they keep, what they refuse, and for how long.

use std::path::Path;
use std::sync::Arc;

use backstay_storage::disk::{Disk, SimDisk};
use backstay_storage::inspect::inspect;
use backstay_storage::{Checkpoint, Error, Store, copy_savepoint};

use super::seed;
use super::workload::{DIR, Embedder, Promised, options};

pub fn shared(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// How many files of a folder of the store there are.
pub fn count(disk: &SimDisk, folder: &str) -> usize {
    disk.list_all().iter().filter(|p| p.starts_with(Path::new(DIR).join(folder))).count()
}

/// Opens a copy of a savepoint, and checks that it holds the state after `step` and goes on from there.
pub fn check_copy(disk: &Arc<dyn Disk>, dir: &str, seed: u64, name: &str, step: u64) -> Result<(), String> {
    let told = |e: &dyn std::fmt::Debug| format!("copy {dir} of savepoint {name}: {e:?}");
    let open = || Store::open(Arc::clone(disk), Path::new(dir), options(seed)).map_err(|e| told(&e));
    let mut promised = Promised { appended: u64::MAX, ..Promised::default() };
    let store = open()?;
    let from = store.recovered().and_then(|r| r.savepoint.clone());
    if from.as_deref() != Some(name) {
        return Err(told(&format!("it says that it is one of {from:?}")));
    }
    let mut embedder = Embedder::take(store, seed, &mut promised).map_err(|e| told(&e))?;
    if embedder.step != step || promised.durable != step {
        return Err(told(&format!("it stands at step {}, not {step}", embedder.step)));
    }
    // An opening that takes no checkpoint is still one of the copy, with its records.
    embedder.steps(2, &mut promised).map_err(|e| told(&e))?;
    drop(embedder);
    let store = open()?;
    if store.recovered().and_then(|r| r.savepoint.as_deref()) != Some(name) {
        return Err(told(&"opened again without a checkpoint it is none any more"));
    }
    let mut embedder = Embedder::take(store, seed, &mut promised).map_err(|e| told(&e))?;
    embedder.checkpoint(&mut promised).and_then(|()| embedder.steps(1, &mut promised)).map_err(|e| told(&e))?;
    drop(embedder);
    let store = open()?;
    if store.recovered().is_none_or(|r| r.savepoint.is_some()) {
        return Err(told(&"with a checkpoint of its own it still says that it is a copy"));
    }
    let mut embedder = Embedder::take(store, seed, &mut promised).map_err(|e| told(&e))?;
    embedder.take_checkpoint(&mut promised).map_err(|e| told(&e))?;
    let report = inspect(disk, Path::new(dir), true).map_err(|e| told(&e))?;
    match report.is_sound() && report.unnamed.is_empty() {
        true => Ok(()),
        false => Err(told(&report)),
    }
}

#[test]
fn a_savepoint_outlives_the_checkpoints_after_it_and_no_longer() {
    let seed = seed();
    let disk = SimDisk::new(seed);
    let mut promised = Promised::default();
    let mut embedder = Embedder::open(shared(&disk), seed, &mut promised).unwrap();
    embedder.steps(3, &mut promised).unwrap();
    embedder.checkpoint(&mut promised).unwrap();
    let saved = embedder.store.savepoint("early").unwrap();
    assert_eq!((saved.number, saved.epoch, saved.log_from), (1, 1, 4));
    assert_eq!((&saved.blob[..], saved.extras.len()), (&3u64.to_le_bytes()[..], 1));
    for round in 0..6 {
        embedder.steps(2, &mut promised).unwrap();
        embedder.checkpoint(&mut promised).unwrap();
        assert_eq!(embedder.store.savepoints(), std::slice::from_ref(&saved), "round {round}");
        assert!(embedder.store.log().first_seq() > 1 || round < 4, "it holds no log");
        let extra = embedder.store.read_extra(&saved.extras[0]).unwrap();
        assert_eq!(extra[..], super::model::extra_of(seed, 3)[..]);
        if round % 2 == 1 {
            drop(embedder);
            embedder = Embedder::open(shared(&disk), seed, &mut promised).unwrap();
        }
    }
    let report = inspect(&shared(&disk), Path::new(DIR), true).unwrap();
    assert!(report.is_sound() && report.unnamed.is_empty(), "{report:#?}");
    assert_eq!(report.savepoints.iter().map(|s| (s.name.as_str(), s.whole)).collect::<Vec<_>>(), [("early", true)]);
    copy_savepoint(&shared(&disk), Path::new(DIR), "early", Path::new("/copy")).unwrap();
    check_copy(&shared(&disk), "/copy", seed, "early", 3).unwrap();

    let (runs, extras) = (count(&disk, "runs"), count(&disk, "queue"));
    embedder.store.remove_savepoint("early").unwrap();
    assert!(count(&disk, "runs") <= runs && count(&disk, "queue") < extras, "{:?}", disk.list_all());
    assert_eq!((embedder.store.savepoints(), count(&disk, "savepoints")), (vec![], 0));
    assert!(embedder.store.read_extra(&saved.extras[0]).is_err());
    embedder.check_state().unwrap();
    drop(embedder);
    let report = inspect(&shared(&disk), Path::new(DIR), true).unwrap();
    assert!(report.is_sound() && report.unnamed.is_empty(), "{report:#?}");
    let mut again = Embedder::open(shared(&disk), seed, &mut promised).unwrap();
    again.checkpoint(&mut promised).unwrap();
    check_copy(&shared(&disk), "/copy", seed, "early", 3).unwrap_err();
}

#[test]
fn what_cannot_be_is_refused_with_nothing_done() {
    let seed = seed();
    let disk = SimDisk::new(seed);
    let store = Store::open(shared(&disk), Path::new(DIR), options(seed)).unwrap();
    let invalid = |e: Error, what: &str| assert!(matches!(&e, Error::Invalid(said) if said.contains(what)), "{e}");
    invalid(store.savepoint("a").unwrap_err(), "no checkpoint yet");
    store.checkpoint(Checkpoint::default()).unwrap();
    for name in ["", "A", "a/b", "..", "-a"] {
        invalid(store.savepoint(name).unwrap_err(), "not a savepoint's name");
        let copied = copy_savepoint(&shared(&disk), Path::new(DIR), name, Path::new("/copy"));
        invalid(copied.unwrap_err(), "not a savepoint's name");
    }
    store.savepoint("a").unwrap();
    invalid(store.savepoint("a").unwrap_err(), "already");
    invalid(store.remove_savepoint("b").unwrap_err(), "no savepoint \"b\"");
    let copy = |name, to: &str| copy_savepoint(&shared(&disk), Path::new(DIR), name, Path::new(to));
    invalid(copy("b", "/copy").unwrap_err(), "no savepoint \"b\"");
    assert!(disk.metadata(Path::new("/copy")).unwrap().is_none(), "nothing was begun");
    assert!(matches!(copy("a", DIR).unwrap_err(), Error::Locked { .. }), "the store itself");
    drop(store);
    invalid(copy("a", DIR).unwrap_err(), "not empty");
    invalid(copy_savepoint(&shared(&disk), Path::new("/none"), "a", Path::new("/copy")).unwrap_err(), "no savepoint");
    let store = Store::open(shared(&disk), Path::new(DIR), options(seed)).unwrap();
    assert_eq!((store.poisoned(), store.savepoints().len()), (None, 1));
    // The name may be given again once it is free, to what is the newest then.
    store.checkpoint(Checkpoint::default()).unwrap();
    store.remove_savepoint("a").unwrap();
    assert_eq!(store.savepoint("a").unwrap().number, 2);
}

/// A savepoint may keep one that is older than all that an opening still knows, in a copy of a copy too.
#[test]
fn a_copy_can_be_saved_and_copied_in_turn() {
    let seed = seed();
    let disk = SimDisk::new(seed);
    let mut promised = Promised::default();
    let mut embedder = Embedder::open(shared(&disk), seed, &mut promised).unwrap();
    embedder.steps(5, &mut promised).unwrap();
    embedder.checkpoint(&mut promised).unwrap();
    embedder.store.savepoint("one").unwrap();
    copy_savepoint(&shared(&disk), Path::new(DIR), "one", Path::new("/a")).unwrap();
    let copy = Store::open(shared(&disk), Path::new("/a"), options(seed)).unwrap();
    assert!(copy.savepoints().is_empty(), "the original's savepoints stay there");
    let saved = copy.savepoint("two").unwrap();
    assert_eq!((saved.number, saved.name.as_str()), (1, "two"));
    copy_savepoint(&shared(&disk), Path::new("/a"), "two", Path::new("/b")).unwrap();
    check_copy(&shared(&disk), "/b", seed, "two", 5).unwrap();
    drop(copy);
    check_copy(&shared(&disk), "/a", seed, "one", 5).unwrap();
}

/// A checkpoint that asks for the log from before its state: the copy's log begins there, and holds none of it.
#[test]
fn a_copys_log_goes_on_where_the_checkpoint_asked_for_it() {
    let disk = SimDisk::new(1);
    let store = Store::open(shared(&disk), Path::new(DIR), options(1)).unwrap();
    for log_from in [1, 4] {
        for _ in 0..5 {
            store.log().append(b"record").unwrap();
        }
        store.checkpoint(Checkpoint { log_from, ..Checkpoint::default() }).unwrap();
        let (name, to) = (format!("from-{log_from}"), format!("/from-{log_from}"));
        assert_eq!(store.savepoint(&name).unwrap().log_from, log_from);
        copy_savepoint(&shared(&disk), Path::new(DIR), &name, Path::new(&to)).unwrap();
        let copy = Store::open(shared(&disk), Path::new(&to), options(1)).unwrap();
        assert_eq!((copy.log().first_seq(), copy.log().next_seq()), (log_from, log_from));
        assert_eq!(copy.log().scan(log_from).unwrap().count(), 0);
        assert!(copy.epoch() > store.epoch() && copy.id() == store.id());
        copy.checkpoint(Checkpoint { log_from, ..Checkpoint::default() }).unwrap();
        drop(copy);
        // From here on it is a store like any: its log may not be lost.
        for segment in disk.list_all().into_iter().filter(|p| p.starts_with(Path::new(&to).join("log"))) {
            disk.remove(&segment).unwrap();
        }
        let lost = Store::open(shared(&disk), Path::new(&to), options(1));
        assert!(log_from == 1 || matches!(lost, Err(Error::Damaged(_))), "{lost:?}");
    }
}
