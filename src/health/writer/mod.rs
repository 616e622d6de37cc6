//! Writes verdicts into the health file, so that no reader ever sees half of them, and nobody else who
//! writes the file loses anything.
//!
//! - A file has one [`Writer`]: it holds a lock beside the file that the kernel takes away from whoever
//!   dies, and makes sure before each write that it still does.
//! - People and scripts take no lock. So nothing is written while somebody else seems to be at the file
//!   ([`QUIET`]), nor into one that is no JSON object until that has lasted ([`SPOILT_QUIET`]): it may
//!   be half of what somebody means to say. What is left to lose is a change that falls between our
//!   last look and our rename, some microseconds.
//! - What the writer does not own stays as it is: the order of the file, names that it has no verdict
//!   for, the fields of an object other than `healthy`, `verdict` and `reason`, and entries in maintenance.
//! - What it writes is a report that every reader accepts. What it must leave out for that is kept
//!   beside the file, as `.<name>.spoilt`, and told.
//! - The file is replaced by a rename or, where that is impossible, overwritten at one stroke with room
//!   reserved before. A failure leaves it as it was.

mod entries;
mod lock;
mod storage;
#[cfg(test)]
mod tests;

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tracing::warn;

use super::file::{FileError, Version, changed, read_regular};
use super::report::{self, ReportError};

use entries::{Entries, is_in_maintenance, mend, merge, text};
use lock::Lock;
use storage::{Ready, beside, may_be_written_in_place, resolved, version_at, write_in_place};

pub use lock::LockError;

/// How long a file that somebody else has changed is left alone: a slow writer changes it more often.
const QUIET: Duration = Duration::from_secs(1);

/// How long a file that is no JSON object must have been the same to be given up as spoilt.
const SPOILT_QUIET: Duration = Duration::from_secs(10);

/// How much of what was dropped is told by name.
const DROPPED_TOLD_MAX: usize = 8;

/// What a judge has found out about one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged<'a> {
    /// Its name in the health file.
    pub name: &'a str,
    /// Whether it is well.
    pub healthy: bool,
    /// The same in a word or two; written when details are.
    pub verdict: &'a str,
    /// Why, for a person; written when details are.
    pub reason: &'a str,
}

/// Why the health file was not written. It is then as it was.
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
    /// Somebody else has just changed it, and may not be done.
    #[error("somebody else is writing {}", path.display())]
    Busy {
        /// The health file.
        path: PathBuf,
        /// When to try again.
        wait: Duration,
    },
    /// It is no JSON object, and has not been so for long enough to replace it.
    #[error(
        "{} is spoilt: {problem}; nothing is written (a running poller replaces it when nobody has changed it for {} s)",
        path.display(),
        SPOILT_QUIET.as_secs()
    )]
    Spoilt {
        /// The health file.
        path: PathBuf,
        /// What is wrong with it.
        problem: ReportError,
        /// When to try again.
        wait: Duration,
    },
}

impl WriteError {
    /// When to try again, if it is the file itself that hinders: that may pass in a moment.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::Busy { wait, .. } | Self::Spoilt { wait, .. } => Some(*wait),
            Self::Lock(_) | Self::Io { .. } => None,
        }
    }
}

/// The one writer of a health file, while it holds the lock.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    lock: Option<Lock>,
    /// The last good content that was seen or written, mended. It stands in for a file that somebody has
    /// spoilt, so that a drained backend stays drained.
    known: Option<Entries>,
    sight: Option<Sight>,
    patience: Patience,
}

/// What the last look found.
#[derive(Clone, Copy, Debug)]
struct Sight {
    /// `None`: no file.
    version: Option<Version>,
    /// When somebody else's change was first seen; `None`: there is none since our last write.
    since: Option<Instant>,
}

/// [`QUIET`] and [`SPOILT_QUIET`]; shorter in tests.
#[derive(Clone, Copy, Debug)]
struct Patience {
    busy: Duration,
    spoilt: Duration,
}

/// The file as one look found it.
struct Found {
    bytes: Vec<u8>,
    metadata: Option<Metadata>,
    version: Option<Version>,
    /// Mended, and what was dropped for it.
    entries: Result<(Entries, Vec<String>), ReportError>,
}

/// What must be put right besides the verdicts.
enum Repair {
    Dropped(Vec<String>),
    Replaced { problem: ReportError, known: bool },
}

