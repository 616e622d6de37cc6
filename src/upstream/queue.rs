//! Who waits for a slot, and who is next. A plain data structure: the slots lock it.
//!
//! Who comes for the first time stands in a line of its key and class ([`lines`]); where the configuration
//! asks for neither, there is one line, first in, first out. A request whose attempt failed had its turn
//! already, so it goes ahead of all who did not, by ticket among its like; with one line, that is the order
//! of tickets. It waits for another backend than the one that failed it, whose slots others get meanwhile.
//!
//! Joining, leaving from anywhere and calling the next cost the same at 10 and at 10,000 waiting. Who comes
//! again walks past others that did, which are at most as many as there are slots.
//!
//! Invariant: the lines hold exactly the entries that were not called yet. An entry stays in the slab until
//! its owner leaves: places are not reused under anyone's feet.

mod chain;
mod forecast;
mod lines;
#[cfg(test)]
mod tests;

use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use super::{BackendIndex, Guest, Priority};
use chain::{Chains, List};
pub(super) use forecast::Ahead;
use lines::{LineIndex, Lines};

/// A request's place in time: lower goes first. Kept through its retries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// Names an entry until [`Queue::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

/// Who may wait, and in which order they are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// How many may wait.
    pub(super) size: usize,
    /// How many of one key and class.
    pub(super) size_per_key: usize,
    /// Each key has its turn.
    pub(super) is_fair: bool,
    /// Some are more urgent than others, and this is how long the others stand it.
    pub(super) aging: Option<Duration>,
}

/// Who waits for a first turn; who comes again stands in no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    /// Of each class.
    pub(super) by_class: [usize; Priority::ALL.len()],
    /// How many lines there are, and how many stand in the longest.
    pub(super) lines: usize,
    pub(super) longest: usize,
}

/// Whether one more may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// Once this one was called, to go.
    Of(Place),
    Full,
}

/// The waiting requests; `C` is what a called one is told.
#[derive(Debug)]
pub(super) struct Queue<C> {
    rules: Rules,
    entries: Slab<Entry<C>>,
    lines: Lines,
    /// Who comes again, by ticket.
    returned: List,
    returns: Chains<1, Return>,
    waiting: usize,
    /// How many of them [`Queue::call_repeatable`] may call.
    repeatable: usize,
    /// How many were called from a line.
    first_turns: u64,
    /// How many have joined.
    joined: u64,
}

/// One that comes again.
#[derive(Clone, Copy, Debug, Default)]
struct Return {
    ticket: Ticket,
    /// Who failed it.
    avoided: Option<BackendIndex>,
}

#[derive(Debug)]
struct Entry<C> {
    /// Where it waits; `None` for one that comes again.
    line: Option<LineIndex>,
    /// It has come for the first time, and may be sent again after it was sent.
    is_repeatable: bool,
    /// How many had joined before.
    joined: u64,
    state: State<C>,
}

#[derive(Debug)]
enum State<C> {
    Waiting(Option<Waker>),
    Called(C),
}

