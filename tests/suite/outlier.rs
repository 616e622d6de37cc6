//! Backends that fail requests while the health file calls them healthy: each cause takes one out and nothing else
//! does, for how long, and what brings it back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::busy::demos;
use crate::harness::{
    Backend, Proxy, ProxyBuilder, Units, backend, get, load, post, proxy, soon, until,
};
use crate::upgrade::upgrade;

const DETECTION: &str = "maitred.upstreams.web.outlier_detection";

fn detecting<'a>(
    backends: impl IntoIterator<Item = &'a Backend>,
    detection: Value,
) -> ProxyBuilder {
    proxy().upstream("web", backends).key(DETECTION, detection)
}

/// One that answers each request with this status, and one that works.
async fn bad_and_good(status: u16) -> [Backend; 2] {
    let bad = backend("bad").status(status).start().await;
    [bad, backend("good").start().await]
}

/// Every ejection and return of this backend, in that order: what happened, its cause, and for how long.
async fn history(lb: &Proxy, backend: &str) -> Vec<(String, String, f64)> {
    let page = lb.admin("/api/v1/events").await.json();
    let events = page["events"].as_array().unwrap().iter();
    let of_it = events.filter(|event| event["backend"] == backend);
    let told = of_it.filter_map(|event| {
        let kind = event["kind"].as_str()?.strip_prefix("backend_")?;
        let cause = event["cause"].as_str().unwrap_or("");
        let rest = event["rest_seconds"].as_f64().unwrap_or(0.0);
        (kind != "admitted").then(|| (kind.to_owned(), cause.to_owned(), rest))
    });
    told.collect()
}

async fn is_out(lb: &Proxy, backend: &str) -> bool {
    let is_out = !lb.is_eligible(backend).await;
    if is_out {
        // An ejection is in force a moment before it is told.
        until("it is told", 2.secs(), async || {
            !history(lb, backend).await.is_empty()
        })
        .await;
    }
    is_out
}

/// Waits until the backend's ejection is in this state; `null`: it is not ejected.
async fn is_in_state(lb: &Proxy, backend: &str, state: impl Into<Value>) {
    let state = state.into();
    until(&format!("{backend} is {state}"), 10.secs(), async || {
        lb.backend_status(backend).await["ejection"]["state"] == state
    })
    .await;
}

/// Asks one after the other until the bad one is out; how often.
async fn asks_until_out(lb: &Proxy, backend: &str, target: &str) -> usize {
    for count in 0..100 {
        if is_out(lb, backend).await {
            return count;
        }
        lb.ask(get(target)).await;
    }
    panic!("{backend} is not taken out: {}", lb.log());
}

#[tokio::test]
async fn five_answers_502_503_or_504_in_a_row_take_a_backend_out() {
    for status in [502, 503, 504] {
        let [bad, good] = bad_and_good(status).await;
        let lb = detecting([&bad, &good], json!({})).start().await;
        asks_until_out(&lb, "bad", "/home").await;
        assert_eq!(bad.begun(), 5);
        for _ in 0..10 {
            assert_eq!(lb.ask(get("/home")).await.backend(), Some("good"));
        }
        let told = ("ejected".into(), "consecutive_errors".into(), 10.0);
        assert_eq!(history(&lb, "bad").await, [told]);
        let shown = lb.backend_status("bad").await;
        assert_eq!(shown["ejection"]["cause"], "consecutive_errors");
        assert_eq!(shown["ejection"]["state"], "open");
        let rest = shown["ejection"]["rest_seconds"].as_f64().unwrap();
        assert!(rest > 5.0 && rest <= 10.0, "{rest}");
        let why = shown["why_not"].as_str().unwrap();
        assert!(
            why.starts_with("it failed too many requests in a row; it is tried again within "),
            "{why}"
        );
    }
}

/// Of a backend that does nothing else, one after the other.
#[tokio::test]
async fn so_many_errors_take_a_backend_out() {
    let never = None;
    for (detection, errors) in [
        (json!({ "consecutive_errors": 2 }), Some(2)),
        (
            json!({ "consecutive_errors": "off", "min_requests": 6 }),
            Some(6),
        ),
        (
            json!({ "consecutive_errors": "off", "min_requests": 9 }),
            Some(9),
        ),
        (
            json!({ "consecutive_errors": "off", "min_requests": 6, "error_percent": "off" }),
            never,
        ),
        (
            json!({ "consecutive_errors": "off", "min_requests": 6, "error_window": "50ms" }),
            never,
        ),
    ] {
        let [bad, good] = bad_and_good(503).await;
        let lb = detecting([&bad, &good], detection.clone()).start().await;
        for _ in 0..30 {
            lb.ask(get("/home")).await;
            tokio::time::sleep(15.millis()).await;
        }
        assert_eq!(is_out(&lb, "bad").await, errors.is_some(), "{detection}");
        assert_eq!(bad.begun(), errors.unwrap_or(15), "{detection}");
    }
}

