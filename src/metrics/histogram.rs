//! Durations, counted in buckets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The buckets' upper bounds in seconds, from what a proxy adds to what the longest inference takes.
const BOUNDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// How many durations were how long. Observing is two additions.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each bound, and one for what is longer.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

/// What a histogram has counted.
pub(super) struct Counted {
    pub(super) sum_seconds: f64,
    pub(super) count: u64,
    /// Upper bound in seconds and how many were below it and not below the one before.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Relaxed);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Relaxed);
    }

    pub(super) fn counted(&self) -> Counted {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets = bounds.zip(self.buckets.iter().map(|bucket| bucket.load(Relaxed)));
        let buckets: Vec<_> = buckets.collect();
        Counted {
            sum_seconds: self.sum_micros.load(Relaxed) as f64 / 1e6,
            count: buckets.iter().map(|(_, count)| count).sum(),
            buckets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for micros in [0, 1_000, 1_001, 600_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counted = histogram.counted();
        assert_eq!(
            (counted.buckets[0], counted.buckets[1]),
            ((0.001, 2), (0.0025, 1))
        );
        assert_eq!(counted.buckets.last(), Some(&(f64::INFINITY, 1)));
        assert_eq!(counted.count, 4);
        assert!((counted.sum_seconds - 600.002_001).abs() < 1e-9);
    }
}
