//! All three backends fail for ten seconds, and the file says all the while that they are well. Requests come by
//! the clock, twice as many as can be served: so the queue is full before, and everything that is done in vain is
//! missing afterwards.
//!
//! What must hold: retries make it no worse (attempts per request), it works again at once and by itself, and what
//! comes then is no more than there are slots for. Who is refused is told so, with a time that is right.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::json;

use super::control::{Control, NOISE, TRIES, within};
use super::crowd::{Crowd, End, Outcome, Times};
use crate::harness::{Backend, Fault, Proxy, Units, backend, get, proxy, until};

const WORK: Duration = Duration::from_millis(20);
/// Twice what three backends with one slot each can do.
const PER_SECOND: u32 = 300;
/// What they can do in a second.
const QUEUE: usize = 150;
/// From the last being back until all is as before.
const NORMAL_WITHIN: Duration = Duration::from_secs(2);
/// Until the queue is full.
const WARM_UP: Duration = Duration::from_secs(2);
const BEFORE: Duration = Duration::from_secs(3);
const LASTS: Duration = Duration::from_secs(10);
/// From the first being back to the last.
const STAGGERED: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(3);
/// Seconds: three times what a full queue takes with all three, when one has to serve it.
const USUALLY_TOLD_MAX: u64 = 4;

/// A trial comes every half second, and 100 ms to be served then. The rest is the machine's.
const FIRST_WITHIN: Duration = Duration::from_millis(600);
/// To a backend with one slot in its first second: for trials, and for what came after one that was closed.
const CONNECTIONS_MAX: usize = 5;
const ATTEMPTS_MAX: f64 = 1.2;

/// How all three fail.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    Killed,
    Has(Fault),
}

struct Scene {
    loss: Loss,
    group: [Backend; 3],
    control: Control,
    lb: Proxy,
}

/// When what happened.
struct Moments {
    begun: Instant,
    first_back: Instant,
    last_back: Instant,
}

impl Scene {
    async fn of(loss: Loss) -> Self {
        let start = async |name| backend(name).takes(WORK).start().await;
        let group = [start("a").await, start("b").await, start("c").await];
        let control = Control::of(WORK).await;
        let on = json!([
            "connect_failure",
            "reset_before_response",
            "stale_connection",
            "invalid_response",
            "503"
        ]);
        let lb = proxy()
            .upstream("web", &group)
            .upstream("control", [&control.backend])
            .queue(QUEUE)
            .key("maitred.upstreams.web.retry", json!({ "on": on }))
            .json_access_log()
            .alone()
            .start()
            .await;
        Self {
            loss,
            group,
            control,
            lb,
        }
    }

    async fn fails(&self) {
        for backend in &self.group {
            match self.loss {
                Loss::Killed => backend.kill().await,
                Loss::Has(fault) => backend.falls_ill(fault).await,
            }
        }
    }

    async fn recovers(&self, backend: &Backend) {
        match self.loss {
            Loss::Killed => backend.revive().await,
            Loss::Has(_) => backend.recovers(),
        }
    }

    /// Attempts per request that was sent at all: as the backends have seen it from this moment on, and by the
    /// whole of the proxy's own log.
    fn attempts(&self, since: Instant) -> [f64; 2] {
        let requests = self.group.iter().flat_map(Backend::requests);
        let recent: Vec<_> = requests.filter(|one| one.at >= since).collect();
        let ids: HashSet<_> = recent.iter().map(|one| one.id()).collect();
        let log = self.lb.access_log();
        let ours = log.iter().filter(|line| line["upstream"] == "web");
        let attempts = ours.filter_map(|line| line["attempts"].as_u64());
        let sent: Vec<_> = attempts.filter(|&attempts| attempts > 0).collect();
        let logged = sent.iter().sum::<u64>() as f64;
        [
            recent.len() as f64 / ids.len() as f64,
            logged / sent.len() as f64,
        ]
    }

    /// Neither while they fail nor when the first is back.
    fn assert_no_rush(&self, attempts: [f64; 2], connections: usize) {
        let most = attempts[0].max(attempts[1]);
        assert!(most <= ATTEMPTS_MAX, "{attempts:?}");
        assert!(connections <= CONNECTIONS_MAX, "{connections}");
        for backend in &self.group {
            assert_eq!(backend.overlap(), 1, "{}", backend.name());
        }
    }
}

async fn all_three_are_lost(loss: Loss) {
    for _ in 0..TRIES {
        if recovers_from(loss).await {
            return;
        }
    }
    println!("{loss:?}: how soon it was as before was not judged");
}

