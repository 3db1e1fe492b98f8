//! okaywal 0.3: preallocated files, written with zeros and reused, one fsync for those who wait together.
//!
//! Settings: its own checkpointer with nothing to do (`LogVoid`), so that files come back at once; the default of 1 MiB
//! files and a larger one are both tried, since filling a new file with zeros and the rename of an old one are in the writer's way.

use std::path::Path;

use okaywal::{Configuration, LogVoid, WriteAheadLog};

use super::{Append, Contender};
use crate::bytes::Noise;

/// An open log.
pub struct OkayWal(WriteAheadLog);

impl OkayWal {
    /// A new log of files of `mebibytes`, so long written that files have come back.
    pub fn new(folder: &Path, mebibytes: u32, noise: &Noise) -> Self {
        let bytes = mebibytes << 20;
        let log = Configuration::default_for(folder)
            .preallocate_bytes(bytes)
            // The default's proportion.
            .checkpoint_after_bytes(u64::from(bytes) / 4 * 3)
            .open(LogVoid)
            .expect("open okaywal");
        let log = Self(log);
        let mut append = log.worker(0);
        let piece = 64 << 10;
        for n in 0..u64::from(bytes) * 4 / piece as u64 {
            append(noise.payload(n, piece));
        }
        drop(append);
        log
    }
}

impl Contender for OkayWal {
    fn worker(&self, _thread: usize) -> Append<'_> {
        Box::new(|payload| {
            let mut entry = self.0.begin_entry().expect("begin an entry");
            entry.write_chunk(payload).expect("write a chunk");
            entry.commit().expect("commit");
        })
    }
}
