//! After what a request is sent again, how often, and when not: each word and key of `retry`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{
    Backend, Proxy, ProxyBuilder, Units, backend, get, load, post, proxy, scrape, until,
};

const RETRY: &str = "maitred.upstreams.web.retry";

/// Nobody is taken out for what he does, and connections are kept: it is about who is asked again.
fn retrying<'a>(backends: impl IntoIterator<Item = &'a Backend>, retry: Value) -> ProxyBuilder {
    let kept = proxy().upstream("web", backends).idle_timeout(60.secs());
    kept.key(RETRY, retry).key(
        "maitred.upstreams.web.outlier_detection.max_ejection_percent",
        0,
    )
}

fn begun(backends: &[Backend]) -> usize {
    backends.iter().map(Backend::begun).sum()
}

/// Waits until this metric has at least this value; it is counted a moment after the answer.
async fn counted(lb: &Proxy, metric: &str, labels: &[&str], least: f64) -> f64 {
    let mut found = 0.0;
    let is_there = until("it is counted", 5.secs(), async || {
        found = scrape(lb.site().admin()).await.sum(metric, labels);
        found >= least
    });
    is_there.await;
    found
}

/// Waits until this metric has this value.
async fn counts(lb: &Proxy, metric: &str, reason: &str, expected: f64) {
    let label = format!("reason=\"{reason}\"");
    let found = counted(lb, metric, &[&label], expected).await;
    assert_eq!(found, expected, "{metric} {reason}");
}

/// The line of the one request that there was; it is written a moment later.
async fn logged(lb: &Proxy) -> Value {
    until("it is logged", 5.secs(), async || {
        !lb.access_log().is_empty()
    })
    .await;
    lb.access_log().remove(0)
}

async fn three() -> [Backend; 3] {
    let start = async |name| backend(name).start().await;
    [start("a").await, start("b").await, start("c").await]
}

#[tokio::test]
async fn attempts_are_as_many_as_are_allowed() {
    for (attempts, expected) in [(1, 1), (2, 2), (3, 3)] {
        let group = three().await;
        let lb = retrying(&group, json!({ "attempts": attempts }))
            .json_access_log()
            .start()
            .await;
        assert_eq!(lb.ask(get("/home?reset")).await.status, 502);
        assert_eq!(begun(&group), expected);
        counts(&lb, "maitred_retries_denied_total", "attempts", 1.0).await;
        let again = "reset_before_response";
        counts(&lb, "maitred_retries_total", again, attempts as f64 - 1.0).await;
        let line = logged(&lb).await;
        assert_eq!(
            [&line["attempts"], &line["retries"]],
            [attempts, attempts - 1]
        );
        let word = (attempts > 1).then_some(again);
        assert_eq!(line["retried"], json!(word));
    }
}

#[tokio::test]
async fn after_a_refused_connection_only_where_that_is_wanted() {
    for (on, status) in [(json!(["connect_failure"]), 200), (json!([]), 502)] {
        let [a, b, _] = three().await;
        let lb = retrying([&a, &b], json!({ "on": on })).start().await;
        a.kill().await;
        assert_eq!(lb.ask(post("/home").body(vec![1])).await.status, status);
    }
}

/// The second request meets the first one's connection, on which the backend breaks off.
#[tokio::test]
async fn after_a_stale_connection_only_where_that_is_wanted() {
    for (on, expected) in [(json!(["stale_connection"]), 3), (json!([]), 2)] {
        let [a, ..] = three().await;
        let lb = retrying([&a], json!({ "on": on })).start().await;
        let mut client = lb.connect().await;
        assert_eq!(client.ask(&get("/home")).await.unwrap().status, 200);
        assert_eq!(client.ask(&get("/home?reset")).await.unwrap().status, 502);
        assert_eq!(a.begun(), expected);
    }
}

/// A connection that had ended shows that at once; who breaks off later has had the request.
#[tokio::test]
async fn who_breaks_off_late_did_not_end_the_connection_before() {
    for (takes, expected) in [(0, 3), (1_200, 2)] {
        let [a, ..] = three().await;
        let lb = retrying([&a], json!({ "attempts": 1 })).start().await;
        let mut client = lb.connect().await;
        assert_eq!(client.ask(&get("/home")).await.unwrap().status, 200);
        let crashes = get(&format!("/home?reset&takes={takes}"));
        assert_eq!(client.ask(&crashes).await.unwrap().status, 502);
        assert_eq!(a.begun(), expected);
    }
}

