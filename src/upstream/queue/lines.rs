//! Those who wait for their first turn: in a line for each key of each class, and whose turn it is.
//!
//! **Keys.** A class is served line by line, one request each: round robin, which is what deficit round
//! robin comes to where every request costs one slot. A line exists while somebody stands in it. One that
//! begins anew goes behind the others, so nothing is gained by leaving and coming back.
//!
//! **Classes.** The most urgent class first. A class in which somebody has waited for `aging` is *due*, and
//! each class above gives way to it once, then has a slot itself. So every second slot is for those that are
//! due; an urgent request has at most one of another class before it, and no class starves.
//!
//! **A full hall.** One more is let in where another can go who has less of a claim: the newest of the
//! longest line of the least urgent class, if it is less urgent than the newcomer, or its line longer.
//!
//! Everything is found in a few steps, however many wait: lines of equal length are listed together, and so
//! are those of one class by age. Without keys there is one line for each class, nothing is hashed and
//! nothing allocated for it; without `aging` nobody's age is noted.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use slab::Slab;

use super::chain::{Chains, List};
use crate::upstream::{Guest, Key, Priority};

const CLASSES: usize = Priority::ALL.len();

/// Names a line for as long as somebody stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineIndex(usize);

/// Who stands where. A waiter is an index that its owner gives.
#[derive(Debug)]
pub(super) struct Lines {
    lines: Slab<Line>,
    classes: [Class; CLASSES],
    /// Each key has its own; else each class has the line of its number.
    has_keys: bool,
    /// Waiters, each in its line.
    places: Chains,
    /// Lines, each in its class, in the order of their turns.
    turns: Chains,
    /// Lines, each among those of its class that are as long. Only where there are keys.
    lengths: Chains,
    ages: Option<Ages>,
}

#[derive(Debug)]
struct Line {
    class: usize,
    key: Key,
    waiters: List,
    length: usize,
}

#[derive(Debug, Default)]
struct Class {
    /// The lines that there are.
    by_key: HashMap<Key, usize, BuildHasherDefault<Unhashed>>,
    turns: List,
    /// The lines that have one waiter, two, …; the last of these lists is not empty.
    by_length: Vec<List>,
    /// Waiters as they came.
    ages: List,
}

/// A key is a hash already.
#[derive(Default)]
struct Unhashed(u64);

impl Hasher for Unhashed {
    /// Never called: a key is one number.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// How long waiters have waited, and what they are owed for it.
#[derive(Debug)]
struct Ages {
    aging: Duration,
    /// Waiters, each in its class, as they came.
    order: Chains,
    /// Since when they wait.
    since: Vec<Option<Instant>>,
    /// Of each class: a less urgent one has had a slot since its own last.
    gave_way: [bool; CLASSES],
}

impl Lines {
    pub(super) fn new(has_keys: bool, aging: Option<Duration>) -> Self {
        let mut lines = Slab::new();
        if !has_keys {
            for class in 0..CLASSES {
                lines.insert(Line::new(class, Key::default()));
            }
        }
        Self {
            lines,
            classes: Default::default(),
            has_keys,
            places: Chains::default(),
            turns: Chains::default(),
            lengths: Chains::default(),
            ages: aging.map(Ages::new),
        }
    }

    /// How many stand in the line of this guest's key and class.
    pub(super) fn length_for(&self, guest: &Guest) -> usize {
        self.find(guest).map_or(0, |line| self.lines[line].length)
    }

    /// Goes to the end of the line of the guest's key and class.
    pub(super) fn join(&mut self, waiter: usize, guest: &Guest) -> LineIndex {
        let index = self.find(guest).unwrap_or_else(|| self.open(guest));
        let line = &mut self.lines[index];
        let class = &mut self.classes[line.class];
        self.places.push_back(&mut line.waiters, waiter);
        line.length += 1;
        if line.length == 1 {
            self.turns.push_back(&mut class.turns, index);
        }
        if let Some(ages) = &mut self.ages {
            ages.join(&mut class.ages, waiter, guest.since);
        }
        if self.has_keys {
            let length = line.length;
            self.list_by_length(index, length - 1, length);
        }
        LineIndex(index)
    }

    /// Leaves its line, from wherever it stands.
    pub(super) fn leave(&mut self, waiter: usize, LineIndex(index): LineIndex) {
        let line = &mut self.lines[index];
        let class = &mut self.classes[line.class];
        self.places.remove(&mut line.waiters, waiter);
        line.length -= 1;
        if line.length == 0 {
            self.turns.remove(&mut class.turns, index);
        }
        if let Some(ages) = &mut self.ages {
            ages.order.remove(&mut class.ages, waiter);
        }
        if self.has_keys {
            let length = line.length;
            self.list_by_length(index, length + 1, length);
            self.close_if_empty(index);
        }
    }

