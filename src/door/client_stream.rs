//! A client's connection: one deadline at a time, and what Pingora learns of the client meanwhile.
//!
//! **Reads.** While Pingora waits for a backend it polls the client's stream, so a deadline on *reads*
//! ends that wait, and the stream is still good for writing an error. Two things must not get in the
//! way, and both are kept from Pingora once a request is complete ([`ClientStream::park`]):
//! - a byte of the next request: Pingora would stash it and then never poll the stream again. It is
//!   kept here, and read with the next request;
//! - the client's leaving: Pingora would drop the request at once, with an answer that may have been
//!   read already and a backend that works on. Served [quietly](ClientStream::serve_quietly), the
//!   request runs to its natural end, for `busy_limit` at the most, its slot marked as abandoned.
//!
//! **Writes.** While one is stalled Pingora polls nothing else. So a stall has a timeout of its own, it
//! is not counted against the backend, and it gives up the connection to a backend that is done: a
//! server that serves one connection at a time must not wait for a slow reader.
//!
//! One timer serves all deadlines; it is moved only when it fires too early, not for every request.
//!
//! Invariant: the state is used by the connection's own task only; it is behind a lock because Pingora
//! shares streams by reference and asks them to be `Sync`. Nobody else ever holds that lock.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
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
use tokio::time::{Instant, Sleep, sleep};

use super::timer::Timer;
use crate::upstream::{BackendSocket, LeaseWatch};

/// How much a client may send before it is asked for. It is read at all to see the client leave.
const EARLY_MAX: usize = 8 * 1024;
const EARLY_STEP: usize = 512;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The client's next request, or the rest of its header.
    Request,
    /// The header of the backend's answer.
    ResponseHeader,
    /// The same, but the request as a whole has no more time.
    Response,
    /// The next piece of the answer's body.
    ResponseBody,
    /// A backend that works for a client that left.
    Abandoned,
}

/// The stream that Pingora reads a client's requests from.
#[derive(Debug)]
pub struct ClientStream {
    inner: Stream,
    write_timeout: Duration,
    address: HeaderValue,
    /// What was read before anybody asked for it: a byte that was waited for, and what the client sent
    /// while its request was parked.
    first: Option<u8>,
    early: Vec<u8>,
    /// Bytes read for the request under way.
    delivered: u64,
    timer: Timer,
    /// A write that makes no progress.
    stall: Option<Stall>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    deadline: Option<(Instant, Awaited)>,
    expired: Option<Awaited>,
    /// How long the rest of a header may take once its first byte is here.
    header_timeout: Option<Duration>,
    /// The request is complete: what else the client sends is not Pingora's yet.
    is_parked: bool,
    /// Bytes that the request has on the wire; unknown if its body is chunked.
    request_length: Option<u64>,
    quiet: Option<Quiet>,
    has_departed: bool,
    /// The connection to the backend that is done.
    idle_backend: Option<BackendSocket>,
}

#[derive(Debug)]
struct Quiet {
    lease: LeaseWatch,
    busy_limit: Duration,
}

