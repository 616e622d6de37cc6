//! How many requests may be sent again: so few that retries never make a bad hour worse.
//!
//! A bucket of tokens, as in Finagle's `RetryBudget` and tower's `Budget`; one token is one retry. It begins
//! full, holds as many as the upstream has slots ([`FLOOR_MIN`] at the least: so many can be lost at one blow),
//! and each request that gets a slot adds `percent` hundredths of one; or, where that is more, time adds as many as
//! fill it in [`REFILL`], so that an upstream with little traffic has some, too. So in any period there are at
//! most `percent` per cent of its requests, or that trickle, and once the floor.
//!
//! A request that is refused adds nothing, and a retry neither. Nothing is done for it on the way of a request that
//! succeeds: the bucket looks at the number of requests only when a retry is wanted.

use std::time::Duration;

/// What the bucket holds at the least.
pub const FLOOR_MIN: u32 = 10;

/// How long an empty bucket takes to fill without any request.
pub const REFILL: Duration = Duration::from_secs(10);

/// A bucket of retries.
#[derive(Debug)]
pub struct Budget {
    /// In `0..=capacity`.
    tokens: f64,
    capacity: f64,
    percent: u32,
    /// How many requests there had been at the last look, and when that was.
    requests: u64,
    looked: Duration,
}

impl Budget {
    /// A full bucket, before the first request of an upstream with so many slots.
    pub fn new(percent: u32, slots: u32) -> Self {
        let capacity = f64::from(slots.max(FLOOR_MIN));
        Self {
            tokens: capacity,
            capacity,
            percent,
            requests: 0,
            looked: Duration::ZERO,
        }
    }

    /// Takes a token, if there is one. `requests`: how many got a slot until now, which is so long after the
    /// bucket was new.
    pub fn take(&mut self, requests: u64, now: Duration) -> bool {
        let more = requests.saturating_sub(self.requests) as f64 * f64::from(self.percent) / 100.0;
        let passed = now.saturating_sub(self.looked).as_secs_f64();
        let trickle = self.capacity * passed / REFILL.as_secs_f64();
        self.tokens = (self.tokens + more.max(trickle)).min(self.capacity);
        self.requests = self.requests.max(requests);
        self.looked = self.looked.max(now);
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(budget: &mut Budget, requests: u64, now: Duration) -> usize {
        (0..1000).take_while(|_| budget.take(requests, now)).count()
    }

    #[test]
    fn it_begins_with_the_slots_and_ten_at_the_least() {
        let now = Duration::ZERO;
        for (slots, floor) in [(1, 10), (3, 10), (300, 300)] {
            let mut budget = Budget::new(20, slots);
            assert_eq!(taken(&mut budget, 0, now), floor, "{slots}");
        }
    }

    #[test]
    fn requests_and_time_fill_it_and_it_never_holds_more() {
        let (now, later) = (Duration::ZERO, Duration::from_secs);
        let mut budget = Budget::new(20, 20);
        assert_eq!(taken(&mut budget, 0, now), 20);
        assert_eq!(taken(&mut budget, 50, now), 10, "20 % of 50");
        assert_eq!(taken(&mut budget, 50, later(1)), 2, "20 in 10 s");
        assert_eq!(taken(&mut budget, 60, later(2)), 2, "one or the other");
        assert_eq!(taken(&mut budget, 1_000_000, later(3)), 20);
        assert_eq!(taken(&mut budget, 1_000_000, later(3_600)), 20);
        assert_eq!(
            taken(&mut budget, 0, now),
            0,
            "what is older changes nothing"
        );
    }

    proptest! {
        /// Whatever comes, and however often it is asked.
        #[test]
        fn no_period_has_more_than_its_share_and_the_floor(
            percent in 0..=100u32,
            slots in 1..50u32,
            steps in prop::collection::vec((0..30u64, 0..2_000u64, 0..20usize), 1..100),
        ) {
            let mut budget = Budget::new(percent, slots);
            let (mut requests, mut passed, mut retries) = (0, Duration::ZERO, 0);
            for (more, millis, wanted) in steps {
                requests += more;
                passed += Duration::from_millis(millis);
                retries += (0..wanted).filter(|_| budget.take(requests, passed)).count();
                let floor = f64::from(slots.max(FLOOR_MIN));
                let share = requests as f64 * f64::from(percent) / 100.0;
                let trickle = floor * passed.as_secs_f64() / REFILL.as_secs_f64();
                prop_assert!(retries as f64 <= floor + share + trickle + 1e-6);
            }
        }
    }
}
