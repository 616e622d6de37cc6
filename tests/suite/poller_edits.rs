//! The poller and a person who edits the health file at the same time: neither loses anything, and what
//! nobody can read is kept and told.

use std::fs::{self, File};
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Backend, Program, Site, Units, backend, faketime, proxy, until};

/// Half of an edit that takes the backend `a` out.
const HALF: &str = r#"{"a":{"healthy":true,"state":"drain","weight":3},"b":true,"c":tru"#;

fn whole() -> Value {
    json!({ "a": { "healthy": true, "state": "drain", "weight": 3 }, "b": true, "c": true })
}

async fn three() -> [Backend; 3] {
    [
        backend("a").start().await,
        backend("b").start().await,
        backend("c").start().await,
    ]
}

/// Pings may time out while the test is busy elsewhere: nobody is to fall for that.
fn site_of(group: &[Backend]) -> Site {
    proxy()
        .upstream("web", group)
        .poll_every(100.millis())
        .poller_key("fall", 50)
        .site()
}

fn text_of(site: &Site) -> String {
    fs::read_to_string(site.health_path()).unwrap_or_default()
}

/// What was replaced.
fn copy_of(site: &Site) -> String {
    fs::read_to_string(site.path(".health_status.json.spoilt")).unwrap_or_default()
}

async fn logs(poller: &Program, text: &str) {
    let what = format!("the log says {text:?}");
    until(&what, 15.secs(), async || poller.log().contains(text)).await;
}

#[tokio::test]
async fn half_an_edit_is_left_alone() {
    let group = three().await;
    let site = site_of(&group);
    let poller = site.start_poller();
    site.is_written().await;
    fs::write(site.health_path(), HALF).unwrap();
    // Nobody can see that nothing happens but by waiting.
    let pings = group[0].pings();
    let start = Instant::now();
    while start.elapsed() < 4.secs() {
        assert_eq!(text_of(&site), HALF, "{}", poller.log());
        tokio::time::sleep(50.millis()).await;
    }
    assert!(group[0].pings() > pings + 10);
    logs(&poller, "is spoilt: line 1, column 65").await;
    fs::write(site.health_path(), whole().to_string()).unwrap();
    logs(&poller, "written again").await;
    assert_eq!(site.report(), whole());
    assert_eq!(copy_of(&site), "");
}

#[tokio::test]
#[ignore = "15 s: how long a spoilt file is left alone"]
async fn a_spoilt_file_is_replaced_by_what_it_said_before_and_kept() {
    let site = site_of(&three().await);
    let drained = json!({ "a": { "healthy": true, "state": "drain" }, "mine": false });
    site.health_says(&drained.to_string());
    let poller = site.start_poller();
    site.is_written().await;
    // A good edit that the poller sees, but has no occasion to write before the next one.
    let kept = json!({ "a": { "healthy": true, "state": "drain", "note": 1 }, "mine": false });
    site.health_says(&kept.to_string());
    tokio::time::sleep(900.millis()).await;
    fs::write(site.health_path(), HALF).unwrap();
    let start = Instant::now();
    logs(&poller, "spoilt health file replaced").await;
    assert!(start.elapsed() > 9.secs(), "{:?}", start.elapsed());
    let report = site.report();
    assert_eq!(report["a"], kept["a"], "{report}");
    assert_eq!(report["mine"], false);
    assert_eq!(report["b"], true);
    assert_eq!(copy_of(&site), HALF);
    let log = poller.log();
    assert!(log.contains("with what it said before") && log.contains(".health_status.json.spoilt"));
}

#[tokio::test]
#[ignore = "12 s: how long a spoilt file is left alone"]
async fn of_a_file_that_was_spoilt_before_the_poller_came_only_verdicts_are_left() {
    let site = site_of(&three().await);
    site.health_says(HALF);
    let poller = site.start_poller();
    let start = Instant::now();
    logs(&poller, "spoilt health file replaced").await;
    assert!(start.elapsed() > 8.secs(), "{:?}", start.elapsed());
    assert!(poller.log().contains("what it said before is not known"));
    assert_eq!(site.report(), json!({ "a": true, "b": true, "c": true }));
    assert_eq!(copy_of(&site), HALF);
}

#[tokio::test]
async fn one_round_refuses_a_spoilt_file() {
    let group = three().await;
    let site = site_of(&group);
    for (text, problem) in [
        (HALF, "line 1, column 65: not JSON"),
        ("\u{feff}{}", "begins with a byte order mark"),
    ] {
        site.health_says(text);
        let output = site.poll_once().await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("health_status.json is spoilt") && said.contains(problem),
            "{said}"
        );
        assert_eq!(text_of(&site), text);
        assert_eq!(group[0].pings(), 0);
    }
}