#[derive(Debug)]
struct Stall {
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl ClientStream {
    /// Wraps a connection that was just accepted. A write that makes no progress for `write_timeout`
    /// fails.
    pub fn new(inner: Stream, write_timeout: Duration) -> Self {
        Self {
            address: address_of(&inner),
            inner,
            write_timeout,
            first: None,
            early: Vec::new(),
            delivered: 0,
            timer: Timer::default(),
            stall: None,
            state: Mutex::default(),
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
    pub fn set_deadline(&self, at: Instant, awaited: Awaited) {
        self.state.lock().deadline = Some((at, awaited));
    }

    /// Reads may take as long as they like.
    pub fn clear_deadline(&self) {
        self.state.lock().deadline = None;
    }

    /// Which deadline has passed since the last call.
    pub fn take_expired(&self) -> Option<Awaited> {
        self.state.lock().expired.take()
    }

    /// The request is complete: from now on Pingora reads nothing, whatever comes.
    pub fn park(&self) {
        self.state.lock().is_parked = true;
    }

    /// From now on, the client's leaving is kept from Pingora: the slot is marked as abandoned, and
    /// the deadline becomes `busy_limit`.
    pub fn serve_quietly(&self, lease: LeaseWatch, busy_limit: Duration) {
        self.state.lock().quiet = Some(Quiet { lease, busy_limit });
    }

    /// The client's leaving ends the request again.
    pub fn serve_openly(&self) {
        self.state.lock().quiet = None;
    }

    /// The connection speaks another protocol from now on: everything passes.
    pub fn upgrade(&self) {
        let mut state = self.state.lock();
        state.quiet = None;
        state.is_parked = false;
    }

    /// Whether the client left while its request was served quietly.
    pub fn has_departed(&self) -> bool {
        self.state.lock().has_departed
    }

    /// The backend is done, but its connection is not free before the client has taken the answer.
    /// If that stalls, the connection is given up.
    pub fn backend_is_done(&self, socket: Option<BackendSocket>) {
        self.state.lock().idle_backend = socket;
    }

    /// Nothing of the request under way holds any longer.
    pub fn end_request(&self) {
        let mut state = self.state.lock();
        state.deadline = None;
        state.quiet = None;
        state.idle_backend = None;
    }

    /// Says how many bytes the request under way has, header and body together; `None` if its body
    /// is chunked.
    pub fn set_request_length(&self, bytes: Option<u64>) {
        self.state.lock().request_length = bytes;
    }

    /// Waits for a request: `idle` for its first byte, then `header` for the rest of its header.
    pub(super) fn await_request(&mut self, idle: Duration, header: Duration) {
        let state = self.state.get_mut();
        state.deadline = Some((Instant::now() + idle, Awaited::Request));
        state.header_timeout = Some(header);
        state.is_parked = false;
    }

    /// How many bytes of the next request were read with this one, before which `carried` had been:
    /// they are a pipelined request. `None` if that is not known.
    pub(super) fn count_carried(&mut self, carried: Option<u64>) -> Option<u64> {
        let delivered = std::mem::take(&mut self.delivered);
        let length = self.state.get_mut().request_length.take()?;
        (carried? + delivered).checked_sub(length)
    }

    /// Waits until the client sends something. `false` if it closed, or the deadline passed.
    pub(super) async fn wait_for_byte(&mut self) -> bool {
        std::future::poll_fn(|context| match self.poll_first(context) {
            Poll::Ready(read) => Poll::Ready(read.unwrap_or(false)),
            Poll::Pending => self.poll_deadline(context).map(|_| false),
        })
        .await
    }

    /// Reads a byte ahead. `false` if there will be none.
    fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !self.early.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if self.first.is_none() {
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut buffer))?;
            self.first = buffer.filled().first().copied();
        }
        Poll::Ready(Ok(self.first.is_some()))
    }

    /// What Pingora reads of a client whose request is complete: nothing, until it leaves.
    fn poll_parked(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_departure(context) {
            Poll::Pending => {}
            Poll::Ready(_) if self.depart_quietly() => {}
            Poll::Ready(end) => return Poll::Ready(end),
        }
        self.poll_deadline(context).map(Err)
    }

    /// Reads ahead until the client leaves, or has sent as much as anyone may send too early: one that
    /// leaves behind that goes unnoticed.
    fn poll_departure(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.early.len() < EARLY_MAX {
            let mut bytes = [0; EARLY_STEP];
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.early.extend_from_slice(buffer.filled());
        }
        Poll::Pending
    }

