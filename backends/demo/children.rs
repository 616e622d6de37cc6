//! The parts of the demo as processes: started, killed, stopped, continued, and noticed when they end.
//!
//! They must be started by the demo's main thread: the kernel kills a part when the *thread* that started it
//! ends (`prctl(2)`, `PR_SET_PDEATHSIG`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::folder::{CONFIG, Folder};
use crate::http;
use crate::ports::{Ports, SERVERS};
use crate::roles::Role;
use crate::status;

/// Longest start of all parts, on a machine that is busy.
const READY_WITHIN: Duration = Duration::from_secs(20);
const READY_STEP: Duration = Duration::from_millis(20);
/// How much of a part's log is shown when it ends by itself.
const LOG_LINES_SHOWN: usize = 10;

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It runs, under this process id.
    Runs(u32),
    /// We stopped it: the process is there and does nothing.
    Hangs,
    /// There is no process.
    Ended,
}

/// One part. Killed when dropped.
pub struct Part {
    role: Role,
    ports: Ports,
    folder: PathBuf,
    process: Option<Child>,
    is_stopped: bool,
}

/// All parts but the sweeper.
pub struct Parts {
    /// In the order of [`SERVERS`].
    pub servers: [Part; 3],
    /// Writes the health file.
    pub poller: Part,
    /// The balancer.
    pub proxy: Part,
}

impl Parts {
    /// Starts all of them.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start(ports: Ports, folder: &Folder) -> Result<Self> {
        let start = |role| Part::start(role, ports, folder.path());
        Ok(Self {
            servers: [
                start(Role::Server(0))?,
                start(Role::Server(1))?,
                start(Role::Server(2))?,
            ],
            poller: start(Role::Poller)?,
            proxy: start(Role::Proxy)?,
        })
    }

    /// Waits until the servers listen and the proxy serves.
    ///
    /// # Errors
    /// When a part ends instead, or takes too long.
    pub async fn ready(&mut self) -> Result<()> {
        timeout(READY_WITHIN, self.all_ready())
            .await
            .with_context(|| format!("not up after {} s", READY_WITHIN.as_secs()))?
    }

    async fn all_ready(&mut self) -> Result<()> {
        let ports = self.proxy.ports;
        let mut admin = http::Client::new(Ports::address(ports.admin));
        loop {
            for part in self.servers.iter_mut().chain([&mut self.proxy]) {
                part.must_run()?;
            }
            if listen(&ports.servers).await && status::says_running(&mut admin).await {
                return Ok(());
            }
            sleep(READY_STEP).await;
        }
    }
}

async fn listen(ports: &[u16]) -> bool {
    for &port in ports {
        if TcpStream::connect(Ports::address(port)).await.is_err() {
            return false;
        }
    }
    true
}

impl Part {
    fn start(role: Role, ports: Ports, folder: &Path) -> Result<Self> {
        let mut part = Self {
            role,
            ports,
            folder: folder.to_owned(),
            process: None,
            is_stopped: false,
        };
        part.revive()?;
        Ok(part)
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When the system has no room for another process.
    pub fn revive(&mut self) -> Result<()> {
        let name = self.role.name();
        let process = self.command().and_then(|mut command| Ok(command.spawn()?));
        self.process = Some(process.with_context(|| format!("cannot start {name}"))?);
        self.is_stopped = false;
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        let mut command = self.role.command()?;
        match self.role {
            Role::Server(index) => command.arg(self.ports.servers[index].to_string()),
            _ => command.args(["--conf", CONFIG]),
        };
        command
            .current_dir(&self.folder)
            .env("PROXY_PORT", self.ports.proxy.to_string())
            .env("ADMIN_PORT", self.ports.admin.to_string())
            .stderr(File::create(self.log())?);
        for (name, port) in SERVERS.iter().zip(self.ports.servers) {
            command.env(format!("{}_PORT", name.to_uppercase()), port.to_string());
        }
        Ok(command)
    }

    fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.role.name()))
    }

    /// `kill -9`, and waits for the end, which is near.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both fail only when it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
        self.is_stopped = false;
    }

    /// It does nothing any more, but the kernel still accepts connections for it.
    pub fn stop(&mut self) {
        self.is_stopped = self.signal(Signal::STOP);
    }

    /// It goes on after [`Part::stop`].
    pub fn go_on(&mut self) {
        self.signal(Signal::CONT);
        self.is_stopped = false;
    }

    fn signal(&self, signal: Signal) -> bool {
        let process = self.process.as_ref();
        process.is_some_and(|process| kill_process(Pid::from_child(process), signal).is_ok())
    }

    /// How it is, as far as we know.
    pub fn condition(&self) -> Condition {
        match &self.process {
            Some(_) if self.is_stopped => Condition::Hangs,
            Some(process) => Condition::Runs(process.id()),
            None => Condition::Ended,
        }
    }

    /// How it ended, once, if that was not our doing.
    pub fn noticed_end(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.try_wait().ok()??;
        self.process = None;
        self.is_stopped = false;
        Some(status)
    }

    /// For a part without which there is no demo.
    ///
    /// # Errors
    /// When it has ended.
    pub fn must_run(&mut self) -> Result<()> {
        let Some(status) = self.noticed_end() else {
            return Ok(());
        };
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        bail!(
            "{} has ended ({status})\n{}",
            self.role.name(),
            shown.join("\n")
        );
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.kill();
    }
}
