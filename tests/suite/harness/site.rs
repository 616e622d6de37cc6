//! What an operator would have on disk: a folder with `pingora.yaml` and `health_status.json`. The
//! programs are started in it. The configuration is written as JSON, which is YAML.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use serde_json::{Map, Value};
use tempfile::TempDir;

use super::client::{Client, get};
use super::duration::Units;
use super::patience::until;
use super::ports::free_port;
use super::program::{Program, run_to_end};

const CONFIG: &str = "pingora.yaml";
/// The health file's name, relative to the folder in which the programs run.
pub const HEALTH_FILE: &str = "health_status.json";
/// Longest start.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A folder with a configuration and a health file.
pub struct Site {
    folder: TempDir,
    address: SocketAddr,
    admin: SocketAddr,
    /// Every backend of the configuration, in its order.
    backends: Vec<String>,
    /// The command that starts the proxy, if it is not started as it is.
    run_by: Vec<String>,
}

impl Site {
    /// An empty folder and two ports for a proxy of these backends.
    pub fn new(backends: Vec<String>) -> Self {
        Self {
            folder: TempDir::new().expect("the system has a temporary folder"),
            address: (Ipv4Addr::LOCALHOST, free_port()).into(),
            admin: (Ipv4Addr::LOCALHOST, free_port()).into(),
            backends,
            run_by: Vec::new(),
        }
    }

    /// The proxy is started by this command.
    pub fn run_by(mut self, command: Vec<String>) -> Self {
        self.run_by = command;
        self
    }

    pub fn write_config(&self, config: &Value) {
        fs::write(self.config_path(), format!("{config:#}")).expect("the folder can be written");
    }

    /// Waits until the health file is written, and is back just then: who edits it while the poller replaces it would
    /// lose the change.
    pub async fn is_written(&self) {
        let file = || fs::metadata(self.health_path()).expect("the file is there");
        let modified = || file().modified().expect("the system knows it");
        let before = modified();
        until("the file is written", 10.secs(), async || {
            modified() > before
        })
        .await;
    }

    /// Replaces the configuration by rename, changed by `edit`.
    pub fn edit_config(&self, edit: impl FnOnce(&mut Value)) {
        let text = fs::read_to_string(self.config_path()).expect("it was written at first");
        let mut config = serde_json::from_str(&text).expect("it was written as JSON");
        edit(&mut config);
        let temporary = self.path("pingora.yaml.new");
        fs::write(&temporary, format!("{config:#}")).expect("the folder can be written");
        fs::rename(&temporary, self.config_path()).expect("a file can be replaced");
    }

    /// Where the proxy is told to serve its status.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub fn start_proxy(&self) -> Program {
        let command = self.run_by.iter().map(String::as_str);
        let proxy = [env!("CARGO_BIN_EXE_proxy"), "-c", CONFIG];
        let command: Vec<_> = command.chain(proxy).collect();
        self.start_program("proxy", &command)
    }

    pub fn start_poller(&self) -> Program {
        self.start_poller_with(&[])
    }

    pub fn start_poller_with(&self, arguments: &[&str]) -> Program {
        let command = [&[env!("CARGO_BIN_EXE_poller"), "-c", CONFIG], arguments].concat();
        self.start_program("poller", &command)
    }

    /// The poller, started by this command.
    pub fn start_poller_by(&self, command: &[&str]) -> Program {
        let command = [command, &[env!("CARGO_BIN_EXE_poller"), "-c", CONFIG]].concat();
        self.start_program("poller", &command)
    }

    fn start_program(&self, name: &str, command: &[&str]) -> Program {
        Program::start(name, command[0], &command[1..], self.folder.path())
    }

    /// One round of the poller.
    pub async fn poll_once(&self) -> Output {
        let arguments = ["-c", CONFIG, "--once"];
        run_to_end(
            env!("CARGO_BIN_EXE_poller"),
            &arguments,
            self.folder.path(),
            10.secs(),
        )
        .await
    }

    /// `proxy -t`.
    pub async fn check(&self) -> Output {
        run_to_end(
            env!("CARGO_BIN_EXE_proxy"),
            &["-c", CONFIG, "-t"],
            self.folder.path(),
            10.secs(),
        )
        .await
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub fn health_path(&self) -> PathBuf {
        self.path(HEALTH_FILE)
    }

    pub fn config_path(&self) -> PathBuf {
        self.path(CONFIG)
    }

    /// Replaces the health file by rename: every backend is healthy but those named `false`.
    pub fn health(&self, said: &[(&str, bool)]) {
        self.health_says(&self.health_text(said));
    }

    /// Replaces the health file by rename with this text.
    pub fn health_says(&self, text: &str) {
        self.write_health_aside(text);
        self.rename_health();
    }

    /// The first half of [`Site::health_says`].
    pub fn write_health_aside(&self, text: &str) {
        fs::write(self.health_aside(), text).expect("the folder can be written");
    }

    /// The second half of [`Site::health_says`].
    pub fn rename_health(&self) {
        fs::rename(self.health_aside(), self.health_path()).expect("a file can be replaced");
    }

    fn health_aside(&self) -> PathBuf {
        self.path("health_status.json.new")
    }

    /// What [`Site::health`] writes.
    pub fn health_text(&self, said: &[(&str, bool)]) -> String {
        let mut report: Map<_, _> = self
            .backends
            .iter()
            .map(|name| (name.clone(), Value::Bool(true)))
            .collect();
        report.extend(
            said.iter()
                .map(|(name, healthy)| ((*name).to_owned(), Value::Bool(*healthy))),
        );
        Value::Object(report).to_string()
    }

    /// What the health file says; `Null` while it cannot be read.
    pub fn report(&self) -> Value {
        let text = fs::read_to_string(self.health_path()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Whether the health file calls this backend healthy, in either of its two ways to say so.
    pub fn says_healthy(&self, backend: &str) -> bool {
        let entry = &self.report()[backend];
        entry
            .as_bool()
            .or_else(|| entry["healthy"].as_bool())
            .unwrap_or(false)
    }

    /// Waits until the proxy is ready and listens; `false` if it found a port taken.
    pub async fn is_ready_or_clashed(&self, program: &mut Program) -> bool {
        let mut ended = None;
        until("the proxy is ready and listens", READY_WITHIN, async || {
            ended = program.exit();
            // Ready should mean listening, which a test of its own asks for (`stopping`).
            ended.is_some()
                || self.answers_readyz(200).await && Client::connect(self.address).await.is_ok()
        })
        .await;
        let Some(status) = ended else { return true };
        let log = program.log().to_lowercase();
        assert!(
            log.contains("in use"),
            "the proxy ended with {status} instead of getting ready"
        );
        false
    }

    /// Waits until `/readyz` says 200, and for nothing else.
    pub async fn says_ready(&self) {
        until("readyz says 200", READY_WITHIN, async || {
            self.answers_readyz(200).await
        })
        .await;
    }

    /// Where the proxy is told to listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn answers_readyz(&self, status: u16) -> bool {
        get("/readyz")
            .send_to(self.admin)
            .await
            .is_ok_and(|response| response.status == status)
    }
}
