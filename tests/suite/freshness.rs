//! How old a report may be, and which ones are doubted.

use std::time::{Duration, Instant, SystemTime};

use crate::harness::{Backend, Proxy, Units, backend, get, load, proxy, until};

async fn two() -> [Backend; 2] {
    [backend("a").start().await, backend("b").start().await]
}

async fn report_is(lb: &Proxy, state: &str) -> Duration {
    report_is_within(lb, state, 10.secs()).await
}

async fn report_is_within(lb: &Proxy, state: &str, limit: Duration) -> Duration {
    let what = format!("the report is {state}");
    until(&what, limit, async || {
        lb.status().await["report"]["state"] == state
    })
    .await
}

async fn eligible(lb: &Proxy) -> [bool; 2] {
    [lb.is_eligible("a").await, lb.is_eligible("b").await]
}

async fn until_eligible(lb: &Proxy, expected: [bool; 2]) {
    let what = format!("eligible: {expected:?}");
    until(&what, 10.secs(), async || eligible(lb).await == expected).await;
}

#[tokio::test]
async fn a_stale_report_stays_in_force_unless_told_otherwise() {
    for (policy, expected) in [
        ("keep", [false, true]),
        ("fail_open", [true, true]),
        ("fail_closed", [false, false]),
    ] {
        let site = proxy()
            .upstream("web", &two().await)
            .with_down("a")
            .health_key("stale_after", "60s")
            .health_key("when_stale", policy)
            .site();
        age_by(&site, 61);
        let lb = site.started().await;
        report_is(&lb, "stale").await;
        until_eligible(&lb, expected).await;
        // Written anew with the same content, it is fresh again.
        lb.health(&[("a", false)]).await;
        until_eligible(&lb, [false, true]).await;
    }
}

#[tokio::test]
async fn a_report_that_is_written_anew_in_time_stays_fresh() {
    let lb = proxy()
        .upstream("web", &two().await)
        .poll_every(100.millis())
        .health_key("stale_after", "3s")
        .start()
        .await;
    for _ in 0..8 {
        lb.site().health(&[]);
        tokio::time::sleep(500.millis()).await;
        assert_eq!(lb.status().await["report"]["state"], "ok");
    }
    assert!(!lb.log().contains("health file is stale"), "{}", lb.log());
}

#[tokio::test]
async fn a_report_goes_stale_on_time_and_each_writing_counts() {
    let lb = proxy()
        .upstream("web", &two().await)
        .poll_every(100.millis())
        .without_health_file()
        .health_key("stale_after", "1200ms")
        .health_key("when_stale", "fail_closed")
        .alone()
        .start()
        .await;
    let mut ages = Vec::new();
    for _ in 0..3 {
        let written = Instant::now();
        lb.site().health(&[]);
        report_is(&lb, "ok").await;
        assert_eq!(lb.ask(get("/home")).await.status, 200);
        report_is(&lb, "stale").await;
        ages.push(written.elapsed());
        assert_eq!(lb.ask(get("/home")).await.status, 503);
    }
    // The least: a machine that does something else for a moment proves nothing.
    let least = *ages.iter().min().unwrap();
    assert!(
        least >= 1_200.millis() && least < 1_700.millis(),
        "stale after {ages:?}"
    );
    let log = lb.log();
    let told = |what: &str| log.matches(what).count();
    assert_eq!(told("health file is stale"), 3, "{log}");
    assert_eq!(told("health file is fresh again"), 2, "{log}");
}

#[tokio::test]
async fn off_means_never_stale() {
    let lb = proxy()
        .upstream("web", &two().await)
        .health_key("stale_after", "off")
        .health_key("when_stale", "fail_closed")
        .site();
    age_by(&lb, 3600);
    let lb = lb.started().await;
    assert_eq!(lb.status().await["report"]["state"], "ok");
    assert_eq!(lb.ask(get("/home")).await.status, 200);
}

