//! When the poller pings, and how many pings it takes to change the file. The pings ask for `/check`,
//! which our backends record and treat like any request.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::harness::{Backend, Site, Units, backend, proxy, until};

/// A site whose backends are pinged once a minute, and while they change every `fast`.
fn site_with(group: &[Backend], fast: Duration, rise: u32, fall: u32) -> Site {
    proxy()
        .upstream("web", group)
        .poll_every(60.secs())
        .poller_key("timeout", "5s")
        .poller_key("path", "/check")
        .poller_key("fast_interval", format!("{}ms", fast.as_millis()))
        .poller_key("rise", rise)
        .poller_key("fall", fall)
        .site()
}

async fn says(site: &Site, name: &str, healthy: bool) {
    let what = format!("the file says {healthy} of {name}");
    until(&what, 10.secs(), async || {
        site.says_healthy(name) == healthy
    })
    .await;
}

/// From the first ping to the last of the first `count`.
fn time_of(backend: &Backend, count: usize) -> Duration {
    let pings = backend.requests();
    pings[count - 1].at - pings[0].at
}

/// Another one after each writing.
fn inode(site: &Site) -> u64 {
    fs::metadata(site.health_path()).unwrap().ino()
}

async fn is_written_after(site: &Site, before: u64) {
    until("the file is written", 10.secs(), async || {
        inode(site) != before
    })
    .await;
}

#[tokio::test]
async fn fast_interval_holds_from_the_first_failed_ping_to_the_verdict() {
    let group = [backend("a").breaks_off_first(1000).start().await];
    let site = site_with(&group, 300.millis(), 2, 3);
    let _poller = site.start_poller();
    until("a is pinged", 5.secs(), async || group[0].begun() > 0).await;
    let failed = group[0].requests()[0].at;
    says(&site, "a", false).await;
    let took = failed.elapsed();
    assert_eq!(group[0].begun(), 3);
    // Not early, but for the time that a ping takes to arrive; and far from a minute.
    assert!(time_of(&group[0], 3) > 500.millis(), "{took:?}");
    assert!(took < 20.secs(), "{took:?}");
}

#[tokio::test]
async fn a_sick_backend_is_healthy_after_rise_good_pings() {
    let group = [backend("a").start().await];
    let site = site_with(&group, 200.millis(), 3, 2);
    site.health(&[("a", false)]);
    let _poller = site.start_poller();
    says(&site, "a", true).await;
    assert_eq!(group[0].begun(), 3);
    let took = time_of(&group[0], 3);
    assert!(took > 300.millis() && took < 20.secs(), "{took:?}");
}

#[tokio::test]
async fn a_single_lost_ping_does_not_flap() {
    let group = [backend("a").breaks_off_first(1).start().await];
    let site = site_with(&group, 20.millis(), 2, 2);
    site.edit_config(|config| {
        for key in ["interval", "timeout"] {
            config["maitred"]["poller"][key] = "1s".into();
        }
    });
    let poller = site.start_poller();
    until("a is pinged", 5.secs(), async || group[0].begun() > 2).await;
    assert!(site.says_healthy("a"), "{}", site.report());
    assert!(!poller.log().contains("unhealthy"), "{}", poller.log());
}

#[tokio::test]
async fn a_restarted_poller_begins_with_what_the_file_says() {
    let group = [backend("a").start().await, backend("b").start().await];
    let site = site_with(&group, 60.secs(), 2, 2);
    group[1].kill().await;
    for round in 1..=3 {
        site.health(&[("a", false)]);
        let written = inode(&site);
        let _poller = site.start_poller();
        is_written_after(&site, written).await;
        assert_eq!(group[0].begun(), round);
        assert!(!site.says_healthy("a"), "{}", site.report());
        assert!(site.says_healthy("b"), "{}", site.report());
    }
}

#[tokio::test]
async fn the_first_ping_decides_on_a_backend_that_the_file_does_not_name() {
    let group = [backend("a").start().await, backend("b").start().await];
    let site = site_with(&group, 60.secs(), 5, 5);
    fs::write(site.health_path(), "{}").unwrap();
    group[1].kill().await;
    let _poller = site.start_poller();
    says(&site, "a", true).await;
    until("b is judged", 5.secs(), async || {
        site.report()["b"] == false
    })
    .await;
}

#[tokio::test]
async fn there_are_never_two_pings_of_one_backend_at_once() {
    let slow = |name| backend(name).takes(20.millis()).status(500).start();
    let group = [slow("a").await, slow("b").await];
    let site = site_with(&group, 1.millis(), 2, 100);
    let poller = site.start_poller();
    until("they were pinged often", 20.secs(), async || {
        // Reloads must not start second pings. Once it runs: a signal can come too early.
        if group[0].begun() > 10 {
            poller.hang_up();
        }
        group.iter().all(|one| one.begun() >= 40)
    })
    .await;
    for one in &group {
        assert_eq!(one.overlap(), 1, "{}", one.name());
    }
}

#[tokio::test]
async fn the_file_is_written_each_interval_though_nothing_changes() {
    let group = [backend("a").start().await, backend("b").start().await];
    let site = proxy()
        .upstream("web", &group)
        .poll_every(200.millis())
        .site();
    let _poller = site.start_poller();
    for _ in 0..3 {
        is_written_after(&site, inode(&site)).await;
    }
}

#[tokio::test]
async fn jitter_makes_waits_longer_and_shorter() {
    const PINGS: usize = 10;
    let mut group = Vec::new();
    for number in 0..10 {
        group.push(backend(&format!("server{number}")).start().await);
    }
    let site = proxy()
        .upstream("web", &group)
        .poll_every(200.millis())
        .poller_key("path", "/check")
        .poller_key("jitter", "50%")
        .site();
    let _poller = site.start_poller();
    until("each has its pings", 10.secs(), async || {
        group.iter().all(|one| one.begun() >= PINGS)
    })
    .await;
    let mut waits = Vec::new();
    for one in &group {
        let pings = one.requests();
        waits.extend(pings.windows(2).map(|two| two[1].at - two[0].at));
    }
    let short = waits.iter().filter(|wait| **wait < 160.millis()).count();
    let long = waits.iter().filter(|wait| **wait > 240.millis()).count();
    assert!(short > 5 && long > 5, "{waits:?}");
}
