//! Slots and the queue of one upstream, behind one short lock: who may send now, who waits, and who
//! is handed the slot that just became free.
//!
//! A backend is *admitted* when the `LoadBalancer`'s health check lets it serve, *eligible* when it is
//! admitted and not ejected, and *available* when it is eligible and has a free slot.
//!
//! Invariants, checked by [`Slots::check`] in the tests:
//! - somebody waits only while nobody is available, or only the backend that failed it: a slot that becomes free is *handed* to the
//!   head of the queue under the same lock, so a newcomer can never overtake;
//! - nobody waits who may be the trial of a backend that is to have one: it goes to whoever comes first;
//! - no backend has more in flight than slots, unless its slots were lowered meanwhile;
//! - wakers are returned, not woken: the lock is never held while other code runs.

#[cfg(test)]
mod check;
mod choice;
mod circuits;

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use pingora_load_balancing::LoadBalancer;

use super::account::{Account, Terms};
use super::queue::{Ahead, Place, Queue, Room, Rules, Tally, Ticket};
use super::selection::{Candidate, Selection, Selector};
use super::survey::{Counts, Finding, Survey};
use super::{Ask, BackendIndex, Guest, Refusal};
use crate::health::Ruling;
use crate::policy::outlier::Takers;

/// A slot of a backend that is a request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) index: BackendIndex,
    /// What becomes of this request decides whether the backend is back: the number of the trial.
    pub(super) trial: Option<u32>,
}

impl From<BackendIndex> for Seat {
    fn from(index: BackendIndex) -> Self {
        Self { index, trial: None }
    }
}

/// What a waiting request is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// A slot of a backend is the request's: it is taken already.
    Seated(Seat),
    /// It need not wait any longer.
    Refused(Refusal),
}

/// What becomes of a request that asks for a slot.
pub(super) enum Arrival {
    Seated(Seat),
    /// Somebody with less of a claim may have had to go for it, and is to be woken.
    Waiting(Place, Option<Waker>),
    Refused(Refusal),
}

/// What a ruling comes to for every backend, ready to be put in force.
pub(super) struct Edition {
    pub(super) ruling: Arc<Ruling>,
    /// Checked by `ruling`.
    pub(super) balancer: LoadBalancer<Selector>,
    /// By backend index.
    pub(super) terms: Vec<Terms>,
}

/// What putting an edition in force came to.
pub(super) struct Published {
    /// The edition that was in force, to be dropped outside the lock.
    pub(super) replaced: Edition,
    pub(super) wakers: Vec<Waker>,
}

/// Slots and queue of one upstream. Live: carried across health changes.
pub(super) struct Slots {
    accounts: Vec<Account>,
    balancer: LoadBalancer<Selector>,
    /// What `balancer` was checked by.
    ruling: Arc<Ruling>,
    selection: Arc<Selection>,
    queue: Queue<Call>,
    next_ticket: u64,
    /// How many requests had a slot without waiting when they came for the first time.
    seated_at_once: u64,
    /// How many backends are available.
    available: usize,
    /// How many are admitted, and ejected; how many of those are to have a trial.
    ejected: usize,
    trials: usize,
    /// How many are eligible, and the slots of all of them, taken or not.
    eligible: usize,
    eligible_slots: u64,
    closed: bool,
    /// When no backend was seen to be well last.
    nobody_well: Option<Duration>,
    /// The times of circuits count from here.
    made: Instant,
}

impl Slots {
    /// Nobody is eligible until the first [`Slots::publish`].
    pub(super) fn new(
        edition: Edition,
        selection: Arc<Selection>,
        rules: Rules,
        now: Instant,
    ) -> Self {
        let terms = edition.terms.into_iter();
        Self {
            accounts: terms.map(|terms| Account::new(terms, now)).collect(),
            balancer: edition.balancer,
            ruling: edition.ruling,
            selection,
            queue: Queue::new(rules),
            next_ticket: 0,
            seated_at_once: 0,
            available: 0,
            eligible: 0,
            ejected: 0,
            trials: 0,
            eligible_slots: 0,
            closed: false,
            nobody_well: None,
            made: now,
        }
    }

