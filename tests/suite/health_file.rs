//! The health file: obeyed at once however it is written, and never taken at its worst.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Backend, Proxy, Units, backend, get, proxy, until};

async fn two() -> [Backend; 2] {
    [backend("a").start().await, backend("b").start().await]
}

/// How long it takes until the status shows `a` as eligible or not.
async fn time_until_eligible(lb: &Proxy, eligible: bool) -> Duration {
    let what = format!("eligible: {eligible} for a");
    until(&what, 10.secs(), async || {
        lb.is_eligible("a").await == eligible
    })
    .await
}

/// Asserts that `a` stays down and `b` serves.
async fn assert_last_good_holds(lb: &Proxy) {
    for _ in 0..10 {
        assert_eq!(lb.ask(get("/home")).await.backend(), Some("b"));
    }
    assert!(!lb.is_eligible("a").await && lb.is_eligible("b").await);
}

/// Waits until the status says that something is wrong with the file; returns what it says.
async fn troubled_report(lb: &Proxy) -> Value {
    let mut report = Value::Null;
    until("the status shows the trouble", 10.secs(), async || {
        report = lb.status().await["report"].clone();
        report["state"] != "ok"
    })
    .await;
    report
}

#[tokio::test]
async fn a_rename_is_obeyed_within_50_ms() {
    let group = two().await;
    let lb = proxy().upstream("web", &group).alone().start().await;
    let mut times = Vec::new();
    for round in 0..11 {
        let healthy = round % 2 == 1;
        lb.site().health(&[("a", healthy)]);
        times.push(time_until_eligible(&lb, healthy).await);
    }
    times.sort();
    println!("median {:?}, worst {:?}", times[5], times[10]);
    // The median: a machine that does something else for a moment proves nothing.
    assert!(times[5] <= 50.millis(), "{times:?}");
}

#[tokio::test]
async fn a_write_in_place_is_obeyed() {
    let group = two().await;
    let lb = proxy().upstream("web", &group).start().await;
    for healthy in [false, true, false] {
        fs::write(
            lb.site().health_path(),
            lb.site().health_text(&[("a", healthy)]),
        )
        .unwrap();
        time_until_eligible(&lb, healthy).await;
    }
    assert_last_good_holds(&lb).await;
}

#[tokio::test]
async fn an_object_with_a_reason_is_obeyed() {
    let group = two().await;
    let lb = proxy().upstream("web", &group).start().await;
    let text = r#"{ "a": { "healthy": false, "reason": "deploying", "extra": 1 }, "b": true }"#;
    fs::write(lb.site().health_path(), text).unwrap();
    time_until_eligible(&lb, false).await;
    assert_last_good_holds(&lb).await;
}

#[tokio::test]
async fn garbage_keeps_the_last_good_report() {
    let group = two().await;
    let lb = proxy().upstream("web", &group).with_down("a").start().await;
    for garbage in [
        "",
        "{\"a\": tru",
        "[]",
        "{\"a\": 1, \"b\": true}",
        "{\"a\": true, \"a\": true}",
        "\u{0}\u{1}",
    ] {
        fs::write(lb.site().health_path(), garbage).unwrap();
        let report = troubled_report(&lb).await;
        assert_eq!(report["state"], "corrupt", "{garbage:?}: {report}");
        assert!(report["problem"].is_string(), "{garbage:?}: {report}");
        assert_last_good_holds(&lb).await;
        lb.health(&[("a", true)]).await;
        lb.health(&[("a", false)]).await;
    }
}

#[tokio::test]
async fn a_deleted_file_keeps_the_last_good_report_until_a_new_one_comes() {
    let group = two().await;
    let lb = proxy().upstream("web", &group).with_down("a").start().await;
    fs::remove_file(lb.site().health_path()).unwrap();
    troubled_report(&lb).await;
    assert_last_good_holds(&lb).await;
    lb.health(&[("a", true)]).await;
}

#[tokio::test]
async fn a_file_that_is_not_there_at_the_start_means_503_until_it_comes() {
    let group = two().await;
    let lb = proxy()
        .upstream("web", &group)
        .without_health_file()
        .start()
        .await;
    assert_eq!(lb.ask(get("/home")).await.status, 503);
    assert_eq!(lb.status().await["report"]["state"], "missing");
    lb.health(&[("a", true)]).await;
    assert_eq!(lb.ask(get("/home")).await.status, 200);
}

#[tokio::test]
async fn a_backend_that_turns_sick_finishes_what_it_has() {
    let a = backend("a").held().start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let mut client = lb.send(&get("/home")).await;
    a.working_on(1).await;
    lb.health(&[("a", false)]).await;
    a.release(1);
    assert_eq!(client.receive("GET").await.unwrap().status, 200);
    assert_eq!(lb.ask(get("/home")).await.status, 503);
}

#[tokio::test]
async fn who_waits_is_served_by_the_backend_that_turns_healthy() {
    let a = backend("a").held().start().await;
    let b = backend("b").start().await;
    let lb = proxy()
        .upstream("web", [&a, &b])
        .with_down("b")
        .start()
        .await;
    let mut first = lb.send(&get("/home")).await;
    a.working_on(1).await;
    let mut second = lb.send(&get("/home")).await;
    lb.has_waiting(1).await;
    lb.health(&[("b", true)]).await;
    assert_eq!(second.receive("GET").await.unwrap().backend(), Some("b"));
    a.release(1);
    assert_eq!(first.receive("GET").await.unwrap().backend(), Some("a"));
}
