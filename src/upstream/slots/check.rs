//! What must hold whatever has happened.

use super::{Account, BackendIndex, Slots};

impl Slots {
    /// How many wait, or were called and have not taken note.
    #[cfg(not(feature = "shuttle"))]
    pub(in super::super) fn places(&self) -> usize {
        self.queue.places()
    }

    /// Panics when an invariant does not hold. That nobody has more in flight than slots is for who
    /// knows when they were lowered.
    pub(in super::super) fn check(&self) {
        self.queue.check();
        let available = self
            .accounts
            .iter()
            .filter(|account| account.is_eligible() && !account.is_full())
            .count();
        assert_eq!(self.available, available, "available backends");
        let ineligible = self.first_ineligible(usize::MAX).len();
        assert_eq!(
            self.eligible,
            self.accounts.len() - ineligible,
            "eligible backends"
        );
        let mut accounts = self.accounts.iter().enumerate();
        let is_wanted = |(index, account): (usize, &Account)| {
            let is_free = account.is_eligible() && !account.is_full();
            is_free && self.has_taker(BackendIndex(index))
        };
        assert!(
            self.queue.waiting() == 0 || !accounts.any(is_wanted),
            "somebody waits while a slot is free"
        );
        let mut accounts = self.accounts.iter().enumerate();
        let is_wanted = |(index, account): (usize, &Account)| {
            let is_taken = self.queue.has_repeatable() || self.has_other_taker(index, account);
            account.wants_trial() && is_taken
        };
        assert!(
            self.queue.waiting() == 0 || !accounts.any(is_wanted),
            "somebody waits who may be a trial"
        );
        for account in &self.accounts {
            assert!(account.abandoned <= account.in_flight, "abandoned");
        }
    }
}
