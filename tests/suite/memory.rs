//! What a client that does nothing costs.

use std::net::SocketAddr;

use crate::harness::{Client, backend, get, proxy};

const CLIENTS: u64 = 1_000;
/// The growth of the resident memory. The same without optimisation: it is buffers that a client
/// costs, and those are as large in either build.
const EACH_BYTES_MAX: u64 = 12 * 1024;

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
