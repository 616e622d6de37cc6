//! One ping: asks one backend once whether it is well.
//!
//! A ping has its own connection, closed afterwards: it also tells whether the backend still accepts
//! connections, and never takes one that a request could use. Whatever the other side does, the
//! outcome is an [`Answer`] or a [`PingFailure`], within one deadline and bounded memory.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use crate::address::{Address, Endpoint, ResolveError, Resolver};
use crate::config::{ProbeParams, StatusRanges};

/// The longest body that a ping may be answered with, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// What is waited for where an address is resolved: not the backend.
const ADDRESS: &str = "address";

/// The longest head (status line and header) of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A good answer, complete. Displays as `200 in 3 ms`, rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// One of those that were expected.
    pub status: u16,
    /// From the ping's begin to the last byte.
    pub took: Duration,
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.took.as_micros().div_ceil(1000);
        write!(formatter, "{} in {milliseconds} ms", self.status)
    }
}

/// Why a ping counts as failed, split by what a person would look at next. The texts are the
/// reasons in the log, the table and the health file.
#[derive(Debug, Error)]
pub enum PingFailure {
    /// The address stands for no server, or for several: the name service.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// The path of the Unix socket is not there.
    #[error("no such socket")]
    NoSocket,
    /// No connection, for another reason: often the network, or the mode of a Unix socket.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// Not all of it was done in time.
    #[error("no {awaited} within {}", humantime::format_duration(*.limit))]
    TimedOut {
        /// What was waited for: `address`, `connection` or `answer`.
        awaited: &'static str,
        /// What all of it together may take.
        limit: Duration,
    },
    /// Cut off by the other side.
    #[error("connection closed before the answer was complete")]
    Reset,
    /// Answered something that is not HTTP/1.
    #[error("answered what is not HTTP: {}", innermost(.0))]
    Garbage(#[source] hyper::Error),
    /// Answered, but not with a status that was expected. Redirects are not followed.
    #[error("answered {status}, expected {}", ranges(.expected))]
    Status {
        /// What came.
        status: u16,
        /// What is good.
        expected: StatusRanges,
    },
    /// The body is longer than this many bytes, or has no end.
    #[error("answer longer than {0} bytes")]
    TooLong(usize),
    /// There is no such request; the configuration should have refused it.
    #[error("cannot ask: {0}")]
    Request(#[source] http::Error),
    /// A defect of the poller, not of the backend.
    #[error("the ping itself failed")]
    Crashed,
}

impl PingFailure {
    /// Every name that a failure has.
    pub const NAMES: [&'static str; 11] = [
        "resolve",
        "refused",
        "no_socket",
        "connect",
        "timeout",
        "reset",
        "garbage",
        "status",
        "too_long",
        "request",
        "crashed",
    ];

    /// For machines: one of [`Self::NAMES`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::Resolve(_) => "resolve",
            Self::Refused => "refused",
            Self::NoSocket => "no_socket",
            Self::Connect(_) => "connect",
            Self::TimedOut { .. } => "timeout",
            Self::Reset => "reset",
            Self::Garbage(_) => "garbage",
            Self::Status { .. } => "status",
            Self::TooLong(_) => "too_long",
            Self::Request(_) => "request",
            Self::Crashed => "crashed",
        }
    }

    /// Whether the backend has done nothing, in time: neither said anything nor refused to.
    pub fn is_silence(&self) -> bool {
        match self {
            // Where no connection comes about, the backend has not accepted those that came before.
            Self::TimedOut { awaited, .. } => *awaited != ADDRESS,
            _ => false,
        }
    }
}

/// What a ping found.
pub type Outcome = Result<Answer, PingFailure>;

/// Asks the backend at `address` and takes at most `limit` for all of it: resolving, connect,
/// request, header and body.
///
/// # Errors
///
/// [`PingFailure`], unless the whole answer came in time with a status that is expected.
///
/// # Cancel safety
///
/// May be dropped at any time; the connection is closed with it.
pub(super) async fn ping(
    resolver: &Resolver,
    address: &Address,
    params: &ProbeParams,
    limit: Duration,
) -> Outcome {
    let fetched = fetch(resolver, address, params, limit, BODY_BYTES_MAX).await;
    fetched.map(|(answer, _)| answer)
}

