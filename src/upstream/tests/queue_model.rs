//! What the queue has to do, as a plain vector that is searched from end to end.

use std::time::Duration;

use proptest::prelude::*;

use super::super::QueueParams;
use super::super::fixtures::{fair_queue_of, queue_of, with_priority};

/// In milliseconds, as all times here.
pub const AGING: u64 = 10_000;

/// Every kind of queue: first in first out, fair, with priorities, and both.
pub fn queues() -> impl Strategy<Value = QueueParams> {
    (0..12usize, 1..9usize, any::<bool>(), any::<bool>()).prop_map(
        |(size, size_per_key, is_fair, has_classes)| {
            let mut params = if is_fair {
                fair_queue_of(size)
            } else {
                queue_of(size)
            };
            params.size_per_key = size_per_key;
            if has_classes {
                params = with_priority(params, Duration::from_millis(AGING));
            }
            params
        },
    )
}

/// One that waits.
#[derive(Clone, Debug)]
pub struct Waiter {
    pub ticket: u64,
    pub key: u64,
    pub class: usize,
    /// In milliseconds.
    pub since: u64,
    pub comes_again: bool,
    /// It has come for the first time, and may be sent again after it was sent.
    pub is_repeatable: bool,
}

/// The queue: a plain vector, searched from end to end.
pub struct QueueModel {
    params: QueueParams,
    /// As they came.
    waiters: Vec<Waiter>,
    /// The keys of each class in the order of their turns.
    turns: [Vec<u64>; 3],
    /// Of each class: one below it has had a slot since its own last.
    gave_way: [bool; 3],
}

impl QueueModel {
    pub fn new(params: QueueParams) -> Self {
        Self {
            params,
            waiters: Vec::new(),
            turns: Default::default(),
            gave_way: [false; 3],
        }
    }

    pub fn clear(&mut self) {
        self.waiters.clear();
        self.turns = Default::default();
    }

    /// The tickets of those who wait, from the lowest.
    pub fn tickets(&self) -> Vec<u64> {
        let mut tickets: Vec<_> = self.waiters.iter().map(|one| one.ticket).collect();
        tickets.sort_unstable();
        tickets
    }

    fn count(&self, class: usize, key: u64) -> usize {
        let first_comers = self.waiters.iter().filter(|one| !one.comes_again);
        first_comers
            .filter(|one| (one.class, one.key) == (class, key))
            .count()
    }

    /// Whose turn it is; that one waits no longer.
    pub fn next(&mut self, now: u64) -> Option<u64> {
        let again = self.waiters.iter().filter(|one| one.comes_again);
        if let Some(ticket) = again.map(|one| one.ticket).min() {
            self.leave(ticket);
            return Some(ticket);
        }
        let class = self.class_in_turn(now)?;
        let key = self.turns[class].remove(0);
        self.turns[class].push(key);
        let of_key = |one: &&Waiter| (one.class, one.key) == (class, key);
        let ticket = self.waiters.iter().find(of_key)?.ticket;
        self.leave(ticket);
        Some(ticket)
    }

    /// The one that has waited longest of those that may be a trial; it waits no longer.
    pub fn next_repeatable(&mut self) -> Option<u64> {
        let repeatable = self.waiters.iter().filter(|one| one.is_repeatable);
        let ticket = repeatable.map(|one| one.ticket).min()?;
        self.leave(ticket);
        Some(ticket)
    }

    pub fn has_repeatable(&self) -> bool {
        self.waiters.iter().any(|one| one.is_repeatable)
    }

    fn class_in_turn(&mut self, now: u64) -> Option<usize> {
        let waits = |class: usize| self.waiters.iter().any(|one| one.class == class);
        let is_due = |class: usize| {
            let mut waiters = self.waiters.iter();
            let is_old = |one: &Waiter| one.class == class && now >= one.since + AGING;
            self.params.priority.is_some() && waiters.any(is_old)
        };
        let first = (0..3).find(|class| waits(*class))?;
        let second = (first + 1..3).find(|class| is_due(*class));
        let third = second.and_then(|second| (second + 1..3).find(|class| is_due(*class)));
        let chosen = match (second, third) {
            (Some(second), Some(third)) if !self.gave_way[first] && !self.gave_way[second] => third,
            (Some(second), _) if !self.gave_way[first] => second,
            _ => first,
        };
        self.gave_way[chosen] = false;
        for class in 0..chosen {
            self.gave_way[class] = true;
        }
        Some(chosen)
    }

    pub fn leave(&mut self, ticket: u64) {
        let place = self.waiters.iter().position(|one| one.ticket == ticket);
        let Waiter { class, key, .. } = self.waiters.remove(place.expect("it waits"));
        if self.count(class, key) == 0 {
            self.turns[class].retain(|other| *other != key);
        }
    }

    fn join(&mut self, waiter: Waiter) {
        let turns = &mut self.turns[waiter.class];
        if !waiter.comes_again && !turns.contains(&waiter.key) {
            turns.push(waiter.key);
        }
        self.waiters.push(waiter);
    }

    /// Returns who may have been turned away for this one: nobody where there is room, or where it was
    /// turned away itself.
    pub fn arrive(&mut self, waiter: Waiter, displaced: Option<u64>) -> Vec<u64> {
        if waiter.comes_again {
            self.join(waiter);
            return Vec::new();
        }
        let count = self.count(waiter.class, waiter.key);
        if self.params.fair_by.is_some() && count >= self.params.size_per_key {
            return Vec::new();
        }
        if self.waiters.len() < self.params.size {
            self.join(waiter);
            return Vec::new();
        }
        let lowest = (0..3).rev().find(|class| !self.turns[*class].is_empty());
        let Some(lowest) = lowest.filter(|lowest| *lowest >= waiter.class) else {
            return Vec::new();
        };
        let lengths = self.turns[lowest]
            .iter()
            .map(|key| self.count(lowest, *key));
        let longest = lengths.max().unwrap_or(0);
        if lowest == waiter.class && longest <= count + 1 {
            return Vec::new();
        }
        let long = self.turns[lowest]
            .iter()
            .filter(|key| self.count(lowest, **key) == longest);
        let newest = |key: &u64| {
            let of_key = |one: &&Waiter| (one.class, one.key) == (lowest, *key) && !one.comes_again;
            self.waiters.iter().rfind(of_key).map(|one| one.ticket)
        };
        let victims: Vec<u64> = long.filter_map(newest).collect();
        if let Some(ticket) = displaced.filter(|ticket| victims.contains(ticket)) {
            self.leave(ticket);
        }
        self.join(waiter);
        victims
    }
}
