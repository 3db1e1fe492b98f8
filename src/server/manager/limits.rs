//! How much one client, known by its address, may ask for: requests, and wrong keys.
//!
//! Each address has a bucket that fills at a steady rate up to a bound, and from which every request takes one.
//!
//! Invariant: memory is bounded. Beyond `ADDRESSES` known addresses those that have been quiet are forgotten, and if there are none, all are.
//! Limits: clients behind one proxy or network address share a bucket; one that has many addresses has many.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::pipeline::Clock;

/// The most addresses that are remembered.
const ADDRESSES: usize = 10_000;

/// A rate that every address has to itself.
#[derive(Debug)]
pub struct Limit {
    clock: Arc<dyn Clock>,
    per_second: f64,
    bound: f64,
    buckets: Mutex<BTreeMap<IpAddr, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Duration,
}

impl Limit {
    /// At most `bound` at once, and `per_second` over a longer time.
    pub fn new(clock: Arc<dyn Clock>, per_second: f64, bound: f64) -> Self {
        Self { clock, per_second, bound, buckets: Mutex::default() }
    }

    /// Takes one, if there is one left.
    pub fn take(&self, address: IpAddr) -> bool {
        self.look(address, 1.0)
    }

    /// Whether there is one left.
    pub fn has(&self, address: IpAddr) -> bool {
        self.look(address, 0.0)
    }

    fn look(&self, address: IpAddr, cost: f64) -> bool {
        let now = self.clock.elapsed();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = |bucket: Bucket| {
            let since = now.saturating_sub(bucket.at).as_secs_f64();
            (bucket.left + since * self.per_second).min(self.bound)
        };
        let left = buckets.get(&address).map_or(self.bound, |bucket| filled(*bucket));
        let has = left >= 1.0;
        if cost > 0.0 && has {
            if buckets.len() >= ADDRESSES && !buckets.contains_key(&address) {
                buckets.retain(|_, bucket| filled(*bucket) < self.bound);
                if buckets.len() >= ADDRESSES {
                    buckets.clear();
                }
            }
            buckets.insert(address, Bucket { left: left - cost, at: now });
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Set(AtomicU64);

    impl Clock for Set {
        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }

        fn wall_ms(&self) -> i64 {
            0
        }

        fn sleep(&self, _duration: Duration) {}
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(n))
    }

    #[test]
    fn a_bucket_empties_and_fills() {
        let clock = Arc::new(Set::default());
        let limit = Limit::new(Arc::clone(&clock) as Arc<dyn Clock>, 2.0, 3.0);
        assert_eq!((0..5).filter(|_| limit.take(address(1))).count(), 3);
        assert!(!limit.has(address(1)) && limit.take(address(2)), "each address has its own");
        clock.0.store(500, Ordering::Relaxed);
        assert!(limit.has(address(1)) && limit.take(address(1)) && !limit.take(address(1)));
        clock.0.store(60_000, Ordering::Relaxed);
        assert_eq!((0..5).filter(|_| limit.take(address(1))).count(), 3, "no more than the bound");
    }

    #[test]
    fn memory_is_bounded() {
        let clock = Arc::new(Set::default());
        let limit = Limit::new(Arc::clone(&clock) as Arc<dyn Clock>, 1.0, 2.0);
        for n in 0..3 * ADDRESSES as u32 {
            clock.0.store(u64::from(n) / 4, Ordering::Relaxed);
            assert!(limit.take(address(n)));
            assert!(limit.buckets.lock().unwrap().len() <= ADDRESSES);
        }
        // Those who are quiet go first.
        assert!(limit.take(address(7)) && limit.take(address(7)));
        clock.0.store(1_000_000, Ordering::Relaxed);
        for n in 0..ADDRESSES as u32 {
            limit.take(address(n + 1_000_000));
        }
        assert!(!limit.buckets.lock().unwrap().is_empty());
    }
}
