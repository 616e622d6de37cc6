//! The real poller against backends of ours: that the health file follows them, and how it ends.
//! Its schedule, its pings, its care of the file and its reloads are in `poller_*.rs`.

use crate::harness::{Backend, Program, Site, Units, backend, proxy, until};

/// Pings may time out while the test is busy elsewhere: only many in a row decide.
fn site_of(group: &[Backend]) -> Site {
    proxy()
        .upstream("web", group)
        .poll_every(200.millis())
        .poller_key("fall", 10)
        .site()
}

/// For one round, which waits for no interval.
fn site_for_once(group: &[Backend]) -> Site {
    proxy().upstream("web", group).poll_every(3.secs()).site()
}

async fn says(site: &Site, name: &str, healthy: bool) {
    let what = format!("the file says {healthy} of {name}");
    until(&what, 15.secs(), async || {
        site.says_healthy(name) == healthy
    })
    .await;
}

#[tokio::test]
async fn one_round_writes_the_file_prints_a_table_and_exits_0() {
    let group = [backend("a").start().await, backend("b").start().await];
    let site = site_for_once(&group);
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
    let site = site_for_once(&group);
    std::fs::remove_file(site.health_path()).unwrap();
    assert_eq!(site.poll_once().await.status.code(), Some(0));
    assert!(site.says_healthy("a"), "{}", site.report());
}

#[tokio::test]
async fn the_file_follows_a_backend_that_dies_and_comes_back() {
    let group = [backend("a").start().await, backend("b").start().await];
    let site = site_of(&group);
    let _poller = site.start_poller();
    until("a is polled", 5.secs(), async || group[0].pings() > 0).await;
    group[0].kill().await;
    says(&site, "a", false).await;
    assert!(site.says_healthy("b"), "{}", site.report());
    group[0].revive().await;
    says(&site, "a", true).await;
}

#[tokio::test]
async fn one_ping_decides_when_it_is_the_only_one() {
    let group = [backend("a").start().await, backend("b").start().await];
    let site = site_for_once(&group);
    site.health(&[("b", false)]);
    group[0].kill().await;
    let output = site.poll_once().await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("connection refused"), "{printed}");
    assert!(
        !site.says_healthy("a") && site.says_healthy("b"),
        "{}",
        site.report()
    );
}

#[tokio::test]
async fn every_change_is_one_line_in_the_log() {
    let group = [backend("a").start().await];
    let site = site_of(&group);
    let poller = site.start_poller();
    until("a is polled", 5.secs(), async || group[0].pings() > 2).await;
    group[0].kill().await;
    says(&site, "a", false).await;
    group[0].revive().await;
    says(&site, "a", true).await;
    let log = poller.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("backend=a"))
        .collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[0].contains("unhealthy") && lines[0].contains("connection refused"),
        "{log}"
    );
    assert!(lines[1].contains("healthy"), "{log}");
}

#[tokio::test]
async fn the_poller_ends_on_sigterm_and_on_ctrl_c() {
    let group = [backend("a").start().await];
    let site = site_of(&group);
    for stop in [Program::terminate, Program::interrupt] {
        let pings = group[0].pings();
        let mut poller = site.start_poller();
        until("a is polled", 5.secs(), async || group[0].pings() > pings).await;
        stop(&poller);
        assert_eq!(poller.wait_exit(10.secs()).await.0, Some(0));
        let log = poller.log();
        assert!(log.lines().last().unwrap().contains("stopped"), "{log}");
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_told_line_by_line_and_ends_with_78() {
    let group = [backend("a").start().await];
    let site = site_for_once(&group);
    site.edit_config(|config| {
        config["maitred"]["poller"]["rise"] = 0.into();
        config["maitred"]["poller"]["path"] = "ping".into();
    });
    let output = site.poll_once().await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    for key in ["maitred.poller.rise", "maitred.poller.path"] {
        let mut lines = said.lines();
        assert!(
            lines.any(|line| line.starts_with("pingora.yaml:") && line.contains(key)),
            "{said}"
        );
    }
    std::fs::remove_file(site.config_path()).unwrap();
    assert_eq!(site.poll_once().await.status.code(), Some(78));
    assert_eq!(group[0].pings(), 0);
}
