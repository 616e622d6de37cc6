//! Whether a report is believed at once. One that would turn a large part of an upstream sick in one
//! step may be a mistake of its writer (a network split at the poller, a script that went wrong):
//! it is held back until another writing agrees, or for so long that it must be meant.
//!
//! One state per upstream, with time as an argument.

use std::time::{Duration, Instant};

/// When to be cautious.
#[derive(Clone, Copy, Debug)]
pub(super) struct CautionParams {
    /// A greater share of the backends is too many at once; 100: nothing is.
    pub max_flip_percent: u8,
    /// For how long a report is held back at the most.
    pub confirm_after: Duration,
}

/// Whether a report of one upstream is held back.
#[derive(Debug, Default)]
pub(super) struct Caution {
    held: Option<Held>,
}

/// A report that is not in force yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    since: Instant,
    /// When the file was seen to be written with it.
    written: Instant,
}

impl Caution {
    /// Whether the report that was seen written at `written`, which turns `turned` of `all` backends
    /// from healthy to sick, is to be held back.
    pub fn holds(
        &mut self,
        params: CautionParams,
        (turned, all): (usize, usize),
        written: Instant,
        now: Instant,
    ) -> bool {
        let is_too_many = turned * 100 > usize::from(params.max_flip_percent) * all;
        self.held = match self.held {
            _ if !is_too_many => None,
            None => Some(Held {
                since: now,
                written,
            }),
            Some(held) if held.written != written => None,
            Some(held) if now >= held.since + params.confirm_after => None,
            still => still,
        };
        self.held.is_some()
    }

    /// Since when a report is held back, if one is.
    pub fn held_since(&self) -> Option<Instant> {
        self.held.map(|held| held.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HALF: CautionParams = CautionParams {
        max_flip_percent: 50,
        confirm_after: Duration::from_secs(30),
    };

    #[test]
    fn up_to_the_limit_nothing_is_held_back() {
        let now = Instant::now();
        let mut caution = Caution::default();
        assert!(!caution.holds(HALF, (2, 4), now, now));
        let never = CautionParams {
            max_flip_percent: 100,
            ..HALF
        };
        assert!(!caution.holds(never, (4, 4), now, now));
        assert_eq!(caution.held_since(), None);
    }

    #[test]
    fn another_writing_that_agrees_is_believed() {
        let now = Instant::now();
        let mut caution = Caution::default();
        assert!(caution.holds(HALF, (3, 4), now, now));
        assert!(caution.holds(HALF, (3, 4), now, now + SECOND));
        assert_eq!(caution.held_since(), Some(now));
        assert!(!caution.holds(HALF, (3, 4), now + SECOND, now + SECOND));
        assert_eq!(caution.held_since(), None);
    }

    #[test]
    fn another_writing_that_takes_it_back_ends_it() {
        let now = Instant::now();
        let mut caution = Caution::default();
        assert!(caution.holds(HALF, (3, 4), now, now));
        assert!(!caution.holds(HALF, (0, 4), now + SECOND, now + SECOND));
        assert!(caution.holds(HALF, (3, 4), now + 2 * SECOND, now + 2 * SECOND));
    }

    #[test]
    fn what_lasts_is_believed() {
        let now = Instant::now();
        let mut caution = Caution::default();
        assert!(caution.holds(HALF, (1, 1), now, now));
        assert!(caution.holds(HALF, (1, 1), now, now + 29 * SECOND));
        assert!(!caution.holds(HALF, (1, 1), now, now + 30 * SECOND));
    }
}