#[tokio::test]
async fn a_rest_is_as_long_as_is_wanted() {
    for (written, rest) in [("300ms", 0.3), ("20m", 1200.0)] {
        let [bad, good] = bad_and_good(503).await;
        let detection = json!({ "base_ejection": written });
        let lb = detecting([&bad, &good], detection).start().await;
        asks_until_out(&lb, "bad", "/home").await;
        assert_eq!(history(&lb, "bad").await[0].2, rest);
        bad.turns(200);
        if rest < 1.0 {
            soon("its trial", 5.secs(), is_in_state(&lb, "bad", "probation")).await;
        } else {
            tokio::time::sleep(500.millis()).await;
        }
        let answer = lb.ask(get("/home")).await;
        assert_eq!(answer.backend() == Some("bad"), rest < 1.0);
    }
}

#[tokio::test]
async fn what_is_turned_down_for_a_retry_counts_as_well() {
    let [bad, good] = bad_and_good(503).await;
    let lb = detecting([&bad, &good], json!({}))
        .key("maitred.upstreams.web.retry.on", json!([503]))
        .start()
        .await;
    for _ in 0..20 {
        assert_eq!(lb.ask(get("/home")).await.status, 200);
        lb.has_freed_all().await;
    }
    assert_eq!((bad.begun(), is_out(&lb, "bad").await), (5, true));
}

/// Where a single error would be enough.
fn strict() -> Value {
    json!({ "consecutive_errors": 1, "error_percent": 1, "min_requests": 1 })
}

async fn takes_nobody_out(bad: Backend, answered: u16) {
    let good = backend("good").start().await;
    let lb = detecting([&bad, &good], strict()).start().await;
    for _ in 0..10 {
        let status = lb.ask(get("/home")).await.status;
        assert!([200, answered].contains(&status), "{status}");
    }
    assert_eq!(history(&lb, "bad").await, []);
    // What met a closed connection went elsewhere, and the next came again.
    assert!(bad.served() >= 4, "{}", bad.served());
}

#[tokio::test]
async fn an_answer_500_or_404_takes_nobody_out() {
    takes_nobody_out(backend("bad").status(500).start().await, 500).await;
    takes_nobody_out(backend("bad").status(404).start().await, 404).await;
}

#[tokio::test]
async fn a_connection_that_was_closed_after_an_answer_takes_nobody_out() {
    takes_nobody_out(backend("bad").hangs_up().start().await, 200).await;
    takes_nobody_out(backend("bad").hangs_up_late().start().await, 200).await;
}

/// It says something of itself, and not of all who were asked to serve it.
#[tokio::test]
async fn a_request_that_crashes_whoever_serves_it_takes_nobody_out() {
    let start = async |name| backend(name).start().await;
    let group = [start("a").await, start("b").await, start("c").await];
    let lb = proxy()
        .upstream("web", &group)
        .key("maitred.upstreams.web.keepalive", "off")
        .start()
        .await;
    for _ in 0..4 {
        assert_eq!(lb.ask(get("/home?reset")).await.status, 502);
        assert_eq!(lb.ask(get("/home")).await.status, 200);
    }
    for backend in &group {
        assert_eq!(history(&lb, backend.name()).await, []);
        assert!(backend.begun() >= 4);
    }
}

/// One that answers with a stream, of which the first piece comes after a pause, or grants an upgrade; and one that works.
async fn streaming_and_good(pause: Duration) -> [Backend; 2] {
    let a = backend("a")
        .header("Content-Type", "text/event-stream")
        .chunked()
        // Pingora may cut an upgrade that is granted sooner (cloudflare/pingora#946).
        .takes(20.millis())
        .pauses_before_body(pause)
        .upgrades("");
    [a.start().await, backend("good").start().await]
}

