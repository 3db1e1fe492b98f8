//! Opening: the lock, the identity, the epoch, the spines' formats, and what stays of old checkpoints.

use std::path::Path;
use std::sync::Arc;

use backstay_storage::disk::{Disk, PosixDisk, SimDisk};
use backstay_storage::inspect::inspect;
use backstay_storage::spine::Discipline;
use backstay_storage::{Checkpoint, Error, Store, StoreOptions};

use super::workload::{DIR, options};

fn open(disk: &SimDisk) -> Result<Store, Error> {
    Store::open(Arc::new(disk.clone()), Path::new(DIR), options(1))
}

#[test]
fn a_second_opener_is_refused_with_path_and_process() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(Arc::new(PosixDisk::new()), dir.path(), StoreOptions::default());
    let first = open().unwrap();
    let e = open().unwrap_err();
    let Error::Locked { path, holder } = &e else { panic!("{e}") };
    assert_eq!((path.as_path(), *holder), (dir.path(), Some(std::process::id())));
    assert!(e.to_string().contains(&format!("pid {}", std::process::id())), "{e}");
    drop(first);
    open().unwrap();
}

#[test]
fn the_lock_lasts_as_long_as_anything_that_could_write() {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    let (log, spine) = (Arc::clone(store.log()), store.spine("s", Discipline::Latest, 1).unwrap());
    drop(store);
    assert!(matches!(open(&disk), Err(Error::Locked { .. })), "the log can still write");
    drop(log);
    assert!(matches!(open(&disk), Err(Error::Locked { .. })), "the spine is still there");
    drop(spine);
    open(&disk).unwrap();
}

#[test]
fn the_identity_is_that_of_the_creation_with_and_without_a_checkpoint() {
    let disk = SimDisk::new(1);
    let open_as = |new_id| Store::open(Arc::new(disk.clone()), Path::new(DIR), StoreOptions { new_id, ..options(1) });
    let store = open_as(11).unwrap();
    assert_eq!(store.id(), 11);
    store.log().append(b"x").unwrap();
    store.log().commit().unwrap();
    drop(store);
    let store = open_as(22).unwrap();
    assert_eq!(store.id(), 11, "the log tells it");
    store.checkpoint(Checkpoint::default()).unwrap();
    drop(store);
    assert_eq!(open_as(33).unwrap().id(), 11, "the manifest tells it");
}

#[test]
fn each_opening_has_a_newer_epoch() {
    let disk = SimDisk::new(1);
    let epochs: Vec<u64> = (0..4).map(|_| open(&disk).unwrap().epoch()).collect();
    assert!(epochs.windows(2).all(|pair| pair[0] < pair[1]), "{epochs:?}");
}

#[test]
fn a_spine_is_opened_once_and_only_as_what_it_is() {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    let mut spine = store.spine("sums", Discipline::Weighted, 3).unwrap();
    assert!(matches!(store.spine("sums", Discipline::Weighted, 3), Err(Error::Invalid(_))));
    store.checkpoint(Checkpoint { frozen: vec![spine.snapshot()], ..Checkpoint::default() }).unwrap();
    drop((spine, store));
    let store = open(&disk).unwrap();
    assert_eq!(store.spine_names(), ["sums"]);
    for (discipline, format) in [(Discipline::Latest, 3), (Discipline::Weighted, 4)] {
        let e = store.spine("sums", discipline, format).unwrap_err();
        assert!(matches!(e, Error::Unsupported { .. }), "{e}");
        assert!(e.to_string().contains("00000001-00000001.manifest"), "{e}");
    }
    store.spine("sums", Discipline::Weighted, 3).unwrap();
}

