//! Which backend a request goes to while nobody has to wait.

use std::collections::BTreeSet;

use crate::harness::{Backend, Proxy, Units, backend, get, proxy, until};

async fn three() -> [Backend; 3] {
    [
        backend("alpha").start().await,
        backend("beta").start().await,
        backend("gamma").start().await,
    ]
}

/// The backends that answered this many requests, sent one after another.
async fn answering(lb: &Proxy, requests: usize) -> Vec<String> {
    let mut client = lb.connect().await;
    let mut names = Vec::new();
    for _ in 0..requests {
        let answer = client.ask(&get("/home")).await.unwrap();
        names.push(answer.backend().expect("a backend answers").to_owned());
    }
    names
}

/// Asserts that `names` goes round `circle` in order, from wherever it begins.
fn assert_goes_round(names: &[String], circle: &[&str]) {
    let first = circle
        .iter()
        .position(|name| *name == names[0])
        .expect("the first is in the circle");
    let expected: Vec<_> = circle
        .iter()
        .cycle()
        .skip(first)
        .take(names.len())
        .collect();
    assert_eq!(names.iter().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn round_robin_is_exactly_even_and_in_order() {
    let group = three().await;
    let lb = proxy().upstream("web", &group).start().await;
    assert_goes_round(&answering(&lb, 30).await, &["alpha", "beta", "gamma"]);
    assert_eq!(group.each_ref().map(Backend::served), [10, 10, 10]);
}

#[tokio::test]
async fn round_robin_is_exactly_even_whoever_is_down() {
    let group = three().await;
    let lb = proxy()
        .upstream("web", &group)
        .with_down("alpha")
        .start()
        .await;
    assert_goes_round(&answering(&lb, 20).await, &["beta", "gamma"]);
    lb.health(&[("alpha", true), ("beta", false)]).await;
    assert_goes_round(&answering(&lb, 20).await, &["alpha", "gamma"]);
    lb.health(&[("beta", true)]).await;
    assert_goes_round(&answering(&lb, 30).await, &["alpha", "beta", "gamma"]);
    assert_eq!(group.each_ref().map(Backend::served), [20, 20, 30]);
}

#[tokio::test]
async fn health_changes_do_not_tilt_the_round() {
    let group = three().await;
    let lb = proxy().upstream("web", &group).start().await;
    for _ in 0..5 {
        lb.health(&[("gamma", false)]).await;
        answering(&lb, 4).await;
        lb.health(&[("gamma", true)]).await;
        let round: BTreeSet<_> = answering(&lb, 3).await.into_iter().collect();
        assert_eq!(
            round.len(),
            3,
            "three requests in a row go to three backends: {round:?}"
        );
    }
}

#[tokio::test]
async fn with_all_down_the_answer_is_503_at_once_and_names_each_backend_and_why() {
    let group = three().await;
    let lb = proxy()
        .upstream("web", &group)
        .with_down("alpha")
        .with_down("beta")
        .with_down("gamma")
        .start()
        .await;
    let json = lb.ask(get("/home").accepts_json()).await;
    let text = lb.ask(get("/home")).await;
    for answer in [&json, &text] {
        assert_eq!(answer.status, 503);
        assert!(answer.took < 5.secs(), "{:?}", answer.took);
        let wait: u64 = answer
            .header("Retry-After")
            .unwrap()
            .parse()
            .expect("seconds");
        assert!(wait > 0);
        for name in ["alpha", "beta", "gamma"] {
            let why = lb.backend_status(name).await["why_not"]
                .as_str()
                .expect("a reason")
                .to_owned();
            assert!(answer.text().contains(name), "{name} in {}", answer.text());
            assert!(answer.text().contains(&why), "{why:?} in {}", answer.text());
        }
    }
    json.assert_refusal(503, "no_eligible_backend");
    assert_eq!(group.each_ref().map(Backend::begun), [0, 0, 0]);
}

#[tokio::test]
async fn a_backend_that_the_file_does_not_name_gets_nothing() {
    let group = three().await;
    let lb = proxy().upstream("web", &group).start().await;
    std::fs::write(
        lb.site().health_path(),
        r#"{"alpha": true, "beta": {"healthy": true}, "stranger": true}"#,
    )
    .unwrap();
    until("gamma is out", 2.secs(), async || {
        !lb.is_eligible("gamma").await
    })
    .await;
    assert_goes_round(&answering(&lb, 10).await, &["alpha", "beta"]);
}

/// How many of eight requests go to a backend that does not answer and how many to one that does at once,
/// if each comes after the one before is answered or in service.
async fn shares_of_a_stuck_and_a_quick_one(balance: &str) -> (usize, usize) {
    let (stuck, quick) = (
        backend("stuck").held().start().await,
        backend("quick").start().await,
    );
    let site = proxy()
        .upstream("web", [&stuck, &quick])
        .backend_key("stuck", "max_in_flight", 9)
        .backend_key("quick", "max_in_flight", 9)
        .site();
    site.edit_config(|config| config["maitred"]["upstreams"]["web"]["balance"] = balance.into());
    let lb = site.started().await;
    let mut clients = Vec::new();
    for requests in 1..=8 {
        let client = lb.send(&get("/home")).await;
        clients.push(client);
        until("it is answered or in service", 5.secs(), async || {
            stuck.begun() + quick.served() == requests
                && lb.backend_status("quick").await["in_flight"] == 0
        })
        .await;
    }
    (stuck.begun(), quick.begun())
}

#[tokio::test]
async fn least_requests_spares_a_backend_that_is_stuck_and_round_robin_does_not() {
    let round_robin = shares_of_a_stuck_and_a_quick_one("round_robin").await;
    let least_requests = shares_of_a_stuck_and_a_quick_one("least_requests").await;
    assert_eq!((round_robin, least_requests), ((4, 4), (1, 7)));
}
