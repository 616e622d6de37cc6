//! When a backend is out, for how long, and what brings it back: a circuit for each (Nygard's circuit breaker, as
//! Finagle's `FailureAccrual`, linkerd's and Envoy's outlier detection have it).
//!
//! ```text
//!            too many errors                    the rest is over
//!   closed ------------------> open ------------------------------> probation
//!     ^  ^                      |  ^                                 |     |
//!     |  +----------------------+  +---------------------------------+     |
//!     |    it accepts a connection      the trial fails: a longer rest     |
//!     +--------------------------------------------------------------------+
//!                              the trial is answered
//! ```
//!
//! - *closed*: it has requests as all others.
//! - *open* for errors: it rests, each time in a row twice as long. Open for refusals: it has nothing to rest from, and
//!   comes back with the first connection that it accepts.
//! - *probation*: it has one request at a time, and the first that is answered or fails decides.
//!
//! Times are durations since a moment of the caller's choice.
//!
//! Invariants: a trial decides once, and only while it is the one under way; who was ejected anew is not brought back
//! by what belongs to the ejection before.

mod tally;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::backoff::{self, STEP};

pub use tally::{Tally, slow};

/// What the configuration says.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierParams {
    /// So many errors in a row eject; 1 or more.
    pub consecutive_errors: Option<u32>,
    /// Errors per 100 requests in a window, in `1..=100`.
    pub error_percent: Option<u32>,
    /// How long a window is.
    pub error_window: Duration,
    /// Without so many requests in a window, it says nothing; 1 or more.
    pub min_requests: u32,
    /// How many times as slow as its peers a backend may be; more than 1.
    pub latency_factor: Option<f64>,
    /// The first rest.
    pub base_ejection: Duration,
    /// The longest; no shorter than the first.
    pub max_ejection: Duration,
    /// Of 100 admitted backends, how many may be out for their errors or for being slow.
    pub max_ejection_percent: u32,
    /// A trial that takes longer decides nothing; more than a backend may take to answer.
    pub longest_trial: Duration,
}

impl Default for OutlierParams {
    fn default() -> Self {
        Self {
            consecutive_errors: Some(5),
            error_percent: Some(50),
            error_window: Duration::from_secs(10),
            min_requests: 20,
            latency_factor: None,
            base_ejection: Duration::from_secs(10),
            max_ejection: Duration::from_secs(300),
            max_ejection_percent: 50,
            longest_trial: Duration::from_secs(120),
        }
    }
}

impl OutlierParams {
    /// Whether one more of so many admitted backends may be taken out when so many are out already.
    pub fn may_eject(&self, admitted: usize, out: usize) -> bool {
        let most = admitted as u64 * u64::from(self.max_ejection_percent) / 100;
        (out as u64) < most
    }

    /// How long a backend rests that was ejected so often before.
    fn rest(&self, before: u32) -> Duration {
        let factor = 1u32.checked_shl(before).unwrap_or(u32::MAX);
        self.base_ejection
            .saturating_mul(factor)
            .min(self.max_ejection)
    }
}

/// What speaks against a backend, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misstep {
    /// The connection broke off before its answer was complete.
    Reset,
    /// It took longer than a backend may.
    Overdue,
    /// It answered something that is not HTTP.
    Invalid,
    /// It answered 502, 503 or 504, and wants to be left alone for so long.
    Status(Duration),
}

impl Misstep {
    /// How long the backend wants to be left alone.
    pub fn wanted_rest(self) -> Duration {
        match self {
            Self::Status(rest) => rest,
            Self::Reset | Self::Overdue | Self::Invalid => Duration::ZERO,
        }
    }
}

/// Why a backend is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It refuses connections.
    ConnectionRefused,
    /// Nobody answers when a connection is asked for.
    ConnectTimeout,
    /// There is no way to it.
    NoRoute,
    /// No connection could be made for another reason.
    ConnectFailure,
    /// It closes fresh connections without a byte of an answer.
    BrokenOff,
    /// One error after the other.
    ConsecutiveErrors,
    /// Too many of its requests in a window are errors.
    ErrorPercent,
    /// It is far slower than its peers.
    Latency,
}

impl Cause {
    /// Every cause's word.
    pub const WORDS: [&'static str; 8] = [
        "connection_refused",
        "connect_timeout",
        "no_route",
        "connect_failure",
        "broken_off",
        "consecutive_errors",
        "error_percent",
        "latency",
    ];

    /// What it is called in events, metrics and the status.
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// A connection is all the evidence there is, and all it takes to come back.
    pub fn is_refusal(self) -> bool {
        (self as usize) < Self::BrokenOff as usize
    }

