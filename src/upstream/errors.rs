//! What speaks against one backend, as it is counted: `policy::outlier` decides when it is too much.
//!
//! What goes well costs two loads here; only an error locks anything.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::policy::backoff;
use crate::policy::outlier::{Cause, Misstep, OutlierParams, Tally};

/// How often in a row a backend may close a fresh connection without a byte of an answer. Once may be
/// a restart.
const BROKEN_OFF_MAX: u32 = 1;

/// The errors of one backend.
#[derive(Debug)]
pub(super) struct Errors {
    /// The times below count from here.
    made: Instant,
    /// Fresh connections in a row that it closed without a byte of an answer.
    broken_off: AtomicU32,
    /// Errors in a row, and since how many microseconds.
    run: AtomicU32,
    since: AtomicU64,
    /// Answers that do not speak for it.
    answers: AtomicU64,
    tally: Mutex<Tally>,
}

impl Errors {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            made: now,
            broken_off: AtomicU32::new(0),
            run: AtomicU32::new(0),
            since: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            tally: Mutex::default(),
        }
    }

    /// It has begun an answer: the next connection that breaks off is the first in a row. (Whether the answer is an
    /// error shows at its end.)
    pub(super) fn note_begun(&self) {
        clear(&self.broken_off);
    }

    /// Something went well.
    pub(super) fn end_run(&self) {
        clear(&self.run);
    }

    /// It gave an answer that does not speak for it.
    pub(super) fn count_answer(&self) {
        self.answers.fetch_add(1, Relaxed);
    }

    /// Counts a fresh connection that it closed without a byte of an answer; says whether that is once
    /// too often.
    pub(super) fn count_broken_off(&self) -> bool {
        self.broken_off.fetch_add(1, Relaxed) >= BROKEN_OFF_MAX
    }

    /// Counts an error of a backend that has answered so many requests. Returns what it is too many by, if it is, and
    /// how long the backend wants to be left alone.
    pub(super) fn count(
        &self,
        params: &OutlierParams,
        misstep: Misstep,
        served: u64,
        now: Instant,
    ) -> Option<(Cause, Duration)> {
        let run = self.run.fetch_add(1, Relaxed).saturating_add(1);
        let well = served.saturating_sub(self.answers.load(Relaxed));
        let age = self.age(now);
        if run == 1 {
            let micros = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
            self.since.store(micros, Relaxed);
        }
        let mut tally = self.tally.lock();
        let cause = tally.note(params, misstep, run, well, age)?;
        Some((cause, tally.wanted_rest()))
    }

    /// Nothing but errors has come of it of late, and more than one: that may be by chance.
    pub(super) fn are_repeated(&self) -> bool {
        self.run.load(Relaxed) > 1
    }

    /// It has been so for a while; or the last that came of it was an error, and all its slots are held by requests that
    /// were given up on. (Those of clients that have left are, too: that alone says nothing.)
    pub(super) fn are_lasting(&self, is_held: bool, now: Instant) -> bool {
        let since = Duration::from_micros(self.since.load(Relaxed));
        let is_long = self.age(now).saturating_sub(since) >= backoff::STEP;
        is_long && self.are_repeated() || is_held && self.run.load(Relaxed) > 0
    }

    /// What was counted until now is settled.
    pub(super) fn settle(&self) {
        clear(&self.broken_off);
        clear(&self.run);
        self.tally.lock().clear();
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.made)
    }
}

/// It is 0 already, nearly always, and stays where every thread has it at hand.
fn clear(count: &AtomicU32) {
    if count.load(Relaxed) != 0 {
        count.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_lasts_since_its_first_error() {
        let begun = Instant::now();
        let errors = Errors::new(begun);
        let at = |millis| begun + Duration::from_millis(millis);
        for millis in [1_000, 1_400] {
            errors.count(&OutlierParams::default(), Misstep::Overdue, 0, at(millis));
        }
        assert!(!errors.are_lasting(false, at(1_499)));
        assert!(errors.are_lasting(false, at(1_500)));
    }

    #[test]
    fn an_answer_that_does_not_speak_for_it_is_no_success() {
        for (silent, cause) in [(0, None), (40, Some(Cause::ErrorPercent))] {
            let errors = Errors::new(Instant::now());
            let params = OutlierParams {
                min_requests: 2,
                ..OutlierParams::default()
            };
            let count = |served| errors.count(&params, Misstep::Overdue, served, Instant::now());
            assert_eq!(count(0), None);
            (0..silent).for_each(|_| errors.count_answer());
            assert_eq!(count(40).map(|(cause, _)| cause), cause);
        }
    }
}
