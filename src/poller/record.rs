//! What a target's pings come to: the verdict and its reason.

use tokio::time::Instant;

use super::look::{Look, Memory, Reading};
use crate::config::PollerParams;
use crate::policy::threshold::Threshold;

/// What the poller holds of one target. Live: kept across reloads.
pub(super) struct Record {
    threshold: Threshold,
    /// Failed pings in a row up to now; inconclusive ones are not counted.
    failures: u32,
    /// The reason of the last look that was counted.
    counted: Option<String>,
    memory: Memory,
    /// How long what excused the last look still does.
    excused_until: Option<Instant>,
}

/// What a look has come to, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub healthy: bool,
    /// The same in a word.
    pub verdict: Word,
    /// Such as `200 in 3 ms`, `a request in hand for 2.1 s`, `connection refused (7 in a row)` or, while the
    /// verdict is about to change, `connection refused (1 of 2)`. A look that says nothing comes after what the
    /// verdict is from: `connection refused (7 in a row); now a request in hand for 2.1 s`.
    pub reason: String,
    /// Whether the verdict is another than before this look.
    pub is_news: bool,
}

/// A verdict in detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Healthy.
    Up,
    /// Healthy as far as is known: it is at work, and answers no ping.
    Busy,
    /// Not healthy.
    Down,
}

/// When the next look is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// After the interval.
    Usual,
    /// After the fast interval.
    Fast,
    /// In time to see whether there is an excuse at this moment, but neither before the fast interval is over
    /// nor after the interval.
    Until(Instant),
}

impl Word {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Busy => "busy",
            Self::Down => "down",
        }
    }
}

impl Record {
    /// Starts from what is known; without, the first conclusive look decides.
    pub fn new(params: &PollerParams, known: Option<bool>) -> Self {
        Self {
            threshold: Threshold::new(params.rise, params.fall, known),
            failures: 0,
            counted: None,
            memory: Memory::default(),
            excused_until: None,
        }
    }

    /// What the next look has to know.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// When the next look is wanted.
    pub fn pace(&self) -> Pace {
        match self.excused_until {
            _ if self.threshold.is_changing() => Pace::Fast,
            Some(until) => Pace::Until(until),
            None => Pace::Usual,
        }
    }

    /// Counts a look by the numbers that hold now.
    pub fn judge(&mut self, params: &PollerParams, look: &Look) -> Judgement {
        let before = self.threshold.verdict();
        self.threshold.adjust(params.rise, params.fall);
        let is_good = look.reading.is_good();
        if let Some(is_good) = is_good {
            self.threshold.record(is_good);
        }
        self.remember(look);
        // A stranger at work is well for now: somebody who sends it requests believes so.
        let healthy = self.threshold.verdict().unwrap_or(true);
        Judgement {
            healthy,
            verdict: match is_good {
                _ if !healthy => Word::Down,
                None => Word::Busy,
                Some(_) => Word::Up,
            },
            reason: self.reason(&look.reading),
            is_news: is_good.is_some() && before != Some(healthy),
        }
    }

    fn remember(&mut self, look: &Look) {
        self.excused_until = None;
        match &look.reading {
            Reading::Well(_) => {
                self.failures = 0;
                self.memory.well = Some(look.ended);
                self.memory.excused = None;
            }
            Reading::Bad(_) => {
                self.failures = self.failures.saturating_add(1);
                self.memory.excused = None;
            }
            // What excused it before does not do so again.
            Reading::Hung(..) => self.failures = self.failures.saturating_add(1),
            Reading::Inconclusive(excuse) => {
                self.excused_until = excuse.until;
                self.memory.excused = match excuse.until {
                    Some(_) => self.memory.excused.or(Some(look.begun)),
                    None => None,
                };
            }
        }
    }

