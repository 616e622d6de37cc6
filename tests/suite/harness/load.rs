//! Many clients at once, and what became of their requests.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::client::{Client, Request, Response, get};

/// Longest wait for one answer; more is a failure.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Which load to put on an address; see [`load`].
pub struct Load {
    address: SocketAddr,
    clients: usize,
    requests: usize,
    kind: Kind,
}

/// What a load's requests have in common.
#[derive(Clone)]
struct Kind {
    source: Ipv4Addr,
    header: Option<(&'static str, &'static str)>,
}

/// A load that goes on until it is stopped.
pub struct Running {
    stop: Arc<AtomicBool>,
    clients: JoinSet<Tally>,
}

/// What became of a load's requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answered 200.
    pub ok: usize,
    /// Anything else.
    pub failed: usize,
    pub by_status: BTreeMap<u16, usize>,
    /// Requests without an answer, by the reason.
    pub errors: BTreeMap<String, usize>,
    /// Of the 200s, sorted, without each client's first, which meets an empty queue.
    pub latencies: Vec<Duration>,
    /// 200s by the backend that answered.
    pub by_backend: BTreeMap<String, usize>,
}

/// `GET /home`, by one client and once unless told otherwise. Every request has an id of its own.
pub fn load(address: SocketAddr) -> Load {
    Load {
        address,
        clients: 1,
        requests: 1,
        kind: Kind {
            source: Ipv4Addr::LOCALHOST,
            header: None,
        },
    }
}

impl Load {
    /// How many at once, each on a connection that it keeps.
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }

    /// How many requests each client sends, one after another.
    pub fn requests_each(mut self, requests: usize) -> Self {
        self.requests = requests;
        self
    }

    /// All of them at this address of our own.
    pub fn from(mut self, source: Ipv4Addr) -> Self {
        self.kind.source = source;
        self
    }

    /// With this header.
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.kind.header = Some((name, value));
        self
    }

    /// Runs until every client has sent its requests.
    pub async fn run(self) -> Tally {
        collect(self.start()).await
    }

    /// Runs for this long; what is under way then is still waited for.
    pub async fn lasting(mut self, time: Duration) -> Tally {
        self.requests = usize::MAX;
        let running = self.spawn();
        tokio::time::sleep(time).await;
        running.stop().await
    }

    /// Runs until stopped.
    pub fn spawn(mut self) -> Running {
        self.requests = usize::MAX;
        self.start()
    }

    fn start(self) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for number in 0..self.clients {
            let stop = Arc::clone(&stop);
            clients.spawn(one_client(
                number,
                self.address,
                self.requests,
                self.kind.clone(),
                stop,
            ));
        }
        Running { stop, clients }
    }
}

impl Running {
    /// Lets every client finish the request that it has under way.
    pub async fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        collect(self).await
    }
}

async fn collect(mut running: Running) -> Tally {
    let mut tally = Tally::default();
    while let Some(one) = running.clients.join_next().await {
        tally.add(one.expect("a client does not panic"));
    }
    tally.latencies.sort();
    tally
}

async fn one_client(
    number: usize,
    address: SocketAddr,
    requests: usize,
    Kind { source, header }: Kind,
    stop: Arc<AtomicBool>,
) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    for index in 0..requests {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        let mut request = get("/home").id(format!("{number}-{index}"));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let asked = ask_from(&mut connection, source, address, &request);
        let outcome = tokio::time::timeout(ANSWER_WITHIN, asked).await;
        let outcome = outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if outcome.is_err() {
            connection = None;
        }
        tally.count(outcome, (index > 0).then(|| begun.elapsed()));
    }
    tally
}

/// Asks on the kept connection, or on a new one if there is none.
pub async fn ask_on(
    connection: &mut Option<Client>,
    address: SocketAddr,
    request: &Request,
) -> io::Result<Response> {
    ask_from(connection, Ipv4Addr::LOCALHOST, address, request).await
}

async fn ask_from(
    connection: &mut Option<Client>,
    source: Ipv4Addr,
    address: SocketAddr,
    request: &Request,
) -> io::Result<Response> {
    let mut client = match connection.take() {
        Some(client) => client,
        None => Client::connect_from(source, address).await?,
    };
    let response = client.ask(request).await?;
    if !response.headers.lists("Connection", "close") {
        *connection = Some(client);
    }
    Ok(response)
}

impl Tally {
    /// The latency that this share of the requests did not exceed.
    ///
    /// # Panics
    /// When there are no latencies.
    pub fn quantile(&self, share: f64) -> Duration {
        let index = (self.latencies.len() as f64 * share) as usize;
        self.latencies[index.min(self.latencies.len() - 1)]
    }

    /// # Panics
    /// When a request failed, or none was answered.
    pub fn assert_none_failed(&self) {
        let Self {
            ok,
            failed,
            by_status,
            errors,
            ..
        } = self;
        assert!(
            *failed == 0 && *ok > 0,
            "{ok} ok, {failed} failed: {by_status:?} {errors:?}"
        );
    }

    fn count(&mut self, outcome: io::Result<Response>, latency: Option<Duration>) {
        match outcome {
            Ok(response) if response.status == 200 => {
                self.ok += 1;
                self.latencies.extend(latency);
                *self
                    .by_backend
                    .entry(response.backend().unwrap_or("").to_owned())
                    .or_default() += 1;
                *self.by_status.entry(200).or_default() += 1;
            }
            Ok(response) => {
                self.failed += 1;
                *self.by_status.entry(response.status).or_default() += 1;
            }
            Err(error) => {
                self.failed += 1;
                *self.errors.entry(error.to_string()).or_default() += 1;
            }
        }
    }

    pub fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.latencies.extend(other.latencies);
        add_counts(&mut self.by_status, other.by_status);
        add_counts(&mut self.errors, other.errors);
        add_counts(&mut self.by_backend, other.by_backend);
    }
}

fn add_counts<Key: Ord>(sum: &mut BTreeMap<Key, usize>, more: BTreeMap<Key, usize>) {
    for (key, count) in more {
        *sum.entry(key).or_default() += count;
    }
}
