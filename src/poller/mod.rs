//! Pings every backend and writes the health file.
//!
//! A process of its own, with nothing in common with the proxy but the file and the configuration.
//! Owns the schedule; one ping is `probe`'s, the file is `health`'s.
//!
//! Invariants: all pings of a round go out at the same time; each round that ends is written, also
//! when nothing changed, because the proxy counts freshness from the last write; nothing that a
//! backend or the disk does ends [`run`].

mod probe;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{InvalidUri, PathAndQuery};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error, info, warn};

use crate::health;
use crate::id::BackendName;

pub use probe::{BODY_BYTES_MAX, PingFailure};

/// Pings under way at once: below the usual limit of 1,024 open files. Further ones wait, so a round
/// takes up to `timeout` for each 256 targets that hang.
const PINGS_MAX: usize = 256;

/// What to ping, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The health file to write.
    pub file: PathBuf,
    /// What to ask each target for: begins with `/`, may have a query.
    pub path: String,
    /// From the start of a round to the start of the next; above zero. A round that takes longer is
    /// followed by the next at once, never by two.
    pub interval: Duration,
    /// The most that one ping may take, with connect and body.
    pub timeout: Duration,
    /// Whom to ping; names unique.
    pub targets: Vec<Target>,
}

/// One backend to ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name in the health file.
    pub name: BackendName,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What one ping found.
#[derive(Debug)]
pub struct Ping {
    /// Whom it was sent to.
    pub target: Target,
    /// How long the answer took, or why the target is unhealthy.
    pub outcome: Result<Duration, PingFailure>,
}

impl Ping {
    /// Whether the target answered as it should.
    pub fn is_healthy(&self) -> bool {
        self.outcome.is_ok()
    }
}

/// A plan that cannot be followed: the caller gives up.
#[derive(Debug, Error)]
pub enum PollerError {
    /// The path is none.
    #[error("path {path:?} cannot be asked for")]
    Path {
        /// As in the plan.
        path: String,
        /// What is wrong with it.
        #[source]
        source: InvalidUri,
    },
    /// The path does not begin at the root.
    #[error("path {path:?} does not begin with \"/\"")]
    Relative {
        /// As in the plan.
        path: String,
    },
    /// Rounds without a pause.
    #[error("interval 0s is not above zero")]
    Interval,
}

/// Pings all targets now and then once each interval, and writes the health file after every round,
/// until `stop` is done. The round under way is then abandoned; a write under way is completed by
/// the runtime.
///
/// A write that fails is logged, and the next round tries again.
///
/// # Errors
///
/// At once, when the plan cannot be followed.
///
/// # Cancel safety
///
/// May be dropped at any time; so it is stopped.
pub async fn run(plan: &Plan, stop: impl Future<Output = ()>) -> Result<(), PollerError> {
    check(plan)?;
    tokio::select! {
        biased;
        () = stop => Ok(()),
        never = repeat(plan) => match never {},
    }
}

fn check(plan: &Plan) -> Result<(), PollerError> {
    let path = || plan.path.clone();
    if !plan.path.starts_with('/') {
        return Err(PollerError::Relative { path: path() });
    }
    if let Err(source) = plan.path.parse::<PathAndQuery>() {
        return Err(PollerError::Path {
            path: path(),
            source,
        });
    }
    if plan.interval.is_zero() {
        return Err(PollerError::Interval);
    }
    Ok(())
}

async fn repeat(plan: &Plan) -> std::convert::Infallible {
    let mut known = vec![None; plan.targets.len()];
    let mut ticks = interval(plan.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let pings = round(plan).await;
        for (ping, known) in pings.iter().zip(&mut known) {
            log(ping, known.replace(ping.is_healthy()));
        }
        if let Err(error) = write(plan, &pings).await {
            let file = plan.file.display();
            error!(%file, %error, "health file not written");
        }
    }
}

fn log(ping: &Ping, before: Option<bool>) {
    let backend = &ping.target.name;
    match &ping.outcome {
        Ok(took) => debug!(%backend, ?took, "ping answered"),
        Err(reason) => debug!(%backend, %reason, "ping failed"),
    }
    if before == Some(ping.is_healthy()) {
        return;
    }
    match &ping.outcome {
        Ok(_) => info!(%backend, "healthy"),
        Err(reason) => warn!(%backend, %reason, "unhealthy"),
    }
}

