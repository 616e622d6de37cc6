//! The object form of the health file: weight, slots and state, each obeyed while requests come and go.

use crate::harness::{Backend, Proxy, Units, backend, get, load, proxy, until};

async fn says(
    lb: &Proxy,
    text: &str,
    backend: &str,
    key: &str,
    value: impl Into<serde_json::Value>,
) {
    lb.site().health_says(text);
    let value = value.into();
    let what = format!("{key} of {backend} is {value}");
    until(&what, 10.secs(), async || {
        lb.backend_status(backend).await[key] == value
    })
    .await;
}

async fn two() -> [Backend; 2] {
    [backend("a").start().await, backend("b").start().await]
}

async fn served(lb: &Proxy, requests: usize) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..requests {
        let answer = lb.ask(get("/home")).await;
        names.push(answer.backend().unwrap_or("").to_owned());
    }
    names
}

#[tokio::test]
async fn weight_in_the_file_shifts_the_shares() {
    let lb = proxy().upstream("web", &two().await).start().await;
    says(
        &lb,
        r#"{"a": {"healthy": true, "weight": 3}, "b": true}"#,
        "a",
        "weight",
        3,
    )
    .await;
    let names = served(&lb, 40).await;
    assert_eq!(
        names.iter().filter(|name| *name == "a").count(),
        30,
        "{names:?}"
    );
    says(&lb, r#"{"a": true, "b": true}"#, "a", "weight", 1).await;
    let names = served(&lb, 10).await;
    assert_eq!(
        names.iter().filter(|name| *name == "a").count(),
        5,
        "{names:?}"
    );
}

#[tokio::test]
async fn more_slots_in_the_file_go_to_those_who_wait() {
    let a = backend("a").held().start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let loading = tokio::spawn(load(lb.address()).clients(5).requests_each(1).run());
    lb.has_waiting(4).await;
    a.working_on(1).await;
    assert_eq!(a.overlap(), 1);
    says(
        &lb,
        r#"{"a": {"healthy": true, "max_in_flight": 4}}"#,
        "a",
        "max_in_flight",
        4,
    )
    .await;
    a.working_on(4).await;
    lb.has_waiting(1).await;
    // Lowered: nobody is evicted, and nobody comes in before three have gone.
    says(
        &lb,
        r#"{"a": {"healthy": true, "max_in_flight": 2}}"#,
        "a",
        "max_in_flight",
        2,
    )
    .await;
    a.working_on(4).await;
    a.release(2);
    a.working_on(2).await;
    lb.has_waiting(1).await;
    a.release(3);
    loading.await.unwrap().assert_none_failed();
    assert_eq!(a.overlap(), 4);
}

#[tokio::test]
async fn a_drained_backend_finishes_what_it_has_and_waiters_move_on() {
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
    let text = r#"{"a": {"healthy": true, "state": "drain"}, "b": true}"#;
    says(&lb, text, "a", "why_not", "its state is drain").await;
    assert_eq!(second.receive("GET").await.unwrap().backend(), Some("b"));
    assert_eq!(served(&lb, 3).await, ["b", "b", "b"]);
    a.release(1);
    assert_eq!(first.receive("GET").await.unwrap().backend(), Some("a"));
}

#[tokio::test]
async fn with_everybody_drained_there_is_503_at_once() {
    let lb = proxy().upstream("web", &two().await).start().await;
    let text =
        r#"{"a": {"healthy": true, "state": "drain"}, "b": {"healthy": true, "state": "maint"}}"#;
    says(&lb, text, "b", "eligible", false).await;
    let answer = lb.ask(get("/home")).await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("its state is maint"),
        "{}",
        answer.text()
    );
}

/// The file says sick, the proxy sees an answer: the file wins, and the status tells.
#[tokio::test]
async fn the_file_wins_over_what_the_proxy_sees_and_the_status_says_that_they_disagree() {
    let a = backend("a").held().start().await;
    let b = backend("b").start().await;
    let lb = proxy()
        .upstream("web", [&a, &b])
        .with_down("b")
        .start()
        .await;
    let mut client = lb.send(&get("/home")).await;
    a.working_on(1).await;
    lb.health(&[("a", false), ("b", true)]).await;
    assert_eq!(lb.backend_status("a").await["disagrees"], false);
    a.release(1);
    assert_eq!(client.receive("GET").await.unwrap().status, 200);
    until("the status says so", 10.secs(), async || {
        lb.backend_status("a").await["disagrees"] == true
    })
    .await;
    assert_eq!(served(&lb, 3).await, ["b", "b", "b"]);
}

#[tokio::test]
async fn a_backend_that_is_called_healthy_and_refuses_disagrees_too() {
    let group = two().await;
    group[0].kill().await;
    let lb = proxy().upstream("web", &group).start().await;
    assert_eq!(served(&lb, 3).await, ["b", "b", "b"]);
    let status = lb.backend_status("a").await;
    assert_eq!(status["disagrees"], true, "{status}");
    assert_eq!(status["eligible"], false);
}

#[tokio::test]
async fn what_the_file_says_in_vain_is_told_once_per_change() {
    let lb = proxy().upstream("web", &two().await).start().await;
    let told = |log: String| log.matches("nobody asked for").count();

    for (text, times) in [
        (r#"{"a": true, "b": true, "c": true}"#, 1),
        (r#"{"a": false, "b": true, "c": false}"#, 1),
        (r#"{"a": true, "b": {"healthy": true, "colour": "red"}}"#, 2),
        (r#"{"a": false, "b": true}"#, 2),
    ] {
        let eligible = text.contains(r#""a": true"#);
        says(&lb, text, "a", "eligible", eligible).await;
        until("it is told", 10.secs(), async || told(lb.log()) >= times).await;
        assert_eq!(told(lb.log()), times, "{text}");
    }
    assert!(lb.log().contains("b.colour"), "{}", lb.log());
}

#[tokio::test]
async fn the_status_tells_how_long_a_change_took_to_be_in_force() {
    let lb = proxy().upstream("web", &two().await).start().await;
    lb.health(&[("a", false)]).await;
    let in_force = async || lb.status().await["report"]["in_force"].clone();
    until("a change is known", 10.secs(), async || {
        !in_force().await["since_notice_seconds"].is_null()
    })
    .await;
    let in_force = in_force().await;
    let noticed = in_force["since_notice_seconds"].as_f64().unwrap();
    let changed = in_force["since_change_seconds"].as_f64().unwrap();
    assert!(noticed > 0.0 && noticed < 5.0, "{in_force}");
    assert!(changed > 0.0 && changed < 5.0, "{in_force}");
}
