//! What proxies know of the backends, asked for when a ping was not answered in time.
//!
//! The format is theirs (docs/evidence.md). Whatever a proxy answers, or does not: what cannot be had or
//! understood is no evidence, and pings count as they always did.
//!
//! Invariants: one question to each proxy serves everybody who needs an answer at that time, and never two are
//! under way; nobody waits longer than for two of them, and who needs no evidence never waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::counts::EvidenceCounts;
use super::probe;
use super::task::Task;
use crate::address::{Address, Resolver};
use crate::config::{ProbeParams, StatusRanges};
use crate::id::BackendName;
use crate::policy::excuse::Testimony;

/// Where a proxy has it.
const PATH: &str = "/api/v1/evidence";

/// How long a proxy may take. It is near, and does not have to think.
const LIMIT: Duration = Duration::from_millis(500);

/// Before proxies are asked: pings that began together time out together, but not in the same instant.
const GATHER: Duration = Duration::from_millis(5);

/// The longest answer, in bytes: room for 60,000 backends.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Questions that wait; more, and who asks waits to ask.
const QUESTIONS_MAX: usize = 1 << 16;

/// What proxies have testified at one time.
#[derive(Debug)]
pub(super) struct Evidence {
    /// They were asked then; ages count back from a moment between this one
    pub asked: Instant,
    /// and this one.
    pub received: Instant,
    pages: Vec<Page>,
}

impl Evidence {
    /// What each proxy that knows the backend says of it.
    pub fn of(&self, backend: &BackendName) -> Vec<Testimony> {
        let pages = self.pages.iter();
        let said = pages.filter_map(|page| page.backends.get(backend.as_str()));
        said.map(Said::testimony).collect()
    }
}

/// The answer of a proxy. Fields that are not used here may be there, or not.
#[derive(Debug, Deserialize)]
struct Page {
    backends: HashMap<Box<str>, Said>,
}

#[derive(Debug, Deserialize)]
struct Said {
    in_flight: u32,
    max_in_flight: u32,
    given_seconds: Option<f64>,
    silent_seconds: Option<f64>,
    heard_seconds: Option<f64>,
    overdue_seconds: Option<f64>,
}

impl Said {
    fn testimony(&self) -> Testimony {
        // What is no age says nothing.
        let age = |seconds: Option<f64>| Duration::try_from_secs_f64(seconds?).ok();
        Testimony {
            in_flight: self.in_flight,
            max_in_flight: self.max_in_flight,
            given: age(self.given_seconds),
            silent: age(self.silent_seconds),
            heard: age(self.heard_seconds),
            overdue: age(self.overdue_seconds),
        }
    }
}

/// Whom to ask, and who is to be told.
struct Question {
    sources: Arc<[Address]>,
    answer: oneshot::Sender<Arc<Evidence>>,
}

/// Asks proxies for all pings together.
pub(super) struct Witnesses {
    questions: mpsc::Sender<Question>,
    _task: Task<()>,
}

impl Witnesses {
    /// Nobody is asked before somebody wants to know. Needs a tokio runtime.
    pub fn new(resolver: Resolver, counts: Arc<EvidenceCounts>) -> Self {
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let mut reporter = Reporter {
            resolver,
            troubles: HashMap::new(),
            counts,
        };
        Self {
            questions,
            _task: Task::spawn(async move { reporter.answer(asked).await }),
        }
    }

    /// Asks these proxies, now or very soon. `None`: there are none.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time.
    pub async fn ask(&self, sources: &Arc<[Address]>) -> Option<Arc<Evidence>> {
        if sources.is_empty() {
            return None;
        }
        let (answer, told) = oneshot::channel();
        let sources = sources.clone();
        let question = Question { sources, answer };
        // Both fail only when the poller ends.
        self.questions.send(question).await.ok()?;
        told.await.ok()
    }
}

/// The one who asks.
struct Reporter {
    resolver: Resolver,
    /// Who could not be asked the last time, and why.
    troubles: HashMap<Address, String>,
    counts: Arc<EvidenceCounts>,
}

impl Reporter {
    async fn answer(&mut self, mut questions: mpsc::Receiver<Question>) {
        while let Some(first) = questions.recv().await {
            sleep(GATHER).await;
            let mut together = vec![first];
            while let Ok(further) = questions.try_recv() {
                together.push(further);
            }
            // After a reload, the last one knows the new ones.
            let sources = together.last().map(|last| last.sources.clone());
            let evidence = Arc::new(self.gather(&sources.unwrap_or_default()).await);
            for question in together {
                // Whoever does not want to know any more is gone.
                let _ = question.answer.send(evidence.clone());
            }
        }
    }

    async fn gather(&mut self, sources: &[Address]) -> Evidence {
        let asked = Instant::now();
        // In tasks of their own: a defect that an answer can provoke costs that answer.
        let begun: Vec<_> = sources
            .iter()
            .map(|source| {
                let (resolver, address) = (self.resolver.clone(), source.clone());
                Task::spawn(async move { page(&resolver, &address).await })
            })
            .collect();
        let mut pages = Vec::new();
        for (source, asking) in sources.iter().zip(begun) {
            let answer = asking.join().await;
            let answer = answer.unwrap_or_else(|error| Err(error.to_string()));
            self.note(source, answer.as_ref().err());
            self.counts.asked(source, answer.is_ok());
            pages.extend(answer);
        }
        self.troubles.retain(|source, _| sources.contains(source));
        self.counts.retain(sources);
        Evidence {
            asked,
            received: Instant::now(),
            pages,
        }
    }

    /// A line in the log when a proxy cannot be asked, and when it can again.
    fn note(&mut self, source: &Address, trouble: Option<&String>) {
        match trouble {
            None => {
                if self.troubles.remove(source).is_some() {
                    info!(proxy = %source, "evidence can be had again");
                }
            }
            Some(error) => {
                let last = self.troubles.insert(source.clone(), error.clone());
                if last.as_ref() != Some(error) {
                    warn!(proxy = %source, error, "no evidence: pings count as they are");
                }
            }
        }
    }
}

async fn page(resolver: &Resolver, address: &Address) -> Result<Page, String> {
    let params = ProbeParams {
        path: PATH.into(),
        host: None,
        expect_status: StatusRanges::from(200..=200),
    };
    let fetching = probe::fetch(resolver, address, &params, LIMIT, ANSWER_BYTES_MAX);
    let (_, text) = fetching.await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| format!("not evidence: {error}"))
}
