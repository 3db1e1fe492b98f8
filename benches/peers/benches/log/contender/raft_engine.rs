//! raft-engine 0.4, TiKV's log: one leader writes and syncs (`fdatasync`) for those who wait together.
//!
//! Settings: `sync` with each write; recycling of old files on, and files prepared with zeros when it is opened
//! (`prefill_for_recycle`), so that it overwrites; no compression. Each thread is a region that sets one key, so that
//! old files can be purged, which is asked for between turns (TiKV does so every 10 s). Files of 32 MiB, as Backstay's segments, not
//! 128 MiB: with those the bench would end in the first, which is not a prepared one.

use std::path::Path;

use raft_engine::{Config, Engine, LogBatch, ReadableSize};

use super::{Append, Contender};
use crate::bytes::Noise;

/// An open engine.
pub struct RaftEngine(Engine);

impl RaftEngine {
    /// A new engine, so long written that it is in a prepared file.
    pub fn new(folder: &Path, noise: &Noise) -> Self {
        let file = ReadableSize::mb(32);
        let config = Config {
            dir: folder.display().to_string(),
            target_file_size: file,
            purge_threshold: ReadableSize(file.0 * 2),
            enable_log_recycle: true,
            prefill_for_recycle: true,
            prefill_limit: Some(ReadableSize(file.0 * 2)),
            batch_compression_threshold: ReadableSize(0),
            ..Config::default()
        };
        let engine = Engine::open(config).expect("open raft-engine");
        let piece = 64 << 10;
        for n in 0..(file.0 + (1 << 20)) / piece as u64 {
            let mut batch = LogBatch::with_capacity(1);
            batch.put(1, b"key".to_vec(), noise.payload(n, piece).to_vec()).expect("put");
            engine.write(&mut batch, false).expect("write");
        }
        engine.sync().expect("sync");
        Self(engine)
    }
}

impl Contender for RaftEngine {
    fn worker(&self, thread: usize) -> Append<'_> {
        let mut batch = LogBatch::with_capacity(1);
        Box::new(move |payload| {
            batch.put(thread as u64 + 1, b"key".to_vec(), payload.to_vec()).expect("put");
            self.0.write(&mut batch, true).expect("write");
        })
    }

    fn settle(&self) {
        self.0.purge_expired_files().expect("purge");
    }
}
