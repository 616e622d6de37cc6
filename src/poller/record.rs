//! What a target's pings come to: the verdict and its reason.

use super::probe::{Answer, Outcome};
use crate::config::PollerParams;
use crate::policy::threshold::Threshold;

/// What the poller holds of one target. Live: kept across reloads.
pub(super) struct Record {
    threshold: Threshold,
    /// Failed pings in a row up to now.
    failures: u32,
}

/// What a ping has come to, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub healthy: bool,
    /// Such as `200 in 3 ms`, `connection refused (7 in a row)` or, while the verdict is about to
    /// change, `connection refused (1 of 2)`.
    pub reason: String,
    /// Whether the verdict is another than before this ping.
    pub is_news: bool,
}

impl Record {
    /// Starts from what is known; without, the first ping decides.
    pub fn new(params: &PollerParams, known: Option<bool>) -> Self {
        Self {
            threshold: Threshold::new(params.rise, params.fall, known),
            failures: 0,
        }
    }

    /// Whether the next pings are wanted soon.
    pub fn is_changing(&self) -> bool {
        self.threshold.is_changing()
    }

    /// Counts a ping by the numbers that hold now.
    pub fn judge(&mut self, params: &PollerParams, outcome: &Outcome) -> Judgement {
        let before = self.threshold.verdict();
        self.threshold.adjust(params.rise, params.fall);
        self.threshold.record(outcome.is_ok());
        self.failures = match outcome {
            Ok(_) => 0,
            Err(_) => self.failures.saturating_add(1),
        };
        let healthy = self.threshold.verdict().unwrap_or(outcome.is_ok());
        Judgement {
            healthy,
            reason: self.reason(outcome),
            is_news: before != Some(healthy),
        }
    }

    fn reason(&self, outcome: &Outcome) -> String {
        let text = match outcome {
            Ok(answer) => Answer::to_string(answer),
            Err(failure) => failure.to_string(),
        };
        match (self.threshold.against(), self.failures) {
            (0, 0 | 1) => text,
            (0, failures) => format!("{text} ({failures} in a row)"),
            (against, _) => format!("{text} ({against} of {})", self.threshold.needed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fixtures;
    use super::super::probe::PingFailure;
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
        let outcomes = pings.chars().map(|ping| match ping {
            '+' => Ok(Answer {
                status: 200,
                took: Duration::from_micros(2_100),
            }),
            _ => Err(PingFailure::Refused),
        });
        let judgements = outcomes.map(|outcome| record.judge(&params, &outcome));
        judgements
            .map(|one| (one.healthy, one.is_news, one.reason))
            .collect()
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
            let judgement = record.judge(&params(2, 5), &Err(PingFailure::Refused));
            assert!(judgement.healthy);
        }
        let judgement = record.judge(&params(2, 2), &Err(PingFailure::Refused));
        assert!(judgement.is_news && !judgement.healthy);
    }
}
