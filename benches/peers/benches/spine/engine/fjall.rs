//! fjall's keyspaces.
//!
//! Settings: as shipped (leveled, LZ4 from level 2 on, and everywhere where sizes are compared, a worker for each core), with the journal handed to the kernel when it
//! likes and synced at the end only (`manual_journal_persist`): it cannot be turned off. It has no direct I/O and no batched look-up: the kernel's
//! page cache is a second block cache for it where no cgroup bounds that, and it is asked key by key.

use std::hint::black_box;
use std::path::Path;
use std::thread;
use std::time::Duration;

use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Engine, Given, Shape, look, several_key};
use crate::data::{self, Batch, Key};

/// How long nothing must be under way for it to count as settled.
const QUIET: Duration = Duration::from_millis(100);

/// An open database with one keyspace.
pub struct Fjall {
    db: Database,
    rows: Keyspace,
    shape: Shape,
}

impl Fjall {
    pub fn open(folder: &Path, shape: Shape, given: Given) -> Self {
        let db =
            Database::builder(folder).cache_size(given.cache).manual_journal_persist(true).open().expect("open fjall");
        let options = || {
            let options = KeyspaceCreateOptions::default();
            let options = options.max_memtable_size(given.memtables / 2).manual_journal_persist(true);
            match given.small {
                true => options.data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4)),
                false => options,
            }
        };
        let rows = db.keyspace("bench", options).expect("a keyspace");
        Self { db, rows, shape }
    }
}

impl Engine for Fjall {
    fn insert(&mut self, batch: &Batch) {
        let mut writes = self.db.batch();
        for (i, key) in batch.keys.iter().enumerate() {
            match self.shape {
                Shape::Latest => writes.insert(&self.rows, &key[..], batch.value(i)),
                Shape::Several => writes.insert(&self.rows, &several_key(key, batch.seqs[i])[..], batch.value(i)),
            }
        }
        writes.commit().expect("write");
    }

    fn add(&mut self, deltas: &[(Key, u64)]) {
        let mut writes = self.db.batch();
        let mut value = Vec::new();
        for (key, delta) in deltas {
            value.clear();
            value.extend_from_slice(&self.rows.get(key).expect("get").expect("a counter is gone"));
            data::add(&mut value, *delta);
            writes.insert(&self.rows, &key[..], &value[..]);
        }
        writes.commit().expect("write");
    }

    fn finish(&mut self) {
        self.rows.rotate_memtable_and_wait().expect("flush");
        self.db.persist(PersistMode::SyncAll).expect("persist");
    }

    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            let busy = self.db.active_compactions() > 0 || self.db.outstanding_flushes() > 0;
            quiet = if busy { 0 } else { quiet + 1 };
            thread::sleep(QUIET / 3);
        }
    }

    fn probe(&mut self, keys: &[Key]) -> u64 {
        let (mut rows, mut sum) = (0, 0);
        for key in keys {
            if let Some(value) = self.rows.get(key).expect("get") {
                rows += 1;
                sum ^= look(&value);
            }
        }
        black_box(sum);
        rows
    }

    fn scan(&mut self) -> u64 {
        let (mut rows, mut sum) = (0, 0);
        for row in self.rows.iter() {
            rows += 1;
            sum ^= look(&row.value().expect("scan"));
        }
        black_box(sum);
        rows
    }

    fn ranges(&mut self, starts: &[Key], rows: usize) -> u64 {
        let (mut read, mut sum) = (0, 0);
        for start in starts {
            for row in self.rows.range(*start..).take(rows) {
                read += 1;
                sum ^= look(&row.value().expect("range"));
            }
        }
        black_box(sum);
        read
    }

    fn join(&mut self, keys: &[Key]) -> u64 {
        let (mut rows, mut sum) = (0, 0);
        for key in keys {
            for row in self.rows.prefix(key) {
                rows += 1;
                sum ^= look(&row.value().expect("prefix"));
            }
        }
        black_box(sum);
        rows
    }
}

/// What it is told.
pub fn describe() {
    println!(
        "fjall:       crate {}; leveled, LZ4 from level 2 on; max_memtable_size = memtables / 2, cache_size = cache",
        super::version("fjall")
    );
    println!(
        "             journal on (cannot be off) and synced at the end only; buffered I/O (no direct I/O); get by get"
    );
}
