//! Every metric: its name, its help and what it is counted by. What is counted stands with what counts
//! it; the page is written by `admin`, from the snapshot and from [`ProxyCounters`].
//!
//! Names follow Prometheus's conventions; OpenMetrics adds the unit and, to counters, `_total`. Labels are
//! bounded: names of the configuration and words of ours, never anything that a client or a backend says.
//! Counting takes no lock and allocates nothing.

mod counts;
mod histogram;
mod page;
/// The poller's.
pub mod poller;
mod process;
mod runtimes;
mod scrape;

pub use counts::{Count, ProxyCounters, RequestCounts, RequestTimes, Words};
pub use histogram::Histogram;
pub use page::{Family, Page};
pub use process::Process;
pub use runtimes::Runtimes;
pub use scrape::scrape;

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// No labels.
pub const NO_LABELS: [(&str, &str); 0] = [];

/// What is measured: name, help, kind and unit.
pub struct Metric {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    unit: Option<Unit>,
}

const fn metric(
    name: &'static str,
    kind: MetricType,
    unit: Option<Unit>,
    help: &'static str,
) -> Metric {
    Metric {
        name,
        help,
        kind,
        unit,
    }
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    metric(name, MetricType::Counter, None, help)
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    metric(name, MetricType::Gauge, None, help)
}

const fn seconds(name: &'static str, kind: MetricType, help: &'static str) -> Metric {
    metric(name, kind, Some(Unit::Seconds), help)
}

/// Labels: `upstream`, `backend`, `method`, `code`. Both names are empty for what never got there; the
/// code is a class such as `2xx`, or `none` for a client that left before it was answered.
pub static REQUESTS: Metric = counter("maitred_requests", "Requests that are over.");
/// Labels: `upstream`, `backend`.
pub static REQUEST_DURATION: Metric = seconds(
    "maitred_request_duration",
    MetricType::Histogram,
    "From a request's header complete to its end, waiting and all attempts included.",
);
/// Labels: `upstream`, `backend`.
pub static QUEUE_DURATION: Metric = seconds(
    "maitred_queue_duration",
    MetricType::Histogram,
    "What a request waited for a slot, all attempts together.",
);
/// Labels: `upstream`, `backend`.
pub static FIRST_BYTE_DURATION: Metric = seconds(
    "maitred_backend_first_byte_duration",
    MetricType::Histogram,
    "From a request being sent to a backend to the header of its answer.",
);
/// Labels: `upstream`, `backend`.
pub static LAST_BYTE_DURATION: Metric = seconds(
    "maitred_backend_last_byte_duration",
    MetricType::Histogram,
    "From a request being sent to a backend to the last byte of its answer.",
);
/// Labels: `reason`.
pub static REFUSALS: Metric = counter(
    "maitred_refusals",
    "Requests that the proxy answered by itself, by the reason that it gave.",
);
/// Labels: `reason`.
pub static RETRIES: Metric = counter(
    "maitred_retries",
    "Attempts that were made because the one before had failed.",
);
/// Labels: `reason` (`method`, `body`, `attempts`, `deadline`, `budget`).
pub static RETRIES_DENIED: Metric = counter(
    "maitred_retries_denied",
    "Requests that failed for a reason after which they are sent again, and were not.",
);
/// Labels: `upstream`, `backend`, `outcome` (`answered`, `failed`).
pub static ATTEMPTS: Metric = counter(
    "maitred_attempts",
    "Attempts that are over, by what came of them.",
);
/// Labels: `upstream`, `backend`, `cause` (of the event `backend_ejected`).
pub static EJECTIONS: Metric = counter(
    "maitred_ejections",
    "How often a backend was taken out, and what for. A trial after the rest that fails \
     counts once more; so does one that failed requests and is then found to refuse connections.",
);
/// Labels: `upstream`.
pub static WAITING: Metric = gauge("maitred_queue_waiting", "Requests that wait for a slot.");
/// Labels: `upstream`.
pub static WAITING_MAX: Metric = gauge(
    "maitred_queue_size",
    "How many requests may wait for a slot.",
);
/// Labels: `upstream`. None where that is not known: nobody is eligible, or nothing was answered yet.
pub static EXPECTED_WAIT: Metric = seconds(
    "maitred_queue_expected_wait",
    MetricType::Gauge,
    "How long a request that comes now would wait for a slot.",
);
/// Labels: `upstream`, `backend`.
pub static SLOTS: Metric = gauge(
    "maitred_slots",
    "How many requests a backend may have at once.",
);
/// Labels: `upstream`, `backend`.
pub static IN_FLIGHT: Metric = gauge(
    "maitred_slots_taken",
    "Slots taken, abandoned ones included.",
);
/// Labels: `upstream`, `backend`.
pub static ABANDONED: Metric = gauge(
    "maitred_slots_abandoned",
    "Slots of requests that were given up on and the backend has not let go.",
);
/// Labels: `upstream`, `backend`.
pub static ELIGIBLE: Metric = gauge(
    "maitred_backend_eligible",
    "1 while a backend may be chosen once it has a free slot, else 0.",
);
/// Labels: `upstream`, `backend`, `reason` (`no_report`, `stale`, `unnamed`, `sick`, `drain`, `maint`,
/// `refuses`, `unresolved`, `ejected`). None while the backend may be chosen.
pub static INELIGIBLE: Metric = gauge(
    "maitred_backend_ineligible",
    "1, for the reason why a backend may not be chosen.",
);
/// Labels: `upstream`, `backend`.
pub static WEIGHT: Metric = gauge("maitred_backend_weight", "A backend's share, as it is now.");
/// Labels: `state` (`ok`, `stale`, `missing`, `corrupt`).
pub static REPORT_STATE: Metric = gauge(
    "maitred_report_state",
    "1 for the state of the health file, else 0.",
);
/// None before there was a report.
pub static REPORT_AGE: Metric = seconds(
    "maitred_report_age",
    MetricType::Gauge,
    "Since the health file was last seen to be written.",
);
/// Labels: `state` (`ok`, `missing`, `corrupt`).
pub static REPORT_READINGS: Metric = counter(
    "maitred_report_readings",
    "How often the health file was found written anew, gone or broken.",
);
/// What changed nothing for any backend is not counted.
pub static REPORT_IN_FORCE: Metric = seconds(
    "maitred_report_in_force_duration",
    MetricType::Histogram,
    "From a change of the health file until every decision was made by it.",
);
/// Client connections, of the process.
pub static CONNECTIONS: Metric = counter(
    "maitred_connections",
    "Client connections that were accepted.",
);
/// Client connections, of the process.
pub static CONNECTIONS_OPEN: Metric = gauge(
    "maitred_connections_open",
    "Client connections that are open.",
);
/// Of the runtimes that serve clients.
pub static TASKS: Metric = gauge(
    "maitred_tasks",
    "Tasks of the runtimes that serve clients: one for each connection, for each abandoned request, for each backend \
     that is out and for each to which connections are open.",
);
/// Of the process.
pub static LOG_DROPPED: Metric = counter(
    "maitred_access_log_dropped",
    "Lines of the access log that were dropped: their reader is slow, or they could not be written.",
);
