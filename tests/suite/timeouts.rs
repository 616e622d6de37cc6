//! Each timeout ends what it is for, and says so. Those of clients' headers, idle connections and writes
//! are in `connections`, those of an answer's header and body in `slots` and `stalls`.

use std::time::{Duration, Instant};

use crate::harness::{Client, Response, Units, backend, get, proxy, soon, until};

/// The answer, which must come no earlier than `least` and soon after.
async fn answer_after(client: &mut Client, method: &str, least: Duration) -> Response {
    let begun = Instant::now();
    let answer = soon("the answer", 5.secs(), client.receive(method))
        .await
        .unwrap();
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    answer
}

#[tokio::test]
async fn a_request_that_is_not_answered_in_its_time_is_504() {
    let a = backend("a").held().start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .request_timeout(400.millis())
        .start()
        .await;
    let mut client = lb.connect().await;
    client.send(&get("/home").accepts_json()).await.unwrap();
    let answer = answer_after(&mut client, "GET", 300.millis()).await;
    answer.assert_refusal(504, "request_timeout");
}

#[tokio::test]
async fn the_wait_for_a_slot_counts_towards_the_time_of_a_request() {
    let a = backend("a").held().start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .request_timeout(400.millis())
        .start()
        .await;
    let mut first = lb.connect().await;
    first.send(&get("/home")).await.unwrap();
    a.working_on(1).await;
    let mut second = lb.connect().await;
    second.send(&get("/home").accepts_json()).await.unwrap();
    let answer = answer_after(&mut second, "GET", 300.millis()).await;
    answer.assert_refusal(504, "request_timeout");
    assert_eq!(a.overlap(), 1);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_408_and_holds_no_slot() {
    let a = backend("a").start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .client_read_timeout(400.millis())
        .start()
        .await;
    let mut client = lb.connect().await;
    client
        .send_bytes(b"POST /home HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nContent-Length: 9\r\n\r\nx")
        .await
        .unwrap();
    let answer = answer_after(&mut client, "POST", 300.millis()).await;
    answer.assert_refusal(408, "body_timeout");
    assert_eq!(a.served(), 0);
}

#[tokio::test]
async fn an_idle_connection_to_a_backend_is_closed_in_time() {
    let a = backend("a").start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .idle_timeout(200.millis())
        .start()
        .await;
    let mut client = lb.connect().await;
    // Asked three times a second, it would never be closed by the default of one second.
    until("three connections", 10.secs(), async || {
        assert_eq!(client.ask(&get("/home")).await.unwrap().status, 200);
        tokio::time::sleep(300.millis()).await;
        a.connections() >= 3
    })
    .await;
}
