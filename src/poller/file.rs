//! The health file as the poller has it: watched for what others write, written under a lock.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep};
use tracing::{error, info};

use super::record::Judgement;
use super::task::Task;
use crate::events::Events;
use crate::health::{self, FileEvent, HealthFile, Judged, LockError, Writer};
use crate::id::BackendName;

/// How long somebody else may be at the file before anyone hears of it.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long to try again when somebody else is at the file; then the next round does. What is written
/// later would make old verdicts look fresh.
const TRY_FOR: Duration = Duration::from_secs(30);

/// How often to look again at a file that somebody else, or another poller, is at.
const RETRY: Duration = Duration::from_secs(1);

/// The health file of a running poller. While it lives, no other poller writes the file.
pub(super) struct PolledFile {
    path: PathBuf,
    /// `None` while it is used on another thread.
    writer: Option<Writer>,
    /// Since when somebody else has been at the file.
    waiting: Option<Instant>,
    /// What the last write failed by, as it was logged.
    trouble: Option<String>,
    events: watch::Receiver<FileEvent>,
    _watching: Task<()>,
}

/// What is to be written of one backend.
pub(super) type Entry = (BackendName, Judgement);

/// What came of writing the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is written.
    Done,
    /// Not; the next round tries again.
    Failed,
    /// Not, because somebody else is at the file: to be tried again after this time.
    Deferred(Duration),
}

impl Written {
    /// Every name of an outcome.
    pub const NAMES: [&'static str; 3] = ["written", "failed", "deferred"];

    /// For machines: one of [`Self::NAMES`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "written",
            Self::Failed => "failed",
            Self::Deferred(_) => "deferred",
        }
    }

    /// When to try again, if not with the next round.
    pub fn wait(self) -> Option<Duration> {
        match self {
            Self::Deferred(wait) => Some(wait),
            Self::Done | Self::Failed => None,
        }
    }
}

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
        let mut writer = Writer::new(path.clone());
        if let Err(error @ LockError::Taken { .. }) = writer.hold() {
            return Err(error);
        }
        writer.look();
        let file = HealthFile::open(path.clone());
        let (publish, events) = watch::channel(file.latest().clone());
        Ok(Self {
            path,
            writer: Some(writer),
            waiting: None,
            trouble: None,
            events,
            _watching: Task::spawn(health::watch(file, publish, Events::default())),
        })
    }

    /// [`Self::open`], off the threads of the runtime, as soon as no other poller has the lock; until
    /// then the log says, once, that this `configuration` is not in force.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time.
    pub async fn reach(path: PathBuf, configuration: PathBuf) -> Self {
        let mut told = None;
        loop {
            let path = path.clone();
            let error = match spawn_blocking(|| Self::open(path)).await {
                Ok(Ok(file)) => return file,
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            if told.as_ref() != Some(&error) {
                error!(file = %configuration.display(), error, "configuration not reloaded");
            }
            told = Some(error);
            sleep(RETRY).await;
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says, now and later.
    pub fn events(&self) -> &watch::Receiver<FileEvent> {
        &self.events
    }

    /// Waits until there is news of the file; for ever if there will be none.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time.
    pub async fn changed(&mut self) {
        if self.events.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Keeps in mind what the file says, should somebody spoil it.
    pub async fn look(&mut self) {
        // If it panicked, what it knew is gone.
        let _ = self.with_writer(Writer::look).await;
    }

    /// Writes off the threads of the runtime. A failure is logged, once until it changes.
    ///
    /// # Cancel safety
    ///
    /// May be dropped if no other write follows; one that has begun is completed.
    pub async fn write(&mut self, entries: Vec<Entry>, detail: bool) -> Written {
        let writing = self.with_writer(move |writer| writer.write(judged(&entries), detail));
        let error = match writing.await {
            Ok(Ok(())) => {
                self.waiting = None;
                self.tell(None);
                return Written::Done;
            }
            Ok(Err(error)) => error,
            Err(error) => {
                self.tell(Some(error.to_string()));
                return Written::Failed;
            }
        };
        let wait = error.wait();
        if wait.is_none() {
            self.waiting = None;
        }
        let waited = match wait {
            Some(_) => self.waiting.get_or_insert_with(Instant::now).elapsed(),
            None => PATIENCE,
        };
        if waited >= PATIENCE {
            self.tell(Some(with_causes(&error)));
        }
        match wait {
            Some(wait) if waited < TRY_FOR => Written::Deferred(wait.min(RETRY)),
            _ => Written::Failed,
        }
    }

    async fn with_writer<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Writer) -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        // There is none if the last work panicked; the lock went with it.
        let writer = self.writer.take();
        let mut writer = writer.unwrap_or_else(|| Writer::new(self.path.clone()));
        let working = spawn_blocking(move || {
            let result = work(&mut writer);
            (writer, result)
        });
        let (writer, result) = working.await?;
        self.writer = Some(writer);
        Ok(result)
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

/// What the writer is told.
pub(super) fn judged(entries: &[Entry]) -> impl Iterator<Item = Judged<'_>> {
    entries.iter().map(|(name, judgement)| Judged {
        name: name.as_str(),
        healthy: judgement.healthy,
        verdict: judgement.verdict.name(),
        reason: &judgement.reason,
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
