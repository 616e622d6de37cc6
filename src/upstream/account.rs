//! The slots of one backend: how many it has and who has taken them. The upstream's lock guards them all
//! ([`slots`](super::slots)).

use std::time::{Duration, Instant};

use super::BackendIndex;
use super::selection::Candidate;
use crate::policy::outlier::Circuit;

/// What one backend may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// The `LoadBalancer`'s health check lets it serve.
    pub(super) admitted: bool,
    /// What the report makes of it, for people.
    pub(super) standing: &'static str,
    pub(super) weight: u32,
    pub(super) max_in_flight: u32,
}

/// The slots of one backend.
#[derive(Clone, Copy)]
pub(super) struct Account {
    /// Slots taken: requests in service and abandoned ones.
    pub(super) in_flight: u32,
    /// Slots taken by requests that we gave up on and the backend has not let go.
    pub(super) abandoned: u32,
    pub(super) terms: Terms,
    /// Whether it is ejected, and what brings it back; its times count from [`Slots::made`](super::slots::Slots).
    pub(super) circuit: Circuit,
    /// When its eligibility changed last.
    pub(super) since: Instant,
}

impl Account {
    pub(super) fn new(terms: Terms, now: Instant) -> Self {
        Self {
            in_flight: 0,
            abandoned: 0,
            terms,
            circuit: Circuit::closed(Duration::ZERO),
            since: now,
        }
    }

    pub(super) fn is_eligible(&self) -> bool {
        self.terms.admitted && self.circuit.is_closed()
    }

    /// All its slots are taken by requests that we gave up on.
    pub(super) fn is_held(&self) -> bool {
        self.abandoned >= self.terms.max_in_flight
    }

    /// It is to have one request, and there is room for it.
    pub(super) fn wants_trial(&self) -> bool {
        self.terms.admitted && self.circuit.wants_trial() && !self.is_full()
    }

    /// After what it may do has changed.
    pub(super) fn note_change(&mut self, was_eligible: bool, now: Instant) {
        if self.is_eligible() != was_eligible {
            self.since = now;
        }
    }

    /// No slot of it is free; it may have more in flight than slots, if these were lowered meanwhile.
    pub(super) fn is_full(&self) -> bool {
        self.in_flight >= self.terms.max_in_flight
    }

    /// As selection knows it.
    pub(super) fn candidate(&self, index: BackendIndex) -> Candidate {
        Candidate {
            index,
            weight: self.terms.weight,
            in_flight: self.in_flight,
            has_room: !self.is_full(),
        }
    }
}
