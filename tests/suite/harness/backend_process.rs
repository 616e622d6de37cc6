//! A backend that is a process of its own, and so can be killed and stopped: this very program, which runs one
//! of its tests, in which it is a [`super::backend`] that keeps a journal.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use tempfile::TempDir;

use super::backend::{Entry, backend, journal};
use super::client::Client;
use super::duration::Units;
use super::patience::until;
use super::ports::free_port;
use super::program::Program;
use super::proxy::Server;

/// What the process is to be: name, port, milliseconds of work, and the path of its journal.
const ROLE: &str = "MAITRED_TEST_BACKEND";

/// Longest start.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A backend that is a process of its own. Killed when dropped.
pub struct BackendProcess {
    name: String,
    port: u16,
    work: Duration,
    // Dropped before the folder.
    program: Option<Program>,
    folder: TempDir,
}

impl BackendProcess {
    /// A running one, of which each request takes this long.
    pub async fn start(name: &str, work: Duration) -> Self {
        let mut process = Self {
            name: name.to_owned(),
            port: free_port(),
            work,
            program: None,
            folder: TempDir::new().expect("the system has a temporary folder"),
        };
        process.revive().await;
        process
    }

    /// Starts it again, and waits until it accepts connections.
    pub async fn revive(&mut self) {
        let itself = std::env::current_exe().expect("a program knows itself");
        let journal = self.journal_path();
        let work = self.work.as_millis();
        let role = format!(
            "{ROLE}={} {} {work} {}",
            self.name,
            self.port,
            journal.display()
        );
        let words = [
            role.as_str(),
            itself.to_str().expect("a path that is text"),
            "harness::backend_process::serves_as_it_is_told",
            "--exact",
            "--ignored",
        ];
        self.program = Some(Program::start(
            &self.name,
            "env",
            &words,
            self.folder.path(),
        ));
        until(
            "the backend accepts connections",
            READY_WITHIN,
            async || Client::connect(self.address()).await.is_ok(),
        )
        .await;
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.program = None;
    }

    /// SIGSTOP: its connections stand, and its kernel accepts more, but nobody reads them.
    pub fn freeze(&self) {
        self.program
            .as_ref()
            .inspect(|program| program.freeze_family());
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.program
            .as_ref()
            .inspect(|program| program.thaw_family());
    }

    /// What it has done, in all its lives.
    pub fn journal(&self) -> Vec<Entry> {
        journal(&self.journal_path())
    }

    fn journal_path(&self) -> PathBuf {
        self.folder.path().join("journal")
    }
}

impl Server for BackendProcess {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

/// Not a test of anything: what the process does.
#[tokio::test]
#[ignore = "is run by tests that need a backend in a process of its own"]
async fn serves_as_it_is_told() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    // Nobody is left to kill it where the tests themselves are killed.
    set_parent_process_death_signal(Some(Signal::KILL)).expect("Linux has it");
    let mut words = role.splitn(4, ' ');
    let mut word = || words.next().expect("four words");
    let (name, port, work, path) = (word(), word(), word(), word());
    let number = |word: &str| word.parse::<u16>().expect("a number");
    let work = u64::from(number(work)).millis();
    let backend = backend(name).takes(work).on_port(number(port));
    let _backend = backend.with_journal(path.as_ref()).start().await;
    std::future::pending::<()>().await;
}