    pub(super) fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// What is in force.
    pub(super) fn ruling(&self) -> &Arc<Ruling> {
        &self.ruling
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// How many requests were given a slot, each counted once.
    pub(super) fn requests(&self) -> u64 {
        self.seated_at_once + self.queue.first_turns()
    }

    /// Who waits.
    pub(super) fn tally(&self) -> Tally {
        self.queue.tally()
    }

    /// How many are likely to go before this guest, if it came now.
    pub(super) fn ahead_of(&self, guest: &Guest, now: Instant) -> Ahead {
        self.queue.ahead_of(guest, now)
    }

    /// How many requests eligible backends can serve at once.
    pub(super) fn eligible_slots(&self) -> u64 {
        self.eligible_slots
    }

    /// The first of those that are not eligible, `most` at the most. Costs nothing while all are.
    pub(super) fn first_ineligible(&self, most: usize) -> Vec<(usize, Account)> {
        let ineligible = self.accounts.len() - self.eligible;
        let accounts = self.accounts.iter().copied().enumerate();
        let found = accounts.filter(|(_, account)| !account.is_eligible());
        found.take(most.min(ineligible)).collect()
    }

    /// Whether a request that this backend failed may have a slot of another one, or its trial.
    pub(super) fn has_another(&self, index: BackendIndex) -> bool {
        let mut accounts = self.accounts.iter().enumerate();
        accounts.any(|(other, account)| {
            let takes_it = account.wants_trial() && self.takers_of(account) >= Takers::Retries;
            other != index.0 && (account.is_eligible() || takes_it)
        })
    }

    /// Whether a backend other than this one is eligible.
    pub(super) fn is_other_eligible(&self, index: BackendIndex) -> bool {
        let mut accounts = self.accounts.iter().enumerate();
        accounts.any(|(other, account)| other != index.0 && account.is_eligible())
    }

    /// A request asks for a slot. It is given a ticket the first time.
    pub(super) fn arrive(&mut self, ask: Ask) -> (Ticket, Arrival) {
        let ticket = match ask {
            Ask::First(_) => self.issue_ticket(),
            Ask::Again(ticket, _) => ticket,
        };
        (ticket, self.admit(ask))
    }

    /// As [`Slots::arrive`], and notes what there was to choose from.
    pub(super) fn arrive_noting(
        &mut self,
        ask: Ask,
        survey: &mut Survey,
        now: Instant,
    ) -> (Ticket, Arrival) {
        let (waiting, age) = (self.queue.waiting(), self.age(now));
        *survey = Survey::of(&self.accounts, self.counts(), waiting, age);
        let decided = self.arrive(ask);
        if let Arrival::Seated(seat) = decided.1 {
            survey.chosen = Finding::of(&self.accounts[seat.index.0], age);
            // As it was before this request had a slot of it.
            survey.chosen.in_flight -= 1;
            if seat.trial.is_none() {
                survey.chosen.condition = "free";
            }
        }
        decided
    }

    fn counts(&self) -> Counts {
        let kept_out = self.accounts.len() - self.eligible - self.ejected;
        Counts {
            free: self.available as u32,
            full: (self.eligible - self.available) as u32,
            ejected: self.ejected as u32,
            kept_out: kept_out as u32,
        }
    }

    fn issue_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn admit(&mut self, ask: Ask) -> Arrival {
        if self.closed {
            return Arrival::Refused(Refusal::Stopping);
        }
        if self.trials > 0
            && let Some(seat) = self.seat_on_trial(&ask)
        {
            self.seated_at_once += u64::from(matches!(ask, Ask::First(_)));
            return Arrival::Seated(seat);
        }
        let seated = match ask {
            Ask::Again(_, Some(avoided)) if self.eligible > 1 => self.select_but(avoided),
            _ => self.select(),
        };
        if let Some(index) = seated {
            self.seated_at_once += u64::from(matches!(ask, Ask::First(_)));
            return Arrival::Seated(index.into());
        }
        if !self.is_anyone_admitted() {
            return Arrival::Refused(Refusal::NoneEligible);
        }
        match ask {
            Ask::First(guest) => self.let_wait(&guest),
            // It was let in before: it is not turned away in the middle.
            Ask::Again(ticket, avoided) => {
                Arrival::Waiting(self.queue.rejoin(ticket, avoided), None)
            }
        }
    }

    fn let_wait(&mut self, guest: &Guest) -> Arrival {
        let displaced = match self.queue.room_for(guest) {
            Room::Free => None,
            Room::Of(place) => self.queue.call(place, Call::Refused(Refusal::QueueFull)),
            Room::Full => return Arrival::Refused(Refusal::QueueFull),
        };
        Arrival::Waiting(self.queue.join(guest), displaced)
    }

    /// What a waiting request was told, if it was; else `waker` is woken when it is.
    pub(super) fn look(&mut self, place: Place, waker: &Waker) -> Option<Call> {
        self.queue.look(place, waker).copied()
    }

    /// A request that was told, and has taken note.
    pub(super) fn settle(&mut self, place: Place) {
        self.queue.leave(place);
    }

    /// A waiting request goes away. If a slot was handed to it meanwhile, the next in line gets it.
    pub(super) fn leave(&mut self, place: Place, now: Option<Instant>) -> Option<Waker> {
        match self.queue.leave(place) {
            Some(Call::Seated(seat)) => self.pass_on(seat, now),
            Some(Call::Refused(_)) | None => None,
        }
    }

    /// A slot that nobody used.
    fn pass_on(&mut self, seat: Seat, now: Option<Instant>) -> Option<Waker> {
        if let Some(trial) = seat.trial {
            self.trial_undecided(seat.index, trial);
        }
        self.release(seat.index, now)
    }

    /// Gives a slot back: to the next in line, if this backend may still be chosen. Only where requests
    /// age does anybody need to know what time it is ([`Rules`]).
    pub(super) fn release(&mut self, index: BackendIndex, now: Option<Instant>) -> Option<Waker> {
        let account = &self.accounts[index.0];
        // Slots may have been lowered meanwhile.
        let is_free = account.in_flight <= account.terms.max_in_flight && account.is_eligible();
        if is_free && self.has_taker(index) {
            return self.hand_over(index, now);
        }
        if is_free {
            self.put_back(index);
            return None;
        }
        self.accounts[index.0].in_flight -= 1;
        if !self.accounts[index.0].circuit.is_on_probation() {
            return None;
        }
        // There may be room for a trial where there was none.
        self.count_trials();
        self.offer_trial(now).flatten()
    }

    /// Counts a slot among the abandoned ones; it stays taken until [`Slots::release`].
    pub(super) fn abandon(&mut self, index: BackendIndex) {
        self.accounts[index.0].abandoned += 1;
    }

    /// Gives an abandoned slot back.
    pub(super) fn release_abandoned(
        &mut self,
        index: BackendIndex,
        now: Option<Instant>,
    ) -> Option<Waker> {
        self.accounts[index.0].abandoned -= 1;
        self.release(index, now)
    }

    /// Puts an edition in force. Those who wait are handed the slots that it opens, or refused when it
    /// leaves nobody; lowered slots evict nobody. Who is admitted anew is ejected no more.
    pub(super) fn publish(&mut self, mut edition: Edition, now: Instant) -> Published {
        let age = self.age(now);
        for (account, terms) in self.accounts.iter_mut().zip(&mut edition.terms) {
            let was_eligible = account.is_eligible();
            if terms.admitted && !account.terms.admitted {
                account.circuit.close(age);
            }
            std::mem::swap(&mut account.terms, terms);
            account.note_change(was_eligible, now);
        }
        let replaced = Edition {
            ruling: std::mem::replace(&mut self.ruling, edition.ruling),
            balancer: std::mem::replace(&mut self.balancer, edition.balancer),
            terms: edition.terms,
        };
        self.refresh();
        let wakers = if self.is_anyone_admitted() {
            self.hand_out(now)
        } else {
            self.refuse_all(Refusal::NoneEligible)
        };
        Published { replaced, wakers }
    }

    fn is_anyone_admitted(&self) -> bool {
        self.accounts.iter().any(|account| account.terms.admitted)
    }

    /// Nobody is let in or waits any longer: the process stops.
    pub(super) fn close(&mut self) -> Vec<Waker> {
        self.closed = true;
        self.refuse_all(Refusal::Stopping)
    }

    fn refuse_all(&mut self, refusal: Refusal) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while self.queue.waiting() > 0 {
            wakers.extend(self.queue.call_next(Call::Refused(refusal), None));
        }
        wakers
    }
}
