//! `StoreReader`: one checkpoint's state, whatever the store does meanwhile.

#![expect(clippy::disallowed_methods, reason = "the test reads on a thread beside the store's, and damages a file")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backstay_storage::disk::{Disk, SimDisk};
use backstay_storage::spine::{Discipline, RowBatch, Spine};
use backstay_storage::{Checkpoint, Error, Store, StoreOptions, StoreReader, disk};

const CACHE: u64 = 1 << 20;

/// Rows a step adds. Step `n` replaces the value of every key by `n`, so that a torn state shows.
const KEYS: u64 = 2000;

fn step(store: &Store, spine: &mut Spine, n: u64) -> Result<(), Error> {
    let mut rows = RowBatch::new();
    for key in 0..KEYS {
        rows.push(&key.to_be_bytes(), &n.to_be_bytes(), 1);
    }
    spine.insert_batch(&rows)?;
    let blob = n.to_be_bytes().to_vec().into();
    store.checkpoint(Checkpoint { frozen: vec![spine.snapshot()], blob, ..Checkpoint::default() })?;
    Ok(())
}

/// The step that the state says it is of; panics if not every row is of it.
fn check(reader: &StoreReader) -> u64 {
    let n = u64::from_be_bytes(reader.blob()[..].try_into().unwrap());
    let mut cursor = reader.spine("state").unwrap().cursor().unwrap();
    let mut rows = 0;
    while cursor.valid() {
        assert_eq!(cursor.value(), n.to_be_bytes(), "row {rows} of the checkpoint of step {n}");
        rows += 1;
        cursor.next().unwrap();
    }
    assert_eq!(rows, KEYS);
    n
}

#[test]
fn a_reader_sees_one_checkpoint_while_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { memory_bytes: 1 << 20, keep_checkpoints: 2, ..StoreOptions::default() };
    let store = Store::open(disk::system(), dir.path(), options).unwrap();
    let mut spine = store.spine("state", Discipline::Latest, 1).unwrap();
    step(&store, &mut spine, 1).unwrap();
    store.savepoint("first").unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let reading = {
        let (done, dir) = (Arc::clone(&done), dir.path().to_path_buf());
        std::thread::spawn(move || {
            let mut seen = vec![];
            let early = StoreReader::newest(&disk::system(), &dir, CACHE).unwrap().unwrap();
            while !done.load(Ordering::Acquire) {
                let reader = StoreReader::newest(&disk::system(), &dir, CACHE).unwrap().unwrap();
                seen.push(check(&reader));
            }
            // Its files were removed long ago.
            check(&early);
            assert_eq!(check(&StoreReader::savepoint(&disk::system(), &dir, "first", CACHE).unwrap()), 1);
            seen
        })
    };
    for n in 2..60 {
        step(&store, &mut spine, n).unwrap();
    }
    done.store(true, Ordering::Release);
    let seen = reading.join().unwrap();
    assert!(seen.is_sorted(), "{seen:?}");
    let last = StoreReader::newest(&disk::system(), dir.path(), CACHE).unwrap().unwrap();
    assert_eq!((check(&last), last.number()), (59, 59));
}

#[test]
fn reading_changes_nothing_and_needs_no_lock() {
    let sim = SimDisk::new(super::seed());
    let shared: Arc<dyn Disk> = Arc::new(sim.clone());
    let dir = Path::new("/s");
    let store = Store::open(Arc::clone(&shared), dir, StoreOptions::default()).unwrap();
    assert!(StoreReader::newest(&shared, dir, CACHE).unwrap().is_none(), "no checkpoint yet");
    let mut spine = store.spine("state", Discipline::Latest, 1).unwrap();
    step(&store, &mut spine, 1).unwrap();
    store.savepoint("first").unwrap();
    let files = |folder: &str| shared.list(&dir.join(folder)).unwrap().len();
    let before = ["runs", "checkpoints", "savepoints", "log", ""].map(files);
    check(&StoreReader::newest(&shared, dir, CACHE).unwrap().unwrap());
    check(&StoreReader::savepoint(&shared, dir, "first", CACHE).unwrap());
    assert_eq!(["runs", "checkpoints", "savepoints", "log", ""].map(files), before);
    step(&store, &mut spine, 2).unwrap();
}

#[test]
fn what_is_damaged_or_missing_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let newest = || StoreReader::newest(&disk::system(), dir.path(), CACHE);
    {
        let store = Store::open(disk::system(), dir.path(), StoreOptions::default()).unwrap();
        let mut spine = store.spine("state", Discipline::Latest, 1).unwrap();
        step(&store, &mut spine, 1).unwrap();
        step(&store, &mut spine, 2).unwrap();
    }
    let missing = StoreReader::savepoint(&disk::system(), dir.path(), "none", CACHE).unwrap_err();
    assert!(missing.to_string().contains("there is no savepoint \"none\""), "{missing}");
    assert_eq!(check(&newest().unwrap().unwrap()), 2);
    let mut manifests: Vec<_> =
        std::fs::read_dir(dir.path().join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    manifests.sort();
    let newest_file = manifests.last().unwrap();
    let mut bytes = std::fs::read(newest_file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(newest_file, bytes).unwrap();
    assert!(matches!(newest(), Err(Error::Damaged(_))), "the older one is not what was asked for");
    assert!(StoreReader::newest(&disk::system(), &dir.path().join("nowhere"), CACHE).is_err());
}
