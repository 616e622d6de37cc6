//! Who gets which slot: chosen through the `LoadBalancer` for who comes, or handed to who waits.

use std::task::Waker;
use std::time::Instant;

use super::{BackendIndex, Call, Candidate, Slots};

impl Slots {
    /// Chooses an available backend through the `LoadBalancer` and takes one of its slots.
    pub(super) fn select(&mut self) -> Option<BackendIndex> {
        if self.available == 0 {
            return None;
        }
        // Whoever is offered is healthy (see `selection`): there is no need for a second offer.
        self.balancer.select_with(b"", 1, |_, healthy| healthy)?;
        let index = self.selection.offered();
        let account = &mut self.accounts[index.0];
        account.in_flight += 1;
        self.available -= usize::from(account.is_full());
        self.selection.update(&account.candidate(index));
        Some(index)
    }

    /// The same, but not of this backend.
    pub(super) fn select_but(&mut self, avoided: BackendIndex) -> Option<BackendIndex> {
        let account = &self.accounts[avoided.0];
        if account.is_full() || !account.is_eligible() {
            return self.select();
        }
        if self.available == 1 {
            return None;
        }
        // For the time of the choice it is full.
        let candidate = account.candidate(avoided);
        self.selection.update(&Candidate {
            has_room: false,
            ..candidate
        });
        let chosen = self.select();
        self.selection.update(&candidate);
        chosen
    }

    /// Chooses for somebody who waits.
    fn select_for_waiting(&mut self) -> Option<BackendIndex> {
        let index = self.select()?;
        if self.has_taker(index) {
            return Some(index);
        }
        // It has failed all of them, so any other will do.
        let other = self.select_but(index);
        self.put_back(index);
        other
    }

    /// Whether somebody waits for a slot of this backend: while it is not the only one left, nobody whom
    /// it failed.
    pub(super) fn has_taker(&self, index: BackendIndex) -> bool {
        let is_only_one = self.eligible <= 1;
        self.queue.waiting() > 0 && (is_only_one || self.queue.has_taker_for(index))
    }

    /// Hands a slot of this backend, which is taken already, to the next in line that takes it.
    pub(super) fn hand_over(&mut self, index: BackendIndex, now: Option<Instant>) -> Option<Waker> {
        let call = Call::Seated(index.into());
        match self.eligible {
            0 | 1 => self.queue.call_next(call, now),
            _ => self.queue.call_next_for(index, call, now),
        }
    }

    /// One slot less of an eligible backend is taken.
    pub(super) fn put_back(&mut self, index: BackendIndex) {
        let account = &mut self.accounts[index.0];
        self.available += usize::from(account.is_full());
        account.in_flight -= 1;
        self.selection.update(&account.candidate(index));
    }

    /// Derives what selection needs from the accounts, after their terms or eligibility changed.
    pub(super) fn refresh(&mut self) {
        let accounts = self.accounts.iter().enumerate();
        let candidates: Vec<_> = accounts
            .filter(|(_, account)| account.is_eligible())
            .map(|(index, account)| account.candidate(BackendIndex(index)))
            .collect();
        let available = candidates.iter().filter(|candidate| candidate.has_room);
        self.available = available.count();
        let slots = |candidate: &Candidate| {
            let BackendIndex(index) = candidate.index;
            u64::from(self.accounts[index].terms.max_in_flight)
        };
        self.eligible = candidates.len();
        let admitted = self.accounts.iter().filter(|one| one.terms.admitted);
        self.ejected = admitted.count() - self.eligible;
        self.eligible_slots = candidates.iter().map(slots).sum();
        self.count_trials();
        self.selection.replace(&candidates);
    }

    /// Hands free slots to those who wait, until one or the other runs out.
    pub(super) fn hand_out(&mut self, now: Instant) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while self.queue.waiting() > 0 {
            let Some(index) = self.select_for_waiting() else {
                break;
            };
            wakers.extend(self.hand_over(index, Some(now)));
        }
        while let Some(waker) = self.offer_trial(Some(now)) {
            wakers.extend(waker);
        }
        wakers
    }
}
