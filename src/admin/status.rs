//! The status as JSON: the shape is this module's, the facts are the snapshot's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::Admin;
use crate::control::Snapshot;
use crate::health::FileState;
use crate::id::{BackendName, UpstreamName};
use crate::upstream::{BackendView, Upstream};

/// `/api/v1/status`.
#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    /// `starting`, `running` or `stopping`.
    state: &'static str,
    report: Report,
    upstreams: BTreeMap<UpstreamName, UpstreamStatus>,
}

#[derive(Serialize)]
struct Report {
    path: PathBuf,
    /// `ok`, `missing` or `corrupt`.
    state: &'static str,
    /// Since the file was last seen to be written.
    age_seconds: f64,
    /// What is wrong with it.
    problem: Option<String>,
}

#[derive(Serialize)]
struct UpstreamStatus {
    /// Requests that wait for a slot.
    waiting: usize,
    backends: BTreeMap<BackendName, BackendStatus>,
}

#[derive(Serialize)]
struct BackendStatus {
    address: String,
    eligible: bool,
    /// Why it may not be chosen.
    why_not: Option<String>,
    /// Since its eligibility changed.
    since_seconds: f64,
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

impl Admin {
    pub(super) fn status(&self) -> Status {
        let snapshot = self.current.load_full();
        let upstreams = snapshot
            .upstreams
            .iter()
            .map(|(name, upstream)| (name.clone(), upstream_status(&snapshot, upstream)))
            .collect();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            state: self.phase.now().name(),
            report: report(&snapshot),
            upstreams,
        }
    }
}

fn report(snapshot: &Snapshot) -> Report {
    let health = &snapshot.health;
    Report {
        path: snapshot.config.health.file.clone(),
        state: health.state.name(),
        age_seconds: seconds_since(health.seen),
        problem: match &health.state {
            FileState::Corrupt { problem } => Some(problem.clone()),
            FileState::Ok | FileState::Missing => None,
        },
    }
}

fn upstream_status(snapshot: &Snapshot, upstream: &Upstream) -> UpstreamStatus {
    UpstreamStatus {
        waiting: upstream.waiting(),
        backends: upstream
            .view()
            .iter()
            .map(|backend| {
                (
                    backend.params.name.clone(),
                    backend_status(snapshot, backend),
                )
            })
            .collect(),
    }
}

fn backend_status(snapshot: &Snapshot, backend: &BackendView<'_>) -> BackendStatus {
    BackendStatus {
        address: backend.params.address.to_string(),
        eligible: backend.is_eligible(),
        why_not: snapshot.ineligible(backend).map(|why| why.to_string()),
        since_seconds: seconds_since(backend.since),
        max_in_flight: backend.params.max_in_flight,
        in_flight: backend.in_flight,
        abandoned: backend.abandoned,
        served: backend.served,
        failed: backend.failed,
    }
}

fn seconds_since(instant: Instant) -> f64 {
    instant.elapsed().as_secs_f64()
}
