//! The poller follows its configuration, and never a wrong one.

use std::fs;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use crate::harness::{Backend, Program, Site, Units, backend, proxy, until};

fn site_of(group: &[Backend]) -> Site {
    proxy()
        .upstream("web", group)
        .poll_every(100.millis())
        .site()
}

/// Replaces the backends of the configuration.
fn configure(site: &Site, group: &[&Backend]) {
    let backends: Vec<_> = group
        .iter()
        .map(|one| json!({ "name": one.name(), "address": one.address() }))
        .collect();
    site.edit_config(|config| {
        config["maitred"]["upstreams"]["web"]["backends"] = backends.into();
    });
}

async fn logs(poller: &Program, text: &str) {
    let what = format!("the log says {text:?}");
    until(&what, 5.secs(), async || poller.log().contains(text)).await;
}

async fn is_pinged(backend: &Backend) {
    let pings = backend.pings();
    let what = format!("{} is pinged", backend.name());
    until(&what, 5.secs(), async || backend.pings() > pings + 2).await;
}

#[tokio::test]
async fn backends_are_added_and_removed_while_it_runs() {
    let group = [
        backend("a").start().await,
        backend("b").start().await,
        backend("c").start().await,
    ];
    let site = site_of(&group[..2]);
    let poller = site.start_poller();
    is_pinged(&group[1]).await;
    configure(&site, &[&group[0], &group[2]]);
    is_pinged(&group[2]).await;
    logs(&poller, "configuration reloaded").await;
    let log = poller.log();
    assert!(
        log.contains(r#"added="c""#) && log.contains(r#"removed="b""#),
        "{log}"
    );
    let pings = group[1].pings();
    is_pinged(&group[0]).await;
    is_pinged(&group[2]).await;
    assert_eq!(group[1].pings(), pings, "pinged though removed");
    until("c is healthy", 5.secs(), async || site.says_healthy("c")).await;
    assert_eq!(site.report()["b"], true, "its entry stays");
}

#[tokio::test]
async fn the_count_towards_a_verdict_survives_a_reload() {
    const FALL: usize = 100;
    let group = [
        backend("a").breaks_off_first(usize::MAX).start().await,
        backend("b").start().await,
    ];
    let site = proxy()
        .upstream("web", &group[..1])
        .poll_every(50.millis())
        .poller_key("path", "/check")
        .poller_key("fall", FALL)
        .site();
    let poller = site.start_poller();
    until("half of the pings", 15.secs(), async || {
        group[0].begun() >= FALL / 2
    })
    .await;
    configure(&site, &[&group[0], &group[1]]);
    poller.hang_up();
    logs(&poller, "configuration reloaded").await;
    assert!(site.says_healthy("a") && group[0].begun() < FALL);
    until("a is sick", 15.secs(), async || !site.says_healthy("a")).await;
    // A count that began anew would take all of them again, after the half.
    assert!(
        (FALL..FALL + FALL / 2).contains(&group[0].begun()),
        "{}",
        group[0].begun()
    );
}

#[tokio::test]
async fn changed_intervals_apply_at_once() {
    let group = [backend("a").start().await];
    let site = proxy()
        .upstream("web", &group)
        .poll_every(3600.secs())
        .site();
    let _poller = site.start_poller();
    until("a is pinged", 5.secs(), async || group[0].pings() == 1).await;
    site.edit_config(|config| {
        for key in ["interval", "fast_interval", "timeout"] {
            config["maitred"]["poller"][key] = "50ms".into();
        }
    });
    is_pinged(&group[0]).await;
}

#[tokio::test]
async fn a_wrong_or_missing_configuration_changes_nothing() {
    let group = [backend("a").start().await];
    let site = site_of(&group);
    let poller = site.start_poller();
    is_pinged(&group[0]).await;
    let right = fs::read_to_string(site.config_path()).unwrap();
    site.edit_config(|config| {
        config["maitred"]["poller"]["path"] = "ping".into();
        config["maitred"]["poller"]["rise"] = (-1).into();
    });
    logs(&poller, "maitred.poller.rise").await;
    let log = poller.log();
    let lines = log.lines().filter(|line| line.contains("not reloaded"));
    assert_eq!(lines.count(), 2, "{log}");
    is_pinged(&group[0]).await;
    fs::remove_file(site.config_path()).unwrap();
    logs(&poller, "cannot read pingora.yaml").await;
    is_pinged(&group[0]).await;
    assert!(!poller.log().contains("configuration reloaded"));
    fs::write(site.config_path(), right).unwrap();
    logs(&poller, "configuration reloaded").await;
    is_pinged(&group[0]).await;
}

#[tokio::test]
async fn sighup_reloads_at_once() {
    let group = [backend("a").start().await];
    let site = site_of(&group);
    let mut poller = site.start_poller();
    is_pinged(&group[0]).await;
    poller.hang_up();
    // Also when nothing changed: who asks gets an answer.
    logs(&poller, "configuration reloaded").await;
    is_pinged(&group[0]).await;
    assert!(poller.exit().is_none());
}

#[tokio::test]
async fn a_file_that_was_only_written_anew_is_no_reload() {
    let group = [backend("a").start().await];
    let site = site_of(&group);
    let poller = site.start_poller_with(&["-v"]);
    is_pinged(&group[0]).await;
    site.edit_config(|_| ());
    logs(&poller, "with the same content").await;
    assert!(!poller.log().contains("configuration reloaded"));
}

#[tokio::test]
async fn another_health_file_is_written_from_then_on() {
    let group = [backend("a").start().await];
    let site = site_of(&group);
    let poller = site.start_poller();
    is_pinged(&group[0]).await;
    site.edit_config(|config| config["maitred"]["health"]["file"] = "other.json".into());
    let other = || -> Value {
        let text = fs::read_to_string(site.path("other.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    };
    until("it is written", 5.secs(), async || other()["a"] == true).await;
    fs::remove_file(site.health_path()).unwrap();
    is_pinged(&group[0]).await;
    assert!(!site.health_path().exists(), "{}", poller.log());
}

#[tokio::test]
async fn a_health_file_that_another_poller_writes_is_taken_over_when_it_is_free() {
    let group = [backend("a").start().await, backend("b").start().await];
    let (first, second) = (site_of(&group[..1]), site_of(&group[1..]));
    let mut other = first.start_poller();
    let poller = second.start_poller();
    is_pinged(&group[0]).await;
    is_pinged(&group[1]).await;
    let taken = first.health_path().display().to_string();
    second.edit_config(|config| config["maitred"]["health"]["file"] = taken.into());
    logs(&poller, "is written by another poller").await;
    assert!(
        poller
            .log()
            .contains("configuration not reloaded file=pingora.yaml")
    );
    until("b is still written", 5.secs(), async || {
        fs::remove_file(second.health_path()).ok();
        is_pinged(&group[1]).await;
        second.says_healthy("b")
    })
    .await;
    assert_eq!(first.report()["b"], Value::Null);
    // A try each second is not told each second.
    let told = || poller.log().matches("by another poller").count();
    tokio::time::sleep(2.secs()).await;
    assert_eq!(told(), 1, "{}", poller.log());
    other.kill();
    logs(&poller, "configuration reloaded").await;
    until("b is written there", 5.secs(), async || {
        first.says_healthy("b")
    })
    .await;
}

#[tokio::test]
async fn a_configuration_that_is_no_file_holds_nothing_up() {
    let group = [backend("a").start().await, backend("b").start().await];
    let site = site_of(&group[..1]);
    let poller = site.start_poller();
    is_pinged(&group[0]).await;
    let right = fs::read_to_string(site.config_path()).unwrap();
    let fifo = site.path("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::rename(fifo, site.config_path()).unwrap();
    logs(&poller, "not a regular file").await;
    poller.hang_up();
    is_pinged(&group[0]).await;
    assert_eq!(poller.log().matches("not a regular file").count(), 1);
    fs::remove_file(site.config_path()).unwrap();
    fs::write(site.config_path(), right).unwrap();
    logs(&poller, "configuration reloaded").await;
    configure(&site, &[&group[1]]);
    is_pinged(&group[1]).await;
}
