//! A client's connection, with one deadline at a time.
//!
//! Pingora polls a client's stream for as long as a request is under way (to see whether the client
//! leaves), so a deadline on its *reads* can end any phase of it: waiting for the next request,
//! reading a header, waiting for the backend's answer. One timer per connection serves all of them:
//! it is moved only when it fires too early, not for every request.
//!
//! It also decides what Pingora learns of a client that leaves. Pingora would drop the request at once,
//! with an answer that may have been read already and a backend that works on. So while a request is
//! [served quietly](ClientStream::serve_quietly), a client that leaves goes unnoticed by Pingora, and
//! the request runs to its natural end, for `busy_limit` at the most; its slot is marked as abandoned.
//!
//! Invariant: the deadline is set and read by the connection's own task only; it is atomic because
//! Pingora asks its streams to be `Sync`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use parking_lot::Mutex;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora_proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::upstream::LeaseWatch;

/// Nanoseconds since the connection began; this one means no deadline.
const NEVER: u64 = u64::MAX;

/// A request whose length on the wire is not known.
const UNKNOWN: u64 = u64::MAX;

/// The stream that Pingora reads a client's requests from.
#[derive(Debug)]
pub struct ClientStream {
    inner: Stream,
    /// Read ahead by [`ClientStream::wait_for_byte`].
    first: Option<u8>,
    opened: Instant,
    deadline: AtomicU64,
    expired: AtomicBool,
    timer: Option<Pin<Box<Sleep>>>,
    address: HeaderValue,
    /// Bytes read for the request under way.
    delivered: u64,
    /// How many of them the request has.
    request_length: AtomicU64,
    /// The slot that the request under way has, while it is served quietly.
    quiet: Mutex<Option<Quiet>>,
    departed: AtomicBool,
}

#[derive(Debug)]
struct Quiet {
    lease: LeaseWatch,
    busy_limit: Duration,
}

impl ClientStream {
    /// Wraps a connection that was just accepted.
    pub fn new(inner: Stream) -> Self {
        Self {
            address: address_of(&inner),
            inner,
            first: None,
            opened: Instant::now(),
            deadline: AtomicU64::new(NEVER),
            expired: AtomicBool::new(false),
            timer: None,
            delivered: 0,
            request_length: AtomicU64::new(UNKNOWN),
            quiet: Mutex::new(None),
            departed: AtomicBool::new(false),
        }
    }

    /// The stream of this session, if it came in through the door.
    pub fn of(session: &Session) -> Option<&Self> {
        session.as_downstream().stream()?.as_any().downcast_ref()
    }

    /// The client's IP address as a header's value; `unknown` for a Unix socket.
    pub fn address(&self) -> &HeaderValue {
        &self.address
    }

    /// From now on, a read that is not answered by `at` fails with `TimedOut`.
    pub fn set_deadline(&self, at: Instant) {
        let nanoseconds = at.saturating_duration_since(self.opened).as_nanos();
        self.deadline
            .store(u64::try_from(nanoseconds).unwrap_or(NEVER), Relaxed);
    }

    /// Reads may take as long as they like.
    pub fn clear_deadline(&self) {
        self.deadline.store(NEVER, Relaxed);
    }

    /// Whether a deadline has passed since the last call.
    pub fn take_expired(&self) -> bool {
        self.expired.swap(false, Relaxed)
    }

    /// From now on, the client's leaving is kept from Pingora: the slot is marked as abandoned, and
    /// the deadline becomes the slot's `busy_limit`.
    pub fn serve_quietly(&self, lease: LeaseWatch, busy_limit: Duration) {
        *self.quiet.lock() = Some(Quiet { lease, busy_limit });
    }

    /// The client's leaving ends the request again.
    pub fn serve_openly(&self) {
        *self.quiet.lock() = None;
    }

    /// Whether the client left while its request was served quietly.
    pub fn has_departed(&self) -> bool {
        self.departed.load(Relaxed)
    }

    /// Notes that the client left, if that is to be kept quiet.
    fn depart_quietly(&self) -> bool {
        let quiet = self.quiet.lock();
        let Some(quiet) = &*quiet else { return false };
        if !self.departed.swap(true, Relaxed) {
            quiet.lease.abandon();
            self.set_deadline(Instant::now() + quiet.busy_limit);
        }
        true
    }

    /// Says how many bytes the request under way has, header and body together; `None` if its body
    /// is chunked.
    pub fn set_request_length(&self, bytes: Option<u64>) {
        self.request_length.store(bytes.unwrap_or(UNKNOWN), Relaxed);
    }

