//! One attempt to have a request served: what is due when, how it ends, and what went wrong.
//!
//! The order in which a failed attempt ends matters: the backend is told on *before* the lease is given
//! back, or the head of the queue is handed a dead backend; and the lease is given back *before* the
//! request asks for another slot, or it can queue behind itself.

use std::time::Instant;

use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use super::context::Context;
use super::explaining;
use super::fault::Fault;
use super::retrying::{self, Failure};
use crate::door::{Awaited, ClientStream};
use crate::policy::outlier::Misstep;
use crate::policy::retry::Reason;
use crate::upstream::Work;

/// The backend has the whole request: its answer is due, and it works on it whether the client stays
/// or not.
pub(super) fn await_answer(session: &Session, context: &Context) {
    let lease = context.work.as_ref().and_then(|work| work.lease());
    if let (Some(stream), Some(lease)) = (ClientStream::of(session), lease) {
        let (due, awaited) = context.answer_due(lease.upstream());
        stream.park();
        stream.set_deadline(due.into(), awaited);
        stream.serve_quietly(lease.watch(), lease.upstream().params().busy_limit);
    }
}

/// A piece of a request's body is on its way. The backend owes nothing before it has all of them, and it has taken
/// those before, or this one would not have got here.
pub(super) fn note_upload(context: &Context) {
    let lease = context.work.as_ref().and_then(|work| work.lease());
    lease.inspect(|lease| lease.backend().note_heard(Instant::now()));
}

/// A piece of an answer came, and another is to come.
pub(super) fn await_piece(session: &Session, context: &Context, now: Instant) {
    let lease = context.work.as_ref().and_then(|work| work.lease());
    lease.inspect(|lease| lease.backend().note_heard(now));
    if let (Some(stream), Some(upstream)) = (ClientStream::of(session), &context.upstream) {
        let due = now + upstream.params().timeouts.read;
        stream.set_deadline(due.into(), Awaited::ResponseBody);
    }
}

/// The backend has begun an answer that may have no end.
pub(super) fn went_well(context: &Context) {
    let work = context.work.as_ref().filter(|work| !work.has_erred());
    work.and_then(Work::lease)
        .inspect(|lease| lease.went_well());
}

/// The backend's last byte was read.
pub(super) fn end_work(session: &Session, context: &mut Context) {
    let socket = context.work_done();
    if let Some(stream) = ClientStream::of(session) {
        stream.clear_deadline();
        stream.backend_is_done(socket);
    }
}

/// Ends a failed attempt: tells why, gives the lease back (now, or when the backend has let go)
/// and decides whether there is another.
pub(super) fn end(session: &mut Session, context: &mut Context, fault: Fault) -> bool {
    if let Some(stream) = ClientStream::of(session) {
        stream.end_request();
    }
    let turned_down = context.turned_down.take();
    let Some(mut work) = context.work.take() else {
        return false;
    };
    if let Some(bytes) = session.upstream_body_bytes_sent()
        && context.body.is_sent(bytes)
    {
        work.sent();
    }
    if fault == Fault::InvalidResponse {
        // It has begun to answer; when it ends, only the close can tell.
        work.answering();
    }
    tell(&mut work, &fault);
    explaining::failed(context, turned_down.map_or(fault.code(), Reason::word));
    // Each such connection is gone now, so they are as few as the pool is small.
    context.record.stale += u32::from(fault == Fault::BadGateway && work.is_stale());
    let is_again = match turned_down {
        // That was decided when its answer came.
        Some(_) if fault == Fault::BadGateway => true,
        _ => reason(&fault, &work).is_some_and(|reason| {
            let failure = Failure::new(reason, work.is_sent());
            retrying::decide(session, context, failure)
        }),
    };
    if !is_again {
        context.fault = Some(fault);
    }
    is_again
}

/// As what it counts where it might be made again.
fn reason(fault: &Fault, work: &Work) -> Option<Reason> {
    match fault {
        Fault::Internal => Some(Reason::Shortage),
        Fault::BadGateway if work.is_stale() => Some(Reason::Stale),
        Fault::BadGateway if work.is_sent() => Some(Reason::Reset),
        Fault::BadGateway => Some(Reason::ConnectFailure),
        Fault::ResponseHeaderTimeout | Fault::ReadTimeout => Some(Reason::Timeout),
        _ => None,
    }
}

/// What a failed attempt says about its backend.
fn tell(work: &mut Work, fault: &Fault) {
    let Some(lease) = work.lease().filter(|_| fault.is_backends()) else {
        return;
    };
    lease
        .backend()
        .count_failed(Instant::now(), fault.is_overdue());
    if *fault == Fault::BadGateway && work.is_fresh_and_unanswered() {
        lease.upstream().broke_off(lease.index());
    }
    misstep(work, fault).inspect(|misstep| work.erred(*misstep));
}

/// What the backend did wrong. That it accepts no connection was told already, and a connection that it had ended
/// before is its good right.
fn misstep(work: &Work, fault: &Fault) -> Option<Misstep> {
    match fault {
        Fault::InvalidResponse => Some(Misstep::Invalid),
        Fault::BadGateway if work.is_sent() && !work.is_stale() => Some(Misstep::Reset),
        fault if fault.is_overdue() => Some(Misstep::Overdue),
        _ => None,
    }
}

/// What went wrong, from Pingora's error and the deadline that may have caused it.
pub(super) fn fault_of(session: &Session, context: &mut Context, error: &Error) -> Fault {
    let stream = ClientStream::of(session);
    match stream.and_then(ClientStream::take_expired) {
        Some(Awaited::ResponseHeader) => return Fault::ResponseHeaderTimeout,
        Some(Awaited::Response) => return Fault::RequestTimeout,
        Some(Awaited::ResponseBody) => return Fault::ReadTimeout,
        Some(Awaited::Abandoned) => {
            // The busy limit is over, whatever the backend does.
            context.work.as_mut().map(Work::done);
            return Fault::ClientGone;
        }
        Some(Awaited::Request) => return Fault::ClientGone,
        None => {}
    }
    if stream.is_some_and(ClientStream::has_departed) {
        return Fault::ClientGone;
    }
    match error.esource() {
        ErrorSource::Downstream => fault_of_client(error.etype()),
        ErrorSource::Internal => Fault::Internal,
        ErrorSource::Upstream if *error.etype() == ErrorType::InvalidHTTPHeader => {
            Fault::InvalidResponse
        }
        ErrorSource::Upstream | ErrorSource::Unset => Fault::BadGateway,
    }
}

/// What went wrong at the client's end.
pub(super) fn fault_of_client(error: &ErrorType) -> Fault {
    match error {
        ErrorType::ReadTimedout => Fault::BodyTimeout,
        ErrorType::InvalidHTTPHeader => Fault::BadRequest,
        // Pingora has no variant for it, and keeps its constant to itself.
        error if error.as_str() == "InvalidChunk" => Fault::BadRequest,
        _ => Fault::ClientGone,
    }
}
