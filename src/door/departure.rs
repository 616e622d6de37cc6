//! Notices clients that leave while they wait for a slot.
//!
//! Pingora does not look at a client's connection while its request waits, and reading from it would
//! take bytes that are not ours (a body, a pipelined request). So the descriptors of waiting clients
//! are registered with an epoll instance of their own, which reports a close without reading.
//! A half-close counts as leaving.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many events are taken at a time.
const EVENTS_MAX: usize = 256;

/// The clients that wait, each with a bell to ring when it leaves.
pub struct Departures {
    registry: Registry,
    /// By token. Tokens are never used twice, so a late event rings nobody else's bell.
    bells: Mutex<HashMap<Token, Arc<Notify>>>,
    next: AtomicUsize,
}

impl Departures {
    /// The watch, and the poll that [`Departures::run`] needs.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new() -> io::Result<(Arc<Self>, Poll)> {
        let poll = Poll::new()?;
        let departures = Self {
            registry: poll.registry().try_clone()?,
            bells: Mutex::default(),
            next: AtomicUsize::new(0),
        };
        Ok((Arc::new(departures), poll))
    }

    /// Watches the client at the other end of `descriptor`, which must stay open until the
    /// [`Departure`] is dropped.
    ///
    /// # Errors
    /// When the descriptor can't be watched.
    pub fn watch(self: &Arc<Self>, descriptor: RawFd) -> io::Result<Departure> {
        let token = Token(self.next.fetch_add(1, Relaxed));
        let bell = Arc::new(Notify::new());
        self.bells.lock().insert(token, bell.clone());
        let departure = Departure {
            departures: self.clone(),
            descriptor,
            token,
            bell,
        };
        self.registry
            .register(&mut SourceFd(&descriptor), token, Interest::READABLE)?;
        Ok(departure)
    }

    /// Rings bells, for ever; blocks its thread.
    ///
    /// # Errors
    /// When epoll fails, which leaves departures unnoticed.
    pub fn run(&self, mut poll: Poll) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            match poll.poll(&mut events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Err(_) | Ok(()) => {}
            }
            let bells = self.bells.lock();
            for event in &events {
                if event.is_read_closed() || event.is_error() {
                    bells.get(&event.token()).inspect(|bell| bell.notify_one());
                }
            }
        }
    }
}

/// One client's leaving.
pub struct Departure {
    departures: Arc<Departures>,
    descriptor: RawFd,
    token: Token,
    bell: Arc<Notify>,
}

impl Departure {
    /// Waits until the client leaves.
    ///
    /// # Cancel safety
    /// Safe: a departure that was noticed is noticed by the next call, too.
    pub async fn wait(&self) {
        self.bell.notified().await;
        self.bell.notify_one();
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.departures.bells.lock().remove(&self.token);
        // Fails only where registering had failed.
        let _ = self
            .departures
            .registry
            .deregister(&mut SourceFd(&self.descriptor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_secs(5);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    fn watch() -> Arc<Departures> {
        let (departures, poll) = Departures::new().unwrap();
        let watch = departures.clone();
        std::thread::spawn(move || watch.run(poll));
        departures
    }

    #[tokio::test]
    async fn a_client_that_leaves_unread_bytes_behind_is_noticed() {
        let departures = watch();
        let (mut client, server) = pair().await;
        client.write_all(b"a body that nobody reads").await.unwrap();
        let departure = departures.watch(server.as_raw_fd()).unwrap();
        let waited = timeout(Duration::from_millis(50), departure.wait()).await;
        assert!(waited.is_err(), "it has not left");
        client.shutdown().await.unwrap();
        timeout(SOON, departure.wait()).await.unwrap();
        timeout(SOON, departure.wait()).await.unwrap();
    }

    #[tokio::test]
    async fn a_watch_that_ended_leaves_nothing_behind() {
        let departures = watch();
        let (client, server) = pair().await;
        drop(departures.watch(server.as_raw_fd()).unwrap());
        assert!(departures.bells.lock().is_empty());
        let again = departures.watch(server.as_raw_fd()).unwrap();
        drop(client);
        timeout(SOON, again.wait()).await.unwrap();
    }
}
