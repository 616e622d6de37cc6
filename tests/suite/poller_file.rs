//! The poller's care of the health file: what it leaves alone, what it may not lose, who may write.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Backend, Site, Units, backend, may_mount, proxy, until};

/// Pings may time out while the test is busy elsewhere: only many in a row decide.
fn site_of(group: &[Backend]) -> Site {
    proxy()
        .upstream("web", group)
        .poll_every(100.millis())
        .poller_key("fall", 20)
        .site()
}

async fn pings_more(backend: &Backend) {
    let pings = backend.pings();
    let what = format!("{} is pinged", backend.name());
    until(&what, 5.secs(), async || backend.pings() > pings + 2).await;
}

#[tokio::test]
async fn what_the_poller_does_not_own_survives() {
    let group = [backend("a").start().await];
    let site = site_of(&group);
    site.health_says(&json!({
            "a": { "healthy": false, "weight": 3, "max_in_flight": 2, "state": "drain", "note": "mine" },
            "somebody_elses": false,
        }).to_string());
    let _poller = site.start_poller();
    until("a is healthy", 5.secs(), async || site.says_healthy("a")).await;
    pings_more(&group[0]).await;
    let report = site.report();
    assert_eq!(report["somebody_elses"], false, "{report}");
    for (field, value) in [
        ("weight", json!(3)),
        ("max_in_flight", json!(2)),
        ("state", json!("drain")),
        ("note", json!("mine")),
    ] {
        assert_eq!(report["a"][field], value, "{report}");
    }
}

#[tokio::test]
async fn a_backend_in_maintenance_by_the_configuration_is_left_alone() {
    let group = [backend("a").start().await, backend("b").start().await];
    let site = site_of(&group);
    site.health(&[("a", false)]);
    let maintain = |state: &str| {
        site.edit_config(|config| {
            let backends = &mut config["maitred"]["upstreams"]["web"]["backends"];
            backends[0]["state"] = state.into();
        });
    };
    maintain("maint");
    let output = site.poll_once().await;
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("maint"), "{table}");
    let _poller = site.start_poller();
    pings_more(&group[1]).await;
    assert_eq!(group[0].pings(), 0);
    assert!(!site.says_healthy("a"), "{}", site.report());
    maintain("ready");
    until("a is healthy", 5.secs(), async || site.says_healthy("a")).await;
}

#[tokio::test]
async fn a_backend_in_maintenance_by_the_file_keeps_its_entry() {
    let group = [backend("a").start().await, backend("b").start().await];
    let site = site_of(&group);
    let maintained = json!({ "a": { "healthy": false, "state": "maint" }, "b": true });
    site.health_says(&maintained.to_string());
    let poller = site.start_poller();
    pings_more(&group[1]).await;
    assert_eq!(group[0].pings(), 0);
    assert_eq!(site.report()["a"], maintained["a"]);
    // Out of it, it begins with what the file says then; into it again, the file is the person's.
    site.is_written().await;
    site.health_says(&json!({ "a": { "healthy": true }, "b": true }).to_string());
    until("a is pinged", 5.secs(), async || group[0].pings() > 1).await;
    assert!(site.says_healthy("a") && !poller.log().contains("unhealthy"));
    site.is_written().await;
    site.health_says(&maintained.to_string());
    until("a is left alone", 15.secs(), async || {
        let pings = group[0].pings();
        pings_more(&group[1]).await;
        group[0].pings() == pings
    })
    .await;
    assert_eq!(site.report()["a"], maintained["a"]);
}

#[tokio::test]
async fn a_backend_out_of_maintenance_is_pinged_at_once() {
    let group = [backend("a").start().await];
    let site = proxy()
        .upstream("web", &group)
        .poll_every(3600.secs())
        .site();
    let maintain = |state: &str| {
        site.edit_config(|config| {
            let backends = &mut config["maitred"]["upstreams"]["web"]["backends"];
            backends[0]["state"] = state.into();
        });
    };
    let maintained = json!({ "a": { "healthy": true, "state": "maint" } });
    site.health_says(&maintained.to_string());
    maintain("maint");
    // It writes once, and nobody is pinged.
    let path = site.health_path();
    let modified = || path.metadata().unwrap().modified().unwrap();
    let before = modified();
    let poller = site.start_poller();
    until("the file is written", 10.secs(), async || {
        modified() > before
    })
    .await;
    maintain("ready");
    until("it is reloaded", 5.secs(), async || {
        poller.log().contains("configuration reloaded")
    })
    .await;
    assert_eq!(group[0].pings(), 0, "the file says so, too");
    site.health(&[]);
    until("a is pinged", 5.secs(), async || group[0].pings() == 1).await;
}

#[tokio::test]
async fn maintenance_of_all_keeps_the_file_fresh() {
    let group = [backend("a").start().await];
    let site = site_of(&group);
    let maintained = json!({ "a": { "healthy": true, "state": "maint" } });
    site.health_says(&maintained.to_string());
    let _poller = site.start_poller();
    site.is_written().await;
    site.is_written().await;
    assert_eq!(site.report(), maintained);
    assert_eq!(group[0].pings(), 0);
}

#[tokio::test]
async fn detail_writes_reasons() {
    let group = [backend("a").start().await, backend("b").start().await];
    let site = site_of(&group);
    site.edit_config(|config| config["maitred"]["poller"]["detail"] = true.into());
    group[1].kill().await;
    let _poller = site.start_poller();
    let reason = |name: &str| {
        let report = site.report();
        report[name]["reason"].as_str().unwrap_or("").to_owned()
    };
    until("b is sick for a reason", 15.secs(), async || {
        let counted = reason("b").ends_with(" in a row)");
        counted && reason("b").starts_with("connection refused (")
    })
    .await;
    assert!(!site.says_healthy("b") && site.says_healthy("a"));
    until("a is healthy for a reason", 5.secs(), async || {
        reason("a").starts_with("200 in ") && reason("a").ends_with(" ms")
    })
    .await;
}

