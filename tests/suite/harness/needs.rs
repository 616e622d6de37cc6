//! What some tests need of the machine beyond Rust. Where it is not to be had they are left out, and the
//! reason is said once.

use std::collections::BTreeSet;
use std::io::{Write, stderr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use rustix::process::geteuid;
use tempfile::TempDir;

/// The Python to run servers with.
pub fn python() -> Option<String> {
    named("MAITRED_PYTHON")
}

/// The command to run a program with whose wall clock, and no other, is set so by `libfaketime`.
pub fn faketime(settings: &[&str]) -> Option<Vec<String>> {
    let preload = format!("LD_PRELOAD={}", named("MAITRED_FAKETIME")?);
    let wall_clock_only = [
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "DONT_FAKE_MONOTONIC=1",
        "NO_FAKE_STAT=1",
    ];
    let words = ["env", &preload].into_iter().chain(wall_clock_only);
    let words = words.chain(settings.iter().copied());
    Some(words.map(str::to_owned).collect())
}

/// A program of Prometheus's: in the folder that is named, else where programs are.
pub fn prometheus_s(program: &str) -> Option<PathBuf> {
    let folders = match std::env::var_os("MAITRED_PROMETHEUS") {
        Some(folder) => folder,
        None => std::env::var_os("PATH").unwrap_or_default(),
    };
    let mut programs = std::env::split_paths(&folders).map(|folder| folder.join(program));
    let found = programs.find(|program| program.is_file());
    let otherwise = format!("{program} is not installed (tests/all.sh fetches it)");
    met(found.is_some(), &otherwise);
    found
}

/// Whether we may become somebody else.
pub fn is_root() -> bool {
    met(geteuid().is_root(), "we are not root")
}

/// Whether a process of ours may mount something that nobody else sees. Not every root may.
pub fn may_mount() -> bool {
    let folder = TempDir::new().expect("the system has a temporary folder");
    let tried = Command::new("unshare")
        .args(["--mount", "mount", "-t", "tmpfs", "tmpfs"])
        .arg(folder.path())
        .stderr(Stdio::null())
        .status();
    met(
        tried.is_ok_and(|status| status.success()),
        "nothing can be mounted here (`unshare --mount` needs CAP_SYS_ADMIN)",
    )
}

/// Whether a process of ours may drop packets in a network of its own.
pub fn may_drop_packets() -> bool {
    let tried = Command::new("unshare")
        .args([
            "--net", "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "1", "-j", "DROP",
        ])
        .stderr(Stdio::null())
        .status();
    met(
        tried.is_ok_and(|status| status.success()),
        "no packets can be dropped here (`unshare --net iptables` needs root and iptables; tests/all.sh installs it)",
    )
}

/// The value of a variable of the environment.
fn named(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok();
    met(
        value.is_some(),
        &format!("{variable} is not set (tests/all.sh sets it)"),
    );
    value
}

fn met(is_met: bool, otherwise: &str) -> bool {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if !is_met && SAID.lock().unwrap().insert(otherwise.to_owned()) {
        // Not `eprintln!`, which the test harness keeps to itself while tests pass.
        let _ = writeln!(stderr(), "some tests are left out: {otherwise}");
    }
    is_met
}
