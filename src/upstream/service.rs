//! How long backends take for a request, lately.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What a new sample counts against all before it: a change of load is followed within some ten requests.
const WEIGHT: u64 = 8;

/// An exponentially weighted mean. Two samples at the same moment may count as one.
#[derive(Debug, Default)]
pub(super) struct ServiceTime {
    /// In microseconds; 0: no sample yet.
    mean: AtomicU64,
}

impl ServiceTime {
    pub(super) fn record(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let mean = match self.mean.load(Relaxed) {
            0 => took,
            mean => mean - mean / WEIGHT + took / WEIGHT,
        };
        self.mean.store(mean.max(1), Relaxed);
    }

    pub(super) fn mean(&self) -> Option<Duration> {
        match self.mean.load(Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_what_is_measured() {
        let service = ServiceTime::default();
        assert_eq!(service.mean(), None);
        service.record(Duration::from_millis(100));
        assert_eq!(service.mean(), Some(Duration::from_millis(100)));
        for _ in 0..50 {
            service.record(Duration::from_millis(300));
        }
        let off = service.mean().unwrap().abs_diff(Duration::from_millis(300));
        assert!(off < Duration::from_millis(3), "{off:?}");
    }

    #[test]
    fn times_too_long_or_too_short_to_count_do_no_harm() {
        let service = ServiceTime::default();
        service.record(Duration::MAX);
        service.record(Duration::ZERO);
        assert!(service.mean().is_some());
    }
}
