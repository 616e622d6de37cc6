//! One look at a target: a ping, and if that is not answered in time, what proxies know of the target.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant};
use tracing::error;

use super::counts::EvidenceCounts;
use super::evidence::{Evidence, Witnesses};
use super::plan::Target;
use super::probe::{self, Answer, PingFailure};
use super::task::Task;
use crate::address::Resolver;
use crate::id::BackendName;
use crate::policy::excuse::{self, Finding, LostPing};

/// What all looks share.
pub(super) struct Turns {
    /// How many pings may be under way at once.
    pings: Semaphore,
    resolver: Resolver,
    witnesses: Witnesses,
}

impl Turns {
    /// Needs a tokio runtime.
    pub fn new(pings: usize, evidence: Arc<EvidenceCounts>) -> Self {
        let resolver = Resolver::new();
        Self {
            pings: Semaphore::new(pings),
            witnesses: Witnesses::new(resolver.clone(), evidence),
            resolver,
        }
    }
}

/// What a look has come to.
#[derive(Debug)]
pub(super) struct Look {
    pub begun: Instant,
    pub ended: Instant,
    /// Not where it was skipped, or has crashed: then nothing was timed.
    pub was_pinged: bool,
    pub reading: Reading,
}

/// What a look says.
#[derive(Debug)]
pub(super) enum Reading {
    /// It is well.
    Well(Answer),
    /// It is not.
    Bad(PingFailure),
    /// It is not, although it is at work: for too long it has given no sign of life.
    Hung(PingFailure, Duration),
    /// Nothing.
    Inconclusive(Excuse),
}

/// Why a ping that was not answered says nothing.
#[derive(Debug)]
pub(super) struct Excuse {
    /// For a person.
    pub why: String,
    /// How long it holds; `None`: the target has shown that it lives.
    pub until: Option<Instant>,
}

/// What is remembered of earlier looks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// When a ping was answered well last.
    pub well: Option<Instant>,
    /// Since when all looks were inconclusive, without a sign of life.
    pub excused: Option<Instant>,
}

impl Reading {
    /// Whether it speaks for the target; `None`: neither for nor against it.
    pub fn is_good(&self) -> Option<bool> {
        match self {
            Self::Well(_) => Some(true),
            Self::Bad(_) | Self::Hung(..) => Some(false),
            Self::Inconclusive(_) => None,
        }
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well(answer) => answer.fmt(formatter),
            Self::Bad(failure) => failure.fmt(formatter),
            Self::Hung(failure, silent) => {
                let silent = silent.as_secs_f64();
                write!(
                    formatter,
                    "{failure}, and none to a request for {silent:.1} s"
                )
            }
            Self::Inconclusive(excuse) => formatter.write_str(&excuse.why),
        }
    }
}

/// Begins a look, which pings when it gets a turn. In a task of its own: a defect that a backend can
/// provoke ends that look and neither the polling of its target nor the poller.
pub(super) fn begin(target: &Target, turns: &Arc<Turns>, memory: Memory) -> Task<Look> {
    let (target, turns) = (target.clone(), turns.clone());
    Task::spawn(async move { look(&target, &turns, memory).await })
}

/// What the look has come to.
pub(super) async fn finish(backend: &BackendName, look: Task<Look>) -> Look {
    look.join().await.unwrap_or_else(|error| {
        error!(%backend, %error, "a ping crashed");
        let now = Instant::now();
        Look {
            begun: now,
            ended: now,
            was_pinged: false,
            reading: Reading::Bad(PingFailure::Crashed),
        }
    })
}

async fn look(target: &Target, turns: &Turns, memory: Memory) -> Look {
    let params = &target.params;
    let begun = Instant::now();
    if params.skip_when_busy
        && let Some(excuse) = skip(target, turns, memory).await
    {
        return Look {
            begun,
            ended: Instant::now(),
            was_pinged: false,
            reading: Reading::Inconclusive(excuse),
        };
    }
    // Closed never; were it, the bound would be lost but not the ping.
    let turn = turns.pings.acquire().await;
    let begun = Instant::now();
    let ping = probe::ping(
        &turns.resolver,
        &target.address,
        &target.probe,
        params.timeout,
    );
    let outcome = ping.await;
    let ended = Instant::now();
    drop(turn);
    let reading = match outcome {
        Ok(answer) => Reading::Well(answer),
        Err(failure) if failure.is_silence() => {
            let evidence = turns.witnesses.ask(&params.evidence).await;
            read(target, memory, (begun, ended), failure, evidence.as_deref())
        }
        Err(failure) => Reading::Bad(failure),
    };
    Look {
        begun,
        ended,
        was_pinged: true,
        reading,
    }
}

/// Why the target need not be pinged now, if that is so: until the ping would have timed out, it would not be
/// held against it.
async fn skip(target: &Target, turns: &Turns, memory: Memory) -> Option<Excuse> {
    let evidence = turns.witnesses.ask(&target.params.evidence).await?;
    let now = evidence.asked;
    let Finding::Busy {
        in_hand,
        given,
        left,
    } = judged(target, memory, (now, now), &evidence)
    else {
        return None;
    };
    (left > target.params.timeout).then(|| Excuse {
        why: format!("{}, not pinged", at_work(in_hand, given)),
        until: evidence.received.checked_add(left),
    })
}

/// What is left of a ping that was not answered in time.
fn read(
    target: &Target,
    memory: Memory,
    ping: (Instant, Instant),
    failure: PingFailure,
    evidence: Option<&Evidence>,
) -> Reading {
    let Some(evidence) = evidence else {
        return Reading::Bad(failure);
    };
    let excuse = match judged(target, memory, ping, evidence) {
        Finding::Idle => return Reading::Bad(failure),
        Finding::Hung { silent } => return Reading::Hung(failure, silent),
        Finding::Alive { heard } => Excuse {
            why: format!("busy: at a request {:.1} s ago", heard.as_secs_f64()),
            until: None,
        },
        Finding::Busy {
            in_hand,
            given,
            left,
        } => Excuse {
            why: at_work(in_hand, given),
            until: evidence.received.checked_add(left),
        },
    };
    Reading::Inconclusive(excuse)
}

/// Ages count back from a moment between question and answer: of the two, the one is taken that cannot be
/// to the target's disadvantage.
fn judged(
    target: &Target,
    memory: Memory,
    (begun, ended): (Instant, Instant),
    evidence: &Evidence,
) -> Finding {
    let age = |at: Instant| evidence.received.saturating_duration_since(at);
    let ping = LostPing {
        begun: age(begun),
        ended: evidence.asked.saturating_duration_since(ended),
        excused: age(memory.excused.unwrap_or(begun)),
        well: memory.well.map(age),
    };
    let testimonies = evidence.of(&target.name);
    excuse::judge(&ping, &testimonies, target.busy_limit)
}

fn at_work(in_hand: u32, given: Duration) -> String {
    let given = given.as_secs_f64();
    match in_hand {
        1 => format!("busy: a request in hand for {given:.1} s"),
        _ => format!("busy: {in_hand} requests in hand, the latest for {given:.1} s"),
    }
}
