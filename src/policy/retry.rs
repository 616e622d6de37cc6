//! May this request be sent again?
//!
//! Idempotence as RFC 9110, section 9.2.2 defines it: a method that may be repeated may be resent
//! until something was passed on to the client; any other only if not one of its bytes was sent, or where
//! the configuration says that the backends stand it.
//!
//! Only what may have cost a backend work is counted and rationed: an attempt in which not one byte was sent,
//! and one on a connection that the backend had ended before, are neither among the attempts nor paid for from
//! the [budget](super::budget).

use std::time::Duration;

use http::{Method, StatusCode};

/// Before the first retry at a backend that is the only one left, at the most; it doubles with each.
const PAUSE: Duration = Duration::from_millis(25);

/// Before any such retry, at the most.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// What the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryParams {
    /// Attempts per request that may cost a backend work, the first included; 1 or more.
    pub attempts: u32,
    /// After what a request is sent again.
    pub on: Reasons,
    /// Retries per 100 requests.
    pub budget_percent: u32,
    /// Methods that are not idempotent may be repeated, too.
    pub non_idempotent: bool,
}

impl Default for RetryParams {
    fn default() -> Self {
        Self {
            attempts: 3,
            on: Reasons::default(),
            budget_percent: 20,
            non_idempotent: false,
        }
    }
}

/// What went wrong with an attempt, as far as sending it again goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No connection could be made, or not one byte was sent on it.
    ConnectFailure,
    /// The connection broke off before anything of the answer was passed on.
    Reset,
    /// The backend had ended the connection, on which others had been served, before.
    Stale,
    /// What it answered is not HTTP; nothing of it was passed on.
    InvalidResponse,
    /// Its answer was 502.
    BadGateway,
    /// Its answer was 503.
    Unavailable,
    /// Its answer was 504.
    GatewayTimeout,
    /// The answer did not come in time.
    Timeout,
    /// The proxy itself was short of something, or closed the connection in that very moment. Always tried again.
    Shortage,
}

impl Reason {
    /// What `on` may name, and how.
    pub const NAMED: [(&'static str, Self); 8] = [
        ("connect_failure", Self::ConnectFailure),
        ("reset_before_response", Self::Reset),
        ("stale_connection", Self::Stale),
        ("invalid_response", Self::InvalidResponse),
        ("502", Self::BadGateway),
        ("503", Self::Unavailable),
        ("504", Self::GatewayTimeout),
        ("timeout", Self::Timeout),
    ];

    /// Every reason's word.
    pub fn words() -> impl Iterator<Item = &'static str> {
        let named = Self::NAMED.iter().map(|(word, _)| *word);
        named.chain([Self::Shortage.word()])
    }

    /// What it is called in the configuration, the access log and the metrics.
    pub fn word(self) -> &'static str {
        let named = Self::NAMED.iter().find(|(_, reason)| *reason == self);
        named.map_or("shortage", |(word, _)| word)
    }

    /// What an answer of this status says, if that is a reason at all.
    pub fn of_status(status: StatusCode) -> Option<Self> {
        match status.as_u16() {
            502 => Some(Self::BadGateway),
            503 => Some(Self::Unavailable),
            504 => Some(Self::GatewayTimeout),
            _ => None,
        }
    }
}

/// Some of the reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reasons(u16);

impl Reasons {
    /// Whether it is one of them. A shortage always is.
    pub fn contains(self, reason: Reason) -> bool {
        reason == Reason::Shortage || self.0 & (1 << reason as u8) != 0
    }
}

impl FromIterator<Reason> for Reasons {
    fn from_iter<I: IntoIterator<Item = Reason>>(reasons: I) -> Self {
        let bits = reasons.into_iter().map(|reason| 1 << reason as u8);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

impl Default for Reasons {
    /// What is no answer of a backend's.
    fn default() -> Self {
        [
            Reason::ConnectFailure,
            Reason::Reset,
            Reason::Stale,
            Reason::InvalidResponse,
        ]
        .into_iter()
        .collect()
    }
}

/// What is known of a failed attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// What went wrong.
    pub reason: Reason,
    /// The request's method.
    pub method: &'a Method,
    /// Some byte of the request may have reached the backend.
    pub sent: bool,
    /// Some byte of the answer was passed on to the client.
    pub answered: bool,
    /// The body is still in memory from its first byte on (or there is none).
    pub replayable: bool,
    /// Attempts so far in which a byte was sent, this one included, but those on a connection that the
    /// backend had ended before.
    pub attempts: u32,
    /// How long until the next could begin.
    pub pause: Duration,
    /// How long until the request's time is over.
    pub left: Duration,
}

/// Why a request is not sent again, though it is one of those that might be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Its method may not be repeated.
    Method,
    /// Its body is gone.
    Body,
    /// It was sent often enough.
    Attempts,
    /// Its time would be over before.
    Deadline,
    /// Too many requests are sent again.
    Budget,
}