    /// It is taken out whatever `max_ejection_percent` says: who refuses or breaks off is done with each request at
    /// once, looks like the emptiest backend and would swallow everything.
    pub fn is_unbounded(self) -> bool {
        self.is_refusal() || self == Self::BrokenOff
    }
}

/// One ejection of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Which one; greater than those before.
    pub number: u32,
    /// What for.
    pub cause: Cause,
    /// Since when the backend rests.
    pub since: Duration,
    /// Until when; `None`: until it accepts a connection.
    pub until: Option<Duration>,
}

/// Where a backend stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open(Ejection),
    Probation {
        ejection: Ejection,
        since: Duration,
        /// The trial under way.
        trial: Option<Trial>,
        /// Nobody has come whose request may be repeated: anybody's will do.
        takes_any: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trial {
    number: u32,
    /// When it was first seen under way.
    seen: Option<Duration>,
}

/// Whether one backend may have requests, and why not.
#[derive(Clone, Copy, Debug)]
pub struct Circuit {
    state: State,
    /// How often in a row it was ejected for errors.
    streak: u32,
    /// When it was closed last.
    well_since: Duration,
    /// All others were seen to fail while it was out: it is no outlier, and may be well as soon as they are.
    has_company: bool,
    /// How often it was tried early since they are well.
    early_trials: u32,
    /// How many ejections and trials there were.
    ejections: u32,
    trials: u32,
}

/// What is to be done about a backend that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tending {
    /// Nothing: it is back, or was ejected anew, which is somebody else's care.
    Over,
    /// To look again after so long; it may be on probation now.
    Look(Duration),
}

impl Circuit {
    /// Of a backend of which nothing bad is known.
    pub fn closed(now: Duration) -> Self {
        Self {
            state: State::Closed,
            streak: 0,
            well_since: now,
            has_company: false,
            early_trials: 0,
            ejections: 0,
            trials: 0,
        }
    }

    /// It may have requests as all others.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The ejection that it is out by.
    pub fn ejection(&self) -> Option<Ejection> {
        match self.state {
            State::Closed => None,
            State::Open(ejection) | State::Probation { ejection, .. } => Some(ejection),
        }
    }

    /// It may have one request.
    pub fn is_on_probation(&self) -> bool {
        matches!(self.state, State::Probation { .. })
    }

    /// It may have one request, and has none.
    pub fn wants_trial(&self) -> bool {
        matches!(self.state, State::Probation { trial: None, .. })
    }

    /// That may be anybody's.
    pub fn takes_any(&self) -> bool {
        matches!(
            self.state,
            State::Probation {
                takes_any: true,
                ..
            }
        )
    }

    /// Takes it out, for `wanted_rest` at the least where it rests at all. A refused connection is news even of one that
    /// is out for its errors: there is nobody to have a rest. (One that is not answered in time may be a lost packet.)
    /// `None`: it is out already.
    pub fn eject(
        &mut self,
        params: &OutlierParams,
        cause: Cause,
        wanted_rest: Duration,
        now: Duration,
    ) -> Option<Ejection> {
        let is_news = match self.ejection() {
            None => true,
            Some(ejection) => cause == Cause::ConnectionRefused && ejection.until.is_some(),
        };
        if !is_news {
            return None;
        }
        self.ejections += 1;
        let until = match cause.is_refusal() {
            true => None,
            false => {
                // As long as the longest rest in good health: what fails less often than that is out for a small
                // part of the time, however short its rests are.
                if now.saturating_sub(self.well_since) >= params.max_ejection {
                    self.streak = 0;
                }
                Some(self.rest_until(params, wanted_rest, now))
            }
        };
        Some(self.open(cause, until, now))
    }

    fn rest_until(
        &mut self,
        params: &OutlierParams,
        wanted_rest: Duration,
        now: Duration,
    ) -> Duration {
        let rest = params.rest(self.streak);
        self.streak = self.streak.saturating_add(1);
        now + rest.max(wanted_rest.min(params.max_ejection))
    }

    fn open(&mut self, cause: Cause, until: Option<Duration>, now: Duration) -> Ejection {
        let ejection = Ejection {
            number: self.ejections,
            cause,
            since: now,
            until,
        };
        self.state = State::Open(ejection);
        ejection
    }

    /// What looked like errors was a process that is gone: it comes back with the first connection that it accepts.
    /// Says whether that is so still.
    pub fn refuses(&mut self, number: u32, cause: Cause) -> bool {
        match &mut self.state {
            State::Open(ejection) if ejection.number == number => {
                ejection.cause = cause;
                ejection.until = None;
                self.streak = self.streak.saturating_sub(1);
                true
            }
            _ => false,
        }
    }

