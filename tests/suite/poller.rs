//! The real poller against backends of ours: what it writes into the health file.

use crate::harness::{Backend, Site, Units, backend, proxy, until};

async fn site_of(group: &[Backend]) -> Site {
    proxy()
        .upstream("web", group)
        .poll_every(200.millis())
        .site()
}

async fn says(site: &Site, name: &str, healthy: bool) {
    let what = format!("the file says {healthy} of {name}");
    until(&what, 10.secs(), async || {
        site.says_healthy(name) == healthy
    })
    .await;
}

#[tokio::test]
async fn one_round_writes_the_file_prints_a_table_and_exits_0() {
    let group = [backend("a").start().await, backend("b").start().await];
    let site = site_of(&group).await;
    let output = site.poll_once().await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        printed.contains('a') && printed.contains('b') && printed.lines().count() >= 2,
        "{printed}"
    );
    assert!(group.iter().all(|one| one.pings() == 1 && one.begun() == 0));
    assert!(
        site.says_healthy("a") && site.says_healthy("b"),
        "{}",
        site.report()
    );
}

#[tokio::test]
async fn one_round_makes_the_file_if_there_is_none() {
    let group = [backend("a").start().await];
    let site = site_of(&group).await;
    std::fs::remove_file(site.health_path()).unwrap();
    assert_eq!(site.poll_once().await.status.code(), Some(0));
    assert!(site.says_healthy("a"), "{}", site.report());
}

#[tokio::test]
async fn the_file_follows_a_backend_that_dies_and_comes_back() {
    let group = [backend("a").start().await, backend("b").start().await];
    let site = site_of(&group).await;
    let _poller = site.start_poller();
    until("a is polled", 5.secs(), async || group[0].pings() > 0).await;
    group[0].kill().await;
    says(&site, "a", false).await;
    assert!(site.says_healthy("b"), "{}", site.report());
    group[0].revive().await;
    says(&site, "a", true).await;
}

#[tokio::test]
async fn unknown_names_in_the_file_survive_a_round() {
    let group = [backend("a").start().await];
    let site = site_of(&group).await;
    site.health(&[("somebody_elses", false)]);
    assert_eq!(site.poll_once().await.status.code(), Some(0));
    assert_eq!(site.report()["somebody_elses"], false, "{}", site.report());
}

#[tokio::test]
async fn the_poller_ends_on_sigterm() {
    let group = [backend("a").start().await];
    let site = site_of(&group).await;
    let mut poller = site.start_poller();
    until("a is polled", 5.secs(), async || group[0].pings() > 0).await;
    poller.terminate();
    assert_eq!(poller.wait_exit(2.secs()).await.0, Some(0));
}
