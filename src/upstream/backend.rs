//! One server of an upstream: what is fixed, where it is, and what it has done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use arc_swap::ArcSwap;
use pingora::upstreams::peer::HttpPeer;

use super::sightings::Sightings;
use super::{BackendParams, UpstreamParams, connect};
use crate::address::Endpoint;
use crate::id::BackendName;
use crate::metrics::{Count, RequestCounts, RequestTimes};

/// How often in a row a backend may close a fresh connection without a byte of an answer. Once may be
/// a restart.
const BROKEN_OFF_MAX: u32 = 1;

/// One server of an upstream.
pub struct Backend {
    params: BackendParams,
    location: ArcSwap<Location>,
    served: AtomicU64,
    failed: AtomicU64,
    /// The requests that ended with it.
    pub requests: RequestCounts,
    /// How long they took.
    pub times: RequestTimes,
    /// How often it was taken out.
    pub ejections: Count,
    /// Fresh connections in a row that it closed without a byte of an answer.
    broken_off: AtomicU32,
    sightings: Sightings,
}

/// Where a backend is at the moment. Immutable; another takes its place.
#[derive(Debug)]
pub struct Location {
    /// What its address stands for; `None`: its name was never resolved.
    pub endpoint: Option<Endpoint>,
    /// Why its name stands for no server now; `endpoint` is then the last good one.
    pub problem: Option<String>,
    peer: HttpPeer,
}

impl Backend {
    pub(super) fn new(params: &BackendParams, upstream: &UpstreamParams) -> Self {
        let endpoint = params.address.endpoint();
        let location = Location {
            peer: connect::peer(endpoint.as_ref(), upstream),
            endpoint,
            problem: None,
        };
        Self {
            params: params.clone(),
            location: ArcSwap::from_pointee(location),
            served: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            requests: RequestCounts::default(),
            times: RequestTimes::default(),
            ejections: Count::default(),
            broken_off: AtomicU32::new(0),
            sightings: Sightings::new(Instant::now()),
        }
    }

    /// What the configuration says of it.
    pub fn params(&self) -> &BackendParams {
        &self.params
    }

    /// What it is called in configuration and health file.
    pub fn name(&self) -> &BackendName {
        &self.params.name
    }

    /// How Pingora reaches it, every timeout set.
    pub fn peer(&self) -> HttpPeer {
        self.location.load().peer.clone()
    }

    /// Where it is.
    pub fn location(&self) -> Arc<Location> {
        self.location.load_full()
    }

    /// Its name was asked for: it is at `found` from the next connection on, or stays where it was
    /// because of a problem. One caller at a time.
    pub fn locate(&self, found: Result<Endpoint, String>) {
        let last = self.location();
        let mut peer = last.peer.clone();
        let (endpoint, problem) = match found {
            Ok(endpoint) => {
                connect::move_to(&mut peer, &endpoint);
                (Some(endpoint), None)
            }
            Err(problem) => (last.endpoint.clone(), Some(problem)),
        };
        self.location.store(Arc::new(Location {
            endpoint,
            problem,
            peer,
        }));
    }

    /// It has sent some of an answer, or taken some of a body that is sent on as it comes.
    pub fn note_heard(&self, now: Instant) {
        self.sightings.note_heard(now);
    }

    /// Counts an attempt that it answered.
    pub fn count_served(&self, now: Instant) {
        self.sightings.note_served(now);
        self.broken_off.store(0, Relaxed);
        self.served.fetch_add(1, Relaxed);
    }

    /// Counts an attempt that failed on it; `is_overdue`: because it took longer than it may.
    pub fn count_failed(&self, now: Instant, is_overdue: bool) {
        self.failed.fetch_add(1, Relaxed);
        self.sightings.note_failed(now, is_overdue);
    }

    /// Counts a fresh connection that it closed without a byte of an answer; says whether that is once
    /// too often.
    pub(super) fn count_broken_off(&self) -> bool {
        self.broken_off.fetch_add(1, Relaxed) >= BROKEN_OFF_MAX
    }

    pub(super) fn sightings(&self) -> &Sightings {
        &self.sightings
    }

    /// Attempts that it answered.
    pub fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }

    /// Attempts that failed on it.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// When it last answered.
    pub fn last_served(&self) -> Option<Instant> {
        self.sightings.served()
    }
}
