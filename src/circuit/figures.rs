//! What operators have done, for people: rows in and out, time, and how large their state is. Nothing of it reaches a delta.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backstay_storage::spine::Spine;
use serde::{Deserialize, Serialize};

/// Time since some start, for operators' times. The caller's clock: this module reads none.
#[derive(Clone)]
pub struct Stopwatch(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Stopwatch {
    /// One that asks `now`.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Time since its start.
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl Default for Stopwatch {
    /// One that stands still.
    fn default() -> Self {
        Self::new(|| Duration::ZERO)
    }
}

impl fmt::Debug for Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopwatch")
    }
}

/// What one node has done since its runtime began, on all workers, and what it keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFigures {
    /// Rows that came in.
    pub rows_in: u64,
    /// Rows that went out, not consolidated.
    pub rows_out: u64,
    /// Time that it took, in microseconds, added up over workers.
    pub busy_us: u64,
    /// Rows of its state; those that a newer one will cancel when they are merged count too.
    pub state_rows: u64,
    /// Bytes of its state, on disk and in memory.
    pub state_bytes: u64,
}

impl NodeFigures {
    /// Adds what its spines hold.
    pub(super) fn add_state(&mut self, spines: &[&mut Spine]) {
        for spine in spines {
            let stats = spine.stats();
            self.state_rows += stats.memtable_rows + stats.frozen_rows + stats.run_rows;
            self.state_bytes += stats.memtable_bytes + stats.frozen_bytes + stats.run_bytes;
        }
    }

    /// Adds another worker's figures.
    pub(super) fn add(&mut self, other: &Self) {
        self.add_work(other);
        self.state_rows += other.state_rows;
        self.state_bytes += other.state_bytes;
    }

    /// Adds what was done before.
    pub fn add_work(&mut self, before: &Self) {
        self.rows_in += before.rows_in;
        self.rows_out += before.rows_out;
        self.busy_us += before.busy_us;
    }
}
