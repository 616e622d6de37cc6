//! What has been seen of one backend, and when: the evidence by which somebody who judges it from outside
//! can tell busy from dead.
//!
//! Noted without a lock, by whoever holds a lease. Moments of several threads may be noted in another order
//! than they happened, by the little that lies between reading a clock and noting it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::Backend;
use super::account::Account;

/// When what happened last at a backend.
#[derive(Debug)]
pub(super) struct Sightings {
    /// Every [`Moment`] counts from here.
    made: Instant,
    /// Leases of its slots.
    in_hand: AtomicU32,
    /// It was given a request while it had none, or the first one after it was heard.
    owing: Moment,
    given: Moment,
    heard: Moment,
    served: Moment,
    failed: Moment,
    overdue: Moment,
    settled: Moment,
}

/// What the proxy can testify of a backend: ages, because its clock is nobody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Slots taken, abandoned ones included.
    pub in_flight: u32,
    /// Slots of requests that we gave up on and the backend has not let go.
    pub abandoned: u32,
    /// Its slots, as they are now.
    pub max_in_flight: u32,
    /// Since it was given its latest request.
    pub given: Option<Duration>,
    /// For how long it has had something in hand and not sent a byte of an answer; `None`: it has nothing.
    pub silent: Option<Duration>,
    /// Since it last sent some of an answer, or took some of a body that is sent on as it comes.
    pub heard: Option<Duration>,
    /// Since the latest attempt that failed on it.
    pub failed: Option<Duration>,
    /// Since the latest attempt in which it took longer than `timeouts.response_header`, `.read` or `.write`.
    pub overdue: Option<Duration>,
}

impl Sightings {
    pub fn new(now: Instant) -> Self {
        Self {
            made: now,
            in_hand: AtomicU32::new(0),
            owing: Moment::never(),
            given: Moment::never(),
            heard: Moment::never(),
            served: Moment::never(),
            failed: Moment::never(),
            overdue: Moment::never(),
            settled: Moment::never(),
        }
    }

    /// It was given a request.
    pub fn note_given(&self, now: Instant) {
        let now = self.stamp(now);
        let was_idle = self.in_hand.fetch_add(1, Relaxed) == 0;
        if was_idle || self.owing.0.load(Relaxed) <= self.heard.0.load(Relaxed) {
            self.owing.set(now);
        }
        self.given.set(now);
    }

    /// It has let go of a request.
    pub fn note_let_go(&self) {
        self.in_hand.fetch_sub(1, Relaxed);
    }

    /// It has sent some of an answer, or taken some of a body that is sent on as it comes.
    pub fn note_heard(&self, now: Instant) {
        self.heard.set(self.stamp(now));
    }

    /// It has sent the last byte of an answer.
    pub fn note_served(&self, now: Instant) {
        let now = self.stamp(now);
        self.heard.set(now);
        self.served.set(now);
    }

    /// An attempt failed on it, because it took too long or for another reason.
    pub fn note_failed(&self, now: Instant, is_overdue: bool) {
        let now = self.stamp(now);
        self.failed.set(now);
        if is_overdue {
            self.overdue.set(now);
        }
    }

    /// What happened to the requests that it has, or had, does not count any longer.
    pub fn note_settled(&self, now: Instant) {
        self.settled.set(self.stamp(now));
    }

    /// When that was so last.
    pub fn settled(&self) -> Option<Instant> {
        self.settled.get(self.made)
    }

    /// When it last sent the last byte of an answer.
    pub fn served(&self) -> Option<Instant> {
        self.served.get(self.made)
    }

    /// Whether something came of it after its latest attempt that failed.
    pub fn has_spoken_since_failure(&self) -> bool {
        self.heard.get(self.made) > self.failed.get(self.made)
    }

    /// What a [`Moment`] keeps.
    fn stamp(&self, at: Instant) -> u64 {
        let micros = at.saturating_duration_since(self.made).as_micros();
        u64::try_from(micros).unwrap_or(u64::MAX).max(1)
    }

