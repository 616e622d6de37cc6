//! A handle on a connection to a backend, beside Pingora's own: for abandoned work, which outlives the
//! request, and for closing a connection that nobody uses.
//!
//! Invariant: whoever takes a connection for a request and whoever closes it for being idle settle it by
//! one compare-and-swap; a connection that is being closed is never used again. Nor is one of an era that is over.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pingora::protocols::Digest;
use rustix::net::{Shutdown, shutdown};

/// What `rests_since` says while a request has the connection, and of one that is being closed.
const IN_USE: u64 = u64::MAX;
const CLOSING: u64 = u64::MAX - 1;

/// How long a backend's connections are good for: until it turns sick, is back, is somewhere else, or has closed too many.
#[derive(Debug, Default)]
pub(super) struct Eras(Arc<AtomicU64>);

/// One of them.
#[derive(Debug)]
pub(super) struct Era {
    latest: Arc<AtomicU64>,
    number: u64,
}

impl Eras {
    /// The connections that there are must not serve another request.
    pub(super) fn end(&self) {
        self.0.fetch_add(1, SeqCst);
    }

    /// The one that it is now.
    pub(super) fn now(&self) -> Era {
        Era {
            latest: self.0.clone(),
            number: self.0.load(SeqCst),
        }
    }
}

impl Era {
    fn is_over(&self) -> bool {
        self.latest.load(SeqCst) != self.number
    }
}

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
    /// In which it was made.
    era: Era,
    /// It must not serve another request, whatever era it is.
    is_spent: AtomicBool,
    /// Since how many microseconds after `made` nobody uses it.
    rests_since: AtomicU64,
}

