//! How many pings in a row change a verdict, counted as HAProxy does (`check->health`, check.c).
//!
//! One counter for both directions. With `full` = `rise + fall - 1`:
//!
//! ```text
//! 0 ..= rise - 1      down; a success counts up, and at `rise` jumps to full; a failure goes to 0
//! rise ..= full       up; a failure counts down, and below `rise` falls to 0; a success goes to full
//! ```
//!
//! So a verdict changes with the `fall`th failure, or the `rise`th success, in a row, and a single
//! ping to the contrary takes all of them back. 0 and full are the rails; in between, the verdict is
//! changing.

/// The verdict on one backend, and how far it is from the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// At least 1.
    rise: u32,
    /// At least 1.
    fall: u32,
    /// In `0..=rise + fall - 1`; `None`: undecided, the first ping decides.
    health: Option<u32>,
}

impl Threshold {
    /// Starts from a verdict that holds already, on its rail; or undecided. A `rise` or `fall` of 0
    /// counts as 1.
    pub fn new(rise: u32, fall: u32, known: Option<bool>) -> Self {
        let mut threshold = Self {
            rise: rise.max(1),
            fall: fall.max(1),
            health: None,
        };
        threshold.health = known.map(|is_up| threshold.rail(is_up));
        threshold
    }

    /// Whether the backend counts as well; `None` before the first ping of one that nobody knew.
    pub fn verdict(&self) -> Option<bool> {
        self.health.map(|health| health >= self.rise)
    }

    /// Counts one ping.
    pub fn record(&mut self, is_success: bool) {
        self.health = Some(match (self.health, is_success) {
            (Some(health), true) if health + 1 < self.rise => health + 1,
            (Some(health), false) if health > self.rise => health - 1,
            _ => self.rail(is_success),
        });
    }

    /// Whether the next pings may change the verdict earlier than a run of `rise` or `fall`: between
    /// the rails, or undecided.
    pub fn is_changing(&self) -> bool {
        self.health.is_none() || self.against() > 0
    }

    /// How many pings in a row have spoken against the verdict.
    pub fn against(&self) -> u32 {
        match self.health {
            None => 0,
            Some(health) if health >= self.rise => self.rail(true) - health,
            Some(health) => health,
        }
    }

    /// How many in a row it takes: `fall` of one that is up, else `rise`.
    pub fn needed(&self) -> u32 {
        match self.verdict() {
            Some(true) => self.fall,
            _ => self.rise,
        }
    }

    /// Goes on with other numbers. The verdict stays, and so does the count of pings against it, but
    /// that at least one more is needed.
    pub fn adjust(&mut self, rise: u32, fall: u32) {
        let mut adjusted = Self::new(rise, fall, self.verdict());
        let against = self.against().min(adjusted.needed() - 1);
        adjusted.health = adjusted.health.map(|rail| match adjusted.verdict() {
            Some(true) => rail - against,
            _ => against,
        });
        *self = adjusted;
    }

    /// The counter of a verdict that nothing speaks against.
    fn rail(&self, is_up: bool) -> u32 {
        if is_up {
            self.rise.saturating_add(self.fall - 1)
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The verdict as one would say it: the last `rise` were good, or the last `fall` bad, else as
    /// before.
    fn naive(rise: usize, fall: usize, known: Option<bool>, pings: &[bool]) -> Option<bool> {
        let mut verdict = known;
        for end in 1..=pings.len() {
            let last = pings[end - 1];
            let run = pings[..end].iter().rev().take_while(|ping| **ping == last);
            let needed = if last { rise } else { fall };
            if verdict.is_none() || run.count() >= needed {
                verdict = Some(last);
            }
        }
        verdict
    }

    fn after(rise: u32, fall: u32, known: Option<bool>, pings: &[bool]) -> Threshold {
        let mut threshold = Threshold::new(rise, fall, known);
        for ping in pings {
            threshold.record(*ping);
        }
        threshold
    }

    #[test]
    fn the_counter_is_haproxys() {
        let mut threshold = Threshold::new(2, 3, Some(true));
        let mut counters = Vec::new();
        for ping in [true, false, false, true, false, false, false, false] {
            threshold.record(ping);
            counters.push(threshold.health.unwrap());
        }
        assert_eq!(counters, [4, 3, 2, 4, 3, 2, 0, 0]);
        counters.clear();
        for ping in [true, false, true, true] {
            threshold.record(ping);
            counters.push(threshold.health.unwrap());
        }
        assert_eq!(counters, [1, 0, 1, 4]);
    }

    #[test]
    fn the_first_ping_decides_on_a_stranger() {
        for ping in [true, false] {
            assert!(after(3, 3, None, &[]).is_changing());
            let threshold = after(3, 3, None, &[ping]);
            assert_eq!(threshold.verdict(), Some(ping));
            assert!(!threshold.is_changing());
        }
    }

    #[test]
    fn new_numbers_keep_the_verdict_and_the_count() {
        let mut threshold = after(2, 5, Some(true), &[false; 3]);
        threshold.adjust(1, 6);
        assert_eq!((threshold.against(), threshold.needed()), (3, 6));
        threshold.adjust(4, 2);
        assert_eq!(threshold.verdict(), Some(true));
        assert_eq!((threshold.against(), threshold.needed()), (1, 2));
        threshold.record(false);
        assert_eq!(threshold.verdict(), Some(false));
        let mut stranger = Threshold::new(2, 2, None);
        stranger.adjust(9, 9);
        assert_eq!(stranger, Threshold::new(9, 9, None));
    }

    proptest! {
        #[test]
        fn agrees_with_the_sentence(
            rise in 1u32..6,
            fall in 1u32..6,
            known in any::<Option<bool>>(),
            pings in proptest::collection::vec(any::<bool>(), 0..40),
        ) {
            let threshold = after(rise, fall, known, &pings);
            let verdict = naive(rise as usize, fall as usize, known, &pings);
            prop_assert_eq!(threshold.verdict(), verdict);
            let against = pings.iter().rev().take_while(|ping| Some(**ping) != verdict).count();
            prop_assert_eq!(threshold.against() as usize, against);
            prop_assert_eq!(threshold.is_changing(), verdict.is_none() || against > 0);
        }

        #[test]
        fn an_adjustment_never_decides(
            numbers in proptest::collection::vec((0u32..6, 0u32..6), 2),
            known in any::<Option<bool>>(),
            pings in proptest::collection::vec(any::<bool>(), 0..10),
        ) {
            let mut threshold = after(numbers[0].0, numbers[0].1, known, &pings);
            let (verdict, against) = (threshold.verdict(), threshold.against());
            threshold.adjust(numbers[1].0, numbers[1].1);
            prop_assert_eq!(threshold.verdict(), verdict);
            prop_assert!(threshold.against() <= against);
            prop_assert!(threshold.against() < threshold.needed());
        }
    }
}
