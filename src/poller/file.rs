//! The health file as the poller has it: watched for what others write, written under a lock.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::{error, info};

use super::plan::state_in;
use super::record::Judgement;
use super::task::Task;
use crate::health::{self, FileEvent, HealthFile, Judged, LockError, State, Writer};
use crate::id::BackendName;

/// The health file of a running poller. While it lives, no other poller writes the file.
pub(super) struct PolledFile {
    path: PathBuf,
    /// `None` until the lock could be tried: the folder may come later.
    writer: Option<Writer>,
    /// What the last write failed by, as it was logged.
    trouble: Option<String>,
    events: watch::Receiver<FileEvent>,
    _watching: Task<()>,
}

/// Why the health file was not written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// No lock, so nothing was tried.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The disk, or who may write there.
    #[error("cannot write {}", path.display())]
    Io {
        /// The health file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What is to be written of one backend.
pub(super) type Entry = (BackendName, Judgement);

impl PolledFile {
    /// Reads the file, begins to watch it and takes its lock.
    ///
    /// Blocks for as long as the file system does.
    ///
    /// # Errors
    ///
    /// Only when another poller has the lock. Everything else may pass, and is tried again with each
    /// write.
    pub fn open(path: PathBuf) -> Result<Self, LockError> {
        let writer = match Writer::open(path.clone()) {
            Ok(writer) => Some(writer),
            Err(error @ LockError::Taken { .. }) => return Err(error),
            Err(LockError::Io { .. }) => None,
        };
        let file = HealthFile::open(path.clone());
        let (publish, events) = watch::channel(file.latest().clone());
        Ok(Self {
            path,
            writer,
            trouble: None,
            events,
            _watching: Task::spawn(health::watch(file, publish)),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says, now and later.
    pub fn events(&self) -> &watch::Receiver<FileEvent> {
        &self.events
    }

    /// Writes off the threads of the runtime. A failure is logged, once until it changes.
    ///
    /// # Cancel safety
    ///
    /// May be dropped if no other write follows; one that has begun is completed.
    pub async fn write(&mut self, entries: Vec<Entry>, detail: bool) {
        let (path, mut writer) = (self.path.clone(), self.writer.take());
        let written = spawn_blocking(move || {
            let written = write_locked(&path, &mut writer, &entries, detail);
            (writer, written)
        });
        let trouble = match written.await {
            Ok((writer, written)) => {
                self.writer = writer;
                written.err().map(|error| with_causes(&error))
            }
            // It panicked; the lock went with it.
            Err(error) => Some(error.to_string()),
        };
        self.tell(trouble);
    }

    fn tell(&mut self, trouble: Option<String>) {
        let file = self.path.display();
        match &trouble {
            Some(error) if self.trouble != trouble => {
                error!(%file, error, "health file not written")
            }
            None if self.trouble.is_some() => info!(%file, "health file is written again"),
            _ => {}
        }
        self.trouble = trouble;
    }
}

/// Writes, and takes the lock before if need be. What the file says at this moment to be in maintenance
/// keeps its entry: whoever has just put it there may have done so with a verdict of their own.
pub(super) fn write_locked(
    path: &Path,
    lock: &mut Option<Writer>,
    entries: &[Entry],
    detail: bool,
) -> Result<(), WriteError> {
    let writer = match lock {
        Some(writer) => writer,
        None => lock.insert(Writer::open(path.to_owned())?),
    };
    let file = HealthFile::open(path.to_owned());
    let report = file.latest().report.as_deref();
    let ours = entries
        .iter()
        .filter(|(name, _)| state_in(report, name) != State::Maint);
    let judged = ours.map(|(name, judgement)| Judged {
        name: name.as_str(),
        healthy: judgement.healthy,
        reason: &judgement.reason,
    });
    writer.write(judged, detail).map_err(|source| {
        // The folder is gone, and the lock with it.
        if source.kind() == io::ErrorKind::NotFound {
            *lock = None;
        }
        let path = path.to_owned();
        WriteError::Io { path, source }
    })
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
