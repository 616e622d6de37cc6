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
    /// It is not, although it is at work: what shows that, for a person.
    Hung(PingFailure, String),
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
            Self::Hung(failure, why) => write!(formatter, "{failure}, and {why}"),
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
        Finding::Hung { silent } => {
            let why = format!("none to a request for {:.1} s", silent.as_secs_f64());
            return Reading::Hung(failure, why);
        }
        Finding::Overdue { ago } => {
            let why = format!("a request there timed out {:.1} s ago", ago.as_secs_f64());
            return Reading::Hung(failure, why);
        }
        Finding::Alive { heard } => Excuse {
            why: format!("a sign of life {:.1} s ago", heard.as_secs_f64()),
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
        1 => format!("a request in hand for {given:.1} s"),
        _ => format!("{in_hand} requests in hand, the latest for {given:.1} s"),
    };
    match known {
        Duration::ZERO => work,
        known => format!("{work}, as known {:.1} s ago", known.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{self, witness};
    use super::*;
    use crate::address::Address;
    use crate::config::PollerParams;

    /// What a proxy says that has heard of the backend `a` so long ago, and has given it a request since.
    fn page(given_seconds: f64, heard_seconds: f64) -> String {
        format!(
            r#"{{"backends":{{"a":{{"in_flight":1,"max_in_flight":1,"given_seconds":{given_seconds},
            "silent_seconds":{given_seconds},"heard_seconds":{heard_seconds}}}}}}}"#
        )
    }

    /// A target that refuses connections, with these witnesses. A ping may take 2 s, and 60 s are the limit.
    fn target(evidence: impl IntoIterator<Item = Address>) -> Target {
        let params = Arc::new(PollerParams {
            evidence: evidence.into_iter().collect(),
            ..fixtures::params()
        });
        fixtures::target("a", "127.0.0.1:1".parse().unwrap(), &params)
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// What becomes of a ping that began two seconds ago and has timed out just now, when the question took half a
    /// second and the answer is of its end.
    fn read_of(page: &str, remember: impl FnOnce(&mut Memory, Instant)) -> (Reading, Instant) {
        let ended = Instant::now() + seconds(1000.0);
        let received = ended + seconds(0.5);
        let evidence = Evidence::saying(page, ended, received);
        let mut memory = Memory::default();
        remember(&mut memory, received);
        let ping = (ended - seconds(2.0), ended);
        let reading = read(
            &target([]),
            memory,
            ping,
            PingFailure::Crashed,
            Some(&evidence),
        );
        (reading, received)
    }

    #[test]
    fn in_doubt_about_when_it_was_the_target_is_right() {
        // Heard before the ping began, if the proxy looked when it was asked.
        let (reading, _) = read_of(&page(0.1, 2.4), |_, _| {});
        assert_eq!(reading.to_string(), "a sign of life 2.4 s ago");
        let (reading, _) = read_of(&page(0.1, 2.6), |_, _| {});
        // Given after the ping had ended, if it looked at the end.
        assert_eq!(reading.to_string(), "a request in hand for 0.1 s");
    }

    #[test]
    fn an_excuse_ends_when_the_limit_is_over() {
        let (reading, received) = read_of(&page(20.0, 90.0), |_, _| {});
        let Reading::Inconclusive(excuse) = reading else {
            panic!("{reading:?}");
        };
        assert_eq!(excuse.until, Some(received + seconds(40.0)));
        let (reading, _) = read_of(&page(60.0, 90.0), |_, _| {});
        assert!(matches!(reading, Reading::Hung(..)), "{reading:?}");
    }

    #[test]
    fn earlier_pings_are_remembered() {
        let excused = |memory: &mut Memory, now| memory.excused = Some(now - seconds(60.0));
        let (reading, _) = read_of(&page(20.0, 90.0), excused);
        assert!(matches!(reading, Reading::Hung(..)), "{reading:?}");
        let (reading, _) = read_of(&page(70.0, 90.0), |memory, now| {
            memory.well = Some(now - seconds(10.0));
        });
        assert_eq!(reading.is_good(), None, "{reading:?}");
    }

    #[tokio::test]
    async fn a_refusal_is_one_whatever_a_proxy_knows() {
        let target = target([witness(&page(3.0, 90.0)).await]);
        let look = look(&target, &Turns::new(1, Arc::default()), Memory::default()).await;
        assert_eq!(look.reading.to_string(), "connection refused");
        assert_eq!(look.reading.is_good(), Some(false));
    }

    #[tokio::test]
    async fn nobody_is_skipped_whose_excuse_ends_before_the_ping_would() {
        for (given, is_skipped) in [(30.0, true), (57.0, true), (58.1, false), (60.0, false)] {
            let target = target([witness(&page(given, 90.0)).await]);
            let excuse = skip(&target, &Turns::new(1, Arc::default()), Memory::default()).await;
            assert_eq!(excuse.is_some(), is_skipped, "{given}: {excuse:?}");
        }
    }

    #[tokio::test]
    async fn nobody_is_skipped_for_what_a_proxy_that_is_gone_has_said() {
        let (turns, target) = (
            Turns::new(1, Arc::default()),
            target([witness(&page(3.0, 90.0)).await]),
        );
        let excuse = skip(&target, &turns, Memory::default()).await.unwrap();
        assert_eq!(excuse.why, "a request in hand for 3.0 s, not pinged");
        assert!(skip(&target, &turns, Memory::default()).await.is_none());
        let evidence = turns.witnesses.ask(&target.params.evidence).await;
        let ping = (Instant::now(), Instant::now());
        let failure = PingFailure::Crashed;
        let reading = read(
            &target,
            Memory::default(),
            ping,
            failure,
            evidence.as_deref(),
        );
        let why = reading.to_string();
        assert!(
            why.starts_with("a request in hand for 3.") && why.contains(" s, as known 0."),
            "{why}"
        );
    }
}
