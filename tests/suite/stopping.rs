//! The two ends of a run: ready means listening, and a signal ends it in order. After SIGTERM or SIGINT,
//! nobody new comes in, everybody who is inside gets an answer, and the end is prompt.

use std::time::Instant;

use crate::harness::{Backend, Client, Proxy, Units, backend, get, proxy, soon, until};

/// A proxy whose one backend is at work for a client.
async fn busy(grace_secs: u64) -> (Backend, Proxy, Client) {
    let a = backend("a").held().start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .grace(grace_secs.secs())
        .start()
        .await;
    let client = lb.send(&get("/home")).await;
    a.working_on(1).await;
    (a, lb, client)
}

/// A second client, known to wait.
async fn waiting_client(lb: &Proxy) -> Client {
    let client = lb.send(&get("/home").accepts_json()).await;
    lb.has_waiting(1).await;
    client
}

async fn refuses_connections(lb: &Proxy) {
    until("new connections are refused", 10.secs(), async || {
        lb.try_connect().await.is_err()
    })
    .await;
}

#[tokio::test]
async fn ready_means_listening() {
    let a = backend("a").start().await;
    for _ in 0..10 {
        let site = proxy().upstream("web", [&a]).site();
        let _program = site.start_proxy();
        site.says_ready().await;
        assert!(
            Client::connect(site.address()).await.is_ok(),
            "readyz said 200 and nobody listens"
        );
    }
}

#[tokio::test]
async fn after_sigterm_the_running_request_finishes_and_nobody_new_comes_in() {
    let (a, mut lb, mut client) = busy(10).await;
    lb.program().terminate();
    lb.is_stopping().await;
    refuses_connections(&lb).await;
    assert_eq!(
        lb.admin("/healthz").await.status,
        200,
        "it is alive while it stops"
    );
    a.release(1);
    let answer = soon("the answer", 10.secs(), client.receive("GET"))
        .await
        .unwrap();
    assert_eq!((answer.status, answer.backend()), (200, Some("a")));
    assert!(
        answer.headers.lists("Connection", "close"),
        "{:?}",
        answer.headers
    );
    let (code, took) = lb.program().wait_exit(15.secs()).await;
    assert_eq!(code, Some(0));
    assert!(took <= 5.secs(), "{took:?} after the last answer");
}

#[tokio::test]
async fn after_sigterm_who_waits_is_still_served() {
    let (a, mut lb, mut first) = busy(10).await;
    let mut second = waiting_client(&lb).await;
    lb.program().terminate();
    refuses_connections(&lb).await;
    a.release(2);
    for client in [&mut first, &mut second] {
        let answer = soon("the answer", 10.secs(), client.receive("GET"))
            .await
            .unwrap();
        assert_eq!(
            (answer.status, answer.headers.lists("Connection", "close")),
            (200, true)
        );
    }
    let (code, took) = lb.program().wait_exit(15.secs()).await;
    assert_eq!(code, Some(0));
    assert!(took <= 5.secs(), "{took:?} after the last answer");
    assert_eq!(a.overlap(), 1);
}

#[tokio::test]
async fn when_the_grace_ends_who_waits_gets_503() {
    let (_a, mut lb, _first) = busy(1).await;
    let mut second = waiting_client(&lb).await;
    let begun = Instant::now();
    lb.program().terminate();
    let answer = soon("the refusal", 10.secs(), second.receive("GET"))
        .await
        .unwrap();
    assert!(
        (700.millis()..=5.secs()).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    answer.assert_refusal(503, "stopping");
    assert!(answer.headers.lists("Connection", "close"));
    let (_, took) = lb.program().wait_exit(15.secs()).await;
    assert!(took <= 5.secs(), "{took:?} after the grace");
}

#[tokio::test]
async fn without_work_sigterm_ends_it_at_once() {
    let a = backend("a").start().await;
    let mut lb = proxy().upstream("web", [&a]).start().await;
    let mut idle = lb.connect().await;
    assert_eq!(idle.ask(&get("/home")).await.unwrap().status, 200);
    lb.program().terminate();
    let (code, took) = lb.program().wait_exit(15.secs()).await;
    assert_eq!(code, Some(0));
    assert!(
        took <= 5.secs(),
        "an idle connection is nothing to wait for: {took:?}"
    );
}

#[tokio::test]
async fn a_hangup_stops_it_in_order() {
    let (a, mut lb, mut client) = busy(10).await;
    lb.program().hang_up();
    lb.is_stopping().await;
    a.release(1);
    assert_eq!(client.receive("GET").await.unwrap().status, 200);
    let (code, _) = lb.program().wait_exit(5.secs()).await;
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn a_second_sigint_ends_it_at_once() {
    let (_a, mut lb, _client) = busy(10).await;
    lb.program().interrupt();
    lb.is_stopping().await;
    assert!(
        lb.program().exit().is_none(),
        "the first one waits for the running request"
    );
    lb.program().interrupt();
    let (_, took) = lb.program().wait_exit(15.secs()).await;
    assert!(took <= 5.secs(), "{took:?}");
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_outlast_the_grace() {
    let a = backend("a").held().start().await;
    let lb = proxy().upstream("web", [&a]).grace(2.secs()).alone();
    let mut lb = lb.start().await;
    let _client = lb.send(&get("/home")).await;
    a.working_on(1).await;
    lb.program().terminate();
    let (_, took) = lb.program().wait_exit(15.secs()).await;
    assert!((1700.millis()..=5.secs()).contains(&took), "{took:?}");
}
