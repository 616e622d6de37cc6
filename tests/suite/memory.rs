//! What a client that does nothing costs, and one that waits.

use std::net::SocketAddr;

use serde_json::json;

use crate::harness::{Client, Units, backend, get, post, proxy, until};

const CLIENTS: u64 = 1_000;
/// The growth of the resident memory. The same without optimisation: it is buffers that a client
/// costs, and those are as large in either build.
const EACH_BYTES_MAX: u64 = 12 * 1024;
const WAITING: u64 = 5_000;
/// Beyond what its connection and request have anyway.
const WAITING_BYTES_MAX: u64 = 4 * 1024;

#[tokio::test]
async fn an_idle_client_costs_a_few_kilobytes() {
    let a = backend("a").start().await;
    let mut lb = proxy().upstream("web", [&a]).start().await;
    // What the first connections allocate once is no single client's.
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(one_that_stays(lb.address()).await);
    }
    let before = lb.program().rss_bytes();
    for _ in 0..CLIENTS {
        clients.push(one_that_stays(lb.address()).await);
    }
    let each = lb.program().rss_bytes().saturating_sub(before) / CLIENTS;
    println!("{each} bytes for each of {CLIENTS} idle clients");
    assert!(each <= EACH_BYTES_MAX, "{each} bytes");
    for client in &mut clients {
        assert_eq!(client.ask(&get("/home")).await.unwrap().status, 200);
    }
}

/// A client that has made one request and keeps its connection.
async fn one_that_stays(address: SocketAddr) -> Client {
    let mut client = Client::connect(address).await.unwrap();
    assert_eq!(client.ask(&get("/home")).await.unwrap().status, 200);
    client
}

/// Each has its own key. Before, its request was there but for the last byte of its body; then it waits. In
/// small pages, because memory that grows by 2 MiB at a time says little.
#[tokio::test]
async fn a_waiting_request_costs_less_than_4_kilobytes() {
    let a = backend("a").held().start().await;
    let mut lb = proxy()
        .upstream("web", [&a])
        .queue_key("fair_by", "header:X-Tenant")
        .queue_key("priority", json!({ "trusted": ["127.0.0.1"] }))
        .run_by(&["env", "MIMALLOC_ALLOW_THP=0"])
        .alone()
        .start()
        .await;
    let _busy = lb.send(&get("/home")).await;
    a.working_on(1).await;
    let mut clients = Vec::new();
    for number in 0..WAITING {
        let mut client = lb.connect().await;
        let tenant = number.to_string();
        let request = post("/home").header("X-Tenant", &tenant).promises(2);
        client.send(&request).await.unwrap();
        client.send_bytes(b"x").await.unwrap();
        clients.push(client);
    }
    until("all requests but a byte are there", 10.secs(), async || {
        let before = lb.program().rss_bytes();
        tokio::time::sleep(300.millis()).await;
        lb.program().rss_bytes() == before
    })
    .await;
    let before = lb.program().rss_bytes();
    for client in &mut clients {
        client.send_bytes(b"y").await.unwrap();
    }
    lb.has_waiting(WAITING).await;
    let each = lb.program().rss_bytes().saturating_sub(before) / WAITING;
    println!("{each} bytes for each of {WAITING} waiting requests, beyond their connections");
    assert!(each <= WAITING_BYTES_MAX, "{each} bytes");
}
