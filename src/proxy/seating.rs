//! Gets a request its slot: at once, after its turn came, or not at all.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use pingora_proxy::Session;

use super::context::Context;
use super::explaining;
use super::fault::Fault;
use super::guest;
use crate::door::{Departure, Departures};
use crate::upstream::{Arrival, Lease, Turn, Upstream, Work};

/// How long a retry waits for another backend, beside what requests take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes a slot for this request, waiting for it if need be, and begins an attempt.
///
/// # Errors
/// Why there is no slot to be had; [`Fault::ClientGone`] when nobody wants it any more.
pub(super) async fn seat(
    departures: &Arc<Departures>,
    session: &mut Session,
    context: &mut Context,
    upstream: &Arc<Upstream>,
) -> Result<(), Fault> {
    // Part of its time is over where it comes again, or the client counts from its header; and a slot may be
    // free at once.
    let may_be_over = context.ticket.is_some() || context.client_due.is_some();
    if may_be_over && due(context, upstream) <= Instant::now() {
        return Err(Fault::QueueTimeout);
    }
    let lease = loop {
        let ask = guest::ask(session, context, upstream);
        match explaining::arrive(context, upstream, ask) {
            Arrival::Seated(lease) => break lease,
            Arrival::Refused(refusal) => return Err(refusal.into()),
            Arrival::Waiting(turn) => {
                let begun = Instant::now();
                let waited = wait(departures, session, context, turn, upstream).await;
                context.record.queued += begun.elapsed();
                match waited? {
                    Some(lease) => break lease,
                    None => context.avoided = None,
                }
            }
        }
    };
    context.ticket = Some(lease.ticket());
    explaining::seated(context, &lease);
    context.record.backend = Some(lease.index());
    context.body.restart();
    context.work = Some(Work::new(lease));
    Ok(())
}

/// Waits for its turn. `None`: it has waited for another backend than the one that failed it long enough.
async fn wait(
    departures: &Arc<Departures>,
    session: &mut Session,
    context: &Context,
    turn: Turn,
    upstream: &Upstream,
) -> Result<Option<Lease>, Fault> {
    let due = due(context, upstream);
    let patient = context.avoided.map(|_| Instant::now() + patience(upstream));
    let until = patient.map_or(due, |patient| patient.min(due));
    let departure = watch(departures, session);
    let lease = tokio::select! {
        biased;
        () = left(departure.as_ref()) => return Err(Fault::ClientGone),
        // Before the call: who is called too late has no use for it.
        () = tokio::time::sleep_until(until.into()) => {
            return if until < due { Ok(None) } else { Err(Fault::QueueTimeout) };
        }
        called = turn => called?,
    };
    // It may have left in this very moment, and nothing has been sent yet.
    if has_left(session) {
        Err(Fault::ClientGone)
    } else {
        Ok(Some(lease))
    }
}

/// How long a retry waits for another backend while the one that failed it is free: others that work give a
/// slot back in that time. One that does not may be stuck.
fn patience(upstream: &Upstream) -> Duration {
    PATIENCE + 2 * upstream.service_time().unwrap_or_default()
}

/// Until when it may wait. Whichever limit that is, it is the wait that was too long: so the answer is the same,
/// and says that it may be asked again.
fn due(context: &Context, upstream: &Upstream) -> Instant {
    let params = upstream.params();
    let left = params.queue.timeout.saturating_sub(context.record.queued);
    context.due(upstream).min(Instant::now() + left)
}

/// Waits before another attempt.
///
/// # Errors
/// [`Fault::ClientGone`] when nobody wants it any more.
pub(super) async fn pause(
    departures: &Arc<Departures>,
    session: &Session,
    until: Instant,
) -> Result<(), Fault> {
    let departure = watch(departures, session);
    tokio::select! {
        biased;
        () = left(departure.as_ref()) => Err(Fault::ClientGone),
        () = tokio::time::sleep_until(until.into()) => Ok(()),
    }
}

fn watch(departures: &Arc<Departures>, session: &Session) -> Option<Departure> {
    let stream = session.as_downstream().stream()?;
    departures
        .watch(stream.id())
        .inspect_err(
            |error| tracing::warn!(%error, "a waiting client's leaving will not be noticed"),
        )
        .ok()
}

async fn left(departure: Option<&Departure>) {
    match departure {
        Some(departure) => departure.wait().await,
        None => std::future::pending().await,
    }
}

/// One look at the client's connection, without waiting. Where its body is still to come, looking
/// would take a byte of it: then the watch is all there is.
fn has_left(session: &mut Session) -> bool {
    let downstream = session.as_downstream_mut();
    if !downstream.is_body_done() {
        return false;
    }
    let idle = pin!(downstream.read_body_or_idle(true));
    let mut nobody = TaskContext::from_waker(Waker::noop());
    matches!(idle.poll(&mut nobody), Poll::Ready(Err(_)))
}
