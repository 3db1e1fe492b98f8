//! dbsp's spine with storage on: what Feldera's operators keep their state in. It takes part in `join` only, the one workload that is a
//! step of an incremental view.
//!
//! Settings: one worker, storage as shipped (batches of 10 MiB and more in files, no compression, the kernel's page cache for reads, which
//! is the default since it is the quicker of its two), its own cache of all that an engine is given. Rows are read as its join operator reads
//! them by default: one cursor over all batches, `seek_key_exact` for each key of the delta, in order.
//!
//! Known limits: nothing of it is durable, since a spine outside of a circuit has no checkpoints; its merges are waited for by watching this
//! process's processor time. A value is 13 numbers, 104 bytes. The allocator is the program's, not mimalloc, which its own benches use.

use std::hint::black_box;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use dbsp::circuit::{
    CircuitConfig, CircuitStorageConfig, RuntimeHandle, StorageCacheConfig, StorageConfig, StorageOptions,
};
use dbsp::dynamic::{DowncastTrait, Erase};
use dbsp::trace::{BatchReader, BatchReaderFactories, Cursor, Spine, Trace};
use dbsp::utils::{Tup2, Tup3, Tup10};
use dbsp::{OrdIndexedZSet, Runtime, ZWeight, typed_batch};

use super::{Engine, Given};
use crate::data::{Batch, Key};
use crate::limits;

type Words = Tup10<u64, u64, u64, u64, u64, u64, u64, u64, u64, u64>;
type RowKey = Tup2<u64, u64>;
type RowValue = Tup2<Words, Tup3<u64, u64, u64>>;
type Rows = OrdIndexedZSet<RowKey, RowValue>;
type Inner = <Rows as typed_batch::BatchReader>::Inner;

/// What the worker's thread is asked.
enum Request {
    Insert(Vec<Tup2<Tup2<RowKey, RowValue>, ZWeight>>),
    Join(Vec<RowKey>),
    Stop,
}

/// A spine in a runtime's only worker.
pub struct Dbsp {
    runtime: Option<RuntimeHandle>,
    requests: Sender<Request>,
    answers: Receiver<u64>,
}

impl Dbsp {
    pub fn open(folder: &Path, given: Given) -> Self {
        let storage = CircuitStorageConfig::for_config(
            StorageConfig {
                path: folder.to_str().expect("a folder's name").to_owned(),
                cache: StorageCacheConfig::default(),
            },
            StorageOptions { cache_mib: Some((given.total() >> 20) as usize), ..StorageOptions::default() },
        );
        let config = CircuitConfig::with_workers(1)
            .with_storage(Some(storage.expect("open dbsp's storage")))
            .with_max_rss_bytes(Some(limits::of(given.total())));
        let (requests, asked) = channel();
        let (answer, answers) = channel();
        // A runtime wants a closure that it could run in several workers.
        let asked = Arc::new(Mutex::new(asked));
        let runtime = Runtime::run(config, move |_parker| work(&asked.lock().expect("one worker"), &answer));
        Self { runtime: Some(runtime.expect("start dbsp")), requests, answers }
    }

    fn ask(&mut self, request: Request) -> u64 {
        self.requests.send(request).expect("dbsp's worker has ended");
        self.answers.recv().expect("dbsp's worker has ended")
    }
}

fn work(requests: &Receiver<Request>, answers: &Sender<u64>) {
    let factories = BatchReaderFactories::new::<RowKey, RowValue, ZWeight>();
    let mut spine = Spine::<Inner>::new(&factories, Arc::new("bench".to_owned()));
    while let Ok(request) = requests.recv() {
        let rows = match request {
            Request::Insert(rows) => {
                let batch = Rows::from_tuples((), rows).into_inner();
                let rows = batch.len() as u64;
                futures_executor::block_on(spine.insert(batch));
                rows
            }
            Request::Join(keys) => join(&spine, &keys),
            Request::Stop => return,
        };
        if answers.send(rows).is_err() {
            return;
        }
    }
}

fn join(spine: &Spine<Inner>, keys: &[RowKey]) -> u64 {
    let (mut rows, mut sum) = (0, 0);
    let mut cursor = spine.cursor();
    for key in keys {
        if !cursor.seek_key_exact(key.erase(), None) {
            continue;
        }
        while cursor.val_valid() {
            if **cursor.weight() != 0 {
                rows += 1;
                sum ^= cursor.val().downcast_checked::<RowValue>().0.1;
            }
            cursor.step_val();
        }
    }
    black_box(sum);
    rows
}

impl Engine for Dbsp {
    fn insert(&mut self, batch: &Batch) {
        let row = |(i, key): (usize, &Key)| Tup2(Tup2(row_key(key), row_value(batch.value(i))), 1);
        let rows = batch.keys.iter().enumerate().map(row).collect();
        self.ask(Request::Insert(rows));
    }

    fn add(&mut self, _: &[(Key, u64)]) {
        unreachable!("dbsp takes part in join only");
    }

    fn finish(&mut self) {}

    fn settle(&mut self) {
        limits::settle();
    }

    fn probe(&mut self, _: &[Key]) -> u64 {
        unreachable!("dbsp takes part in join only");
    }

    fn scan(&mut self) -> u64 {
        unreachable!("dbsp takes part in join only");
    }

    fn ranges(&mut self, _: &[Key], _: usize) -> u64 {
        unreachable!("dbsp takes part in join only");
    }

    fn join(&mut self, keys: &[Key]) -> u64 {
        self.ask(Request::Join(keys.iter().map(row_key).collect()))
    }
}

impl Drop for Dbsp {
    fn drop(&mut self) {
        let _ = self.requests.send(Request::Stop);
        if let Some(runtime) = self.runtime.take() {
            runtime.kill().expect("stop dbsp");
        }
    }
}

/// A key in the same order.
fn row_key(key: &Key) -> RowKey {
    let (first, second) = key.split_at(8);
    let word = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("8 bytes"));
    Tup2(word(first), word(second))
}

fn row_value(value: &[u8]) -> RowValue {
    let word = |i: usize| {
        let mut bytes = [0; 8];
        let piece = &value[i * 8..value.len().min(i * 8 + 8)];
        bytes[..piece.len()].copy_from_slice(piece);
        u64::from_le_bytes(bytes)
    };
    let words = Tup10(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7), word(8), word(9));
    Tup2(words, Tup3(word(10), word(11), word(12)))
}

/// What it is told.
pub fn describe() {
    println!(
        "dbsp:        crate {}; in join only; one worker, storage on, cache_mib = cache + memtables, page cache",
        super::version("dbsp")
    );
}
