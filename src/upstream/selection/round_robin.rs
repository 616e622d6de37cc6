//! Round robin: walks the list of eligible backends, from a position that outlives its replacement.
//!
//! Pingora's own round robin walks on from a shared counter over *all* backends: a dead one's
//! successor gets a double share, and racing requests can see no backend while one is healthy.
//! Indexing into the list of eligible ones avoids both.
//!
//! Weights are served in rounds (interleaved weighted round robin: M. Katevenis et al., "Weighted
//! round-robin cell multiplexing in a general-purpose ATM switch chip", 1991): in round `r` every
//! backend whose weight is `r` or more has one turn, so that after as many rounds as the greatest
//! weight has, everyone has had exactly its share. The list is sorted by weight, so a round is a
//! prefix of it; with equal weights there is one round, in configuration order.
//!
//! Invariant: `next` is before the end of its round, unless the list is empty.

use std::cmp::Reverse;

use super::tournament::Tournament;
use super::{BackendIndex, Candidate};

/// The `round_robin` of the configuration.
pub(super) struct RoundRobin {
    /// The eligible backends: by weight, greatest first; then in configuration order.
    list: Vec<Entry>,
    /// By backend index: its position in the list, if it is in there.
    positions: Box<[usize]>,
    /// The positions of those that have room, with equal numbers: any of them will do.
    free: Tournament,
    /// How many backends have a turn in each round: a prefix of the list.
    rounds: Vec<usize>,
    next: Cursor,
}

#[derive(Clone, Copy)]
struct Entry {
    index: BackendIndex,
    weight: u32,
}

/// A turn in the rotation.
#[derive(Clone, Copy, Default)]
struct Cursor {
    /// Counted from 0.
    round: usize,
    /// In the list.
    position: usize,
}

impl RoundRobin {
    pub(super) fn new(backends: usize) -> Self {
        Self {
            list: Vec::new(),
            positions: vec![0; backends].into(),
            free: Tournament::of(backends),
            rounds: Vec::new(),
            next: Cursor::default(),
        }
    }

    pub(super) fn replace(&mut self, candidates: &[Candidate]) {
        let due = self.list.get(self.next.position).copied();
        let entries = candidates.iter().map(|candidate| Entry {
            index: candidate.index,
            weight: candidate.weight,
        });
        self.list = entries.collect();
        // Stable: equal weights stay in configuration order.
        self.list.sort_by_key(|entry| Reverse(entry.weight));
        self.rounds = rounds(&self.list);
        for (position, entry) in self.list.iter().enumerate() {
            self.positions[entry.index.0] = position;
        }
        self.free.clear();
        for candidate in candidates {
            self.update(candidate);
        }
        match due {
            Some(due) => self.resume(due),
            None => self.next = Cursor::default(),
        }
    }

    pub(super) fn update(&mut self, candidate: &Candidate) {
        let position = self.positions[candidate.index.0];
        if candidate.has_room {
            self.free.enter(position, 0);
        } else {
            self.free.leave(position);
        }
    }

    pub(super) fn choose(&mut self) -> Option<BackendIndex> {
        let turn = self.free_turn()?;
        self.next = self.or_next_round(Cursor {
            position: turn.position + 1,
            ..turn
        });
        Some(self.list[turn.position].index)
    }

    /// How many backends have a turn in this round; 0: there is no such round.
    fn turns_in(&self, round: usize) -> usize {
        self.rounds.get(round).copied().unwrap_or(0)
    }

    /// `turn`, or if its round is over the first of the next one.
    fn or_next_round(&self, turn: Cursor) -> Cursor {
        if turn.position < self.turns_in(turn.round) {
            turn
        } else {
            self.start_of(turn.round + 1)
        }
    }

    /// The first turn of a round, or of the first round if there is no such round.
    fn start_of(&self, round: usize) -> Cursor {
        let round = if self.turns_in(round) == 0 { 0 } else { round };
        Cursor { round, position: 0 }
    }

    /// The first turn from this one to the end of its round of somebody who has room.
    fn free_from(&self, turn: Cursor) -> Option<Cursor> {
        let position = self.free.first_least_from(turn.position)?;
        (position < self.turns_in(turn.round)).then_some(Cursor { position, ..turn })
    }

    /// In the rest of the round, in the next, or in the first, in which everyone has a turn: each later
    /// round is a part of the one before it, so where a whole one is full, so are those after it.
    fn free_turn(&self) -> Option<Cursor> {
        self.free_from(self.next)
            .or_else(|| self.free_from(self.start_of(self.next.round + 1)))
            .or_else(|| self.free_from(self.start_of(0)))
    }

    /// Goes on where the rotation stood in the list before: with `due`, whose turn it was, or with the
    /// one behind it, so that those who stay keep their order.
    fn resume(&mut self, due: Entry) {
        let order = |entry: &Entry| (Reverse(entry.weight), entry.index);
        let same = |entry: &Entry| entry.index == due.index;
        let behind = || {
            self.list
                .partition_point(|other| order(other) < order(&due))
        };
        self.next.position = self.list.iter().position(same).unwrap_or_else(behind);
        if self.next.position >= self.turns_in(self.next.round) {
            self.next = Cursor::default();
        }
    }
}

