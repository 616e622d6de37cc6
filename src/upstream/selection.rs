//! Round robin for Pingora's `LoadBalancer`: walks the list of eligible backends in configuration
//! order, from a position that outlives rebuilds.
//!
//! Pingora's own round robin walks on from a shared counter over *all* backends: a dead one's
//! successor gets a double share, and racing requests can see no backend while one is healthy.
//! Indexing into the list of eligible ones avoids both, and costs the same at 3 and at 10,000.
//!
//! Invariants: the list is replaced whole, never edited; only the owner of the slots' lock selects,
//! so `offered` is the last backend that *this* selection offered.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use pingora_load_balancing::Backend;
use pingora_load_balancing::selection::{BackendIter, BackendSelection};

use super::BackendIndex;

/// A backend that may be selected.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) index: BackendIndex,
    /// As in the `LoadBalancer`, but without extensions: it is cloned for every selection.
    pub(super) backend: Backend,
}

/// Where the round robin stands. Shared by every `LoadBalancer` that one upstream ever has.
pub(super) struct Rotation {
    /// The eligible backends, in configuration order.
    candidates: ArcSwap<Vec<Candidate>>,
    /// By backend index: has no free slot.
    full: Box<[AtomicBool]>,
    /// Position in `candidates` to start from.
    next: AtomicUsize,
    /// Position of the candidate that an iterator yielded last.
    offered: AtomicUsize,
}

impl Rotation {
    /// A rotation of nobody yet, over `backends` backends in all.
    pub(super) fn new(backends: usize) -> Self {
        Self {
            candidates: ArcSwap::default(),
            full: (0..backends).map(|_| AtomicBool::new(false)).collect(),
            next: AtomicUsize::new(0),
            offered: AtomicUsize::new(0),
        }
    }

    /// Replaces the eligible backends. The rotation goes on behind the backend that it chose last,
    /// so that those who stay keep their order.
    pub(super) fn replace(&self, candidates: Vec<Candidate>) {
        let old = self.candidates.load();
        let turn_of = old.get(self.next.load(Relaxed)).map(|c| c.index);
        let next = turn_of
            .and_then(|index| candidates.iter().position(|c| c.index >= index))
            .unwrap_or(0);
        self.next.store(next, Relaxed);
        self.candidates.store(Arc::new(candidates));
    }

    /// Notes whether a backend has a free slot.
    pub(super) fn set_full(&self, index: BackendIndex, full: bool) {
        self.full[index.0].store(full, Relaxed);
    }

    /// The offered backend was taken: the next selection starts behind it.
    pub(super) fn take_offered(&self) -> BackendIndex {
        let candidates = self.candidates.load();
        let offered = self.offered.load(Relaxed);
        let next = if offered + 1 == candidates.len() {
            0
        } else {
            offered + 1
        };
        self.next.store(next, Relaxed);
        candidates[offered].index
    }
}

/// The `BackendSelection`: each `LoadBalancer` has its own, all of an upstream share the rotation.
pub(super) struct RoundRobin {
    rotation: Arc<Rotation>,
}

impl BackendSelection for RoundRobin {
    type Iter = RoundRobinIter;
    type Config = Arc<Rotation>;

    fn build_with_config(_backends: &BTreeSet<Backend>, rotation: &Arc<Rotation>) -> Self {
        Self {
            rotation: rotation.clone(),
        }
    }

    fn build(backends: &BTreeSet<Backend>) -> Self {
        Self::build_with_config(backends, &Arc::new(Rotation::new(backends.len())))
    }

    fn iter(self: &Arc<Self>, _key: &[u8]) -> RoundRobinIter {
        let candidates = self.rotation.candidates.load_full();
        RoundRobinIter {
            rotation: self.rotation.clone(),
            next: self.rotation.next.load(Relaxed),
            left: candidates.len(),
            candidates,
        }
    }
}

/// Yields every eligible backend that has a free slot once, from the rotation's position.
pub(super) struct RoundRobinIter {
    rotation: Arc<Rotation>,
    candidates: Arc<Vec<Candidate>>,
    next: usize,
    left: usize,
}

impl BackendIter for RoundRobinIter {
    fn next(&mut self) -> Option<&Backend> {
        while self.left > 0 {
            let position = self.next;
            self.left -= 1;
            self.next = if position + 1 == self.candidates.len() {
                0
            } else {
                position + 1
            };
            let candidate = &self.candidates[position];
            if !self.rotation.full[candidate.index.0].load(Relaxed) {
                self.rotation.offered.store(position, Relaxed);
                return Some(&candidate.backend);
            }
        }
        None
    }
}
