//! Owns the program that is soaked: its configuration, its start and end, and what can be seen of it from outside.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::farm::{Farm, UPSTREAMS};
use crate::http::Wire;
use crate::ports::Ports;

const START_LIMIT: Duration = Duration::from_secs(30);
const PAGE_LIMIT: Duration = Duration::from_secs(10);

/// A running proxy. It ends with this.
pub struct Proxy {
    child: Child,
    log: PathBuf,
    pub port: u16,
    pub admin: Admin,
}

/// Its admin pages.
#[derive(Clone, Copy)]
pub struct Admin(u16);

/// What it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Holdings {
    pub memory_kib: f64,
    pub descriptors: f64,
    pub threads: f64,
    pub tasks: f64,
}

impl Proxy {
    /// `on`: after what requests are sent again, as the configuration has it.
    pub async fn start(
        program: &Path,
        folder: &Path,
        ports: &mut Ports,
        farm: &Farm,
        on: &str,
    ) -> Result<Self> {
        let (port, admin) = (ports.take()?, Admin(ports.take()?));
        let config = folder.join("maitred.yaml");
        fs::write(&config, configuration(folder, farm, port, admin, on))?;
        let log = folder.join("proxy.log");
        let mut child = Command::new(std::env::current_exe()?)
            .args(["tied", &std::process::id().to_string()])
            .arg(program)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        let begun = Instant::now();
        while !matches!(admin.page("/readyz").await, Ok((200, _))) {
            if begun.elapsed() > START_LIMIT || child.try_wait()?.is_some() {
                bail!("the proxy does not start: {}", fs::read_to_string(&log)?);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Self {
            child,
            log,
            port,
            admin,
        })
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// What it said that somebody must act upon.
    pub fn alarms(&self) -> Result<Vec<String>> {
        let said = fs::read_to_string(&self.log)?;
        let alarms = said.lines().filter(|line| is_alarm(line));
        Ok(alarms.map(str::to_owned).collect())
    }

    pub async fn holdings(&self) -> Result<Holdings> {
        let process = self.child.id().context("the proxy has ended")?;
        let process = PathBuf::from(format!("/proc/{process}"));
        let status = fs::read_to_string(process.join("status"))?;
        let (code, metrics) = self.admin.page("/metrics").await?;
        ensure!(code == 200, "/metrics answers {code}");
        Ok(Holdings {
            memory_kib: number_after(&status, "VmRSS:").context("no VmRSS")?,
            descriptors: fs::read_dir(process.join("fd"))?.count() as f64,
            threads: number_after(&status, "Threads:").context("no Threads")?,
            tasks: number_after(&metrics, "maitred_tasks{} ").context("no maitred_tasks")?,
        })
    }
}

impl Admin {
    /// Status and body.
    pub async fn page(self, path: &str) -> Result<(u16, String)> {
        let asking = async {
            let mut wire = Wire::connect(self.0).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n");
            wire.write(request.as_bytes()).await?;
            let head = wire.read_head().await?.context("no answer")?;
            let body = wire.read_body(&head).await?;
            Ok((head.status(), String::from_utf8(body)?))
        };
        timeout(PAGE_LIMIT, asking).await?
    }

    /// What the proxy remembers of a request.
    pub async fn explain(self, id: &str) -> String {
        // It is remembered a moment after it is over.
        sleep(Duration::from_millis(50)).await;
        match self
            .page(&format!("/api/v1/explain/{id}?format=text"))
            .await
        {
            Ok((_, text)) => text,
            Err(error) => format!("no explanation: {error:#}"),
        }
    }

    /// What is still in use or waited for.
    pub async fn not_free(self) -> Result<Vec<String>> {
        let (_, status) = self.page("/api/v1/status").await?;
        Ok(not_free(&serde_json::from_str(&status)?))
    }
}

fn not_free(status: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |of: &str, values: &Value, fields: &[&str]| {
        for field in fields {
            // A field that is not there is not free either.
            if values[field] != 0 {
                found.push(format!("{of}: {field} is {}", values[field]));
            }
        }
    };
    for (name, _) in UPSTREAMS {
        let upstream = &status["upstreams"][name];
        look(name, upstream, &["waiting"]);
        let backends = upstream["backends"].as_object().into_iter().flatten();
        for (name, backend) in backends {
            look(name, backend, &["in_flight", "abandoned"]);
        }
    }
    found
}

fn is_alarm(line: &str) -> bool {
    line.contains(" ERROR ") || line.contains("panicked at")
}

fn configuration(folder: &Path, farm: &Farm, port: u16, admin: Admin, on: &str) -> String {
    let backends = |upstream: usize| {
        let slots = UPSTREAMS[upstream].1;
        let of_upstream = farm.backends().iter().filter(|it| it.upstream == upstream);
        let lines = of_upstream.map(|backend| {
            let (name, port) = (&backend.name, backend.port);
            format!("        - {{ name: {name}, address: \"127.0.0.1:{port}\", max_in_flight: {slots} }}")
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    include_str!("maitred.yaml")
        .replace("@PORT@", &port.to_string())
        .replace("@ADMIN@", &admin.0.to_string())
        .replace("@FOLDER@", &folder.display().to_string())
        .replace("@ON@", on)
        .replace("@SINGLE@", &backends(0))
        .replace("@MANY@", &backends(1))
}

fn number_after(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_in_use_is_found() {
        let free = json!({ "in_flight": 0, "abandoned": 0 });
        let taken = json!({ "in_flight": 1, "abandoned": 1 });
        let upstream =
            |waiting: u32, backend| json!({ "waiting": waiting, "backends": { "a": backend } });
        let status = |single, many| json!({ "upstreams": { "single": single, "many": many } });
        assert!(
            not_free(&status(
                upstream(0, free.clone()),
                upstream(0, free.clone())
            ))
            .is_empty()
        );
        assert_eq!(
            not_free(&status(upstream(2, free.clone()), upstream(0, taken))).len(),
            3
        );
        assert_eq!(not_free(&status(upstream(0, free), Value::Null)).len(), 1);
    }

    #[test]
    fn errors_and_panics_are_alarms() {
        assert!(is_alarm(
            "2026-11-22T13:55:47Z ERROR maitred::proxy: no thread"
        ));
        assert!(is_alarm("thread 'door' panicked at src/lib.rs:1:1:"));
        assert!(!is_alarm("2026-11-22T13:55:47Z  WARN maitred: error=\"x\""));
    }

    #[test]
    fn numbers_are_found_by_name() {
        let text = "# TYPE maitred_tasks gauge\nmaitred_tasks{} 12\nVmRSS:\t  34 kB\n";
        assert_eq!(number_after(text, "maitred_tasks{} "), Some(12.0));
        assert_eq!(number_after(text, "VmRSS:"), Some(34.0));
    }
}
