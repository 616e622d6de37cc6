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

use std::time::{Duration, Instant};

use hashbrown::HashTable;
use slab::Slab;

use super::Tally;
use super::chain::{Chains, List};
use super::forecast::{self, Ahead, Outlook};
use crate::upstream::{Guest, Key, Priority};

pub(super) const CLASSES: usize = Priority::ALL.len();

/// Names a line for as long as somebody stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineIndex(u32);

impl LineIndex {
    fn get(self) -> usize {
        self.0 as usize
    }
}

/// The lists in which a waiter stands: its line, and its class by age where requests age.
const IN_LINE: usize = 0;
const BY_AGE: usize = 1;

/// The lists in which a line stands: those of its class in the order of their turns, and those of its class
/// that are as long, where there are keys.
const IN_TURN: usize = 0;
const BY_LENGTH: usize = 1;

/// Who stands where. A waiter is an index that its owner gives.
#[derive(Debug)]
pub(super) struct Lines {
    lines: Slab<Line>,
    classes: [Class; CLASSES],
    /// Each key has its own; else each class has the line of its number.
    has_keys: bool,
    /// Those who wait, and since when, where requests age.
    waiters: Chains<2, Option<Instant>>,
    /// The lines, in their orders.
    orders: Chains<2>,
    /// How long a class waits behind more urgent ones, where there are any.
    aging: Option<Duration>,
}

#[derive(Debug)]
struct Line {
    class: Priority,
    key: Key,
    waiters: List,
}

#[derive(Debug, Default)]
struct Class {
    /// The lines that there are.
    by_key: HashTable<LineIndex>,
    turns: List,
    /// The lines that have one waiter, two, …; the last of these lists is not empty.
    by_length: Vec<List>,
    /// Waiters as they came, where requests age.
    ages: List,
    waiting: usize,
    /// A less urgent class has had a slot since its own last.
    gave_way: bool,
}

impl Lines {
    pub(super) fn new(has_keys: bool, aging: Option<Duration>) -> Self {
        let mut lines = Slab::new();
        if !has_keys {
            for (_, class) in Priority::ALL {
                lines.insert(Line::new(class, Key::default()));
            }
        }
        Self {
            lines,
            classes: Default::default(),
            has_keys,
            waiters: Chains::new(),
            orders: Chains::new(),
            aging,
        }
    }

    /// How many stand in the line of this guest's key and class.
    pub(super) fn length_for(&self, guest: &Guest) -> usize {
        self.find(guest)
            .map_or(0, |line| self.lines[line].waiters.len())
    }

    /// Goes to the end of the line of the guest's key and class.
    pub(super) fn join(&mut self, waiter: usize, guest: &Guest) -> LineIndex {
        let index = self.find(guest).unwrap_or_else(|| self.open(guest));
        let line = &mut self.lines[index];
        let class = &mut self.classes[line.class as usize];
        class.waiting += 1;
        self.waiters.push_back::<IN_LINE>(&mut line.waiters, waiter);
        let length = line.waiters.len();
        if length == 1 {
            self.orders.push_back::<IN_TURN>(&mut class.turns, index);
        }
        if self.aging.is_some() {
            self.waiters.push_back::<BY_AGE>(&mut class.ages, waiter);
            self.waiters.set_note(waiter, Some(guest.since));
        }
        if self.has_keys {
            self.list_by_length(index, length - 1, length);
        }
        LineIndex(index as u32)
    }

