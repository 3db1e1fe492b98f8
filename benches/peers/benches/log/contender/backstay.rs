//! Backstay's segment log.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use backstay_storage::disk::Disk;
use backstay_storage::log::{Log, LogOptions, Seq};

use super::{Append, Contender};
use crate::bytes::Noise;

/// Full segments that are kept behind the writer.
const KEPT: usize = 4;
/// The identity of every store here.
pub const STORE: u128 = 7;

/// The log as it is shipped, without compression: payloads here do not compress, and trying would only cost.
pub fn options() -> LogOptions {
    LogOptions { compress_over: None, ..LogOptions::default() }
}

/// A log, and what is trimmed behind its writers, if anything is.
pub struct Backstay {
    log: Log,
    trim: Option<TrimBehind>,
}

impl Backstay {
    /// A new log in a folder that is not there yet, with nothing trimmed: every segment is a new one.
    pub fn growing(disk: &Arc<dyn Disk>, folder: &Path) -> Self {
        let log = Log::open(Arc::clone(disk), folder, STORE, 1, options()).expect("open the log");
        Self { log, trim: None }
    }

    /// The same, trimmed behind its writers, and so long written that segments have come back.
    pub fn trimmed(disk: &Arc<dyn Disk>, folder: &Path, noise: &Noise) -> Self {
        let ours = Self { trim: Some(TrimBehind::new(options().segment_bytes)), ..Self::growing(disk, folder) };
        let piece = 256 << 10;
        for n in 0..options().segment_bytes * (2 * KEPT as u64 + 2) / piece as u64 {
            ours.stream(noise.payload(n, piece));
        }
        ours.log.commit().expect("commit");
        ours
    }

    /// Appends and starts the write, without waiting.
    pub fn stream(&self, payload: &[u8]) {
        let seq = self.log.append(payload).expect("append");
        self.log.submit().expect("submit");
        self.trim_behind(seq);
    }

    /// Waits for all of it.
    pub fn commit(&self) {
        self.log.commit().expect("commit");
    }

    fn trim_behind(&self, seq: Seq) {
        if let Some(trim) = &self.trim {
            trim.after(&self.log, seq);
        }
    }
}

impl Contender for Backstay {
    fn worker(&self, thread: usize) -> Append<'_> {
        Box::new(move |payload| {
            let seq = self.log.append(payload).expect("append");
            self.log.wait_durable(seq).expect("wait");
            if thread == 0 {
                self.trim_behind(seq);
            }
        })
    }
}

/// Drops old segments as new ones fill.
struct TrimBehind {
    segment: u64,
    state: Mutex<Marks>,
}

#[derive(Default)]
struct Marks {
    /// Bytes that had been committed at the last mark.
    bytes: u64,
    /// A record of each segment's worth of bytes, oldest first.
    marks: VecDeque<Seq>,
}

impl TrimBehind {
    fn new(segment: u64) -> Self {
        Self { segment, state: Mutex::default() }
    }

    fn after(&self, log: &Log, seq: Seq) {
        let bytes = log.stats().commit_bytes;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes - state.bytes < self.segment {
            return;
        }
        state.bytes = bytes;
        state.marks.push_back(seq);
        if state.marks.len() > KEPT {
            let before = state.marks.pop_front().unwrap_or(0);
            log.trim_before(before).expect("trim");
        }
    }
}