/// Else a request that crashes whoever serves it would go through all connections that there are. The third attempt has
/// a fresh one: if it was the connections, that ends it.
#[tokio::test]
async fn no_request_meets_more_than_two_stale_connections() {
    let a = backend("a").held().start().await;
    let lb = retrying([&a], json!({ "attempts": 1 }))
        .backend_key("a", "max_in_flight", 4)
        .start()
        .await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(lb.send(&get("/home")).await);
    }
    a.working_on(4).await;
    a.release(4);
    for client in &mut clients {
        assert_eq!(client.receive("GET").await.unwrap().status, 200);
    }
    // Its connection is back among the idle ones when a request is counted.
    counted(&lb, "maitred_requests_total", &[], 4.0).await;
    assert_eq!((a.begun(), a.connections()), (4, 4));
    a.release(3);
    assert_eq!(lb.ask(get("/home?reset")).await.status, 502);
    assert_eq!((a.begun(), a.connections()), (7, 5));
    counts(&lb, "maitred_retries_total", "stale_connection", 2.0).await;
}

#[tokio::test]
async fn after_an_answer_502_503_or_504_only_where_that_is_wanted() {
    for status in [502, 503, 504] {
        let bad = backend("bad").status(status).response_body(100_000);
        let (bad, good) = (bad.start().await, backend("good").start().await);
        let lb = retrying([&bad, &good], json!({ "on": [status] }))
            .start()
            .await;
        let mut client = lb.connect().await;
        for _ in 0..6 {
            let answer = client.ask(&get("/home")).await.unwrap();
            assert_eq!((answer.status, answer.backend()), (200, Some("good")));
        }
        assert_eq!(good.begun(), 6);
        counts(
            &lb,
            "maitred_retries_total",
            &status.to_string(),
            bad.begun() as f64,
        )
        .await;
        lb.has_freed_all().await;
        assert_eq!((bad.overlap(), good.overlap()), (1, 1));
    }
    let bad = backend("bad").status(503).start().await;
    let good = backend("good").start().await;
    let lb = retrying([&bad, &good], json!({})).start().await;
    assert_eq!(lb.ask(get("/home")).await.status, 503);
}

#[tokio::test]
async fn after_a_timeout_only_where_that_is_wanted_and_the_slot_stays_taken() {
    for (on, status) in [(json!(["timeout"]), 200), (json!(["503"]), 504)] {
        let (slow, good) = (backend("slow").held(), backend("good"));
        let (slow, good) = (slow.start().await, good.start().await);
        let lb = retrying([&slow, &good], json!({ "on": on }))
            .response_header_timeout(300.millis())
            .start()
            .await;
        let mut client = lb.connect().await;
        assert_eq!(client.ask(&get("/home")).await.unwrap().status, status);
        assert_eq!((slow.begun(), slow.current()), (1, 1));
        assert_eq!(lb.backend_status("slow").await["abandoned"], 1);
        slow.release(1);
        lb.has_freed_all().await;
        if status == 200 {
            let next = client.ask(&get("/home")).await.unwrap();
            assert_eq!(
                next.status, 200,
                "the client's connection is as good as before"
            );
        }
    }
}

const ALL: [&str; 7] = [
    "connect_failure",
    "reset_before_response",
    "stale_connection",
    "502",
    "503",
    "504",
    "timeout",
];

#[tokio::test]
async fn a_post_is_done_twice_only_where_that_is_allowed() {
    for (non_idempotent, status, seen) in [(false, 503, 1), (true, 200, 2)] {
        let bad = backend("bad").status(503).start().await;
        let good = backend("good").start().await;
        let retry = json!({ "on": ALL, "non_idempotent": non_idempotent });
        let lb = retrying([&bad, &good], retry).start().await;
        let answer = lb.ask(post("/home").body(b"pay 5".to_vec())).await;
        assert_eq!(answer.status, status);
        let group = [bad, good];
        assert_eq!(begun(&group), seen);
        let bodies = group.iter().flat_map(Backend::requests);
        assert!(bodies.into_iter().all(|one| one.body_bytes == Some(5)));
        if !non_idempotent {
            counts(&lb, "maitred_retries_denied_total", "method", 1.0).await;
        }
    }
}

