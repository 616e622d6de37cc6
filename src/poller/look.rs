//! One look at a target: a ping, and if that is not answered in time, what proxies know of the target.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant};
use tracing::error;

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
    pub fn new(pings: usize) -> Self {
        let resolver = Resolver::new();
        Self {
            pings: Semaphore::new(pings),
            witnesses: Witnesses::new(resolver.clone()),
            resolver,
        }
    }
}

/// What a look has come to.
#[derive(Debug)]
pub(super) struct Look {
    pub begun: Instant,
    pub ended: Instant,
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
        reading,
    }
}

/// Why the target need not be pinged now, if that is so: until the ping would have timed out, it would not be
/// held against it.
async fn skip(target: &Target, turns: &Turns, memory: Memory) -> Option<Excuse> {
    let evidence = turns.witnesses.ask(&target.params.evidence).await?;
    let now = evidence.asked;
    match judged(target, memory, (now, now), &evidence) {
        // Of whom nobody knows now, only a ping can tell.
        Finding::Busy {
            in_hand,
            given,
            known: Duration::ZERO,
            left,
        } if left > target.params.timeout => Some(Excuse {
            why: format!("{}, not pinged", at_work(in_hand, given, Duration::ZERO)),
            until: evidence.received.checked_add(left),
        }),
        _ => None,
    }
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
            known,
            left,
        } => Excuse {
            why: at_work(in_hand, given, known),
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

fn at_work(in_hand: u32, given: Duration, known: Duration) -> String {
    let given = given.as_secs_f64();
    let work = match in_hand {
        1 => format!("busy: a request in hand for {given:.1} s"),
        _ => format!("busy: {in_hand} requests in hand, the latest for {given:.1} s"),
    };
    match known {
        Duration::ZERO => work,
        known => format!("{work}, as known {:.1} s ago", known.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::fixtures;
    use super::*;
    use crate::address::Address;
    use crate::config::PollerParams;

    /// A proxy that says of the backend `a` that it has been silent for so long over its one request.
    async fn witness(silent_seconds: f64) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let body = format!(
            r#"{{"backends":{{"a":{{"in_flight":1,"max_in_flight":1,
            "given_seconds":{silent_seconds},"silent_seconds":{silent_seconds}}}}}}}"#
        );
        let length = body.len();
        let answer = format!("HTTP/1.1 200 x\r\nContent-Length: {length}\r\n\r\n{body}");
        tokio::spawn(async move {
            // Once: whoever asks again is refused.
            let (mut stream, _) = listener.accept().await.unwrap();
            drop(listener);
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address.into()
    }

    /// A target with this witness.
    async fn target(silent_seconds: f64) -> Target {
        let params = Arc::new(PollerParams {
            evidence: Arc::new([witness(silent_seconds).await]),
            ..fixtures::params()
        });
        fixtures::target("a", "127.0.0.1:1".parse().unwrap(), &params)
    }

    /// A ping may take 2 s and the limit is 60 s: the one that would end later than the excuse is sent.
    #[tokio::test]
    async fn nobody_is_skipped_whose_excuse_ends_before_the_ping_would() {
        for (silent, is_skipped) in [(30.0, true), (57.0, true), (58.1, false), (60.0, false)] {
            let turns = Turns::new(1);
            let excuse = skip(&target(silent).await, &turns, Memory::default()).await;
            assert_eq!(excuse.is_some(), is_skipped, "{silent}: {excuse:?}");
        }
    }

    #[tokio::test]
    async fn nobody_is_skipped_for_what_a_proxy_that_is_gone_has_said() {
        let (turns, target) = (Turns::new(1), target(3.0).await);
        let excuse = skip(&target, &turns, Memory::default()).await.unwrap();
        assert_eq!(excuse.why, "busy: a request in hand for 3.0 s, not pinged");
        assert!(skip(&target, &turns, Memory::default()).await.is_none());
        let evidence = turns.witnesses.ask(&target.params.evidence).await;
        let now = Instant::now();
        let failure = PingFailure::Crashed;
        let reading = read(
            &target,
            Memory::default(),
            (now, now),
            failure,
            evidence.as_deref(),
        );
        let why = reading.to_string();
        assert!(
            why.starts_with("busy: a request in hand for 3.0 s, as known 0."),
            "{why}"
        );
    }
}