    /// Time has passed since this ejection. While nobody else is well (nobody else may have requests, so that clients
    /// wait for exactly this backend, or all others fail them as well), every short step is a trial; once somebody is
    /// again, trials come less and less often, until the rest is over. One that takes longer than any backend may (its client is slow to
    /// send it, or to take the answer) decides nothing any more, and another may be one beside it.
    pub fn tend(
        &mut self,
        params: &OutlierParams,
        number: u32,
        is_other_well: bool,
        now: Duration,
    ) -> Tending {
        match &mut self.state {
            State::Open(ejection) if ejection.number == number => {
                let ejection = *ejection;
                let Some(until) = ejection.until else {
                    return Tending::Over;
                };
                let left = until.saturating_sub(now);
                let rested = now.saturating_sub(ejection.since);
                if left.is_zero() || self.is_tried_early(rested, is_other_well) {
                    self.state = State::Probation {
                        ejection,
                        since: now,
                        trial: None,
                        takes_any: false,
                    };
                    return Tending::Look(STEP.min(params.base_ejection));
                }
                Tending::Look(left.min(STEP))
            }
            State::Probation {
                ejection,
                since,
                trial,
                takes_any,
            } if ejection.number == number => {
                if let Some(Trial { seen, .. }) = trial
                    && now.saturating_sub(*seen.get_or_insert(now)) >= params.longest_trial
                {
                    *trial = None;
                }
                let left = (*since + params.base_ejection).saturating_sub(now);
                *takes_any |= left.is_zero();
                Tending::Look(if left.is_zero() { STEP } else { left.min(STEP) })
            }
            _ => Tending::Over,
        }
    }

    fn is_tried_early(&mut self, rested: Duration, is_other_well: bool) -> bool {
        if !is_other_well {
            self.note_company();
            return rested >= STEP;
        }
        let is_due = self.has_company && rested >= STEP * backoff::steps_before(self.early_trials);
        self.early_trials += u32::from(is_due);
        is_due
    }

    /// All others fail or are out, too.
    pub fn note_company(&mut self) {
        self.has_company = true;
        self.early_trials = 0;
    }

    /// A request is sent to it; its number. `None`: it is not on probation, or has one.
    pub fn begin_trial(&mut self) -> Option<u32> {
        match &mut self.state {
            State::Probation { trial, .. } if trial.is_none() => {
                self.trials += 1;
                *trial = Some(Trial {
                    number: self.trials,
                    seen: None,
                });
                Some(self.trials)
            }
            _ => None,
        }
    }

    /// That request was answered. Says whether that brings the backend back.
    pub fn trial_went_well(&mut self, number: u32, now: Duration) -> bool {
        let is_its = self.is_under_way(number);
        if is_its {
            self.close(now);
        }
        is_its
    }

    /// That request failed: the backend rests again, longer than before unless the trial came before its time.
    /// Returns the ejection, if this was it.
    pub fn trial_failed(
        &mut self,
        params: &OutlierParams,
        number: u32,
        wanted_rest: Duration,
        now: Duration,
    ) -> Option<Ejection> {
        let State::Probation {
            ejection,
            since,
            trial,
            ..
        } = self.state
        else {
            return None;
        };
        if trial.is_none_or(|trial| trial.number != number) {
            return None;
        }
        let is_early = ejection.until.is_none_or(|until| until > since);
        let until = match is_early {
            true => ejection.until,
            false => Some(self.rest_until(params, wanted_rest, now)),
        };
        Some(self.open(ejection.cause, until, now))
    }

    /// That request came to nothing that could be held against the backend, or was never sent. Says whether another
    /// may be the trial now.
    pub fn trial_undecided(&mut self, number: u32) -> bool {
        let is_its = self.is_under_way(number);
        if let State::Probation { trial, .. } = &mut self.state
            && is_its
        {
            *trial = None;
        }
        is_its
    }

    fn is_under_way(&self, number: u32) -> bool {
        matches!(self.state, State::Probation { trial: Some(trial), .. } if trial.number == number)
    }

    /// It accepts connections: it is back, if it is out by this ejection still.
    pub fn reinstate(&mut self, number: u32, now: Duration) -> bool {
        let is_its = self
            .ejection()
            .is_some_and(|ejection| ejection.number == number);
        if is_its {
            self.close(now);
        }
        is_its
    }

    /// It is well, says who must know. What it was ejected for before is not forgotten by that.
    pub fn close(&mut self, now: Duration) {
        self.state = State::Closed;
        self.well_since = now;
        self.has_company = false;
        self.early_trials = 0;
    }
}
