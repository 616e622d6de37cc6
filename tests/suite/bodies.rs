//! Large bodies pass through without being kept.

use std::io;

use crate::harness::{Client, Program, Units, backend, get, post, proxy, soon, until};

const BIG: u64 = 256 * 1024 * 1024;
const GROWTH_MAX: u64 = 32 * 1024 * 1024;

/// Runs `transfer` and returns by how much the process grew at most while it ran.
async fn growth_during(program: &Program, transfer: impl Future<Output = io::Result<()>>) -> u64 {
    let before = program.rss_bytes();
    let mut most = before;
    let mut transfer = std::pin::pin!(transfer);
    loop {
        tokio::select! {
            outcome = &mut transfer => {
                outcome.unwrap();
                return most.max(program.rss_bytes()) - before;
            }
            () = tokio::time::sleep(10.millis()) => most = most.max(program.rss_bytes()),
        }
    }
}

#[tokio::test]
async fn a_big_download_passes_in_little_memory() {
    let a = backend("a").start().await;
    let mut lb = proxy().upstream("web", [&a]).start().await;
    lb.ask(get("/home")).await;
    let mut client = lb.connect().await;
    let growth = growth_during(lb.program(), async {
        client.send(&get(&format!("/home?bytes={BIG}"))).await?;
        assert_eq!(client.receive_counting().await?, (200, BIG));
        Ok(())
    });
    assert!(growth.await < GROWTH_MAX);
    assert_eq!(a.served(), 2);
}

#[tokio::test]
async fn a_big_upload_passes_in_little_memory() {
    let a = backend("a").start().await;
    let mut lb = proxy().upstream("web", [&a]).start().await;
    lb.ask(get("/home")).await;
    let mut client = lb.connect().await;
    let piece = vec![b'x'; 1024 * 1024];
    let growth = growth_during(lb.program(), async {
        client.send(&post("/home").promises(BIG)).await?;
        for _ in 0..BIG / piece.len() as u64 {
            client.send_bytes(&piece).await?;
        }
        assert_eq!(client.receive("POST").await?.status, 200);
        Ok(())
    });
    assert!(growth.await < GROWTH_MAX);
    assert_eq!(a.requests()[1].body_bytes, Some(BIG));
}

#[tokio::test]
async fn a_chunked_answer_passes_whole() {
    let a = backend("a")
        .chunked()
        .response_body(1_000_000)
        .start()
        .await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let mut client = lb.connect().await;
    for _ in 0..3 {
        assert_eq!(
            client.ask(&get("/home")).await.unwrap().body.len(),
            1_000_000
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_long_download_ends_it_at_the_backend() {
    let a = backend("a").response_body(1 << 40).start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let mut client = Client::connect(lb.address()).await.unwrap();
    client.send(&get("/home")).await.unwrap();
    let mut read = 0;
    while read < 5_000_000 {
        read += client.read_some(usize::MAX).await.unwrap();
    }
    assert_eq!(a.current(), 1);
    drop(client);
    until("the backend is cut off", 5.secs(), async || {
        a.current() == 0
    })
    .await;
    assert_eq!(a.served(), 0);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_on_as_whole() {
    let broken =
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-Backend: a\r\n\r\nonly this".to_vec();
    let a = backend("a").answers_raw(broken).start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let mut client = lb.send(&get("/home")).await;
    a.working_on(0).await;
    until("the answer is out", 2.secs(), async || a.served() == 1).await;
    a.kill().await;
    assert!(client.receive("GET").await.is_err());
}

#[tokio::test]
async fn a_refusal_waits_for_the_body_and_keeps_the_connection() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).with_down("a").start().await;
    let mut client = lb.connect().await;
    let upload = post("/home").accepts_json().body(vec![b'x'; 5_000_000]);
    let refused = soon("the refusal", 10.secs(), client.ask(&upload)).await;
    refused.unwrap().assert_refusal(503, "no_eligible_backend");
    lb.health(&[("a", true)]).await;
    let next = client.ask(&get("/home")).await.unwrap();
    assert_eq!((next.status, next.backend()), (200, Some("a")));
}