#[tokio::test]
async fn when_there_is_no_other_attempt_the_client_has_the_backends_own_answer() {
    let start = async |name| {
        let busy = backend(name).status(503).header("X-Why", "busy");
        busy.response_body(70_000).start().await
    };
    let group = [start("a").await, start("b").await];
    let lb = retrying(&group, json!({ "on": [503] }))
        .json_access_log()
        .start()
        .await;
    let answer = lb.ask(get("/home")).await;
    assert_eq!((answer.status, answer.header("X-Why")), (503, Some("busy")));
    assert_eq!(answer.text().len(), 70_000);
    assert_eq!(begun(&group), 3);
    counts(&lb, "maitred_retries_denied_total", "attempts", 1.0).await;
    let line = logged(&lb).await;
    assert_eq!(line["reason"], Value::Null);
    assert_eq!([&line["attempts"], &line["retries"]], [3, 2]);
    assert_eq!(line["retried"], "503");
    lb.has_freed_all().await;
}

#[tokio::test]
async fn a_body_that_is_gone_is_not_sent_again_and_the_answer_is_passed_on() {
    let bad = backend("bad").status(503).start().await;
    let good = backend("good").start().await;
    let retry = json!({ "on": [503], "non_idempotent": true });
    let lb = retrying([&bad, &good], retry).start().await;
    let answer = lb.ask(post("/home").body(vec![b'x'; 100_000])).await;
    assert_eq!(answer.status, 503);
    counts(&lb, "maitred_retries_denied_total", "body", 1.0).await;
}

/// Requests by the clock, one each millisecond, whether or not those before are answered.
async fn open_loop(lb: &Proxy, requests: usize) {
    let mut answers = JoinSet::new();
    let mut next = tokio::time::interval(1.millis());
    for _ in 0..requests {
        next.tick().await;
        let address = lb.address();
        answers.spawn(async move { get("/home").send_to(address).await.unwrap().status });
    }
    let statuses = answers.join_all().await;
    assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
}

/// All backends fail: of a hundred requests so many are sent again, and once the floor.
#[tokio::test]
async fn no_more_is_sent_again_than_the_budget_has() {
    const REQUESTS: usize = 1_000;
    const FLOOR: usize = 30;
    for percent in [0, 20, 100] {
        let start = async |name| backend(name).status(503).start().await;
        let group = [start("a").await, start("b").await, start("c").await];
        let mut lb = retrying(&group, json!({ "on": [503], "budget_percent": percent }));
        for name in ["a", "b", "c"] {
            lb = lb.backend_key(name, "max_in_flight", FLOOR / 3);
        }
        let lb = lb.alone().start().await;
        let from = Instant::now();
        open_loop(&lb, REQUESTS).await;
        let trickle = (FLOOR as f64 * (from.elapsed().as_secs_f64() + 1.0) / 10.0) as usize;
        let sent = begun(&group);
        println!(
            "{percent} %: {:.3} attempts per request",
            sent as f64 / REQUESTS as f64
        );
        let retries = sent - REQUESTS;
        let share = REQUESTS * percent / 100;
        assert!(
            retries <= share.max(trickle) + FLOOR + 5,
            "{percent} %: {retries}"
        );
        assert!(retries + 5 >= share, "{percent} %: {retries}");
        let denied = "maitred_retries_denied_total";
        counted(&lb, denied, &["reason=\"budget\""], 1.0).await;
    }
}

/// More requests than can be served, and all fail: most are turned away, and add nothing to what the others
/// may be sent again.
#[tokio::test]
async fn under_overload_the_budget_goes_by_what_is_sent() {
    let start = async |name| backend(name).status(503).takes(20.millis()).start().await;
    let group = [start("a").await, start("b").await, start("c").await];
    let lb = retrying(&group, json!({ "on": [503] })).queue(10).alone();
    let lb = lb.start().await;
    let from = Instant::now();
    open_loop(&lb, 2_000).await;
    // The floor of an upstream of three slots, and what comes in time.
    let floor = 10 + from.elapsed().as_secs() as usize;
    let label = "reason=\"503\"";
    let page = scrape(lb.site().admin()).await;
    let retries = page.sum("maitred_retries_total", &[label]) as usize;
    let requests = begun(&group) - retries;
    println!("{requests} requests, {retries} of them sent again");
    assert!(requests < 1_000 && retries >= requests / 5);
    assert!(retries <= requests / 5 + floor, "{retries} of {requests}");
}

