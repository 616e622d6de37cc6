//! A slot belongs to the backend's work: it stays taken when the request ends before its answer.

use std::net::SocketAddr;

use serde_json::json;

use crate::harness::{Backend, Client, Units, backend, get, load, proxy, soon, until};

#[tokio::test]
async fn clients_that_leave_in_mid_service_cause_no_overlap() {
    let start = async |name| backend(name).takes(30.millis()).start().await;
    let group = [start("a").await, start("b").await, start("c").await];
    let lb = proxy().upstream("web", &group).start().await;
    let others = load(lb.address()).clients(2).spawn();
    for _ in 0..25 {
        let leavers = (0..4).map(|_| leave_after_20_ms(lb.address()));
        for leaver in leavers.map(tokio::spawn).collect::<Vec<_>>() {
            leaver.await.unwrap();
        }
    }
    others.stop().await.assert_none_failed();
    let left: usize = group.iter().map(|one| count_of(one, "leaver")).sum();
    assert!(left >= 10, "only {left} leavers were in service");
    for backend in &group {
        assert_eq!(backend.overlap(), 1, "{}", backend.name());
    }
}

async fn leave_after_20_ms(address: SocketAddr) {
    let mut client = Client::connect(address).await.unwrap();
    client.send(&get("/home").id("leaver")).await.unwrap();
    tokio::time::sleep(20.millis()).await;
}

fn count_of(backend: &Backend, id: &str) -> usize {
    backend
        .requests()
        .iter()
        .filter(|seen| seen.id() == id)
        .count()
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_service_leaves_its_slot_taken() {
    let a = backend("a").held().start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let leaver = lb.send(&get("/home").id("leaver")).await;
    a.working_on(1).await;
    drop(leaver);
    until("the status shows it", 2.secs(), async || {
        lb.backend_status("a").await["abandoned"] == 1
    })
    .await;
    let mut next = lb.send(&get("/home").id("next")).await;
    lb.has_waiting(1).await;
    assert_eq!(
        a.begun(),
        1,
        "the backend is still at work for the one that left"
    );
    a.release(2);
    assert_eq!(
        soon("the next turn", 2.secs(), next.receive("GET"))
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!((a.begun(), a.overlap()), (2, 1));
    until("the slot is free", 5.secs(), async || {
        let status = lb.backend_status("a").await;
        status["abandoned"] == 0 && status["in_flight"] == 0
    })
    .await;
}

#[tokio::test]
async fn a_request_that_times_out_leaves_its_slot_taken() {
    let a = backend("a").start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .response_header_timeout(1.secs())
        .start()
        .await;
    let late = lb.ask(get("/home?takes=3000").accepts_json()).await;
    late.assert_refusal(504, "response_header_timeout");
    assert!(late.took >= 1.secs(), "{:?}", late.took);
    let next = load(lb.address()).clients(3).run().await;
    next.assert_none_failed();
    assert_eq!((next.ok, a.overlap()), (3, 1));
}

#[tokio::test]
async fn past_the_busy_limit_an_abandoned_slot_is_free_again() {
    let a = backend("a").start().await;
    let limits = proxy()
        .response_header_timeout(1.secs())
        .busy_limit(2.secs());
    let lb = limits.upstream("web", [&a]).start().await;
    assert_eq!(lb.ask(get("/home?takes=60000")).await.status, 504);
    let next = lb.ask(get("/home")).await;
    assert_eq!(next.status, 200);
    assert!(next.took <= 10.secs(), "{:?}", next.took);
}

#[tokio::test]
async fn an_abandoned_backend_that_dies_gives_its_slot_back_at_once() {
    let a = backend("a").held().start().await;
    let b = backend("b").start().await;
    let lb = proxy()
        .upstream("web", [&a, &b])
        .with_down("b")
        .start()
        .await;
    let leaver = lb.send(&get("/home")).await;
    a.working_on(1).await;
    drop(leaver);
    until("the status shows it", 2.secs(), async || {
        lb.backend_status("a").await["abandoned"] == 1
    })
    .await;
    a.kill().await;
    until("the slot is free", 5.secs(), async || {
        lb.backend_status("a").await["in_flight"] == 0
    })
    .await;
}

#[tokio::test]
async fn an_invalid_answer_leaves_the_slot_taken_until_the_backend_closes() {
    let a = backend("a")
        .answers_raw("HTTP/1.1 200 OK\r\nBad Header\r\n\r\n")
        .works_on_after_answering()
        .start()
        .await;
    let lb = proxy()
        .upstream("web", [&a])
        .key("maitred.upstreams.web.retry", json!({ "on": [] }))
        .start()
        .await;
    let invalid = lb.ask(get("/home").accepts_json()).await;
    invalid.assert_refusal(502, "invalid_response");
    lb.has_taken("a").await;
    let mut next = lb.send(&get("/home")).await;
    lb.has_waiting(1).await;
    assert_eq!(a.begun(), 1);
    a.release(1);
    let answer = soon("the next turn", 2.secs(), next.receive("GET")).await;
    assert_eq!(answer.unwrap().status, 502);
    assert_eq!((a.begun(), a.overlap()), (2, 1));
    a.release(1);
    lb.has_freed_all().await;
}