/// How many turns each round has, for a list that begins with the greatest weight.
fn rounds(list: &[Entry]) -> Vec<usize> {
    let divisor = |unit, entry: &Entry| greatest_common_divisor(unit, entry.weight);
    let unit = list.iter().fold(0, divisor).max(1);
    let count = list.first().map_or(0, |heaviest| heaviest.weight / unit);
    let turns = |round| list.partition_point(|entry| entry.weight / unit > round);
    (0..count).map(turns).collect()
}

fn greatest_common_divisor(left: u32, right: u32) -> u32 {
    match right {
        0 => left,
        _ => greatest_common_divisor(right, left % right),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Balance;
    use super::super::fixtures::{BACKENDS, Group, Step, steps};
    use super::*;

    fn group(weights: &[u32]) -> Group {
        Group::new(Balance::RoundRobin, weights)
    }

    #[test]
    fn weights_are_served_in_rounds() {
        let mut group = group(&[1, 3, 2]);
        assert_eq!(group.take_many(8), [1, 2, 0, 1, 2, 1, 1, 2]);
    }

    #[test]
    fn weights_with_a_common_divisor_are_as_without() {
        let mut group = group(&[100, 200]);
        assert_eq!(group.take_many(6), [1, 0, 1, 1, 0, 1]);
    }

    /// However great the weights are: what is noted of the rounds is bounded by what tells them apart.
    #[test]
    fn there_are_as_many_rounds_as_the_heaviest_has_turns() {
        let entry = |index, weight| Entry {
            index: BackendIndex(index),
            weight,
        };
        assert_eq!(rounds(&[entry(1, 900), entry(0, 600)]), [2, 2, 1]);
        assert_eq!(rounds(&[entry(0, 1000), entry(1, 1000)]), [2]);
        assert_eq!(rounds(&[]), [0; 0]);
    }

    #[test]
    fn a_change_at_the_end_of_a_round_begins_none_anew() {
        let mut group = group(&[2, 1]);
        assert_eq!(group.take_many(2), [0, 1]);
        group.replace(&[2, 1]);
        assert_eq!(group.take_many(3), [0, 0, 1]);
    }

    #[test]
    fn who_was_full_at_its_turn_waits_for_the_next_one() {
        let mut group = group(&[3, 3, 1]);
        assert_eq!(group.take_many(2), [0, 1]);
        group.set_slots(&[9, 9, 0]);
        assert_eq!(group.take(), Some(0), "the second round");
        group.set_slots(&[9, 9, 9]);
        assert_eq!(group.take_many(6), [1, 0, 1, 0, 1, 2]);
    }

    #[test]
    fn a_full_heavy_backend_keeps_nobody_from_the_others() {
        let mut group = group(&[1000, 1, 1]);
        group.set_slots(&[0, 9, 9]);
        assert_eq!(group.take_many(4), [1, 2, 1, 2]);
        group.set_slots(&[0, 0, 0]);
        assert_eq!(group.take(), None);
    }

    #[test]
    fn nobody_is_selected_from_nobody() {
        assert_eq!(group(&[]).take(), None);
        let mut group = group(&[1, 1]);
        group.replace(&[0, 0]);
        assert_eq!(group.take(), None);
        group.replace(&[1, 1]);
        assert_eq!(group.take_many(3), [0, 1, 0]);
    }

    #[test]
    fn a_changed_weight_goes_on_where_the_rotation_stood() {
        let mut group = group(&[1, 1, 1]);
        assert_eq!(group.take_many(2), [0, 1]);
        group.replace(&[1, 1, 2]);
        // The turn is the third's, and it is the first of the list now.
        assert_eq!(group.take_many(4), [2, 0, 1, 2]);
    }

    #[test]
    fn one_that_was_full_has_its_turn_again_when_it_comes() {
        let mut group = group(&[1, 1, 1]);
        group.set_slots(&[1, 9, 9]);
        assert_eq!(group.take_many(5), [0, 1, 2, 1, 2]);
        group.give_back(0);
        assert_eq!(group.take_many(3), [0, 1, 2]);
    }

    proptest! {
        /// Any whole cycle gives everyone exactly its weight.
        #[test]
        fn shares_are_exact(weights in prop::collection::vec(0..7u32, 1..6), start in 0..20usize) {
            let mut group = group(&weights);
            let divisor = weights.iter().fold(0, |unit, weight| greatest_common_divisor(unit, *weight));
            prop_assume!(divisor > 0);
            let cycle = weights.iter().sum::<u32>() / divisor;
            group.take_many(start);
            let served = group.take_many(cycle as usize);
            for (index, weight) in weights.iter().enumerate() {
                let count = served.iter().filter(|backend| **backend == index).count();
                prop_assert_eq!(count as u32, weight / divisor);
            }
        }

        /// Whoever has room is found, wherever the rotation stands.
        #[test]
        fn who_is_free_is_found(steps in steps()) {
            let mut group = group(&[1; BACKENDS]);
            for step in steps {
                let is_anyone_free = (0..BACKENDS).any(|index| group.has_room(index));
                if let Step::Take = step {
                    // The group asserts that it has room.
                    prop_assert_eq!(group.take().is_some(), is_anyone_free);
                } else {
                    group.apply(&step);
                }
            }
        }
    }
}