/// At the start, age is what the file system says.
#[tokio::test]
async fn a_file_that_is_old_at_the_start_is_stale_at_once() {
    let site = proxy()
        .upstream("web", &two().await)
        .health_key("stale_after", "60s")
        .health_key("when_stale", "fail_closed")
        .site();
    age_by(&site, 61);
    let lb = site.started().await;
    assert_eq!(lb.status().await["report"]["state"], "stale");
    assert_eq!(lb.ask(get("/home")).await.status, 503);
}

#[tokio::test]
async fn a_file_from_the_future_is_fresh_and_a_warning() {
    let site = proxy()
        .upstream("web", &two().await)
        .health_key("stale_after", "60s")
        .health_key("when_stale", "fail_closed")
        .site();
    age_by(&site, -3600);
    let lb = site.started().await;
    assert_eq!(lb.status().await["report"]["state"], "ok");
    assert_eq!(lb.ask(get("/home")).await.status, 200);
    assert!(lb.log().contains("future"), "{}", lb.log());
}

/// Dates the health file back by so many seconds.
fn age_by(site: &crate::harness::Site, seconds: i64) {
    let file = std::fs::File::options()
        .write(true)
        .open(site.health_path())
        .unwrap();
    let by = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    let time = if seconds < 0 { now + by } else { now - by };
    file.set_modified(time).unwrap();
}

#[tokio::test]
async fn without_a_report_requests_are_let_through_where_that_is_wanted() {
    let lb = proxy()
        .upstream("web", &two().await)
        .without_health_file()
        .health_key("when_missing", "fail_open")
        .start()
        .await;
    assert_eq!(lb.status().await["report"]["state"], "missing");
    assert_eq!(lb.ask(get("/home")).await.status, 200);
    lb.site().health(&[("a", false), ("b", false)]);
    until_eligible(&lb, [false, false]).await;
}

/// Whether some of what the file says is not believed yet.
async fn is_doubted(lb: &Proxy, expected: bool) {
    let what = format!("something is doubted: {expected}");
    until(&what, 10.secs(), async || {
        lb.status().await["upstreams"]["web"]["held_seconds"].is_f64() == expected
    })
    .await;
}

async fn cautious(when_stale: &str) -> Proxy {
    proxy()
        .upstream("web", &two().await)
        .health_key("max_flip_percent", 50)
        .health_key("confirm_after", "1h")
        .health_key("when_stale", when_stale)
        .health_key("stale_after", "3s")
        .poller_key("interval", "500ms")
        .poller_key("timeout", "500ms")
        .poller_key("fast_interval", "500ms")
        .start()
        .await
}

#[tokio::test]
async fn a_report_that_turns_too_many_sick_waits_for_a_second_writing() {
    let lb = cautious("keep").await;
    lb.site().health(&[("a", false), ("b", false)]);
    is_doubted(&lb, true).await;
    assert_eq!(eligible(&lb).await, [true, true]);
    assert_eq!(lb.backend_status("a").await["doubted"], true);
    // What comes within a second is no other opinion.
    tokio::time::sleep(1_100.millis()).await;
    lb.site().health(&[("a", false), ("b", false)]);
    until_eligible(&lb, [false, false]).await;
    lb.site().health(&[]);
    until_eligible(&lb, [true, true]).await;
}

#[tokio::test]
async fn one_of_two_is_not_too_many() {
    let lb = cautious("keep").await;
    lb.site().health(&[("a", false)]);
    until_eligible(&lb, [false, true]).await;
}