/// As [`ping`], and keeps the body, of at most `bytes_max`.
pub(super) async fn fetch(
    resolver: &Resolver,
    address: &Address,
    params: &ProbeParams,
    limit: Duration,
    bytes_max: usize,
) -> Result<(Answer, Vec<u8>), PingFailure> {
    let clock = Clock {
        start: Instant::now(),
        limit,
    };
    let asking = Asking {
        request: request(address, params)?,
        expected: &params.expect_status,
        bytes_max,
    };
    let endpoint = clock.bound(ADDRESS, async { Ok(resolver.resolve(address).await?) });
    let (status, body) = match endpoint.await? {
        Endpoint::Ip(address) => clock.ask(TcpStream::connect(address), asking).await?,
        Endpoint::Unix(path) => clock.ask(UnixStream::connect(path), asking).await?,
    };
    let answer = Answer {
        status,
        took: clock.start.elapsed(),
    };
    Ok((answer, body))
}

/// What is asked, and what is a good answer.
struct Asking<'a> {
    request: Request<Empty<Bytes>>,
    expected: &'a StatusRanges,
    bytes_max: usize,
}

/// The one deadline of all the steps of a ping.
struct Clock {
    start: Instant,
    limit: Duration,
}

impl Clock {
    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        connecting: impl Future<Output = io::Result<S>>,
        asking: Asking<'_>,
    ) -> Result<(u16, Vec<u8>), PingFailure> {
        let connected = async { connecting.await.map_err(connect_failure) };
        let stream = self.bound("connection", connected).await?;
        let asked = ask_over(stream, asking);
        self.bound("answer", asked).await
    }

    async fn bound<T>(
        &self,
        awaited: &'static str,
        step: impl Future<Output = Result<T, PingFailure>>,
    ) -> Result<T, PingFailure> {
        let limit = self.limit;
        // A limit beyond the end of time is no limit.
        let Some(deadline) = self.start.checked_add(limit) else {
            return step.await;
        };
        let timed_out = PingFailure::TimedOut { awaited, limit };
        timeout_at(deadline, step).await.unwrap_or(Err(timed_out))
    }
}

/// Status and body of an answer that is good and complete.
async fn ask_over(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    asking: Asking<'_>,
) -> Result<(u16, Vec<u8>), PingFailure> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(exchange_failure)?;
    let exchange = exchange(sender, asking);
    tokio::pin!(exchange);
    // The connection is driven here and not by a task of its own, so that it ends with the ping.
    tokio::select! {
        // The request first, or a connection that ends at once takes the reason with it.
        biased;
        outcome = &mut exchange => return outcome,
        _ = connection => {}
    }
    // Closed by the other side: what was read before, or the error, is still on its way to us.
    exchange.await
}

fn request(address: &Address, params: &ProbeParams) -> Result<Request<Empty<Bytes>>, PingFailure> {
    let host = match (&params.host, address) {
        (Some(host), _) => host.clone(),
        (None, Address::Unix(_)) => "localhost".to_owned(),
        (None, address) => address.to_string(),
    };
    Request::get(params.path.as_str())
        .header(HOST, host)
        .header(USER_AGENT, "maitred-poller")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(PingFailure::Request)
}

async fn exchange(
    mut sender: SendRequest<Empty<Bytes>>,
    asking: Asking<'_>,
) -> Result<(u16, Vec<u8>), PingFailure> {
    let expected = asking.expected;
    let response = sender
        .send_request(asking.request)
        .await
        .map_err(exchange_failure)?;
    let status = response.status().as_u16();
    if !expected.contains(status) {
        let expected = expected.clone();
        return Err(PingFailure::Status { status, expected });
    }
    let body = read(response.into_body(), asking.bytes_max).await?;
    Ok((status, body))
}

/// Reads the body to its end.
async fn read(mut body: Incoming, bytes_max: usize) -> Result<Vec<u8>, PingFailure> {
    // A length that is announced need not be waited for.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(PingFailure::TooLong(bytes_max));
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(exchange_failure)?;
        let piece = frame.data_ref().map_or(&[][..], |piece| piece);
        if bytes.len() + piece.len() > bytes_max {
            return Err(PingFailure::TooLong(bytes_max));
        }
        bytes.extend_from_slice(piece);
    }
    Ok(bytes)
}

fn connect_failure(error: io::Error) -> PingFailure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => PingFailure::Refused,
        // Only a path can be missing.
        io::ErrorKind::NotFound => PingFailure::NoSocket,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => PingFailure::Reset,
        _ => PingFailure::Connect(error),
    }
}

fn exchange_failure(error: hyper::Error) -> PingFailure {
    let innermost = innermost(&error);
    let cut_off = match innermost.downcast_ref::<io::Error>() {
        Some(error) => is_cut_off(error.kind()),
        None => is_closed(innermost.downcast_ref().unwrap_or(&error)),
    };
    if cut_off {
        PingFailure::Reset
    } else {
        PingFailure::Garbage(error)
    }
}