impl BackendSocket {
    /// A connection in use.
    pub(super) fn new(descriptor: OwnedFd, era: Era) -> Self {
        Self(Arc::new(Open {
            descriptor,
            made: Instant::now(),
            era,
            is_spent: AtomicBool::new(false),
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

    /// A request is about to use it; `false` if it must not, because it is being closed, or should have been: it has
    /// rested for `limit`, and who closes such connections is late, or it must not serve another request.
    pub fn take(&self, limit: Duration, now: Instant) -> bool {
        let open = &*self.0;
        let take = |since| {
            let is_good = match since {
                // It was made for this request.
                IN_USE => true,
                CLOSING => false,
                since => open.rested(since, now) < limit && !open.is_over(),
            };
            is_good.then_some(IN_USE)
        };
        open.rests_since
            .fetch_update(Relaxed, Relaxed, take)
            .is_ok()
    }

    /// No request uses it any longer. It is closed if it must not serve another one: Pingora's pool sees its end and
    /// drops it.
    pub fn put_back(&self, now: Instant) {
        let open = &*self.0;
        // Whoever ends the era looks for resting connections afterwards, so one of the two sees it.
        open.rests_since.store(open.micros(now), SeqCst);
        if open.is_over() {
            open.close_if_resting();
        }
    }

    /// This is the last request that it serves: what else may come on it is not an answer to the next one.
    pub fn serve_no_other(&self) {
        self.0.is_spent.store(true, Relaxed);
    }

    /// Tells the backend that nothing more will be sent: a server that keeps connections alive
    /// closes this one.
    pub fn finish(&self) {
        self.serve_no_other();
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
    /// Closes the connection if nobody uses it. `false` if there is nothing left of it.
    pub(super) fn close_if_resting(&self) -> bool {
        self.0
            .upgrade()
            .is_some_and(|open| !open.close_if_resting())
    }

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

    /// It must not serve another request.
    fn is_over(&self) -> bool {
        self.is_spent.load(Relaxed) || self.era.is_over()
    }

    fn rested(&self, since: u64, now: Instant) -> Duration {
        Duration::from_micros(self.micros(now).saturating_sub(since))
    }

    fn close_if_rested(&self, limit: Duration, now: Instant) -> Rest {
        let since = self.rests_since.load(Relaxed);
        if since == IN_USE {
            return Rest::Left(limit);
        }
        let rested = self.rested(since, now);
        if rested < limit {
            return Rest::Left(limit - rested);
        }
        match self.close_from(since) {
            true => Rest::Over,
            false => Rest::Left(limit),
        }
    }

    /// Says whether it is closed.
    fn close_if_resting(&self) -> bool {
        match self.rests_since.load(SeqCst) {
            IN_USE => false,
            CLOSING => true,
            since => self.close_from(since),
        }
    }

    /// Closes it, unless somebody uses it who did not when it had rested since then.
    fn close_from(&self, since: u64) -> bool {
        let closing = self
            .rests_since
            .compare_exchange(since, CLOSING, Relaxed, Relaxed);
        if closing.is_ok() {
            // Fails only where the backend has closed already.
            let _ = shutdown(&self.descriptor, Shutdown::Both);
        }
        closing.is_ok()
    }
}

impl AsFd for BackendSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    fn connection() -> (BackendSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        (
            BackendSocket::new(ours.into(), Eras::default().now()),
            theirs,
        )
    }

    fn is_taken(socket: &BackendSocket) -> bool {
        socket.take(LIMIT, Instant::now())
    }

    #[test]
    fn what_has_rested_for_too_long_is_not_used_though_nobody_has_closed_it() {
        let (socket, _backend) = connection();
        let now = Instant::now();
        assert!(
            socket.take(LIMIT, now + LIMIT * 9),
            "it has served nobody yet"
        );
        socket.put_back(now);
        assert!(!socket.take(LIMIT, now + LIMIT));
        assert!(socket.take(LIMIT, now + LIMIT / 2));
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
        assert!(!is_taken(&socket));
        assert_eq!(backend.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn what_is_in_use_stays_open() {
        let (socket, _backend) = connection();
        let (watch, later) = (socket.watch(), Instant::now() + LIMIT * 100);
        assert_eq!(watch.close_if_rested(LIMIT, later), Rest::Left(LIMIT));
        socket.put_back(Instant::now());
        assert!(is_taken(&socket));
        assert_eq!(watch.close_if_rested(LIMIT, later), Rest::Left(LIMIT));
    }

    #[test]
    fn of_an_era_that_is_over_the_resting_are_closed_and_the_others_when_they_are_done() {
        let (socket, mut backend) = connection();
        let (watch, now) = (socket.watch(), Instant::now());
        Eras(socket.0.era.latest.clone()).end();
        assert!(watch.close_if_resting(), "it is in use");
        socket.put_back(now);
        assert!(!is_taken(&socket));
        assert_eq!(backend.read(&mut [0]).unwrap(), 0);
        assert!(!watch.close_if_resting());

        let (socket, mut backend) = connection();
        socket.put_back(now);
        assert!(!socket.watch().close_if_resting());
        assert!(!is_taken(&socket));
        assert_eq!(backend.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn whose_era_is_over_is_not_used_though_nobody_has_closed_it_yet() {
        let (socket, _backend) = connection();
        socket.put_back(Instant::now());
        assert!(is_taken(&socket));
        socket.put_back(Instant::now());
        Eras(socket.0.era.latest.clone()).end();
        assert!(!is_taken(&socket));
    }

    #[test]
    fn what_may_serve_no_other_is_closed_when_it_is_done() {
        let (socket, mut backend) = connection();
        socket.serve_no_other();
        socket.put_back(Instant::now());
        assert!(!is_taken(&socket));
        assert_eq!(backend.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn who_is_told_that_nothing_more_comes_can_still_answer() {
        let (socket, mut backend) = connection();
        socket.put_back(Instant::now());
        socket.finish();
        assert!(!is_taken(&socket), "nothing can be sent on it");
        assert_eq!(backend.read(&mut [0]).unwrap(), 0);
        backend.write_all(b"!").unwrap();
        let mut ours = socket.into_std().unwrap();
        assert_eq!(ours.read(&mut [0]).unwrap(), 1);
    }

    #[test]
    fn what_is_gone_is_over() {
        let (socket, _backend) = connection();
        let watch = socket.watch();
        drop(socket);
        assert_eq!(watch.close_if_rested(LIMIT, Instant::now()), Rest::Over);
    }
}
