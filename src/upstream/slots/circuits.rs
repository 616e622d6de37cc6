//! Who is ejected, and who is its trial. A backend that comes on probation is to have one request, which is handed to
//! one who waits, or given to the next that comes.

use std::task::Waker;
use std::time::{Duration, Instant};

use super::{Account, Ask, BackendIndex, Call, Seat, Slots};
use crate::policy::backoff::STEP;
use crate::policy::outlier::{Cause, Ejection, OutlierParams, Takers, Tending};

impl Slots {
    /// Takes a backend out, for `wanted_rest` at the least; `None` if it was out already, or too many are.
    /// Who waited for another than the one that is left now need not wait for it any longer.
    pub(in super::super) fn eject(
        &mut self,
        index: BackendIndex,
        params: &OutlierParams,
        (cause, wanted_rest): (Cause, Duration),
        now: Instant,
    ) -> Option<(Ejection, Vec<Waker>)> {
        // Who refuses or breaks off is done with each request at once, looks like the emptiest backend and would swallow
        // everything: no limit keeps it in.
        let may_eject = match cause {
            // The last one that is left may serve some.
            Cause::BrokenOff => self.is_other_eligible(index),
            cause => cause.is_refusal() || self.may_eject(index, params),
        };
        if !may_eject {
            return None;
        }
        let age = self.age(now);
        let has_company = self.has_company(age);
        self.change(index, now, |account| {
            let ejection = account.circuit.eject(params, cause, wanted_rest, age)?;
            if has_company {
                account.circuit.note_company();
            }
            Some(ejection)
        })
    }

    /// Whether nobody was well a moment ago.
    fn has_company(&self, age: Duration) -> bool {
        let is_recent = |seen: Duration| age.saturating_sub(seen) <= 2 * STEP;
        self.nobody_well.is_some_and(is_recent)
    }

    fn may_eject(&self, index: BackendIndex, params: &OutlierParams) -> bool {
        let account = &self.accounts[index.0];
        account.is_eligible() && params.may_eject(self.eligible + self.ejected, self.ejected)
    }

    /// Takes back in a backend that is out by this ejection, if it is; one that was ejected anew since stays out.
    pub(in super::super) fn reinstate(
        &mut self,
        index: BackendIndex,
        ejection: u32,
        now: Instant,
    ) -> Option<Vec<Waker>> {
        let age = self.age(now);
        let reinstated = self.change(index, now, |account| {
            account.circuit.reinstate(ejection, age).then_some(())
        });
        reinstated.map(|((), wakers)| wakers)
    }

    /// Looks after a backend that is out by this ejection, and hands out its trial when that is due. `fails`: whether
    /// an eligible backend does.
    pub(in super::super) fn tend(
        &mut self,
        index: BackendIndex,
        params: &OutlierParams,
        ejection: u32,
        fails: impl Fn(usize, bool) -> bool,
        now: Instant,
    ) -> (Tending, Option<Waker>) {
        let is_other_well = self.is_anyone_well(fails);
        let age = self.age(now);
        if !is_other_well {
            self.nobody_well = Some(age);
        }
        let circuit = &mut self.accounts[index.0].circuit;
        let before = (circuit.wants_trial(), circuit.takers());
        let tending = circuit.tend(params, ejection, is_other_well, age);
        if before == (circuit.wants_trial(), circuit.takers()) {
            return (tending, None);
        }
        self.count_trials();
        (tending, self.offer_trial(Some(now)).flatten())
    }

    /// An eligible backend has begun to err. If all of them do, one of those that rest is tried now, the one that has
    /// rested longest: it may be well long since, and there is nobody else to serve what fails meanwhile.
    pub(in super::super) fn hurry(
        &mut self,
        errs: impl Fn(usize) -> bool,
        now: Instant,
    ) -> Option<Waker> {
        if self.ejected == 0 || self.is_anyone_well(|index, _| errs(index)) {
            return None;
        }
        let age = self.age(now);
        let accounts = self.accounts.iter_mut();
        let resting = accounts.filter(|account| {
            let has_room = account.terms.admitted && !account.is_full();
            has_room && account.circuit.may_be_hurried(age)
        });
        let longest = resting.min_by_key(|account| account.circuit.ejection().map(|it| it.since));
        longest?.circuit.hurry(age);
        self.count_trials();
        self.offer_trial(Some(now)).flatten()
    }

    /// Whether an eligible backend does not fail; `fails` is told, too, whether all slots are held by requests that were
    /// given up on.
    pub(in super::super) fn is_anyone_well(&self, fails: impl Fn(usize, bool) -> bool) -> bool {
        let mut accounts = self.accounts.iter().enumerate();
        accounts.any(|(index, account)| account.is_eligible() && !fails(index, account.is_held()))
    }

    /// It was ejected for errors, and is found to refuse connections. Says whether it is out by that still.
    pub(in super::super) fn refuses(
        &mut self,
        index: BackendIndex,
        ejection: u32,
        cause: Cause,
    ) -> bool {
        self.accounts[index.0].circuit.refuses(ejection, cause)
    }