impl Writer {
    /// A writer without a lock, for the health file at `path`: neither need exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            lock: None,
            known: None,
            sight: None,
            patience: Patience {
                busy: QUIET,
                spoilt: SPOILT_QUIET,
            },
        }
    }

    /// Takes the lock, unless it is held.
    ///
    /// The lock is on `.<name>.lock` in the folder of the file (links are followed), which stays when
    /// it is free. Where the folder does not let itself be written, it is on the file: that one is
    /// then written in place, and stays the same file.
    ///
    /// # Errors
    ///
    /// When another process has it, or it cannot be tried (its folder is missing, for example).
    pub fn hold(&mut self) -> Result<(), LockError> {
        if self
            .lock
            .as_ref()
            .is_none_or(|lock| !lock.holds(&self.path))
        {
            // Before the new one is tried, which may be the same file again.
            self.lock = None;
            self.lock = Some(Lock::take(&self.path)?);
        }
        Ok(())
    }

    /// Looks at the file if it has changed, to know what it said should it be spoilt later.
    ///
    /// Blocks for as long as the disk does.
    pub fn look(&mut self) {
        let path = resolved(&self.path);
        let is_known = |sight: Sight| sight.version == version_at(&path);
        if !self.sight.is_some_and(is_known) {
            // What cannot be read is told by whoever has to write.
            let _ = self.read(&path);
        }
    }

    /// Who is in maintenance by the file, also if other things are wrong with it.
    ///
    /// Blocks for as long as the disk does.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is no JSON object.
    pub fn maintained(&mut self) -> Result<Vec<String>, WriteError> {
        let path = resolved(&self.path);
        let found = self.read(&path)?;
        match found.entries {
            Ok((entries, _)) => Ok(entries
                .into_iter()
                .filter(|(_, value)| is_in_maintenance(value))
                .map(|(name, _)| name)
                .collect()),
            Err(problem) => {
                let wait = self.leave_alone(self.patience.busy);
                Err(match wait {
                    Some(wait) => self.busy(wait),
                    None => self.spoilt(problem, self.patience.spoilt),
                })
            }
        }
    }

    /// Writes what was found out (names unique) into the file. With `detail` every entry becomes an
    /// object with a reason; without, entries that are objects stay so, but lose their reason, which
    /// was that of an earlier verdict. Entries in maintenance stay as they are.
    ///
    /// The file is replaced at once, by a rename, and synced to the disk; it keeps its mode and, where
    /// we may, its owner. Links are followed. Where the folder does not let itself be written or the
    /// file not be replaced (a single file mounted into a container), it is written in place. Keys
    /// that are in the file stay where they are, new ones come last. What no reader accepts is
    /// dropped, and a file that has been no JSON object for long is replaced by what it said before;
    /// both with a warning and a copy beside it.
    ///
    /// Blocks for as long as the disk does.
    ///
    /// # Errors
    ///
    /// See [`WriteError`].
    pub fn write<'a>(
        &mut self,
        judged: impl IntoIterator<Item = Judged<'a>>,
        detail: bool,
    ) -> Result<(), WriteError> {
        self.write_by(judged, detail, |from, to| fs::rename(from, to))
    }

    /// [`Self::write`], with the rename that a test can let fail.
    fn write_by<'a>(
        &mut self,
        judged: impl IntoIterator<Item = Judged<'a>>,
        detail: bool,
        rename: impl Fn(&Path, &Path) -> io::Result<()>,
    ) -> Result<(), WriteError> {
        self.hold()?;
        // To rename over a link would replace the link.
        let path = resolved(&self.path);
        let found = self.read(&path)?;
        if let Some(wait) = self.leave_alone(self.patience.busy) {
            return Err(self.busy(wait));
        }
        let (existing, repair) = match found.entries {
            Ok((entries, dropped)) => {
                let repair = (!dropped.is_empty()).then_some(Repair::Dropped(dropped));
                (entries, repair)
            }
            Err(problem) => {
                if let Some(wait) = self.leave_alone(self.patience.spoilt) {
                    return Err(self.spoilt(problem, wait));
                }
                let known = self.known.is_some();
                let repair = Repair::Replaced { problem, known };
                (self.known.clone().unwrap_or_default(), Some(repair))
            }
        };
        let merged = merge(existing, judged, detail);
        let text = text(&merged).map_err(|error| self.failed(error))?;
        let kept = repair
            .as_ref()
            .and_then(|_| Some(keep(&path, &found.bytes, found.metadata.as_ref()?)))
            .transpose()
            .map_err(|error| self.failed(error))?;
        let put = Ready::beside(&path, &text, found.metadata.as_ref());
        if version_at(&path) != found.version {
            return Err(self.busy(self.patience.busy));
        }
        let put = match put.and_then(|ready| ready.put(&path, rename)) {
            Err(error) if found.metadata.is_some() && may_be_written_in_place(&error) => {
                write_in_place(&path, &text)
            }
            result => result,
        };
        let left = put.map_err(|error| self.failed(error))?;
        self.known = Some(merged);
        self.sight = Some(Sight {
            version: left,
            // Somebody has been there already.
            since: left.is_none().then(Instant::now),
        });
        if let Some(repair) = repair {
            tell(&self.path, &repair, kept.flatten());
        }
        Ok(())
    }

    /// Reads the file as it is, and keeps in mind what it says and since when.
    fn read(&mut self, path: &Path) -> Result<Found, WriteError> {
        let (bytes, metadata) = match read_regular(path) {
            Ok((bytes, metadata)) => (bytes, Some(metadata)),
            Err(FileError::Missing) => (Vec::new(), None),
            Err(FileError::Restless(_)) => return Err(self.busy(self.patience.busy)),
            // To replace what cannot be read would lose it.
            Err(FileError::Unreadable(error)) => return Err(self.failed(error)),
            Err(error) => return Err(self.failed(io::Error::other(error))),
        };
        let version = metadata.as_ref().map(Version::of);
        let entries = match metadata {
            Some(_) => report::entries(&bytes).map(mend),
            None => Ok(Default::default()),
        };
        self.see(version, metadata.as_ref(), entries.is_err());
        if let (Some(_), Ok((entries, _))) = (version, &entries) {
            self.known = Some(entries.clone());
        }
        Ok(Found {
            bytes,
            metadata,
            version,
            entries,
        })
    }

    /// Takes in which writing of the file was found. The wall clock is asked about the first only, whose
    /// writing nobody has seen; and never about a spoilt one.
    fn see(&mut self, version: Option<Version>, metadata: Option<&Metadata>, is_spoilt: bool) {
        let now = Instant::now();
        let since = match self.sight {
            Some(sight) if sight.version == version => match sight.since {
                None if is_spoilt => Some(now),
                since => since,
            },
            Some(_) => Some(now),
            None => metadata.map(|metadata| {
                let age = changed(metadata).map(|time| SystemTime::now().duration_since(time));
                let age = age.and_then(Result::ok).unwrap_or_default();
                now.checked_sub(age.min(self.patience.busy)).unwrap_or(now)
            }),
        };
        self.sight = Some(Sight { version, since });
    }

    /// For how long still, if it is to be left alone for `patience` after somebody else's change.
    fn leave_alone(&self, patience: Duration) -> Option<Duration> {
        let since = self.sight?.since?;
        patience
            .checked_sub(since.elapsed())
            .filter(|wait| !wait.is_zero())
    }

    fn busy(&self, wait: Duration) -> WriteError {
        let path = self.path.clone();
        WriteError::Busy { path, wait }
    }

    fn spoilt(&self, problem: ReportError, wait: Duration) -> WriteError {
        let path = self.path.clone();
        WriteError::Spoilt {
            path,
            problem,
            wait,
        }
    }

    fn failed(&self, source: io::Error) -> WriteError {
        let path = self.path.clone();
        WriteError::Io { path, source }
    }
}

