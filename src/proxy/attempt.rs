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
use super::reply;
use crate::door::{Awaited, ClientStream};
use crate::policy::retry::{self, Attempt};
use crate::upstream::Work;

/// Why an attempt is made again.
pub(super) const RETRIED: [&str; 4] = ["shortage", "stale_connection", "reset", "connect_failure"];

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
    tell(&work, &fault);
    explaining::failed(context, &fault);
    let is_stale = fault == Fault::BadGateway && work.is_stale();
    // Each such connection is gone now, so they are as few as the pool is small.
    context.record.stale += u32::from(is_stale);
    let may_retry = matches!(fault, Fault::BadGateway | Fault::Internal)
        && retry::may_retry(&Attempt {
            method: &session.req_header().method,
            sent: work.is_sent(),
            answered: reply::has_answered(session),
            replayable: !session.as_ref().retry_buffer_truncated(),
            attempts: context.record.attempts - context.record.stale,
        });
    if may_retry {
        let why = match fault {
            Fault::Internal => "shortage",
            _ if is_stale => "stale_connection",
            _ if work.is_sent() => "reset",
            _ => "connect_failure",
        };
        context.record.retried = Some(why);
    } else {
        context.fault = Some(fault);
    }
    may_retry
}

/// What a failed attempt says about its backend.
fn tell(work: &Work, fault: &Fault) {
    let Some(lease) = work.lease().filter(|_| fault.is_backends()) else {
        return;
    };
    lease
        .backend()
        .count_failed(Instant::now(), fault.is_overdue());
    if *fault == Fault::BadGateway && work.is_fresh_and_unanswered() {
        lease.upstream().broke_off(lease.index());
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
