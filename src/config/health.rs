//! The health file and who writes it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::health::{WhenMissing, WhenStale};
use crate::id::UpstreamName;

use super::scalar;
use super::section::Section;

/// What the proxy reads of its backends' health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthParams {
    /// Relative to the working directory; not empty. Default `health_status.json`.
    pub file: PathBuf,
    /// How old a report may be; `None`: as old as it likes. Default 30 s.
    pub stale_after: Option<Duration>,
    /// What holds while the report is older. Default `keep`.
    pub when_stale: WhenStale,
    /// What holds until the first report was read. Default `fail_closed`.
    pub when_missing: WhenMissing,
    /// A report that turns more than this share of an upstream's backends sick at once is held back,
    /// in `1..=100`. Default 100: none is.
    pub max_flip_percent: u8,
    /// For how long it is held back, unless another writing agrees earlier. Default 30 s.
    pub confirm_after: Duration,
}

/// How the poller asks backends for their health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollerParams {
    /// From one ping of a backend to the next. Default 10 s.
    pub interval: Duration,
    /// The same while its verdict is about to change; at most `interval`. Default 1 s.
    pub fast_interval: Duration,
    /// How long a backend may take to answer, at most `interval`. Default 2 s.
    pub timeout: Duration,
    /// By how much every wait is randomly longer or shorter, in `0..=50`. Default 0.
    pub jitter_percent: u8,
    /// How many good pings in a row make a sick backend healthy, in `1..=100`. Default 2.
    pub rise: u32,
    /// How many bad pings in a row make a healthy backend sick, in `1..=100`. Default 2.
    pub fall: u32,
    /// Whether verdicts are written as objects with reasons. Default false.
    pub detail: bool,
    /// How each upstream's backends are asked: what it says itself, else what holds for all.
    pub probes: BTreeMap<UpstreamName, ProbeParams>,
}

/// One ping: what is asked, and what is a good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeParams {
    /// Path and query of the request; starts with `/`. Default `/ping`.
    pub path: String,
    /// The `Host` field; `None`: the backend's address, `localhost` for a Unix socket.
    pub host: Option<String>,
    /// Which statuses are good. Default 200-299.
    pub expect_status: StatusRanges,
}

/// A set of HTTP statuses, as ranges in the order written. Not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRanges(pub(super) Vec<RangeInclusive<u16>>);

impl StatusRanges {
    /// Whether a status is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for ProbeParams {
    fn default() -> Self {
        Self {
            path: "/ping".into(),
            host: None,
            expect_status: StatusRanges(vec![200..=299]),
        }
    }
}

pub(super) fn read(mut section: Section<'_>) -> HealthParams {
    let file = section.value("file", "health_status.json".into(), scalar::file);
    section.finish();
    HealthParams {
        file,
        stale_after: Some(Duration::from_secs(30)),
        when_stale: WhenStale::Keep,
        when_missing: WhenMissing::FailClosed,
        max_flip_percent: 100,
        confirm_after: Duration::from_secs(30),
    }
}

/// The `poller` section, and the defaults of every upstream's probe.
pub(super) fn read_poller(mut section: Section<'_>) -> (PollerParams, ProbeParams) {
    let before = section.problems().count();
    let probe = ProbeParams {
        path: section.value("path", "/ping".into(), scalar::uri_path_and_query),
        ..ProbeParams::default()
    };
    let params = PollerParams {
        interval: section.value("interval", Duration::from_secs(10), scalar::duration),
        fast_interval: Duration::from_secs(1),
        timeout: section.value("timeout", Duration::from_secs(2), scalar::duration),
        jitter_percent: 0,
        rise: 2,
        fall: 2,
        detail: false,
        probes: BTreeMap::new(),
    };
    // After a wrong value stands a default, which nobody wrote and nobody should be blamed for.
    if section.problems().count() == before && params.timeout > params.interval {
        let [timeout, interval] = [params.timeout, params.interval].map(humantime::format_duration);
        let message = format!("{timeout} is longer than the interval of {interval}");
        section
            .problems()
            .add(&section.place_of("timeout"), message);
    }
    section.finish();
    (params, probe)
}
