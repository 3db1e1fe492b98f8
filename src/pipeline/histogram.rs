//! How long things took: counts by duration, for people and their metrics. Nothing of it reaches a delta.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The largest durations of the buckets, in microseconds; a last one has all that took longer.
pub const BOUNDS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
];

/// Durations, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// By bound, not added up.
    pub buckets: [u64; BOUNDS_US.len() + 1],
    /// The sum of all, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get_mut(place) {
            *bucket += 1;
        }
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What came since `earlier`, of the same counting.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        since.buckets.iter_mut().zip(&earlier.buckets).for_each(|(now, then)| *now = now.saturating_sub(*then));
        since.sum_us = self.sum_us.saturating_sub(earlier.sum_us);
        since
    }

    /// The mean, in microseconds; `None` of nothing.
    pub fn mean_us(&self) -> Option<u64> {
        self.sum_us.checked_div(self.count())
    }

    /// The duration, in microseconds, that the share `part` of them (0 to 1) does not exceed: between the bounds of its bucket as if those
    /// in it were spread evenly, as Prometheus has it; of the last bucket the lower bound. `None` of nothing.
    pub fn quantile_us(&self, part: f64) -> Option<u64> {
        let rank = part * self.count() as f64;
        let (mut below, mut lower) = (0.0, 0);
        for (count, upper) in self.buckets.iter().zip(BOUNDS_US) {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                let share = ((rank - below) / count).clamp(0.0, 1.0);
                return Some(lower + (share * (upper - lower) as f64) as u64);
            }
            below += count;
            lower = upper;
        }
        (self.count() > 0).then_some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_bucket_whose_bound_it_reaches() {
        let mut histogram = Histogram::default();
        for us in [0, 250, 251, 10_000_000, 10_000_001] {
            histogram.add(Duration::from_micros(us));
        }
        assert_eq!((histogram.buckets[0], histogram.buckets[1]), (2, 1));
        assert_eq!((histogram.buckets[13], histogram.buckets[14]), (1, 1));
        assert_eq!((histogram.count(), histogram.sum_us), (5, 20_000_502));
    }

    #[test]
    fn what_came_since_has_a_mean_and_quantiles() {
        let mut then = Histogram::default();
        assert_eq!((then.mean_us(), then.quantile_us(0.99)), (None, None));
        then.add(Duration::from_secs(9));
        let mut now = then;
        (0..99).for_each(|_| now.add(Duration::from_micros(300)));
        now.add(Duration::from_secs(20));
        let since = now.since(&then);
        assert_eq!((since.count(), since.mean_us()), (100, Some(200_297)));
        // Half of those between 250 and 500: 50 of 99.
        assert_eq!(since.quantile_us(0.5), Some(250 + 250 * 50 / 99));
        assert_eq!(since.quantile_us(1.0), Some(10_000_000));
    }
}
