//! Clients' connections: how long each state of one may last, and what may be in it.

use std::time::Instant;

use crate::harness::{Client, Units, backend, get, proxy, soon, until};

/// Reads until the proxy closes, which it does long before any timeout that the test has not set.
async fn is_closed(client: &mut Client) {
    soon("the proxy closes", 5.secs(), client.read_until_closed()).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_the_idle_timeout() {
    let a = backend("a").start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .client_idle_timeout(1.secs())
        .start()
        .await;
    let begun = Instant::now();
    let mut client = lb.connect().await;
    assert_eq!(client.ask(&get("/home")).await.unwrap().status, 200);
    is_closed(&mut client).await;
    assert!(begun.elapsed() >= 1.secs(), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_connection_in_use_outlives_the_idle_timeout() {
    let a = backend("a").start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .client_idle_timeout(2.secs())
        .start()
        .await;
    let mut client = lb.connect().await;
    for _ in 0..6 {
        assert_eq!(client.ask(&get("/home")).await.unwrap().status, 200);
        tokio::time::sleep(500.millis()).await;
    }
}

#[tokio::test]
async fn half_a_header_is_cut_at_the_header_timeout() {
    let a = backend("a").start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .client_header_timeout(1.secs())
        .start()
        .await;
    let begun = Instant::now();
    let mut client = lb.connect().await;
    client
        .send_bytes(b"GET /home HTTP/1.1\r\nHost: exam")
        .await
        .unwrap();
    is_closed(&mut client).await;
    assert!(begun.elapsed() >= 1.secs(), "{:?}", begun.elapsed());
    assert_eq!(a.begun(), 0);
}

#[tokio::test]
async fn a_header_that_drips_is_cut_at_the_header_timeout_all_the_same() {
    let a = backend("a").start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .client_header_timeout(1.secs())
        .alone()
        .start()
        .await;
    let mut client = lb.connect().await;
    client
        .send_bytes(b"GET /home HTTP/1.1\r\nX-Long: ")
        .await
        .unwrap();
    let begun = Instant::now();
    while client.send_bytes(b"x").await.is_ok() {
        tokio::time::sleep(50.millis()).await;
        assert!(begun.elapsed() < 4.secs(), "it may drip for ever");
    }
    assert_eq!(a.begun(), 0);
}

#[tokio::test]
async fn a_long_service_is_untouched_by_the_header_and_idle_timeouts() {
    let a = backend("a").start().await;
    let limits = proxy()
        .client_header_timeout(1.secs())
        .client_idle_timeout(1.secs());
    let lb = limits.upstream("web", [&a]).start().await;
    let mut client = lb.connect().await;
    let answer = client.ask(&get("/home?takes=2000")).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(client.ask(&get("/home")).await.unwrap().status, 200);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let a = backend("a").takes(20.millis()).start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let mut client = lb.connect().await;
    let pipeline: Vec<u8> = (0..5).flat_map(|id| get("/home").id(id).encode()).collect();
    client.send_bytes(&pipeline).await.unwrap();
    for id in 0..5 {
        let answer = soon("an answer", 2.secs(), client.receive("GET"))
            .await
            .unwrap();
        assert_eq!(
            (answer.status, answer.header("X-Id")),
            (200, Some(id.to_string().as_str()))
        );
    }
    assert_eq!(a.overlap(), 1);
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_at_the_write_timeout() {
    let a = backend("a").start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .client_write_timeout(1.secs())
        .alone()
        .start()
        .await;
    let mut client = Client::connect_with_small_buffer(lb.address())
        .await
        .unwrap();
    // More than the kernel's buffers on the way take in, so that the backend feels the stop.
    const BYTES: u64 = 256 * 1024 * 1024;
    client
        .send(&get(&format!("/home?bytes={BYTES}")))
        .await
        .unwrap();
    a.working_on(1).await;
    let cut = until("the backend is let go", 5.secs(), async || a.current() == 0).await;
    assert!((700.millis()..=3.secs()).contains(&cut), "{cut:?}");
    let rest = client.read_until_closed().await;
    assert!((rest.len() as u64) < BYTES);
}

#[tokio::test]
async fn a_client_that_asks_to_close_is_closed() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let mut client = lb.connect().await;
    let answer = client
        .ask(&get("/home").header("Connection", "close"))
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    is_closed(&mut client).await;
}