/// Streams have no end but their clients', and are good answers all the same.
#[tokio::test]
async fn a_stream_that_its_client_has_ended_ends_a_run_of_errors() {
    for (stream, is_out_then) in [
        (Some(get("/home")), false),
        (Some(upgrade()), false),
        (None, true),
    ] {
        let [a, good] = streaming_and_good(200.millis()).await;
        let two = json!({ "consecutive_errors": 2, "error_percent": "off" });
        let lb = detecting([&a, &good], two).start().await;
        lb.health(&[("a", true), ("good", false)]).await;
        let error = get("/home?status=503");
        assert_eq!(lb.ask(error.clone()).await.status, 503);
        if let Some(request) = stream {
            let mut client = lb.connect().await;
            client.send(&request).await.unwrap();
            // All that there is, or it would be a reset.
            let _ = timeout(100.millis(), client.read_until_closed()).await;
            drop(client);
            a.release(1);
            lb.has_freed_all().await;
        }
        lb.health(&[("a", true), ("good", true)]).await;
        until("it is asked again", 5.secs(), async || {
            let before = a.begun();
            lb.ask(error.clone()).await;
            a.begun() > before
        })
        .await;
        assert_eq!(is_out(&lb, "a").await, is_out_then);
    }
}

#[tokio::test]
async fn a_stream_on_which_nothing_is_said_takes_nobody_out() {
    for request in [get("/home"), upgrade()] {
        let [a, good] = streaming_and_good(60.secs()).await;
        let mut detection = strict();
        detection["max_ejection_percent"] = 100.into();
        let lb = detecting([&a, &good], detection)
            .read_timeout(300.millis())
            .start()
            .await;
        lb.health(&[("a", true), ("good", false)]).await;
        let mut client = lb.connect().await;
        client.send(&request).await.unwrap();
        soon("the end", 3.secs(), client.read_until_closed()).await;
        assert_eq!(history(&lb, "a").await, []);
    }
}

/// It says so of a backend that hangs, too: of that, all will leave.
#[tokio::test]
async fn streams_that_clients_leave_do_not_hide_that_a_backend_hangs() {
    let [a, good] = streaming_and_good(60.secs()).await;
    let two = json!({ "consecutive_errors": 2, "error_percent": "off" });
    let lb = detecting([&a, &good], two)
        .backend_key("a", "max_in_flight", 10)
        .response_header_timeout(300.millis())
        .start()
        .await;
    lb.health(&[("a", true), ("good", false)]).await;
    let mut client = lb.connect().await;
    client.send(&get("/home")).await.unwrap();
    client.read_bytes(12).await.unwrap();
    let hangs = get("/home?takes=5000");
    assert_eq!(lb.ask(hangs.clone()).await.status, 504);
    drop(client);
    tokio::time::sleep(100.millis()).await;
    lb.health(&[("a", true), ("good", true)]).await;
    until("it is asked again", 5.secs(), async || {
        lb.ask(hangs.clone()).await;
        a.begun() == 3
    })
    .await;
    assert!(is_out(&lb, "a").await);
}

#[tokio::test]
async fn a_client_that_leaves_takes_nobody_out() {
    let (a, good) = (backend("a").held().start().await, backend("good"));
    let good = good.start().await;
    let lb = detecting([&a, &good], strict()).start().await;
    for served in 1..=3 {
        lb.health(&[("a", true), ("good", false)]).await;
        let mut client = lb.connect().await;
        client.send(&get("/home")).await.unwrap();
        a.working_on(1).await;
        drop(client);
        a.release(1);
        lb.has_freed_all().await;
        assert_eq!(a.served(), served);
    }
    assert_eq!(history(&lb, "a").await, []);
}

#[tokio::test]
async fn what_a_backend_does_after_its_client_has_left_counts_as_well() {
    let bad = backend("bad").start().await;
    let good = backend("good").start().await;
    let mut detection = strict();
    // The good one crashes, too.
    detection["max_ejection_percent"] = 100.into();
    let lb = detecting([&bad, &good], detection).start().await;
    until("it is out", 10.secs(), async || {
        let client = lb.send(&get("/home?reset&takes=50")).await;
        tokio::time::sleep(20.millis()).await;
        drop(client);
        is_out(&lb, "bad").await
    })
    .await;
    assert_eq!(history(&lb, "bad").await[0].1, "consecutive_errors");
}

