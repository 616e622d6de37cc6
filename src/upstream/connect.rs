//! How a connection to a backend is made: by us instead of Pingora, for two reasons. A duplicate of
//! the descriptor rides along with each connection, because the slot of an abandoned request is
//! bound to the connection and Pingora closes its own before it tells us. And a failure that is the
//! proxy's own (no descriptors, no ports) is told apart from one that is the backend's.
//!
//! The duplicate lives in the stream's `ProxyDigest`, the one place of a Pingora stream that takes
//! data of ours: it is closed with the stream, unless somebody still holds it. Duplicating once per
//! connection rather than once per request saves two system calls a request.

use std::io;
use std::net::{self, IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::SocketAddr as UnixAddress;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::http::ResponseHeader;
use pingora::protocols::GetProxyDigest;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OrErr, Result};
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::sleep;

use super::idle::IdleLimit;
use super::params::{Sources, UpstreamParams};
use super::socket::BackendSocket;
use crate::address::{Address, Endpoint};
use crate::policy::outlier::Cause;

/// Between two tries to get into a backlog.
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);

/// Addresses that are no server's (RFC 6666).
const DISCARD_PREFIX: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0);

/// Where a backend is whose name has not been resolved yet.
const NOWHERE: net::SocketAddr = net::SocketAddr::new(IpAddr::V6(DISCARD_PREFIX), 0);

/// How Pingora is to reach a backend. Reads have no timeout here: one deadline of ours covers the
/// response's header and each pause of its body, for less than a timer per read. Nor has the pool: see
/// `idle`.
pub(super) fn peer(
    endpoint: Option<&Endpoint>,
    upstream: &UpstreamParams,
    connector: Arc<Connector>,
) -> HttpPeer {
    let timeouts = &upstream.timeouts;
    let mut peer = HttpPeer::new(NOWHERE, false, String::new());
    peer._address = socket_address(endpoint);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    // Of a TCP connection the kernel takes care, for less than a timer per write.
    if let Some(Endpoint::Unix(_)) = endpoint {
        peer.options.write_timeout = Some(timeouts.write);
    }
    peer.options.custom_l4 = Some(connector);
    peer
}

/// Makes the next connections go elsewhere.
pub(super) fn move_to(peer: &mut HttpPeer, endpoint: &Endpoint) {
    peer._address = socket_address(Some(endpoint));
}

fn socket_address(endpoint: Option<&Endpoint>) -> SocketAddr {
    let address = match endpoint {
        Some(Endpoint::Ip(address)) => Some(SocketAddr::Inet(*address)),
        // Fails only for a path that the configuration does not let pass.
        Some(Endpoint::Unix(path)) => UnixAddress::from_pathname(path).ok().map(SocketAddr::Unix),
        None => None,
    };
    address.unwrap_or(SocketAddr::Inet(NOWHERE))
}

/// The address by which the `LoadBalancer` tells the backend at `index` from the others of its
/// upstream, whatever its name resolves to.
pub(super) fn identity(index: usize, address: &Address) -> SocketAddr {
    match address.endpoint() {
        Some(endpoint) => socket_address(Some(&endpoint)),
        None => {
            let stand_in = u128::from(DISCARD_PREFIX) | index as u128;
            SocketAddr::Inet(net::SocketAddr::from((Ipv6Addr::from(stand_in), 1)))
        }
    }
}

#[derive(Debug)]
pub(super) struct Connector {
    /// In milliseconds; at most 24 h.
    write_timeout: u32,
    sources: Arc<Sources>,
    /// How many connections were made.
    count: AtomicUsize,
    idle: Arc<IdleLimit>,
}

impl Connector {
    pub(super) fn new(upstream: &UpstreamParams) -> Self {
        let millis = upstream.timeouts.write.as_millis();
        Self {
            write_timeout: u32::try_from(millis).unwrap_or(u32::MAX),
            sources: upstream.sources.clone(),
            count: AtomicUsize::new(0),
            idle: IdleLimit::new(upstream.timeouts.idle),
        }
    }

    /// No connection that it has made serves another request.
    pub(super) fn close_all(&self) {
        self.idle.close_all();
    }

    /// Closes the connections that should have been closed by now.
    pub(super) fn close_late(&self, now: Instant) {
        self.idle.close_late(now);
    }

    /// A connection, and a duplicate of its descriptor.
    async fn open(&self, address: &SocketAddr) -> io::Result<(Stream, io::Result<OwnedFd>)> {
        match address {
            SocketAddr::Inet(NOWHERE) => Err(Errno::HOSTUNREACH.into()),
            SocketAddr::Inet(address) => {
                let socket = self.dial(*address).await?;
                self.limit_writes(&socket);
                let duplicate = socket.as_fd().try_clone_to_owned();
                Ok((socket.into(), duplicate))
            }
            SocketAddr::Unix(address) => {
                let path = address.as_pathname().ok_or(Errno::INVAL)?;
                let socket = dial_unix(path).await?;
                let duplicate = socket.as_fd().try_clone_to_owned();
                Ok((socket.into(), duplicate))
            }
        }
    }

