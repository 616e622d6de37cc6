//! The right to send one request, and the wait for it. Both return what they hold on `Drop`.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use super::queue::{Place, Ticket};
use super::slots::{Call, Seat};
use super::{Backend, BackendIndex, Refusal, Upstream, wake};

/// One taken slot of one backend. Dropping it gives the slot back, to the head of the queue if
/// anyone waits.
pub struct Lease(Arc<Taken>);

/// A look at a lease that does not keep its slot taken.
#[derive(Debug)]
pub struct LeaseWatch(Weak<Taken>);

struct Taken {
    upstream: Arc<Upstream>,
    index: BackendIndex,
    since: Instant,
    ticket: Ticket,
    is_abandoned: AtomicBool,
    /// The number of the trial that its request is, as long as that decides anything; 0: it is none.
    trial: AtomicU32,
}

impl Lease {
    pub(super) fn new(upstream: Arc<Upstream>, seat: Seat, ticket: Ticket, now: Instant) -> Self {
        let Seat { index, trial } = seat;
        upstream.backend(index).sightings().note_given(now);
        Self(Arc::new(Taken {
            upstream,
            index,
            since: now,
            ticket,
            is_abandoned: AtomicBool::new(false),
            trial: AtomicU32::new(trial.unwrap_or(0)),
        }))
    }

    /// The request was answered, as far as it takes to say that the backend works.
    pub fn went_well(&self) {
        if let Some(trial) = self.take_trial() {
            self.0.upstream.trial_went_well(self.0.index, trial);
        }
    }

    /// Whether what becomes of this request decides if the backend is back.
    pub fn is_trial(&self) -> bool {
        self.0.trial.load(Relaxed) != 0
    }

    /// The trial that this request is, if it has not decided anything yet; it does now.
    pub(super) fn take_trial(&self) -> Option<u32> {
        self.is_trial()
            .then(|| self.0.trial.swap(0, Relaxed))
            .filter(|trial| *trial != 0)
    }

    /// Whose slot it is.
    pub fn index(&self) -> BackendIndex {
        self.0.index
    }

    /// Whose slot it is.
    pub fn backend(&self) -> &Backend {
        self.0.upstream.backend(self.0.index)
    }

    /// Since when.
    pub(super) fn since(&self) -> Instant {
        self.0.since
    }

    /// Where the backend belongs.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.0.upstream
    }

    /// For arriving again.
    pub fn ticket(&self) -> Ticket {
        self.0.ticket
    }

    /// For marking it as abandoned while somebody else has it.
    pub fn watch(&self) -> LeaseWatch {
        LeaseWatch(Arc::downgrade(&self.0))
    }

    /// Marks the slot as kept for a request that nobody waits for any more.
    pub(super) fn abandon(&self) {
        self.0.abandon();
    }
}

impl LeaseWatch {
    /// Marks the slot as kept for a request that nobody waits for any more, unless it is free
    /// already.
    pub fn abandon(&self) {
        self.0.upgrade().inspect(|taken| taken.abandon());
    }
}

impl Taken {
    fn abandon(&self) {
        if !self.is_abandoned.swap(true, Relaxed) {
            self.upstream.slots.lock().abandon(self.index);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let now = self.upstream.time_if_requests_age();
        self.upstream.backend(self.index).sightings().note_let_go();
        let waker = {
            let mut slots = self.upstream.slots.lock();
            match *self.trial.get_mut() {
                0 => {}
                trial => slots.trial_undecided(self.index, trial),
            }
            if *self.is_abandoned.get_mut() {
                slots.release_abandoned(self.index, now)
            } else {
                slots.release(self.index, now)
            }
        };
        wake(waker);
    }
}

/// The wait for a slot.
///
/// # Cancel safety
/// Dropping it leaves the queue; a slot that was handed over meanwhile goes to the next in line.
pub struct Turn {
    upstream: Arc<Upstream>,
    /// `None` once the call was taken.
    place: Option<Place>,
    ticket: Ticket,
}

impl Turn {
    pub(super) fn new(upstream: Arc<Upstream>, place: Place, ticket: Ticket) -> Self {
        Self {
            upstream,
            place: Some(place),
            ticket,
        }
    }
}

impl Future for Turn {
    type Output = Result<Lease, Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let place = self.place.expect("a turn is not polled after it came");
        let call = {
            let mut slots = self.upstream.slots.lock();
            let Some(call) = slots.look(place, context.waker()) else {
                return Poll::Pending;
            };
            slots.settle(place);
            call
        };
        self.place = None;
        Poll::Ready(match call {
            Call::Seated(seat) => {
                let upstream = self.upstream.clone();
                Ok(Lease::new(upstream, seat, self.ticket, Instant::now()))
            }
            Call::Refused(refusal) => Err(refusal),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let now = self.upstream.time_if_requests_age();
            let waker = self.upstream.slots.lock().leave(place, now);
            wake(waker);
        }
    }
}