    /// Leaves its line, from wherever it stands.
    pub(super) fn leave(&mut self, waiter: usize, line: LineIndex) {
        let index = line.get();
        let line = &mut self.lines[index];
        let class = &mut self.classes[line.class as usize];
        class.waiting -= 1;
        self.waiters.remove::<IN_LINE>(&mut line.waiters, waiter);
        let length = line.waiters.len();
        if length == 0 {
            self.orders.remove::<IN_TURN>(&mut class.turns, index);
        }
        if self.aging.is_some() {
            self.waiters.remove::<BY_AGE>(&mut class.ages, waiter);
        }
        if self.has_keys {
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
        self.orders.move_to_back::<IN_TURN>(turns, line);
        self.lines[line].waiters.head()
    }

    /// Who has to go so that this guest can stay, where there is room for one of them only.
    pub(super) fn who_makes_room(&self, guest: &Guest) -> Option<usize> {
        let own = guest.priority as usize;
        let (lowest, class) = self.least_urgent()?;
        let longest = &self.lines[class.longest()?].waiters;
        // As if both stood there: of equals, who comes later goes.
        let is_longer = || longest.len() > self.length_for(guest) + 1;
        let has_less_claim = lowest > own || (lowest == own && is_longer());
        longest.tail().filter(|_| has_less_claim)
    }

    /// How many are likely to be called before this guest, if it joined now and nobody came after it.
    pub(super) fn ahead_of(&self, guest: &Guest, now: Instant) -> Ahead {
        let class = guest.priority as usize;
        let outlook = std::array::from_fn(|class| Outlook {
            waiting: self.classes[class].waiting,
            is_due: self.is_due(class, Some(now)),
            gave_way: self.classes[class].gave_way,
        });
        forecast::ahead(class, self.ahead_within_class(guest), &outlook)
    }

    /// How many of its class: of each line as many as of its own, and one more of those whose turn comes
    /// first. Which these are is not known, but where it has nobody waiting, all lines are.
    fn ahead_within_class(&self, guest: &Guest) -> usize {
        let class = &self.classes[guest.priority as usize];
        if !self.has_keys {
            return class.waiting;
        }
        let own = self.length_for(guest);
        let (mut longer, mut beyond) = (0, 0);
        for (more, lines) in class.by_length.iter().skip(own).enumerate() {
            longer += lines.len();
            beyond += lines.len() * (more + 1);
        }
        let first = if own == 0 { longer } else { longer / 2 };
        class.waiting - beyond + first
    }

    pub(super) fn tally(&self) -> Tally {
        let longest = |class: &Class| {
            let line = class.longest()?;
            Some(self.lines[line].waiters.len())
        };
        Tally {
            by_class: std::array::from_fn(|class| self.classes[class].waiting),
            lines: self.classes.iter().map(|class| class.turns.len()).sum(),
            longest: self.classes.iter().filter_map(longest).max().unwrap_or(0),
        }
    }

    fn find(&self, guest: &Guest) -> Option<usize> {
        let Guest { priority, key, .. } = *guest;
        let class = priority as usize;
        if !self.has_keys {
            return Some(class);
        }
        let has_key = |line: &LineIndex| self.lines[line.get()].key == key;
        let line = self.classes[class].by_key.find(key.hash(), has_key);
        line.map(|line| line.get())
    }

    fn open(&mut self, guest: &Guest) -> usize {
        let class = &mut self.classes[guest.priority as usize];
        let index = self.lines.insert(Line::new(guest.priority, guest.key));
        let hash = |line: &LineIndex| self.lines[line.get()].key.hash();
        class
            .by_key
            .insert_unique(guest.key.hash(), LineIndex(index as u32), hash);
        index
    }

    fn close_if_empty(&mut self, index: usize) {
        let line = &self.lines[index];
        if !line.waiters.is_empty() {
            return;
        }
        let by_key = &mut self.classes[line.class as usize].by_key;
        let known = by_key.find_entry(line.key.hash(), |other| other.get() == index);
        if let Ok(known) = known {
            known.remove();
        }
        self.lines.remove(index);
    }

    /// A line has become longer or shorter by one.
    fn list_by_length(&mut self, index: usize, before: usize, after: usize) {
        let class = self.lines[index].class as usize;
        let by_length = &mut self.classes[class].by_length;
        if before > 0 {
            self.orders
                .remove::<BY_LENGTH>(&mut by_length[before - 1], index);
        }
        if after > by_length.len() {
            by_length.push(List::default());
        }
        if after > 0 {
            self.orders
                .push_back::<BY_LENGTH>(&mut by_length[after - 1], index);
        }
        if by_length.last().is_some_and(List::is_empty) {
            by_length.pop();
        }
    }

    /// Which class the next slot is for. `now` is needed where requests age.
    fn class_in_turn(&mut self, now: Option<Instant>) -> Option<usize> {
        let mut classes = self.classes.iter();
        let first = classes.position(|class| class.waiting > 0)?;
        let mut chosen = first;
        for number in first + 1..CLASSES {
            if !self.classes[chosen].gave_way && self.is_due(number, now) {
                chosen = number;
            }
        }
        // Without a time nothing ages, or all are refused, and there is no slot for which anybody gives way.
        if now.is_some() {
            let (above, rest) = self.classes.split_at_mut(chosen);
            above.iter_mut().for_each(|class| class.gave_way = true);
            rest[0].gave_way = false;
        }
        Some(chosen)
    }

    /// Somebody in this class has waited for `aging`.
    fn is_due(&self, class: usize, now: Option<Instant>) -> bool {
        let (Some(aging), Some(now)) = (self.aging, now) else {
            return false;
        };
        let eldest = self.classes[class].ages.head();
        let since = eldest.and_then(|eldest| self.waiters.note(eldest));
        since.is_some_and(|since| now.saturating_duration_since(since) >= aging)
    }

    fn least_urgent(&self) -> Option<(usize, &Class)> {
        let mut classes = self.classes.iter().enumerate().rev();
        classes.find(|(_, class)| class.waiting > 0)
    }

    /// Panics when an invariant does not hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        for (number, class) in self.classes.iter().enumerate() {
            let of_class = |(_, line): &(usize, &Line)| line.class as usize == number;
            let lengths = self.lines.iter().filter(of_class);
            let lengths: Vec<_> = lengths.map(|(_, line)| line.waiters.len()).collect();
            let longest = lengths.iter().copied().filter(|length| *length > 0).max();
            let found = class.longest().map(|line| self.lines[line].waiters.len());
            assert_eq!(found, longest, "the longest line");
            assert_eq!(
                class.waiting,
                lengths.iter().sum::<usize>(),
                "waiting in the class"
            );
        }
        if self.has_keys {
            let known = self.classes.iter().map(|class| class.by_key.len());
            assert_eq!(known.sum::<usize>(), self.lines.len(), "lines by key");
            assert!(self.lines.iter().all(|(_, line)| !line.waiters.is_empty()));
        }
    }
}

impl Key {
    fn hash(self) -> u64 {
        self.0
    }
}

impl Line {
    fn new(class: Priority, key: Key) -> Self {
        Self {
            class,
            key,
            waiters: List::default(),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Else every step would compare it with all others.
    #[test]
    fn a_key_is_not_looked_for_where_others_are() {
        assert_ne!(Key(1).hash(), Key(2).hash());
    }
}
