//! Where one backend stands, and what becomes of it.

use std::time::Duration;

use super::{Cause, OutlierParams};
use crate::policy::backoff::{self, STEP};

/// One ejection of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Which one; greater than those before.
    pub number: u32,
    /// What for.
    pub cause: Cause,
    /// Since when the backend rests.
    pub since: Duration,
    /// Until when; `None`: until it accepts a connection.
    pub until: Option<Duration>,
}

/// Where a backend stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open(Ejection),
    Probation {
        ejection: Ejection,
        since: Duration,
        /// How many trials there were before: later numbers belong to this probation.
        before: u32,
        /// The latest trial, while it keeps others from being one.
        trial: Option<Trial>,
        takers: Takers,
    },
}

/// Whose request may be the trial, beside those that come for the first time and may be sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Takers {
    /// Nobody's.
    #[default]
    None,
    /// One that is sent again: whoever else is there fails, too.
    Retries,
    /// One that can't be sent again, too: others have not come for long, or would be failed elsewhere.
    Anyone,
}

impl Takers {
    /// Whether a better one may come, and fares better elsewhere until then.
    fn of(may_wait: bool) -> Self {
        if may_wait { Self::None } else { Self::Anyone }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trial {
    number: u32,
    /// When it was first seen under way.
    seen: Option<Duration>,
}

/// Whether one backend may have requests, and why not.
#[derive(Clone, Copy, Debug)]
pub struct Circuit {
    state: State,
    /// How many rests it has had that are not forgotten; of the longest ones, the first.
    streak: u32,
    /// When it was closed last.
    well_since: Duration,
    /// All others were seen to fail while it was out: it is no outlier, and may be well as soon as they are.
    has_company: bool,
    /// How often it was tried early since they are well.
    early_trials: u32,
    /// How many ejections and trials there were.
    ejections: u32,
    trials: u32,
}

/// What is to be done about a backend that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tending {
    /// Nothing: it is back, or was ejected anew, which is somebody else's care.
    Over,
    /// To look again after so long; it may be on probation now.
    Look(Duration),
}

impl Circuit {
    /// Of a backend of which nothing bad is known.
    pub fn closed(now: Duration) -> Self {
        Self {
            state: State::Closed,
            streak: 0,
            well_since: now,
            has_company: false,
            early_trials: 0,
            ejections: 0,
            trials: 0,
        }
    }

    /// It may have requests as all others.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The ejection that it is out by.
    pub fn ejection(&self) -> Option<Ejection> {
        match self.state {
            State::Closed => None,
            State::Open(ejection) | State::Probation { ejection, .. } => Some(ejection),
        }
    }

    /// It may have one request.
    pub fn is_on_probation(&self) -> bool {
        matches!(self.state, State::Probation { .. })
    }

    /// It may have one request, and has none.
    pub fn wants_trial(&self) -> bool {
        matches!(self.state, State::Probation { trial: None, .. })
    }

    /// Whose its trial may be; nobody's where it is not on probation.
    pub fn takers(&self) -> Takers {
        match self.state {
            State::Probation { takers, .. } => takers,
            State::Closed | State::Open(_) => Takers::None,
        }
    }

    /// Takes it out, for `wanted_rest` at the least where it rests at all. A refused connection is news even of one that
    /// is out for its errors: there is nobody to have a rest. (One that is not answered in time may be a lost packet.)
    /// `None`: it is out already.
    pub fn eject(
        &mut self,
        params: &OutlierParams,
        cause: Cause,
        wanted_rest: Duration,
        now: Duration,
    ) -> Option<Ejection> {
        let is_news = match self.ejection() {
            None => true,
            Some(ejection) => cause == Cause::ConnectionRefused && ejection.until.is_some(),
        };
        if !is_news {
            return None;
        }
        self.ejections += 1;
        let until = match cause.is_refusal() {
            true => None,
            false => {
                self.forget_rests(params, now);
                Some(self.rest_until(params, wanted_rest, now))
            }
        };
        Some(self.open(cause, until, now))
    }