/// Its own limit says how long a backend may take, and not how long its clients have waited.
#[tokio::test]
async fn a_backend_that_hangs_is_out_though_its_clients_have_left_before() {
    let bad = backend("bad").held().start().await;
    let good = backend("good").start().await;
    let lb = detecting([&bad, &good], strict())
        .response_header_timeout(200.millis())
        .busy_limit(300.millis())
        .start()
        .await;
    until("it is out", 10.secs(), async || {
        let client = lb.send(&get("/home")).await;
        tokio::time::sleep(20.millis()).await;
        drop(client);
        is_out(&lb, "bad").await
    })
    .await;
}

/// A request whose time was over before the backend had it long enough.
#[tokio::test]
async fn a_client_that_gives_up_early_takes_nobody_out() {
    let a = backend("a").held().start().await;
    let b = backend("b").held().start().await;
    let lb = detecting([&a, &b], strict()).start().await;
    for _ in 0..4 {
        let answer = lb
            .ask(get("/home").header("X-Request-Timeout", "50ms"))
            .await;
        assert_eq!(answer.status, 504);
        until("the one that has it goes on", 5.secs(), async || {
            let busy = [&a, &b].into_iter().find(|one| one.current() == 1);
            busy.inspect(|one| one.release(1)).is_some()
        })
        .await;
        lb.has_freed_all().await;
    }
    assert_eq!(history(&lb, "a").await, []);
    assert_eq!(history(&lb, "b").await, []);
}

/// Two of which one has been taken out by five errors, and rests for so long.
async fn one_out(bad: &Backend, good: &Backend, rest: Duration, more: Value) -> Proxy {
    let mut detection = json!({ "base_ejection": format!("{}ms", rest.as_millis()) });
    for (key, value) in more.as_object().unwrap() {
        detection[key] = value.clone();
    }
    let lb = detecting([bad, good], detection)
        .key("maitred.upstreams.web.retry.on", json!([503]))
        .backend_key("bad", "max_in_flight", 100)
        .start()
        .await;
    asks_until_out(&lb, "bad", "/home").await;
    lb
}

#[tokio::test]
async fn it_comes_back_by_one_trial_at_a_time() {
    let bad = backend("bad").status(503).takes(50.millis()).start().await;
    let good = backend("good").start().await;
    let lb = one_out(&bad, &good, 300.millis(), json!({})).await;
    let clients = load(lb.address()).clients(30).spawn();
    until("two trials have failed", 10.secs(), async || {
        bad.begun() == 7
    })
    .await;
    assert_eq!(bad.overlap(), 1);
    bad.turns(200);
    until("it serves as much as it can", 10.secs(), async || {
        bad.overlap() > 5
    })
    .await;
    clients.stop().await.assert_none_failed();
    until("its return is told", 5.secs(), async || {
        history(&lb, "bad").await.len() >= 4
    })
    .await;
    let told = history(&lb, "bad").await;
    let rests: Vec<_> = told.iter().map(|(_, _, rest)| *rest).collect();
    assert_eq!(rests, [0.3, 0.6, 1.2, 0.0], "{told:?}");
    assert_eq!(told[3].0, "reinstated");
}

#[tokio::test]
async fn rests_grow_no_longer_than_the_longest() {
    let [bad, good] = bad_and_good(503).await;
    let longest = json!({ "max_ejection": "250ms" });
    let lb = one_out(&bad, &good, 100.millis(), longest).await;
    let clients = load(lb.address()).clients(2).spawn();
    until("three trials have failed", 10.secs(), async || {
        history(&lb, "bad").await.len() >= 4
    })
    .await;
    clients.stop().await.assert_none_failed();
    let told = history(&lb, "bad").await;
    let rests: Vec<_> = told.iter().map(|(_, _, rest)| *rest).collect();
    assert_eq!(rests[..4], [0.1, 0.2, 0.25, 0.25]);
}

#[tokio::test]
async fn a_post_is_no_trial_while_others_may_come() {
    let [bad, good] = bad_and_good(503).await;
    let lb = one_out(&bad, &good, 4.secs(), json!({})).await;
    bad.turns(200);
    is_in_state(&lb, "bad", "probation").await;
    for _ in 0..5 {
        let answer = lb.ask(post("/home").body(b"pay 5".to_vec())).await;
        assert_eq!(answer.backend(), Some("good"));
    }
    assert_eq!(bad.begun(), 5);
    assert_eq!(lb.ask(get("/home")).await.backend(), Some("bad"));
    is_in_state(&lb, "bad", Value::Null).await;
}