#[tokio::test]
async fn a_second_poller_of_the_same_file_ends_and_says_why() {
    let group = [backend("a").start().await];
    let site = site_of(&group);
    let mut first = site.start_poller();
    until("a is polled", 5.secs(), async || group[0].pings() > 0).await;
    let output = site.poll_once().await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let mut second = site.start_poller();
    assert_eq!(second.wait_exit(5.secs()).await.0, Some(1));
    for said in [said, second.log()] {
        assert!(
            said.contains("health_status.json is written by another poller"),
            "{said}"
        );
    }
    pings_more(&group[0]).await;
    first.kill();
    assert_eq!(site.poll_once().await.status.code(), Some(0));
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_told_once_and_when_it_is_right_again() {
    let group = [backend("a").start().await];
    let site = site_of(&group);
    let folder = site.path("later");
    site.edit_config(|config| {
        config["maitred"]["health"]["file"] = "later/health_status.json".into();
    });
    assert_eq!(site.poll_once().await.status.code(), Some(1));
    let poller = site.start_poller();
    for _ in 0..2 {
        until("it is told", 5.secs(), async || {
            poller.log().contains("not written")
        })
        .await;
        pings_more(&group[0]).await;
        assert_eq!(poller.log().matches("not written").count(), 1);
    }
    fs::create_dir(&folder).unwrap();
    until("it is told", 5.secs(), async || {
        poller.log().contains("written again")
    })
    .await;
    until("the file says it", 5.secs(), async || {
        let text = fs::read_to_string(folder.join("health_status.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap() == json!({ "a": true })
    })
    .await;
    // The folder is replaced, and the lock in it with it; a write under way is told beside.
    fs::rename(&folder, site.path("former")).unwrap();
    until("it is told again", 5.secs(), async || {
        poller.log().matches("not written").count() >= 2
    })
    .await;
    fs::create_dir(&folder).unwrap();
    until("it is told again", 5.secs(), async || {
        poller.log().matches("written again").count() == 2
    })
    .await;
}

/// A disk of 64 KiB that somebody else fills: the file stays what it was, and is right again by itself.
#[tokio::test]
async fn a_full_disk_harms_no_file() {
    if !may_mount() {
        return;
    }
    let group = [backend("a").start().await];
    let site = site_of(&group);
    fs::create_dir(site.path("disk")).unwrap();
    site.edit_config(|config| {
        config["maitred"]["health"]["file"] = "disk/health_status.json".into();
    });
    let poller = site.start_poller_by(&[
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount -t tmpfs -o size=64k tmpfs disk && exec \"$@\"",
        "sh",
    ]);
    // Where it is mounted only the poller sees it; the kernel shows us what a process sees.
    let disk = format!("/proc/{}/root{}", poller.id(), site.path("disk").display());
    let disk = Path::new(&disk);
    let says = || fs::read(disk.join("health_status.json")).unwrap_or_default();
    let whole = |healthy: bool| format!("{{\n  \"a\": {healthy}\n}}\n").into_bytes();
    until("it is written", 5.secs(), async || says() == whole(true)).await;
    // Again and again: a write that has just failed gives back what it had taken.
    let mut file = fs::File::create(disk.join("filler")).unwrap();
    let mut fill = || while file.write_all(&[b'x'; 4 << 10]).is_ok() {};
    fill();
    group[0].kill().await;
    until("it is told", 5.secs(), async || {
        fill();
        assert_eq!(says(), whole(true));
        poller.log().contains("No space left")
    })
    .await;
    // Open as it is, to remove it would free nothing.
    file.set_len(0).unwrap();
    until("it is right again", 15.secs(), async || {
        says() == whole(false)
    })
    .await;
    until("it is told", 5.secs(), async || {
        poller.log().contains("written again")
    })
    .await;
}

/// How long a poller takes to its first writing.
async fn first_write(site: &Site) -> Duration {
    fs::remove_file(site.health_path()).unwrap();
    let _poller = site.start_poller();
    until("the file is written", 10.secs(), async || {
        site.health_path().exists()
    })
    .await
}

#[tokio::test]
#[ignore = "10 s: 200 pollers"]
async fn a_poller_that_is_killed_while_it_writes_leaves_a_whole_file() {
    const KILLS: u32 = 200;
    let mut group = Vec::new();
    for number in 0..20 {
        group.push(backend(&format!("server{number}")).start().await);
    }
    let site = proxy()
        .upstream("web", &group)
        .poll_every(1.millis())
        .site();
    let (first_write, mut written) = (first_write(&site).await, 0);
    for kill in 0..KILLS {
        // What the one before has left would be somebody else's, and left alone for a second.
        fs::remove_file(site.health_path()).ok();
        let mut poller = site.start_poller();
        // Spread evenly around the first write, in no order.
        let moment = first_write * 2 * (kill * 7919 % KILLS) / KILLS;
        tokio::time::sleep(moment).await;
        poller.kill();
        if !site.health_path().exists() {
            continue;
        }
        let report = site.report();
        assert!(report.is_object(), "after {moment:?}: {report}");
        written += 1;
    }
    assert!(written > 10, "only {written} of them had written");
}
