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
    output: PathBuf,
}

impl Program {
    /// Runs `binary` in `folder`; its standard output goes to `NAME.out` there, errors to `NAME.log`.
    pub fn start(name: &str, binary: &str, arguments: &[&str], folder: &Path) -> Self {
        allow_many_files();
        let (log, output) = (
            folder.join(format!("{name}.log")),
            folder.join(format!("{name}.out")),
        );
        let child = Command::new(binary)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(appended(&output))
            .stderr(appended(&log))
            .spawn()
            .unwrap_or_else(|error| panic!("{binary}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
            output,
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

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGUSR1.
    pub fn reopen_log(&self) {
        self.signal(Signal::USR1);
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGKILL to it and its children, and waits for its end.
    pub fn kill_family(&mut self) {
        self.signal_family(Signal::KILL);
        self.kill();
    }

    /// SIGSTOP to it and its children: they stand still until [`Program::thaw_family`].
    pub fn freeze_family(&self) {
        self.signal_family(Signal::STOP);
        // On another core it may run on for a moment.
        while !self.is_stopped() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether it stands still, or is no more.
    fn is_stopped(&self) -> bool {
        let state = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let is_one = |state: String| state.contains(") T ") || state.contains(") Z ");
        state.map_or(true, is_one)
    }

    /// SIGCONT to it and its children.
    pub fn thaw_family(&self) {
        self.signal_family(Signal::CONT);
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

    /// All that it said on standard error.
    pub fn log(&self) -> String {
        text_of(&self.log)
    }

    /// All that it wrote to standard output.
    pub fn output(&self) -> String {
        text_of(&self.output)
    }

    /// Memory in use that is its own: resident, not counting its files.
    pub fn rss_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.id());
        let status = fs::read_to_string(&path).expect("the process runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kibibytes.expect("Linux tells RssAnon in kB") * 1024
    }

    /// The parent first: it would replace a child that ended before it.
    fn signal_family(&self, signal: Signal) {
        let id = self.id();
        // It cannot be read once the process has ended.
        let children =
            fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        for pid in [Pid::from_child(&self.child)]
            .into_iter()
            .chain(children.filter_map(Pid::from_raw))
        {
            // Fails only when it has ended meanwhile.
            let _ = kill_process(pid, signal);
        }
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
            let log = [self.output(), self.log()].concat();
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

fn appended(path: &Path) -> File {
    let mut options = File::options();
    let file = options.create(true).append(true).open(path);
    file.expect("the folder can be written")
}

/// What a file has; nothing if it is not there.
fn text_of(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
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
