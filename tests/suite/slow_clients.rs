//! A slow client costs nobody but itself: it never keeps a backend from the next.

use std::net::SocketAddr;

use crate::harness::{Client, Proxy, Request, Units, backend, get, post, proxy, until};

/// Bytes of a slow upload: fewer than the proxy reads before a slot is taken.
const UPLOAD_BYTES: u64 = 30_000;

/// Asserts that one more client is served soon, by the one backend with its one slot.
async fn assert_fourth_is_served_soon(lb: &Proxy) {
    let answer = lb.ask(get("/home").id("fourth")).await;
    assert_eq!(answer.status, 200);
    // The slow ones take ten minutes and more.
    assert!(answer.took <= 5.secs(), "{:?}", answer.took);
}

/// Sends the head, then a body a byte at a time, for ever or until cut.
async fn upload_slowly(address: SocketAddr, request: Request, piece: &[u8]) {
    let mut client = Client::connect(address).await.unwrap();
    client.send(&request).await.unwrap();
    while client.send_bytes(piece).await.is_ok() {
        tokio::time::sleep(20.millis()).await;
    }
}

#[tokio::test]
async fn slow_uploads_hold_no_slot() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let address = lb.address();
    let sized = post("/home").promises(UPLOAD_BYTES);
    let chunked = post("/home").header("Transfer-Encoding", "chunked");
    for _ in 0..2 {
        tokio::spawn(upload_slowly(address, sized.clone(), b"x"));
    }
    tokio::spawn(upload_slowly(address, chunked, b"1\r\nx\r\n"));
    // All three are in the middle of their uploads for as long as this goes on.
    for _ in 0..10 {
        assert_fourth_is_served_soon(&lb).await;
        tokio::time::sleep(50.millis()).await;
    }
    assert_eq!(
        (a.begun(), a.overlap()),
        (10, 1),
        "no upload reached the backend unfinished"
    );
}

/// The kernel takes in some megabytes for a client that reads slowly, so that an answer of this size
/// has left the backend long before its client has it: unless the proxy makes the backend wait.
#[tokio::test]
async fn slow_downloads_hold_no_slot() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect_with_small_buffer(lb.address())
            .await
            .unwrap();
        client.send(&get("/home?bytes=200000")).await.unwrap();
        assert_eq!(
            client.read_some(1).await.unwrap(),
            1,
            "the answer has begun"
        );
        readers.push(tokio::spawn(async move {
            while client.read_some(1).await.is_ok_and(|bytes| bytes > 0) {
                tokio::time::sleep(20.millis()).await;
            }
        }));
    }
    for _ in 0..5 {
        assert_fourth_is_served_soon(&lb).await;
    }
    assert!(
        readers.iter().all(|reader| !reader.is_finished()),
        "they are still reading"
    );
    until("all are served", 5.secs(), async || a.served() == 8).await;
    assert_eq!(a.overlap(), 1);
}

#[tokio::test]
async fn a_small_body_that_comes_in_pieces_arrives_whole() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let mut client = lb.send(&post("/home").promises(500)).await;
    for _ in 0..50 {
        client.send_bytes(&[b'x'; 10]).await.unwrap();
        tokio::time::sleep(1.millis()).await;
    }
    assert_eq!(client.receive("POST").await.unwrap().status, 200);
    assert_eq!(a.requests()[0].body_bytes, Some(500));
}
