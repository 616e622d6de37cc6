//! The status as JSON: the shape is this module's, the facts are the snapshot's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::Admin;
use crate::control::ReportStatus;
use crate::health::FileState;
use crate::id::{BackendName, UpstreamName};
use crate::upstream::{Backend, BackendView, Guest, Outage, Priority, Upstream};

/// `/api/v1/status`.
#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    /// `starting`, `running` or `stopping`.
    state: &'static str,
    report: Report,
    upstreams: BTreeMap<UpstreamName, UpstreamStatus>,
}

/// The health file.
#[derive(Serialize)]
struct Report {
    path: PathBuf,
    /// `ok`, `stale`, `missing` or `corrupt`. In all of them but `ok`, the last good report is still known.
    state: &'static str,
    /// Older than `health.stale_after`.
    stale: bool,
    /// Since the file was last seen to be written; null before there was one.
    age_seconds: Option<f64>,
    /// What is wrong with it.
    problem: Option<String>,
    /// How long the last change took to be in force; null before the first.
    in_force: Option<InForceStatus>,
}

#[derive(Serialize)]
struct InForceStatus {
    /// From the change of the file, by the file system's time stamp: its steps are some milliseconds,
    /// and this is up to one step too long.
    since_change_seconds: Option<f64>,
    /// From the moment at which the proxy was told.
    since_notice_seconds: f64,
}

#[derive(Serialize)]
struct UpstreamStatus {
    /// Requests that wait for a slot.
    waiting: usize,
    /// Where there are priorities, how many of each wait for their first turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_by_priority: Option<BTreeMap<&'static str, usize>>,
    /// Where clients have their turns, how many have requests waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_clients: Option<ClientsStatus>,
    /// How long backends take for a request, lately: an exponentially weighted mean; null before the first.
    service_seconds: Option<f64>,
    /// How long a request of normal priority would wait if it came now, from a client that has none
    /// waiting; null where that is not known.
    expected_wait_seconds: Option<f64>,
    /// For how long some of what the report says has not been believed.
    held_seconds: Option<f64>,
    backends: BTreeMap<BackendName, BackendStatus>,
}

/// Clients that have requests waiting; one that has some of different priority counts for each.
#[derive(Serialize)]
struct ClientsStatus {
    count: usize,
    /// How many requests the one with most has.
    most: usize,
}

#[derive(Serialize)]
struct BackendStatus {
    /// As configured.
    address: String,
    /// What a host name stands for, null if it was never resolved; absent for other addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved: Option<Resolved>,
    eligible: bool,
    /// Why it may not be chosen.
    why_not: Option<String>,
    /// What it was taken out for; absent if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    ejection: Option<EjectionStatus>,
    /// The file calls it sick and is not believed yet: it turned too many sick at once.
    doubted: bool,
    /// The file says one thing, the requests show another.
    disagrees: bool,
    /// Since its eligibility changed.
    since_seconds: f64,
    weight: u32,
    max_in_flight: u32,
    /// Slots taken, abandoned ones included.
    in_flight: u32,
    /// Slots of requests that we gave up on and the backend has not let go.
    abandoned: u32,
    /// Attempts that it answered.
    served: u64,
    /// Attempts that failed on it.
    failed: u64,
}

/// What a backend was taken out for, and what it waits for.
#[derive(Serialize)]
struct EjectionStatus {
    cause: &'static str,
    /// `open`: it has no requests; `probation`: it may have one, whose end decides.
    state: &'static str,
    /// Until it is tried with a request; null where it is tried with bare connections.
    rest_seconds: Option<f64>,
}

/// Where a host name leads.
#[derive(Serialize)]
struct Resolved {
    endpoint: Option<String>,
    /// Why it stands for no server now; the endpoint is then the last good one.
    problem: Option<String>,
}

impl Admin {
    pub(super) fn status(&self) -> Status {
        let snapshot = self.current.load_full();
        let upstreams = snapshot
            .upstreams
            .iter()
            .map(|(name, upstream)| {
                let held = snapshot.report.held.get(name).copied();
                (name.clone(), upstream_status(upstream, held))
            })
            .collect();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            state: self.phase.now().name(),
            report: report(&snapshot.report, snapshot.config.health.file.clone()),
            upstreams,
        }
    }
}

fn report(status: &ReportStatus, path: PathBuf) -> Report {
    Report {
        path,
        state: status.name(),
        stale: status.is_stale,
        age_seconds: status.age().map(|age| age.as_secs_f64()),
        problem: match &status.event.state {
            FileState::Corrupt { problem } => Some(problem.clone()),
            FileState::Ok | FileState::Missing => None,
        },
        in_force: status.in_force.map(|in_force| InForceStatus {
            since_change_seconds: in_force.since_change.map(|time| time.as_secs_f64()),
            since_notice_seconds: in_force.since_notice.as_secs_f64(),
        }),
    }
}

fn upstream_status(upstream: &Upstream, held: Option<Instant>) -> UpstreamStatus {
    let view = upstream.view();
    let (queue, backends) = (view.queue, view.backends.iter());
    let newcomer = Guest::any(Instant::now());
    UpstreamStatus {
        waiting: queue.waiting,
        waiting_by_priority: queue.by_priority.map(|waiting| {
            let words = Priority::ALL.iter().map(|(word, _)| *word);
            words.zip(waiting).collect()
        }),
        waiting_clients: queue
            .clients
            .map(|(count, most)| ClientsStatus { count, most }),
        service_seconds: upstream.service_time().map(|time| time.as_secs_f64()),
        expected_wait_seconds: upstream
            .expected_wait(&newcomer)
            .map(|wait| wait.as_secs_f64()),
        held_seconds: held.map(seconds_since),
        backends: backends
            .map(|view| (view.backend.name().clone(), backend_status(view)))
            .collect(),
    }
}

fn backend_status(view: &BackendView<'_>) -> BackendStatus {
    let params = view.backend.params();
    BackendStatus {
        address: params.address.to_string(),
        resolved: resolved(view.backend),
        eligible: view.is_eligible(),
        why_not: view.why_not.as_ref().map(ToString::to_string),
        ejection: view.outage.as_ref().map(ejection),
        doubted: view.is_doubted,
        disagrees: view.disagrees,
        since_seconds: seconds_since(view.since),
        weight: view.weight,
        max_in_flight: view.max_in_flight,
        in_flight: view.in_flight,
        abandoned: view.abandoned,
        served: view.backend.served(),
        failed: view.backend.failed(),
    }
}

fn ejection(outage: &Outage) -> EjectionStatus {
    EjectionStatus {
        cause: outage.cause.word(),
        state: outage.state(),
        rest_seconds: outage.rest(Instant::now()).map(|rest| rest.as_secs_f64()),
    }
}

fn resolved(backend: &Backend) -> Option<Resolved> {
    if backend.params().address.endpoint().is_some() {
        return None;
    }
    let location = backend.location();
    Some(Resolved {
        endpoint: location.endpoint.as_ref().map(ToString::to_string),
        problem: location.problem.clone(),
    })
}

fn seconds_since(instant: Instant) -> f64 {
    instant.elapsed().as_secs_f64()
}
