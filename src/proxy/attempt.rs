//! One attempt to have a request served: what is due when, how it ends, and what went wrong.
//!
//! The order in which a failed attempt ends matters: the backend is told on *before* the lease is given
//! back, or the head of the queue is handed a dead backend; and the lease is given back *before* the
//! request asks for another slot, or it can queue behind itself.

use std::io;
use std::time::{Duration, Instant};

use http::Version;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;

use super::context::Context;
use super::explaining;
use super::fault::Fault;
use super::retrying::{self, Failure};
use crate::door::{Awaited, ClientStream};
use crate::policy::outlier::Misstep;
use crate::policy::retry::Reason;
use crate::upstream::Work;

/// How many interim answers a request may have.
const INTERIM_MAX: u32 = 100;

/// How often a request may have met a connection that had ended before, and within what time that shows: after that it
/// is the request that the backend breaks off, as it would on any connection.
const STALE_MAX: u32 = 2;
const STALE_TIME_MAX: Duration = Duration::from_secs(1);

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

/// An interim answer came. Clients of HTTP/1.0 know none (RFC 9110, section 15.2), and nobody needs many: what
/// reads like more is no HTTP.
///
/// # Errors
/// When it is one too many.
pub(super) fn interim(session: &mut Session, context: &mut Context) -> Result<()> {
    context.interim += 1;
    context.work.as_mut().map(Work::interim);
    if context.interim > INTERIM_MAX {
        let problem = "too many interim answers";
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, problem).into_up());
    }
    if session.req_header().version == Version::HTTP_10 {
        session.set_ignore_info_resp(true);
    }
    Ok(())
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
    match fault {
        // It has begun to answer; when it ends, only the close can tell.
        Fault::InvalidResponse => work.answering(),
        Fault::WriteTimeout => work.cut_off(),
        _ => {}
    }
    let is_stale = fault == Fault::BadGateway && is_stale(context, &work);
    context.record.stale += u32::from(is_stale);
    if let Some(lease) = work.lease()
        && is_stale
        && context.record.stale == STALE_MAX
    {
        // Then most of them may be: the next attempt is to have a fresh one.
        lease.backend().close_connections();
    }
    if fault.is_backends() {
        tell(context, &mut work, &fault, is_stale);
    }
    let turned_down = context.turned_down.take();
    explaining::failed(context, turned_down.map_or(fault.code(), Reason::word));
    let is_again = match turned_down {
        // That was decided when its answer came.
        Some(_) if fault == Fault::BadGateway => true,
        _ => reason(&fault, &work, is_stale).is_some_and(|reason| {
            let failure = Failure::new(reason, work.is_sent());
            retrying::decide(session, context, failure)
        }),
    };
    if fault == Fault::ClientGone {
        work.left_by_client();
    }
    // Until there is another attempt: Pingora may not make it.
    context.fault = Some(fault);
    is_again
}

/// Whether the connection had ended before the request was sent.
fn is_stale(context: &Context, work: &Work) -> bool {
    work.is_stale()
        && context.record.stale < STALE_MAX
        && context.connected.elapsed() < STALE_TIME_MAX
}

/// As what it counts where it might be made again.
fn reason(fault: &Fault, work: &Work, is_stale: bool) -> Option<Reason> {
    match fault {
        Fault::Internal => Some(Reason::Shortage),
        Fault::BadGateway if is_stale => Some(Reason::Stale),
        Fault::BadGateway | Fault::WriteTimeout if work.is_sent() => Some(Reason::Reset),
        Fault::BadGateway | Fault::ConnectTimeout => Some(Reason::ConnectFailure),
        Fault::InvalidResponse => Some(Reason::InvalidResponse),
        Fault::ResponseHeaderTimeout | Fault::ReadTimeout => Some(Reason::Timeout),
        _ => None,
    }
}

/// What a failed attempt says about its backend. A request that breaks off one fresh connection after the other says
/// something of itself: one that crashes whoever serves it must not have them all taken out for breaking off, of
/// which there is no limit.
fn tell(context: &mut Context, work: &mut Work, fault: &Fault, is_stale: bool) {
    let Some(lease) = work.lease() else {
        return;
    };
    let is_overdue = is_overdue(work, fault);
    lease.backend().count_failed(Instant::now(), is_overdue);
    if *fault == Fault::BadGateway && work.is_fresh_and_unanswered() {
        if !context.has_broken_off {
            lease.upstream().broke_off(lease);
        }
        context.has_broken_off = true;
    }
    misstep(work, fault, is_stale).inspect(|misstep| work.erred(*misstep));
}