fn is_cut_off(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
    };
    matches!(
        kind,
        BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
    )
}

fn is_closed(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_closed() || error.is_canceled()
}

/// A set of statuses as it would be written: `200-299, 404`.
fn ranges(statuses: &StatusRanges) -> String {
    let statuses: Vec<u16> = (100..=999)
        .filter(|status| statuses.contains(*status))
        .collect();
    let runs = statuses.chunk_by(|a, b| a + 1 == *b);
    let written = runs.map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        _ => run[0].to_string(),
    });
    written.collect::<Vec<_>>().join(", ")
}

/// The error that the others are only the consequence of. hyper's outermost can be as poor as
/// `operation was canceled`.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UnixListener};
    use tokio::time::sleep;

    use super::*;

    /// Long enough for a slow machine; a ping that should not wait for it must not.
    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(200);

    /// The given address, path and limit, and otherwise the defaults.
    async fn ping(address: SocketAddr, path: &str, limit: Duration) -> Outcome {
        super::ping(&Resolver::new(), &address.into(), &asking(path), limit).await
    }

    fn asking(path: &str) -> ProbeParams {
        ProbeParams {
            path: path.into(),
            ..ProbeParams::default()
        }
    }

    /// A server whose one connection is handled by `behave` once the request was read.
    async fn server<F, B>(behave: F) -> SocketAddr
    where
        F: FnOnce(TcpStream, String) -> B + Send + 'static,
        B: Future<Output = ()> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            behave(stream, String::from_utf8(request).unwrap()).await;
        });
        address
    }

    /// A server that says `text` and closes.
    async fn says(text: &'static str) -> SocketAddr {
        server(move |mut stream, _| async move {
            let _ = stream.write_all(text.as_bytes()).await;
        })
        .await
    }

    /// A server that says `head` and then `piece` for ever.
    async fn repeats(head: &'static str, piece: &'static str) -> SocketAddr {
        server(move |mut stream, _| async move {
            let mut piece = piece.as_bytes();
            let mut result = stream.write_all(head.as_bytes()).await;
            let many = piece.repeat(100);
            piece = &many;
            while result.is_ok() {
                result = stream.write_all(piece).await;
            }
        })
        .await
    }

    async fn fails(address: SocketAddr, limit: Duration) -> PingFailure {
        let start = Instant::now();
        let failure = ping(address, "/ping", limit).await.unwrap_err();
        assert!(
            limit == SHORT || start.elapsed() < LONG,
            "waited for the deadline: {failure}"
        );
        failure
    }

    #[tokio::test]
    async fn asks_for_the_path_and_takes_every_2xx() {
        let bodies = [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 299 Fine\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nuntil the connection closes",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ];
        for text in bodies {
            let took = ping(says(text).await, "/ping", LONG).await;
            assert!(took.is_ok(), "{text}: {took:?}");
        }
        let (tell, told) = tokio::sync::oneshot::channel();
        let address = server(move |mut stream, request| async move {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await
                .unwrap();
            // The ping must close; or this waits for ever, and so does the test.
            while stream.read(&mut [0; 10]).await.unwrap_or(0) > 0 {}
            tell.send(request).unwrap();
        })
        .await;
        ping(address, "/ping?deep=1", LONG).await.unwrap();
        let request = tokio::time::timeout(LONG, told)
            .await
            .unwrap()
            .unwrap()
            .to_lowercase();
        assert!(
            request.starts_with("get /ping?deep=1 http/1.1\r\n"),
            "{request}"
        );
        let host = format!("host: {address}\r\n");
        for line in [
            host.as_str(),
            "user-agent: maitred-poller\r\n",
            "connection: close\r\n",
        ] {
            assert!(request.contains(line), "{request}");
        }
    }

    /// What a ping says as `Host`.
    fn host_of(address: &Address, params: &ProbeParams) -> String {
        let request = request(address, params).unwrap();
        request.headers()[HOST].to_str().unwrap().to_owned()
    }

    #[test]
    fn the_host_is_the_address_unless_configured() {
        let configured = ProbeParams {
            host: Some("app.example".into()),
            ..ProbeParams::default()
        };
        for (address, expected) in [
            ("127.0.0.1:81", "127.0.0.1:81"),
            ("[::1]:81", "[::1]:81"),
            ("app.internal:81", "app.internal:81"),
            ("unix:/run/app.sock", "localhost"),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(host_of(&address, &ProbeParams::default()), expected);
            assert_eq!(host_of(&address, &configured), "app.example");
        }
    }

    #[tokio::test]
    async fn a_host_name_is_resolved_for_each_ping() {
        let port = says("HTTP/1.1 204 No Content\r\n\r\n").await.port();
        let address = format!("localhost:{port}").parse().unwrap();
        let answer = super::ping(&Resolver::new(), &address, &asking("/ping"), LONG)
            .await
            .unwrap();
        assert_eq!(answer.status, 204);
        let address = "nobody.invalid:80".parse().unwrap();
        let failure = super::ping(&Resolver::new(), &address, &asking("/ping"), LONG).await;
        let failure = failure.unwrap_err();
        assert!(matches!(failure, PingFailure::Resolve(_)), "{failure:?}");
        assert_eq!(failure.to_string(), "nobody.invalid does not resolve");
    }

    #[tokio::test]
    async fn a_unix_socket_is_asked_refused_or_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let address: Address = format!("unix:{}", path.display()).parse().unwrap();
        let missing = super::ping(&Resolver::new(), &address, &asking("/ping"), LONG).await;
        assert_eq!(missing.unwrap_err().to_string(), "no such socket");
        let listener = UnixListener::bind(&path).unwrap();
        let (pinged, ()) = tokio::join!(
            async { super::ping(&Resolver::new(), &address, &asking("/ping"), LONG).await },
            async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                while stream.read_u8().await.unwrap() != b'\n' {}
                stream.write_all(answer).await.unwrap();
            }
        );
        assert_eq!(pinged.unwrap().status, 200);
        drop(listener);
        let refused = super::ping(&Resolver::new(), &address, &asking("/ping"), LONG).await;
        assert!(matches!(refused, Err(PingFailure::Refused)), "{refused:?}");
    }

    #[test]
    fn only_a_backend_that_neither_answers_nor_refuses_is_silent() {
        let lost = |awaited| PingFailure::TimedOut {
            awaited,
            limit: SHORT,
        };
        assert!(lost("answer").is_silence() && lost("connection").is_silence());
        let expected = ProbeParams::default().expect_status;
        for failure in [
            lost(ADDRESS),
            PingFailure::Refused,
            PingFailure::Reset,
            PingFailure::NoSocket,
            PingFailure::TooLong(1),
            PingFailure::Crashed,
            PingFailure::Connect(io::ErrorKind::HostUnreachable.into()),
            PingFailure::Status {
                status: 503,
                expected,
            },
        ] {
            assert!(!failure.is_silence(), "{failure:?}");
        }
    }

    #[test]
    fn answers_and_sets_of_statuses_are_short() {
        let answer = |took| Answer {
            status: 200,
            took: Duration::from_micros(took),
        };
        assert_eq!(answer(2_001).to_string(), "200 in 3 ms");
        assert_eq!(answer(1).to_string(), "200 in 1 ms");
        assert_eq!(ranges(&ProbeParams::default().expect_status), "200-299");
    }

    #[tokio::test]
    async fn every_other_status_fails_and_redirects_are_not_followed() {
        for (status, text) in [
            (
                302,
                "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
            ),
            (404, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            (500, "HTTP/1.1 500 Oh\r\nContent-Length: 9999999\r\n\r\n"),
            (
                101,
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            ),
            (999, "HTTP/1.1 999 ?\r\nContent-Length: 0\r\n\r\n"),
        ] {
            let failure = fails(says(text).await, LONG).await;
            assert!(
                matches!(failure, PingFailure::Status { status: found, .. } if found == status),
                "{failure}"
            );
            let expected = format!("answered {status}, expected 200-299");
            assert_eq!(failure.to_string(), expected);
        }
    }

    #[tokio::test]
    async fn refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let failure = fails(address, LONG).await;
        assert!(matches!(failure, PingFailure::Refused), "{failure}");
        assert_eq!(failure.to_string(), "connection refused");
    }

    #[tokio::test]
    async fn silence_before_accepting_in_the_header_or_in_the_body_times_out() {
        let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hangs = |text: &'static str| {
            server(move |mut stream, _| async move {
                stream.write_all(text.as_bytes()).await.unwrap();
                std::future::pending().await
            })
        };
        let addresses = [
            deaf.local_addr().unwrap(),
            hangs("").await,
            hangs("HTTP/1.1 200 OK\r\nConte").await,
            hangs("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await,
        ];
        for address in addresses {
            let failure = fails(address, SHORT).await;
            assert_eq!(failure.to_string(), "no answer within 200ms");
        }
    }

    #[tokio::test]
    async fn drops_do_not_extend_the_deadline() {
        let drip = server(|mut stream, _| async move {
            for byte in b"HTTP/1.1 200 OK\r\nA: "
                .iter()
                .chain(std::iter::repeat(&b'a'))
            {
                if stream.write_u8(*byte).await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let start = Instant::now();
        let failure = fails(drip, SHORT).await;
        assert!(matches!(failure, PingFailure::TimedOut { .. }), "{failure}");
        assert!(start.elapsed() < LONG / 2);
    }

    #[tokio::test]
    async fn slow_but_in_time_is_healthy() {
        let slow = server(|mut stream, _| async move {
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" {
                stream.write_u8(*byte).await.unwrap();
                stream.flush().await.unwrap();
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        ping(slow, "/ping", LONG).await.unwrap();
    }

    #[tokio::test]
    async fn cut_off_answers_are_resets() {
        let reset = |text: &'static str| {
            server(move |mut stream, _| async move {
                stream.write_all(text.as_bytes()).await.unwrap();
                stream.set_zero_linger().unwrap();
            })
        };
        for address in [
            says("").await,
            says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await,
            says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha").await,
            reset("").await,
            reset("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await,
        ] {
            let failure = fails(address, LONG).await;
            assert!(matches!(failure, PingFailure::Reset), "{failure:?}");
        }
    }

    #[tokio::test]
    async fn a_close_or_an_answer_before_the_request_is_told() {
        for (text, expected) in [
            ("", "connection closed before the answer was complete"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                "unexpected message",
            ),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            let (mut server, address) = listener.accept().await.unwrap();
            server.write_all(text.as_bytes()).await.unwrap();
            drop(server);
            stream.readable().await.unwrap();
            let params = asking("/ping");
            let asking = Asking {
                request: request(&address.into(), &params).unwrap(),
                expected: &params.expect_status,
                bytes_max: BODY_BYTES_MAX,
            };
            let asked = ask_over(stream, asking);
            let failure = asked.await.unwrap_err();
            assert!(failure.to_string().contains(expected), "{failure}");
        }
    }

    #[tokio::test]
    async fn garbage_is_a_failure() {
        for text in [
            "SSH-2.0-OpenSSH_9.9\r\n",
            "\0\x01\x02\x03\x04 \r\n\r\n",
            "HTTP/1.1 abc OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        ] {
            let failure = fails(says(text).await, LONG).await;
            assert!(
                matches!(failure, PingFailure::Garbage(_)),
                "{text}: {failure:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_body_without_end_is_too_long() {
        for (head, piece) in [
            ("HTTP/1.1 200 OK\r\n\r\n", "x"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "2\r\nok\r\n",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n", "x"),
        ] {
            let failure = fails(repeats(head, piece).await, LONG).await;
            assert!(matches!(failure, PingFailure::TooLong(_)), "{failure:?}");
            assert_eq!(failure.to_string(), "answer longer than 65536 bytes");
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n";
        ping(repeats(head, "x").await, "/ping", LONG).await.unwrap();
    }

    #[tokio::test]
    async fn the_bound_of_a_body_is_exact() {
        for (length, is_healthy) in [(BODY_BYTES_MAX, true), (BODY_BYTES_MAX + 1, false)] {
            let address = server(move |mut stream, _| async move {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = stream.write_all(&vec![b'x'; length]).await;
            })
            .await;
            let outcome = ping(address, "/ping", LONG).await;
            assert_eq!(outcome.is_ok(), is_healthy, "{length}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_header_without_end_is_garbage() {
        for (head, piece) in [
            ("HTTP/1.1 200 OK\r\nA: ", "a"),
            ("HTTP/1.1 200 OK\r\n", "A: b\r\n"),
            ("", "HTTP"),
        ] {
            let failure = fails(repeats(head, piece).await, LONG).await;
            assert!(matches!(failure, PingFailure::Garbage(_)), "{failure:?}");
        }
    }

    #[tokio::test]
    async fn endless_interim_answers_time_out() {
        let address = repeats("", "HTTP/1.1 102 Processing\r\n\r\n").await;
        let failure = fails(address, SHORT).await;
        assert!(
            matches!(failure, PingFailure::TimedOut { .. }),
            "{failure:?}"
        );
    }

    #[tokio::test]
    async fn a_path_that_is_none_is_a_failure() {
        let failure = ping("127.0.0.1:1".parse().unwrap(), "/a b", LONG)
            .await
            .unwrap_err();
        assert_eq!(failure.to_string(), "cannot ask: invalid uri character");
    }

    #[tokio::test]
    async fn no_deadline_is_too_far_away() {
        let address = says("HTTP/1.1 204 No Content\r\n\r\n").await;
        ping(address, "/ping", Duration::MAX).await.unwrap();
    }
}
