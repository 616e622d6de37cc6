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
//! Invariants: a probation is decided once, by the first of its trials that is; who was ejected anew is not brought back
//! by what belongs to the ejection before.

mod circuit;
mod tally;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use circuit::{Circuit, Ejection, Takers, Tending};
pub use tally::{Tally, slow};

/// What the configuration says, and how long a trial may take.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierParams {
    /// So many errors in a row eject; 1 or more.
    pub consecutive_errors: Option<u32>,
    /// Errors per 100 requests in a window, in `1..=100`.
    pub error_percent: Option<u32>,
    /// How long a window is; more than 0.
    pub error_window: Duration,
    /// Without so many requests in a window, it says nothing; 1 or more.
    pub min_requests: u32,
    /// How many times as slow as its peers a backend may be; more than 1.
    pub latency_factor: Option<f64>,
    /// The first rest.
    pub base_ejection: Duration,
    /// The longest; no shorter than the first.
    pub max_ejection: Duration,
    /// Of 100 admitted backends, how many may be out for their errors or for being slow; in `0..=100`.
    pub max_ejection_percent: u32,
    /// Beside a trial that takes longer there may be another; more than a backend may take to begin an answer.
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
    /// It answered 502, 503 or 504, and wants to be left alone for so long; 0 where it did not say.
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
}
