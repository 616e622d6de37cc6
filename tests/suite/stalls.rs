//! Somebody pauses in the middle: a client that does so costs neither itself nor others what it
//! is not late for.

use std::time::Instant;

use crate::harness::{Backend, Client, Units, backend, get, post, proxy, soon, until};

/// Sends requests and never reads an answer, until the proxy has had enough of it.
async fn ask_and_never_read(mut client: Client) {
    let requests = get("/home").encode().repeat(50);
    while client.send_bytes(&requests).await.is_ok() {}
}

#[tokio::test]
async fn who_never_reads_holds_a_slot_no_longer_than_the_write_timeout() {
    // The header is flushed alone, and it is what fills the connection.
    let padding = "p".repeat(30_000);
    let a = backend("a")
        .chunked()
        .header("X-Padding", &padding)
        .pauses_before_body(2.millis())
        .start()
        .await;
    let lb = proxy()
        .upstream("web", [&a])
        .client_write_timeout(500.millis())
        .queue_timeout(10.secs())
        .start()
        .await;
    let client = Client::connect_with_small_buffer(lb.address())
        .await
        .unwrap();
    let begun = Instant::now();
    let deaf = tokio::spawn(ask_and_never_read(client));
    // One of these comes when the connection is full.
    while !deaf.is_finished() {
        let answer = lb.ask(get("/home")).await;
        assert_eq!(answer.status, 200);
        assert!(answer.took <= 3.secs(), "{:?}", answer.took);
        assert!(begun.elapsed() <= 15.secs(), "it is never cut off");
    }
    lb.has_freed_all().await;
    assert_eq!(a.overlap(), 1);
}

#[tokio::test]
async fn a_client_that_pauses_is_not_taken_for_a_backend_that_does() {
    const BYTES: u64 = 20_000_000;
    let a = backend("a").response_body(BYTES).start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .read_timeout(1.secs())
        .start()
        .await;
    let mut client = lb.send(&get("/home")).await;
    a.working_on(1).await;
    tokio::time::sleep(3.secs()).await;
    assert_eq!(a.served(), 0, "the pause was felt");
    let answer = soon("the answer", 10.secs(), client.receive_counting());
    assert_eq!(answer.await.unwrap(), (200, BYTES));
}

#[tokio::test]
async fn an_upload_that_pauses_is_not_taken_for_a_backend_that_does() {
    let a = backend("a").start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .response_header_timeout(1500.millis())
        .start()
        .await;
    let mut client = lb.send(&post("/home").promises(200_000)).await;
    client.send_bytes(&[b'x'; 100_000]).await.unwrap();
    a.working_on(1).await;
    tokio::time::sleep(2500.millis()).await;
    client.send_bytes(&[b'x'; 100_000]).await.unwrap();
    let answer = soon("the answer", 5.secs(), client.receive("POST"));
    assert_eq!(answer.await.unwrap().status, 200);
    assert_eq!(a.requests()[0].body_bytes, Some(200_000));
}

/// Waits until nothing new has reached the backend for a while.
async fn is_stuck(a: &Backend) {
    let (mut begun, mut since) = (a.begun(), Instant::now());
    until("no request comes", 3.secs(), async || {
        if a.begun() != begun {
            (begun, since) = (a.begun(), Instant::now());
        }
        begun > 0 && since.elapsed() > 200.millis()
    })
    .await;
}

#[tokio::test]
async fn a_slow_reader_keeps_no_connection_from_a_backend_that_has_only_one() {
    const REQUESTS: usize = 20;
    let a = backend("a").one_connection_at_a_time().start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let mut slow = Client::connect_with_small_buffer(lb.address())
        .await
        .unwrap();
    // More than the kernel's buffers on the way take in.
    let requests = get("/home?bytes=250000").encode().repeat(REQUESTS);
    slow.send_bytes(&requests).await.unwrap();
    is_stuck(&a).await;
    assert!(
        a.begun() < REQUESTS,
        "{} of its answers are stuck",
        REQUESTS
    );
    let next = lb.ask(get("/home")).await;
    assert_eq!(next.status, 200);
    assert!(next.took <= 5.secs(), "{:?}", next.took);
    assert_eq!(a.overlap(), 1);
}
