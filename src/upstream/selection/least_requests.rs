//! Least requests: the backend with the lowest load, which is `in_flight / weight`; among equal loads, round
//! robin in configuration order.
//!
//! The idea is that of HAProxy's `leastconn`, the load that of nginx's `least_conn`. It suits backends with
//! several slots and requests of very different length. Among backends with one slot each, those that have
//! room are all idle, so it is a round robin without weights.

use super::tournament::Tournament;
use super::{BackendIndex, Candidate};

/// The `least_requests` of the configuration.
pub(super) struct LeastRequests {
    /// The loads of those that have room, by backend index.
    loads: Tournament,
    /// Among equal loads, it is this one's turn, or that of the next one behind it. By backend index.
    turn: usize,
}

impl LeastRequests {
    pub(super) fn new(backends: usize) -> Self {
        Self {
            loads: Tournament::of(backends),
            turn: 0,
        }
    }

    pub(super) fn replace(&mut self, candidates: &[Candidate]) {
        self.loads.clear();
        for candidate in candidates {
            self.update(candidate);
        }
    }

    pub(super) fn update(&mut self, candidate: &Candidate) {
        let BackendIndex(index) = candidate.index;
        if candidate.has_room {
            self.loads.enter(index, load(candidate));
        } else {
            self.loads.leave(index);
        }
    }

    pub(super) fn choose(&mut self) -> Option<BackendIndex> {
        let behind = self.loads.first_least_from(self.turn);
        let index = behind.or_else(|| self.loads.first_least_from(0))?;
        self.turn = index + 1;
        Some(BackendIndex(index))
    }
}

/// In-flight requests per weight, in 2⁻³² parts. Weights are at most 1000, so loads that differ do so by a
/// millionth at least: they stay different, and equal ones equal.
fn load(candidate: &Candidate) -> u64 {
    (u64::from(candidate.in_flight) << 32) / u64::from(candidate.weight)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Balance;
    use super::super::fixtures::{BACKENDS, Group, Step, steps};

    fn group(weights: &[u32]) -> Group {
        Group::new(Balance::LeastRequests, weights)
    }

    #[test]
    fn the_fewest_in_flight_is_chosen() {
        let mut group = group(&[1, 1, 1]);
        assert_eq!(group.take_many(4), [0, 1, 2, 0]);
        group.give_back(2);
        assert_eq!(group.take_many(3), [2, 1, 2]);
    }

    #[test]
    fn equal_loads_have_their_turns_in_configuration_order() {
        let mut group = group(&[1, 1, 1]);
        for expected in [0, 1, 2, 0, 1] {
            assert_eq!(group.take(), Some(expected));
            group.give_back(expected);
        }
        group.replace(&[1, 1, 0]);
        assert_eq!(group.take(), Some(0), "the third's turn, but it is gone");
        group.replace(&[1, 1, 1]);
        assert_eq!(group.take_many(3), [1, 2, 0]);
    }

    #[test]
    fn a_weight_is_how_many_requests_count_as_one() {
        let mut group = group(&[1, 3]);
        assert_eq!(group.take_many(8), [0, 1, 1, 1, 0, 1, 1, 1]);
    }

    #[test]
    fn loads_that_differ_by_a_millionth_differ() {
        let mut group = group(&[1000, 997]);
        group.set_in_flight(&[333, 332]);
        assert_eq!(group.take(), Some(1), "0.333 and 0.332999");
        group.set_in_flight(&[1000, 997]);
        assert_eq!(group.take(), Some(0), "equal loads: whose turn it is");
    }

    proptest! {
        /// The reference looks at everybody, and compares loads by multiplying crosswise.
        #[test]
        fn nobody_who_has_room_has_less_than_the_one_that_is_chosen(steps in steps()) {
            let mut group = group(&[1; BACKENDS]);
            let mut turn = 0;
            for step in steps {
                if let Step::Take = step {
                    let free = || (0..BACKENDS).filter(|index| group.has_room(*index));
                    let less = |left: usize, right: usize| {
                        let [left, right] = [left, right].map(|index| group.candidate(index));
                        left.in_flight * right.weight < right.in_flight * left.weight
                    };
                    let least: Vec<_> = free()
                        .filter(|index| !free().any(|other| less(other, *index)))
                        .collect();
                    let due = least.iter().find(|index| **index >= turn).or(least.first());
                    let expected = due.copied();
                    turn = expected.map_or(turn, |index| index + 1);
                    prop_assert_eq!(group.take(), expected);
                } else {
                    group.apply(&step);
                }
            }
        }
    }
}
