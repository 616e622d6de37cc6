//! A Prometheus that runs with what ships.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::ops;
use crate::harness::{Program, Units, free_port, get, until};

/// Longest until an alert fires, or is silent again.
const PATIENCE: Duration = Duration::from_secs(30);

/// A Prometheus with what ships.
pub(super) struct Watch {
    address: SocketAddr,
    // Dropped before its folder.
    _program: Program,
    _folder: TempDir,
    /// Every alert that has fired since all were silent.
    fired: BTreeSet<String>,
    /// All that have fired when they were meant to.
    pub tried: BTreeSet<String>,
}

impl Watch {
    /// Scrapes these two twice a second. Beside the addresses, nothing is changed but how long things take:
    /// each `for` is two seconds, each `[5m]` six.
    pub async fn start(prometheus: &Path, proxy: SocketAddr, poller: SocketAddr) -> Self {
        let folder = TempDir::new().unwrap();
        let config = fs::read_to_string(ops("prometheus.yml")).unwrap();
        let config = config
            .replace("127.0.0.1:9900", &proxy.to_string())
            .replace("127.0.0.1:9901", &poller.to_string())
            .replace("interval: 15s", "interval: 500ms");
        let rules = fs::read_to_string(ops("alerts.yml")).unwrap();
        let shortened = rules.lines().map(|line| match line.split_once("for: ") {
            Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 2s\n"),
            _ => format!("{line}\n"),
        });
        let rules = shortened.collect::<String>().replace("[5m]", "[6s]");
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        fs::write(folder.path().join("alerts.yml"), rules).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let listen = format!("--web.listen-address={address}");
        let arguments = [
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            &listen,
        ];
        let binary = prometheus.to_str().unwrap();
        let program = Program::start("prometheus", binary, &arguments, folder.path());
        let watch = Self {
            address,
            _program: program,
            _folder: folder,
            fired: BTreeSet::new(),
            tried: BTreeSet::new(),
        };
        until("Prometheus is ready", PATIENCE, async || {
            let answer = get("/-/ready").send_to(address).await;
            answer.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        until("both are scraped", PATIENCE, async || {
            watch.ask("sum(up)").await == [2.0]
        })
        .await;
        watch
    }

    async fn api(&self, path: &str) -> Value {
        let answer = get(&format!("/api/v1/{path}")).send_to(self.address).await;
        let answer = answer.unwrap().json();
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// The values of a query.
    pub async fn ask(&self, query: &str) -> Vec<f64> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.api(&format!("query?query={encoded}")).await;
        let samples = answer["result"].as_array().unwrap().iter();
        let values = samples.map(|sample| sample["value"][1].as_str().unwrap().parse());
        values.map(Result::unwrap).collect()
    }

    /// What fires: by name, whom it is about.
    async fn firing(&mut self) -> BTreeMap<String, BTreeSet<String>> {
        let alerts = self.api("alerts").await;
        let mut firing: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for alert in alerts["alerts"].as_array().unwrap() {
            if alert["state"] == "firing" {
                let labels = &alert["labels"];
                let text = |label: &str| labels[label].as_str().unwrap_or_default().to_owned();
                let about = [text("upstream"), text("backend"), text("reason")];
                let about = about.into_iter().filter(|text| !text.is_empty());
                let about = about.collect::<Vec<_>>().join("/");
                firing.entry(text("alertname")).or_default().insert(about);
            }
        }
        self.fired.extend(firing.keys().cloned());
        firing
    }

    /// Waits until these fire, about these, and asserts that no others did meanwhile.
    pub async fn fire(&mut self, expected: &[(&str, &[&str])]) {
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(name, about)| {
                let about: BTreeSet<_> = about.iter().map(|one| (*one).to_owned()).collect();
                ((*name).to_owned(), about)
            })
            .collect();
        let begun = Instant::now();
        loop {
            let firing = self.firing().await;
            let names: BTreeSet<_> = expected.keys().cloned().collect();
            let others: Vec<_> = self.fired.difference(&names).collect();
            assert!(
                others.is_empty(),
                "not only {expected:?} but {others:?}: {firing:?}"
            );
            if firing == expected {
                println!("{names:?} after {:?}", begun.elapsed());
                self.tried.extend(names);
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "waited in vain for {expected:?}, there is {firing:?}; {}",
                self.api("alerts").await
            );
            tokio::time::sleep(100.millis()).await;
        }
    }

    /// Waits until nothing fires any more.
    pub async fn fall_silent(&mut self) {
        let begun = Instant::now();
        while !self.firing().await.is_empty() {
            assert!(
                begun.elapsed() < PATIENCE,
                "still fires: {}",
                self.api("alerts").await
            );
            tokio::time::sleep(100.millis()).await;
        }
        println!("silent after {:?}", begun.elapsed());
        self.fired.clear();
    }

    /// Nothing fires for this long.
    pub async fn is_silent_for(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            let firing = self.firing().await;
            assert!(firing.is_empty(), "{firing:?}");
            tokio::time::sleep(100.millis()).await;
        }
    }
}
