//! When errors are too many, and a backend too slow.

use std::time::Duration;

use super::{Cause, Misstep, OutlierParams};

/// The errors of one backend. It is looked at when there is another one, so that what goes well costs nothing here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// It began with an error, and is over after `error_window`.
    window: Option<Window>,
    /// What the last answer of the present run of errors asked for.
    wanted_rest: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    begun: Duration,
    /// How many requests had gone well before.
    well: u64,
    errors: u64,
}

impl Tally {
    /// One more error, which makes `run` in a row, 1 or more; `well`: how many requests have gone well until now. Returns what
    /// it is too many by, if it is.
    pub fn note(
        &mut self,
        params: &OutlierParams,
        misstep: Misstep,
        run: u32,
        well: u64,
        now: Duration,
    ) -> Option<Cause> {
        if run <= 1 {
            self.wanted_rest = Duration::ZERO;
        }
        if let Misstep::Status(rest) = misstep
            && !rest.is_zero()
        {
            self.wanted_rest = rest;
        }
        let is_over = |window: &Window| {
            now.saturating_sub(window.begun) > params.error_window || well < window.well
        };
        let window = self.window.filter(|window| !is_over(window));
        let mut window = window.unwrap_or(Window {
            begun: now,
            well,
            errors: 0,
        });
        window.errors += 1;
        self.window = Some(window);
        if params.consecutive_errors.is_some_and(|most| run >= most) {
            return Some(Cause::ConsecutiveErrors);
        }
        let requests = (well - window.well).saturating_add(window.errors);
        let is_enough = requests >= u64::from(params.min_requests);
        let is_too_many =
            |percent| window.errors.saturating_mul(100) >= requests.saturating_mul(percent);
        let percent = params.error_percent.map(u64::from);
        (is_enough && percent.is_some_and(is_too_many)).then_some(Cause::ErrorPercent)
    }

    /// How long the backend wants to be left alone.
    pub fn wanted_rest(&self) -> Duration {
        self.wanted_rest
    }

    /// The backend is out: what was counted is settled by that.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Which of these, the slowest first, are slower than `factor` times the median of the others: mean times, `None` for
/// those of which too little is known. Nobody is where less than two are known.
pub fn slow(means: &[Option<Duration>], factor: f64) -> Vec<usize> {
    let known = means.iter().enumerate();
    let mut known: Vec<_> = known
        .filter_map(|(index, mean)| Some(((*mean)?, index)))
        .collect();
    known.sort_unstable();
    let is_slow = |rank: usize, mean: Duration| {
        // Of two in the middle the slower one; the place of who is judged is skipped.
        let middle = (known.len() - 1) / 2;
        let median = known.get(middle + usize::from(rank <= middle));
        median.is_some_and(|(median, _)| mean.as_secs_f64() > median.as_secs_f64() * factor)
    };
    let ranked = known.iter().enumerate();
    let slow = ranked.filter(|(rank, (mean, _))| is_slow(*rank, *mean));
    slow.map(|(_, (_, index))| *index).rev().collect()
}