/// What the backend did wrong. That it accepts no connection was told already, and a connection that it had ended
/// before is its good right.
fn misstep(work: &Work, fault: &Fault, is_stale: bool) -> Option<Misstep> {
    match fault {
        Fault::InvalidResponse => Some(Misstep::Invalid),
        Fault::BadGateway if work.is_sent() && !is_stale => Some(Misstep::Reset),
        fault if is_overdue(work, fault) => Some(Misstep::Overdue),
        _ => None,
    }
}

/// Whether the backend took longer than it may. It may have nothing to say where the answer is not meant to end.
fn is_overdue(work: &Work, fault: &Fault) -> bool {
    fault.is_overdue() && !work.is_endless()
}

/// What went wrong, from Pingora's error and the deadline that may have caused it.
pub(super) fn fault_of(session: &Session, context: &mut Context, error: &Error) -> Fault {
    let stream = ClientStream::of(session);
    match stream.and_then(ClientStream::take_expired) {
        Some(Awaited::ResponseHeader) => return Fault::ResponseHeaderTimeout,
        Some(Awaited::Response) => return Fault::RequestTimeout,
        Some(Awaited::ResponseBody) => return Fault::ReadTimeout,
        Some(Awaited::Abandoned) => {
            give_up_abandoned(context);
            return Fault::ClientGone;
        }
        Some(Awaited::Request) => return Fault::ClientGone,
        None => {}
    }
    if stream.is_some_and(ClientStream::has_departed) {
        tell_of_abandoned(context, error);
        return Fault::ClientGone;
    }
    match error.esource() {
        ErrorSource::Downstream => fault_of_client(error.etype()),
        ErrorSource::Internal => Fault::Internal,
        ErrorSource::Upstream | ErrorSource::Unset => fault_of_backend(error),
    }
}

/// The busy limit is over, whatever the backend does. A client's patience is no measure of the backend; its own limit
/// is.
fn give_up_abandoned(context: &mut Context) {
    let since = context.record.sent.map(|sent| sent.elapsed());
    let Some(work) = &mut context.work else {
        return;
    };
    let limit = work
        .lease()
        .map(|lease| lease.upstream().params().timeouts.response_header);
    if context.record.answered.is_none() && since >= limit {
        work.erred(Misstep::Overdue);
    }
    work.done();
}

/// What a backend does counts, though the client that it does it to has left.
fn tell_of_abandoned(context: &mut Context, error: &Error) {
    if *error.esource() != ErrorSource::Upstream {
        return;
    }
    let is_stale = (context.work.as_ref()).is_some_and(|work| is_stale(context, work));
    if let Some(work) = &mut context.work
        && let Some(misstep) = misstep(work, &fault_of_backend(error), is_stale)
    {
        work.erred(misstep);
    }
}

/// What went wrong on the connection to the backend.
fn fault_of_backend(error: &Error) -> Fault {
    match error.etype() {
        ErrorType::InvalidHTTPHeader => Fault::InvalidResponse,
        ErrorType::WriteTimedout | ErrorType::ReadTimedout => Fault::WriteTimeout,
        error if NAMELESS.contains(&error.as_str()) => Fault::InvalidResponse,
        _ if is_given_up_by_kernel(error) => Fault::WriteTimeout,
        _ => Fault::BadGateway,
    }
}

/// Whether the backend acknowledged nothing for `timeouts.write` (see `upstream::connect`).
fn is_given_up_by_kernel(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

/// What is wrong with a body, for which Pingora has no variants, and keeps its constants to itself.
const NAMELESS: [&str; 2] = ["InvalidChunk", "InvalidTrailerEnd"];

/// What went wrong at the client's end.
pub(super) fn fault_of_client(error: &ErrorType) -> Fault {
    match error {
        ErrorType::ReadTimedout => Fault::BodyTimeout,
        ErrorType::InvalidHTTPHeader => Fault::BadRequest,
        error if NAMELESS.contains(&error.as_str()) => Fault::BadRequest,
        _ => Fault::ClientGone,
    }
}
