//! What is rung when something has changed that a thread may wait for.
//!
//! Invariant: whoever takes the [`Bell::count`] before it looks, and then waits for it to go on, misses nothing that came after. Its lock
//! is taken last, and for moments: it may be rung with any other lock held.
//!
//! [`Bell::wait_for`] is the only timer of the crate. It is for the threads of a store, which a disk that stands for a simulation does not allow.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::context::lock;

/// Counts how often it was rung.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<u64>,
    changed: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        let mut rung = lock(&self.rung);
        *rung = rung.wrapping_add(1);
        drop(rung);
        self.changed.notify_all();
    }

    pub(super) fn count(&self) -> u64 {
        *lock(&self.rung)
    }

    /// Waits until it was rung since the count was taken.
    pub(super) fn wait(&self, count: u64) {
        drop(self.changed.wait_while(lock(&self.rung), |now| *now == count).unwrap_or_else(PoisonError::into_inner));
    }

    /// The same for `time` at most; whether it was rung.
    pub(super) fn wait_for(&self, count: u64, time: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(lock(&self.rung), time, |now| *now == count);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}
