//! The log's counters, which many threads add to.

use std::sync::atomic::{AtomicU64, Ordering};

use super::LogStats;

/// [`LogStats`] while it is counted. The figures are independent: a snapshot need not be of one instant.
#[derive(Debug, Default)]
pub(super) struct Counters {
    records: AtomicU64,
    payload_bytes: AtomicU64,
    commits: AtomicU64,
    commit_bytes: AtomicU64,
    syncs: AtomicU64,
    segments_created: AtomicU64,
    segments_recycled: AtomicU64,
    segments_trimmed: AtomicU64,
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn opened(recycled: bool) -> Self {
        let counters = Self::default();
        counters.segment(recycled);
        counters
    }

    pub(super) fn records(&self, records: u64, payload_bytes: u64) {
        add(&self.records, records);
        add(&self.payload_bytes, payload_bytes);
    }

    pub(super) fn commit(&self, bytes: u64) {
        add(&self.commits, 1);
        add(&self.commit_bytes, bytes);
    }

    pub(super) fn sync(&self) {
        add(&self.syncs, 1);
    }

    pub(super) fn segment(&self, recycled: bool) {
        add(if recycled { &self.segments_recycled } else { &self.segments_created }, 1);
    }

    pub(super) fn trimmed(&self) {
        add(&self.segments_trimmed, 1);
    }

    pub(super) fn snapshot(&self) -> LogStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            records: read(&self.records),
            payload_bytes: read(&self.payload_bytes),
            commits: read(&self.commits),
            commit_bytes: read(&self.commit_bytes),
            syncs: read(&self.syncs),
            segments_created: read(&self.segments_created),
            segments_recycled: read(&self.segments_recycled),
            segments_trimmed: read(&self.segments_trimmed),
        }
    }
}