    /// Puts what was read early where it was asked for.
    fn take_early(&mut self, buffer: &mut ReadBuf<'_>) {
        buffer.put_slice(self.first.take().as_slice());
        let some = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early[..some]);
        self.early.drain(..some);
    }

    /// Notes that the client left, if that is to be kept quiet.
    fn depart_quietly(&mut self) -> bool {
        let state = self.state.get_mut();
        let Some(quiet) = &state.quiet else {
            return false;
        };
        if !state.has_departed {
            state.has_departed = true;
            quiet.lease.abandon();
            state.deadline = Some((Instant::now() + quiet.busy_limit, Awaited::Abandoned));
        }
        true
    }

    fn poll_open(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        self.take_early(buffer);
        let has_early = buffer.filled().len() > before;
        let read = match buffer.remaining() {
            0 => Poll::Ready(Ok(())),
            _ => Pin::new(&mut self.inner).poll_read(context, buffer),
        };
        let delivered = buffer.filled().len() - before;
        self.delivered += delivered as u64;
        if delivered > 0 {
            self.begin_header();
        }
        match read {
            // What comes behind the early bytes, a failure too, is met by the next read.
            Poll::Ready(Err(_)) | Poll::Pending if has_early => Poll::Ready(Ok(())),
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.poll_deadline(context).map(Err),
        }
    }

    /// The first byte of a request is here: the idle time is over.
    fn begin_header(&mut self) {
        let state = self.state.get_mut();
        if let Some(timeout) = state.header_timeout.take() {
            state.deadline = Some((Instant::now() + timeout, Awaited::Request));
        }
    }

    /// Fails if the deadline has passed, else wakes the task when it does.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let state = self.state.get_mut();
        let Some((at, awaited)) = state.deadline else {
            return Poll::Pending;
        };
        ready!(self.timer.poll_until(at, context));
        state.deadline = None;
        state.expired = Some(awaited);
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// Passes on what a write came to, unless it has made no progress for too long.
    fn poll_written<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.end_stall();
            return written;
        }
        let timeout = self.write_timeout;
        let state = self.state.get_mut();
        let stall = self.stall.get_or_insert_with(|| {
            state.idle_backend.take().inspect(BackendSocket::finish);
            Stall {
                since: Instant::now(),
                timer: Box::pin(sleep(timeout)),
            }
        });
        ready!(stall.timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// While the client took nothing, the backend could not be heard.
    fn end_stall(&mut self) {
        if let Some(stall) = self.stall.take()
            && let Some((at, _)) = &mut self.state.get_mut().deadline
        {
            *at += stall.since.elapsed();
        }
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
        if self.state.get_mut().is_parked {
            self.poll_parked(context)
        } else {
            self.poll_open(context, buffer)
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, data);
        self.poll_written(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.poll_written(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(context);
        self.poll_written(shut, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, data);
        self.poll_written(written, context)
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

    const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

    fn connection() -> (DuplexStream, ClientStream) {
        let (client, server) = duplex(64);
        (client, ClientStream::new(Box::new(server), WRITE_TIMEOUT))
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_ends_at_the_deadline_that_holds_when_it_passes() {
        let (_client, mut stream) = connection();
        let begun = Instant::now();
        let mut byte = [0];
        stream.set_deadline(begun + Duration::from_secs(1), Awaited::ResponseHeader);
        let waited = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut byte)).await;
        assert!(waited.is_err());
        stream.set_deadline(begun + Duration::from_secs(5), Awaited::ResponseHeader);
        let error = stream.read(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 5);
        assert_eq!(stream.take_expired(), Some(Awaited::ResponseHeader));
        assert_eq!(stream.take_expired(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_replaces_a_later_one() {
        let (_client, mut stream) = connection();
        let begun = Instant::now();
        for seconds in [9, 3] {
            stream.set_deadline(
                begun + Duration::from_secs(seconds),
                Awaited::ResponseHeader,
            );
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
        assert_eq!(stream.count_carried(Some(0)), Some(6));
        stream.set_request_length(Some(6));
        assert_eq!(stream.count_carried(Some(6)), Some(0));
        assert_eq!(stream.count_carried(Some(0)), None, "a chunked body");
        assert_eq!(stream.count_carried(None), None, "after a chunked body");
    }

    #[tokio::test]
    async fn a_client_that_closes_is_not_waited_for() {
        let (client, mut stream) = connection();
        drop(client);
        assert!(!stream.wait_for_byte().await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_a_header_has_a_time_of_its_own() {
        let (mut client, mut stream) = connection();
        let begun = Instant::now();
        stream.await_request(Duration::from_secs(9), Duration::from_secs(2));
        sleep(Duration::from_secs(5)).await;
        client.write_all(b"G").await.unwrap();
        assert!(stream.wait_for_byte().await);
        assert_eq!(stream.read_u8().await.unwrap(), b'G');
        stream.read_u8().await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 7);
        assert_eq!(stream.take_expired(), Some(Awaited::Request));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_come_too_early_do_not_hide_the_deadline() {
        let (mut client, mut stream) = connection();
        let begun = Instant::now();
        stream.park();
        stream.set_deadline(begun + Duration::from_secs(2), Awaited::ResponseHeader);
        client.write_all(b"GET").await.unwrap();
        stream.read_u8().await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 2);
        stream.await_request(WRITE_TIMEOUT, WRITE_TIMEOUT);
        assert!(stream.wait_for_byte().await);
        let mut text = [0; 8];
        let read = stream.read(&mut text).await.unwrap();
        assert_eq!(&text[..read], b"GET");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_makes_no_progress_fails_and_is_not_the_backends_time() {
        let (mut client, mut stream) = connection();
        let begun = Instant::now();
        stream.set_deadline(begun + Duration::from_secs(4), Awaited::ResponseBody);
        stream.write_all(&[0; 64]).await.unwrap();
        let reader = async {
            sleep(Duration::from_secs(2)).await;
            client.read_exact(&mut [0; 64]).await.unwrap();
        };
        let (written, ()) = tokio::join!(stream.write_all(&[0; 64]), reader);
        written.unwrap();
        stream.read_u8().await.unwrap_err();
        assert_eq!(
            begun.elapsed().as_secs(),
            6,
            "the deadline moved by the stall"
        );
        let stuck = stream.write_all(&[0; 1]).await.unwrap_err();
        assert_eq!(stuck.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 9);
    }
}
