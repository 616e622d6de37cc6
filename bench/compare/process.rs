//! Owns the programs that are compared: starting one on its core, what it costs, and its end. A program has a
//! process group of its own, so that its workers are measured, and ended, with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};

/// Where the balancer runs.
pub const BALANCER_CORE: usize = 0;
/// Where load and backends run.
pub const LOAD_CORE: usize = 1;

/// A running program; dropping it ends it and all that it started.
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it on a core, if cores can be chosen. What it says goes to `FOLDER/NAME.log`, standard output
    /// included. Nobody may watch that folder: a log there would ring the watcher for each of its lines.
    pub fn start(
        command: &Command,
        core: Option<usize>,
        folder: &Path,
        name: &str,
    ) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let mut command = on_core(command, core);
        command
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            .process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        Ok(Self { child, log })
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what it said, for an error's message.
    pub fn last_words(&self) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// All that it said.
    pub fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// How long it has been on a processor, workers included.
    pub fn cpu_time(&self) -> Result<Duration> {
        self.processes()?
            .iter()
            .map(|process| cpu_time_of(process))
            .sum()
    }

    /// Its memory in bytes, workers included; what is shared is counted once (PSS).
    pub fn memory(&self) -> Result<u64> {
        let mut kib = 0;
        for process in self.processes()? {
            let rollup = fs::read_to_string(process.join("smaps_rollup"))?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            kib += line
                .and_then(first_number)
                .context("smaps_rollup has no Pss")?;
        }
        Ok(kib * 1024)
    }

    /// The folders in `/proc` of the processes in its group.
    fn processes(&self) -> Result<Vec<PathBuf>> {
        let group = self.child.id().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let folder = entry?.path();
            // A process that has ended meanwhile is none of ours.
            let Ok(stat) = fs::read_to_string(folder.join("stat")) else {
                continue;
            };
            if process_group(&stat) == Some(&group) {
                found.push(folder);
            }
        }
        Ok(found)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An id that has been waited for may be somebody else's by now.
        if self.has_ended() {
            return;
        }
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// How long a process, given by its folder in `/proc`, has been on a processor. `schedstat` counts nanoseconds,
/// where `stat` has ticks of 10 ms; what threads that have ended used is missing, and none end in a round.
pub fn cpu_time_of(process: &Path) -> Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(process.join("task"))? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += first_number(&stat).context("schedstat has no numbers")?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Puts this process on the core of load and backends. `false` if cores cannot be chosen here.
pub fn pin_self() -> bool {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return false;
    }
    Command::new("taskset")
        .args([
            "-cp",
            &LOAD_CORE.to_string(),
            &std::process::id().to_string(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// By `taskset`, which becomes the program: threads and workers inherit the core.
fn on_core(command: &Command, core: Option<usize>) -> Command {
    let mut pinned = match core {
        Some(core) => {
            let mut taskset = Command::new("taskset");
            taskset
                .args(["-c", &core.to_string()])
                .arg(command.get_program());
            taskset
        }
        None => Command::new(command.get_program()),
    };
    pinned.args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            pinned.env(name, value);
        }
    }
    pinned
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The fifth field of `/proc/PID/stat`; the second is a name in parentheses that may hold anything.
fn process_group(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_process_name_may_look_like_fields() {
        assert_eq!(process_group("12 (a) b) S 1 34 34 0 -1"), Some("34"));
    }

    #[test]
    fn a_program_is_measured_and_ended_with_its_workers() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & sleep 60 & echo ready; wait"]);
        let program = Program::start(&command, None, folder.path(), "shell").unwrap();
        while program.said().unwrap().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let processes = program.processes().unwrap();
        assert_eq!(processes.len(), 3);
        assert!(program.memory().unwrap() > 0 && program.cpu_time().unwrap() > Duration::ZERO);
        drop(program);
        let is_alive = |process: &PathBuf| {
            // The kernel ends it in its own time, and whoever inherits it reaps it.
            fs::read_to_string(process.join("stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        let start = Instant::now();
        while processes.iter().any(is_alive) {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
