//! What the last report means for a backend once its age is taken into account: the one answer that
//! selection and the status are both given.

use std::sync::Arc;

use super::report::{Report, State, Verdict};

/// What holds while the report is older than `stale_after`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenStale {
    /// The report stays in force.
    #[default]
    Keep,
    /// Everybody counts as healthy.
    FailOpen,
    /// Nobody counts as healthy.
    FailClosed,
}

/// What holds while no report was ever read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenMissing {
    /// Nobody counts as healthy.
    #[default]
    FailClosed,
    /// Everybody counts as healthy.
    FailOpen,
}

/// A report, or the lack of one, together with the policy that applies to it now. Immutable.
#[derive(Clone, Debug, Default)]
pub struct Ruling {
    report: Option<Arc<Report>>,
    policy: Policy,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Policy {
    #[default]
    AsReported,
    FailOpen,
    FailClosed,
}

/// Where a backend stands by a ruling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Healthy, and may be given new requests as far as the file is concerned.
    Ready,
    /// The report calls it sick, perhaps with a reason.
    Sick(Option<&'a str>),
    /// The report does not name it.
    Unnamed,
    /// The report keeps new requests from it, healthy or not: [`State::Drain`] or [`State::Maint`].
    Kept(State),
    /// No report was read yet.
    NoReport,
    /// The report is too old to be believed.
    Stale,
}

impl Ruling {
    /// While a report is fresh: what it says.
    pub fn fresh(report: Arc<Report>) -> Self {
        Self {
            report: Some(report),
            policy: Policy::AsReported,
        }
    }

    /// While a report is older than `stale_after`.
    pub fn stale(report: Arc<Report>, when_stale: WhenStale) -> Self {
        Self {
            report: Some(report),
            policy: match when_stale {
                WhenStale::Keep => Policy::AsReported,
                WhenStale::FailOpen => Policy::FailOpen,
                WhenStale::FailClosed => Policy::FailClosed,
            },
        }
    }

    /// Before the first report.
    pub fn missing(when_missing: WhenMissing) -> Self {
        Self {
            report: None,
            policy: match when_missing {
                WhenMissing::FailClosed => Policy::FailClosed,
                WhenMissing::FailOpen => Policy::FailOpen,
            },
        }
    }

    /// The report, however old.
    pub fn report(&self) -> Option<&Arc<Report>> {
        self.report.as_ref()
    }

    /// Whether the two were made from the same report (not an equal one) under the same policy.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same_report = match (&self.report, &other.report) {
            (Some(left), Some(right)) => Arc::ptr_eq(left, right),
            (None, None) => true,
            _ => false,
        };
        is_same_report && self.policy == other.policy
    }

    /// Whether the two were made from different reports.
    pub fn differs_in_report(&self, other: &Self) -> bool {
        let both = self.report.as_ref().zip(other.report.as_ref());
        both.is_some_and(|(left, right)| !Arc::ptr_eq(left, right))
    }

    /// What the report says about a backend, for `weight` and `max_in_flight`, which hold however old
    /// it is.
    pub fn verdict(&self, name: &str) -> Option<&Verdict> {
        self.report.as_ref()?.verdict(name)
    }

    /// Whether a backend counts as well, whatever its state.
    pub fn is_healthy(&self, name: &str) -> bool {
        match self.policy {
            Policy::AsReported => self.verdict(name).is_some_and(|verdict| verdict.healthy),
            Policy::FailOpen => true,
            Policy::FailClosed => false,
        }
    }

    /// Where a backend stands. A state that keeps requests from it is a command and not a
    /// measurement: it holds under every policy.
    pub fn standing(&self, name: &str) -> Standing<'_> {
        let verdict = self.verdict(name);
        let state = verdict.map_or(State::Ready, |verdict| verdict.state);
        match (self.policy, verdict) {
            _ if state != State::Ready => Standing::Kept(state),
            (Policy::FailOpen, _) => Standing::Ready,
            (Policy::FailClosed, _) if self.report.is_none() => Standing::NoReport,
            (Policy::FailClosed, _) => Standing::Stale,
            (Policy::AsReported, None) if self.report.is_none() => Standing::NoReport,
            (Policy::AsReported, None) => Standing::Unnamed,
            (Policy::AsReported, Some(verdict)) if verdict.healthy => Standing::Ready,
            (Policy::AsReported, Some(verdict)) => Standing::Sick(verdict.reason.as_deref()),
        }
    }
}