    /// Each after as long in good health: so a backend that fails from time to time rests about as long as it served.
    fn forget_rests(&mut self, params: &OutlierParams, now: Duration) {
        let mut well = now.saturating_sub(self.well_since);
        while let Some(last) = self.last_rest(params)
            && let Some(left) = well.checked_sub(last)
        {
            well = left;
            self.streak -= 1;
        }
    }

    /// The last one that is not forgotten.
    fn last_rest(&self, params: &OutlierParams) -> Option<Duration> {
        Some(params.rest(self.streak.checked_sub(1)?))
    }

    fn rest_until(
        &mut self,
        params: &OutlierParams,
        wanted_rest: Duration,
        now: Duration,
    ) -> Duration {
        let rest = params.rest(self.streak);
        if self.last_rest(params) != Some(params.max_ejection) {
            self.streak += 1;
        }
        now + rest.max(wanted_rest.min(params.max_ejection))
    }

    fn open(&mut self, cause: Cause, until: Option<Duration>, now: Duration) -> Ejection {
        let ejection = Ejection {
            number: self.ejections,
            cause,
            since: now,
            until,
        };
        self.state = State::Open(ejection);
        ejection
    }

    /// What looked like errors was a process that is gone: it comes back with the first connection that it accepts.
    /// Says whether that is so still.
    pub fn refuses(&mut self, number: u32, cause: Cause) -> bool {
        match &mut self.state {
            State::Open(ejection) if ejection.number == number => {
                ejection.cause = cause;
                ejection.until = None;
                self.streak = self.streak.saturating_sub(1);
                true
            }
            _ => false,
        }
    }

    /// Time has passed since this ejection. While nobody else is well (nobody else may have requests, so that clients
    /// wait for exactly this backend, or all others fail them as well), every short step is a trial; once somebody is
    /// again, trials come less and less often, until the rest is over. Beside one that takes longer than any backend may
    /// to begin an answer (its client is slow to send it, or the answer is long) there may be another.
    pub fn tend(
        &mut self,
        params: &OutlierParams,
        number: u32,
        is_other_well: bool,
        now: Duration,
    ) -> Tending {
        match &mut self.state {
            State::Open(ejection) if ejection.number == number => {
                let ejection = *ejection;
                let Some(until) = ejection.until else {
                    return Tending::Over;
                };
                let left = until.saturating_sub(now);
                let rested = now.saturating_sub(ejection.since);
                if left.is_zero() || self.is_tried_early(rested, is_other_well) {
                    self.put_on_probation(ejection, Takers::of(is_other_well), now);
                    return Tending::Look(STEP.min(params.base_ejection));
                }
                Tending::Look(left.min(STEP))
            }
            State::Probation {
                ejection,
                since,
                before,
                trial,
                takers,
            } if ejection.number == number => {
                if let Some(Trial { seen, .. }) = trial
                    && now.saturating_sub(*seen.get_or_insert(now)) >= params.longest_trial
                {
                    *trial = None;
                }
                let left = (*since + params.base_ejection).saturating_sub(now);
                *takers = Takers::of(is_other_well && !left.is_zero());
                let pause = if left.is_zero() { STEP } else { left.min(STEP) };
                let is_early = ejection.until.is_some_and(|until| until > *since);
                let is_over = now.saturating_sub(*since) >= STEP && self.trials == *before;
                if !is_other_well {
                    self.note_company();
                } else if is_early && is_over && !self.has_company {
                    // It was by chance that nobody else was well, and nobody has tried this one.
                    self.early_trials = self.early_trials.saturating_sub(1);
                    self.state = State::Open(*ejection);
                }
                Tending::Look(pause)
            }
            _ => Tending::Over,
        }
    }

    /// Whether [`hurry`](Self::hurry) does anything: it has rested for a step, or for more where it was tried early in
    /// vain; or it waits for its trial.
    pub fn may_be_hurried(&self, now: Duration) -> bool {
        match self.state {
            State::Closed => false,
            State::Open(ejection) => {
                let rested = now.saturating_sub(ejection.since);
                ejection.until.is_some() && self.has_paused(rested)
            }
            State::Probation { takers, .. } => self.wants_trial() && takers == Takers::None,
        }
    }

