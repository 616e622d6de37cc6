//! What the access log is told of a request that is over.

use std::time::SystemTime;

use http::{Version, header};
use pingora_proxy::Session;

use super::context::Context;
use super::fault::Fault;
use super::headers;
use super::outcome::Outcome;
use crate::access_log::{AccessEvent, AccessLog, Text, Texts};
use crate::door::ClientStream;

/// Logs a request, if it is one of those that are logged.
pub(super) fn log(log: &AccessLog, session: &Session, context: &Context, outcome: &Outcome<'_>) {
    let is_answer = (100..400).contains(&outcome.status);
    let is_fine = is_answer && outcome.fault.is_none() && context.record.retried.is_none();
    if log.takes(is_fine, context.id.as_ref()) {
        let mut texts = texts(session, context);
        log.put_headers(&session.req_header().headers, &mut texts);
        log.log(event(session, context, outcome, texts));
    }
}

fn event(session: &Session, context: &Context, outcome: &Outcome<'_>, texts: Texts) -> AccessEvent {
    AccessEvent {
        time: SystemTime::now(),
        protocol: match session.req_header().version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_11 => "HTTP/1.1",
            Version::HTTP_2 => "HTTP/2.0",
            _ => "HTTP",
        },
        status: outcome.status,
        bytes_received: session.body_bytes_read() as u64,
        bytes_sent: session.body_bytes_sent() as u64,
        attempts: context.record.attempts,
        total: outcome.total,
        queued: context.record.queued,
        first_byte: context.record.answered,
        served: context.record.served,
        reason: outcome.fault.map(Fault::code),
        retried: context.record.retried,
        texts,
    }
}

fn texts(session: &Session, context: &Context) -> Texts {
    let request = session.req_header();
    let mut texts = Texts::with_room_for(request.raw_path());
    let mut put = |text, value: Option<&[u8]>| {
        if let Some(value) = value {
            texts.put(text, value);
        }
    };
    put(
        Text::Id,
        context.id.as_ref().map(|id| id.value().as_bytes()),
    );
    let client = ClientStream::of(session).map(ClientStream::address);
    put(Text::Client, client.map(|address| address.as_bytes()));
    put(Text::Method, Some(request.method.as_str().as_bytes()));
    let host = request.headers.get(header::HOST);
    put(Text::Host, host.map(|host| host.as_bytes()));
    put(Text::Target, Some(request.raw_path()));
    let upstream = context.upstream.as_ref();
    put(
        Text::Upstream,
        upstream.map(|upstream| upstream.params().name.as_str().as_bytes()),
    );
    let backend = context.backend();
    put(
        Text::Backend,
        backend.map(|backend| backend.name().as_str().as_bytes()),
    );
    if context.asked.trace {
        let parent = headers::only(&request.headers, &headers::TRACE_PARENT);
        put(Text::Trace, parent.map(|parent| parent.as_bytes()));
    }
    texts
}
