//! What the queue is told of a request: whose it is, and how urgent. Nothing is looked at that the
//! configuration does not ask for.
//!
//! A client is known by where its connection comes from. What it says of itself counts where `fair_by`
//! names a header, and where its address is among the trusted.

use std::net::IpAddr;

use pingora_proxy::Session;

use super::context::Context;
use crate::upstream::{Ask, FairBy, Guest, Key, Priority, PriorityParams, Upstream};

/// How this request asks for a slot.
pub(super) fn ask(session: &mut Session, context: &mut Context, upstream: &Upstream) -> Ask {
    if let Some(ticket) = context.ticket {
        return Ask::Again(ticket, context.avoided);
    }
    let mut guest = Guest::any(context.ready);
    let params = upstream.params();
    let may_be_done_twice =
        session.req_header().method.is_idempotent() || params.retry.non_idempotent;
    // A body that is sent on as it comes is gone then.
    guest.is_repeatable = may_be_done_twice && !context.body.is_streamed();
    let queue = &params.queue;
    if queue.fair_by.is_none() && queue.priority.is_none() {
        return Ask::First(guest);
    }
    if let Some(fair_by) = &queue.fair_by {
        guest.key = key(session, upstream, fair_by);
    }
    if let Some(params) = &queue.priority {
        guest.priority = priority(session, params);
    }
    context.record.guest = Some(guest);
    Ask::First(guest)
}

fn key(session: &Session, upstream: &Upstream, fair_by: &FairBy) -> Key {
    let keys = upstream.keys();
    if let FairBy::Header(name) = fair_by
        && let Some(value) = session.req_header().headers.get(name)
    {
        return keys.of_header(value.as_bytes());
    }
    keys.of_address(address(session))
}

/// What is said by somebody who is not trusted is taken out, so that the backend does not believe it
/// either.
fn priority(session: &mut Session, params: &PriorityParams) -> Priority {
    if !params.trusts(address(session)) {
        session.req_header_mut().remove_header(&params.header);
        return Priority::default();
    }
    let value = session.req_header().headers.get(&params.header);
    value.map_or_else(Priority::default, |value| {
        Priority::of_header(value.as_bytes())
    })
}

fn address(session: &Session) -> Option<IpAddr> {
    let address = session.client_addr()?.as_inet()?;
    Some(address.ip())
}
