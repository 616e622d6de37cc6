//! For tests that need another setting than the test program has: it is started again, for one test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDER: &str = "MAITRED_RERUN_FOLDER";

/// The folder that the parent has prepared, when this is such a start.
pub(super) fn folder() -> Option<PathBuf> {
    env::var_os(FOLDER).map(PathBuf::from)
}

/// A command that runs the test of this path (`writer::tests::name`) with `folder`.
pub(super) fn command(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "--nocapture", &format!("health::{test}")])
        .env(FOLDER, folder);
    command
}

/// Fails unless the command has run one test well.
pub(super) fn assert_passes(mut command: Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("1 passed"), "{text}\n{errors}");
}

/// Runs a test as a user for whom permissions hold; false, with a message, where that cannot be.
pub(super) fn as_nobody(test: &str, folder: &Path) -> bool {
    use std::os::unix::process::CommandExt;
    let mut command = command(test, folder);
    command.uid(65_534).gid(65_534);
    // The program may lie in a folder that is closed to others.
    if let Err(error) = command.arg("--list").output() {
        eprintln!("skipped: cannot run as nobody: {error}");
        return false;
    }
    let mut command = self::command(test, folder);
    command.uid(65_534).gid(65_534);
    assert_passes(command);
    true
}