/// Pings every target once, all at the same time (up to 256), and gives the results in the order of
/// the targets. Takes no longer than the slowest ping, which the plan's `timeout` bounds.
///
/// # Cancel safety
///
/// May be dropped at any time: the pings under way end with it.
pub async fn round(plan: &Plan) -> Vec<Ping> {
    let path: Arc<str> = plan.path.as_str().into();
    let turns = Arc::new(Semaphore::new(PINGS_MAX));
    let mut pings = JoinSet::new();
    for (place, target) in plan.targets.iter().enumerate() {
        let (path, turns) = (path.clone(), turns.clone());
        let (address, timeout) = (target.address, plan.timeout);
        pings.spawn(async move {
            // Closed never; were it, the bound would be lost but not the ping.
            let _turn = turns.acquire().await;
            (place, probe::ping(address, &path, timeout).await)
        });
    }
    let mut outcomes: Vec<_> = plan
        .targets
        .iter()
        .map(|_| Err(PingFailure::Crashed))
        .collect();
    while let Some(joined) = pings.join_next().await {
        match joined {
            Ok((place, outcome)) => outcomes[place] = outcome,
            // Its target keeps `Crashed`: a defect must not leave it healthy for ever.
            Err(error) => error!(%error, "a ping crashed"),
        }
    }
    let targets = plan.targets.iter().cloned();
    targets
        .zip(outcomes)
        .map(|(target, outcome)| Ping { target, outcome })
        .collect()
}

