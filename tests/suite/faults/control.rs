//! What the machine does meanwhile: one client that asks an upstream with which nothing is ever wrong. Where it
//! waits somewhat longer than before, all others may, too; where it waits far longer than it should, times say
//! nothing.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::crowd::{Crowd, Outcome, Times};
use crate::harness::{Backend, Units, backend, get};

/// What programs in debug builds may add to a single request.
pub const NOISE: Duration = Duration::from_millis(200);

/// How often something is tried on a busy machine.
pub const TRIES: usize = 3;

/// The backend of the upstream `control`.
pub struct Control {
    pub backend: Backend,
    work: Duration,
}

/// How the machine was.
pub struct Machine {
    before: Times,
    during: Times,
    work: Duration,
    /// Whether a request took so long that it was given up on.
    has_failed: bool,
}

impl Control {
    /// Each request takes this long.
    pub async fn of(work: Duration) -> Self {
        let backend = backend("control").takes(work).start().await;
        Self { backend, work }
    }

    /// Its client, who asks all the time.
    pub fn client(&self, address: SocketAddr) -> Crowd {
        Crowd::of(1, address, || get("/control"))
    }

    /// What the client has seen: while everything was in order, and later.
    pub async fn judged(
        &self,
        client: Crowd,
        before: Range<Instant>,
        during: Range<Instant>,
    ) -> Machine {
        let outcomes = client.ends().await;
        Machine {
            has_failed: outcomes.iter().any(|one| !one.is_served()),
            before: Times::of(within(&outcomes, &before)),
            during: Times::of(within(&outcomes, &during)),
            work: self.work,
        }
    }
}

/// Those that ended in that time.
pub fn within<'a>(
    outcomes: &'a [Outcome],
    time: &'a Range<Instant>,
) -> impl Iterator<Item = &'a Outcome> {
    outcomes.iter().filter(|one| time.contains(&one.ended))
}

impl Machine {
    /// Whether times say anything.
    pub fn is_quiet(&self) -> bool {
        let is_quiet = [&self.before, &self.during].map(|times| {
            times.mean() <= self.work.mul_f64(1.15) + 5.millis()
                && times.longest() <= self.work + NOISE
        });
        let is_quiet = is_quiet == [true, true] && !self.has_failed;
        if !is_quiet {
            let [before, during] = [&self.before, &self.during].map(Times::said);
            println!("the machine is busy: the control took {before}, then {during}");
        }
        is_quiet
    }

    /// How much longer requests took later; 1 at the least.
    pub fn slower(&self) -> f64 {
        let [before, during] = [&self.before, &self.during].map(Times::mean);
        (during.as_secs_f64() / before.as_secs_f64()).max(1.0)
    }
}