/// A drain is a command, and nobody doubts those.
#[tokio::test]
async fn what_a_doubted_report_commands_is_done_at_once() {
    let lb = cautious("keep").await;
    lb.site()
        .health_says(r#"{"a": {"healthy": false, "state": "drain"}, "b": false}"#);
    is_doubted(&lb, true).await;
    assert_eq!(eligible(&lb).await, [false, true]);
}

#[tokio::test]
async fn a_report_that_was_a_mistake_and_is_taken_back_harms_nobody() {
    let lb = cautious("keep").await;
    let running = load(lb.address()).clients(4).spawn();
    lb.site().health(&[("a", false), ("b", false)]);
    is_doubted(&lb, true).await;
    lb.site().health(&[]);
    is_doubted(&lb, false).await;
    assert_eq!(eligible(&lb).await, [true, true]);
    running.stop().await.assert_none_failed();
}

#[tokio::test]
async fn a_doubted_report_that_goes_stale_is_under_the_policy_for_stale_ones() {
    let lb = cautious("fail_closed").await;
    lb.site().health(&[("a", false), ("b", false)]);
    is_doubted(&lb, true).await;
    report_is(&lb, "stale").await;
    until_eligible(&lb, [false, false]).await;
}

/// Under `fail_open` everybody counts as healthy; that is no reason to doubt what was known before.
#[tokio::test]
async fn a_report_that_is_fresh_again_is_believed_as_before() {
    let lb = cautious("fail_open").await;
    lb.site().health_says(r#"{"a": false, "b": true}"#);
    until_eligible(&lb, [false, true]).await;
    lb.site().health_says(r#"{"a": false, "b": false}"#);
    is_doubted(&lb, true).await;
    // What comes within a second is no other opinion.
    tokio::time::sleep(1_100.millis()).await;
    lb.site().health_says(r#"{"a": false, "b": false }"#);
    until_eligible(&lb, [false, false]).await;
    until_eligible(&lb, [true, true]).await;
    report_is(&lb, "stale").await;
    lb.site().health_says(r#"{ "a": false, "b": false }"#);
    until_eligible(&lb, [false, false]).await;
}

#[tokio::test]
async fn what_stays_written_is_believed_in_the_end() {
    let lb = proxy()
        .upstream("web", &two().await)
        .health_key("max_flip_percent", 50)
        .health_key("confirm_after", "1s")
        .start()
        .await;
    let written = Instant::now();
    lb.site().health(&[("a", false), ("b", false)]);
    until_eligible(&lb, [false, false]).await;
    let took = written.elapsed();
    assert!(took >= 1.secs() && took < 10.secs(), "{took:?}");
}

/// A real poller that stands still for a while: the policy holds to the second, all the time, and ends with
/// the poller's next round.
async fn with_a_poller_that_stands_still(standstill: Duration, stale_after: Duration) {
    let lb = proxy()
        .upstream("web", &two().await)
        .poll_every(500.millis())
        .health_key("stale_after", format!("{}s", stale_after.as_secs()))
        .health_key("when_stale", "fail_closed")
        .alone()
        .start()
        .await;
    let mut poller = lb.site().start_poller();
    let report = lb.site().health_path();
    let written = || std::fs::metadata(&report).unwrap().modified().unwrap();
    let first = written();
    until("the poller writes", 10.secs(), async || written() > first).await;
    poller.freeze_family();
    let stopped = Instant::now();
    report_is_within(&lb, "stale", stale_after + 3.secs()).await;
    let stale = stopped.elapsed();
    // Its last round was at most an interval (and a busy machine's delay) earlier.
    assert!(stale + 1.secs() >= stale_after, "stale after {stale:?}");
    println!("stale {stale:?} after the poller stood still");
    while stopped.elapsed() < standstill {
        assert_eq!(lb.ask(get("/home")).await.status, 503);
        assert_eq!(lb.status().await["report"]["state"], "stale");
        tokio::time::sleep(200.millis()).await;
    }
    poller.thaw_family();
    let thawed = report_is_within(&lb, "ok", 10.secs()).await;
    println!("fresh {thawed:?} after it went on");
    assert_eq!(lb.ask(get("/home")).await.status, 200);
    poller.kill();
}

#[tokio::test]
async fn a_poller_that_stands_still_lets_the_report_go_stale_on_time() {
    with_a_poller_that_stands_still(4.secs(), 2.secs()).await;
}

#[tokio::test]
#[ignore = "takes five minutes"]
async fn soak_a_poller_that_stands_still_for_five_minutes() {
    with_a_poller_that_stands_still(300.secs(), 30.secs()).await;
}
