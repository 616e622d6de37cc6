//! Backends for the tests of an algorithm: they keep count, and assert that who is chosen has room.

use proptest::prelude::*;

use super::{Algorithm, BackendIndex, Balance, Candidate};

/// How many backends [`steps`] are about.
pub(super) const BACKENDS: usize = 5;

/// What happens to a group.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Take,
    GiveBack(prop::sample::Index),
    /// Weights; 0: is not eligible.
    Replace(Vec<u32>),
    Slots(Vec<u32>),
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let weights = prop::collection::vec(0..5u32, BACKENDS);
    let slots = prop::collection::vec(0..6u32, BACKENDS);
    let step = prop_oneof![
        8 => Just(Step::Take),
        5 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
        1 => weights.prop_map(Step::Replace),
        1 => slots.prop_map(Step::Slots),
    ];
    prop::collection::vec(step, 0..150)
}

/// An algorithm and the backends that it chooses among.
pub(super) struct Group {
    algorithm: Algorithm,
    backends: Vec<Backend>,
}

struct Backend {
    /// 0: is not eligible.
    weight: u32,
    in_flight: u32,
    slots: u32,
}

impl Group {
    /// Backends with these weights and more slots than a test takes; 0: is not eligible.
    pub(super) fn new(balance: Balance, weights: &[u32]) -> Self {
        let idle = |_: &u32| Backend {
            weight: 0,
            in_flight: 0,
            slots: 10_000,
        };
        let mut group = Self {
            algorithm: Algorithm::new(balance, weights.len()),
            backends: weights.iter().map(idle).collect(),
        };
        group.replace(weights);
        group
    }

    /// The backend that gets the next request.
    pub(super) fn take(&mut self) -> Option<usize> {
        let BackendIndex(index) = self.algorithm.choose()?;
        assert!(self.has_room(index), "{index} is full or not eligible");
        self.backends[index].in_flight += 1;
        self.algorithm.update(&self.candidate(index));
        Some(index)
    }

    /// The backends that get the next requests.
    pub(super) fn take_many(&mut self, requests: usize) -> Vec<usize> {
        let take = |_| self.take().expect("somebody has room");
        (0..requests).map(take).collect()
    }

    /// A request of this backend has ended.
    pub(super) fn give_back(&mut self, index: usize) {
        self.backends[index].in_flight -= 1;
        if self.backends[index].weight > 0 {
            self.algorithm.update(&self.candidate(index));
        }
    }

    /// Other weights; 0: is not eligible.
    pub(super) fn replace(&mut self, weights: &[u32]) {
        for (backend, weight) in self.backends.iter_mut().zip(weights) {
            backend.weight = *weight;
        }
        self.refresh();
    }

    /// Other numbers of slots; who has more in flight is full.
    pub(super) fn set_slots(&mut self, slots: &[u32]) {
        for (backend, slots) in self.backends.iter_mut().zip(slots) {
            backend.slots = *slots;
        }
        self.refresh();
    }

    /// So many requests are in flight.
    pub(super) fn set_in_flight(&mut self, in_flight: &[u32]) {
        for (backend, in_flight) in self.backends.iter_mut().zip(in_flight) {
            backend.in_flight = *in_flight;
        }
        self.refresh();
    }

    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::Take => drop(self.take()),
            Step::GiveBack(pick) => {
                let busy = |index: &usize| self.backends[*index].in_flight > 0;
                let busy: Vec<_> = (0..self.backends.len()).filter(busy).collect();
                if !busy.is_empty() {
                    self.give_back(*pick.get(&busy));
                }
            }
            Step::Replace(weights) => self.replace(weights),
            Step::Slots(slots) => self.set_slots(slots),
        }
    }

    pub(super) fn has_room(&self, index: usize) -> bool {
        self.backends[index].weight > 0 && self.candidate(index).has_room
    }

    pub(super) fn candidate(&self, index: usize) -> Candidate {
        let backend = &self.backends[index];
        Candidate {
            index: BackendIndex(index),
            weight: backend.weight,
            in_flight: backend.in_flight,
            has_room: backend.in_flight < backend.slots,
        }
    }

    fn refresh(&mut self) {
        let all = (0..self.backends.len()).map(|index| self.candidate(index));
        let eligible: Vec<_> = all.filter(|candidate| candidate.weight > 0).collect();
        self.algorithm.replace(&eligible);
    }
}
