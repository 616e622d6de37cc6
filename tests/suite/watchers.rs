//! Those who watch cost those who are served little: a scrape of a thousand backends each second, and twenty who
//! follow the events, of whom ten never read.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::harness::{Client, Proxy, Tally, Units, backend, get, load, proxy};
use crate::many_backends::aliases;

/// Clients that ask one after another: few enough to leave room on two cores, or what is measured is how the
/// system shares them.
const CLIENTS: usize = 4;
/// Of each measurement; they alternate, so that what else the machine does hits both.
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;

/// How much memory they may take, in MB.
const GROWN_MAX: u64 = 32;

fn megabytes(lb: &mut Proxy) -> u64 {
    lb.program().rss_bytes() >> 20
}

/// Everybody who watches, until it is dropped.
async fn watch(lb: &Proxy) -> (JoinSet<()>, Vec<Client>) {
    let admin = lb.site().admin();
    let follow = get("/api/v1/events").header("Accept", "text/event-stream");
    let (mut awake, mut asleep) = (JoinSet::new(), Vec::new());
    for _ in 0..10 {
        let mut client = Client::connect_with_small_buffer(admin).await.unwrap();
        client.send(&follow).await.unwrap();
        asleep.push(client);
        let mut client = Client::connect(admin).await.unwrap();
        client.send(&follow).await.unwrap();
        awake.spawn(async move { while client.read_some(65_536).await.unwrap() > 0 {} });
    }
    awake.spawn(async move {
        loop {
            let page = get("/metrics").send_to(admin).await.unwrap();
            assert_eq!(page.status, 200);
            tokio::time::sleep(1.secs()).await;
        }
    });
    (awake, asleep)
}

/// The load for a while, with a report each second that turns twenty backends.
async fn round(lb: &Proxy, names: &[String], number: usize) -> Tally {
    let running = load(lb.address()).clients(CLIENTS).spawn();
    for second in 0..ROUND.as_secs() as usize {
        let healthy = (number + second).is_multiple_of(2);
        let said: Vec<_> = names[..20]
            .iter()
            .map(|name| (name.as_str(), healthy))
            .collect();
        lb.site().health(&said);
        tokio::time::sleep(1.secs()).await;
    }
    running.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute"]
async fn who_watches_a_thousand_backends_costs_traffic_little() {
    let server = backend("all").on_every_address().start().await;
    let aliases = aliases(1_000, server.address().port());
    let names: Vec<_> = aliases.iter().map(|alias| alias.name.clone()).collect();
    let mut lb = proxy().upstream("web", &aliases).alone().start().await;
    round(&lb, &names, 0).await;
    let (mut alone, mut watched) = (Tally::default(), Tally::default());
    let before = megabytes(&mut lb);
    let mut most = 0;
    for number in 0..ROUNDS {
        alone.add(round(&lb, &names, number).await);
        let watchers = watch(&lb).await;
        watched.add(round(&lb, &names, number).await);
        most = most.max(megabytes(&mut lb));
        drop(watchers);
    }
    let grown = most.saturating_sub(before);
    for tally in [&mut alone, &mut watched] {
        tally.assert_none_failed();
        tally.latencies.sort();
    }
    let at = |share| [&alone, &watched].map(|tally| tally.quantile(share));
    let ([p50, p50_watched], [p99, p99_watched]) = (at(0.5), at(0.99));
    println!(
        "1,000 backends, /metrics each second, 20 event streams of which 10 never read: p50 {p50:?} became {p50_watched:?}, p99 {p99:?} became {p99_watched:?}; memory grew by {grown} MB at the most"
    );
    assert!(grown <= GROWN_MAX, "{grown} MB");
    // Of a machine that is busy otherwise, and of a build that is not optimised, it proves nothing.
    if cfg!(not(debug_assertions)) {
        assert!(
            p99_watched <= p99.mul_f64(1.2),
            "{p99_watched:?} of {p99:?}"
        );
    }
}
