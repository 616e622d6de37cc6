//! What the last report means for a backend once its age is taken into account: the one answer that
//! selection and the status are both given.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::id::BackendName;

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
    /// Whom the report calls sick and nobody believes it yet.
    doubted: Arc<BTreeSet<BackendName>>,
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

impl Standing<'_> {
    /// Its name for machines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ready => State::Ready.name(),
            Self::Sick(_) => "sick",
            Self::Unnamed => "unnamed",
            Self::Kept(state) => state.name(),
            Self::NoReport => "no_report",
            Self::Stale => "stale",
        }
    }
}

impl Ruling {
    /// While a report is fresh: what it says.
    pub fn fresh(report: Arc<Report>) -> Self {
        Self {
            report: Some(report),
            policy: Policy::AsReported,
            doubted: Arc::default(),
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
            doubted: Arc::default(),
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
            doubted: Arc::default(),
        }
    }

    /// The same, but that these count as well for as long as the report is in force.
    pub fn doubting(self, doubted: BTreeSet<BackendName>) -> Self {
        Self {
            doubted: Arc::new(doubted),
            ..self
        }
    }

    /// Whom the report calls sick and nobody believes it yet.
    pub fn doubted(&self) -> &BTreeSet<BackendName> {
        &self.doubted
    }

    /// The report, however old.
    pub fn report(&self) -> Option<&Arc<Report>> {
        self.report.as_ref()
    }

    /// Whether the two were made from the same report (not an equal one) under the same policy and with
    /// the same doubts.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same_report = match (&self.report, &other.report) {
            (Some(left), Some(right)) => Arc::ptr_eq(left, right),
            (None, None) => true,
            _ => false,
        };
        is_same_report && self.policy == other.policy && self.doubted == other.doubted
    }

    /// What the report says about a backend, for `weight` and `max_in_flight`, which hold however old
    /// it is.
    pub fn verdict(&self, name: &str) -> Option<&Verdict> {
        self.report.as_ref()?.verdict(name)
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
            (Policy::AsReported, _) if self.doubted.contains(name) => Standing::Ready,
            (Policy::AsReported, None) => Standing::Unnamed,
            (Policy::AsReported, Some(verdict)) if verdict.healthy => Standing::Ready,
            (Policy::AsReported, Some(verdict)) => Standing::Sick(verdict.reason.as_deref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A backend for every thing that a report can say about one.
    const SAID: &str = r#"{
        "well": true,
        "sick": false,
        "explained": { "healthy": false, "reason": "no answer" },
        "ready": { "healthy": true, "state": "ready" },
        "drained": { "healthy": true, "state": "drain" },
        "sick and drained": { "healthy": false, "state": "drain" },
        "in maintenance": { "healthy": true, "state": "maint" },
        "weighed": { "healthy": false, "weight": 7, "max_in_flight": 3 }
    }"#;

    fn said() -> Arc<Report> {
        Arc::new(Report::parse(SAID.as_bytes()).unwrap())
    }

    fn assert_standings(ruling: &Ruling, expected: &[(&str, Standing)]) {
        for (name, standing) in expected {
            assert_eq!(ruling.standing(name), *standing, "{name} by {ruling:?}");
        }
    }

    const KEPT: [(&str, Standing); 3] = [
        ("drained", Standing::Kept(State::Drain)),
        ("sick and drained", Standing::Kept(State::Drain)),
        ("in maintenance", Standing::Kept(State::Maint)),
    ];

    #[test]
    fn a_report_that_is_fresh_or_kept_is_obeyed() {
        for ruling in [
            Ruling::fresh(said()),
            Ruling::stale(said(), WhenStale::Keep),
        ] {
            let measured = [
                ("well", Standing::Ready),
                ("sick", Standing::Sick(None)),
                ("explained", Standing::Sick(Some("no answer"))),
                ("ready", Standing::Ready),
                ("weighed", Standing::Sick(None)),
                ("unnamed", Standing::Unnamed),
            ];
            assert_standings(&ruling, &measured);
            assert_standings(&ruling, &KEPT);
        }
    }

    #[test]
    fn a_stale_report_that_fails_open_keeps_its_commands_only() {
        let ruling = Ruling::stale(said(), WhenStale::FailOpen);
        let names = ["well", "sick", "explained", "ready", "weighed", "unnamed"];
        assert_standings(&ruling, &names.map(|name| (name, Standing::Ready)));
        assert_standings(&ruling, &KEPT);
    }

    #[test]
    fn a_stale_report_that_fails_closed_stops_everybody() {
        let ruling = Ruling::stale(said(), WhenStale::FailClosed);
        let names = ["well", "sick", "explained", "ready", "weighed", "unnamed"];
        assert_standings(&ruling, &names.map(|name| (name, Standing::Stale)));
        assert_standings(&ruling, &KEPT);
    }

    #[test]
    fn without_a_report_nobody_or_everybody_is_ready() {
        let closed = Ruling::missing(WhenMissing::FailClosed);
        assert_standings(&closed, &[("well", Standing::NoReport)]);
        assert_standings(&Ruling::default(), &[("well", Standing::NoReport)]);
        let open = Ruling::missing(WhenMissing::FailOpen);
        assert_standings(&open, &[("well", Standing::Ready)]);
        assert_eq!((open.report(), open.verdict("well")), (None, None));
    }

    #[test]
    fn weight_and_slots_hold_however_old_the_report_is() {
        let all = [WhenStale::Keep, WhenStale::FailOpen, WhenStale::FailClosed];
        let stale = all.map(|when| Ruling::stale(said(), when));
        for ruling in stale.iter().chain([&Ruling::fresh(said())]) {
            let verdict = ruling.verdict("weighed").unwrap();
            assert_eq!((verdict.weight, verdict.max_in_flight), (Some(7), Some(3)));
            assert_eq!(ruling.verdict("unnamed"), None);
        }
    }

    #[test]
    fn rulings_are_the_same_by_report_and_policy() {
        let report = said();
        let fresh = Ruling::fresh(report.clone());
        assert!(fresh.is_same(&Ruling::stale(report.clone(), WhenStale::Keep)));
        assert!(!fresh.is_same(&Ruling::stale(report, WhenStale::FailOpen)));
        assert!(!fresh.is_same(&Ruling::fresh(said())), "equal is not same");
        let missing = Ruling::missing(WhenMissing::FailClosed);
        assert!(missing.is_same(&Ruling::missing(WhenMissing::FailClosed)));
        assert!(!missing.is_same(&Ruling::missing(WhenMissing::FailOpen)));
        assert!(!missing.is_same(&Ruling::stale(said(), WhenStale::FailClosed)));
        assert!(!Ruling::stale(said(), WhenStale::FailClosed).is_same(&missing));
    }

    #[test]
    fn who_is_doubted_counts_as_well_while_the_report_is_in_force_and_commands_hold() {
        let text = br#"{"a": false, "b": {"healthy": false, "state": "drain"}, "c": false}"#;
        let report = Arc::new(Report::parse(text).unwrap());
        let doubted = BTreeSet::from(["a".into(), "b".into()]);
        let ruling = Ruling::fresh(report.clone()).doubting(doubted.clone());
        assert_eq!(ruling.standing("a"), Standing::Ready);
        assert_eq!(ruling.standing("b"), Standing::Kept(State::Drain));
        assert_eq!(ruling.standing("c"), Standing::Sick(None));
        assert!(!ruling.is_same(&Ruling::fresh(report.clone())));
        let stale = Ruling::stale(report, WhenStale::FailClosed).doubting(doubted);
        assert_eq!(stale.standing("a"), Standing::Stale);
    }
}