    /// Whose turn it is. The line has had it then, and is behind the others of its class; the waiter
    /// still has to [leave](Self::leave).
    pub(super) fn next(&mut self, now: Option<Instant>) -> Option<usize> {
        let class = self.class_in_turn(now)?;
        let turns = &mut self.classes[class].turns;
        let line = turns.head()?;
        self.turns.move_to_back(turns, line);
        self.lines[line].waiters.head()
    }

    /// Who has to go so that this guest can stay, where there is room for one of them only.
    pub(super) fn who_makes_room(&self, guest: &Guest) -> Option<usize> {
        let own = guest.priority as usize;
        let (lowest, class) = self.least_urgent()?;
        let longest = &self.lines[class.longest()?];
        // As if both stood there: of equals, who comes later goes.
        let is_longer = || longest.length > self.length_for(guest) + 1;
        let has_less_claim = lowest > own || (lowest == own && is_longer());
        longest.waiters.tail().filter(|_| has_less_claim)
    }

    fn find(&self, guest: &Guest) -> Option<usize> {
        let class = guest.priority as usize;
        if self.has_keys {
            self.classes[class].by_key.get(&guest.key).copied()
        } else {
            Some(class)
        }
    }

    fn open(&mut self, guest: &Guest) -> usize {
        let class = guest.priority as usize;
        let index = self.lines.insert(Line::new(class, guest.key));
        self.classes[class].by_key.insert(guest.key, index);
        index
    }

    fn close_if_empty(&mut self, index: usize) {
        let Line {
            class, key, length, ..
        } = self.lines[index];
        if length > 0 {
            return;
        }
        self.lines.remove(index);
        self.classes[class].by_key.remove(&key);
    }

    /// A line has become longer or shorter by one.
    fn list_by_length(&mut self, index: usize, before: usize, after: usize) {
        let by_length = &mut self.classes[self.lines[index].class].by_length;
        if before > 0 {
            self.lengths.remove(&mut by_length[before - 1], index);
        }
        if after > by_length.len() {
            by_length.push(List::default());
        }
        if after > 0 {
            self.lengths.push_back(&mut by_length[after - 1], index);
        }
        if by_length.last().is_some_and(List::is_empty) {
            by_length.pop();
        }
    }

    fn class_in_turn(&mut self, now: Option<Instant>) -> Option<usize> {
        let mut classes = self.classes.iter();
        let first = classes.position(|class| !class.turns.is_empty())?;
        match (&mut self.ages, now) {
            (Some(ages), Some(now)) => Some(ages.class_in_turn(first, &self.classes, now)),
            _ => Some(first),
        }
    }

    fn least_urgent(&self) -> Option<(usize, &Class)> {
        let mut classes = self.classes.iter().enumerate().rev();
        classes.find(|(_, class)| !class.turns.is_empty())
    }

    /// Panics when an invariant does not hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        for (number, class) in self.classes.iter().enumerate() {
            let of_class = |(_, line): &(usize, &Line)| line.class == number && line.length > 0;
            let longest = self.lines.iter().filter(of_class);
            let longest = longest.map(|(_, line)| line.length).max();
            let found = class.longest().map(|line| self.lines[line].length);
            assert_eq!(found, longest, "the longest line");
        }
        if self.has_keys {
            let known = self.classes.iter().map(|class| class.by_key.len());
            assert_eq!(known.sum::<usize>(), self.lines.len(), "lines by key");
            assert!(self.lines.iter().all(|(_, line)| line.length > 0));
        }
    }
}

impl Line {
    fn new(class: usize, key: Key) -> Self {
        Self {
            class,
            key,
            waiters: List::default(),
            length: 0,
        }
    }
}

impl Class {
    /// Without keys there is one line only.
    fn longest(&self) -> Option<usize> {
        match self.by_length.last() {
            Some(lines) => lines.head(),
            None => self.turns.head(),
        }
    }
}

impl Ages {
    fn new(aging: Duration) -> Self {
        Self {
            aging,
            order: Chains::default(),
            since: Vec::new(),
            gave_way: [false; CLASSES],
        }
    }

    fn join(&mut self, list: &mut List, waiter: usize, since: Instant) {
        if waiter >= self.since.len() {
            self.since.resize(waiter + 1, None);
        }
        self.since[waiter] = Some(since);
        self.order.push_back(list, waiter);
    }

    /// Which class the next slot is for, if `first` is the most urgent one in which anybody waits.
    fn class_in_turn(&mut self, first: usize, classes: &[Class; CLASSES], now: Instant) -> usize {
        let mut chosen = first;
        for (number, class) in classes.iter().enumerate().skip(first + 1) {
            if self.is_due(class, now) && !self.gave_way[chosen] {
                chosen = number;
            }
        }
        self.gave_way[..chosen].fill(true);
        self.gave_way[chosen] = false;
        chosen
    }

    /// Somebody in it has waited for `aging`.
    fn is_due(&self, class: &Class, now: Instant) -> bool {
        let eldest = class.ages.head();
        let since = eldest.and_then(|eldest| self.since[eldest]);
        since.is_some_and(|since| now.saturating_duration_since(since) >= self.aging)
    }
}
