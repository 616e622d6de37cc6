//! One ping: asks one backend once whether it is well.
//!
//! A ping has its own connection, closed afterwards: it also tells whether the backend still accepts
//! connections, and never takes one that a request could use. Whatever the other side does, the
//! outcome is an answer or a [`PingFailure`], within one deadline and bounded memory.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// The longest body that a ping may be answered with, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The longest head (status line and header) of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Why a backend counts as unhealthy, split by what a person would look at next. The texts are the
/// reasons in the log and the table.
#[derive(Debug, Error)]
pub enum PingFailure {
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// The whole answer was not there in time, wherever it got stuck.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// Cut off by the other side.
    #[error("connection closed before the answer was complete")]
    Reset,
    /// Answered something that is not HTTP/1.
    #[error("answered what is not HTTP: {}", innermost(.0))]
    Garbage(#[source] hyper::Error),
    /// Answered, but not with 200 to 299. Redirects are not followed.
    #[error("answered {0}")]
    Status(u16),
    /// The body is longer than [`BODY_BYTES_MAX`], or has no end.
    #[error("answer longer than {BODY_BYTES_MAX} bytes")]
    TooLong,
    /// No connection, for another reason than a refusal: often the network.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The path is none; the configuration should have refused it.
    #[error("cannot ask for {0:?}")]
    Path(String),
    /// A defect of the poller, not of the backend.
    #[error("the ping itself failed")]
    Crashed,
}

/// Asks `address` for `path` and takes at most `limit` for all of it: connect, request, header and
/// body. Tells how long it took.
///
/// # Errors
///
/// [`PingFailure`], unless the whole answer came in time with a status of 200 to 299.
///
/// # Cancel safety
///
/// May be dropped at any time; the connection is closed with it.
pub(super) async fn ping(
    address: SocketAddr,
    path: &str,
    limit: Duration,
) -> Result<Duration, PingFailure> {
    let start = Instant::now();
    // A limit beyond the end of time is no limit.
    match start.checked_add(limit) {
        None => ask(address, path).await?,
        Some(deadline) => timeout_at(deadline, ask(address, path))
            .await
            .unwrap_or(Err(PingFailure::TimedOut(limit)))?,
    }
    Ok(start.elapsed())
}

async fn ask(address: SocketAddr, path: &str) -> Result<(), PingFailure> {
    let request = request(address, path)?;
    let stream = TcpStream::connect(address).await.map_err(connect_failure)?;
    ask_over(stream, request).await
}

async fn ask_over(stream: TcpStream, request: Request<Empty<Bytes>>) -> Result<(), PingFailure> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(exchange_failure)?;
    let exchange = exchange(sender, request);
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

fn request(address: SocketAddr, path: &str) -> Result<Request<Empty<Bytes>>, PingFailure> {
    let unusable = || PingFailure::Path(path.to_owned());
    let target: PathAndQuery = path.parse().map_err(|_| unusable())?;
    Request::get(target.as_str())
        .header(HOST, address.to_string())
        .header(USER_AGENT, "maitred-poller")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| unusable())
}

async fn exchange(
    mut sender: SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> Result<(), PingFailure> {
    let response = sender
        .send_request(request)
        .await
        .map_err(exchange_failure)?;
    judge(response).await
}

async fn judge(response: Response<Incoming>) -> Result<(), PingFailure> {
    if !(StatusCode::OK..StatusCode::MULTIPLE_CHOICES).contains(&response.status()) {
        return Err(PingFailure::Status(response.status().as_u16()));
    }
    let mut body = response.into_body();
    // A length that is announced need not be waited for.
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(PingFailure::TooLong);
    }
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame
            .map_err(exchange_failure)?
            .data_ref()
            .map_or(0, Bytes::len);
        if length > BODY_BYTES_MAX {
            return Err(PingFailure::TooLong);
        }
    }
    Ok(())
}

fn connect_failure(error: io::Error) -> PingFailure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => PingFailure::Refused,
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
    use std::future::Future;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::sleep;

    use super::*;

    /// Long enough for a slow machine; a ping that should not wait for it must not.
    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(200);

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
                matches!(failure, PingFailure::Status(found) if found == status),
                "{failure}"
            );
            assert_eq!(failure.to_string(), format!("answered {status}"));
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
            assert!(matches!(failure, PingFailure::TimedOut(SHORT)), "{failure}");
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
        assert!(matches!(failure, PingFailure::TimedOut(_)), "{failure}");
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
            let request = request(address, "/ping").unwrap();
            let failure = ask_over(stream, request).await.unwrap_err();
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
            assert!(matches!(failure, PingFailure::TooLong), "{failure:?}");
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
        assert!(matches!(failure, PingFailure::TimedOut(_)), "{failure:?}");
    }

    #[tokio::test]
    async fn a_path_that_is_none_is_a_failure() {
        let failure = ping("127.0.0.1:1".parse().unwrap(), "/a b", LONG)
            .await
            .unwrap_err();
        assert_eq!(failure.to_string(), r#"cannot ask for "/a b""#);
    }

    #[tokio::test]
    async fn no_deadline_is_too_far_away() {
        let address = says("HTTP/1.1 204 No Content\r\n\r\n").await;
        ping(address, "/ping", Duration::MAX).await.unwrap();
    }
}
