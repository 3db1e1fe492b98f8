//! Who inserts into a spine is slowed by the work beside the steps, and held up by nothing but tables that are to be written, at the
//! bound of memory: not by a merge, however long it takes, and not by somebody who still reads what was merged or written.
//!
//! On real threads and files. The disk can keep the store's own thread from ending a run file: that stands for a merge, or a write of
//! tables, that takes for ever.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use backstay_storage::disk::{
    DirEntry, DirLock, Disk, DiskInfo, DiskStats, File, IoQueue, Metadata, OpenOptions, PosixDisk,
};
use backstay_storage::spine::{Discipline, RowBatch, Snapshot, Spine};
use backstay_storage::{Checkpoint, Result, Store, StoreOptions};

/// What memtables may hold.
const BOUND: u64 = 2 << 20;
/// For ever, as far as a test can tell. Nothing here takes a hundredth of it.
const FOR_EVER: Duration = Duration::from_secs(60);
/// Nothing comes any more.
const QUIET: Duration = Duration::from_secs(2);

/// A disk that stops the store's own threads where a run file becomes durable.
#[derive(Debug)]
struct Gate {
    inner: PosixDisk,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    shut: bool,
    /// Threads that stand before it.
    waiting: usize,
}

impl Gate {
    fn shut() -> Arc<Self> {
        let state = Mutex::new(State { shut: true, waiting: 0 });
        Arc::new(Self { inner: PosixDisk::new(), state, changed: Condvar::new() })
    }

    fn open(&self) {
        self.state.lock().unwrap().shut = false;
        self.changed.notify_all();
    }

    /// Waits until a thread stands before it.
    fn wait(&self) {
        let state = self.state.lock().unwrap();
        let (_state, out) = self.changed.wait_timeout_while(state, FOR_EVER, |state| state.waiting == 0).unwrap();
        assert!(!out.timed_out(), "the store's thread had nothing to write");
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.shut).unwrap();
        state.waiting -= 1;
    }
}

/// Opens it in any case: a store ends when its threads do.
struct Opened<'a>(&'a Gate);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

impl Disk for Gate {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn File>> {
        self.inner.open(path, options)
    }
    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.inner.create_dir_all(path)
    }
    fn sync_dir(&self, dir: &Path) -> Result<()> {
        if std::thread::current().name().is_some_and(|name| name.starts_with("backstay-merge")) {
            self.pass();
        }
        self.inner.sync_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        self.inner.remove(path)
    }
    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        self.inner.list(dir)
    }
    fn metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        self.inner.metadata(path)
    }
    fn lock_dir(&self, dir: &Path) -> Result<DirLock> {
        self.inner.lock_dir(dir)
    }
    fn queue(&self, depth: usize) -> Result<Box<dyn IoQueue>> {
        self.inner.queue(depth)
    }
    fn info(&self) -> DiskInfo {
        self.inner.info()
    }
    fn stats(&self) -> DiskStats {
        self.inner.stats()
    }
}

/// A store with one spine, and one thread beside the inserts.
fn open(gate: &Arc<Gate>, dir: &Path) -> (Store, Spine) {
    let options =
        StoreOptions { memory_bytes: BOUND + (1 << 20), cache_bytes: Some(1 << 20), ..StoreOptions::default() };
    let disk: Arc<dyn Disk> = Arc::<Gate>::clone(gate);
    let store = Store::open(disk, dir, options).unwrap();
    let spine = store.spine("rows", Discipline::Weighted, 1).unwrap();
    (store, spine)
}

/// Inserts until a table is full and the store's thread stands before the gate with it. Before it does nobody may insert on: under load whoever
/// inserts could write all tables before that thread comes to it.
fn fill_a_table(gate: &Gate, spine: &mut Spine) {
    let mut number = 2_000_000;
    while spine.stats().frozen_tables == 0 {
        spine.insert_batch(&rows(number)).unwrap();
        number += 1;
    }
    gate.wait();
}

