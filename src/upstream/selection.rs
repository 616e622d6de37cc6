//! Round robin for Pingora's `LoadBalancer`: walks the list of eligible backends, from a position that
//! outlives rebuilds.
//!
//! Pingora's own round robin walks on from a shared counter over *all* backends: a dead one's
//! successor gets a double share, and racing requests can see no backend while one is healthy.
//! Indexing into the list of eligible ones avoids both, and costs the same at 3 and at 10,000.
//!
//! Weights are served in rounds (interleaved weighted round robin: M. Katevenis et al., "Weighted
//! round-robin cell multiplexing in a general-purpose ATM switch chip", 1991): in round `r` every
//! backend whose weight is `r` or more has one turn, so that after as many rounds as the greatest
//! weight has, everyone has had exactly its share. The list is sorted by weight, so a round is a
//! prefix of it; with equal weights there is one round, in configuration order.
//!
//! Invariants: the list is replaced whole, never edited; only the owner of the slots' lock selects,
//! so `offered` is the last backend that *this* selection offered.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use pingora_load_balancing::Backend;
use pingora_load_balancing::selection::{BackendIter, BackendSelection};

use super::BackendIndex;

/// A backend that may be selected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) index: BackendIndex,
    /// 1 or more.
    pub(super) weight: u32,
}

/// Where the round robin stands. Shared by every `LoadBalancer` that one upstream ever has.
pub(super) struct Rotation {
    /// Every backend, by index. Without extensions: what is offered is cloned.
    targets: Box<[Backend]>,
    candidates: ArcSwap<Candidates>,
    /// By backend index: has no free slot.
    full: Box<[AtomicBool]>,
    next: AtomicCursor,
    /// What an iterator yielded last.
    offered: AtomicCursor,
}

/// The eligible backends.
#[derive(Default)]
struct Candidates {
    /// By weight, greatest first; then in configuration order.
    list: Vec<Candidate>,
    /// What all weights are multiples of; 1 or more.
    unit: u32,
}

/// A turn in the rotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    /// Counted from 0; in it, weights of more than as many units have a turn.
    round: usize,
    /// In the list; always before the round's end, unless the list is empty.
    position: usize,
}

/// Only the owner of the slots' lock uses one, so that its halves need not change at once.
#[derive(Default)]
struct AtomicCursor {
    round: AtomicUsize,
    position: AtomicUsize,
}

impl AtomicCursor {
    fn load(&self) -> Cursor {
        Cursor {
            round: self.round.load(Relaxed),
            position: self.position.load(Relaxed),
        }
    }

    fn store(&self, cursor: Cursor) {
        self.round.store(cursor.round, Relaxed);
        self.position.store(cursor.position, Relaxed);
    }
}

impl Candidates {
    fn new(mut list: Vec<Candidate>) -> Self {
        // Stable: equal weights stay in configuration order.
        list.sort_by_key(|candidate| Reverse(candidate.weight));
        let divisor = |unit, candidate: &Candidate| greatest_common_divisor(unit, candidate.weight);
        let unit = list.iter().fold(0, divisor).max(1);
        Self { list, unit }
    }

    /// How many backends have a turn in this round: a prefix of the list.
    fn turns_in(&self, round: usize) -> usize {
        let has_turn = |candidate: &Candidate| (candidate.weight / self.unit) as usize > round;
        match round {
            0 => self.list.len(),
            _ => self.list.partition_point(has_turn),
        }
    }

    fn after(&self, cursor: Cursor) -> Cursor {
        let next = Cursor {
            position: cursor.position + 1,
            ..cursor
        };
        if next.position < self.turns_in(next.round) {
            next
        } else {
            self.start_of(cursor.round + 1)
        }
    }

    /// The first turn of a round, or of the first round if there is no such round.
    fn start_of(&self, round: usize) -> Cursor {
        let round = if self.turns_in(round) == 0 { 0 } else { round };
        Cursor { round, position: 0 }
    }

