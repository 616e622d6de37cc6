//! Those who ask: so many clients, each with its next request when the one before is over; or requests that
//! come by the clock, whatever becomes of those before. What becomes of each is kept.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{Client, Ending, Request, Response, Units};

/// Longest wait for one answer; more is a failure.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Answered 200 by this backend.
    Served(String),
    /// Answered otherwise.
    Refused {
        status: u16,
        /// Of the proxy's own answers.
        error: String,
        retry_after: Option<u64>,
    },
    /// Broke off after the header.
    CutShort,
    /// There was no answer.
    Unanswered(String),
}

/// What became of one request.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub id: String,
    pub begun: Instant,
    pub ended: Instant,
    pub end: End,
}

impl Outcome {
    pub fn took(&self) -> Duration {
        self.ended - self.begun
    }

    pub fn is_served(&self) -> bool {
        matches!(self.end, End::Served(_))
    }
}

/// Clients at work. They end when this is dropped.
pub struct Crowd {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    address: SocketAddr,
    make: fn() -> Request,
    count: AtomicUsize,
    outcomes: Mutex<Vec<Outcome>>,
    idle: Mutex<Vec<Client>>,
    is_over: AtomicBool,
}

impl Shared {
    fn new(address: SocketAddr, make: fn() -> Request) -> Arc<Self> {
        Arc::new(Self {
            address,
            make,
            count: AtomicUsize::new(0),
            outcomes: Mutex::default(),
            idle: Mutex::default(),
            is_over: AtomicBool::new(false),
        })
    }

    /// One request, on this connection if there is one; returns the connection if it can be used again.
    async fn ask(&self, client: Option<Client>) -> Option<Client> {
        let id = format!("r{}", self.count.fetch_add(1, Relaxed));
        let request = (self.make)().id(&id).accepts_json();
        let begun = Instant::now();
        let (end, client) =
            match timeout(ANSWER_WITHIN, asked(client, self.address, &request)).await {
                Ok((ending, client)) => end_of(ending, client),
                Err(_) => (End::Unanswered("nothing in a minute".to_owned()), None),
            };
        self.outcomes().push(Outcome {
            id,
            begun,
            ended: Instant::now(),
            end,
        });
        client
    }

    fn outcomes(&self) -> MutexGuard<'_, Vec<Outcome>> {
        self.outcomes.lock().unwrap()
    }
}

async fn asked(
    client: Option<Client>,
    address: SocketAddr,
    request: &Request,
) -> (Ending, Option<Client>) {
    let client = match client {
        Some(client) => Ok(client),
        None => Client::connect(address).await,
    };
    match client {
        Ok(mut client) => (client.ask_to_the_end(request).await, Some(client)),
        Err(error) => (
            Ending::Unanswered(io::Error::other(format!("connecting: {error}"))),
            None,
        ),
    }
}

fn end_of(ending: Ending, client: Option<Client>) -> (End, Option<Client>) {
    match ending {
        Ending::Answered(response) => {
            let is_kept = !response.headers.lists("Connection", "close");
            (end_by(&response), client.filter(|_| is_kept))
        }
        Ending::CutShort => (End::CutShort, None),
        Ending::Unanswered(error) => (End::Unanswered(error.to_string()), None),
    }
}

fn end_by(response: &Response) -> End {
    if response.status == 200 {
        return End::Served(response.backend().unwrap_or("").to_owned());
    }
    let said: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
    End::Refused {
        status: response.status,
        error: said["error"].as_str().unwrap_or("").to_owned(),
        retry_after: response
            .header("Retry-After")
            .and_then(|text| text.parse().ok()),
    }
}

impl Crowd {
    /// Clients on connections of their own, each of which asks again when it was answered.
    pub fn of(clients: usize, address: SocketAddr, make: fn() -> Request) -> Self {
        let shared = Shared::new(address, make);
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let shared = Arc::clone(&shared);
            tasks.spawn(async move {
                let mut client = None;
                while !shared.is_over.load(Relaxed) {
                    client = shared.ask(client).await;
                }
            });
        }
        Self { shared, tasks }
    }

    /// So many requests a second, each of which comes when its time has come.
    pub fn by_the_clock(per_second: u32, address: SocketAddr, make: fn() -> Request) -> Self {
        let shared = Shared::new(address, make);
        let mut tasks = JoinSet::new();
        let arrivals = Arc::clone(&shared);
        tasks.spawn(async move {
            let begun = tokio::time::Instant::now();
            let mut under_way = JoinSet::new();
            for number in 0.. {
                let due = begun + 1.secs() * number / per_second;
                tokio::time::sleep_until(due).await;
                if arrivals.is_over.load(Relaxed) {
                    break;
                }
                let shared = Arc::clone(&arrivals);
                under_way.spawn(async move {
                    let client = shared.idle.lock().unwrap().pop();
                    let client = shared.ask(client).await;
                    shared.idle.lock().unwrap().extend(client);
                });
            }
            while under_way.join_next().await.is_some() {}
        });
        Self { shared, tasks }
    }

    /// What has become of those that are over.
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.shared.outcomes().clone()
    }

    /// How many are over.
    pub fn over(&self) -> usize {
        self.shared.outcomes().len()
    }

    /// Whether there is one among those that ended since then.
    pub fn has_since(&self, since: Instant, is_it: impl Fn(&Outcome) -> bool) -> bool {
        let outcomes = self.shared.outcomes();
        let mut recent = outcomes.iter().rev().take_while(|one| one.ended >= since);
        recent.any(is_it)
    }

    /// No more requests; those under way are waited for.
    pub async fn ends(mut self) -> Vec<Outcome> {
        self.shared.is_over.store(true, Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.outcomes()
    }
}

/// Sorted times of the requests that were served.
pub struct Times(Vec<Duration>);

impl Times {
    pub fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let served = outcomes.filter(|outcome| outcome.is_served());
        let mut times: Vec<_> = served.map(Outcome::took).collect();
        times.sort();
        Self(times)
    }

    /// Zero where there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let index = (self.0.len() as f64 * share) as usize;
        let last = self.0.len().saturating_sub(1);
        self.0.get(index.min(last)).copied().unwrap_or_default()
    }

    /// Median, 99th percentile and longest, in milliseconds.
    pub fn said(&self) -> String {
        let times = [self.median(), self.p99(), self.longest()];
        times.map(|time| time.as_millis().to_string()).join("/")
    }

    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    pub fn p99(&self) -> Duration {
        self.quantile(0.99)
    }

    /// Zero where there are none.
    pub fn mean(&self) -> Duration {
        let count = self.0.len().max(1) as u32;
        self.0.iter().sum::<Duration>() / count
    }

    pub fn longest(&self) -> Duration {
        self.quantile(1.0)
    }
}
