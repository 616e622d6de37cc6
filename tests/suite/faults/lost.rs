//! All three backends fail for ten seconds, and the file says all the while that they are well. Requests come by
//! the clock, twice as many as can be served: so the queue is full before, and everything that is done in vain is
//! missing afterwards.
//!
//! What must hold: retries make it no worse (attempts per request), it works again at once and by itself, and what
//! comes then is no more than there are slots for. Who is refused is told so, with a time that is right.

use std::time::{Duration, Instant};

use serde_json::json;

use super::crowd::{Crowd, End, Outcome, Times};
use crate::harness::{Backend, Fault, Proxy, Units, backend, get, proxy, until};

const WORK: Duration = Duration::from_millis(20);
/// Twice what three backends with one slot each can do.
const PER_SECOND: u32 = 300;
/// What they can do in a second.
const QUEUE: usize = 150;
const BEFORE: Duration = Duration::from_secs(5);
const LASTS: Duration = Duration::from_secs(10);
/// From the first being back to the last.
const STAGGERED: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(5);

/// A trial comes every half second, and 100 ms to be served then. The rest is the machine's.
const FIRST_WITHIN: Duration = Duration::from_millis(600);
const NORMAL_WITHIN: Duration = Duration::from_secs(2);
const NOISE: Duration = Duration::from_millis(250);
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
        let on = json!([
            "connect_failure",
            "reset_before_response",
            "stale_connection",
            "503"
        ]);
        let lb = proxy()
            .upstream("web", &group)
            .queue(QUEUE)
            .key("maitred.upstreams.web.retry", json!({ "on": on }))
            .json_access_log()
            .alone()
            .start()
            .await;
        Self { loss, group, lb }
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

    /// How often requests were begun by any backend since then.
    fn begun_since(&self, since: Instant) -> usize {
        let requests = self.group.iter().flat_map(Backend::requests);
        requests.filter(|one| one.at >= since).count()
    }

    /// How many different ones these were.
    fn distinct_since(&self, since: Instant) -> usize {
        let requests = self.group.iter().flat_map(Backend::requests);
        let recent = requests.filter(|one| one.at >= since);
        let ids: std::collections::HashSet<_> = recent.map(|one| one.id().to_owned()).collect();
        ids.len()
    }

    /// What the proxy itself says of it: attempts in which something was sent, and requests that had one.
    fn logged(&self) -> (u64, usize) {
        let log = self.lb.access_log();
        let attempts = log.iter().filter_map(|line| line["attempts"].as_u64());
        let sent: Vec<_> = attempts.filter(|&attempts| attempts > 0).collect();
        (sent.iter().sum(), sent.len())
    }
}

async fn all_three_are_lost(loss: Loss) {
    let scene = Scene::of(loss).await;
    let crowd = Crowd::by_the_clock(PER_SECOND, scene.lb.address(), || get("/home"));
    tokio::time::sleep(BEFORE).await;
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
    tokio::time::sleep(NORMAL_WITHIN + AFTER).await;
    let outcomes = crowd.ends().await;

    let moments = Moments {
        begun,
        first_back,
        last_back,
    };
    let normal = Times::of(
        outcomes
            .iter()
            .filter(|one| one.ended > begun - 3.secs() && one.ended < begun),
    );
    let again = Times::of(
        outcomes
            .iter()
            .filter(|one| one.ended >= last_back + NORMAL_WITHIN),
    );
    let (sent, distinct) = (scene.begun_since(begun), scene.distinct_since(begun));
    let (logged, requests) = scene.logged();
    let attempts = [
        sent as f64 / distinct as f64,
        logged as f64 / requests as f64,
    ];
    println!(
        "{loss:?}: {} requests; attempts per request that was sent {:.3} from the fault on ({sent} of {distinct}), \
         {:.3} by the whole log; first success {until_first:.1?} after the first is back, to which {connections} \
         connections were made in {STAGGERED:?}; p50/p99 {:.1?}/{:.1?} before, {:.1?}/{:.1?} from {NORMAL_WITHIN:?} \
         after the last is back",
        outcomes.len(),
        attempts[0],
        attempts[1],
        normal.median(),
        normal.p99(),
        again.median(),
        again.p99()
    );
    println!("{}", ended_in(&outcomes, &moments));
    assert!(
        attempts.iter().all(|&attempts| attempts <= ATTEMPTS_MAX),
        "{attempts:?}"
    );
    assert!(until_first <= FIRST_WITHIN + NOISE, "{until_first:?}");
    assert!(
        again.p99() <= normal.p99().mul_f64(1.25) + NOISE,
        "{:?} after {:?}",
        again.p99(),
        normal.p99()
    );
    assert!(connections <= CONNECTIONS_MAX, "{connections}");
    for backend in &scene.group {
        assert_eq!(backend.overlap(), 1, "{}", backend.name());
    }
    assert_shed_in_order(loss, &outcomes, begun, normal.p99());
}

/// What became of those that ended before, during, and after.
fn ended_in(outcomes: &[Outcome], moments: &Moments) -> String {
    let mut counts = std::collections::BTreeMap::<(&str, String), usize>::new();
    for one in outcomes {
        let when = match one.ended {
            at if at < moments.begun => "1 before",
            at if at < moments.first_back => "2 lost",
            at if at < moments.last_back => "3 one is back",
            _ => "4 all are back",
        };
        let how = match &one.end {
            End::Served(_) => "served".to_owned(),
            End::Refused {
                status,
                error,
                retry_after,
            } => format!("{status} {error} {retry_after:?}"),
            other => format!("{other:?}"),
        };
        *counts.entry((when, how)).or_default() += 1;
    }
    format!("{counts:#?}")
}

/// Whoever is refused a place is told so, and when to come back: no sooner than before, when all three served those
/// who wait, and at the latest when one of them has served them alone. Other failures are what the backends
/// said.
fn assert_shed_in_order(loss: Loss, outcomes: &[Outcome], begun: Instant, wait: Duration) {
    let told = |one: &Outcome| match one.end {
        End::Refused { retry_after, .. } => retry_after,
        _ => None,
    };
    let before = outcomes.iter().filter(|one| one.ended < begun);
    let soonest = before.filter_map(told).min().expect("the queue was full");
    let seconds = soonest..=(wait * 3 + NOISE).as_secs() + 1;
    for one in outcomes.iter().filter(|one| !one.is_served()) {
        let End::Refused {
            status,
            error,
            retry_after,
        } = &one.end
        else {
            panic!("{one:?}");
        };
        match error.as_str() {
            "queue_full" => {
                assert_eq!(*status, 503);
                let is_right = retry_after.is_some_and(|told| seconds.contains(&told));
                assert!(is_right, "not in {seconds:?}: {one:?}");
            }
            "bad_gateway" => assert_eq!(loss, Loss::Has(Fault::Reset)),
            "" => assert_eq!((loss, *status), (Loss::Has(Fault::Unavailable), 503)),
            _ => panic!("{one:?}"),
        }
    }
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
