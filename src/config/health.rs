//! The health file and who writes it.

use std::path::PathBuf;
use std::time::Duration;

use super::scalar;
use super::section::Section;

/// What the proxy reads of its backends' health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthParams {
    /// Relative to the working directory; not empty. Default `health_status.json`.
    pub file: PathBuf,
}

/// How the poller asks backends for their health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollerParams {
    /// Path and query of the request; starts with `/`. Default `/ping`.
    pub path: String,
    /// From the start of one round to the start of the next. Default 10 s.
    pub interval: Duration,
    /// How long a backend may take to answer, at most the interval. Default 2 s.
    pub timeout: Duration,
}

pub(super) fn read(mut section: Section<'_>) -> HealthParams {
    let file = section.value("file", "health_status.json".into(), scalar::file);
    section.finish();
    HealthParams { file }
}

pub(super) fn read_poller(mut section: Section<'_>) -> PollerParams {
    let before = section.problems().count();
    let params = PollerParams {
        path: section.value("path", "/ping".into(), scalar::uri_path_and_query),
        interval: section.value("interval", Duration::from_secs(10), scalar::duration),
        timeout: section.value("timeout", Duration::from_secs(2), scalar::duration),
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
    params
}
