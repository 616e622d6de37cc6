//! What ships for Prometheus and Grafana (`ops/`), against a real Prometheus that scrapes proxy and poller under
//! faults: every alert fires when its fault is made and is silent otherwise, every query of the dashboard has an
//! answer. `tests/all.sh` fetches Prometheus, and `MAITRED_PROMETHEUS` names its folder, if it is not installed.
//!
//! Nobody waits for five minutes here: see [`Watch::start`] for what is shortened.

mod scene;
mod watch;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Units, free_port, get, prometheus_s, scrape, until};
use scene::{DESCRIPTORS, Scene, Steady, flood};
use watch::Watch;

fn ops(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ops").join(file)
}

/// Runs promtool with this on its standard input.
///
/// # Panics
/// When it finds anything wrong.
fn promtool_is_content(promtool: &Path, arguments: &[&str], input: &str) {
    let mut child = Command::new(promtool)
        .args(arguments)
        .current_dir(ops(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let said = [stdout, stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(status.success(), "{arguments:?}: {said}\n{input}");
}

#[test]
fn promtool_finds_nothing_wrong_with_what_ships() {
    let Some(promtool) = prometheus_s("promtool") else {
        return;
    };
    promtool_is_content(&promtool, &["check", "config", "prometheus.yml"], "");
    promtool_is_content(&promtool, &["check", "rules", "alerts.yml"], "");
    promtool_is_content(&promtool, &["test", "rules", "alerts.test.yml"], "");
}

#[test]
fn every_alert_has_a_test_and_says_what_to_do() {
    let rules = fs::read_to_string(ops("alerts.yml")).unwrap();
    let tests = fs::read_to_string(ops("alerts.test.yml")).unwrap();
    for name in alerts_in(&rules) {
        let rest = rules.split_once(&format!("- alert: {name}\n")).unwrap().1;
        let rule = rest.split("- alert:").next().unwrap();
        for key in ["for:", "severity:", "summary:", "action:"] {
            assert!(rule.contains(key), "{name} has no {key}");
        }
        let cases: Vec<_> = tests
            .split(&format!("alertname: {name}\n"))
            .skip(1)
            .collect();
        let silent = cases
            .iter()
            .any(|case| case.trim_start().starts_with("exp_alerts: []"));
        let fires = cases
            .iter()
            .any(|case| case.trim_start().starts_with("exp_alerts:\n"));
        assert!(silent && fires, "{name} is not tried either way");
    }
}

fn alerts_in(rules: &str) -> BTreeSet<String> {
    let lines = rules.lines().map(str::trim);
    let names = lines.filter_map(|line| line.strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// Every query of the dashboard, with what a person would have chosen.
fn queries() -> Vec<String> {
    fn collect(value: &Value, queries: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(query)) = map.get("expr") {
                    queries.push(query.clone());
                }
                map.values().for_each(|value| collect(value, queries));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
            _ => {}
        }
    }
    let text = fs::read_to_string(ops("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard["panels"], &mut queries);
    collect(&dashboard["annotations"], &mut queries);
    let chosen = |query: String| {
        let query = query.replace("$__rate_interval", "3s");
        query.replace("$instance", ".*").replace("$upstream", ".*")
    };
    queries.into_iter().map(chosen).collect()
}

#[tokio::test]
#[ignore = "takes a minute and a half"]
async fn every_alert_fires_when_its_fault_is_made_and_every_query_has_an_answer() {
    let (Some(prometheus), Some(promtool)) = (prometheus_s("prometheus"), prometheus_s("promtool"))
    else {
        return;
    };
    let poller_page = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let mut scene = Scene::set(poller_page).await;
    let admin = scene.lb.site().admin();
    let traffic = Steady::of(scene.lb.address(), "/home", 40.millis());
    let mut watch = Watch::start(&prometheus, admin, poller_page).await;
    watch.is_silent_for(8.secs()).await;
    overloaded_and_broken_off(&scene, &mut watch).await;
    for page in [admin, poller_page] {
        let text = get("/metrics").send_to(page).await.unwrap().text();
        promtool_is_content(&promtool, &["check", "metrics"], &text);
        scrape(page).await.assert_strict().await;
    }
    nobody_is_left(&scene, &mut watch).await;
    out_of_descriptors_and_log(&scene, &mut watch).await;
    another_configuration(&scene, &mut watch).await;
    drop(traffic);
    no_health_file(&mut scene, &mut watch).await;
    no_proxy(&mut scene, &mut watch).await;
    let rules = fs::read_to_string(ops("alerts.yml")).unwrap();
    assert_eq!(watch.tried, alerts_in(&rules), "each has fired");
}

/// More than `slow` can do, an upstream that breaks everything off, and one backend of two is dead.
async fn overloaded_and_broken_off(scene: &Scene, watch: &mut Watch) {
    let to = scene.lb.address();
    let traffic = [
        Steady::of(to, "/slow", 150.millis()),
        Steady::of(to, "/flaky", 100.millis()),
    ];
    scene.web[1].kill().await;
    let expected: [(&str, &[&str]); 6] = [
        ("MaitredBackendDown", &["web/b"]),
        ("MaitredQueueNearlyFull", &["slow"]),
        ("MaitredQueueWaitLong", &["slow"]),
        ("MaitredRefusing", &["queue_full"]),
        ("MaitredRetriesHigh", &[""]),
        ("MaitredServerErrors", &["flaky", "slow"]),
    ];
    watch.fire(&expected).await;
    for query in queries() {
        until(&format!("{query} has an answer"), 10.secs(), async || {
            watch
                .ask(&query)
                .await
                .iter()
                .any(|value| value.is_finite())
        })
        .await;
    }
    drop(traffic);
    scene.web[1].revive().await;
    watch.fall_silent().await;
}

async fn nobody_is_left(scene: &Scene, watch: &mut Watch) {
    for backend in &scene.web {
        backend.kill().await;
    }
    let expected: [(&str, &[&str]); 4] = [
        ("MaitredUpstreamDown", &["web"]),
        ("MaitredBackendDown", &["web/a", "web/b"]),
        ("MaitredRefusing", &["no_eligible_backend"]),
        ("MaitredServerErrors", &["web"]),
    ];
    watch.fire(&expected).await;
    for backend in &scene.web {
        backend.revive().await;
    }
    watch.fall_silent().await;
}

/// Clients that only connect, and requests by the thousand whose log nobody reads.
async fn out_of_descriptors_and_log(scene: &Scene, watch: &mut Watch) {
    scene.reads_log.store(false, Ordering::Relaxed);
    let wanted = DESCRIPTORS as f64 * 0.85;
    let open = async || {
        let page = scrape(scene.lb.site().admin()).await;
        page.sum("process_open_fds", &[])
    };
    let mut clients = Vec::new();
    // A few more: some that were open may be closed by then.
    for _ in open().await as usize..wanted as usize + 10 {
        clients.push(scene.lb.connect().await);
    }
    until("they are taken", 10.secs(), async || open().await >= wanted).await;
    let mut floods = JoinSet::new();
    for _ in 0..4 {
        floods.spawn(flood(scene.lb.address()));
    }
    let expected: [(&str, &[&str]); 2] = [
        ("MaitredDescriptorsLow", &[""]),
        ("MaitredAccessLogDropped", &[""]),
    ];
    watch.fire(&expected).await;
    drop((floods, clients));
    scene.reads_log.store(true, Ordering::Relaxed);
    watch.fall_silent().await;
}

/// The poller's configuration is wrong, and then another one than the proxy's.
async fn another_configuration(scene: &Scene, watch: &mut Watch) {
    let site = scene.lb.site();
    for (rise, alert) in [
        (json!(-1), "MaitredConfigRefused"),
        (json!(3), "MaitredConfigDiffers"),
    ] {
        site.edit_config(|config| config["maitred"]["poller"]["rise"] = rise);
        watch.fire(&[(alert, &[""])]).await;
        site.edit_config(|config| config["maitred"]["poller"]["rise"] = json!(2));
        watch.fall_silent().await;
    }
}

/// Something else is in the file's place; then nobody writes it.
async fn no_health_file(scene: &mut Scene, watch: &mut Watch) {
    let path = scene.lb.site().health_path();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let expected: [(&str, &[&str]); 2] = [
        ("MaitredHealthFileUnreadable", &[""]),
        ("MaitredHealthFileNotWritten", &[""]),
    ];
    watch.fire(&expected).await;
    fs::remove_dir(&path).unwrap();
    watch.fall_silent().await;
    scene.poller.kill();
    let expected: [(&str, &[&str]); 2] = [
        ("MaitredPollerDown", &[""]),
        ("MaitredHealthFileStale", &[""]),
    ];
    watch.fire(&expected).await;
    scene.poller = scene.lb.site().start_poller();
    watch.fall_silent().await;
}

/// The proxy is gone, and a backend is at work for somebody else.
async fn no_proxy(scene: &mut Scene, watch: &mut Watch) {
    let _work = Steady::of(scene.slow.address(), "/", 500.millis());
    scene.lb.program().kill();
    let expected: [(&str, &[&str]); 2] =
        [("MaitredProxyDown", &[""]), ("MaitredNoEvidence", &[""])];
    watch.fire(&expected).await;
}
