//! A handle on a connection to a backend, beside Pingora's own: for abandoned work, which outlives the
//! request, and for closing a connection that nobody uses.
//!
//! Invariant: whoever takes a connection for a request and whoever closes it for being idle settle it by
//! one compare-and-swap; a connection that is being closed is never used again.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pingora::protocols::Digest;
use rustix::net::{Shutdown, shutdown};

/// What `rests_since` says while a request has the connection, and of one that is being closed.
const IN_USE: u64 = u64::MAX;
const CLOSING: u64 = u64::MAX - 1;

/// A connection to a backend, kept open for as long as anyone holds it.
#[derive(Clone, Debug)]
pub struct BackendSocket(Arc<Open>);

/// The same, without keeping it open.
#[derive(Debug)]
pub(super) struct BackendSocketWatch(Weak<Open>);

/// What becomes of a connection that somebody wants closed when it has rested for long enough.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// It has not, or is in use: to be looked at again after this time.
    Left(Duration),
    /// It is being closed, or is gone.
    Over,
}

#[derive(Debug)]
struct Open {
    descriptor: OwnedFd,
    made: Instant,
    /// Since how many microseconds after `made` nobody uses it.
    rests_since: AtomicU64,
}

impl BackendSocket {
    /// A connection in use.
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        Self(Arc::new(Open {
            descriptor,
            made: Instant::now(),
            rests_since: AtomicU64::new(IN_USE),
        }))
    }

    /// The handle that rides along with this connection.
    pub fn of(digest: &Digest) -> Option<Self> {
        let data = digest.proxy_digest.as_ref()?.user_data.as_ref()?;
        data.downcast_ref::<Self>().cloned()
    }

    pub(super) fn watch(&self) -> BackendSocketWatch {
        BackendSocketWatch(Arc::downgrade(&self.0))
    }

    /// A request is about to use it; `false` if it must not, because it is being closed.
    pub fn take(&self) -> bool {
        let take = |rests: u64| (rests != CLOSING).then_some(IN_USE);
        let rests = &self.0.rests_since;
        rests.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    /// No request uses it any longer.
    pub fn put_back(&self, now: Instant) {
        self.0.rests_since.store(self.0.micros(now), Relaxed);
    }

    /// Tells the backend that nothing more will be sent: a server that keeps connections alive
    /// closes this one.
    pub fn finish(&self) {
        // Fails only where the backend has closed already.
        let _ = shutdown(self, Shutdown::Write);
    }

    /// The connection as a stream of its own, which keeps it open in place of `self`. Of a Unix socket,
    /// too: reading, writing and closing are the same system calls.
    pub(super) fn into_std(self) -> io::Result<TcpStream> {
        match Arc::try_unwrap(self.0) {
            Ok(open) => Ok(open.descriptor.into()),
            Err(shared) => shared.descriptor.try_clone().map(TcpStream::from),
        }
    }
}

impl BackendSocketWatch {
    /// Closes the connection if nobody has used it for `limit`: Pingora's pool sees its end and drops it.
    pub(super) fn close_if_rested(&self, limit: Duration, now: Instant) -> Rest {
        self.0
            .upgrade()
            .map_or(Rest::Over, |open| open.close_if_rested(limit, now))
    }
}

impl Open {
    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.made).as_micros();
        u64::try_from(since).unwrap_or(0)
    }

    fn close_if_rested(&self, limit: Duration, now: Instant) -> Rest {
        let since = self.rests_since.load(Relaxed);
        if since == IN_USE {
            return Rest::Left(limit);
        }
        let rested = Duration::from_micros(self.micros(now).saturating_sub(since));
        if rested < limit {
            return Rest::Left(limit - rested);
        }
        let closing = self
            .rests_since
            .compare_exchange(since, CLOSING, Relaxed, Relaxed);
        if closing.is_err() {
            return Rest::Left(limit);
        }
        // Fails only where the backend has closed already.
        let _ = shutdown(&self.descriptor, Shutdown::Both);
        Rest::Over
    }
}

impl AsFd for BackendSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    fn connection() -> (BackendSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        (BackendSocket::new(ours.into()), theirs)
    }

    #[test]
    fn what_has_rested_for_long_enough_is_closed_and_never_used_again() {
        let (socket, mut backend) = connection();
        let now = Instant::now();
        socket.put_back(now);
        let watch = socket.watch();
        let half = watch.close_if_rested(LIMIT, now + LIMIT / 2);
        assert!(matches!(half, Rest::Left(left) if left.abs_diff(LIMIT / 2) < LIMIT / 100));
        assert_eq!(watch.close_if_rested(LIMIT, now + LIMIT * 2), Rest::Over);
        assert!(!socket.take());
        assert_eq!(backend.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn what_is_in_use_stays_open() {
        let (socket, _backend) = connection();
        let (watch, later) = (socket.watch(), Instant::now() + LIMIT * 100);
        assert_eq!(watch.close_if_rested(LIMIT, later), Rest::Left(LIMIT));
        socket.put_back(Instant::now());
        assert!(socket.take());
        assert_eq!(watch.close_if_rested(LIMIT, later), Rest::Left(LIMIT));
    }

    #[test]
    fn what_is_gone_is_over() {
        let (socket, _backend) = connection();
        let watch = socket.watch();
        drop(socket);
        assert_eq!(watch.close_if_rested(LIMIT, Instant::now()), Rest::Over);
    }
}
