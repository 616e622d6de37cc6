//! What the header of a backend's answer brings about.

use std::time::Instant;

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::body::Budget;
use super::context::Context;
use super::{attempt, headers};
use crate::door::ClientStream;
use crate::upstream::Work;

/// Whether this may be passed on.
///
/// # Errors
/// It is no answer to this request, or where it ends is anybody's guess.
pub(super) fn check(session: &Session, response: &ResponseHeader) -> Result<()> {
    let unasked = is_upgrade(response) && !session.is_upgrade_req();
    let unasked = unasked.then_some("an upgrade that nobody asked for");
    match headers::problem(response).or(unasked) {
        Some(problem) => Err(Error::explain(ErrorType::InvalidHTTPHeader, problem).into_up()),
        None => Ok(()),
    }
}

fn is_upgrade(response: &ResponseHeader) -> bool {
    response.status == StatusCode::SWITCHING_PROTOCOLS
}

/// The backend has begun to answer.
pub(super) fn begun(context: &mut Context, status: StatusCode) {
    let Some(work) = &mut context.work else {
        return;
    };
    work.answering();
    let is_error = status.is_client_error() || status.is_server_error();
    if !context.body.has_ended() || is_error && context.body.has_passed() {
        // What it has not read, or is still to be sent, may be taken for a request.
        work.spend_connection();
    }
}

/// The answer is passed on: its header now, its body as it comes, or once it is all here if `held` has room for that.
pub(super) fn pass_on(
    session: &mut Session,
    context: &mut Context,
    response: &mut ResponseHeader,
    held: &Budget,
) {
    let now = Instant::now();
    context.record.answered = context.record.sent.map(|sent| now - sent);
    headers::strip_response(response);
    let length = headers::content_length(&response.headers);
    let stream = ClientStream::of(session);
    if is_upgrade(response) {
        stream.inspect(|stream| stream.upgrade());
        context.work.as_mut().map(Work::begin_endless);
    } else if headers::has_no_body(&session.req_header().method, response.status, length) {
        if headers::announces_body(&response.headers, length) {
            // Some servers send it all the same.
            (context.work.as_ref()).inspect(|work| work.spend_connection());
        }
        return attempt::end_work(session, context);
    } else if !context.held.begin(length, held) {
        // A stream may have no end: a client that leaves ends it.
        stream.inspect(|stream| stream.serve_openly());
        if headers::is_event_stream(&response.headers) {
            context.work.as_mut().map(Work::begin_endless);
        }
    }
    attempt::await_piece(session, context, now);
}
