//! A store that is left alone merges its runs until few are left; one that is asked to does so at once.

#![expect(
    clippy::disallowed_methods,
    reason = "a test waits for a thread of the store's, and looks at what is on the real disk"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay_storage::disk::{Disk, QuotaDisk, SimDisk};
use backstay_storage::spine::{Discipline, RowBatch, Spine};
use backstay_storage::{Checkpoint, Error, Store, StoreOptions, disk};

/// For ever, as far as a test can tell.
const FOR_EVER: Duration = Duration::from_secs(60);

/// A spine of some runs that no rule merges while it is in use: each newer one is smaller. Every key is in all of them.
fn filled(store: &Store) -> Spine {
    let mut spine = store.spine("s", Discipline::Latest, 1).unwrap();
    for (part, keys) in [40_000u32, 9_000, 2_000].into_iter().enumerate() {
        let mut rows = RowBatch::new();
        (0..keys).for_each(|key| rows.push(&key.to_be_bytes(), &[part as u8; 100], 1));
        // And some that are deleted again.
        (0..keys / 10).for_each(|key| rows.push(&(1_000_000 + key).to_be_bytes(), b"", if part == 0 { 1 } else { -1 }));
        spine.insert_batch(&rows).unwrap();
        checkpoint(store, &mut spine);
    }
    assert_eq!(spine.stats().runs, 3);
    spine
}

fn checkpoint(store: &Store, spine: &mut Spine) {
    store.checkpoint(Checkpoint { frozen: vec![spine.snapshot()], ..Checkpoint::default() }).unwrap();
}

/// Of the 40,000 keys and of those that were deleted, which are there, and from which insert.
fn check(spine: &mut Spine) {
    let mut cursor = spine.cursor().unwrap();
    let (mut at, mut beside) = (0u32, 900);
    while cursor.valid() {
        let key = u32::from_be_bytes(cursor.key().try_into().unwrap());
        if key < 1_000_000 {
            let part = [2_000, 9_000].iter().filter(|&&keys| at < keys).count();
            assert_eq!((key, cursor.value()), (at, &[part as u8; 100][..]));
            at += 1;
        } else {
            assert_eq!(key, 1_000_000 + beside, "one that was not deleted");
            beside += 1;
        }
        cursor.next().unwrap();
    }
    assert_eq!((at, beside), (40_000, 4_000));
}

#[test]
fn a_store_that_is_left_alone_merges_its_runs() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Store::open(disk::system(), folder.path(), StoreOptions::default()).unwrap();
    let store = open();
    let mut spine = filled(&store);
    let before = spine.stats();
    let begun = Instant::now();
    while spine.stats().runs > 1 {
        assert!(begun.elapsed() < FOR_EVER, "{:?}", spine.stats());
        std::thread::sleep(Duration::from_millis(10));
    }
    check(&mut spine);
    let rested = spine.stats();
    assert_eq!(rested.run_rows, 43_100, "what was written over or deleted is gone, tombstones too");
    assert!(rested.run_bytes < before.run_bytes);
    // What only older checkpoints named goes with them.
    (0..2).for_each(|_| checkpoint(&store, &mut spine));
    assert_eq!(std::fs::read_dir(folder.path().join("runs")).unwrap().count(), 1);
    drop((store, spine));
    let store = open();
    let mut spine = store.spine("s", Discipline::Latest, 1).unwrap();
    assert_eq!(spine.stats().runs, 1);
    check(&mut spine);
}

/// On a disk that allows no threads nobody else would.
#[test]
fn a_store_merges_its_runs_when_it_is_told_to() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let open = || Store::open(Arc::clone(&disk), Path::new("/store"), StoreOptions::default()).unwrap();
    let store = open();
    let mut spine = filled(&store);
    let older = spine.snapshot();
    store.compact().unwrap();
    assert_eq!(spine.stats().runs, 1);
    check(&mut spine);
    let written = store.stats().disk.written_bytes;
    store.compact().unwrap();
    assert_eq!(store.stats().disk.written_bytes, written, "nothing is left to do");
    let mut cursor = older.cursor().unwrap();
    let mut rows = 0;
    while cursor.valid() {
        rows += 1;
        cursor.next().unwrap();
    }
    assert_eq!(rows, 43_100, "a snapshot goes on reading what it has");
    // A little is not worth rewriting much.
    let mut rows = RowBatch::new();
    (0..2_000u32).for_each(|key| rows.push(&key.to_be_bytes(), &[2; 100], 1));
    spine.insert_batch(&rows).unwrap();
    checkpoint(&store, &mut spine);
    store.compact().unwrap();
    assert_eq!(spine.stats().runs, 2);
    drop((store, spine, older, cursor));
    let mut spine = open().spine("s", Discipline::Latest, 1).unwrap();
    check(&mut spine);
}

/// What nobody needs to be merged must not fill the disk up.
#[test]
fn without_room_nothing_is_merged_and_nothing_is_lost() {
    let sim = SimDisk::new(2);
    sim.create_dir_all(Path::new("/store")).unwrap();
    let quota = Arc::new(QuotaDisk::new(Arc::new(sim), Path::new("/store"), u64::MAX).unwrap());
    let disk: Arc<dyn Disk> = Arc::clone(&quota) as _;
    let store = Store::open(disk, Path::new("/store"), StoreOptions::default()).unwrap();
    let mut spine = filled(&store);
    let (runs, used) = (spine.stats().run_bytes, quota.used());
    quota.set_limit(used + runs * 2 - 1);
    let refused = store.compact().unwrap_err();
    assert!(matches!(refused, Error::NoSpace { .. }) && refused.to_string().contains("spine \"s\""), "{refused}");
    assert_eq!((spine.stats().runs, quota.used(), store.poisoned()), (3, used, None));
    check(&mut spine);
    quota.set_limit(used + runs * 2);
    store.compact().unwrap();
    assert_eq!(spine.stats().runs, 1);
    check(&mut spine);
}