/// Whether the times could be judged; asserts all else.
async fn recovers_from(loss: Loss) -> bool {
    let scene = Scene::of(loss).await;
    let control = scene.control.client(scene.lb.address());
    let crowd = Crowd::by_the_clock(PER_SECOND, scene.lb.address(), || get("/home"));
    tokio::time::sleep(WARM_UP + BEFORE).await;
    let begun = Instant::now();
    scene.fails().await;
    tokio::time::sleep(LASTS).await;

    let [first, others @ ..] = &scene.group;
    let connections = first.connections();
    scene.recovers(first).await;
    let first_back = Instant::now();
    let is_served = async || crowd.has_since(first_back, Outcome::is_served);
    let until_first = until("the first success", 20.secs(), is_served).await;
    tokio::time::sleep(STAGGERED.saturating_sub(first_back.elapsed())).await;
    let connections = first.connections() - connections;
    for other in others {
        scene.recovers(other).await;
    }
    let last_back = Instant::now();
    let as_before = last_back + NORMAL_WITHIN;
    tokio::time::sleep(NORMAL_WITHIN + AFTER).await;
    let (before, after) = (begun - BEFORE..begun, as_before..as_before + AFTER);
    let outcomes = crowd.ends().await;
    let machine = scene.control.judged(control, before.clone(), after.clone());

    let moments = Moments {
        begun,
        first_back,
        last_back,
    };
    let normal = Times::of(within(&outcomes, &before));
    let again = Times::of(within(&outcomes, &after));
    let attempts = scene.attempts(begun);
    println!(
        "{loss:?}: {} requests; attempts per request that was sent {:.3} from the fault on, {:.3} by the whole log; \
         first success {until_first:.1?} after the first is back, to which {connections} connections were made in \
         {STAGGERED:?}; p50/p99/max in ms {} before, {} from {:?} after the last is back; {}",
        outcomes.len(),
        attempts[0],
        attempts[1],
        normal.said(),
        again.said(),
        NORMAL_WITHIN,
        ended_in(&outcomes, &moments)
    );
    scene.assert_no_rush(attempts, connections);
    let told = assert_shed_in_order(loss, &outcomes, begun);
    let machine = machine.await;
    let is_quiet = machine.is_quiet();
    if is_quiet {
        assert!(until_first <= FIRST_WITHIN + NOISE, "{until_first:?}");
        let usual = normal.p99().mul_f64(1.25 * machine.slower()) + NOISE;
        let p99 = again.p99();
        assert!(told <= USUALLY_TOLD_MAX, "{told} s");
        assert!(p99 <= usual, "{p99:?} with {usual:?} as usual");
    }
    is_quiet
}

/// What became of those that ended before, during, and after.
fn ended_in(outcomes: &[Outcome], moments: &Moments) -> String {
    let mut counts = BTreeMap::<&str, BTreeMap<String, usize>>::new();
    for one in outcomes {
        let when = match one.ended {
            at if at < moments.begun => "before",
            at if at < moments.first_back => "lost",
            at if at < moments.last_back => "one is back",
            _ => "then",
        };
        let how = match &one.end {
            End::Served(_) => "served".to_owned(),
            End::Refused {
                status,
                error,
                retry_after: Some(told),
            } => format!("{status} {error} {told} s"),
            End::Refused { status, error, .. } => format!("{status} {error}"),
            other => format!("{other:?}"),
        };
        *counts.entry(when).or_default().entry(how).or_default() += 1;
    }
    format!("{counts:?}")
}

/// Whoever is refused a place is told so, and when to come back: no sooner than before, when all three served those
/// who wait. Other failures are what the backends said. Returns the median
/// of what was told from then on: a single slow answer makes the proxy expect longer waits for a moment.
fn assert_shed_in_order(loss: Loss, outcomes: &[Outcome], begun: Instant) -> u64 {
    let told = |one: &Outcome| match one.end {
        End::Refused { retry_after, .. } => retry_after,
        _ => None,
    };
    let before = outcomes.iter().filter(|one| one.ended < begun);
    let soonest = before.filter_map(told).min().expect("the queue was full");
    let mut all = Vec::new();
    for one in outcomes.iter().filter(|one| !one.is_served()) {
        let End::Refused { status, error, .. } = &one.end else {
            panic!("{one:?}");
        };
        match error.as_str() {
            "queue_full" => {
                assert_eq!(*status, 503);
                let seconds = told(one).expect("a 503 of the proxy's says when");
                assert!(seconds >= soonest, "{one:?}");
                all.push(seconds);
            }
            "bad_gateway" => assert_eq!(loss, Loss::Has(Fault::Reset)),
            "" => assert_eq!((loss, *status), (Loss::Has(Fault::Unavailable), 503)),
            _ => panic!("{one:?}"),
        }
    }
    all.sort_unstable();
    all[all.len() / 2]
}

#[tokio::test]
#[ignore = "takes 25 s"]
async fn nothing_is_left_of_ten_seconds_without_any_backend() {
    all_three_are_lost(Loss::Killed).await;
}

#[tokio::test]
#[ignore = "takes 25 s"]
async fn nothing_is_left_of_ten_seconds_in_which_all_answer_503() {
    all_three_are_lost(Loss::Has(Fault::Unavailable)).await;
}

#[tokio::test]
#[ignore = "takes 25 s"]
async fn nothing_is_left_of_ten_seconds_in_which_all_reset() {
    all_three_are_lost(Loss::Has(Fault::Reset)).await;
}