impl Denial {
    /// Every denial's word.
    pub const WORDS: [&'static str; 5] = ["method", "body", "attempts", "deadline", "budget"];

    /// What it is called in the metrics.
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

/// Whether to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Again,
    /// No: nobody asked for that, or the client has something of the answer already.
    Never,
    /// No.
    Denied(Denial),
}

/// Whether to try again. The budget is asked last, so that nothing is taken from it in vain; it says
/// whether there was something left.
pub fn decide(
    params: &RetryParams,
    attempt: &Attempt<'_>,
    budget: impl FnOnce() -> bool,
) -> Decision {
    if attempt.answered || !params.on.contains(attempt.reason) {
        return Decision::Never;
    }
    if !attempt.sent {
        // It waits for another turn; if that comes too late, its answer says that it may be asked again.
        return Decision::Again;
    }
    let is_free = attempt.reason == Reason::Stale;
    let denial = if !attempt.method.is_idempotent() && !params.non_idempotent {
        Denial::Method
    } else if !attempt.replayable {
        Denial::Body
    } else if attempt.attempts >= params.attempts {
        Denial::Attempts
    } else if attempt.pause >= attempt.left {
        Denial::Deadline
    } else if !is_free && !budget() {
        Denial::Budget
    } else {
        return Decision::Again;
    };
    Decision::Denied(denial)
}

/// How long to wait before retry number `retry`, counted from 0, at a backend that is the only one left: at
/// most twice as long each time, and evenly from nothing on by `draw`, of which every value is equally likely
/// ("full jitter": M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
pub fn pause(retry: u32, draw: u64) -> Duration {
    let longest = PAUSE.saturating_mul(1u32.checked_shl(retry).unwrap_or(u32::MAX));
    let share = draw as f64 / u64::MAX as f64;
    longest.min(PAUSE_MAX).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn reset() -> Attempt<'static> {
        Attempt {
            reason: Reason::Reset,
            method: &Method::GET,
            sent: true,
            answered: false,
            replayable: true,
            attempts: 1,
            pause: Duration::ZERO,
            left: SECOND,
        }
    }

    fn decided(attempt: &Attempt<'_>) -> Decision {
        decide(&RetryParams::default(), attempt, || true)
    }

    const METHOD: Decision = Decision::Denied(Denial::Method);

    #[test]
    fn a_request_is_sent_again_or_not_for_the_first_reason_that_holds() {
        let reset = reset();
        let (again, never) = (Decision::Again, Decision::Never);
        let post = Attempt {
            method: &Method::POST,
            ..reset
        };
        for (attempt, decision) in [
            (reset, again),
            (
                Attempt {
                    method: &Method::DELETE,
                    ..reset
                },
                again,
            ),
            (
                Attempt {
                    attempts: 2,
                    ..reset
                },
                again,
            ),
            (
                Attempt {
                    reason: Reason::Stale,
                    ..reset
                },
                again,
            ),
            (
                Attempt {
                    reason: Reason::InvalidResponse,
                    ..reset
                },
                again,
            ),
            (
                Attempt {
                    reason: Reason::InvalidResponse,
                    ..post
                },
                METHOD,
            ),
            // Nothing is passed on twice.
            (
                Attempt {
                    answered: true,
                    ..reset
                },
                never,
            ),
            (
                Attempt {
                    answered: true,
                    sent: false,
                    ..reset
                },
                never,
            ),
            // What is not asked for.
            (
                Attempt {
                    reason: Reason::Timeout,
                    ..reset
                },
                never,
            ),
            (
                Attempt {
                    reason: Reason::Unavailable,
                    ..reset
                },
                never,
            ),
            // What may have been done is not done twice.
            (post, METHOD),
            (
                Attempt {
                    reason: Reason::Stale,
                    ..post
                },
                METHOD,
            ),
            (
                Attempt {
                    method: &Method::PATCH,
                    ..reset
                },
                METHOD,
            ),
            (
                Attempt {
                    replayable: false,
                    ..reset
                },
                Decision::Denied(Denial::Body),
            ),
            (
                Attempt {
                    attempts: 3,
                    ..reset
                },
                Decision::Denied(Denial::Attempts),
            ),
            (
                Attempt {
                    pause: SECOND,
                    ..reset
                },
                Decision::Denied(Denial::Deadline),
            ),
            // What was not sent costs nobody anything.
            (
                Attempt {
                    reason: Reason::ConnectFailure,
                    sent: false,
                    ..post
                },
                again,
            ),
            (
                Attempt {
                    reason: Reason::Shortage,
                    sent: false,
                    ..post
                },
                again,
            ),
            (
                Attempt {
                    sent: false,
                    replayable: false,
                    attempts: 9,
                    ..reset
                },
                again,
            ),
        ] {
            assert_eq!(decided(&attempt), decision, "{attempt:?}");
        }
    }

