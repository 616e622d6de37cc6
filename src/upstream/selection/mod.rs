//! Who gets the next request: the algorithms that `balance` names, behind Pingora's `LoadBalancer`.
//!
//! An upstream has one [`Selection`], which outlives every `LoadBalancer` of it (there is a new one for each
//! health change). A `LoadBalancer` asks it through Pingora's `BackendSelection`, and the selection asks its
//! [`Algorithm`]: each in a file of its own. CONTRIBUTING.md shows how to add one.
//!
//! An algorithm costs the same among 3 and 10,000 backends, be they sick, full or free: it knows the
//! eligible ones only, is told of each change, and does not look for a free one by trying.
//!
//! Invariants:
//! - the candidates are backends that the `LoadBalancer` in use calls healthy, so the one that is offered
//!   is accepted, and there is no second offer;
//! - only the owner of the slots' lock selects, so `offered` belongs to *this* selection, and the lock of
//!   the algorithm is never waited for.

#[cfg(test)]
mod fixtures;
mod least_requests;
mod round_robin;
mod tournament;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use pingora_load_balancing::Backend;
use pingora_load_balancing::selection::{BackendIter, BackendSelection};

use super::BackendIndex;
use least_requests::LeastRequests;
use round_robin::RoundRobin;

/// How an upstream chooses among its backends that have a free slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each in its turn, as often as its weight says.
    #[default]
    RoundRobin,
    /// The one with the fewest requests in flight, relative to its weight.
    LeastRequests,
}

impl Balance {
    /// Every value and what the configuration calls it; the default first.
    pub const ALL: [(&'static str, Self); 2] = [
        ("round_robin", Self::RoundRobin),
        ("least_requests", Self::LeastRequests),
    ];
}

/// A way to choose, with what it has to know. Whoever calls it holds the slots' lock.
enum Algorithm {
    RoundRobin(RoundRobin),
    LeastRequests(LeastRequests),
}

impl Algorithm {
    /// Among so many backends, none of them a candidate yet.
    fn new(balance: Balance, backends: usize) -> Self {
        match balance {
            Balance::RoundRobin => Self::RoundRobin(RoundRobin::new(backends)),
            Balance::LeastRequests => Self::LeastRequests(LeastRequests::new(backends)),
        }
    }

    /// These are the candidates from now on, in configuration order.
    fn replace(&mut self, candidates: &[Candidate]) {
        match self {
            Self::RoundRobin(algorithm) => algorithm.replace(candidates),
            Self::LeastRequests(algorithm) => algorithm.replace(candidates),
        }
    }

    /// One of the candidates has more or fewer requests in flight, and was not full before and after.
    fn update(&mut self, candidate: &Candidate) {
        match self {
            Self::RoundRobin(algorithm) => algorithm.update(candidate),
            Self::LeastRequests(algorithm) => algorithm.update(candidate),
        }
    }

    /// The candidate with room that gets a request, if there is one. An [`Algorithm::update`] follows.
    fn choose(&mut self) -> Option<BackendIndex> {
        match self {
            Self::RoundRobin(algorithm) => algorithm.choose(),
            Self::LeastRequests(algorithm) => algorithm.choose(),
        }
    }
}

/// An eligible backend, as it is now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) index: BackendIndex,
    /// 1 or more.
    pub(super) weight: u32,
    /// Slots taken, abandoned ones included.
    pub(super) in_flight: u32,
    /// Has a free slot.
    pub(super) has_room: bool,
}

/// What every `LoadBalancer` of one upstream selects with.
pub(super) struct Selection {
    /// Every backend, by index. Without extensions: what is offered is cloned.
    targets: Box<[Backend]>,
    algorithm: Mutex<Algorithm>,
    /// The index of what was offered last.
    offered: AtomicUsize,
}

impl Selection {
    /// Among nobody yet.
    pub(super) fn new(balance: Balance, targets: Box<[Backend]>) -> Self {
        Self {
            algorithm: Mutex::new(Algorithm::new(balance, targets.len())),
            targets,
            offered: AtomicUsize::new(0),
        }
    }

    /// Replaces the eligible backends, given in configuration order.
    pub(super) fn replace(&self, candidates: &[Candidate]) {
        self.algorithm.lock().replace(candidates);
    }

    /// An eligible backend has more or fewer requests in flight.
    pub(super) fn update(&self, candidate: &Candidate) {
        self.algorithm.lock().update(candidate);
    }

    /// The backend that the `LoadBalancer` has just selected.
    pub(super) fn offered(&self) -> BackendIndex {
        BackendIndex(self.offered.load(Relaxed))
    }
}

/// The `BackendSelection`: each `LoadBalancer` has its own, all of an upstream share the [`Selection`].
pub(super) struct Selector(Arc<Selection>);

impl BackendSelection for Selector {
    type Iter = Offer;
    type Config = Arc<Selection>;

    fn build_with_config(_backends: &BTreeSet<Backend>, selection: &Arc<Selection>) -> Self {
        Self(selection.clone())
    }

    fn build(backends: &BTreeSet<Backend>) -> Self {
        let targets = backends.iter().cloned().collect();
        Self(Arc::new(Selection::new(Balance::default(), targets)))
    }

    fn iter(self: &Arc<Self>, _key: &[u8]) -> Offer {
        Offer(self.clone())
    }
}

/// Yields the backend that the algorithm chooses.
pub(super) struct Offer(Arc<Selector>);

impl BackendIter for Offer {
    fn next(&mut self) -> Option<&Backend> {
        let selection = &*self.0.0;
        let BackendIndex(index) = selection.algorithm.lock().choose()?;
        selection.offered.store(index, Relaxed);
        Some(&selection.targets[index])
    }
}
