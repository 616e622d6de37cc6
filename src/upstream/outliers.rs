//! Backends that are taken out for what happened to requests, and come back: what is seen is told here, and
//! `policy::outlier` decides.
//!
//! Whatever happened is told before the lease is dropped: otherwise the head of the queue is handed the bad backend.
//! What goes well costs no lock: only an error is looked at, and only a trial tells that it went well.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use pingora::Error;

use super::account::Terms;
use super::slots::Edition;
use super::{BackendIndex, Lease, Upstream, connect, trial, wake};
use crate::events::Event;
use crate::policy::outlier::{Cause, Ejection, Misstep};

impl Upstream {
    /// A connection to the backend failed with `error`. If that was the backend's fault, takes it out at once and
    /// starts trials that bring it back; says whether it was. Needs a tokio runtime.
    pub fn connect_failed(self: &Arc<Self>, lease: &Lease, error: &Error) -> bool {
        let is_backends_fault = connect::is_backends_fault(error);
        if is_backends_fault {
            let (index, cause) = (lease.index(), connect::cause(error));
            self.eject(index, cause, Duration::ZERO, None);
            if let Some(trial) = lease.take_trial() {
                self.trial_failed(index, (trial, Duration::ZERO), Instant::now());
            }
        }
        is_backends_fault
    }

    /// The backend closed a fresh connection without a byte of an answer. Such a backend frees its slot at
    /// once and looks like the emptiest; so it is taken out when it does it again, unless nobody else
    /// is left. Needs a tokio runtime.
    pub fn broke_off(self: &Arc<Self>, lease: &Lease) {
        let backend = lease.backend();
        if !backend.has_settled(lease.since()) && backend.errors().count_broken_off() {
            let misstep = Some(Misstep::Reset);
            self.eject(lease.index(), Cause::BrokenOff, Duration::ZERO, misstep);
        }
    }

    /// Something happened to a request that speaks against its backend. To be told once of each. What was sent before
    /// the backend was out, or admitted anew, is settled by that. Needs a tokio runtime.
    pub fn erred(self: &Arc<Self>, lease: &Lease, misstep: Misstep) {
        let (index, now) = (lease.index(), Instant::now());
        let params = &self.params.outlier;
        if let Some(trial) = lease.take_trial() {
            return self.trial_failed(index, (trial, misstep.wanted_rest()), now);
        }
        let backend = self.backend(index);
        if backend.has_settled(lease.since()) {
            return;
        }
        let too_many = backend.count_error(params, misstep, now);
        if let Some((cause, wanted_rest)) = too_many {
            self.eject(index, cause, wanted_rest, Some(misstep));
        }
        if too_many.is_some() || backend.errors().are_repeated() {
            let errs = |other: usize| self.backends[other].errors().are_repeated();
            let waker = self.slots.lock().hurry(errs, now);
            wake(waker);
        }
    }

    /// How long the backend took to the header of an answer that is none of its errors. Needs a tokio runtime.
    pub fn count_first_byte(self: &Arc<Self>, index: BackendIndex, took: Duration, now: Instant) {
        let Some(pace) = &self.pace else {
            return;
        };
        for slow in pace.note(index, took, now) {
            self.eject(slow, Cause::Latency, Duration::ZERO, None);
        }
    }

    /// Takes a backend out, if it is not and may be; `misstep`: the last of those for which it is.
    pub(super) fn eject(
        self: &Arc<Self>,
        index: BackendIndex,
        cause: Cause,
        wanted_rest: Duration,
        misstep: Option<Misstep>,
    ) {
        let (now, params) = (Instant::now(), &self.params.outlier);
        let ejected = self
            .slots
            .lock()
            .eject(index, params, (cause, wanted_rest), now);
        let Some((ejection, wakers)) = ejected else {
            return;
        };
        self.backend(index).close_connections();
        wake(wakers);
        self.backend(index).settle_errors(now);
        self.tell_ejection(index, &ejection, now);
        let may_be_gone = misstep == Some(Misstep::Reset);
        let upstream = self.clone();
        tokio::spawn(trial::until_reinstated(
            upstream,
            index,
            ejection,
            may_be_gone,
        ));
    }

    /// What those did before who are admitted anew is settled by that. `replaced` was in force until now.
    pub(super) fn settle_errors(&self, replaced: &Edition, terms: &[Terms]) {
        let now = Instant::now();
        for ((backend, was), is) in self.backends.iter().zip(&replaced.terms).zip(terms) {
            if is.admitted && !was.admitted {
                backend.settle_errors(now);
            }
        }
    }

    fn trial_failed(&self, index: BackendIndex, trial: (u32, Duration), now: Instant) {
        let params = &self.params.outlier;
        let ejection = self.slots.lock().trial_failed(index, params, trial, now);
        let Some((ejection, is_news)) = ejection else {
            return;
        };
        self.backend(index).settle_errors(now);
        if is_news {
            self.tell_ejection(index, &ejection, now);
        }
    }

    /// The request by which a backend was tried was answered: it is back.
    pub(super) fn trial_went_well(&self, index: BackendIndex, trial: u32) {
        let wakers = self
            .slots
            .lock()
            .trial_went_well(index, trial, Instant::now());
        self.reinstated(index, wakers);
    }

    /// The backend accepts connections: it is back, if it is out by this ejection still.
    pub(super) fn reinstate(&self, index: BackendIndex, ejection: u32) {
        self.backend(index).close_connections();
        let wakers = self.slots.lock().reinstate(index, ejection, Instant::now());
        self.reinstated(index, wakers);
    }

    /// What looked like errors was the backend's end: it is tried as one that refuses. Says whether it is out by
    /// this ejection still.
    pub(super) fn refuses(&self, index: BackendIndex, ejection: &Ejection, cause: Cause) -> bool {
        let number = ejection.number;
        let is_so = self.slots.lock().refuses(index, number, cause);
        if is_so {
            let ejection = Ejection {
                cause,
                until: None,
                ..*ejection
            };
            self.tell_ejection(index, &ejection, Instant::now());
        }
        is_so
    }

    fn reinstated(&self, index: BackendIndex, wakers: Option<Vec<Waker>>) {
        let Some(wakers) = wakers else {
            return;
        };
        // What was under way when it was taken out may have failed since.
        self.backend(index).settle_errors(Instant::now());
        self.events.publish(Event::BackendReinstated {
            upstream: self.params.name.clone(),
            backend: self.backend(index).name().clone(),
        });
        wake(wakers);
    }

    fn tell_ejection(&self, index: BackendIndex, ejection: &Ejection, now: Instant) {
        let backend = self.backend(index);
        backend.ejections.add(ejection.cause.word());
        let age = now.saturating_duration_since(self.made);
        let rest = ejection.until.map(|until| until.saturating_sub(age));
        self.events.publish(Event::BackendEjected {
            upstream: self.params.name.clone(),
            backend: backend.name().clone(),
            cause: ejection.cause.word(),
            rest_seconds: rest.map_or(0.0, |rest| rest.as_secs_f64()),
        });
    }
}