impl<C> Queue<C> {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            entries: Slab::new(),
            lines: Lines::new(rules.is_fair, rules.aging),
            returned: List::default(),
            returns: Chains::new(),
            waiting: 0,
            repeatable: 0,
            first_turns: 0,
            joined: 0,
        }
    }

    /// How many wait, not counting those already called.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many had their turn for the first time.
    pub(super) fn first_turns(&self) -> u64 {
        self.first_turns
    }

    pub(super) fn tally(&self) -> Tally {
        self.lines.tally()
    }

    /// How many are likely to be called before this guest, if it joined now and nobody came after it.
    pub(super) fn ahead_of(&self, guest: &Guest, now: Instant) -> Ahead {
        let mut ahead = self.lines.ahead_of(guest, now);
        ahead.by_urgency += self.returned.len();
        ahead
    }

    /// Whether this guest may join.
    pub(super) fn room_for(&self, guest: &Guest) -> Room {
        let Rules {
            size, size_per_key, ..
        } = self.rules;
        // Without keys the length of a line is no limit: then nobody looks for it.
        if self.rules.is_fair && self.lines.length_for(guest) >= size_per_key {
            return Room::Full;
        }
        if self.waiting < size {
            return Room::Free;
        }
        match self.lines.who_makes_room(guest) {
            Some(index) => Room::Of(Place(index)),
            None => Room::Full,
        }
    }

    /// Joins the line of its key and class.
    pub(super) fn join(&mut self, guest: &Guest) -> Place {
        let line = self.lines.join(self.entries.vacant_key(), guest);
        Place(self.insert(Some(line), guest.is_repeatable))
    }

    /// Joins once more, ahead of all who were not called yet.
    pub(super) fn rejoin(&mut self, ticket: Ticket, avoided: Option<BackendIndex>) -> Place {
        let before = self.last_returned_before(ticket);
        let index = self.insert(None, false);
        self.returns
            .insert_after::<0>(&mut self.returned, before, index);
        self.returns.set_note(index, Return { ticket, avoided });
        Place(index)
    }

    fn insert(&mut self, line: Option<LineIndex>, is_repeatable: bool) -> usize {
        self.waiting += 1;
        self.repeatable += usize::from(is_repeatable);
        self.joined += 1;
        self.entries.insert(Entry {
            line,
            is_repeatable,
            joined: self.joined,
            state: State::Waiting(None),
        })
    }

    fn last_returned_before(&self, ticket: Ticket) -> Option<usize> {
        let mut before = None;
        let mut next = self.returned.head();
        while let Some(index) = next.filter(|index| self.returns.note(*index).ticket < ticket) {
            before = Some(index);
            next = self.returns.next::<0>(index);
        }
        before
    }

    /// Calls whoever is next; see [`Queue::call`]. `now` decides who has waited for long, if that
    /// matters.
    pub(super) fn call_next(&mut self, call: C, now: Option<Instant>) -> Option<Waker> {
        let returned = self.returned.head();
        let index = returned.or_else(|| self.lines.next(now))?;
        self.call_in_turn(index, call)
    }

    /// The same, for a slot of this backend: nobody whom it failed. To be asked before:
    /// [`Queue::has_taker_for`].
    pub(super) fn call_next_for(
        &mut self,
        backend: BackendIndex,
        call: C,
        now: Option<Instant>,
    ) -> Option<Waker> {
        let willing = self.first_willing(backend);
        let index = willing.or_else(|| self.lines.next(now))?;
        self.call_in_turn(index, call)
    }

    /// Calls the one that has waited longest of those that come for the first time and may be sent again, out of
    /// its turn. A walk over all, which is rare: it is for the one trial of a backend that was out. `None`: there is
    /// none.
    pub(super) fn call_repeatable(&mut self, call: C) -> Option<Option<Waker>> {
        let repeatable = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_repeatable && matches!(entry.state, State::Waiting(_)));
        let (index, _) = repeatable.min_by_key(|(_, entry)| entry.joined)?;
        Some(self.call_in_turn(index, call))
    }

    /// Whether there is one that [`Queue::call_repeatable`] would call.
    pub(super) fn has_repeatable(&self) -> bool {
        self.repeatable > 0
    }

    fn call_in_turn(&mut self, index: usize, call: C) -> Option<Waker> {
        self.first_turns += u64::from(self.entries[index].line.is_some());
        self.call(Place(index), call)
    }

    /// Whether somebody waits whom this backend did not fail.
    pub(super) fn has_taker_for(&self, backend: BackendIndex) -> bool {
        self.waiting > self.returned.len() || self.has_returned_for(backend)
    }

    /// Whether one of those that come again does.
    pub(super) fn has_returned_for(&self, backend: BackendIndex) -> bool {
        self.first_willing(backend).is_some()
    }

    /// The first of those who come again that takes a slot of this backend.
    fn first_willing(&self, backend: BackendIndex) -> Option<usize> {
        let mut next = self.returned.head();
        while let Some(index) = next.filter(|index| self.avoids(*index, backend)) {
            next = self.returns.next::<0>(index);
        }
        next
    }

    fn avoids(&self, returned: usize, backend: BackendIndex) -> bool {
        self.returns.note(returned).avoided == Some(backend)
    }

    /// Calls one who waits: it leaves its line and finds `call` at its next look. Returns its waker, to
    /// be woken once the lock is released.
    pub(super) fn call(&mut self, Place(index): Place, call: C) -> Option<Waker> {
        self.step_out(index);
        match std::mem::replace(&mut self.entries[index].state, State::Called(call)) {
            State::Waiting(waker) => waker,
            State::Called(_) => None,
        }
    }

    /// What this entry was told, if it was called; else it is woken when it is.
    pub(super) fn look(&mut self, place: Place, waker: &Waker) -> Option<&C> {
        match &mut self.entries[place.0].state {
            State::Called(call) => Some(call),
            State::Waiting(known) => {
                match known {
                    Some(known) => known.clone_from(waker),
                    None => *known = Some(waker.clone()),
                }
                None
            }
        }
    }

    /// Ends an entry. Returns what it was told, if it had been called: whoever leaves without
    /// having used it must pass it on.
    pub(super) fn leave(&mut self, Place(index): Place) -> Option<C> {
        if matches!(self.entries[index].state, State::Waiting(_)) {
            self.step_out(index);
        }
        match self.entries.remove(index).state {
            State::Waiting(_) => None,
            State::Called(call) => Some(call),
        }
    }

    /// It waits no longer.
    fn step_out(&mut self, index: usize) {
        let entry = &self.entries[index];
        self.waiting -= 1;
        self.repeatable -= usize::from(entry.is_repeatable);
        match entry.line {
            Some(line) => self.lines.leave(index, line),
            None => self.returns.remove::<0>(&mut self.returned, index),
        }
    }

    /// How many entries there are, called ones included.
    #[cfg(test)]
    #[cfg(not(feature = "shuttle"))]
    pub(super) fn places(&self) -> usize {
        self.entries.len()
    }

    /// Panics when an invariant does not hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.lines.check();
        let entries = self.entries.iter().map(|(_, entry)| entry);
        let waiting = entries.filter(|entry| matches!(entry.state, State::Waiting(_)));
        let repeatable = waiting.filter(|entry| entry.is_repeatable).count();
        assert_eq!(self.repeatable, repeatable, "who may be sent again");
    }
}
