//! Backends that die while the health file still calls them healthy.

use std::collections::BTreeMap;

use crate::harness::{Backend, Proxy, Units, backend, get, load, post, proxy, until};

async fn three() -> [Backend; 3] {
    let start = async |name| backend(name).takes(10.millis()).start().await;
    [start("a").await, start("b").await, start("c").await]
}

fn assert_no_overlap(group: &[Backend]) {
    for backend in group {
        assert_eq!(backend.overlap(), 1, "{}", backend.name());
    }
}

#[tokio::test]
async fn no_request_is_lost_when_one_of_three_is_killed_and_comes_back() {
    let group = three().await;
    let lb = proxy().upstream("web", &group).alone().start().await;
    let clients = load(lb.address()).clients(200).spawn();
    until("all serve", 20.secs(), async || {
        group.iter().all(|one| one.served() > 10)
    })
    .await;
    group[1].kill().await;
    let before = group[1].served();
    tokio::time::sleep(3.secs()).await;
    group[1].revive().await;
    let back = until("the killed one serves again", 10.secs(), async || {
        group[1].served() > before + 10
    })
    .await;
    let tally = clients.stop().await;
    println!("served again after {back:?}: {:?}", tally.by_backend);
    tally.assert_none_failed();
    assert_no_overlap(&group);
}

#[tokio::test]
async fn no_request_is_lost_when_all_three_are_dead_for_four_seconds() {
    let group = three().await;
    let lb = proxy().upstream("web", &group).alone().start().await;
    let clients = load(lb.address()).clients(200).spawn();
    until("all serve", 20.secs(), async || {
        group.iter().all(|one| one.served() > 10)
    })
    .await;
    for backend in &group {
        backend.kill().await;
    }
    tokio::time::sleep(4.secs()).await;
    let before = group[0].served();
    group[0].revive().await;
    let first = until("the first answer", 10.secs(), async || {
        group[0].served() > before
    })
    .await;
    group[1].revive().await;
    group[2].revive().await;
    println!("first answer {first:?} after the first backend is back");
    clients.stop().await.assert_none_failed();
    assert_no_overlap(&group);
    // It is tried every 500 ms; were it left alone for twice as long each time, this would be 3.5 s.
    assert!(first <= 2.secs(), "{first:?}");
}

#[tokio::test]
async fn a_retry_leaves_the_failed_backend() {
    let bad = backend("bad").resets_on_accept().start().await;
    let good = backend("good").start().await;
    let lb = proxy().upstream("web", [&bad, &good]).start().await;
    for _ in 0..10 {
        assert_eq!(lb.ask(get("/home")).await.backend(), Some("good"));
    }
    assert!(bad.connections() >= 1, "it was tried");
}

#[tokio::test]
async fn a_refused_connection_is_retried_even_for_a_post() {
    let group = three().await;
    let lb = proxy().upstream("web", &group).start().await;
    group[0].kill().await;
    for _ in 0..6 {
        let answer = lb.ask(post("/home").body(vec![b'x'; 1000])).await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(group[1].served() + group[2].served(), 6);
}

#[tokio::test]
async fn a_dead_backend_is_shown_as_not_eligible() {
    let group = three().await;
    let lb = proxy().upstream("web", &group).start().await;
    group[0].kill().await;
    for _ in 0..6 {
        lb.ask(get("/home")).await;
    }
    let status = lb.backend_status("a").await;
    assert_eq!(status["eligible"], false, "{status}");
    assert!(status["why_not"].is_string(), "{status}");
}

/// Sends POSTs one after another and counts the answers by status.
async fn posts(lb: &Proxy, target: &str, requests: usize) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for id in 0..requests {
        let answer = lb.ask(post(target).id(id).body(b"pay 5".to_vec())).await;
        *statuses.entry(answer.status).or_default() += 1;
    }
    statuses
}

#[tokio::test]
async fn a_post_that_a_backend_has_read_is_never_sent_twice() {
    let group = three().await;
    let lb = proxy().upstream("web", &group).start().await;
    assert_eq!(
        posts(&lb, "/home?reset", 1).await,
        BTreeMap::from([(502, 1)])
    );
    assert_eq!(group.iter().map(Backend::begun).sum::<usize>(), 1);
}

#[tokio::test]
async fn a_post_is_not_sent_twice_on_a_kept_connection_either() {
    let a = backend("a").start().await;
    let b = backend("b").start().await;
    let lb = proxy().upstream("web", [&a, &b]).start().await;
    assert_eq!(posts(&lb, "/home", 2).await, BTreeMap::from([(200, 2)]));
    assert_eq!(
        posts(&lb, "/home?reset", 1).await,
        BTreeMap::from([(502, 1)])
    );
    assert_eq!(a.begun() + b.begun(), 3);
}

/// Whatever the wait ends with, the answer says that nobody was busy: they refuse connections.
#[tokio::test]
async fn a_wait_for_backends_that_refuse_says_that_they_do() {
    let start = async |name| backend(name).start().await;
    let group = [start("a").await, start("b").await];
    let lb = proxy()
        .upstream("web", &group)
        .queue(1)
        .queue_timeout(2.secs())
        .start()
        .await;
    for backend in &group {
        backend.kill().await;
    }
    let mut first = lb.send(&get("/home").accepts_json()).await;
    lb.has_waiting(1).await;
    let full = lb.ask(get("/home").accepts_json()).await;
    full.assert_refusal(503, "queue_full");
    let late = first.receive("GET").await.unwrap();
    late.assert_refusal(503, "queue_timeout");
    for refused in [full, late] {
        let said = refused.json();
        for name in ["a", "b"] {
            let why = &said["backends"][name]["why_not"];
            assert_eq!(why, "it refuses connections", "{said}");
        }
        assert_eq!(said["report"]["state"], "ok");
    }
}

/// What is only busy has nothing to do with the report, and is not listed.
#[tokio::test]
async fn a_wait_for_busy_backends_lists_those_that_are_out() {
    let a = backend("a").held().start().await;
    let b = backend("b").start().await;
    let lb = proxy()
        .upstream("web", [&a, &b])
        .queue_timeout(200.millis())
        .start()
        .await;
    let answer = async |said: &[(&str, bool)]| {
        lb.health(said).await;
        lb.ask(get("/home")).await.text()
    };
    let mut busy = lb.connect().await;
    lb.health(&[("a", true), ("b", false)]).await;
    busy.send(&get("/home")).await.unwrap();
    a.working_on(1).await;
    let text = answer(&[("a", true), ("b", false)]).await;
    assert!(text.contains("b: the health file says false"), "{text}");
    assert!(!text.contains("a: "), "{text}");
    a.release(1);
    assert_eq!(busy.receive("GET").await.unwrap().status, 200);
}
