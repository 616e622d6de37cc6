//! Whether a report is believed at once. One that turns a large part of an upstream sick may be a mistake
//! of its writer (a network split at the poller, a script that went wrong): those turns are held back
//! until another writing agrees, or for so long that they must be meant.
//!
//! Only turns from healthy to sick are doubted. Counted are all within the last `confirm_after`, because a
//! poller finds its backends sick one after the other, not in one writing. One state per upstream,
//! with time as an argument.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::id::BackendName;

/// How much later than the last doubtful turn another writing must come to count as another opinion:
/// a poller writes several times while it finds out.
const APART: Duration = Duration::from_secs(1);

/// When to be cautious.
#[derive(Clone, Copy, Debug)]
pub(super) struct CautionParams {
    /// A greater share of the backends is too many; 100: nothing is.
    pub max_flip_percent: u8,
    /// For how long turns are held back at the most.
    pub confirm_after: Duration,
}

/// What is believed of one upstream.
#[derive(Debug)]
pub(super) struct Caution {
    params: CautionParams,
    /// Who was healthy by the last report, turns that are held back not counted; `None` before the first.
    healthy: Option<BTreeSet<BackendName>>,
    /// Who was believed to turn sick, and when.
    turned: Vec<(BackendName, Instant)>,
    held: Option<Held>,
}

/// Turns that are not believed yet.
#[derive(Debug)]
struct Held {
    since: Instant,
    /// When one more came to them.
    grown: Instant,
    names: BTreeSet<BackendName>,
}

impl Caution {
    pub fn new(params: CautionParams) -> Self {
        Self {
            params,
            healthy: None,
            turned: Vec::new(),
            held: None,
        }
    }

    /// Takes in who is healthy and who is sick by the report that was last seen written at `written`;
    /// returns who is to count as healthy all the same. Together they are always the same backends.
    pub fn doubts(
        &mut self,
        healthy: BTreeSet<BackendName>,
        sick: &BTreeSet<BackendName>,
        written: Instant,
        now: Instant,
    ) -> BTreeSet<BackendName> {
        let Some(believed) = &self.healthy else {
            self.healthy = Some(healthy);
            return BTreeSet::new();
        };
        let turns: BTreeSet<_> = sick.intersection(believed).cloned().collect();
        let window = self.params.confirm_after;
        self.turned
            .retain(|(name, at)| *at + window > now && sick.contains(name));
        let all = healthy.len() + sick.len();
        let is_doubtful =
            !turns.is_empty() && self.is_too_many(self.turned.len() + turns.len(), all);
        self.held = match self.held.take() {
            _ if !is_doubtful => None,
            None => Some(Held {
                since: now,
                grown: now,
                names: turns.clone(),
            }),
            Some(held) if now >= held.since + window => None,
            Some(held) if !turns.is_subset(&held.names) => Some(Held {
                since: held.since,
                grown: now,
                names: turns.clone(),
            }),
            Some(held) if written >= held.grown + APART => None,
            still => still,
        };
        if self.held.is_some() {
            self.healthy = Some(healthy.union(&turns).cloned().collect());
            return turns;
        }
        self.healthy = Some(healthy);
        self.turned
            .extend(turns.into_iter().map(|name| (name, now)));
        BTreeSet::new()
    }

    /// Since when turns are held back, if any are.
    pub fn held_since(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.since)
    }

    /// When what is held back is believed, if nothing else happens.
    pub fn due(&self) -> Option<Instant> {
        self.held_since()
            .and_then(|since| since.checked_add(self.params.confirm_after))
    }

    fn is_too_many(&self, turned: usize, all: usize) -> bool {
        turned * 100 > usize::from(self.params.max_flip_percent) * all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Four backends, one letter each; at most half may turn.
    struct Four {
        caution: Caution,
        begun: Instant,
    }

    impl Four {
        fn healthy() -> Self {
            let params = CautionParams {
                max_flip_percent: 50,
                confirm_after: 30 * SECOND,
            };
            let mut four = Self {
                caution: Caution::new(params),
                begun: Instant::now(),
            };
            assert_eq!(four.doubted("", 0.0), "");
            four
        }

        /// Who is doubted when these are written sick, so many seconds after the start.
        fn doubted(&mut self, sick: &str, at: f64) -> String {
            self.looked_at(sick, at, at)
        }

        /// The same for a writing that is looked at again later.
        fn looked_at(&mut self, sick: &str, written: f64, now: f64) -> String {
            let (sick, healthy) = ["a", "b", "c", "d"]
                .into_iter()
                .map(BackendName::from)
                .partition(|name: &BackendName| sick.contains(name.as_str()));
            let [written, now] = [written, now].map(|at| self.begun + SECOND.mul_f64(at));
            let doubted = self.caution.doubts(healthy, &sick, written, now);
            doubted.iter().map(BackendName::as_str).collect()
        }
    }

    #[test]
    fn up_to_the_limit_everything_is_believed() {
        let mut four = Four::healthy();
        assert_eq!(four.doubted("ab", 1.0), "");
        assert_eq!(four.caution.held_since(), None);
    }

    #[test]
    fn the_first_report_is_believed_whatever_it_says() {
        let mut four = Four::healthy();
        four.caution.healthy = None;
        assert_eq!(four.doubted("abcd", 1.0), "");
    }

    #[test]
    fn another_writing_that_agrees_is_believed_and_looking_again_is_not() {
        let mut four = Four::healthy();
        assert_eq!(four.doubted("abc", 1.0), "abc");
        assert_eq!(four.looked_at("abc", 1.0, 9.0), "abc");
        assert_eq!(four.doubted("abc", 10.0), "");
        assert_eq!(four.caution.held_since(), None);
    }

    #[test]
    fn a_writing_within_a_second_is_the_same_opinion() {
        let mut four = Four::healthy();
        assert_eq!(four.doubted("abc", 1.0), "abc");
        assert_eq!(four.doubted("abc", 1.9), "abc");
        assert_eq!(four.doubted("abc", 2.0), "");
    }

    #[test]
    fn turns_one_after_the_other_count_together() {
        let mut four = Four::healthy();
        assert_eq!(four.doubted("a", 1.0), "");
        assert_eq!(four.doubted("ab", 2.0), "");
        assert_eq!(four.doubted("abc", 3.0), "c");
        assert_eq!(four.doubted("abcd", 5.0), "cd", "others than those held");
        assert_eq!(four.doubted("abcd", 6.0), "");
    }

    #[test]
    fn turns_of_long_ago_do_not_count() {
        let mut four = Four::healthy();
        assert_eq!(four.doubted("ab", 1.0), "");
        assert_eq!(four.doubted("abc", 32.0), "");
    }

    #[test]
    fn another_writing_that_blames_others_is_no_agreement() {
        let mut four = Four::healthy();
        assert_eq!(four.doubted("abc", 1.0), "abc");
        assert_eq!(four.doubted("bcd", 5.0), "bcd");
    }

    #[test]
    fn what_is_taken_back_was_never_believed() {
        let mut four = Four::healthy();
        assert_eq!(four.doubted("abc", 1.0), "abc");
        assert_eq!(four.doubted("", 2.0), "");
        assert_eq!(four.doubted("abc", 9.0), "abc");
    }

    #[test]
    fn what_lasts_is_believed() {
        let mut four = Four::healthy();
        assert_eq!(four.doubted("abc", 1.0), "abc");
        let due = four.caution.due().unwrap();
        assert_eq!(due, four.begun + 31 * SECOND);
        assert_eq!(four.looked_at("abc", 1.0, 31.0), "");
    }
}
