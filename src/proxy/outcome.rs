//! What became of a request, for those who count and those who write it down.

use std::time::Duration;

use pingora_proxy::Session;

use super::context::Context;
use super::fault::Fault;
use crate::door::ClientStream;
use crate::metrics::{ProxyCounters, RequestTimes};

/// How a request ended.
pub(super) struct Outcome<'a> {
    /// What the client saw; 499 if it left before, 0 if it saw nothing.
    pub(super) status: u16,
    /// Why the proxy answered by itself.
    pub(super) fault: Option<&'a Fault>,
    /// From its header complete to its end.
    pub(super) total: Duration,
}

impl<'a> Outcome<'a> {
    /// Of a request that is over.
    pub(super) fn of(session: &Session, context: &'a Context) -> Self {
        let has_left = ClientStream::of(session).is_some_and(ClientStream::has_departed);
        let gone = has_left.then_some(&Fault::ClientGone);
        let fault = context.fault.as_ref().or(gone);
        let status = match fault {
            Some(Fault::ClientGone) => Fault::ClientGone.status(),
            _ => session
                .response_written()
                .map_or(0, |response| response.status.as_u16()),
        };
        Self {
            status,
            fault,
            total: context.arrived.elapsed(),
        }
    }

    /// Counts it, once: with the backend that had it last, else with its upstream, else with the process.
    pub(super) fn count(&self, session: &Session, context: &Context, counters: &ProxyCounters) {
        let method = &session.req_header().method;
        let (counts, times) = match (context.backend(), &context.upstream) {
            (Some(backend), _) => (&backend.requests, &backend.times),
            (None, Some(upstream)) => (&upstream.unassigned, &upstream.times),
            (None, None) => (&counters.unrouted, &counters.unrouted_times),
        };
        counts.add(method, self.status);
        self.observe(context, times);
        if let Some(fault) = self.fault {
            counters.refusals.add(fault.code());
        }
    }

    fn observe(&self, context: &Context, times: &RequestTimes) {
        let record = &context.record;
        times.total.observe(self.total);
        times.queue.observe(record.queued);
        if let Some(answered) = record.answered {
            times.first_byte.observe(answered);
        }
        if let Some(served) = record.served {
            times.last_byte.observe(served);
        }
    }
}
