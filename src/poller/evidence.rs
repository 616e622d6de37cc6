//! What proxies know of the backends, asked for when a ping was not answered in time.
//!
//! The format is theirs (docs/evidence.md). Whatever a proxy answers, or does not: what cannot be had or
//! understood is no evidence, and pings count as they always did.
//!
//! A proxy that has ended has left its requests at the backends, and the process after it knows nothing of
//! them. So the last answer of each is kept: of a proxy that cannot be asked, and of the process before the one
//! that can. What it is worth then is `policy::excuse`'s.
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

/// How long a proxy may take. It is near, and does not have to think. Twice this is within what a round of the
/// poller may take beside its pings (`config::health`), so a proxy that hangs makes no file stale.
const LIMIT: Duration = Duration::from_millis(400);

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
    /// What proxies say, and how long ago they did if they could not be asked now.
    pages: Vec<(Arc<Page>, Duration)>,
}

impl Evidence {
    /// One proxy's answer.
    #[cfg(test)]
    pub fn saying(page: &str, asked: Instant, received: Instant) -> Self {
        let page = serde_json::from_str(page).unwrap();
        Self {
            asked,
            received,
            pages: vec![(Arc::new(page), Duration::ZERO)],
        }
    }

    /// What each proxy that knows the backend says of it.
    pub fn of(&self, backend: &BackendName) -> Vec<Testimony> {
        let pages = self.pages.iter();
        let said = pages.filter_map(|(page, known)| {
            let said = page.backends.get(backend.as_str())?;
            Some(said.testimony(*known))
        });
        said.collect()
    }
}

/// The answer of a proxy. Fields that are not used here may be there, or not.
#[derive(Debug, Deserialize)]
struct Page {
    watching_seconds: Option<f64>,
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
    /// What it means after this time.
    fn testimony(&self, known: Duration) -> Testimony {
        let age = |seconds| Some(age(seconds)?.saturating_add(known));
        Testimony {
            in_flight: self.in_flight,
            max_in_flight: self.max_in_flight,
            given: age(self.given_seconds),
            silent: age(self.silent_seconds),
            heard: age(self.heard_seconds),
            overdue: age(self.overdue_seconds),
            known,
        }
    }
}

/// What is no age says nothing.
fn age(seconds: Option<f64>) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds?).ok()
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
            counts,
            sources: HashMap::new(),
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
    counts: Arc<EvidenceCounts>,
    /// Those of the last question.
    sources: HashMap<Address, Source>,
}

/// What is known of a proxy.
#[derive(Default)]
struct Source {
    /// Why it could not be asked the last time.
    trouble: Option<String>,
    last: Option<Answer>,
    /// The last one of the process before.
    before: Option<Answer>,
}

/// What a proxy has answered, and when.
#[derive(Clone)]
struct Answer {
    received: Instant,
    page: Arc<Page>,
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
                Task::spawn(async move { answer(&resolver, &address).await })
            })
            .collect();
        let mut pages = Vec::new();
        let mut before = std::mem::take(&mut self.sources);
        for (address, asking) in sources.iter().zip(begun) {
            let answer = asking.join().await;
            let answer = answer.unwrap_or_else(|error| Err(error.to_string()));
            self.counts.asked(address, answer.is_ok());
            let mut source = before.remove(address).unwrap_or_default();
            source.note(address, answer.as_ref().err());
            pages.extend(source.take(answer.ok()));
            self.sources.insert(address.clone(), source);
        }
        self.counts.retain(sources);
        let received = Instant::now();
        let aged = pages.into_iter().map(|(answer, is_new)| {
            let known = received.saturating_duration_since(answer.received);
            (answer.page, if is_new { Duration::ZERO } else { known })
        });
        Evidence {
            asked,
            received,
            pages: aged.collect(),
        }
    }
}

impl Source {
    /// Takes in an answer, if there was one. Gives all that is known, and whether that is new.
    fn take(&mut self, answer: Option<Answer>) -> Vec<(Answer, bool)> {
        let is_new = answer.is_some();
        if let Some(answer) = answer {
            if self
                .last
                .as_ref()
                .is_some_and(|last| answer.is_of_another_process(last))
            {
                self.before = self.last.take();
            }
            self.last = Some(answer);
        }
        let last = self.last.iter().map(|last| (last.clone(), is_new));
        let before = self.before.iter().map(|before| (before.clone(), false));
        last.chain(before).collect()
    }

    /// A line in the log when a proxy cannot be asked, and when it can again.
    fn note(&mut self, address: &Address, trouble: Option<&String>) {
        if self.trouble.as_ref() == trouble {
            return;
        }
        match trouble {
            None => info!(proxy = %address, "evidence can be had again"),
            Some(error) => warn!(proxy = %address, error, "no evidence"),
        }
        self.trouble = trouble.cloned();
    }
}

