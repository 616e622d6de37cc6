//! One at a time, in the order of arrival, without idling: the slots and the queue.

use std::time::Duration;

use crate::harness::{
    Backend, Client, Proxy, Tally, Units, backend, get, load, proxy, soon, until,
};

/// Most that a backend may stand idle while requests wait. The bar is 1 %; what a loaded loopback and
/// the harness itself add to each turn (some 0.5 ms of 10) is the rest.
const IDLE_MAX: f64 = 0.08;
/// Most of p99/p50 while the same clients wait all the time.
const SPREAD_MAX: f64 = 1.05;

async fn three_that_take(work: Duration) -> [Backend; 3] {
    let start = async |name| backend(name).takes(work).start().await;
    [start("a").await, start("b").await, start("c").await]
}

/// Asserts that nothing failed, nothing overlapped, and each backend served within 10 % of its share.
fn assert_fair(group: &[Backend; 3], tally: &Tally) {
    tally.assert_none_failed();
    let share = tally.ok / 3;
    for backend in group {
        assert_eq!(backend.overlap(), 1, "{}", backend.name());
        assert!(
            backend.served().abs_diff(share) <= share / 10,
            "{:?}",
            tally.by_backend
        );
    }
}

#[tokio::test]
async fn two_hundred_clients_are_served_one_at_a_time() {
    let group = three_that_take(5.millis()).await;
    let lb = proxy().upstream("web", &group).alone().start().await;
    let tally = load(lb.address()).clients(200).requests_each(3).run().await;
    assert_eq!(tally.ok, 600);
    assert_fair(&group, &tally);
}

#[tokio::test]
async fn two_thousand_clients_are_served_one_at_a_time() {
    let group = three_that_take(2.millis()).await;
    let lb = proxy().upstream("web", &group).alone().start().await;
    let tally = load(lb.address()).clients(2_000).run().await;
    assert_eq!(tally.ok, 2_000);
    assert_fair(&group, &tally);
}

/// A request from a client of its own, known to wait before this returns.
async fn join_queue(lb: &Proxy, id: usize, waiting: u64) -> Client {
    let client = lb.send(&get("/home").id(id)).await;
    lb.has_waiting(waiting).await;
    client
}

#[tokio::test]
async fn who_waits_is_served_in_the_order_of_arrival_and_nobody_overtakes() {
    let a = backend("a").held().start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let mut clients = vec![join_queue(&lb, 0, 0).await];
    a.working_on(1).await;
    for id in 1..=10 {
        clients.push(join_queue(&lb, id, id as u64).await);
    }
    // From now on one comes for each that is served: newcomers meet a slot that is just free.
    for id in 11..=20 {
        a.release(1);
        until("the next is in work", 2.secs(), async || {
            a.begun() == id - 9
        })
        .await;
        clients.push(join_queue(&lb, id, 10).await);
    }
    a.release(100);
    for client in &mut clients {
        assert_eq!(
            soon("a turn", 5.secs(), client.receive("GET"))
                .await
                .unwrap()
                .status,
            200
        );
    }
    let order: Vec<_> = a
        .requests()
        .iter()
        .map(|seen| seen.id().to_owned())
        .collect();
    assert_eq!(order, (0..=20).map(|id| id.to_string()).collect::<Vec<_>>());
    assert_eq!(a.overlap(), 1);
}

#[tokio::test]
async fn one_more_than_the_queue_holds_is_refused_at_once() {
    let a = backend("a").held().start().await;
    let lb = proxy().upstream("web", [&a]).queue(2).start().await;
    let mut first = join_queue(&lb, 0, 0).await;
    a.working_on(1).await;
    let mut second = join_queue(&lb, 1, 1).await;
    let mut third = join_queue(&lb, 2, 2).await;
    let refused = lb.ask(get("/home").id(3).accepts_json()).await;
    refused.assert_refusal(503, "queue_full");
    assert!(refused.took < 5.secs(), "{:?}", refused.took);
    assert!(refused.header("Retry-After").is_some());
    a.release(3);
    for client in [&mut first, &mut second, &mut third] {
        assert_eq!(client.receive("GET").await.unwrap().status, 200);
    }
    assert_eq!(a.begun(), 3);
}

#[tokio::test]
async fn a_queue_of_size_0_lets_nobody_wait() {
    let a = backend("a").held().start().await;
    let lb = proxy().upstream("web", [&a]).queue(0).start().await;
    let mut first = join_queue(&lb, 0, 0).await;
    a.working_on(1).await;
    assert_eq!(lb.ask(get("/home")).await.status, 503);
    a.release(1);
    assert_eq!(first.receive("GET").await.unwrap().status, 200);
}

#[tokio::test]
async fn past_the_queue_timeout_the_answer_is_503() {
    let a = backend("a").held().start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .queue_timeout(400.millis())
        .start()
        .await;
    let mut first = join_queue(&lb, 0, 0).await;
    a.working_on(1).await;
    let late = lb.ask(get("/home").id(1).accepts_json()).await;
    late.assert_refusal(503, "queue_timeout");
    assert!(late.header("Retry-After").is_some());
    assert!(
        (400.millis()..=5.secs()).contains(&late.took),
        "{:?}",
        late.took
    );
    assert_eq!(lb.waiting().await, 0);
    a.release(2);
    assert_eq!(first.receive("GET").await.unwrap().status, 200);
    assert_eq!(
        a.begun(),
        1,
        "the one that was refused never reached the backend"
    );
}

/// How even and how tight is a figure of an optimised build on a quiet machine, and asserted there:
/// `tests/figures.sh`. What must never happen is asserted everywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_slot_idles_while_anyone_waits() {
    let (idle, spread) = run_without_pause().await;
    if !cfg!(debug_assertions) {
        assert!(idle <= IDLE_MAX, "idle {:.1} %", idle * 100.0);
        assert!(spread <= SPREAD_MAX, "p99/p50 {spread:.3}");
    }
}

/// 200 clients for three seconds: the mean idle share of the backends, and p99/p50 of the latency.
async fn run_without_pause() -> (f64, f64) {
    let group = three_that_take(10.millis()).await;
    let lb = proxy().upstream("web", &group).alone().start().await;
    let tally = load(lb.address()).clients(200).lasting(3.secs()).await;
    let shares = group.each_ref().map(idle_share);
    let idle = shares.iter().sum::<f64>() / 3.0;
    let (half, most) = (tally.quantile(0.5), tally.quantile(0.99));
    let spread = most.as_secs_f64() / half.as_secs_f64();
    println!(
        "{} served, {:?}; p50 {half:?}, p99 {most:?}, p99/p50 {spread:.3}; \
         idle {:.1} %, each {}",
        tally.ok,
        tally.by_backend,
        idle * 100.0,
        shares
            .map(|share| format!("{:.1} %", share * 100.0))
            .join(", ")
    );
    assert_fair(&group, &tally);
    (idle, spread)
}

/// The share of its time that a backend had nothing in work, from its first request to its last.
fn idle_share(backend: &Backend) -> f64 {
    let requests = backend.requests();
    let (first, last) = (requests.first().unwrap().at, requests.last().unwrap().at);
    let one = backend.busy() / requests.len() as u32;
    let worked = backend.busy() - one;
    1.0 - worked.as_secs_f64() / (last - first).as_secs_f64()
}
