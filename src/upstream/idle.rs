//! Closes connections to a backend that nobody has used for `timeouts.idle`.
//!
//! Pingora's pool can do it, too, with a timer each time a connection is put back: 2 % of what a request
//! costs. Here a request stores when it was done, and one task per backend looks at all its connections
//! for as long as there are any.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::sleep;

use super::socket::{BackendSocket, BackendSocketWatch, Rest};

/// No connection is closed later than `limit` plus a sixteenth, and none looked at more often than so.
const LOOKS_PER_LIMIT: u32 = 16;

/// What a timer can tell.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// The connections to one backend.
#[derive(Debug)]
pub(super) struct IdleLimit {
    limit: Duration,
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
        let open = Mutex::default();
        Arc::new(Self { limit, open })
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
        let mut pause = self.limit;
        open.sockets
            .retain(|socket| match socket.close_if_rested(self.limit, now) {
                Rest::Over => false,
                Rest::Left(left) => {
                    pause = pause.min(left);
                    true
                }
            });
        open.is_kept = !open.sockets.is_empty();
        let shortest = PAUSE_MIN.max(self.limit / LOOKS_PER_LIMIT);
        open.is_kept.then(|| pause.max(shortest))
    }
}