    /// The turn that follows those that `old` has given before `cursor`: still that of the backend
    /// whose turn it was, or of the one behind it.
    fn resume(&self, old: &Self, cursor: Cursor) -> Cursor {
        let Some(due) = old.list.get(cursor.position) else {
            return Cursor::default();
        };
        let order = |candidate: &Candidate| (Reverse(candidate.weight), candidate.index);
        let same = |candidate: &Candidate| candidate.index == due.index;
        let behind = || self.list.partition_point(|other| order(other) < order(due));
        let next = Cursor {
            round: cursor.round,
            position: self.list.iter().position(same).unwrap_or_else(behind),
        };
        if next.position < self.turns_in(next.round) {
            next
        } else {
            self.start_of(0)
        }
    }
}

fn greatest_common_divisor(left: u32, right: u32) -> u32 {
    match right {
        0 => left,
        _ => greatest_common_divisor(right, left % right),
    }
}

impl Rotation {
    /// A rotation of nobody yet.
    pub(super) fn new(targets: Box<[Backend]>) -> Self {
        Self {
            full: targets.iter().map(|_| AtomicBool::new(false)).collect(),
            targets,
            candidates: ArcSwap::default(),
            next: AtomicCursor::default(),
            offered: AtomicCursor::default(),
        }
    }

    /// Replaces the eligible backends, given in configuration order. The rotation goes on behind the
    /// backend that it chose last, so that those who stay keep their order.
    pub(super) fn replace(&self, candidates: Vec<Candidate>) {
        let candidates = Candidates::new(candidates);
        let next = candidates.resume(&self.candidates.load(), self.next.load());
        self.next.store(next);
        self.candidates.store(Arc::new(candidates));
    }

    /// Notes whether a backend has a free slot.
    pub(super) fn set_full(&self, index: BackendIndex, full: bool) {
        self.full[index.0].store(full, Relaxed);
    }

    /// The offered backend was taken: the next selection starts behind it.
    pub(super) fn take_offered(&self) -> BackendIndex {
        let candidates = self.candidates.load();
        let offered = self.offered.load();
        self.next.store(candidates.after(offered));
        candidates.list[offered.position].index
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
        let targets = backends.iter().cloned().collect();
        Self::build_with_config(backends, &Arc::new(Rotation::new(targets)))
    }

    fn iter(self: &Arc<Self>, _key: &[u8]) -> RoundRobinIter {
        let candidates = self.rotation.candidates.load_full();
        let next = self.rotation.next.load();
        RoundRobinIter {
            rotation: self.rotation.clone(),
            next,
            end: candidates.turns_in(next.round),
            walk: Walk::Begun,
            candidates,
        }
    }
}

/// Yields eligible backends that have a free slot, from the rotation's position on.
pub(super) struct RoundRobinIter {
    rotation: Arc<Rotation>,
    candidates: Arc<Candidates>,
    next: Cursor,
    /// Of the round of `next`.
    end: usize,
    walk: Walk,
}

/// How far an iterator has come. Each later round is a part of the one before it: where a whole round
/// was full, so are those after it, up to the first, in which everyone has a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// In the rest of the round in which the rotation stands.
    Begun,
    /// In the whole of the round after it.
    OneRound,
    /// In the whole of the first round.
    FirstRound,
}

impl RoundRobinIter {
    /// Goes on to the next round that can have a free backend; false if there is none.
    fn enter_round(&mut self) -> bool {
        self.next = match self.walk {
            Walk::Begun => self.candidates.start_of(self.next.round + 1),
            Walk::OneRound => self.candidates.start_of(0),
            Walk::FirstRound => return false,
        };
        self.end = self.candidates.turns_in(self.next.round);
        self.walk = match self.next.round {
            0 => Walk::FirstRound,
            _ => Walk::OneRound,
        };
        true
    }
}

