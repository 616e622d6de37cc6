//! A program under test as a process of its own: started, signalled, watched, and killed in the end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use super::patience::until;

/// How much of a log is shown when a test fails.
const LOG_LINES_SHOWN: usize = 120;

/// A running process. Killed when dropped; its log is printed if the test panics.
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Runs `binary` in `folder`; what it prints goes to `NAME.log` there.
    pub fn start(name: &str, binary: &str, arguments: &[&str], folder: &Path) -> Self {
        allow_many_files();
        let log = folder.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("the folder can be written");
        let child = Command::new(binary)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be duplicated"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{binary}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGINT, as Ctrl-C sends it.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it has ended, and how.
    pub fn exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be asked")
    }

    /// Waits for its end; returns the exit code (`None`: ended by a signal) and how long that took.
    pub async fn wait_exit(&mut self, limit: Duration) -> (Option<i32>, Duration) {
        let what = format!("{} ended", self.name);
        let took = until(&what, limit, async || self.exit().is_some()).await;
        (self.exit().and_then(|status| status.code()), took)
    }

    /// All that it printed.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Memory in use that is its own: resident, not counting its files.
    pub fn rss_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.id());
        let status = fs::read_to_string(&path).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kibibytes.expect("Linux tells VmRSS in kB") * 1024
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal)
            .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!(
                "--- the last lines of {}:\n{}\n---",
                self.name,
                shown.join("\n")
            );
        }
    }
}

/// Raises the number of files that we and our children may have open to what the system allows at
/// most: thousands of clients need as many, and the usual limit is 1024.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("anyone may raise a limit up to its maximum");
}

/// Runs a program that ends by itself.
///
/// # Panics
/// When it has not ended within `limit`.
pub async fn run_to_end(
    binary: &str,
    arguments: &[&str],
    folder: &Path,
    limit: Duration,
) -> Output {
    let output = tokio::process::Command::new(binary)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let outcome = super::patience::soon(binary, limit, output).await;
    outcome.unwrap_or_else(|error| panic!("{binary}: {error}"))
}