impl Answer {
    /// Whether it comes from a process that began after the last one had answered.
    fn is_of_another_process(&self, last: &Self) -> bool {
        let watching = age(self.page.watching_seconds);
        // Of a proxy that does not say so, nothing is known.
        watching.is_some_and(|watching| {
            let since = self.received.checked_sub(watching);
            since.is_some_and(|since| since > last.received)
        })
    }
}

async fn answer(resolver: &Resolver, address: &Address) -> Result<Answer, String> {
    let params = ProbeParams {
        path: PATH.into(),
        host: None,
        expect_status: StatusRanges::from(200..=200),
    };
    let fetching = probe::fetch(resolver, address, &params, LIMIT, ANSWER_BYTES_MAX);
    let (_, text) = fetching.await.map_err(|error| error.to_string())?;
    let page = serde_json::from_slice(&text).map_err(|error| format!("not evidence: {error}"))?;
    Ok(Answer {
        received: Instant::now(),
        page: Arc::new(page),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::witness;
    use super::*;

    /// An answer of this moment, by a process that has been there for so long.
    fn answer(watching_seconds: f64) -> Answer {
        Answer {
            received: Instant::now(),
            page: Arc::new(Page {
                watching_seconds: Some(watching_seconds),
                backends: HashMap::new(),
            }),
        }
    }

    /// What is known after an answer, a second after the last: how long the process had been there, and
    /// whether it said so just now.
    async fn known(source: &mut Source, watching_seconds: Option<f64>) -> Vec<(f64, bool)> {
        tokio::time::advance(Duration::from_secs(1)).await;
        let known = source.take(watching_seconds.map(answer));
        let known = known.into_iter();
        known
            .map(|(answer, is_new)| (answer.page.watching_seconds.unwrap(), is_new))
            .collect()
    }

    #[test]
    fn what_a_proxy_has_said_gets_older() {
        let said: Said = serde_json::from_str(
            r#"{"in_flight":2,"max_in_flight":3,"given_seconds":1,"silent_seconds":2.5,
            "heard_seconds":null,"overdue_seconds":-4,"of_another_version":7}"#,
        )
        .unwrap();
        let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
        let known = Duration::from_secs(10);
        let expected = Testimony {
            in_flight: 2,
            max_in_flight: 3,
            given: seconds(11.0),
            silent: seconds(12.5),
            heard: None,
            overdue: None,
            known,
        };
        assert_eq!(said.testimony(known), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_a_little_later_is_told_the_same() {
        let witnesses = Witnesses::new(Resolver::new(), Arc::default());
        let sources: Arc<[Address]> = Arc::new(["127.0.0.1:1".parse().unwrap()]);
        let later = async {
            sleep(GATHER / 2).await;
            witnesses.ask(&sources).await
        };
        let (first, second) = tokio::join!(witnesses.ask(&sources), later);
        assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
        let nobody: Arc<[Address]> = Arc::new([]);
        assert!(witnesses.ask(&nobody).await.is_none());
    }

    #[tokio::test]
    async fn after_a_reload_the_new_proxies_are_asked() {
        let witnesses = Witnesses::new(Resolver::new(), Arc::default());
        let before = Arc::new(["127.0.0.1:1".parse().unwrap()]);
        let page = r#"{"backends":{"a":{"in_flight":1,"max_in_flight":1}}}"#;
        let after = Arc::new([witness(page).await]);
        let (before, after): (Arc<[Address]>, Arc<[Address]>) = (before, after);
        let (told, _) = tokio::join!(witnesses.ask(&before), witnesses.ask(&after));
        assert_eq!(told.unwrap().of(&"a".into()).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_of_a_process_outlives_it() {
        let mut source = Source::default();
        assert_eq!(known(&mut source, None).await, []);
        assert_eq!(known(&mut source, Some(7.0)).await, [(7.0, true)]);
        assert_eq!(known(&mut source, Some(8.0)).await, [(8.0, true)]);
        assert_eq!(known(&mut source, None).await, [(8.0, false)]);
        assert_eq!(
            known(&mut source, Some(0.9)).await,
            [(0.9, true), (8.0, false)]
        );
        assert_eq!(
            known(&mut source, Some(1.9)).await,
            [(1.9, true), (8.0, false)]
        );
        assert_eq!(known(&mut source, None).await, [(1.9, false), (8.0, false)]);
        assert_eq!(
            known(&mut source, Some(0.1)).await,
            [(0.1, true), (1.9, false)]
        );
    }
}