    fn silent(&self, now: Instant) -> Option<Duration> {
        let [owing, heard] = [&self.owing, &self.heard].map(|moment| moment.get(self.made));
        let is_idle = self.in_hand.load(Relaxed) == 0;
        // `None` is less than any moment.
        let since = owing.max(heard).filter(|_| !is_idle)?;
        Some(now.saturating_duration_since(since))
    }
}

impl Evidence {
    pub(super) fn of(backend: &Backend, account: &Account, now: Instant) -> Self {
        let seen = backend.sightings();
        let age = |moment: &Moment| {
            let at = moment.get(seen.made)?;
            Some(now.saturating_duration_since(at))
        };
        Self {
            in_flight: account.in_flight,
            abandoned: account.abandoned,
            max_in_flight: account.terms.max_in_flight,
            given: age(&seen.given),
            silent: seen.silent(now),
            heard: age(&seen.heard),
            failed: age(&seen.failed),
            overdue: age(&seen.overdue),
        }
    }
}

/// Microseconds after its [`Sightings`] were made, at least 1; 0: never.
#[derive(Debug)]
struct Moment(AtomicU64);

impl Moment {
    fn never() -> Self {
        Self(AtomicU64::new(0))
    }

    fn set(&self, stamp: u64) {
        self.0.store(stamp, Relaxed);
    }

    fn get(&self, made: Instant) -> Option<Instant> {
        match self.0.load(Relaxed) {
            0 => None,
            micros => made.checked_add(Duration::from_micros(micros)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The silence after each of these steps, which are a second apart: `+` gives a request, `-` takes it
    /// back, `h` is a byte of an answer, `f` a failure, `.` nothing.
    fn silences(steps: &str) -> Vec<Option<u64>> {
        let start = Instant::now();
        let seen = Sightings::new(start);
        let mut silences = Vec::new();
        for (second, step) in (1..).zip(steps.chars()) {
            let now = start + Duration::from_secs(second);
            match step {
                '+' => seen.note_given(now),
                '-' => seen.note_let_go(),
                'h' => seen.note_heard(now),
                'f' => seen.note_failed(now, true),
                _ => {}
            }
            silences.push(seen.silent(now).map(|silent| silent.as_secs()));
        }
        silences
    }

    #[test]
    fn silence_begins_with_the_request_or_the_last_byte() {
        let some = |silences: &[u64]| silences.iter().map(|one| Some(*one)).collect::<Vec<_>>();
        assert_eq!(silences(".."), [None, None]);
        assert_eq!(silences("+..h."), some(&[0, 1, 2, 0, 1]));
        assert_eq!(silences("+.h-+.")[3..], [None, Some(0), Some(1)]);
        assert_eq!(silences("+h-...+.")[6..], [Some(0), Some(1)]);
    }

    #[test]
    fn a_failure_ends_no_silence_and_neither_does_another_request() {
        assert_eq!(silences("+.f.+.")[3..], [Some(3), Some(4), Some(5)]);
        assert_eq!(silences("+.f-+")[3..], [None, Some(0)], "it was idle");
    }

    #[test]
    fn a_failure_is_remembered_and_whether_it_took_too_long() {
        let start = Instant::now();
        let seen = Sightings::new(start);
        let noted = || [&seen.failed, &seen.overdue].map(|moment| moment.get(start));
        assert_eq!(noted(), [None, None]);
        let [first, later] = [1, 2].map(|second| start + Duration::from_secs(second));
        seen.note_failed(first, false);
        assert_eq!(noted(), [Some(first), None]);
        seen.note_failed(later, true);
        assert_eq!(noted(), [Some(later), Some(later)]);
    }

    /// Something that is held for long and says nothing, such as a tunnel, is no silence over what came after it.
    #[test]
    fn silence_begins_anew_with_the_first_request_after_a_sign_of_life() {
        let some = [0, 0, 1, 2, 0, 1, 2, 3].map(Some);
        assert_eq!(silences("+h..+.+."), some);
    }
}
