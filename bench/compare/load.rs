//! Owns the load of the plain path: a fixed number of requests over a fixed number of keep-alive connections,
//! each of which sends its next request when it has its answer.

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use crate::http::{Client, request};
use crate::stats::percentile;

/// How long a program may take to listen. Under valgrind it takes seconds.
const START_LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Arguments {
    /// How many requests to send.
    #[arg(long)]
    requests: u64,
    /// Over how many connections.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long, default_value = "/home")]
    path: String,
    /// A port of this machine.
    port: u16,
}

/// What a run of requests was like.
pub struct Outcome {
    pub failed: u64,
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// For the command line: prints the outcome; a failed request is exit status 1.
pub async fn report(arguments: &Arguments) -> Result<ExitCode> {
    wait_for_listener(arguments.port).await?;
    let outcome = run(
        arguments.port,
        &arguments.path,
        arguments.requests,
        arguments.connections,
    )
    .await?;
    println!(
        "{:.0} requests/s, p50 {} µs, p99 {} µs, {} of {} failed",
        outcome.per_second,
        outcome.p50.as_micros(),
        outcome.p99.as_micros(),
        outcome.failed,
        arguments.requests
    );
    Ok(if outcome.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns when somebody accepts connections at the port.
pub async fn wait_for_listener(port: u16) -> Result<()> {
    let start = Instant::now();
    loop {
        match Client::connect(port).await {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > START_LIMIT => {
                return Err(error).with_context(|| format!("nobody listens at port {port}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Sends the requests. The connections are made before the clock starts.
pub async fn run(port: u16, path: &str, requests: u64, connections: usize) -> Result<Outcome> {
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        clients.push(Client::connect(port).await?);
    }
    let work = Rc::new(Work {
        port,
        request: request(path),
        left: Cell::new(requests),
        failed: Cell::new(0),
    });
    let start = Instant::now();
    let mut latencies = send_all(clients, &work).await?;
    let elapsed = start.elapsed();
    latencies.sort_unstable();
    Ok(Outcome {
        failed: work.failed.get(),
        per_second: requests as f64 / elapsed.as_secs_f64(),
        p50: Duration::from_nanos(percentile(&latencies, 50)),
        p99: Duration::from_nanos(percentile(&latencies, 99)),
    })
}

/// What the connections share.
struct Work {
    port: u16,
    request: Vec<u8>,
    left: Cell<u64>,
    failed: Cell<u64>,
}

impl Work {
    fn take_one(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }
}

async fn send_all(clients: Vec<Client>, work: &Rc<Work>) -> Result<Vec<u64>> {
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn_local(send_some(client, Rc::clone(work)));
    }
    let mut latencies = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        latencies.append(&mut ended??);
    }
    Ok(latencies)
}

/// One connection, and its latencies in nanoseconds. It is replaced when it breaks.
async fn send_some(mut client: Client, work: Rc<Work>) -> Result<Vec<u64>> {
    let mut latencies = Vec::new();
    while work.take_one() {
        let start = Instant::now();
        let answer = client.get(&work.request).await;
        latencies.push(u64::try_from(start.elapsed().as_nanos())?);
        if !matches!(&answer, Ok(answer) if answer.status == 200) {
            work.failed.set(work.failed.get() + 1);
        }
        if !matches!(&answer, Ok(answer) if answer.keep) {
            client = Client::connect(work.port).await?;
        }
    }
    Ok(latencies)
}