#[tokio::test]
async fn a_slow_write_in_place_is_not_lost() {
    let site = site_of(&three().await);
    let poller = site.start_poller();
    for round in 0..3 {
        site.is_written().await;
        let text = json!({ "a": true, "b": true, "c": true, "round": { "healthy": false, "note": round, "long": "x".repeat(100) } });
        let (path, bytes) = (site.health_path(), text.to_string());
        let writing = tokio::task::spawn_blocking(move || {
            let mut file = File::create(path).unwrap();
            for byte in bytes.bytes() {
                file.write_all(&[byte]).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        writing.await.unwrap();
        site.is_written().await;
        assert_eq!(site.report()["round"]["note"], round, "{}", text_of(&site));
    }
    assert!(!poller.log().contains("not written"), "{}", poller.log());
}

#[tokio::test]
async fn a_field_that_nobody_accepts_is_dropped_and_told_once() {
    let group = three().await;
    let lb = proxy()
        .upstream("web", &group)
        .poll_every(100.millis())
        .poller_key("fall", 50)
        .start()
        .await;
    let site = lb.site();
    let poller = site.start_poller();
    site.is_written().await;
    let bad = json!({
        "a": { "healthy": true, "weight": 0, "state": "drain" },
        "b": { "healthy": true, "max_in_flight": "2", "state": "maint" },
        "c": true,
    });
    fs::write(site.health_path(), bad.to_string()).unwrap();
    logs(&poller, r#"dropped="\"a\".weight, \"b\".max_in_flight""#).await;
    until("the proxy obeys", 5.secs(), async || {
        lb.status().await["report"]["state"] == "ok"
    })
    .await;
    let mended = json!({
        "a": { "healthy": true, "state": "drain" },
        "b": { "healthy": true, "state": "maint" },
        "c": true,
    });
    assert_eq!(site.report(), mended);
    assert_eq!(copy_of(site), bad.to_string());
    site.is_written().await;
    site.is_written().await;
    assert_eq!(poller.log().matches("health file mended").count(), 1);
    let pings = group[1].pings();
    site.is_written().await;
    site.is_written().await;
    assert!(group[1].pings() <= pings + 1, "b is in maintenance");
}

#[tokio::test]
async fn a_poller_whose_lock_is_taken_away_writes_no_more_until_it_is_back() {
    let (group, other) = (three().await, [backend("other").start().await]);
    let (site, second_site) = (site_of(&group), site_of(&other));
    let first = site.start_poller();
    site.is_written().await;
    let shared = site.health_path().display().to_string();
    second_site.edit_config(|config| config["maitred"]["health"]["file"] = shared.into());
    first.freeze_family();
    fs::remove_file(site.path(".health_status.json.lock")).unwrap();
    let mut second = second_site.start_poller();
    site.is_written().await;
    first.thaw_family();
    logs(&first, "is written by another poller").await;
    fs::remove_file(site.health_path()).unwrap();
    until("the second writes alone", 5.secs(), async || {
        site.report() == json!({ "other": true })
    })
    .await;
    site.is_written().await;
    assert_eq!(site.report(), json!({ "other": true }));
    second.kill();
    logs(&first, "written again").await;
    assert_eq!(site.report()["a"], true);
}

#[tokio::test]
async fn a_link_that_leads_nowhere_yet_stays_a_link() {
    let group = three().await;
    // One round waits for no interval.
    let site = proxy().upstream("web", &group).poll_every(3.secs()).site();
    fs::remove_file(site.health_path()).unwrap();
    std::os::unix::fs::symlink("elsewhere.json", site.health_path()).unwrap();
    assert_eq!(site.poll_once().await.status.code(), Some(0));
    assert!(site.health_path().is_symlink());
    assert!(site.path("elsewhere.json").is_file());
    assert!(site.says_healthy("a"));
}

/// The file's times are the kernel's, the poller's clock is an hour behind.
#[tokio::test]
async fn a_clock_that_is_behind_is_told_once_at_most_and_holds_nothing_up() {
    let Some(command) = faketime(&["FAKETIME=-1h"]) else {
        return;
    };
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    let site = site_of(&three().await);
    let poller = site.start_poller_by(&command);
    for _ in 0..5 {
        site.is_written().await;
    }
    let told = poller.log().matches("from the future").count();
    assert!(told <= 1, "{}", poller.log());
}