impl BackendIter for RoundRobinIter {
    fn next(&mut self) -> Option<&Backend> {
        loop {
            if self.next.position == self.end && !self.enter_round() {
                return None;
            }
            if self.end == 0 {
                return None;
            }
            let turn = self.next;
            self.next.position += 1;
            let index = self.candidates.list[turn.position].index.0;
            if !self.rotation.full[index].load(Relaxed) {
                self.rotation.offered.store(turn);
                return Some(&self.rotation.targets[index]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rotation(weights: &[u32]) -> Arc<RoundRobin> {
        let target = |port| Backend::new(&format!("127.0.0.1:{}", port + 1)).unwrap();
        let rotation = Rotation::new((0..weights.len()).map(target).collect());
        rotation.replace(candidates(weights));
        Arc::new(RoundRobin {
            rotation: Arc::new(rotation),
        })
    }

    /// Weight 0: not a candidate.
    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        let candidate = |(index, weight): (usize, &u32)| Candidate {
            index: BackendIndex(index),
            weight: *weight,
        };
        let all = weights.iter().enumerate().map(candidate);
        all.filter(|candidate| candidate.weight > 0).collect()
    }

    fn turn(selection: &Arc<RoundRobin>) -> Option<usize> {
        selection.iter(b"").next()?;
        Some(selection.rotation.take_offered().0)
    }

    fn turns(selection: &Arc<RoundRobin>, count: usize) -> Vec<usize> {
        (0..count).map(|_| turn(selection).unwrap()).collect()
    }

    #[test]
    fn weights_are_served_in_rounds() {
        let selection = rotation(&[1, 3, 2]);
        assert_eq!(turns(&selection, 8), [1, 2, 0, 1, 2, 1, 1, 2]);
    }

    #[test]
    fn weights_with_a_common_divisor_are_as_without() {
        let selection = rotation(&[100, 200]);
        assert_eq!(turns(&selection, 6), [1, 0, 1, 1, 0, 1]);
    }

    #[test]
    fn a_full_heavy_backend_keeps_nobody_from_the_others() {
        let selection = rotation(&[1000, 1, 1]);
        selection.rotation.set_full(BackendIndex(0), true);
        assert_eq!(turns(&selection, 4), [1, 2, 1, 2]);
        selection.rotation.set_full(BackendIndex(1), true);
        selection.rotation.set_full(BackendIndex(2), true);
        assert_eq!(turn(&selection), None);
    }

    #[test]
    fn nobody_is_selected_from_nobody() {
        assert_eq!(turn(&rotation(&[])), None);
        let selection = rotation(&[1, 1]);
        selection.rotation.replace(Vec::new());
        assert_eq!(turn(&selection), None);
        selection.rotation.replace(candidates(&[1, 1]));
        assert_eq!(turns(&selection, 3), [0, 1, 0]);
    }

    #[test]
    fn a_changed_weight_goes_on_where_the_rotation_stood() {
        let selection = rotation(&[1, 1, 1]);
        assert_eq!(turns(&selection, 2), [0, 1]);
        selection.rotation.replace(candidates(&[1, 1, 2]));
        // The turn is the third's, and it is the first of the list now.
        assert_eq!(turns(&selection, 4), [2, 0, 1, 2]);
    }

    proptest! {
        /// Any whole cycle gives everyone exactly its weight.
        #[test]
        fn shares_are_exact(weights in prop::collection::vec(0..7u32, 1..6), start in 0..20usize) {
            let selection = rotation(&weights);
            let divisor = weights.iter().fold(0, |unit, weight| greatest_common_divisor(unit, *weight));
            prop_assume!(divisor > 0);
            let cycle = weights.iter().sum::<u32>() / divisor;
            turns(&selection, start);
            let served = turns(&selection, cycle as usize);
            for (index, weight) in weights.iter().enumerate() {
                let count = served.iter().filter(|backend| **backend == index).count();
                prop_assert_eq!(count as u32, weight / divisor);
            }
        }

        /// Whoever is free is found, wherever the rotation stands.
        #[test]
        fn who_is_free_is_found(
            weights in prop::collection::vec(1..6u32, 1..6),
            start in 0..20usize,
            free in any::<prop::sample::Index>(),
        ) {
            let selection = rotation(&weights);
            turns(&selection, start);
            let free = free.index(weights.len());
            for index in (0..weights.len()).filter(|index| *index != free) {
                selection.rotation.set_full(BackendIndex(index), true);
            }
            prop_assert_eq!(turns(&selection, 3), vec![free; 3]);
        }
    }
}
