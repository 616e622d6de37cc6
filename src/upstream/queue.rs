//! Who waits for a slot, first in, first out by ticket. A plain data structure: the slots lock it.
//!
//! A doubly linked list through a slab: joining at the back, leaving from anywhere and calling the
//! head cost the same at 10 and at 10,000 waiting. A retried request keeps its ticket and goes in
//! by it: the walk from the head passes only other retried requests, which are at most as many as
//! there are slots.
//!
//! Invariant: the list is sorted by ticket, strictly ascending, and holds exactly the entries that
//! were not called yet. An entry stays in the slab until its owner leaves: keys are not reused
//! under anyone's feet.

use std::task::Waker;

use slab::Slab;

/// A request's place in time: lower goes first. Kept through its retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// Names an entry until [`Queue::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

/// The waiting requests; `C` is what a called one is told.
#[derive(Debug)]
pub(super) struct Queue<C> {
    entries: Slab<Entry<C>>,
    head: Option<usize>,
    tail: Option<usize>,
    waiting: usize,
}

#[derive(Debug)]
struct Entry<C> {
    ticket: Ticket,
    state: State<C>,
    previous: Option<usize>,
    next: Option<usize>,
}

#[derive(Debug)]
enum State<C> {
    Waiting(Option<Waker>),
    Called(C),
}

impl<C> Queue<C> {
    pub(super) fn new() -> Self {
        Self {
            entries: Slab::new(),
            head: None,
            tail: None,
            waiting: 0,
        }
    }

    /// How many wait, not counting those already called.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Joins behind every lower ticket.
    pub(super) fn join(&mut self, ticket: Ticket) -> Place {
        let before = self.last_before(ticket);
        let after = match before {
            Some(key) => self.entries[key].next,
            None => self.head,
        };
        let key = self.entries.insert(Entry {
            ticket,
            state: State::Waiting(None),
            previous: before,
            next: after,
        });
        self.link(before, Some(key));
        self.link(Some(key), after);
        self.waiting += 1;
        Place(key)
    }

    /// Calls the head: it leaves the list and finds `call` at its next look. Returns its waker, to
    /// be woken once the lock is released.
    pub(super) fn call_head(&mut self, call: C) -> Option<Waker> {
        let key = self.head?;
        self.unlink(key);
        match std::mem::replace(&mut self.entries[key].state, State::Called(call)) {
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
    pub(super) fn leave(&mut self, place: Place) -> Option<C> {
        if matches!(self.entries[place.0].state, State::Waiting(_)) {
            self.unlink(place.0);
        }
        match self.entries.remove(place.0).state {
            State::Waiting(_) => None,
            State::Called(call) => Some(call),
        }
    }

    /// The last entry whose ticket is lower than `ticket`. A new ticket is above all others.
    fn last_before(&self, ticket: Ticket) -> Option<usize> {
        if self
            .tail
            .is_some_and(|tail| self.entries[tail].ticket < ticket)
        {
            return self.tail;
        }
        let mut before = None;
        let mut next = self.head;
        while let Some(key) = next.filter(|key| self.entries[*key].ticket < ticket) {
            before = Some(key);
            next = self.entries[key].next;
        }
        before
    }

    fn unlink(&mut self, key: usize) {
        let (previous, next) = (self.entries[key].previous, self.entries[key].next);
        self.link(previous, next);
        self.waiting -= 1;
    }

    /// Makes `left` and `right` neighbours; `None` is the end of the list.
    fn link(&mut self, left: Option<usize>, right: Option<usize>) {
        match left {
            Some(key) => self.entries[key].next = right,
            None => self.head = right,
        }
        match right {
            Some(key) => self.entries[key].previous = left,
            None => self.tail = left,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_lower_ticket_goes_ahead_of_those_who_came_after_it() {
        let mut queue = Queue::new();
        let late = queue.join(Ticket(7));
        let retried = queue.join(Ticket(3));
        queue.call_head("first");
        assert_eq!(queue.leave(late), None);
        assert_eq!(queue.leave(retried), Some("first"));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join,
        Rejoin(usize),
        Leave(usize),
        Call,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Join),
            1 => any::<usize>().prop_map(Step::Rejoin),
            2 => any::<usize>().prop_map(Step::Leave),
            2 => Just(Step::Call),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// The reference is a sorted map from ticket to (place, called).
        #[test]
        fn behaves_as_a_sorted_map(steps in steps()) {
            let mut queue = Queue::new();
            let mut model: BTreeMap<u64, (Place, bool)> = BTreeMap::new();
            let mut retired: Vec<u64> = Vec::new();
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Join => {
                        model.insert(next, (queue.join(Ticket(next)), false));
                        next += 1;
                    }
                    Step::Rejoin(pick) if !retired.is_empty() => {
                        let ticket = retired.swap_remove(pick % retired.len());
                        model.insert(ticket, (queue.join(Ticket(ticket)), false));
                    }
                    Step::Leave(pick) if !model.is_empty() => {
                        let ticket = *model.keys().nth(pick % model.len()).unwrap();
                        let (place, called) = model.remove(&ticket).unwrap();
                        prop_assert_eq!(queue.leave(place), called.then_some(ticket));
                        retired.push(ticket);
                    }
                    Step::Call => {
                        let head = model.iter_mut().find(|(_, (_, called))| !called);
                        match head {
                            Some((ticket, (_, called))) => {
                                *called = true;
                                queue.call_head(*ticket);
                            }
                            None => prop_assert_eq!(queue.waiting(), 0),
                        }
                    }
                    Step::Rejoin(_) | Step::Leave(_) => {}
                }
                let waiting = model.values().filter(|(_, called)| !called).count();
                prop_assert_eq!(queue.waiting(), waiting);
            }
        }
    }
}