    /// The trial was answered; `None` if it is none any more.
    pub(in super::super) fn trial_went_well(
        &mut self,
        index: BackendIndex,
        trial: u32,
        now: Instant,
    ) -> Option<Vec<Waker>> {
        let age = self.age(now);
        let reinstated = self.change(index, now, |account| {
            account.circuit.trial_went_well(trial, age).then_some(())
        });
        reinstated.map(|((), wakers)| wakers)
    }

    /// The trial failed; `None` if it is none any more. Says whether it rests longer than was known, which one that was
    /// tried early does not.
    pub(in super::super) fn trial_failed(
        &mut self,
        index: BackendIndex,
        params: &OutlierParams,
        (trial, wanted_rest): (u32, Duration),
        now: Instant,
    ) -> Option<(Ejection, bool)> {
        let age = self.age(now);
        let has_company = self.has_company(age);
        let circuit = &mut self.accounts[index.0].circuit;
        let before = circuit.ejection()?;
        let ejection = circuit.trial_failed(params, trial, wanted_rest, age)?;
        if has_company {
            circuit.note_company();
        }
        self.count_trials();
        Some((ejection, ejection.until != before.until))
    }

    /// The trial came to nothing: another may have it once its slot was given back, which comes next.
    pub(in super::super) fn trial_undecided(&mut self, index: BackendIndex, trial: u32) {
        self.accounts[index.0].circuit.trial_undecided(trial);
    }

    fn change<T>(
        &mut self,
        index: BackendIndex,
        now: Instant,
        change: impl FnOnce(&mut Account) -> Option<T>,
    ) -> Option<(T, Vec<Waker>)> {
        let account = &mut self.accounts[index.0];
        let was_eligible = account.is_eligible();
        let changed = change(account)?;
        account.note_change(was_eligible, now);
        self.refresh();
        Some((changed, self.hand_out(now)))
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.made)
    }

    pub(super) fn count_trials(&mut self) {
        let accounts = self.accounts.iter();
        self.trials = accounts.filter(|account| account.wants_trial()).count();
    }

    /// Gives a trial to a request that comes, if it may have one.
    pub(super) fn seat_on_trial(&mut self, ask: &Ask) -> Option<Seat> {
        let is_fit = |index, takers| match ask {
            Ask::First(guest) => guest.is_repeatable || takers == Takers::Anyone,
            // There is nobody else.
            Ask::Again(..) if self.eligible == 0 => true,
            Ask::Again(_, avoided) => {
                takers >= Takers::Retries && *avoided != Some(BackendIndex(index))
            }
        };
        let mut accounts = self.accounts.iter().enumerate();
        let index = accounts.position(|(index, account)| {
            account.wants_trial() && is_fit(index, self.takers_of(account))
        })?;
        self.begin_trial(BackendIndex(index))
    }

    fn begin_trial(&mut self, index: BackendIndex) -> Option<Seat> {
        let account = &mut self.accounts[index.0];
        let trial = account.circuit.begin_trial();
        account.in_flight += u32::from(trial.is_some());
        self.count_trials();
        trial.map(|_| Seat { index, trial })
    }

    /// Gives a trial to one who waits; `None`: there is none to be had, or nobody may have it. Who comes for the
    /// first time goes before those who have spent some of their attempts.
    pub(super) fn offer_trial(&mut self, now: Option<Instant>) -> Option<Option<Waker>> {
        if self.trials == 0 || self.queue.waiting() == 0 {
            return None;
        }
        let is_repeatable = self.queue.has_repeatable();
        let mut accounts = self.accounts.iter().enumerate();
        let is_wanted = |(index, account): (usize, &Account)| {
            account.wants_trial() && (is_repeatable || self.has_other_taker(index, account))
        };
        let index = BackendIndex(accounts.position(is_wanted)?);
        let call = Call::Seated(self.begin_trial(index)?);
        if is_repeatable {
            return self.queue.call_repeatable(call);
        }
        Some(match self.eligible {
            0 => self.queue.call_next(call, now),
            _ => self.queue.call_next_for(index, call, now),
        })
    }

    /// Whether somebody waits who may have this backend's trial although it has come before, or may not be repeated.
    pub(super) fn has_other_taker(&self, index: usize, account: &Account) -> bool {
        let index = BackendIndex(index);
        match self.takers_of(account) {
            _ if self.eligible == 0 => true,
            Takers::None => false,
            Takers::Retries => self.queue.has_returned_for(index),
            Takers::Anyone => self.queue.has_taker_for(index),
        }
    }

    /// Whose its trial may be: anybody's while there is nobody else.
    pub(super) fn takers_of(&self, account: &Account) -> Takers {
        match self.eligible {
            0 => Takers::Anyone,
            _ => account.circuit.takers(),
        }
    }
}
