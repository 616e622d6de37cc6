//! One server of an upstream: what is fixed, where it is, and what it has done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::upstreams::peer::HttpPeer;

use super::sightings::Sightings;
use super::{BackendParams, UpstreamParams, connect};
use crate::address::Endpoint;
use crate::id::BackendName;
use crate::metrics::{RequestCounts, RequestTimes, Words};
use crate::policy::outlier::{Cause, Misstep, OutlierParams, Tally};

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
    /// How often it was taken out, and what for.
    pub ejections: Words,
    /// When it was made; the times of `tally` count from here.
    made: Instant,
    /// Fresh connections in a row that it closed without a byte of an answer.
    broken_off: AtomicU32,
    /// Errors in a row.
    errors: AtomicU32,
    /// Answers among those served that were errors.
    served_errors: AtomicU64,
    /// Locked only when there is an error.
    tally: Mutex<Tally>,
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
        let now = Instant::now();
        Self {
            params: params.clone(),
            location: ArcSwap::from_pointee(location),
            served: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            requests: RequestCounts::default(),
            times: RequestTimes::default(),
            ejections: Words::new(Cause::WORDS),
            made: now,
            broken_off: AtomicU32::new(0),
            errors: AtomicU32::new(0),
            served_errors: AtomicU64::new(0),
            tally: Mutex::default(),
            sightings: Sightings::new(now),
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

    /// Counts an attempt that it answered; `is_error`: with something that speaks against it.
    pub fn count_served(&self, now: Instant, is_error: bool) {
        self.sightings.note_served(now);
        // They are 0 already, nearly always, and stay where every thread has them at hand.
        if self.broken_off.load(Relaxed) != 0 {
            self.broken_off.store(0, Relaxed);
        }
        if is_error {
            self.served_errors.fetch_add(1, Relaxed);
        } else if self.errors.load(Relaxed) != 0 {
            self.errors.store(0, Relaxed);
        }
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

    /// Counts an error. Returns what it is too many by, if it is, and how long the backend wants to be left alone.
    pub(super) fn count_error(
        &self,
        params: &OutlierParams,
        misstep: Misstep,
        now: Instant,
    ) -> Option<(Cause, Duration)> {
        let run = self.errors.fetch_add(1, Relaxed).saturating_add(1);
        let errors = self.served_errors.load(Relaxed);
        let well = self.served().saturating_sub(errors);
        let age = now.saturating_duration_since(self.made);
        let mut tally = self.tally.lock();
        let cause = tally.note(params, misstep, run, well, age)?;
        Some((cause, tally.wanted_rest()))
    }

    /// It is out: what it has done until now is settled by that.
    pub(super) fn settle_errors(&self) {
        self.errors.store(0, Relaxed);
        self.broken_off.store(0, Relaxed);
        self.tally.lock().clear();
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
