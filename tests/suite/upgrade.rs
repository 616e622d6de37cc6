//! An upgraded connection (RFC 9110, section 7.8), such as WebSocket: it is one long request, and its
//! slot is taken until the backend has let go.

use std::time::Instant;

use crate::harness::{Backend, Client, Proxy, Request, Units, backend, get, proxy, soon, until};

pub fn upgrade() -> Request {
    get("/home")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// A backend that grants upgrades with these further header lines, and a client that has one.
async fn upgraded(lines: &str) -> (Backend, Proxy, Client) {
    // A handshake takes a moment: Pingora 0.9.1 ends an upgrade that is granted before it has noted
    // that the request's empty body is over (cloudflare/pingora#946).
    let a = backend("a").upgrades(lines).takes(20.millis());
    let a = a.start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let mut client = lb.connect().await;
    let granted = soon("the upgrade", 2.secs(), client.ask(&upgrade()))
        .await
        .unwrap();
    assert_eq!(
        (granted.status, granted.header("Upgrade")),
        (101, Some("websocket"))
    );
    (a, lb, client)
}

async fn assert_echoes(client: &mut Client, word: &[u8]) {
    client.send_bytes(word).await.unwrap();
    let echo = client.read_bytes(word.len() as u64);
    assert_eq!(soon("the echo", 2.secs(), echo).await.unwrap(), word);
}

/// Asserts that the next client waits until the backend has let go of the upgraded connection.
async fn assert_next_waits_for_the_backend(a: &Backend, lb: &Proxy) {
    lb.has_taken("a").await;
    let mut next = lb.send(&get("/home")).await;
    lb.has_waiting(1).await;
    assert_eq!(a.begun(), 1);
    a.release(1);
    let answer = soon("the next turn", 2.secs(), next.receive("GET"))
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!((a.begun(), a.overlap()), (2, 1));
    lb.has_freed_all().await;
}

#[tokio::test]
async fn bytes_pass_both_ways() {
    let (_a, _lb, mut client) = upgraded("").await;
    assert_echoes(&mut client, b"hello").await;
    assert_echoes(&mut client, &[b'x'; 100_000]).await;
    assert_echoes(&mut client, b"GET / HTTP/1.1\r\n\r\n").await;
}

#[tokio::test]
async fn the_slot_is_taken_while_it_is_open() {
    let (a, lb, mut client) = upgraded("").await;
    assert_echoes(&mut client, b"hello").await;
    assert_next_waits_for_the_backend(&a, &lb).await;
}

/// RFC 9110, section 8.6, forbids that field there, and servers send it.
#[tokio::test]
async fn the_slot_is_taken_even_if_the_101_has_a_content_length() {
    let (a, lb, mut client) = upgraded("Content-Length: 0\r\n").await;
    assert_echoes(&mut client, b"hello").await;
    assert_next_waits_for_the_backend(&a, &lb).await;
}

#[tokio::test]
async fn the_slot_stays_taken_after_the_client_closed() {
    let (a, lb, mut client) = upgraded("").await;
    assert_echoes(&mut client, b"hello").await;
    drop(client);
    until("the status shows it", 2.secs(), async || {
        lb.backend_status("a").await["abandoned"] == 1
    })
    .await;
    assert_next_waits_for_the_backend(&a, &lb).await;
}

#[tokio::test]
async fn the_client_learns_that_the_backend_closed() {
    let (a, lb, mut client) = upgraded("").await;
    a.release(1);
    soon("the end", 2.secs(), client.read_until_closed()).await;
    lb.has_freed_all().await;
}

/// As a body that stops coming, or never begins.
#[tokio::test]
async fn where_nobody_speaks_it_ends_at_the_read_timeout() {
    for words in [0, 4] {
        let a = backend("a").upgrades("").takes(20.millis()).start().await;
        let lb = proxy()
            .upstream("web", [&a])
            .read_timeout(1.secs())
            .start()
            .await;
        let mut client = lb.connect().await;
        let mut begun = Instant::now();
        assert_eq!(client.ask(&upgrade()).await.unwrap().status, 101);
        for _ in 0..words {
            tokio::time::sleep(300.millis()).await;
            begun = Instant::now();
            assert_echoes(&mut client, b"hello").await;
        }
        soon("the end", 10.secs(), client.read_until_closed()).await;
        assert!(begun.elapsed() >= 950.millis(), "{:?}", begun.elapsed());
    }
}
