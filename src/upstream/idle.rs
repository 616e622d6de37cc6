//! Closes connections to a backend that nobody has used for `timeouts.idle`.
//!
//! Pingora's pool can do it, too, with a timer each time a connection is put back: 2 % of what a request
//! costs. Here a request stores when it was done, and one task per backend looks at all its connections
//! for as long as there are any. Who knows them all also closes them all when the backend turns sick or is back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::sleep;

use super::socket::{BackendSocket, BackendSocketWatch, Era, Eras, Rest};

/// No connection is closed later than `limit` plus a sixteenth, and none looked at more often than so.
const LOOKS_PER_LIMIT: u32 = 16;

/// What a timer can tell.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// The connections to one backend.
#[derive(Debug)]
pub(super) struct IdleLimit {
    limit: Duration,
    eras: Eras,
    open: Mutex<OpenSockets>,
}

#[derive(Debug, Default)]
struct OpenSockets {
    sockets: Vec<BackendSocketWatch>,
    /// Whether a task looks at them.
    is_kept: bool,
}

impl IdleLimit {
    pub(super) fn new(limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            limit,
            eras: Eras::default(),
            open: Mutex::default(),
        })
    }

    /// How long a connection that is made now is good for.
    pub(super) fn era(&self) -> Era {
        self.eras.now()
    }

    /// No connection that there is serves another request: those that nobody uses are closed now, the others when
    /// they are done.
    pub(super) fn close_all(&self) {
        self.eras.end();
        let mut open = self.open.lock();
        open.sockets.retain(BackendSocketWatch::close_if_resting);
    }

    /// Closes who is due, because somebody has met one: it is late for that.
    pub(super) fn close_late(&self, now: Instant) {
        self.open.lock().close_rested(self.limit, now);
    }

    /// Closes this connection, too, when nobody has used it for long enough. Needs a tokio runtime.
    pub(super) fn keep(self: &Arc<Self>, socket: &BackendSocket) {
        let mut open = self.open.lock();
        open.sockets.push(socket.watch());
        if !std::mem::replace(&mut open.is_kept, true) {
            tokio::spawn(self.clone().until_none_is_open());
        }
    }

    async fn until_none_is_open(self: Arc<Self>) {
        while let Some(pause) = self.look(Instant::now()) {
            sleep(pause).await;
        }
    }

    /// Closes who is due. Returns when to look again, unless none is left.
    fn look(&self, now: Instant) -> Option<Duration> {
        let mut open = self.open.lock();
        let pause = open.close_rested(self.limit, now);
        open.is_kept = !open.sockets.is_empty();
        let shortest = PAUSE_MIN.max(self.limit / LOOKS_PER_LIMIT);
        open.is_kept.then(|| pause.max(shortest))
    }
}

impl OpenSockets {
    /// Says when the next is due, or `limit`.
    fn close_rested(&mut self, limit: Duration, now: Instant) -> Duration {
        let mut pause = limit;
        self.sockets
            .retain(|socket| match socket.close_if_rested(limit, now) {
                Rest::Over => false,
                Rest::Left(left) => {
                    pause = pause.min(left);
                    true
                }
            });
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(1600);
    const LATEST: Duration = Duration::from_millis(100);

    /// A connection that is kept, and the backend's end of it.
    fn kept(idle: &Arc<IdleLimit>) -> (BackendSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        let socket = BackendSocket::new(ours.into(), idle.era());
        idle.keep(&socket);
        (socket, theirs)
    }

    fn is_open(backend: &mut TcpStream) -> bool {
        backend.set_nonblocking(true).unwrap();
        let read = backend.read(&mut [0]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    #[tokio::test]
    async fn the_next_look_is_when_the_first_is_due_and_none_is_needless() {
        let idle = IdleLimit::new(LIMIT);
        let ((one, mut backend), (other, _other_backend)) = (kept(&idle), kept(&idle));
        let now = Instant::now();
        assert_eq!(idle.look(now), Some(LIMIT), "all are in use");
        one.put_back(now);
        let is_about = |pause: Option<Duration>, millis| {
            let expected = Duration::from_millis(millis);
            pause.unwrap().abs_diff(expected) < Duration::from_millis(1)
        };
        assert!(is_about(idle.look(now + LIMIT / 2), 800));
        let last = LIMIT - Duration::from_millis(1);
        assert_eq!(idle.look(now + last), Some(LATEST), "a sixteenth");
        assert!(is_open(&mut backend));
        assert_eq!(
            idle.look(now + LIMIT * 2),
            Some(LIMIT),
            "the other is in use"
        );
        assert!(!is_open(&mut backend));
        drop((one, other));
        assert_eq!(idle.look(now), None, "they are gone");
    }

    #[tokio::test]
    async fn whoever_rests_too_long_is_closed_also_after_all_the_others_were_gone() {
        let idle = IdleLimit::new(Duration::from_millis(20));
        for _ in 0..2 {
            let (socket, mut backend) = kept(&idle);
            socket.put_back(Instant::now());
            let begun = Instant::now();
            while is_open(&mut backend) {
                assert!(begun.elapsed() < Duration::from_secs(5), "never closed");
                sleep(Duration::from_millis(1)).await;
            }
            drop(socket);
            while idle.open.lock().is_kept {
                assert!(
                    begun.elapsed() < Duration::from_secs(5),
                    "looked at for ever"
                );
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    #[tokio::test]
    async fn who_is_met_late_is_closed_with_all_that_are() {
        let idle = IdleLimit::new(LIMIT);
        let ((late, mut backend), (fresh, mut fresh_backend)) = (kept(&idle), kept(&idle));
        let now = Instant::now();
        late.put_back(now);
        fresh.put_back(now + LIMIT / 2);
        idle.close_late(now + LIMIT);
        assert!(!is_open(&mut backend) && is_open(&mut fresh_backend));
        idle.close_all();
        assert!(!is_open(&mut fresh_backend));
    }
}