    fn reason(&mut self, reading: &Reading) -> String {
        let against = self.threshold.against();
        if reading.is_good().is_none() {
            let is_sick = self.threshold.verdict() == Some(false);
            return match &self.counted {
                Some(counted) if is_sick || against > 0 => format!("{counted}; now {reading}"),
                None if is_sick => format!("sick before; now {reading}"),
                _ => reading.to_string(),
            };
        }
        let reason = match (against, self.failures) {
            (0, 0 | 1) => reading.to_string(),
            (0, failures) => format!("{reading} ({failures} in a row)"),
            _ => format!("{reading} ({against} of {})", self.threshold.needed()),
        };
        self.counted = Some(reason.clone());
        reason
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fixtures;
    use super::super::look::Excuse;
    use super::super::probe::{Answer, PingFailure};
    use super::*;

    fn params(rise: u32, fall: u32) -> PollerParams {
        PollerParams {
            rise,
            fall,
            ..fixtures::params()
        }
    }

    /// What this many pings come to: `+` is a good one.
    fn judged(known: Option<bool>, pings: &str) -> Vec<(bool, bool, String)> {
        let params = params(2, 2);
        let mut record = Record::new(&params, known);
        let looks = pings.chars().map(look);
        let judgements = looks.map(|look| record.judge(&params, &look));
        judgements
            .map(|one| (one.healthy, one.is_news, one.reason))
            .collect()
    }

    fn look(ping: char) -> Look {
        let now = Instant::now();
        Look {
            begun: now,
            ended: now,
            was_pinged: true,
            reading: match ping {
                '+' => Reading::Well(Answer {
                    status: 200,
                    took: Duration::from_micros(2_100),
                }),
                '?' => Reading::Inconclusive(Excuse {
                    why: "at work".into(),
                    until: Some(now),
                }),
                _ => Reading::Bad(PingFailure::Refused),
            },
        }
    }

    #[test]
    fn an_inconclusive_look_counts_for_nothing() {
        for (known, reason) in [(true, "at work"), (false, "sick before; now at work")] {
            let looks = judged(Some(known), "?????");
            let expected = (known, false, reason.to_owned());
            assert!(looks.iter().all(|look| *look == expected), "{looks:?}");
        }
        let verdicts = |pings| judged(Some(true), pings).into_iter().map(|one| one.0);
        assert!(verdicts("-?????").all(|healthy| healthy));
        assert!(verdicts("-?+?-?+?").all(|healthy| healthy));
        assert_eq!(verdicts("-???-").next_back(), Some(false));
        assert!(judged(Some(false), "+?+")[2].0);
    }

    #[test]
    fn a_stranger_at_work_is_well_until_a_look_says_something() {
        let looks = judged(None, "??-");
        let healthy: Vec<_> = looks.iter().map(|look| (look.0, look.1)).collect();
        assert_eq!(healthy, [(true, false), (true, false), (false, true)]);
    }

    #[test]
    fn the_word_says_up_busy_or_down() {
        let words = |known, pings: &str| {
            let mut record = Record::new(&params(2, 2), known);
            let judge = |ping| record.judge(&params(2, 2), &look(ping)).verdict;
            pings.chars().map(judge).collect::<Vec<_>>()
        };
        use Word::{Busy, Down, Up};
        assert_eq!(words(Some(true), "+?--?"), [Up, Busy, Up, Down, Down]);
    }

    #[test]
    fn what_excuses_is_remembered_until_there_is_life() {
        let params = params(2, 2);
        let mut record = Record::new(&params, Some(true));
        let first = look('?');
        record.judge(&params, &first);
        record.judge(&params, &look('?'));
        assert_eq!(record.memory().excused, Some(first.begun));
        assert!(matches!(record.pace(), Pace::Until(_)));
        let hung = |ping| Look {
            reading: Reading::Hung(PingFailure::Refused, "none to a request".into()),
            ..look(ping)
        };
        record.judge(&params, &hung('?'));
        assert_eq!(record.memory().excused, Some(first.begun));
        assert_eq!(record.pace(), Pace::Fast);
        record.judge(&params, &look('+'));
        assert_eq!(record.memory().excused, None);
        assert!(record.memory().well.is_some());
        assert_eq!(record.pace(), Pace::Usual);
    }

    #[test]
    fn the_reason_tells_the_last_ping_and_the_run_that_it_is_in() {
        let expected = [
            (true, false, "200 in 3 ms"),
            (true, false, "connection refused (1 of 2)"),
            (false, true, "connection refused (2 in a row)"),
            (false, false, "connection refused (3 in a row)"),
            (false, false, "200 in 3 ms (1 of 2)"),
            (true, true, "200 in 3 ms"),
        ]
        .map(|(healthy, is_news, reason)| (healthy, is_news, reason.to_owned()));
        assert_eq!(judged(Some(true), "+---++"), expected);
    }

    #[test]
    fn while_looks_say_nothing_the_reason_stays_what_the_verdict_is_from() {
        let reasons = |known, pings| judged(known, pings).into_iter().map(|one| one.2);
        let last = |known, pings| reasons(known, pings).next_back().unwrap();
        assert_eq!(
            last(Some(true), "-??"),
            "connection refused (1 of 2); now at work"
        );
        assert_eq!(
            last(Some(true), "---?"),
            "connection refused (3 in a row); now at work"
        );
        assert_eq!(last(Some(false), "+?"), "200 in 3 ms (1 of 2); now at work");
        assert_eq!(last(Some(true), "-+?"), "at work");
        assert_eq!(last(None, "?"), "at work");
    }

    /// An inconclusive look that the target is known to live by; and a refusal.
    #[test]
    fn a_sign_of_life_or_a_failure_ends_what_was_remembered() {
        let params = params(2, 2);
        let alive = Look {
            reading: Reading::Inconclusive(Excuse {
                why: "alive".into(),
                until: None,
            }),
            ..look('?')
        };
        for end in [alive, look('-')] {
            let mut record = Record::new(&params, Some(true));
            record.judge(&params, &look('?'));
            assert!(record.memory().excused.is_some());
            record.judge(&params, &end);
            assert_eq!(record.memory().excused, None, "{end:?}");
        }
    }

    #[test]
    fn the_first_ping_of_a_stranger_is_news_and_of_one_that_is_known_is_not() {
        assert_eq!(
            judged(None, "-"),
            [(false, true, "connection refused".into())]
        );
        assert!(!judged(Some(true), "+")[0].1);
        assert_eq!(
            judged(Some(false), "+"),
            [(false, false, "200 in 3 ms (1 of 2)".into())]
        );
    }

    #[test]
    fn numbers_that_change_hold_from_the_next_ping_on() {
        let mut record = Record::new(&params(2, 5), Some(true));
        for _ in 0..3 {
            let judgement = record.judge(&params(2, 5), &look('-'));
            assert!(judgement.healthy);
        }
        let judgement = record.judge(&params(2, 2), &look('-'));
        assert!(judgement.is_news && !judgement.healthy);
    }
}
