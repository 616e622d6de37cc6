//! A test in a network of its own, in which ports are what the README says and packets can be dropped
//! without harm to anyone: this very program, which runs that one test again in namespaces of its own.

use std::path::Path;
use std::time::Duration;

use rustix::process::geteuid;

use super::program::run_to_end;

/// Set in there.
const INSIDE: &str = "MAITRED_TEST_INSIDE";

/// Whether this is the run in the network of its own.
pub fn is_in_own_network() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs a test in a network of its own, where [`is_in_own_network`]; returns all that it said.
///
/// # Panics
/// When it fails, or there can be no such network.
pub async fn run_in_own_network(test: &str, limit: Duration) -> String {
    let itself = std::env::current_exe().expect("a program knows itself");
    let mut words = vec!["--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !geteuid().is_root() {
        words.push("--map-root-user");
    }
    let run = format!("ip link set lo up && {INSIDE}=1 exec \"$@\"");
    let itself = itself.to_str().expect("a path that is text");
    words.extend(["sh", "-c", &run, "sh", itself]);
    words.extend(["--exact", test, "--include-ignored", "--nocapture"]);
    let output = run_to_end("unshare", &words, Path::new("/"), limit).await;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(
        said.contains("running 1 test"),
        "this needs namespaces of its own, and they could not be made (`unshare {}`): {said}",
        words.join(" ")
    );
    assert!(output.status.success(), "{said}");
    said
}
