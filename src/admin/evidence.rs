//! What the proxy can testify of its backends, as JSON for a poller: small, and as quick for ten thousand
//! of them as it can be. The shape is documented in docs/evidence.md, and a test compares.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Admin;
use crate::id::BackendName;
use crate::upstream::Evidence;

/// `/api/v1/evidence`. Ages count back from the moment of the answer.
#[derive(Serialize)]
pub(super) struct Testimony {
    watching_seconds: f64,
    backends: BTreeMap<BackendName, Of>,
}

#[derive(Serialize)]
struct Of {
    in_flight: u32,
    abandoned: u32,
    max_in_flight: u32,
    given_seconds: Option<f64>,
    silent_seconds: Option<f64>,
    heard_seconds: Option<f64>,
    failed_seconds: Option<f64>,
    overdue_seconds: Option<f64>,
}

impl Admin {
    pub(super) fn evidence(&self) -> Testimony {
        let snapshot = self.current.load_full();
        let now = Instant::now();
        let upstreams = snapshot.upstreams.values();
        let backends = upstreams.flat_map(|upstream| upstream.evidence(now));
        Testimony {
            watching_seconds: seconds(now.saturating_duration_since(self.begun)),
            backends: backends
                .map(|(backend, evidence)| (backend.name().clone(), Of::from(&evidence)))
                .collect(),
        }
    }
}

impl From<&Evidence> for Of {
    fn from(evidence: &Evidence) -> Self {
        Self {
            in_flight: evidence.in_flight,
            abandoned: evidence.abandoned,
            max_in_flight: evidence.max_in_flight,
            given_seconds: evidence.given.map(seconds),
            silent_seconds: evidence.silent.map(seconds),
            heard_seconds: evidence.heard.map(seconds),
            failed_seconds: evidence.failed.map(seconds),
            overdue_seconds: evidence.overdue.map(seconds),
        }
    }
}

/// To the millisecond, so that it is short.
fn seconds(age: Duration) -> f64 {
    age.as_millis() as f64 / 1000.0
}
