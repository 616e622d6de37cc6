//! The connection loop: waits for a request under the idle timeout, hands it to Pingora under the
//! header deadline, and goes on with what Pingora gives back.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::time::timeout;

use super::{ClientStream, Connections};
use crate::config::ClientParams;

/// How much of an unwanted request body is read to keep a connection for the next request.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a header that is being read may take to arrive once the listener is closed.
const HEADERS_UNDER_WAY: Duration = Duration::from_secs(1);

/// Pingora's "for ever", where the deadline of the stream holds instead.
const KEEP_ALIVE: Option<u64> = Some(0);

/// A Pingora service that puts our connection loop around an HTTP app.
pub struct Guard<A> {
    inner: Arc<A>,
    clients: ClientParams,
    connections: Connections,
}

impl<A> Guard<A> {
    /// Guards `inner`; every connection is counted in `connections`.
    pub fn new(inner: A, clients: ClientParams, connections: Connections) -> Self {
        Self {
            inner: Arc::new(inner),
            clients,
            connections,
        }
    }

    /// A session for the next request on this connection.
    fn session(
        &self,
        stream: Box<ClientStream>,
        settings: Option<HttpPersistentSettings>,
    ) -> ServerSession {
        let mut session = ServerSession::new_http1(stream);
        match settings {
            Some(settings) => settings.apply_to_session(&mut session),
            None => {
                session.set_keepalive(KEEP_ALIVE);
                session.set_pipelining_enabled(true);
            }
        }
        session.set_read_timeout(Some(self.clients.read_timeout));
        session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
        session.set_ignore_info_resp(true);
        // An answer that comes before the request's end does not end the connection: the rest is
        // read, so that the client gets to see the answer.
        session.set_close_on_response_before_downstream_finish(false);
        session
    }
}

#[async_trait]
impl<A> ServerApp for Guard<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let _open = self.connections.open();
        let mut stopping = shutdown.clone();
        let mut stopping = pin!(stopping.wait_for(|stopping| *stopping));
        let mut stream = Box::new(ClientStream::new(stream, self.clients.write_timeout));
        let mut settings = None;
        // How much of the next request was read with the last one.
        let mut carried = Some(0);
        loop {
            stream.await_request(self.clients.idle_timeout, self.clients.header_timeout);
            // A pipelined request may be here already; its first byte would not come again.
            if carried == Some(0) {
                tokio::select! {
                    biased;
                    arrived = stream.wait_for_byte() => arrived.then_some(())?,
                    _ = &mut stopping => return None,
                }
            }
            let session = self.session(stream, settings.take());
            let reused = self.inner.process_new_http(session, shutdown).await?;
            (stream, settings) = take_back(reused)?;
            carried = stream.count_carried(carried);
        }
    }

    /// Pingora calls it once the listener is closed. Its own clean-up cuts requests whose header is
    /// still being read, so those get a moment.
    async fn cleanup(&self) {
        let _ = timeout(HEADERS_UNDER_WAY, self.connections.all_closed()).await;
        self.inner.http_cleanup().await;
    }
}

fn take_back(
    reused: ReusedHttpStream,
) -> Option<(Box<ClientStream>, Option<HttpPersistentSettings>)> {
    let (stream, settings) = reused.consume();
    Some((stream.into_any().downcast().ok()?, settings))
}
