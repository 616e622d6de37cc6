//! Notices that the configuration file changed, and reads it anew.
//!
//! Invariant: a configuration that is wrong, or missing for a moment, changes nothing but the log.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, error};

use super::plan::Plan;
use crate::config::{Config, ConfigError};
use crate::metrics::Process;

/// How often to look at the file without being told to.
const LOOK: Duration = Duration::from_secs(1);

/// How long a reading may take before the log says so. It goes on: what hangs cannot be stopped, and a
/// second one would hang beside it.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// The largest configuration that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The configuration file as it was read last.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    stamp: Option<Stamp>,
    /// The last that was right.
    config: Config,
    last: Reading,
    process: Arc<Process>,
    /// A reading that has not come to an end in time.
    hanging: Option<JoinHandle<Findings>>,
}

/// What a reading finds: which writing there was before it, and what that says if it was due.
type Findings = (Option<Stamp>, Option<Result<Config, ConfigError>>);

/// What the last reading found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Right,
    Wrong,
    Unreadable,
}

/// Differs between two writings of a file; `None` in its place is a file that cannot be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Reloader {
    /// Reads the file for the first time. Blocks for as long as the file system does.
    ///
    /// # Errors
    ///
    /// When there is no configuration to begin with.
    pub fn open(path: PathBuf) -> Result<Self, ConfigError> {
        // Before it is read: what is written meanwhile is found by the next look.
        let stamp = Stamp::of(&path);
        let config = Config::load(&path)?;
        Ok(Self {
            process: Arc::new(Process::new(config.fingerprint())),
            config,
            stamp,
            path,
            last: Reading::Right,
            hanging: None,
        })
    }

    /// What the first reading says to do.
    pub fn plan(&self) -> Plan {
        Plan::new(&self.config, &self.path)
    }

    /// The process, as far as it knows of its configurations.
    pub fn process(&self) -> Arc<Process> {
        self.process.clone()
    }

    /// Reads the file again whenever it has changed (looked at once a second) and at each `hangup`,
    /// and sends what it says to do, until nobody listens any more. Every problem is a line in the log.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time.
    pub async fn run(mut self, mut hangup: Signal, plans: mpsc::Sender<Plan>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                () = plans.closed() => return,
                Some(()) = hangup.recv() => true,
                _ = looks.tick() => false,
            };
            let Some(read) = self.read(is_asked).await else {
                continue;
            };
            match read {
                Ok(config) => {
                    if let Some(plan) = self.accept(config, is_asked) {
                        // Nobody listens when the poller ends.
                        let _ = plans.send(plan).await;
                    }
                }
                Err(error) => self.refuse(&error),
            }
        }
    }

    /// `None` if there is no need to read.
    async fn read(&mut self, is_asked: bool) -> Option<Result<Config, ConfigError>> {
        let (path, last) = (self.path.clone(), self.stamp);
        let mut reading = self.hanging.take().unwrap_or_else(|| {
            spawn_blocking(move || {
                let stamp = Stamp::of(&path);
                let is_due = is_asked || stamp != last;
                (stamp, is_due.then(|| load(&path)))
            })
        });
        let file = self.path.display();
        match timeout(READ_WITHIN, &mut reading).await {
            Ok(Ok((stamp, config))) => {
                self.stamp = stamp;
                config
            }
            Ok(Err(error)) => {
                error!(%file, %error, "configuration not reloaded");
                None
            }
            Err(_) => {
                if self.last != Reading::Unreadable {
                    error!(%file, error = "it cannot be read in time", "configuration not reloaded");
                }
                self.last = Reading::Unreadable;
                self.hanging = Some(reading);
                None
            }
        }
    }

    /// The new plan, if there is one. A file that was only written anew makes none; but whoever asks,
    /// or has put right what was wrong, gets an answer.
    fn accept(&mut self, config: Config, is_asked: bool) -> Option<Plan> {
        self.process.found(true);
        let is_news = is_asked || self.last != Reading::Right || config != self.config;
        (self.config, self.last) = (config, Reading::Right);
        if !is_news {
            debug!("configuration file written, with the same content");
        }
        is_news.then(|| self.plan())
    }

    fn refuse(&mut self, error: &ConfigError) {
        self.process.found(false);
        let file = self.path.display();
        match error {
            ConfigError::Invalid(problems) => {
                for problem in problems {
                    error!(%file, %problem, "configuration not reloaded");
                }
                self.last = Reading::Wrong;
            }
            ConfigError::Read { source, .. } => {
                if self.last != Reading::Unreadable {
                    error!(%file, %error, cause = %source, "configuration not reloaded");
                }
                self.last = Reading::Unreadable;
                // What hindered it need not show in the file: if there is one, it is tried again.
                self.stamp = None;
            }
        }
    }
}

/// [`Config::load`], but of a regular file only, and without waiting for anyone: a FIFO opens when
/// somebody writes into it.
fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = read_regular(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    Config::parse(&text, &path.display().to_string())
}

fn read_regular(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        path.metadata().ok().map(Self::from)
    }
}

impl From<Metadata> for Stamp {
    fn from(metadata: Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