    /// Ends a request to which `carried` bytes had been read with the one before it, and returns how
    /// many bytes of the next one were read with this one: they are a pipelined request. `None` if
    /// that is not known.
    pub(super) fn end_request(&mut self, carried: Option<u64>) -> Option<u64> {
        let delivered = std::mem::take(&mut self.delivered);
        let length = std::mem::replace(self.request_length.get_mut(), UNKNOWN);
        (carried? + delivered).checked_sub(length)
    }

    /// Waits until the client sends something. `false` if it closed, or the deadline passed.
    pub async fn wait_for_byte(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let read = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_read(cx, &mut buffer)).await;
        self.first = buffer.filled().first().copied();
        self.delivered = 0;
        read.is_ok() && self.first.is_some()
    }

    /// Fails if the deadline has passed, else wakes the task when it does.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let deadline = self.deadline.load(Relaxed);
        if deadline == NEVER {
            return Poll::Pending;
        }
        let at = self.opened + Duration::from_nanos(deadline);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        ready!(timer.as_mut().poll(context));
        while timer.deadline() < at {
            // It was set for an earlier phase.
            timer.as_mut().reset(at);
            ready!(timer.as_mut().poll(context));
        }
        self.deadline.store(NEVER, Relaxed);
        self.expired.store(true, Relaxed);
        self.timer = None;
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

fn address_of(stream: &Stream) -> HeaderValue {
    let digest = stream.get_socket_digest();
    match digest.as_ref().and_then(|digest| digest.peer_addr()) {
        Some(SocketAddr::Inet(address)) => {
            HeaderValue::from_str(&address.ip().to_canonical().to_string())
                .unwrap_or(HeaderValue::from_static("unknown"))
        }
        _ => HeaderValue::from_static("unknown"),
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let early = self.first.take();
        buffer.put_slice(early.as_slice());
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        let delivered = buffer.filled().len() - before;
        self.delivered += delivered as u64;
        match read {
            // What comes behind the early byte, a failure too, is met by the next read.
            Poll::Ready(Err(_)) | Poll::Pending if early.is_some() => Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) if delivered > 0 => Poll::Ready(Ok(())),
            Poll::Ready(_) if self.depart_quietly() => self.poll_deadline(context).map(Err),
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.poll_deadline(context).map(Err),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for ClientStream {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for ClientStream {}

impl Peek for ClientStream {}

impl GetTimingDigest for ClientStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    fn connection() -> (DuplexStream, ClientStream) {
        let (client, server) = duplex(64);
        (client, ClientStream::new(Box::new(server)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_ends_at_the_deadline_that_holds_when_it_passes() {
        let (_client, mut stream) = connection();
        let begun = Instant::now();
        let mut byte = [0];
        stream.set_deadline(begun + Duration::from_secs(1));
        let waited = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut byte)).await;
        assert!(waited.is_err());
        stream.set_deadline(begun + Duration::from_secs(5));
        let error = stream.read(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 5);
        assert!(stream.take_expired() && !stream.take_expired());
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_replaces_a_later_one() {
        let (_client, mut stream) = connection();
        let begun = Instant::now();
        for seconds in [9, 3] {
            stream.set_deadline(begun + Duration::from_secs(seconds));
            let read = stream.read_u8();
            let _ = tokio::time::timeout(Duration::from_secs(1), read).await;
        }
        stream.read_u8().await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[tokio::test]
    async fn the_byte_that_was_waited_for_is_read_with_the_rest() {
        let (mut client, mut stream) = connection();
        client.write_all(b"GET").await.unwrap();
        assert!(stream.wait_for_byte().await);
        let mut text = [0; 8];
        let read = stream.read(&mut text).await.unwrap();
        assert_eq!(&text[..read], b"GET");
    }

    #[tokio::test]
    async fn bytes_behind_a_request_are_known_to_be_the_next_one() {
        let (mut client, mut stream) = connection();
        client.write_all(b"first second").await.unwrap();
        assert!(stream.wait_for_byte().await);
        let mut text = [0; 16];
        assert_eq!(stream.read(&mut text).await.unwrap(), 12);
        stream.set_request_length(Some(6));
        assert_eq!(stream.end_request(Some(0)), Some(6));
        stream.set_request_length(Some(6));
        assert_eq!(stream.end_request(Some(6)), Some(0));
        assert_eq!(stream.end_request(Some(0)), None, "a chunked body");
        assert_eq!(stream.end_request(None), None, "after a chunked body");
    }

    #[tokio::test]
    async fn a_client_that_closes_is_not_waited_for() {
        let (client, mut stream) = connection();
        drop(client);
        assert!(!stream.wait_for_byte().await);
    }
}