    async fn dial(&self, address: net::SocketAddr) -> io::Result<TcpStream> {
        let count = self.count.fetch_add(1, Relaxed);
        let Some(source) = self.sources.choose(address.is_ipv4(), count) else {
            return TcpStream::connect(address).await;
        };
        let socket = match source {
            IpAddr::V4(_) => TcpSocket::new_v4()?,
            IpAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.bind((source, 0).into())?;
        socket.connect(address).await
    }

    /// The kernel ends the connection when the backend takes nothing for so long. Pingora's own timeout
    /// for writes would end only the writing: it goes on reading then, in case the backend has answered
    /// early, and may read for ever.
    fn limit_writes(&self, stream: &TcpStream) {
        // Fails only on a socket that is none of TCP's.
        let _ = set_tcp_user_timeout(stream, self.write_timeout);
    }
}

/// A Unix socket whose backlog is full is busy, not dead: where TCP would try again by itself, the system
/// says so at once. Whoever calls sets the limit.
async fn dial_unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(BACKLOG_PAUSE).await,
            result => return result,
        }
    }
}

#[async_trait]
impl Connect for Connector {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        // As it is before: who is turned away while we dial has no use for what comes of it.
        let era = self.idle.era();
        let (mut stream, duplicate) = self
            .open(address)
            .await
            .map_err(|error| explain(error, address))?;
        let duplicate = duplicate.or_err(ErrorType::InternalError, "duplicating a descriptor")?;
        let socket = BackendSocket::new(duplicate, era);
        self.idle.keep(&socket);
        let response = ResponseHeader::build(200, Some(0))?;
        stream.set_proxy_digest(ProxyDigest::new(Box::new(response), Some(Box::new(socket))));
        Ok(stream)
    }
}

/// An error whose type says whose fault it is.
fn explain(error: io::Error, address: &SocketAddr) -> Box<Error> {
    Error::because(kind(&error), format!("connecting to {address}"), error)
}

fn kind(error: &io::Error) -> ErrorType {
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => ErrorType::ConnectRefused,
        Some(Errno::TIMEDOUT) => ErrorType::ConnectTimedout,
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH) => ErrorType::ConnectNoRoute,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL) => {
            ErrorType::InternalError
        }
        _ => ErrorType::ConnectError,
    }
}

/// What is told of a connection that failed for the backend's fault.
pub(super) fn cause(error: &Error) -> Cause {
    match error.etype() {
        ErrorType::ConnectRefused => Cause::ConnectionRefused,
        ErrorType::ConnectTimedout => Cause::ConnectTimeout,
        ErrorType::ConnectNoRoute => Cause::NoRoute,
        _ => Cause::ConnectFailure,
    }
}

/// Whether a failed connection says something about the backend, and not about us.
pub(super) fn is_backends_fault(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectRefused
            | ErrorType::ConnectTimedout
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
    )
}

#[cfg(test)]
mod tests {
    use pingora::protocols::Digest;

    use super::*;

    #[test]
    fn running_out_of_descriptors_is_not_the_backends_fault() {
        let address = SocketAddr::Inet("127.0.0.1:1".parse().unwrap());
        let own = explain(io::Error::from(Errno::MFILE), &address);
        let refused = explain(io::Error::from(Errno::CONNREFUSED), &address);
        assert!(!is_backends_fault(&own));
        assert!(is_backends_fault(&refused));
    }

    #[test]
    fn what_the_system_says_tells_whose_fault_it_is_and_which() {
        let address = SocketAddr::Inet("127.0.0.1:1".parse().unwrap());
        for (errno, expected) in [
            (Errno::CONNREFUSED, Some(Cause::ConnectionRefused)),
            (Errno::TIMEDOUT, Some(Cause::ConnectTimeout)),
            (Errno::NETUNREACH, Some(Cause::NoRoute)),
            (Errno::HOSTUNREACH, Some(Cause::NoRoute)),
            (Errno::CONNRESET, Some(Cause::ConnectFailure)),
            (Errno::MFILE, None),
            (Errno::NFILE, None),
            (Errno::NOBUFS, None),
            (Errno::NOMEM, None),
            (Errno::ADDRNOTAVAIL, None),
        ] {
            let error = explain(errno.into(), &address);
            let said = is_backends_fault(&error).then(|| cause(&error));
            assert_eq!(said, expected, "{errno:?}");
        }
    }

    #[tokio::test]
    async fn a_unix_socket_whose_backlog_is_full_is_waited_for_and_one_that_is_gone_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let gone = dial_unix(&path).await.unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let mut before = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            before.push(stream);
        }
        let mut dialled = std::pin::pin!(dial_unix(&path));
        let soon = tokio::time::timeout(BACKLOG_PAUSE * 5, &mut dialled);
        assert!(soon.await.is_err(), "the backlog is full");
        let _accepted = listener.accept().unwrap();
        let in_time = tokio::time::timeout(Duration::from_secs(5), dialled);
        assert!(in_time.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn the_socket_rides_along_and_outlives_the_stream() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = SocketAddr::Inet(listener.local_addr().unwrap());
        let connector = Connector {
            write_timeout: 1_000,
            sources: Arc::default(),
            count: AtomicUsize::new(0),
            idle: IdleLimit::new(Duration::from_secs(60)),
        };
        let stream = connector.connect(&address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let digest = Digest {
            proxy_digest: stream.get_proxy_digest(),
            ..Digest::default()
        };
        let socket = BackendSocket::of(&digest).unwrap();
        let limit = rustix::net::sockopt::tcp_user_timeout(&socket);
        assert_eq!(limit, Ok(1_000), "for writes that make no progress");
        drop((stream, digest));
        let mut byte = [0];
        let still_open = accepted.try_read(&mut byte).unwrap_err();
        assert_eq!(still_open.kind(), io::ErrorKind::WouldBlock);
        drop(socket);
        accepted.readable().await.unwrap();
        assert_eq!(accepted.try_read(&mut byte).unwrap(), 0);
    }
}
