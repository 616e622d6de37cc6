//! Owns the question how often a balancer's checks have called a backend down, which each tells in a way of its own.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::contenders::{Contender, HEALTH_FILE, Kind, Running};

/// How often maitred's health file is looked at; its poller writes at most once a second here.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Counts while it lives.
pub struct Verdicts {
    kind: Kind,
    from_file: Rc<Cell<u64>>,
    watching: Option<JoinHandle<()>>,
}

impl Verdicts {
    pub fn watch(contender: &Contender, running: &Running) -> Self {
        let from_file = Rc::new(Cell::new(0));
        let watching = (contender.kind == Kind::Maitred).then(|| {
            let file = running.folder.join(HEALTH_FILE);
            tokio::task::spawn_local(watch_file(file, Rc::clone(&from_file)))
        });
        Self {
            kind: contender.kind,
            from_file,
            watching,
        }
    }

    /// How often a backend was called down; `None` if it has no checks.
    pub async fn count(&self, running: &Running) -> Result<Option<u64>> {
        Ok(match self.kind {
            Kind::Maitred => Some(self.from_file.get()),
            Kind::Haproxy => Some(ask_haproxy(&running.folder.join("haproxy.sock")).await?),
            Kind::Caddy => Some(in_caddys_log(&running.balancer.said()?)),
            Kind::Bare | Kind::Nginx => None,
        })
    }
}

impl Drop for Verdicts {
    fn drop(&mut self) {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
    }
}

async fn watch_file(file: PathBuf, count: Rc<Cell<u64>>) {
    let mut healthy = HashMap::new();
    loop {
        // The poller renames: what is there is whole.
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if let Ok(report) = serde_json::from_str::<HashMap<String, Value>>(&text) {
            count.set(count.get() + turns_to_sick(&mut healthy, &report));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How many were healthy and are not any more.
fn turns_to_sick(healthy: &mut HashMap<String, bool>, report: &HashMap<String, Value>) -> u64 {
    let mut turns = 0;
    for (name, value) in report {
        let now = value
            .as_bool()
            .or_else(|| value.get("healthy")?.as_bool())
            .unwrap_or(false);
        if healthy.insert(name.clone(), now) == Some(true) && !now {
            turns += 1;
        }
    }
    turns
}

async fn ask_haproxy(socket: &Path) -> Result<u64> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"show stat\n").await?;
    let mut table = String::new();
    stream.read_to_string(&mut table).await?;
    downs_in_stat(&table)
}

/// The sum of the servers' `chkdown`: turns from up to down.
fn downs_in_stat(table: &str) -> Result<u64> {
    let mut lines = table.lines();
    let heading = lines.next().unwrap_or_default();
    let column = |name| heading.split(',').position(|each| each == name);
    let (server, downs) = column("svname")
        .zip(column("chkdown"))
        .context("HAProxy's statistics have other columns")?;
    let of_server = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let is_server = cells.get(server)?.starts_with("server");
        if is_server {
            cells.get(downs)?.parse::<u64>().ok()
        } else {
            None
        }
    };
    Ok(lines.filter_map(of_server).sum())
}

/// Caddy logs every failed check and each recovery: a failed check of a host that was up is a turn.
fn in_caddys_log(log: &str) -> u64 {
    let mut down = HashSet::new();
    let mut turns = 0;
    for line in log
        .lines()
        .filter(|line| line.contains("health_checker.active"))
    {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let host = event["host"].as_str().unwrap_or_default().to_owned();
        match event["msg"].as_str() {
            Some("host is up") => {
                down.remove(&host);
            }
            Some(_) if down.insert(host) => turns += 1,
            _ => {}
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_turns_to_sick_are_counted() {
        let mut healthy = HashMap::new();
        let mut turns = |text| turns_to_sick(&mut healthy, &serde_json::from_str(text).unwrap());
        assert_eq!(turns(r#"{ "a": true, "b": false }"#), 0);
        assert_eq!(turns(r#"{ "a": { "healthy": false }, "b": false }"#), 1);
        assert_eq!(turns(r#"{ "a": false, "b": true }"#), 0);
    }

    #[test]
    fn haproxy_is_asked_for_its_servers_only() {
        let table = "# pxname,svname,chkdown,\ndemo,server1,2,\ndemo,server2,1,\ndemo,BACKEND,7,\n";
        assert_eq!(downs_in_stat(table).unwrap(), 3);
        assert!(downs_in_stat("nonsense").is_err());
    }

    #[test]
    fn caddy_says_more_than_that_a_backend_turned_down() {
        let event = |host: &str, message: &str| {
            format!(
                r#"{{"logger":"http.handlers.reverse_proxy.health_checker.active","msg":"{message}","host":"{host}"}}"#
            )
        };
        let log = [
            event("a", "HTTP request failed"),
            event("a", "HTTP request failed"),
            event("b", "HTTP request failed"),
            event("a", "host is up"),
            event("a", "unexpected status code"),
            r#"{"logger":"http.log.error","msg":"no upstreams available"}"#.into(),
            "no JSON about health_checker.active".into(),
        ];
        assert_eq!(in_caddys_log(&log.join("\n")), 3);
    }
}
