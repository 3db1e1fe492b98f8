//! RocksDB's write-ahead log: a leader writes and syncs for those who wait together.
//!
//! Settings: `sync` with each write; no manual flush of the log; logs recycled (`recycle_log_file_num`), which it
//! documents for exactly this, with a memtable small enough that they come back; preallocation as it does by default (1.1 memtables); no compression, no
//! compaction (keys repeat, level 0 may grow), so that the log is all that is measured. Ways of writing: plain, pipelined, unordered;
//! all are tried and the best counts.

use std::path::Path;

use rocksdb::{DB, DBCompressionType, Options, WriteOptions};

use super::{Append, Contender};
use crate::bytes::Noise;

/// Bytes of a memtable and so, roughly, of a log.
const MEMTABLE: usize = 16 << 20;
/// Logs kept for reuse.
const RECYCLED: usize = 4;

/// How writers queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// The default: one group writes the log and then its memtable.
    Plain,
    /// `enable_pipelined_write`: a group writes the log while the one before writes the memtable.
    Pipelined,
    /// `unordered_write`: a reader may see writes out of their order.
    Unordered,
}

/// An open database.
pub struct Rocks {
    db: DB,
    durable: WriteOptions,
}

impl Rocks {
    /// A new database, so long written that its logs are recycled ones.
    pub fn new(folder: &Path, writing: Writing, noise: &Noise) -> Self {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::None);
        options.set_write_buffer_size(MEMTABLE);
        options.set_max_write_buffer_number(6);
        options.set_recycle_log_file_num(RECYCLED);
        options.set_manual_wal_flush(false);
        options.set_disable_auto_compactions(true);
        options.set_level_zero_slowdown_writes_trigger(1 << 20);
        options.set_level_zero_stop_writes_trigger(1 << 20);
        options.set_enable_pipelined_write(writing == Writing::Pipelined);
        options.set_unordered_write(writing == Writing::Unordered);
        let db = DB::open(&options, folder).expect("open RocksDB");
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        let piece = 64 << 10;
        let mut n: u64 = 0;
        for _ in 0..RECYCLED + 1 {
            for _ in 0..MEMTABLE / piece {
                db.put(n.to_be_bytes(), noise.payload(n, piece)).expect("put");
                n += 1;
            }
            db.flush().expect("flush");
        }
        Self { db, durable }
    }
}

impl Contender for Rocks {
    fn worker(&self, thread: usize) -> Append<'_> {
        let mut n = 0_u64;
        Box::new(move |payload| {
            let mut key = [0; 8];
            key[..4].copy_from_slice(&(thread as u32).to_be_bytes());
            key[4..].copy_from_slice(&((n % 100_000) as u32).to_be_bytes());
            n += 1;
            self.db.put_opt(key, payload, &self.durable).expect("put");
        })
    }
}
