//! What Prometheus watches, and what can be done to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::task::{JoinHandle, JoinSet};

use crate::harness::{Backend, Program, Proxy, Site, Units, backend, get, proxy};

/// How many descriptors the proxy may have open.
pub(super) const DESCRIPTORS: usize = 400;

/// Requests one after the other, at this distance, whatever becomes of them, until it is dropped.
pub(super) struct Steady(JoinHandle<()>);

impl Steady {
    pub fn of(address: SocketAddr, path: &'static str, distance: Duration) -> Self {
        Self(tokio::spawn(async move {
            let mut clock = tokio::time::interval(distance);
            let mut under_way = JoinSet::new();
            loop {
                clock.tick().await;
                while under_way.try_join_next().is_some() {}
                under_way.spawn(async move { _ = get(path).send_to(address).await });
            }
        }))
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How the proxy is started, in a shell. The pipe is opened for both, so that this waits for nobody.
const LOGGING_INTO_A_PIPE: &str = r#"mkfifo log.fifo; exec "$@" 1<>log.fifo"#;

/// What everything happens to.
pub(super) struct Scene {
    pub lb: Proxy,
    pub poller: Program,
    pub web: [Backend; 2],
    pub slow: Backend,
    /// Whether anyone reads the access log.
    pub reads_log: Arc<AtomicBool>,
}

impl Scene {
    /// Three upstreams: `web`, whose two backends are quick; `slow`, where five may wait; `flaky`, which never answers.
    /// The access log goes into a pipe, so that it can be read or not.
    pub async fn set(poller_page: SocketAddr) -> Self {
        let [a, b, slow, flaky] = [
            backend("a").takes(20.millis()).start().await,
            backend("b").takes(20.millis()).start().await,
            backend("slow")
                .takes(1200.millis())
                .pings_wait()
                .start()
                .await,
            backend("flaky").breaks_off_first(usize::MAX).start().await,
        ];
        let limit = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
        let lb = proxy()
            .upstream("web", [&a, &b])
            .upstream("slow", [&slow])
            .upstream("flaky", [&flaky])
            .key("maitred.upstreams.slow.queue.size", 5)
            .poll_every(500.millis())
            .poller_key("metrics", poller_page.to_string())
            .health_key("stale_after", "3s")
            .run_by(&["prlimit", &limit, "sh", "-c", LOGGING_INTO_A_PIPE, "sh"])
            .alone()
            .start()
            .await;
        let reads_log = Arc::new(AtomicBool::new(true));
        read_log(lb.site(), reads_log.clone());
        Self {
            poller: lb.site().start_poller(),
            lb,
            web: [a, b],
            slow,
            reads_log,
        }
    }
}

/// Reads the access log while it is wanted.
fn read_log(site: &Site, is_wanted: Arc<AtomicBool>) {
    let log = pipe::OpenOptions::new().open_receiver(site.path("log.fifo"));
    let log = log.unwrap();
    tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 16];
        loop {
            match is_wanted.load(Ordering::Relaxed) && log.try_read(&mut bytes).is_ok() {
                true => tokio::task::yield_now().await,
                false => tokio::time::sleep(10.millis()).await,
            }
        }
    });
}

/// Requests for what is not there, as fast as they are answered.
pub(super) async fn flood(address: SocketAddr) {
    let requests = get("/nowhere").encode().repeat(50);
    let (mut answers, mut asking) = TcpStream::connect(address).await.unwrap().into_split();
    tokio::spawn(async move { tokio::io::copy(&mut answers, &mut tokio::io::sink()).await });
    while asking.write_all(&requests).await.is_ok() {}
}