    #[test]
    fn the_configuration_says_what_may_be_repeated_and_how_often() {
        let params = RetryParams {
            attempts: 1,
            on: [Reason::Unavailable, Reason::Timeout].into_iter().collect(),
            non_idempotent: true,
            ..RetryParams::default()
        };
        let post = Attempt {
            reason: Reason::Timeout,
            method: &Method::POST,
            attempts: 0,
            ..reset()
        };
        let decided = |attempt: &Attempt<'_>| decide(&params, attempt, || true);
        assert_eq!(decided(&post), Decision::Again);
        let once = Attempt {
            attempts: 1,
            ..post
        };
        assert_eq!(decided(&once), Decision::Denied(Denial::Attempts));
        let other = Attempt {
            reason: Reason::ConnectFailure,
            sent: false,
            ..post
        };
        assert_eq!(decided(&other), Decision::Never);
        let short = Attempt {
            reason: Reason::Shortage,
            ..other
        };
        assert_eq!(decided(&short), Decision::Again);
    }

    #[test]
    fn only_what_costs_a_backend_work_is_paid_for_and_only_when_it_is_done() {
        let reset = reset();
        for (attempt, is_paid) in [
            (reset, true),
            (
                Attempt {
                    reason: Reason::Stale,
                    ..reset
                },
                false,
            ),
            (
                Attempt {
                    sent: false,
                    ..reset
                },
                false,
            ),
            (
                Attempt {
                    attempts: 3,
                    ..reset
                },
                false,
            ),
        ] {
            let mut asked = false;
            let decision = decide(&RetryParams::default(), &attempt, || {
                asked = true;
                false
            });
            assert_eq!(asked, is_paid, "{attempt:?}");
            assert_eq!(decision == Decision::Denied(Denial::Budget), is_paid);
        }
    }

    #[test]
    fn words_are_the_same_everywhere() {
        let expected = [
            "connect_failure",
            "reset_before_response",
            "stale_connection",
            "invalid_response",
            "502",
            "503",
            "504",
            "timeout",
            "shortage",
        ];
        assert_eq!(Reason::words().collect::<Vec<_>>(), expected);
        for (status, reason) in [(502, "502"), (503, "503"), (504, "504")] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Reason::of_status(status).map(Reason::word), Some(reason));
        }
        assert_eq!(Reason::of_status(StatusCode::INTERNAL_SERVER_ERROR), None);
        assert_eq!(Denial::Method.word(), "method");
        assert_eq!(Denial::Budget.word(), "budget");
    }

    #[test]
    fn a_pause_is_anything_up_to_twice_the_one_before() {
        let longest = |retry| pause(retry, u64::MAX);
        let millis: Vec<_> = (0..6).map(|retry| longest(retry).as_millis()).collect();
        assert_eq!(millis, [25, 50, 100, 200, 250, 250]);
        assert_eq!(longest(u32::MAX), PAUSE_MAX);
        assert_eq!(pause(3, 0), Duration::ZERO);
        assert!(pause(1, u64::MAX / 2).abs_diff(PAUSE) < Duration::from_millis(1));
    }

    fn reasons() -> impl Strategy<Value = Reason> {
        prop::sample::select(Reason::NAMED.map(|(_, reason)| reason).to_vec())
    }

    proptest! {
        /// Whatever the configuration and the failure: nothing that could do harm is done twice.
        #[test]
        fn what_may_have_been_done_and_may_not_be_repeated_is_never_sent_again(
            on in prop::collection::vec(reasons(), 0..8),
            reason in reasons(),
            method in prop::sample::select(vec![Method::GET, Method::POST, Method::PUT, Method::PATCH]),
            (sent, answered, replayable, has_budget) in any::<(bool, bool, bool, bool)>(),
            (attempts, attempts_max) in (0..6u32, 1..6u32),
            non_idempotent in any::<bool>(),
            late in any::<bool>(),
        ) {
            let pause = if late { SECOND } else { Duration::ZERO };
            let left = SECOND;
            let params = RetryParams {
                attempts: attempts_max,
                on: on.iter().copied().collect(),
                non_idempotent,
                ..RetryParams::default()
            };
            let attempt = Attempt {
                reason, method: &method, sent, answered, replayable, attempts, pause, left,
            };
            let is_again = decide(&params, &attempt, || has_budget) == Decision::Again;
            prop_assert!(!is_again || (!answered && on.contains(&reason)));
            let may_repeat = (method.is_idempotent() || non_idempotent) && replayable;
            let has_right = attempts < attempts_max && !late && (has_budget || reason == Reason::Stale);
            prop_assert!(!is_again || !sent || (may_repeat && has_right));
            let is_wanted = !answered && on.contains(&reason);
            prop_assert_eq!(is_again, is_wanted && (!sent || (may_repeat && has_right)));
        }
    }
}