#[tokio::test]
async fn a_post_that_may_be_sent_again_is_a_trial() {
    let [bad, good] = bad_and_good(503).await;
    let lb = detecting([&bad, &good], json!({ "base_ejection": "2s" }))
        .key("maitred.upstreams.web.retry.non_idempotent", true)
        .start()
        .await;
    asks_until_out(&lb, "bad", "/home").await;
    bad.turns(200);
    is_in_state(&lb, "bad", "probation").await;
    let answer = lb.ask(post("/home").body(b"pay 5".to_vec())).await;
    assert_eq!(answer.backend(), Some("bad"));
}

#[tokio::test]
async fn where_only_posts_come_one_of_them_is_the_trial() {
    let [bad, good] = bad_and_good(503).await;
    let lb = one_out(&bad, &good, 500.millis(), json!({})).await;
    let begun = bad.requests().last().unwrap().at;
    bad.turns(200);
    until("it serves again", 10.secs(), async || {
        let answer = lb.ask(post("/home").body(b"pay 5".to_vec())).await;
        assert_eq!(answer.status, 200);
        bad.served() > 5
    })
    .await;
    let took = begun.elapsed();
    assert!(took > 700.millis(), "not before another rest: {took:?}");
}

/// Nobody else may have them: they need not wait for the end of a rest, and whatever they are.
#[tokio::test]
async fn while_nobody_else_is_eligible_whoever_waits_is_soon_the_trial() {
    for method in ["GET", "POST"] {
        let [bad, good] = bad_and_good(503).await;
        let lb = one_out(&bad, &good, 60.secs(), json!({})).await;
        bad.turns(200);
        lb.site().health(&[("bad", true), ("good", false)]);
        until("good is out", 5.secs(), async || is_out(&lb, "good").await).await;
        let begun = Instant::now();
        let answer = lb.ask(crate::harness::request(method, "/home")).await;
        assert_eq!(answer.backend(), Some("bad"));
        assert!(begun.elapsed() < 10.secs(), "{:?}", begun.elapsed());
        is_in_state(&lb, "bad", Value::Null).await;
    }
}

/// They may be well long since, and there is nobody else to hide from clients that it fails.
#[tokio::test]
async fn when_the_last_one_begins_to_fail_those_that_rest_are_tried_at_once() {
    for slots in [1, 100] {
        let [bad, good] = bad_and_good(503).await;
        let detection = json!({ "base_ejection": "60s" });
        let lb = detecting([&bad, &good], detection)
            .key(
                "maitred.upstreams.web.retry",
                json!({ "on": [503], "attempts": 5, "budget_percent": 100 }),
            )
            // The budget holds as many retries as there are slots.
            .backend_key("bad", "max_in_flight", 100)
            .backend_key("good", "max_in_flight", slots)
            .alone()
            .start()
            .await;
        asks_until_out(&lb, "bad", "/home").await;
        bad.turns(200);
        // As long as one that rests is left alone whatever happens.
        tokio::time::sleep(600.millis()).await;
        let clients = load(lb.address()).clients(20).spawn();
        until("good is at work", 5.secs(), async || good.begun() > 40).await;
        good.turns(503);
        until("bad is back", 5.secs(), async || bad.served() > 40).await;
        clients.stop().await.assert_none_failed();
    }
}

#[tokio::test]
async fn a_trial_whose_client_leaves_decides_nothing() {
    let bad = backend("bad").status(503).held().start().await;
    let good = backend("good").start().await;
    bad.release(5);
    let lb = one_out(&bad, &good, 300.millis(), json!({})).await;
    is_in_state(&lb, "bad", "probation").await;
    let mut client = lb.connect().await;
    client
        .send(&get("/home").header("X-Request-Timeout", "100ms"))
        .await
        .unwrap();
    assert_eq!(client.receive("GET").await.unwrap().status, 504);
    assert_eq!(
        lb.backend_status("bad").await["ejection"]["state"],
        "probation"
    );
    assert_eq!(
        lb.ask(get("/home")).await.backend(),
        Some("good"),
        "one at a time"
    );
    bad.turns(200);
    bad.release(9);
    lb.has_freed_all().await;
    assert_eq!(lb.ask(get("/home")).await.backend(), Some("bad"));
}

