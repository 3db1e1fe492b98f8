//! Waiting for servers: the one place of connectors to servers that reads a clock.
//!
//! Invariant: what is read here decides how long something is waited for and how often it is done, and reaches no delta.

use std::time::{Duration, Instant};

use super::Result;

/// The present.
#[expect(clippy::disallowed_methods, reason = "for deadlines of requests to servers: it reaches no delta")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Tries until it works, the error is final, or `patience` has passed.
pub(super) fn insist<T>(patience: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = now() + patience;
    loop {
        match attempt() {
            Err(e) if e.retry && now() < end => std::thread::park_timeout(Duration::from_millis(200)),
            other => return other,
        }
    }
}