#[test]
fn spines_that_are_not_frozen_are_carried_over_unless_dropped() {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    let (mut a, mut b) =
        (store.spine("a", Discipline::Latest, 1).unwrap(), store.spine("b", Discipline::Latest, 1).unwrap());
    for spine in [&mut a, &mut b] {
        let mut rows = backstay_storage::spine::RowBatch::new();
        rows.push(b"key", b"value", 1);
        spine.insert_batch(&rows).unwrap();
    }
    store.checkpoint(Checkpoint { frozen: vec![a.snapshot(), b.snapshot()], ..Checkpoint::default() }).unwrap();
    store.checkpoint(Checkpoint { frozen: vec![a.snapshot()], ..Checkpoint::default() }).unwrap();
    drop((a, b, store));
    let store = open(&disk).unwrap();
    let mut b = store.spine("b", Discipline::Latest, 1).unwrap();
    assert_eq!(b.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    store.checkpoint(Checkpoint { dropped: vec!["a".into()], ..Checkpoint::default() }).unwrap();
    drop((b, store));
    assert_eq!(open(&disk).unwrap().spine_names(), ["b"]);
}

#[test]
fn requests_that_cannot_be_met_do_nothing() {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    let mut spine = store.spine("s", Discipline::Latest, 1).unwrap();
    let bad = [
        (Checkpoint { log_from: 0, ..Checkpoint::default() }, "from record 0"),
        (Checkpoint { log_from: 2, ..Checkpoint::default() }, "from record 2"),
        (Checkpoint { extras: vec!["00000001-00000009.x".into()], ..Checkpoint::default() }, "no extra file"),
        (Checkpoint { frozen: vec![spine.snapshot(), spine.snapshot()], ..Checkpoint::default() }, "twice"),
    ];
    for (checkpoint, what) in bad {
        let e = store.checkpoint(checkpoint).unwrap_err();
        assert!(matches!(&e, Error::Invalid(said) if said.contains(what)), "{e}");
    }
    assert!(matches!(store.write_extra("../x", b""), Err(Error::Invalid(_))));
    assert_eq!((store.poisoned(), store.stats().checkpoints), (None, 0));
    let few = StoreOptions { keep_checkpoints: 1, ..options(1) };
    assert!(matches!(Store::open(Arc::new(disk), Path::new("/other"), few), Err(Error::Invalid(_))));
}

#[test]
fn extra_files_live_as_long_as_a_checkpoint_names_them() {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    let kept = store.write_extra("pending", b"named once").unwrap();
    let waiting = store.write_extra("pending", b"to be named later").unwrap();
    store.checkpoint(Checkpoint { extras: vec![kept.clone()], ..Checkpoint::default() }).unwrap();
    store.checkpoint(Checkpoint::default()).unwrap();
    assert_eq!(&store.read_extra(&kept).unwrap()[..], b"named once", "the older kept checkpoint names it");
    store.checkpoint(Checkpoint { extras: vec![waiting.clone()], ..Checkpoint::default() }).unwrap();
    assert!(store.read_extra(&kept).is_err(), "no kept checkpoint names it");
    drop(store);
    let store = open(&disk).unwrap();
    assert_eq!(store.recovered().unwrap().extras.as_slice(), std::slice::from_ref(&waiting));
    assert_eq!(&store.read_extra(&waiting).unwrap()[..], b"to be named later");
    let files: Vec<_> = disk.list_all().into_iter().filter(|p| p.starts_with("/store/queue")).collect();
    assert_eq!(files, [Path::new(DIR).join("queue").join(waiting)]);
}

#[test]
fn only_what_is_kept_stays_on_disk() {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    let mut spine = store.spine("s", Discipline::Weighted, 1).unwrap();
    for n in 1..=12u8 {
        let mut rows = backstay_storage::spine::RowBatch::new();
        rows.push(&[n], b"value", 1);
        spine.insert_batch(&rows).unwrap();
        store.log().append(&[n; 9000]).unwrap();
        let log_from = store.log().next_seq();
        let done = store.checkpoint(Checkpoint { frozen: vec![spine.snapshot()], log_from, ..Checkpoint::default() });
        assert_eq!(done.unwrap().number, u64::from(n));
    }
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let report = inspect(&shared, Path::new(DIR), true).unwrap();
    assert!(report.is_sound() && report.unnamed.is_empty(), "{report:#?}");
    assert_eq!(report.checkpoints.iter().map(|c| c.manifest.number).collect::<Vec<_>>(), [11, 12]);
    assert_eq!(store.stats().kept_checkpoints, 2);
    let oldest = report.checkpoints[0].manifest.log_from;
    assert!(store.log().first_seq() > 1 && store.log().first_seq() <= oldest, "trimmed, but not too far");
}

#[test]
fn inspecting_writes_nothing_and_needs_no_lock() {
    let disk = SimDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    assert!(inspect(&shared, Path::new(DIR), true).is_err(), "there is no such directory");
    let store = open(&disk).unwrap();
    store.log().append(b"record").unwrap();
    store.log().commit().unwrap();
    let before = disk.stats();
    let report = inspect(&shared, Path::new(DIR), true).unwrap();
    let after = disk.stats();
    assert!(report.is_sound() && report.checkpoints.is_empty(), "{report:#?}");
    assert_eq!((report.store_id, report.epoch), (Some(store.id()), 1));
    assert_eq!((before.writes, before.durable_writes, before.syncs), (after.writes, after.durable_writes, after.syncs));
}