#[tokio::test]
async fn no_more_are_out_than_may_be() {
    let default = 50;
    for (percent, count, most) in [
        (default, 1, 0),
        (default, 2, 1),
        (default, 3, 1),
        (default, 4, 2),
        (80, 4, 3),
        (0, 4, 0),
    ] {
        let mut group = Vec::new();
        for name in &["a", "b", "c", "d"][..count] {
            group.push(backend(name).status(503).start().await);
        }
        let detection = json!({ "max_ejection_percent": percent });
        let lb = detecting(&group, detection).start().await;
        for _ in 0..60 {
            assert_eq!(lb.ask(get("/home")).await.status, 503);
        }
        let mut out = 0;
        for backend in &group {
            out += usize::from(is_out(&lb, backend.name()).await);
        }
        assert_eq!(out, most, "{percent} % of {count}");
    }
}

#[tokio::test]
async fn who_refuses_is_out_however_many_are() {
    let [bad, good] = bad_and_good(503).await;
    let dead = backend("dead").start().await;
    let lb = detecting([&bad, &good, &dead], json!({})).start().await;
    asks_until_out(&lb, "bad", "/home").await;
    dead.kill().await;
    asks_until_out(&lb, "dead", "/home").await;
    assert!(is_out(&lb, "bad").await);
    for _ in 0..5 {
        assert_eq!(lb.ask(get("/home")).await.backend(), Some("good"));
    }
}

#[tokio::test]
async fn a_backend_that_asks_for_a_pause_has_it() {
    for (longest, expected) in [("5m", 42.0), ("30s", 30.0)] {
        let bad = backend("bad").status(503).header("Retry-After", "42");
        let (bad, good) = (bad.start().await, backend("good").start().await);
        let detection = json!({ "max_ejection": longest });
        let lb = detecting([&bad, &good], detection).start().await;
        asks_until_out(&lb, "bad", "/home").await;
        assert_eq!(history(&lb, "bad").await[0].2, expected);
    }
}

#[tokio::test]
async fn the_file_ends_an_ejection_when_it_turns_from_sick_to_healthy() {
    let [bad, good] = bad_and_good(503).await;
    let lb = one_out(&bad, &good, 60.secs(), json!({})).await;
    lb.site().health(&[("bad", true), ("good", true)]);
    lb.health(&[("good", true)]).await;
    assert!(is_out(&lb, "bad").await, "it says nothing new");
    lb.site().health(&[("bad", false), ("good", true)]);
    until("the report is obeyed", 5.secs(), async || {
        let shown = lb.backend_status("bad").await;
        let why = shown["why_not"].as_str();
        why.is_some_and(|why| why.starts_with("the health file says false"))
    })
    .await;
    assert_eq!(lb.backend_status("bad").await["ejection"]["state"], "open");
    lb.health(&[("bad", true), ("good", true)]).await;
    assert!(lb.is_eligible("bad").await);
}

#[tokio::test]
async fn half_of_its_requests_in_a_window_are_too_many() {
    // Every other one is an error, beginning with the first: 6 of 11, which are 55 %.
    for (percent, seen) in [(50, 11), (60, 20)] {
        let [bad, good] = bad_and_good(200).await;
        let detection = json!({
            "consecutive_errors": "off", "error_percent": percent, "min_requests": 10,
        });
        let lb = detecting([&bad, &good], detection).start().await;
        for _ in 0..40 {
            bad.turns(if bad.begun() % 2 == 0 { 503 } else { 200 });
            lb.ask(get("/home")).await;
        }
        assert_eq!(bad.begun(), seen);
        let causes: Vec<_> = history(&lb, "bad")
            .await
            .into_iter()
            .map(|told| told.1)
            .collect();
        assert_eq!(causes, ["error_percent"][..usize::from(seen == 11)]);
    }
}

/// Answers that never come, are no HTTP, or stop: each is an error.
#[tokio::test]
async fn what_never_comes_or_is_none_or_stops_is_an_error() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
    for bad in [
        backend("bad").held(),
        backend("bad").answers_raw("what?\r\n\r\n"),
        backend("bad").answers_raw(half),
    ] {
        let (bad, good) = (bad.start().await, backend("good").start().await);
        let lb = detecting([&bad, &good], json!({ "consecutive_errors": 3 }))
            .response_header_timeout(100.millis())
            .read_timeout(100.millis())
            .busy_limit(100.millis())
            .backend_key("bad", "max_in_flight", 9)
            .start()
            .await;
        until("bad is out", 10.secs(), async || {
            // Some are passed on as far as they came.
            let _ = get("/home").send_to(lb.address()).await;
            is_out(&lb, "bad").await
        })
        .await;
        assert_eq!(bad.begun(), 3);
        assert_eq!(history(&lb, "bad").await[0].1, "consecutive_errors");
    }
}

