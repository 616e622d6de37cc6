//! How a request gets its slot: where it goes, what is read of its body first, and its turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header;
use pingora_proxy::Session;

use super::context::Context;
use super::fault::Fault;
use super::{Proxy, attempt, headers, seating};
use crate::door::ClientStream;
use crate::routing::Routed;
use crate::upstream::Upstream;

/// Before a request that failed for want of something of the proxy's own is tried again.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

impl Proxy {
    /// Finds where a request goes, reads what is to be read of its body and gets it a slot.
    pub(super) async fn admit(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<(), Fault> {
        let upstream = self.route(session, context)?;
        let had_body = context.body.read_ahead(session).await;
        if had_body.map_err(|error| attempt::fault_of_client(error.etype()))? {
            context.ready = Instant::now();
        }
        if !context.body.is_streamed()
            && let Some(stream) = ClientStream::of(session)
        {
            stream.park();
        }
        self.seat(session, context, &upstream).await
    }

    fn route(&self, session: &Session, context: &mut Context) -> Result<Arc<Upstream>, Fault> {
        let request = session.req_header();
        let host = request.headers.get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok());
        let path = request.uri.path();
        let snapshot = self.current.load();
        let (index, route) = match snapshot.router.route(&request.method, host, path) {
            Routed::To(index, route) => (index, route),
            Routed::NotFound => return Err(Fault::NotFound),
            Routed::MethodNotAllowed(allow) => return Err(Fault::MethodNotAllowed(allow.into())),
        };
        context.target = route.rewritten(&request.uri).map_err(|_| Fault::Internal)?;
        if context.asked.timeout {
            let timeout = headers::client_timeout(&request.headers)
                .map_err(|_| Fault::InvalidRequestTimeout)?;
            context.client_due = timeout.and_then(|timeout| context.arrived.checked_add(timeout));
        }
        context.tells_timing = snapshot.config.server_timing;
        let upstream = snapshot.upstreams.get(&route.upstream).cloned();
        context.upstream = upstream.clone();
        context.permit = self.concurrency.enter(index);
        if context.permit.is_none() {
            return Err(Fault::ConcurrencyLimit);
        }
        // The configuration's check has seen that every route's upstream exists.
        upstream.ok_or(Fault::Internal)
    }

    async fn seat(
        &self,
        session: &mut Session,
        context: &mut Context,
        upstream: &Arc<Upstream>,
    ) -> Result<(), Fault> {
        seating::seat(&self.departures, session, context, upstream).await?;
        context
            .body
            .slot_taken(session)
            .await
            .map_err(|_| Fault::ClientGone)
    }

    /// Gets a request that failed another slot, with the ticket that it has.
    pub(super) async fn seat_again(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<(), Fault> {
        let upstream = context.upstream.clone().ok_or(Fault::Internal)?;
        if let Some(why) = context.record.retried {
            self.counters.retries.add(why);
        }
        let was_short = std::mem::take(&mut context.is_short);
        if was_short {
            // It counts as waiting, but no backend was waited for.
            if context.ready.elapsed() > upstream.params().queue.timeout {
                return Err(Fault::Internal);
            }
            tokio::time::sleep(SHORTAGE_PAUSE).await;
        }
        let seated = self.seat(session, context, &upstream).await;
        seated.map_err(|fault| match fault {
            // The time went by, but not for want of a backend.
            Fault::QueueTimeout if was_short => Fault::Internal,
            fault => fault,
        })
    }
}
