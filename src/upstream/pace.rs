//! How fast each backend answers, where those are taken out that are far slower than the others.
//!
//! It is the time to the answer's header that is compared: what comes after depends on what was asked for, and on
//! how fast the client takes it. Samples are two additions without a lock; whoever brings the first one after a
//! window is over looks at all of them, and the next window begins.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::BackendIndex;
use crate::policy::outlier::{self, OutlierParams};

/// The times of one upstream's backends.
pub(super) struct Pace {
    factor: f64,
    window: Duration,
    /// Without so many requests of it in a window, nothing is known of a backend.
    min_requests: u64,
    made: Instant,
    /// When the window is over, in microseconds after `made`.
    over: AtomicU64,
    sums: Box<[Sum]>,
}

#[derive(Default)]
struct Sum {
    micros: AtomicU64,
    count: AtomicU64,
}

impl Pace {
    /// `None` where nobody is taken out for being slow.
    pub(super) fn new(params: &OutlierParams, backends: usize, now: Instant) -> Option<Self> {
        let sums = (0..backends).map(|_| Sum::default());
        Some(Self {
            factor: params.latency_factor?,
            window: params.error_window,
            min_requests: u64::from(params.min_requests),
            made: now,
            over: AtomicU64::new(micros(params.error_window)),
            sums: sums.collect(),
        })
    }

    /// A backend has taken so long. Returns who is too slow, where this ends a window: the slowest first.
    pub(super) fn note(
        &self,
        BackendIndex(index): BackendIndex,
        took: Duration,
        now: Instant,
    ) -> Vec<BackendIndex> {
        let sum = &self.sums[index];
        sum.micros.fetch_add(micros(took), Relaxed);
        sum.count.fetch_add(1, Relaxed);
        let age = now.saturating_duration_since(self.made);
        let over = self.over.load(Relaxed);
        if micros(age) < over {
            return Vec::new();
        }
        let next = micros(age + self.window);
        let is_first = self
            .over
            .compare_exchange(over, next, Relaxed, Relaxed)
            .is_ok();
        if !is_first {
            return Vec::new();
        }
        let means: Vec<_> = self.sums.iter().map(|sum| self.take_mean(sum)).collect();
        let slow = outlier::slow(&means, self.factor);
        slow.into_iter().map(BackendIndex).collect()
    }

    /// What is added meanwhile may be lost or count in the next window. Of one that has had too few requests, they are
    /// added up over several windows: whoever is slow has few.
    fn take_mean(&self, sum: &Sum) -> Option<Duration> {
        if sum.count.load(Relaxed) < self.min_requests {
            return None;
        }
        let (micros, count) = (sum.micros.swap(0, Relaxed), sum.count.swap(0, Relaxed));
        micros.checked_div(count).map(Duration::from_micros)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn pace(min_requests: u32, now: Instant) -> Pace {
        let params = OutlierParams {
            latency_factor: Some(3.0),
            error_window: WINDOW,
            min_requests,
            ..OutlierParams::default()
        };
        Pace::new(&params, 3, now).unwrap()
    }

    #[test]
    fn without_a_factor_nothing_is_measured() {
        let params = OutlierParams::default();
        assert!(Pace::new(&params, 3, Instant::now()).is_none());
    }

    #[test]
    fn the_first_sample_after_a_window_tells_who_was_slow_in_it() {
        let (now, millis) = (Instant::now(), Duration::from_millis);
        let pace = pace(2, now);
        let note = |index, took, now| pace.note(BackendIndex(index), took, now);
        for (index, took) in [(0, 10), (1, 10), (2, 40), (0, 10), (1, 10), (2, 40)] {
            assert_eq!(note(index, millis(took), now), []);
        }
        let later = now + WINDOW;
        assert_eq!(note(0, millis(10), later), [BackendIndex(2)]);
        // Nothing of that is left: of the others there is too little.
        for _ in 0..5 {
            assert_eq!(note(2, millis(40), later), []);
        }
        assert_eq!(note(0, millis(10), later + WINDOW), []);
    }

    #[test]
    fn who_is_so_slow_that_it_has_few_requests_is_judged_over_several_windows() {
        let (mut now, millis) = (Instant::now(), Duration::from_millis);
        let pace = pace(3, now);
        let mut slow = Vec::new();
        for _ in 0..4 {
            for (index, took) in [
                (0, 10),
                (0, 10),
                (0, 10),
                (1, 10),
                (1, 10),
                (1, 10),
                (2, 900),
            ] {
                slow.extend(pace.note(BackendIndex(index), millis(took), now));
            }
            now += WINDOW;
        }
        assert_eq!(slow, [BackendIndex(2)]);
    }

    #[test]
    fn one_window_follows_the_other() {
        let (mut now, millis) = (Instant::now(), Duration::from_millis);
        let pace = pace(1, now);
        let note = |index, took, now| pace.note(BackendIndex(index), millis(took), now);
        for _ in 0..3 {
            for (index, took) in [(0, 10), (1, 10), (2, 40)] {
                assert_eq!(note(index, took, now), []);
            }
            now += WINDOW;
            assert_eq!(note(0, 10, now), [BackendIndex(2)]);
        }
    }
}
