//! Time as the pipeline sees it. The only place that reads the system's clocks; a simulation brings its own.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of time.
pub trait Clock: Debug + Send + Sync {
    /// Wall clock, in ms since 1970. Goes into step records; may jump.
    fn wall_ms(&self) -> i64;
    /// Time since some start, never going back. For intervals and rates only: it reaches no delta.
    fn elapsed(&self) -> Duration;
    /// Lets time pass (a thread that has nothing to do).
    fn sleep(&self, duration: Duration);
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose elapsed time starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the Clock trait's real implementation")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the Clock trait's real implementation")]
    fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the Clock trait's real implementation")]
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}