/// Keeps what is to be replaced in `.<name>.spoilt`, and says where that is: nowhere, where the folder
/// does not let itself be written. One is kept at most.
fn keep(path: &Path, bytes: &[u8], metadata: &Metadata) -> io::Result<Option<PathBuf>> {
    let copy = beside(path, "spoilt");
    let put = Ready::beside(&copy, bytes, Some(metadata))
        .and_then(|ready| ready.put(&copy, |from, to| fs::rename(from, to)));
    match put {
        Ok(_) => Ok(Some(copy)),
        // Without health there is more to lose than that text.
        Err(error) if may_be_written_in_place(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn tell(path: &Path, repair: &Repair, kept: Option<PathBuf>) {
    let path = path.display();
    let copy = kept.map_or_else(
        || "none, the folder is closed".to_owned(),
        |copy| copy.display().to_string(),
    );
    match repair {
        Repair::Dropped(dropped) => {
            let count = dropped.len();
            let dropped = dropped[..count.min(DROPPED_TOLD_MAX)].join(", ");
            warn!(%path, dropped, count, copy, "health file mended, without what no reader accepts");
        }
        Repair::Replaced {
            problem,
            known: true,
        } => {
            warn!(%path, %problem, copy, "spoilt health file replaced, with what it said before");
        }
        Repair::Replaced {
            problem,
            known: false,
        } => warn!(
            %path, %problem, copy,
            "spoilt health file replaced, with verdicts only: what it said before is not known"
        ),
    }
}
