//! Every metric of the poller. Names of backends are unique in a configuration, so none needs its upstream.

use super::{Metric, counter, gauge, seconds};
use prometheus_client::metrics::MetricType;

/// A round is over when every backend was pinged, or is in maintenance.
pub static ROUNDS: Metric = counter("maitred_poller_rounds", "Rounds that are over.");
/// None before the first.
pub static ROUND_AGE: Metric = seconds(
    "maitred_poller_round_age",
    MetricType::Gauge,
    "Since the last round was over.",
);
/// Labels: `backend`, `result` (`good`; `inconclusive` and `skipped`, which speak neither for nor against the
/// backend; `hung`, when requests get no answer either; else what has failed). Only those that there were.
pub static PINGS: Metric = counter("maitred_poller_pings", "Pings, by what came of them.");
/// Labels: `backend`.
pub static PING_DURATION: Metric = seconds(
    "maitred_poller_ping_duration",
    MetricType::Histogram,
    "How long pings took, well answered or not.",
);
/// Labels: `backend`, `state` (`up`, `busy`, `down`, `maint`). None before the first ping.
pub static STATE: Metric = gauge(
    "maitred_poller_backend_state",
    "1 for what the poller makes of a backend, else 0.",
);
/// Labels: `backend`, `to` (`up`, `down`).
pub static TRANSITIONS: Metric = counter(
    "maitred_poller_transitions",
    "How often the verdict on a backend changed.",
);
/// Labels: `result` (`written`, `failed`, and `deferred`, because somebody else is at the file).
pub static WRITES: Metric = counter(
    "maitred_poller_file_writes",
    "Attempts to write the health file, by what came of them.",
);
/// Labels: `proxy`, `result` (`read`, `failed`).
pub static EVIDENCE: Metric = counter(
    "maitred_poller_evidence_reads",
    "How often a proxy was asked what it knows of a silent backend, by what came of it.",
);
