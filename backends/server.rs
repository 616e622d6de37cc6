//! One demo server: what it answers, and that it answers one request at a time.
//!
//! Invariant: whatever a request needs happens while it holds its server's `turn`. When the client
//! leaves, hyper drops the request's future and with it the turn, or the place in line for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Mutex;
use warp::Filter;
use warp::http::{Response, StatusCode};

/// What a `/` request costs and how it ends.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// How long it takes.
    pub delay: Duration,
    /// The share that is answered 500; 0 to 1.
    pub fail_rate: f64,
}

/// One server, shared by its connections.
pub struct Server {
    name: &'static str,
    work: Work,
    /// Whoever holds it is being served. Tokio's mutex is fair: first come, first served.
    turn: Mutex<()>,
    /// `/` requests begun.
    count: AtomicU64,
}

impl Server {
    /// A server that has served nobody yet.
    pub fn new(name: &'static str, work: Work) -> Self {
        Self {
            name,
            work,
            turn: Mutex::new(()),
            count: AtomicU64::new(0),
        }
    }

    /// Serves every connection to `listener`, for ever.
    pub async fn serve(self, listener: TcpListener) {
        let server = Arc::new(self);
        let with_server = warp::any().map(move || Arc::clone(&server));
        let hello = warp::path::end()
            .and(with_server.clone())
            .then(|server: Arc<Self>| async move { server.hello().await });
        let ping = warp::path!("ping")
            .and(with_server)
            .then(|server: Arc<Self>| async move { server.ping().await });
        warp::serve(hello.or(ping)).incoming(listener).run().await;
    }

    async fn hello(&self) -> Response<String> {
        let _turn = self.turn.lock().await;
        tokio::time::sleep(self.work.delay).await;
        let index = self.count.fetch_add(1, Ordering::Relaxed);
        if is_failure(index, self.work.fail_rate) {
            self.answer(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("{} failed, as --fail-rate asks", self.name),
            )
        } else {
            self.answer(StatusCode::OK, format!("Hello from {}", self.name))
        }
    }

    async fn ping(&self) -> Response<String> {
        let _turn = self.turn.lock().await;
        self.answer(StatusCode::OK, "pong".to_owned())
    }

    fn answer(&self, status: StatusCode, body: String) -> Response<String> {
        Response::builder()
            .status(status)
            .header("X-Backend", self.name)
            .header("Content-Type", "text/plain; charset=utf-8")
            .body(body)
            .expect("a status and two constant header names make a valid response")
    }
}

/// Whether request number `index` (from 0) fails, so that of the first n requests n × `rate` did,
/// rounded down: even spacing needs no random source and repeats exactly.
fn is_failure(index: u64, rate: f64) -> bool {
    // Exact up to 2^53 requests, which no demo reaches.
    let failed_before = |requests: u64| (requests as f64 * rate) as u64;
    failed_before(index + 1) > failed_before(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_asked_share_and_even_spacing() {
        let failing = |rate| {
            (0..100)
                .filter(|&index| is_failure(index, rate))
                .collect::<Vec<_>>()
        };
        assert_eq!(failing(0.0), Vec::<u64>::new());
        assert_eq!(
            failing(0.25),
            (0..100).filter(|index| index % 4 == 3).collect::<Vec<_>>()
        );
        assert_eq!(failing(1.0).len(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_waits_behind_the_request_being_served() {
        let server = Arc::new(Server::new(
            "a",
            Work {
                delay: Duration::from_secs(1),
                fail_rate: 0.0,
            },
        ));
        let begun = tokio::time::Instant::now();
        let first = tokio::spawn({
            let server = Arc::clone(&server);
            async move { server.hello().await }
        });
        tokio::task::yield_now().await;
        server.ping().await;
        assert!(begun.elapsed() >= Duration::from_secs(1));
        assert!(first.is_finished());
    }
}