/// 10 kB of rows that were not there yet.
fn rows(number: u64) -> RowBatch {
    let mut batch = RowBatch::new();
    (0..100).for_each(|i| batch.push(&(number * 100 + i).to_be_bytes(), &[7; 92], 1));
    batch
}

/// Bytes in memtables, by the owner.
fn held(spine: &Spine) -> u64 {
    let stats = spine.stats();
    stats.memtable_bytes + stats.frozen_bytes
}

/// Lets go of the readers' tables when a test fails, so that it ends.
struct Readers(Mutex<Option<Vec<Snapshot>>>);

impl Readers {
    fn let_go_if_failed(&self) -> impl Drop + '_ {
        struct LetGo<'a>(&'a Readers);
        impl Drop for LetGo<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.0.lock().unwrap().take();
                }
            }
        }
        LetGo(self)
    }
}

/// Inserts `count` times on a thread of its own, and tells after each what is in memory then. `f` may not wait for its end. Of the first
/// inserts it takes `readers` snapshots, of a third of the bound each, and holds them to the end.
fn inserting<T>(spine: &mut Spine, count: u64, readers: usize, f: impl FnOnce(&Receiver<u64>) -> T) -> T {
    let (tell, told) = channel();
    let held_by_readers = Readers(Mutex::new(Some(Vec::new())));
    std::thread::scope(|scope| {
        let held_by_readers = &held_by_readers;
        scope.spawn(move || {
            for number in 0..count {
                spine.insert_batch(&rows(1_000_000 + number)).unwrap();
                if let Some(snapshots) = &mut *held_by_readers.0.lock().unwrap()
                    && snapshots.len() < readers
                    && (number + 1) % (BOUND / 3 / 10_000) == 0
                {
                    snapshots.push(spine.snapshot());
                }
                if tell.send(held(spine)).is_err() {
                    break;
                }
            }
            let snapshots = held_by_readers.0.lock().unwrap();
            let sizes = snapshots.iter().flatten().map(|snapshot| {
                let (mut rows, mut cursor) = (0, snapshot.cursor().unwrap());
                while cursor.valid() {
                    rows += 1;
                    cursor.next().unwrap();
                }
                rows
            });
            let sizes: Vec<u64> = sizes.collect();
            let more = |pair: &[u64]| pair[1] - pair[0] == BOUND / 3 / 10_000 * 100;
            assert!(sizes.windows(2).all(more), "what was read is what was there before: {sizes:?}");
        });
        let _end = held_by_readers.let_go_if_failed();
        f(&told)
    })
}

/// All `count` inserts end.
fn all_end(told: &Receiver<u64>, count: u64, meanwhile: &dyn fmt::Display) {
    for done in 0..count {
        assert!(told.recv_timeout(FOR_EVER).is_ok(), "insert {done} of {count} waits while {meanwhile}");
    }
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    (dir, path)
}

/// Runs of checkpoints are merged by the store's thread, which does not come to an end. Meanwhile ten times the bound is inserted. Somebody
/// reads what is being merged, and others hold, to the end, tables of more than the bound that were written: no table is left
/// to be written then, and nothing to wait for.
#[test]
fn no_insert_waits_for_a_merge() {
    let (_dir, path) = folder();
    let gate = Gate::shut();
    let (store, mut spine) = open(&gate, &path);
    let opened = Opened(&gate);
    let mut number = 0;
    while gate.state.lock().unwrap().waiting == 0 {
        assert!(number < 1000, "nothing is merged: {:?}", spine.stats());
        // Large enough that a checkpoint does not merge them itself.
        for _ in 0..30 {
            spine.insert_batch(&rows(number)).unwrap();
            number += 1;
        }
        store.checkpoint(Checkpoint { frozen: vec![spine.snapshot()], ..Checkpoint::default() }).unwrap();
        assert_eq!(spine.stats().frozen_tables, 0, "the thread may be held at writing tables instead");
    }
    let before = spine.stats().runs;
    assert!(before > 1, "{:?}", spine.stats());
    let mut cursor = spine.cursor().unwrap();
    let count = 10 * BOUND / 10_000;
    inserting(&mut spine, count, 5, |told| {
        let _opened = Opened(&gate);
        all_end(told, count, &"a merge does not end");
        assert_eq!(gate.state.lock().unwrap().waiting, 1, "the merge ended after all");
    });
    let mut seen = 0;
    while cursor.valid() {
        seen += 1;
        cursor.next().unwrap();
    }
    assert_eq!(seen, number * 100, "what was read is what was there before");
    drop(opened);
}

