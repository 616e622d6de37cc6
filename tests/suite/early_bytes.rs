//! What a client sends before its answer is here waits its turn, and hides nothing from the proxy.

use crate::harness::{
    Backend, Client, Proxy, ProxyBuilder, Units, backend, get, proxy, soon, until,
};

/// A proxy that gives the backend 500 ms.
fn hurried() -> ProxyBuilder {
    proxy().response_header_timeout(500.millis())
}

/// This proxy, and a client for whom its backend is at work.
async fn served_client(builder: ProxyBuilder) -> (Backend, Proxy, Client) {
    let a = backend("a").held().start().await;
    let lb = builder.upstream("web", [&a]).start().await;
    let client = lb.send(&get("/home").id(1).accepts_json()).await;
    a.working_on(1).await;
    (a, lb, client)
}

/// Sends what the proxy has long seen when the answer comes.
async fn send_early(client: &mut Client, bytes: &[u8]) {
    client.send_bytes(bytes).await.unwrap();
    tokio::time::sleep(100.millis()).await;
}

async fn assert_504_in_time(client: &mut Client) {
    let late = soon("the 504", 5.secs(), client.receive("GET"))
        .await
        .unwrap();
    late.assert_refusal(504, "response_header_timeout");
}

async fn assert_served(client: &mut Client, id: &str) {
    let answer = soon("an answer", 5.secs(), client.receive("GET"))
        .await
        .unwrap();
    assert_eq!((answer.status, answer.header("X-Id")), (200, Some(id)));
}

#[tokio::test]
async fn an_early_line_end_does_not_hide_the_deadline() {
    let (_a, _lb, mut client) = served_client(hurried()).await;
    send_early(&mut client, b"\r\n").await;
    assert_504_in_time(&mut client).await;
}

#[tokio::test]
async fn an_early_request_does_not_hide_the_deadline() {
    let (a, _lb, mut client) = served_client(hurried()).await;
    send_early(&mut client, &get("/home").id(2).encode()).await;
    assert_504_in_time(&mut client).await;
    assert_eq!(a.overlap(), 1);
}

#[tokio::test]
async fn an_early_request_is_answered_next_on_the_same_connection() {
    let (a, _lb, mut client) = served_client(proxy()).await;
    send_early(&mut client, &get("/home").id(2).encode()).await;
    a.release(2);
    assert_served(&mut client, "1").await;
    assert_served(&mut client, "2").await;
    assert_eq!((a.served(), a.overlap()), (2, 1));
}

/// RFC 9112, section 2.2: an empty line before a request is passed over.
#[tokio::test]
async fn an_early_line_end_does_not_spoil_the_next_request() {
    let (a, _lb, mut client) = served_client(proxy()).await;
    send_early(&mut client, b"\r\n").await;
    a.release(2);
    assert_served(&mut client, "1").await;
    client.send(&get("/home").id(2)).await.unwrap();
    assert_served(&mut client, "2").await;
}

#[tokio::test]
async fn a_client_that_leaves_behind_early_bytes_is_noticed() {
    let (_a, lb, mut client) = served_client(proxy()).await;
    send_early(&mut client, b"\r\n").await;
    drop(client);
    until("the status shows it", 2.secs(), async || {
        lb.backend_status("a").await["abandoned"] == 1
    })
    .await;
}
