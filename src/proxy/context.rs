//! What is known of one request, from its header read to its line in the access log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Uri;

use super::body::{HeldResponse, RequestBody};
use super::concurrency::Permit;
use super::fault::Fault;
use super::headers::Asked;
use crate::door::Awaited;
use crate::explain::Explanation;
use crate::id::RequestId;
use crate::policy::retry::Reason;
use crate::upstream::{Backend, BackendIndex, BackendSocket, Guest, Ticket, Upstream, Work};

/// One request's state.
pub struct Context {
    /// When its header was complete.
    pub(super) arrived: Instant,
    /// When it was ready to be sent: its header, and the body if that is read ahead.
    pub(super) ready: Instant,
    /// What it is called, unless ids are off.
    pub(super) id: Option<RequestId>,
    /// Where it goes, and what is asked for there, if that is something else.
    pub(super) upstream: Option<Arc<Upstream>>,
    pub(super) target: Option<Uri>,
    /// What its fields ask of the proxy.
    pub(super) asked: Asked,
    /// When the client itself gives up.
    pub(super) client_due: Option<Instant>,
    /// Whether the answer is to tell how long it took, and where.
    pub(super) tells_timing: bool,
    /// Its place among the requests under way.
    pub(super) permit: Option<Permit>,
    /// Its place in the queue, kept through retries.
    pub(super) ticket: Option<Ticket>,
    /// The backend that failed it last, where another is wanted.
    pub(super) avoided: Option<BackendIndex>,
    /// Until when to wait before the next attempt.
    pub(super) pause_until: Option<Instant>,
    /// The attempt was answered, but with something after which it is made again.
    pub(super) turned_down: Option<Reason>,
    /// When the attempt under way had its connection.
    pub(super) connected: Instant,
    /// The attempt under way.
    pub(super) work: Option<Work>,
    pub(super) body: RequestBody,
    pub(super) held: HeldResponse,
    /// How many interim answers the attempt had.
    pub(super) interim: u32,
    /// A backend broke off a fresh connection on which this request was sent.
    pub(super) has_broken_off: bool,
    /// Why the proxy answered by itself, or would if the last attempt was the last.
    pub(super) fault: Option<Fault>,
    /// The last attempt failed for want of something of the proxy's own.
    pub(super) is_short: bool,
    pub(super) record: Record,
    /// Why it went where it went, where that is noted.
    pub(super) explanation: Option<Box<Explanation>>,
}

/// What the access log says of it.
#[derive(Default)]
pub struct Record {
    /// The backend of the last attempt.
    pub(super) backend: Option<BackendIndex>,
    /// Attempts of which the backend may have seen something.
    pub(super) attempts: u32,
    /// How many of them met a connection that the backend had ended before.
    pub(super) stale: u32,
    /// Whose it is and how urgent, where the queue goes by that and it has asked for a slot.
    pub(super) guest: Option<Guest>,
    /// Waiting for a slot, all attempts together.
    pub(super) queued: Duration,
    /// When the last attempt was sent, and how long the backend took to its header and to its last byte.
    pub(super) sent: Option<Instant>,
    pub(super) answered: Option<Duration>,
    pub(super) served: Option<Duration>,
    /// How often it was tried again, and why the last time.
    pub(super) retries: u32,
    pub(super) retried: Option<&'static str>,
    /// Why it was not tried again, though that was wanted.
    pub(super) denied: Option<&'static str>,
}

impl Context {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            arrived: now,
            ready: now,
            id: None,
            upstream: None,
            target: None,
            asked: Asked::default(),
            client_due: None,
            tells_timing: false,
            permit: None,
            ticket: None,
            avoided: None,
            pause_until: None,
            turned_down: None,
            connected: now,
            work: None,
            body: RequestBody::default(),
            held: HeldResponse::default(),
            interim: 0,
            has_broken_off: false,
            fault: None,
            is_short: false,
            record: Record::default(),
            explanation: None,
        }
    }

    /// Until when the backend must have answered, once it has the whole request. A body that was sent
    /// on as it came may have taken longer than a whole request may otherwise: then only the backend's
    /// own time counts.
    pub(super) fn answer_due(&self, upstream: &Upstream) -> (Instant, Awaited) {
        let timeouts = &upstream.params().timeouts;
        let sent = match (self.body.is_streamed(), self.record.sent) {
            // Just now.
            (false, Some(sent)) => sent,
            _ => Instant::now(),
        };
        let header = sent + timeouts.response_header;
        let whole = match self.body.is_streamed() {
            true => self.client_due,
            false => Some(self.due(upstream)),
        };
        match whole {
            Some(whole) if whole < header => (whole, Awaited::Response),
            _ => (header, Awaited::ResponseHeader),
        }
    }

    /// Until when it must be in a backend's hands, and answered if its body was read before.
    pub(super) fn due(&self, upstream: &Upstream) -> Instant {
        let request = self.ready + upstream.params().timeouts.request;
        self.client_due.into_iter().fold(request, Instant::min)
    }

    /// The backend of the last attempt.
    pub(super) fn backend(&self) -> Option<&Backend> {
        Some(self.upstream.as_ref()?.backend(self.record.backend?))
    }

    /// The backend's last byte was read: its slot is free, before the client has read anything.
    /// Returns the connection, which is not.
    pub(super) fn work_done(&mut self) -> Option<BackendSocket> {
        let now = Instant::now();
        self.record.served = self.record.sent.map(|sent| now - sent);
        let work = self.work.as_mut()?;
        if let Some(lease) = work.lease() {
            let has_erred = work.has_erred();
            lease.backend().count_served(now, has_erred);
            if !has_erred {
                lease.went_well();
                // A client's upload is no time of the backend's.
                if let Some(answered) = self.record.answered
                    && !self.body.is_streamed()
                {
                    lease
                        .upstream()
                        .count_first_byte(lease.index(), answered, now);
                }
            }
            if let Some(served) = self.record.served {
                lease.upstream().count_service(served);
            }
        }
        work.done().inspect(|socket| socket.put_back(now))
    }
}