/// Writes what a round found into the plan's health file, off the threads of the runtime.
///
/// # Errors
///
/// When the file could not be written.
///
/// # Cancel safety
///
/// May be dropped at any time; a write that has begun is completed.
pub async fn write(plan: &Plan, pings: &[Ping]) -> io::Result<()> {
    let file = plan.file.clone();
    let verdicts: Vec<(BackendName, bool)> = pings
        .iter()
        .map(|ping| (ping.target.name.clone(), ping.is_healthy()))
        .collect();
    let written = spawn_blocking(move || {
        health::write(
            &file,
            verdicts
                .iter()
                .map(|(name, healthy)| (name.as_str(), *healthy)),
        )
    });
    written
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// The results as a table for a terminal: a head, then a line for each ping, columns aligned.
pub fn table(pings: &[Ping]) -> String {
    let head = ["NAME", "ADDRESS", "STATE", "DETAIL"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(pings.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2].map(|column| width(column).unwrap_or(0));
    let [name, address, state] = widths;
    rows.iter()
        .map(|[a, b, c, d]| format!("{a:name$}  {b:address$}  {c:state$}  {d}\n"))
        .collect()
}

fn row(ping: &Ping) -> [String; 4] {
    let (state, detail) = match &ping.outcome {
        Ok(took) => ("healthy", format!("{:.1} ms", took.as_secs_f64() * 1000.0)),
        Err(failure) => ("unhealthy", failure.to_string()),
    };
    let Target { name, address } = &ping.target;
    [
        name.to_string(),
        address.to_string(),
        state.to_owned(),
        detail,
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Instant;

    use tempfile::{TempDir, tempdir};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::{Barrier, oneshot};
    use tokio::time::{sleep, timeout};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn plan(directory: &TempDir, addresses: &[SocketAddr]) -> Plan {
        let target = |(number, address): (usize, &SocketAddr)| Target {
            name: format!("server{}", number + 1).as_str().into(),
            address: *address,
        };
        Plan {
            file: directory.path().join("health_status.json"),
            path: "/ping".into(),
            interval: Duration::from_millis(20),
            timeout: DEADLINE,
            targets: addresses.iter().enumerate().map(target).collect(),
        }
    }

    async fn read_request(stream: &mut TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
    }

    /// A backend that is well while the flag says so, and counts its pings.
    async fn backend() -> (SocketAddr, Arc<AtomicBool>, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (well, count) = (
            Arc::new(AtomicBool::new(true)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (is_well, counter) = (well.clone(), count.clone());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let status = if is_well.load(Ordering::SeqCst) {
                    200
                } else {
                    503
                };
                tokio::spawn(async move {
                    read_request(&mut stream).await;
                    let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                });
            }
        });
        (address, well, count)
    }

    async fn refusing() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    }

    async fn until(what: impl Fn() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed() < DEADLINE, "waited too long");
            sleep(Duration::from_millis(2)).await;
        }
    }

    fn says(plan: &Plan, text: &str) -> bool {
        std::fs::read_to_string(&plan.file).is_ok_and(|found| found == text)
    }

    #[tokio::test]
    async fn a_round_is_in_the_order_of_the_targets() {
        let directory = tempdir().unwrap();
        let (well, _, _) = backend().await;
        let plan = plan(&directory, &[refusing().await, well, refusing().await]);
        let pings = round(&plan).await;
        assert_eq!(
            pings.iter().map(Ping::is_healthy).collect::<Vec<_>>(),
            [false, true, false]
        );
        assert!(pings.iter().map(|ping| &ping.target).eq(&plan.targets));
        write(&plan, &pings).await.unwrap();
        let expected = "{\n  \"server1\": false,\n  \"server2\": true,\n  \"server3\": false\n}\n";
        assert!(says(&plan, expected));
    }

    #[tokio::test]
    async fn pings_go_out_at_the_same_time() {
        const COUNT: usize = 50;
        let directory = tempdir().unwrap();
        // Nobody is answered before all have asked.
        let barrier = Arc::new(Barrier::new(COUNT));
        let mut addresses = Vec::new();
        for _ in 0..COUNT {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            let barrier = barrier.clone();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                barrier.wait().await;
                read_request(&mut stream).await;
                stream.write_all(b"HTTP/1.1 204 x\r\n\r\n").await.unwrap();
            });
        }
        let pings = round(&plan(&directory, &addresses)).await;
        assert!(pings.iter().all(Ping::is_healthy), "{}", table(&pings));
    }

    #[tokio::test]
    async fn more_targets_than_turns_are_all_pinged() {
        let directory = tempdir().unwrap();
        let (well, _, count) = backend().await;
        let pings = round(&plan(&directory, &vec![well; PINGS_MAX + 50])).await;
        assert!(pings.iter().all(Ping::is_healthy), "{}", table(&pings));
        assert_eq!(count.load(Ordering::SeqCst), PINGS_MAX + 50);
    }

    #[tokio::test]
    async fn run_writes_each_round_until_stopped() {
        let directory = tempdir().unwrap();
        let (address, well, count) = backend().await;
        let plan = plan(&directory, &[address]);
        let (stop, stopped) = oneshot::channel::<()>();
        let running = plan.clone();
        let task = tokio::spawn(async move { run(&running, async { drop(stopped.await) }).await });
        let (healthy, sick) = (
            "{\n  \"server1\": true\n}\n",
            "{\n  \"server1\": false\n}\n",
        );
        until(|| says(&plan, healthy)).await;
        well.store(false, Ordering::SeqCst);
        until(|| says(&plan, sick)).await;
        well.store(true, Ordering::SeqCst);
        until(|| says(&plan, healthy)).await;
        // Written also when nothing changed: a file that is gone comes back.
        std::fs::remove_file(&plan.file).unwrap();
        until(|| says(&plan, healthy)).await;
        stop.send(()).unwrap();
        timeout(DEADLINE, task).await.unwrap().unwrap().unwrap();
        let after = count.load(Ordering::SeqCst);
        sleep(plan.interval * 5).await;
        assert_eq!(count.load(Ordering::SeqCst), after, "pinged after the stop");
    }

    #[tokio::test]
    async fn a_write_that_fails_does_not_end_the_run() {
        let directory = tempdir().unwrap();
        let (address, _, count) = backend().await;
        let mut plan = plan(&directory, &[address]);
        let below = directory.path().join("below");
        plan.file = below.join("health_status.json");
        let stop = async {
            until(|| count.load(Ordering::SeqCst) >= 3).await;
            std::fs::create_dir(&below).unwrap();
            until(|| plan.file.exists()).await;
        };
        timeout(DEADLINE, run(&plan, stop)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_a_round() {
        let directory = tempdir().unwrap();
        let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut plan = plan(&directory, &[deaf.local_addr().unwrap()]);
        plan.timeout = DEADLINE * 100;
        let stop = async { drop(deaf.accept().await.unwrap()) };
        timeout(DEADLINE, run(&plan, stop)).await.unwrap().unwrap();
        assert!(!plan.file.exists());
    }

    #[tokio::test]
    async fn a_plan_that_cannot_be_followed_is_refused() {
        let directory = tempdir().unwrap();
        let good = plan(&directory, &[]);
        for (path, expected) in [
            ("ping", "path \"ping\" does not begin with \"/\""),
            ("/a b", "path \"/a b\" cannot be asked for"),
        ] {
            let plan = Plan {
                path: path.into(),
                ..good.clone()
            };
            let error = run(&plan, std::future::pending()).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let plan = Plan {
            interval: Duration::ZERO,
            ..good
        };
        let error = run(&plan, std::future::pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "interval 0s is not above zero");
    }

    #[test]
    fn the_table_is_aligned() {
        let ping = |name: &str, address: &str, outcome| Ping {
            target: Target {
                name: name.into(),
                address: address.parse().unwrap(),
            },
            outcome,
        };
        let pings = [
            ping(
                "server1",
                "127.0.0.1:8081",
                Ok(Duration::from_micros(3_210)),
            ),
            ping(
                "a",
                "[::1]:80",
                Err(PingFailure::TimedOut(Duration::from_secs(2))),
            ),
        ];
        let expected = "\
NAME     ADDRESS         STATE      DETAIL
server1  127.0.0.1:8081  healthy    3.2 ms
a        [::1]:80        unhealthy  no answer within 2s
";
        assert_eq!(table(&pings), expected);
    }
}
