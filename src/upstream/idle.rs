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
