//! The temporary folder with the demo's configuration and health file, and its removal.
//!
//! Invariant: the folder is gone soon after the demo is, however the demo ends. A process of its own sees to
//! that, the *sweeper*: it is told the folder on its standard input and waits for the end of that, whose other
//! side only the demo holds and the kernel closes even after `kill -9`.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use crate::ports::SERVERS;
use crate::roles::Role;

/// The configuration's name in the folder.
pub const CONFIG: &str = "pingora.yaml";
/// The health file's name in the folder.
pub const HEALTH_FILE: &str = "health_status.json";

/// Removals tried: parts that are being killed may still write for a moment.
const REMOVALS_MAX: usize = 100;
const REMOVAL_STEP: Duration = Duration::from_millis(20);

/// The folder. Dropping it removes it.
pub struct Folder {
    path: PathBuf,
    sweeper: Child,
}

impl Folder {
    /// A new folder; the servers are healthy until the poller says otherwise.
    ///
    /// # Errors
    /// When the system has no room for it.
    pub fn create() -> anyhow::Result<Self> {
        let mut sweeper = Role::Sweeper
            .command()?
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start the sweeper")?;
        let folder = tempfile::Builder::new()
            .prefix("maitred-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        if let Some(input) = &mut sweeper.stdin {
            input.write_all(folder.path().as_os_str().as_bytes())?;
        }
        let folder = Self {
            // From here on the sweeper removes it.
            path: folder.keep(),
            sweeper,
        };
        fs::write(folder.path.join(CONFIG), include_str!("pingora.yaml"))?;
        fs::write(folder.health_file(), all_healthy())?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The health file in it.
    pub fn health_file(&self) -> PathBuf {
        self.path.join(HEALTH_FILE)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.sweeper.stdin.take());
        let _ = self.sweeper.wait();
        // Usually gone by now, but the sweeper may have been killed. What stays is only temporary.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn all_healthy() -> String {
    let entries = SERVERS.map(|name| format!("\"{name}\": true"));
    format!("{{ {} }}\n", entries.join(", "))
}

/// The sweeper's work.
pub fn sweep() {
    let mut folder = Vec::new();
    // What cannot be read any more has ended as well. Nothing was said if the demo got no folder.
    let _ = io::stdin().lock().read_to_end(&mut folder);
    let folder = PathBuf::from(OsString::from_vec(folder));
    for _ in 0..REMOVALS_MAX {
        match fs::remove_dir_all(&folder) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(_) => std::thread::sleep(REMOVAL_STEP),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_health_file_calls_every_server_healthy() {
        let report: serde_json::Value = serde_json::from_str(&all_healthy()).unwrap();
        assert!(SERVERS.iter().all(|name| report[name] == true), "{report}");
    }
}
