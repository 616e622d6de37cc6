//! The right to send one request, and the wait for it. Both return what they hold on `Drop`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::queue::{Place, Ticket};
use super::slots::Call;
use super::{Backend, BackendIndex, Refusal, Upstream, wake};

/// One taken slot of one backend. Dropping it gives the slot back, to the head of the queue if
/// anyone waits.
pub struct Lease {
    upstream: Arc<Upstream>,
    index: BackendIndex,
    ticket: Ticket,
    abandoned: bool,
}

impl Lease {
    pub(super) fn new(upstream: Arc<Upstream>, index: BackendIndex, ticket: Ticket) -> Self {
        Self {
            upstream,
            index,
            ticket,
            abandoned: false,
        }
    }

    /// Whose slot it is.
    pub fn index(&self) -> BackendIndex {
        self.index
    }

    /// Whose slot it is.
    pub fn backend(&self) -> &Backend {
        self.upstream.backend(self.index)
    }

    /// Where the backend belongs.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// For arriving again.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Marks the slot as kept for a request that we gave up on.
    pub(super) fn abandon(&mut self) {
        if !self.abandoned {
            self.abandoned = true;
            self.upstream.slots.lock().abandon(self.index);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let waker = {
            let mut slots = self.upstream.slots.lock();
            if self.abandoned {
                slots.release_abandoned(self.index)
            } else {
                slots.release(self.index)
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
            Call::Seated(index) => Ok(Lease::new(self.upstream.clone(), index, self.ticket)),
            Call::Refused(refusal) => Err(refusal),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let waker = self.upstream.slots.lock().leave(place);
            wake(waker);
        }
    }
}