#[tokio::test]
async fn nothing_is_sent_again_past_the_requests_deadline() {
    for (pause, waits) in [("1", true), ("60", false)] {
        let a = backend("a").status(503).header("Retry-After", pause);
        let a = a.start().await;
        let lb = retrying([&a], json!({ "on": [503], "attempts": 2 }))
            .request_timeout(10.secs())
            .start()
            .await;
        let answer = lb.ask(get("/home")).await;
        assert_eq!(
            (answer.status, answer.header("Retry-After")),
            (503, Some(pause))
        );
        let seen: Vec<_> = a.requests().iter().map(|one| one.at).collect();
        match waits {
            true => assert!(seen[1] - seen[0] >= 1.secs(), "{seen:?}"),
            false => {
                assert_eq!(seen.len(), 1);
                counts(&lb, "maitred_retries_denied_total", "deadline", 1.0).await;
            }
        }
    }
}

/// How long twenty requests take that are each sent four times.
async fn twenty(group: &[Backend]) -> Duration {
    let retry = json!({ "on": [503], "attempts": 4, "budget_percent": 100 });
    let mut lb = retrying(group, retry);
    for one in group {
        // So many that the floor does for all.
        lb = lb.backend_key(one.name(), "max_in_flight", 100);
    }
    let lb = lb.alone().start().await;
    let from = Instant::now();
    let tally = load(lb.address()).requests_each(20).run().await;
    let took = from.elapsed();
    assert_eq!((tally.failed, begun(group)), (20, 80));
    took
}

#[tokio::test]
async fn a_backend_that_is_the_only_one_left_is_given_time() {
    let start = async |name| backend(name).status(503).start().await;
    let several = twenty(&[start("a").await, start("b").await]).await;
    let alone = twenty(&[start("a").await]).await;
    println!("alone {alone:?}, not alone {several:?}");
    // Nothing to 175 ms each, 87 ms in the mean.
    assert!(alone >= several + 500.millis(), "{alone:?} {several:?}");
}

/// As many clients as slots and as many as it takes to make a queue: where the others are busy, it waits for them.
#[tokio::test]
async fn a_retry_does_not_come_back_to_the_backend_that_failed_it() {
    for clients in [3, 9] {
        let bad = backend("bad").status(503).start().await;
        let start = async |name| backend(name).takes(10.millis()).start().await;
        let group = [start("a").await, start("b").await];
        let retry = json!({ "on": [503], "budget_percent": 100 });
        let lb = retrying([&bad, &group[0], &group[1]], retry).start().await;
        let tally = load(lb.address()).clients(clients);
        let tally = tally.requests_each(20).run().await;
        tally.assert_none_failed();
        assert_eq!(begun(&group), clients * 20);
        let retries = scrape(lb.site().admin()).await;
        let retries = retries.sum("maitred_retries_total", &["reason=\"503\""]);
        assert_eq!(retries, bad.begun() as f64, "each left at once");
        assert!(bad.begun() <= clients * 20);
        lb.has_freed_all().await;
        assert_eq!(bad.overlap(), 1);
    }
}

/// The other one is stuck: after a while the one that failed gets another chance.
#[tokio::test]
async fn a_retry_comes_back_when_no_other_backend_has_a_slot_for_long() {
    let bad = backend("bad").breaks_off_first(1).start().await;
    let stuck = backend("stuck").held().start().await;
    let lb = retrying([&stuck, &bad], json!({})).start().await;
    let mut first = lb.connect().await;
    first.send(&get("/home")).await.unwrap();
    stuck.working_on(1).await;
    let from = Instant::now();
    let answer = lb.ask(get("/home")).await;
    let took = from.elapsed();
    assert_eq!((answer.status, answer.backend()), (200, Some("bad")));
    assert!(took >= 1.secs() && took < 10.secs(), "{took:?}");
    stuck.release(1);
}