/// The store's thread does not come to an end with writing tables: inserts go on until the bound is reached, wait there and nowhere
/// before, and go on when the tables are written.
#[test]
fn an_insert_waits_for_tables_at_the_bound_and_not_before() {
    let (_dir, path) = folder();
    let gate = Gate::shut();
    let (_store, mut spine) = open(&gate, &path);
    let _opened = Opened(&gate);
    fill_a_table(&gate, &mut spine);
    let count = 10 * BOUND / 10_000;
    inserting(&mut spine, count, 0, |told| {
        let _opened = Opened(&gate);
        let (mut most, mut done) = (0, 0);
        while let Ok(held) = told.recv_timeout(if most == 0 { FOR_EVER } else { QUIET }) {
            (most, done) = (held, done + 1);
            assert!(held <= BOUND, "{held} bytes are held after insert {done}, of {BOUND}, and it did not wait");
        }
        gate.wait();
        assert!(most > BOUND - BOUND / 16, "insert {done} waits with {most} bytes held, of {BOUND}");
        gate.open();
        all_end(told, count - done, &"the tables can be written");
    });
}

/// Tables that were written, and that only a reader has still, fill memory, and what else is in it is not written: inserts wait. The
/// reader goes, and there is room.
#[test]
fn an_insert_goes_on_when_a_reader_makes_room() {
    let (_dir, path) = folder();
    let gate = Gate::shut();
    let (store, mut spine) = open(&gate, &path);
    let mut number = 0;
    while spine.stats().memtable_bytes < BOUND / 3 {
        spine.insert_batch(&rows(number)).unwrap();
        number += 1;
    }
    let snapshot = spine.snapshot();
    store.checkpoint(Checkpoint { frozen: vec![snapshot.clone()], ..Checkpoint::default() }).unwrap();
    assert_eq!(held(&spine), 0);
    let _opened = Opened(&gate);
    fill_a_table(&gate, &mut spine);
    let count = 10 * BOUND / 10_000;
    inserting(&mut spine, count, 0, |told| {
        let _opened = Opened(&gate);
        let until_quiet = |wait| {
            let mut last = None;
            while let Ok(held) = told.recv_timeout(if last.is_none() { wait } else { QUIET }) {
                last = Some(held);
            }
            last
        };
        let with_reader = until_quiet(FOR_EVER).unwrap();
        assert!(with_reader < BOUND - BOUND / 4, "{with_reader} bytes beside the reader's");
        drop(snapshot);
        let without = until_quiet(FOR_EVER).expect("an insert waits for room that there is");
        assert!(without > BOUND - BOUND / 16, "inserts wait with {without} bytes held, of {BOUND}");
    });
}

/// Snapshots of more than memory may hold: their tables stay there after they were written. There is nothing to wait for.
#[test]
fn no_insert_waits_for_readers() {
    let (_dir, path) = folder();
    let gate = Gate::shut();
    gate.open();
    let (_store, mut spine) = open(&gate, &path);
    let count = 10 * BOUND / 10_000;
    inserting(&mut spine, count, 5, |told| all_end(told, count, &"somebody reads"));
    let stats = spine.stats();
    assert!(stats.frozen_bytes < BOUND && stats.runs > 0, "{stats:?}");
}