#[tokio::test]
async fn who_is_far_slower_than_the_others_is_out_where_that_is_wanted() {
    for (factor, is_taken_out) in [(json!(3), true), (json!("off"), false)] {
        let start = async |name, takes: u64| backend(name).takes(takes.millis()).start().await;
        let group = [
            start("a", 10).await,
            start("b", 10).await,
            start("slow", 300).await,
        ];
        let detection =
            json!({ "latency_factor": factor, "error_window": "500ms", "min_requests": 3 });
        let lb = detecting(&group, detection).alone().start().await;
        let clients = load(lb.address()).clients(3).spawn();
        if is_taken_out {
            until("slow is out", 10.secs(), async || is_out(&lb, "slow").await).await;
        } else {
            tokio::time::sleep(2.secs()).await;
        }
        clients.stop().await.assert_none_failed();
        let told = history(&lb, "slow").await;
        let causes: Vec<_> = told.iter().map(|(_, cause, _)| cause.as_str()).collect();
        assert_eq!(causes, ["latency"][..usize::from(is_taken_out)]);
        assert_eq!(history(&lb, "a").await, []);
    }
}

/// Its connections break off in the middle, all at once: that is its end, and it is back when it accepts again.
#[tokio::test]
async fn a_process_that_dies_with_its_connections_is_tried_by_connections() {
    let (bad, good) = (backend("bad").held().start().await, backend("good"));
    let good = good.start().await;
    let lb = detecting([&bad, &good], json!({ "base_ejection": "60s" }))
        .backend_key("bad", "max_in_flight", 100)
        .start()
        .await;
    lb.health(&[("bad", true), ("good", false)]).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = lb.connect().await;
        client.send(&get("/home")).await.unwrap();
        clients.push(client);
    }
    bad.working_on(10).await;
    lb.health(&[("bad", true), ("good", true)]).await;
    bad.kill().await;
    until("it is known to refuse", 5.secs(), async || {
        let shown = lb.backend_status("bad").await;
        shown["why_not"] == "it refuses connections"
    })
    .await;
    for mut client in clients {
        let answer = client.receive("GET").await.unwrap();
        assert_eq!(answer.backend(), Some("good"));
    }
    bad.revive().await;
    let back = until("it is back", 10.secs(), async || {
        lb.is_eligible("bad").await
    })
    .await;
    println!("back after {back:?}");
}

/// A process that hangs: requests time out and are served by the others, which it slows down only until it is out.
#[tokio::test]
async fn a_process_that_is_stopped_is_out_after_its_timeouts_and_comes_back() {
    let servers = demos(10.millis()).await;
    let lb = proxy()
        .upstream("web", &servers)
        .key(DETECTION, json!({ "base_ejection": "2s" }))
        .key(
            "maitred.upstreams.web.retry.on",
            json!([
                "connect_failure",
                "reset_before_response",
                "stale_connection",
                "timeout"
            ]),
        )
        .response_header_timeout(1.secs())
        .busy_limit(300.millis())
        .backend_key("server2", "max_in_flight", 5)
        .alone()
        .start()
        .await;
    let clients = load(lb.address()).clients(9).spawn();
    until("server2 is at work", 5.secs(), async || {
        lb.backend_status("server2").await["served"].as_u64() > Some(20)
    })
    .await;
    servers[1].program.freeze_family();
    let out = until("it is out", 10.secs(), async || {
        is_out(&lb, "server2").await
    })
    .await;
    assert_eq!(history(&lb, "server2").await[0].1, "consecutive_errors");
    let during = load(lb.address()).clients(5).lasting(1.secs()).await;
    println!("out after {out:?}, then {:?}", during.quantile(0.99));
    during.assert_none_failed();
    // Fourteen clients at two servers of 10 ms each: none has met the one that hangs.
    assert!(
        during.quantile(0.99) < 800.millis(),
        "{:?}",
        during.quantile(0.99)
    );
    servers[1].program.thaw_family();
    let back = until("it is back", 15.secs(), async || {
        lb.is_eligible("server2").await
    })
    .await;
    println!("back after {back:?}");
    clients.stop().await.assert_none_failed();
}