    fn has_paused(&self, rested: Duration) -> bool {
        rested >= STEP * backoff::steps_before(self.early_trials)
    }

    /// Nobody else is well just now, which may be by chance: it is tried, unless somebody is before that.
    pub fn hurry(&mut self, now: Duration) {
        if !self.may_be_hurried(now) {
            return;
        }
        match &mut self.state {
            State::Closed => {}
            State::Open(ejection) => {
                let ejection = *ejection;
                self.early_trials += 1;
                self.put_on_probation(ejection, Takers::Retries, now);
            }
            State::Probation { takers, .. } => *takers = Takers::Retries,
        }
    }

    fn put_on_probation(&mut self, ejection: Ejection, takers: Takers, now: Duration) {
        self.state = State::Probation {
            ejection,
            since: now,
            before: self.trials,
            trial: None,
            takers,
        };
    }

    fn is_tried_early(&mut self, rested: Duration, is_other_well: bool) -> bool {
        if !is_other_well {
            self.note_company();
            return rested >= STEP;
        }
        let is_due = self.has_company && self.has_paused(rested);
        self.early_trials += u32::from(is_due);
        is_due
    }

    /// All others fail or are out, too.
    pub fn note_company(&mut self) {
        self.has_company = true;
        self.early_trials = 0;
    }

    /// A request is sent to it; its number. `None`: it is not on probation, or has one.
    pub fn begin_trial(&mut self) -> Option<u32> {
        match &mut self.state {
            State::Probation { trial, .. } if trial.is_none() => {
                self.trials += 1;
                *trial = Some(Trial {
                    number: self.trials,
                    seen: None,
                });
                Some(self.trials)
            }
            _ => None,
        }
    }

    /// That request was answered. Says whether that brings the backend back.
    pub fn trial_went_well(&mut self, number: u32, now: Duration) -> bool {
        let is_its = self.is_of_probation(number);
        if is_its {
            self.close(now);
        }
        is_its
    }

    /// That request failed: the backend rests again, longer than before unless the trial came before its time.
    /// Returns the ejection, if this was it.
    pub fn trial_failed(
        &mut self,
        params: &OutlierParams,
        number: u32,
        wanted_rest: Duration,
        now: Duration,
    ) -> Option<Ejection> {
        let State::Probation {
            ejection, since, ..
        } = self.state
        else {
            return None;
        };
        if !self.is_of_probation(number) {
            return None;
        }
        let is_early = ejection.until.is_none_or(|until| until > since);
        let until = match is_early {
            true => ejection.until,
            false => {
                // The others may be well for long: it is an outlier now.
                self.has_company = false;
                Some(self.rest_until(params, wanted_rest, now))
            }
        };
        Some(self.open(ejection.cause, until, now))
    }

    /// That request came to nothing that could be held against the backend, or was never sent. Says whether another
    /// may be the trial now.
    pub fn trial_undecided(&mut self, number: u32) -> bool {
        match &mut self.state {
            State::Probation { trial, .. } => trial.take_if(|it| it.number == number).is_some(),
            _ => false,
        }
    }

    fn is_of_probation(&self, number: u32) -> bool {
        matches!(self.state, State::Probation { before, .. } if number > before)
    }

    /// It accepts connections: it is back, if it is out by this ejection still.
    pub fn reinstate(&mut self, number: u32, now: Duration) -> bool {
        let is_its = self
            .ejection()
            .is_some_and(|ejection| ejection.number == number);
        if is_its {
            self.close(now);
        }
        is_its
    }

    /// It is well, says who must know. What it was ejected for before is not forgotten by that.
    pub fn close(&mut self, now: Duration) {
        self.state = State::Closed;
        self.well_since = now;
        self.has_company = false;
        self.early_trials = 0;
    }
}
