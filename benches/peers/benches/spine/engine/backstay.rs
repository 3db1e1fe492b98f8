//! Backstay's spine: all that this bench knows of it is here.
//!
//! Settings: as shipped, with a log of small segments, since nothing is appended to it. Full memtables are written, and runs merged, by the
//! store's one thread; checkpoints are taken at the end, and where a workload asks for them.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use backstay_storage::log::LogOptions;
use backstay_storage::spine::{Discipline, KeyBatch, RowBatch, Snapshot, Spine};
use backstay_storage::{Checkpoint, Store, StoreOptions, disk};

use super::{Engine, Given, Shape, look};
use crate::data::{Batch, Key};
use crate::limits;

/// An open store with one spine.
pub struct Backstay {
    spine: Spine,
    /// Whether a counter is the weight of a row; else it is read and written.
    weights: bool,
    checkpointer: Checkpointer,
    rows: RowBatch,
    keys: KeyBatch,
}

impl Backstay {
    /// `weights`: counters are added to by adding to the weight of a row beside the key's first one, which nobody reads for that. The
    /// spine is a weighted one then.
    pub fn open(folder: &Path, shape: Shape, given: Given, weights: bool) -> Self {
        let options = StoreOptions {
            new_id: 7,
            memory_bytes: given.cache + given.memtables,
            cache_bytes: Some(given.cache),
            log: LogOptions { segment_bytes: 1 << 20, spare_segments: 0, ..LogOptions::default() },
            ..StoreOptions::default()
        };
        let store = Arc::new(Store::open(disk::system(), folder, options).expect("open the store"));
        let discipline = match shape {
            Shape::Latest if !weights => Discipline::Latest,
            Shape::Latest | Shape::Several => Discipline::Weighted,
        };
        let spine = store.spine("bench", discipline, 1).expect("a spine");
        let checkpointer = Checkpointer::start(store);
        Self { spine, weights, checkpointer, rows: RowBatch::new(), keys: KeyBatch::new() }
    }

    /// Starts a checkpoint on the other thread, if none is under way.
    pub fn checkpoint(&mut self) -> bool {
        let free = self.checkpointer.is_free();
        if free {
            self.checkpointer.take(self.spine.snapshot());
        }
        free
    }

    /// Waits for the checkpoint that is under way; how long each took, and how many bytes it wrote, since the last call.
    pub fn checkpoints(&mut self) -> Vec<(Duration, u64)> {
        self.checkpointer.wait();
        std::mem::take(&mut self.checkpointer.done)
    }

    fn insert_rows(&mut self) {
        self.spine.insert_batch(&self.rows).expect("insert");
    }

    fn set_keys<'a>(&mut self, keys: impl Iterator<Item = &'a Key>) {
        self.keys.clear();
        keys.for_each(|key| self.keys.push(key));
    }
}

impl Engine for Backstay {
    fn insert(&mut self, batch: &Batch) {
        self.rows.clear();
        for (i, key) in batch.keys.iter().enumerate() {
            self.rows.push(key, batch.value(i), 1);
        }
        self.insert_rows();
    }

    fn add(&mut self, deltas: &[(Key, u64)]) {
        if self.weights {
            self.rows.clear();
            deltas.iter().for_each(|(key, delta)| self.rows.push(key, &[], *delta as i64));
            return self.insert_rows();
        }
        self.set_keys(deltas.iter().map(|(key, _)| key));
        let found = self.spine.probe(&self.keys).expect("probe");
        self.rows.clear();
        let mut value = Vec::new();
        for (i, (key, delta)) in deltas.iter().enumerate() {
            let row = found.range(i);
            assert!(!row.is_empty(), "a counter is gone");
            value.clear();
            value.extend_from_slice(found.rows.value(row.start));
            crate::data::add(&mut value, *delta);
            self.rows.push(key, &value, 1);
        }
        self.insert_rows();
    }

    fn finish(&mut self) {
        self.checkpointer.wait();
        self.checkpointer.take(self.spine.snapshot());
        self.checkpointer.wait();
    }

    fn settle(&mut self) {
        self.checkpointer.wait();
        // Merges go on by themselves, and one brings on the next.
        limits::settle();
        // Checkpoints of nothing new: files that only the ones before them named are removed.
        for _ in 0..2 {
            self.checkpointer.take(self.spine.snapshot());
            self.checkpointer.wait();
        }
    }

    fn probe(&mut self, keys: &[Key]) -> u64 {
        self.set_keys(keys.iter());
        let found = self.spine.probe(&self.keys).expect("probe");
        black_box((0..found.rows.len()).fold(0, |sum, i| sum ^ look(found.rows.value(i))));
        found.rows.len() as u64
    }

    fn scan(&mut self) -> u64 {
        let mut cursor = self.spine.cursor().expect("a cursor");
        let (mut rows, mut sum) = (0, 0);
        while cursor.valid() {
            rows += 1;
            sum ^= look(cursor.value());
            cursor.next().expect("next");
        }
        black_box(sum);
        rows
    }

    fn ranges(&mut self, starts: &[Key], rows: usize) -> u64 {
        let mut cursor = self.spine.cursor().expect("a cursor");
        let (mut read, mut sum) = (0, 0);
        for start in starts {
            cursor.seek(start).expect("seek");
            for _ in 0..rows {
                if !cursor.valid() {
                    break;
                }
                read += 1;
                sum ^= look(cursor.value());
                cursor.next().expect("next");
            }
        }
        black_box(sum);
        read
    }

    fn join(&mut self, keys: &[Key]) -> u64 {
        self.probe(keys)
    }

    fn beside(&self) -> &[&str] {
        &["log"]
    }
}

/// A thread that takes checkpoints, one at a time.
struct Checkpointer {
    frozen: Option<Sender<Snapshot>>,
    finished: Receiver<(Duration, u64)>,
    under_way: usize,
    done: Vec<(Duration, u64)>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    fn start(store: Arc<Store>) -> Self {
        let (frozen, to_write) = channel::<Snapshot>();
        let (finish, finished) = channel();
        let thread = thread::spawn(move || {
            for frozen in to_write {
                let begun = Instant::now();
                let log_from = store.log().next_seq();
                let checkpoint = Checkpoint { frozen: vec![frozen], log_from, ..Checkpoint::default() };
                let info = store.checkpoint(checkpoint).expect("checkpoint");
                if finish.send((begun.elapsed(), info.bytes)).is_err() {
                    return;
                }
            }
        });
        Self { frozen: Some(frozen), finished, under_way: 0, done: Vec::new(), thread: Some(thread) }
    }

    fn take(&mut self, frozen: Snapshot) {
        self.frozen.as_ref().expect("a running checkpointer").send(frozen).expect("a running checkpointer");
        self.under_way += 1;
    }

    fn is_free(&mut self) -> bool {
        while let Ok(done) = self.finished.try_recv() {
            self.under_way -= 1;
            self.done.push(done);
        }
        self.under_way == 0
    }

    fn wait(&mut self) {
        while self.under_way > 0 {
            self.done.push(self.finished.recv().expect("a running checkpointer"));
            self.under_way -= 1;
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.frozen = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What it is told.
pub fn describe() {
    println!(
        "backstay:    {}; memory_bytes = cache + memtables, cache_bytes = cache; one thread beside writes memtables and merges",
        super::version("backstay-storage")
    );
}
