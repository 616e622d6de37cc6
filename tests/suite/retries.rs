//! A request that is sent again is as good as new: its body is whole and its time its own.

use tokio::task::JoinHandle;

use crate::harness::{
    Backend, Proxy, Response, Units, backend, get, load, post, proxy, soon, until,
};

const BODY_BYTES: usize = 128 * 1024;

#[tokio::test]
async fn a_chunked_body_is_sent_whole_to_the_next_backend() {
    let (dead, good) = (backend("dead").start().await, backend("good").start().await);
    let lb = proxy().upstream("web", [&dead, &good]).start().await;
    dead.kill().await;
    // Of two in turn, one is offered to the dead one.
    for _ in 0..2 {
        let answer = lb
            .ask(post("/home").chunked_body(vec![b'x'; BODY_BYTES]))
            .await;
        assert_eq!((answer.status, answer.backend()), (200, Some("good")));
    }
    assert!(!lb.is_eligible("dead").await, "it was tried");
    for seen in good.requests() {
        assert_eq!(seen.body_bytes, Some(BODY_BYTES as u64));
    }
}

/// Asks and reads the answer in a task of its own.
async fn ask_aside(lb: &Proxy, target: &str) -> JoinHandle<Response> {
    let mut client = lb.send(&get(target)).await;
    tokio::spawn(async move { client.receive("GET").await.unwrap() })
}

#[tokio::test]
async fn the_deadline_of_a_failed_attempt_does_not_end_the_wait_for_the_next() {
    let a = backend("a").held().breaks_off_first(1).start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .response_header_timeout(3.secs())
        .start()
        .await;
    let retried = ask_aside(&lb, "/home").await;
    a.working_on(1).await;
    let between = ask_aside(&lb, "/home").await;
    lb.has_waiting(1).await;
    tokio::time::sleep(2.secs()).await;
    a.release(1);
    until("the attempt failed", 5.secs(), async || a.begun() == 2).await;
    // Its deadline passes while it waits for the next.
    tokio::time::sleep(2.secs()).await;
    a.release(2);
    for asked in [between, retried] {
        let answer = soon("an answer", 10.secs(), asked).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    assert_eq!((a.begun(), a.overlap()), (3, 1));
}

#[tokio::test]
async fn the_queue_timeout_counts_waiting_and_not_a_failed_attempt() {
    let a = backend("a").held().breaks_off_first(1).start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .queue_timeout(2.secs())
        .start()
        .await;
    let retried = ask_aside(&lb, "/home").await;
    a.working_on(1).await;
    tokio::time::sleep(2200.millis()).await;
    let between = ask_aside(&lb, "/home").await;
    lb.has_waiting(1).await;
    a.release(1);
    until("the attempt failed", 5.secs(), async || a.begun() == 2).await;
    lb.has_waiting(1).await;
    a.release(2);
    assert_eq!(between.await.unwrap().status, 200);
    assert_eq!(retried.await.unwrap().status, 200);
    assert_eq!((a.begun(), a.overlap()), (3, 1));
}

/// Two good backends and this bad one, which looks the emptiest, as it is never busy.
async fn assert_costs_nobody_anything(bad: &Backend) {
    let start = async |name| backend(name).takes(20.millis()).start().await;
    let (a, b) = (start("a").await, start("b").await);
    let lb = proxy().upstream("web", [&a, &b, bad]).start().await;
    let tally = load(lb.address()).clients(50).requests_each(4).run().await;
    tally.assert_none_failed();
    assert_eq!(tally.ok, 200);
    assert!(bad.connections() >= 1, "it was tried");
    assert_eq!((a.overlap(), b.overlap()), (1, 1));
}

#[tokio::test]
async fn a_backend_that_accepts_and_closes_costs_no_request() {
    assert_costs_nobody_anything(&backend("bad").closes_on_accept().start().await).await;
}

#[tokio::test]
async fn a_backend_that_reads_and_closes_costs_no_get() {
    let bad = backend("bad").breaks_off_first(usize::MAX).start().await;
    assert_costs_nobody_anything(&bad).await;
}
