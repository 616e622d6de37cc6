//! Health that changes again and again under load: nothing is lost, and nothing is sent to who is sick.

use std::time::{Duration, Instant};

use crate::harness::{Backend, Proxy, Units, backend, load, proxy};

const NAMES: [&str; 3] = ["a", "b", "c"];

async fn three(work: Duration) -> Vec<Backend> {
    let mut group = Vec::new();
    for name in NAMES {
        group.push(backend(name).takes(work).start().await);
    }
    group
}

/// From each rename until the last request that the backend saw which it made sick; sorted.
async fn flip(lb: &Proxy, group: &[Backend], flips: usize, pause: Duration) -> Vec<Duration> {
    let mut renamed = Vec::new();
    for number in 0..flips {
        renamed.push(Instant::now());
        lb.site().health(&[(NAMES[number % 3], false)]);
        tokio::time::sleep(pause).await;
    }
    renamed.push(Instant::now());
    let seen: Vec<Vec<Instant>> = group
        .iter()
        .map(|one| one.requests().iter().map(|request| request.at).collect())
        .collect();
    let mut late: Vec<_> = renamed
        .windows(2)
        .enumerate()
        .map(|(number, times)| {
            let sick = seen[number % 3].iter();
            let during = sick.filter(|at| (times[0]..times[1]).contains(*at));
            during.max().map_or(Duration::ZERO, |last| *last - times[0])
        })
        .collect();
    late.sort();
    late
}

async fn flips_under_load(flips: usize, pause: Duration) -> Vec<Duration> {
    let group = three(2.millis()).await;
    let lb = proxy().upstream("web", &group).alone().start().await;
    let running = load(lb.address()).clients(200).spawn();
    tokio::time::sleep(300.millis()).await;
    let late = flip(&lb, &group, flips, pause).await;
    let tally = running.stop().await;
    tally.assert_none_failed();
    for one in &group {
        assert_eq!(one.overlap(), 1, "{}", one.name());
    }
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    println!(
        "{flips} flips, {} requests, 0 failed; from rename to the last request begun there: p50 {:?}, p99 {:?}, most {:?}",
        tally.ok,
        at(0.5),
        at(0.99),
        at(1.0)
    );
    late
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_flips_lose_nothing() {
    flips_under_load(100, 20.millis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute"]
async fn a_thousand_flips_are_obeyed_within_milliseconds() {
    let late = flips_under_load(1_000, 25.millis()).await;
    // Of a machine that is busy otherwise, and of a build that is not optimised, it proves nothing.
    if cfg!(not(debug_assertions)) {
        assert!(late[500] <= 2.millis(), "p50 {:?}", late[500]);
        assert!(late[990] <= 5.millis(), "p99 {:?}", late[990]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn soak_ten_flips_a_second_for_a_minute_lose_nothing() {
    flips_under_load(600, 100.millis()).await;
}
