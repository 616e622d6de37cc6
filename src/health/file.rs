//! What each look at the health file means.
//!
//! [`HealthFile`] is the one that decides: it takes what a look found and the time, and says whether
//! that is news. It has no clock and waits for nothing, so its rules can be tested as sentences;
//! `watch` does the looking.
//!
//! - Good content is news at once; so is the same content written anew (freshness counts from it).
//! - A missing or bad file is news only when it stays so for [`GRACE`]: people write in place, and
//!   delete and recreate. What is half-written is never a report (a JSON object that is cut off does
//!   not parse), so waiting costs nothing.
//! - Whatever happens, the last good report stays in force.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::OFlags;
use thiserror::Error;

use super::report::{FILE_BYTES_MAX, Report};

/// How long a file may be missing or bad before anyone hears of it.
pub(super) const GRACE: Duration = Duration::from_millis(100);

/// The state of the health file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// There is no such file.
    Missing,
    /// The report in force is what the file says.
    Ok,
    /// There is a file, but it is no report.
    Corrupt {
        /// What is wrong, for a person; with line and column where there is one.
        problem: String,
    },
}

impl FileState {
    /// Its name for machines: `missing`, `ok` or `corrupt`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Ok => "ok",
            Self::Corrupt { .. } => "corrupt",
        }
    }
}

/// All that is known about the health file at one moment. Each event replaces the one before: who
/// misses one and sees the next has missed nothing.
#[derive(Clone, Debug)]
pub struct FileEvent {
    /// The state of the file.
    pub state: FileState,
    /// The good report now in force: with [`FileState::Missing`] and [`FileState::Corrupt`] the
    /// last that was read, `None` if none ever was.
    pub report: Option<Arc<Report>>,
    /// When the file was last seen to be written with a good report, even with the same content:
    /// the freshness of `report` counts from here. While there is no report: the first look.
    pub seen: Instant,
    /// The modification time of the file that `report` was read from; `None` without a report, or
    /// where the file system has no such time.
    pub modified: Option<SystemTime>,
    /// TEMPORARY
    pub changed: Option<SystemTime>,
    /// TEMPORARY
    pub noticed: Instant,
}

impl FileEvent {
    /// TEMPORARY
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.seen)
    }
}

/// The health file as far as it has been read.
pub struct HealthFile {
    path: PathBuf,
    good: Option<Good>,
    event: FileEvent,
    doubt: Option<Doubt>,
}

/// What one look at the file found.
pub(super) enum Look {
    Missing,
    Corrupt { problem: String },
    Good(Good),
}

/// A good file: what it says, and which writing of it this is.
#[derive(Clone)]
pub(super) struct Good {
    content: Arc<Content>,
    stamp: Stamp,
    modified: Option<SystemTime>,
}

pub(super) struct Content {
    bytes: Vec<u8>,
    report: Arc<Report>,
}

/// Differs between two writings of the same content, but for two in place within one tick of the
/// file system's clock (some milliseconds), which freshness need not tell apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

/// A bad state that may pass before anyone need hear of it.
struct Doubt {
    state: FileState,
    since: Instant,
}

#[derive(Debug, Error)]
pub(super) enum FileError {
    #[error("no such file")]
    Missing,
    #[error("not a regular file")]
    NotRegular,
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
}

impl HealthFile {
    /// Reads the file for the first time, without waiting for anything else: before the listener
    /// opens, so that the first request is decided by what the file says. A missing or bad file is
    /// no error here but the state of [`Self::latest`].
    ///
    /// Blocks for as long as the file system does.
    pub fn open(path: PathBuf) -> Self {
        let look = look(&path, None);
        Self::first(path, look, Instant::now())
    }

    /// The path, as given to [`Self::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is known about the file now.
    pub fn latest(&self) -> &FileEvent {
        &self.event
    }

    fn first(path: PathBuf, look: Look, now: Instant) -> Self {
        let event = FileEvent {
            state: FileState::Missing,
            report: None,
            seen: now,
            modified: None,
            changed: None,
            noticed: now,
        };
        let mut file = Self {
            path,
            good: None,
            event,
            doubt: None,
        };
        match look {
            Look::Missing => {}
            Look::Corrupt { problem } => file.event.state = FileState::Corrupt { problem },
            Look::Good(good) => {
                file.accept(good, now);
            }
        }
        file
    }

    /// The content in force, to compare the next look with.
    pub(super) fn content(&self) -> Option<Arc<Content>> {
        self.good.as_ref().map(|good| good.content.clone())
    }

    /// When to look again to settle a doubt.
    pub(super) fn due(&self) -> Option<Instant> {
        self.doubt.as_ref().map(|doubt| doubt.since + GRACE)
    }

    /// Takes in what a look found; true when [`Self::latest`] has changed.
    pub(super) fn observe(&mut self, look: Look, now: Instant) -> bool {
        match look {
            Look::Good(good) => self.accept(good, now),
            Look::Missing => self.suspect(FileState::Missing, now),
            Look::Corrupt { problem } => self.suspect(FileState::Corrupt { problem }, now),
        }
    }

    fn accept(&mut self, good: Good, now: Instant) -> bool {
        self.doubt = None;
        let written = self
            .good
            .as_ref()
            .is_none_or(|last| last.differs_from(&good));
        if !written && self.event.state == FileState::Ok {
            return false;
        }
        self.event.state = FileState::Ok;
        if written {
            self.event.report = Some(good.content.report.clone());
            self.event.seen = now;
            self.event.modified = good.modified;
            self.good = Some(good);
        }
        true
    }

    fn suspect(&mut self, state: FileState, now: Instant) -> bool {
        if self.event.state == state {
            self.doubt = None;
            return false;
        }
        let since = match &self.doubt {
            // A good file turned bad: the time counts from there, whatever is wrong with it
            // meanwhile, or a writer that never gets it right would never be reported.
            Some(doubt) if self.event.state == FileState::Ok || doubt.state == state => doubt.since,
            _ => now,
        };
        if now.saturating_duration_since(since) < GRACE {
            self.doubt = Some(Doubt { state, since });
            return false;
        }
        self.doubt = None;
        self.event.state = state;
        true
    }
}

impl Good {
    fn differs_from(&self, other: &Self) -> bool {
        !Arc::ptr_eq(&self.content, &other.content) || self.stamp != other.stamp
    }
}

/// Looks at the file once. Content equal to `last` is not parsed again but shared.
///
/// The bytes are read each time: no time stamp of a file system is fine enough to tell two writes
/// within a millisecond apart.
pub(super) fn look(path: &Path, last: Option<&Arc<Content>>) -> Look {
    let (bytes, metadata) = match read_regular(path) {
        Ok(found) => found,
        Err(FileError::Missing) => return Look::Missing,
        Err(error) => {
            return Look::Corrupt {
                problem: error.to_string(),
            };
        }
    };
    let content = match last.filter(|last| last.bytes == bytes) {
        Some(same) => same.clone(),
        None => match Report::parse(&bytes) {
            Ok(report) => Arc::new(Content {
                bytes,
                report: Arc::new(report),
            }),
            Err(error) => {
                return Look::Corrupt {
                    problem: error.to_string(),
                };
            }
        },
    };
    Look::Good(Good {
        content,
        stamp: Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
        },
        modified: metadata.modified().ok(),
    })
}

/// The bytes of a regular file (links are followed), of which at most one more than
/// [`FILE_BYTES_MAX`] is read.
pub(super) fn read_regular(path: &Path) -> Result<(Vec<u8>, Metadata), FileError> {
    let file = OpenOptions::new()
        .read(true)
        // To open a FIFO waits for a writer, and a terminal can become ours, unless we say no.
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(path)
        .map_err(FileError::from)?;
    // Of the opened file, not of the path: that may be another by now.
    let metadata = file.metadata().map_err(FileError::from)?;
    if !metadata.is_file() {
        return Err(FileError::NotRegular);
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(FileError::from)?;
    Ok((bytes, metadata))
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing,
            _ => Self::Unreadable(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn good(last: Option<&HealthFile>, text: &str, stamp: i64) -> Look {
        let content = last.and_then(HealthFile::content);
        let content = content.filter(|content| content.bytes == text.as_bytes());
        Look::Good(Good {
            content: content.unwrap_or_else(|| {
                let report = Arc::new(Report::parse(text.as_bytes()).unwrap());
                Arc::new(Content {
                    bytes: text.into(),
                    report,
                })
            }),
            stamp: Stamp {
                device: 0,
                inode: 0,
                seconds: stamp,
                nanoseconds: 0,
            },
            modified: None,
        })
    }

    fn bad(problem: &str) -> Look {
        Look::Corrupt {
            problem: problem.into(),
        }
    }

    fn corrupt(problem: &str) -> FileState {
        FileState::Corrupt {
            problem: problem.into(),
        }
    }

    fn opened(now: Instant) -> HealthFile {
        HealthFile::first("file".into(), good(None, r#"{"a": true}"#, 0), now)
    }

    fn healthy(file: &HealthFile) -> bool {
        file.latest()
            .report
            .as_ref()
            .unwrap()
            .verdict("a")
            .unwrap()
            .healthy
    }

    #[test]
    fn the_first_look_is_believed_at_once() {
        let now = Instant::now();
        assert_eq!(opened(now).latest().state, FileState::Ok);
        let missing = HealthFile::first("file".into(), Look::Missing, now);
        assert_eq!(missing.latest().state, FileState::Missing);
        assert_eq!(missing.latest().report, None);
        let broken = HealthFile::first("file".into(), bad("x"), now);
        assert_eq!(broken.latest().state, corrupt("x"));
    }

    #[test]
    fn new_content_is_news_at_once_and_the_same_look_is_none() {
        let now = Instant::now();
        let mut file = opened(now);
        let look = good(Some(&file), r#"{"a": true}"#, 0);
        assert!(!file.observe(look, now + MS));
        let look = good(Some(&file), r#"{"a": false}"#, 0);
        assert!(file.observe(look, now + 2 * MS));
        assert!(!healthy(&file));
        assert_eq!(file.latest().seen, now + 2 * MS);
    }

    #[test]
    fn the_same_content_written_anew_is_fresh() {
        let now = Instant::now();
        let mut file = opened(now);
        let before = file.latest().report.clone().unwrap();
        let look = good(Some(&file), r#"{"a": true}"#, 1);
        assert!(file.observe(look, now + 5 * MS));
        assert_eq!(file.latest().seen, now + 5 * MS);
        assert!(Arc::ptr_eq(&before, file.latest().report.as_ref().unwrap()));
    }

    #[test]
    fn trouble_shorter_than_the_grace_is_no_news() {
        let now = Instant::now();
        let mut file = opened(now);
        assert!(!file.observe(Look::Missing, now));
        assert_eq!(file.due(), Some(now + GRACE));
        assert!(!file.observe(bad("half"), now + GRACE - MS));
        let look = good(Some(&file), r#"{"a": true}"#, 0);
        assert!(!file.observe(look, now + GRACE));
        assert_eq!(file.due(), None);
        // And the time starts anew.
        assert!(!file.observe(bad("half"), now + 2 * GRACE));
    }

    #[test]
    fn lasting_trouble_is_news_once_and_the_report_stays() {
        let now = Instant::now();
        let mut file = opened(now);
        assert!(!file.observe(bad("x"), now));
        assert!(!file.observe(bad("y"), now + GRACE / 2));
        assert!(file.observe(bad("y"), now + GRACE));
        assert_eq!(file.latest().state, corrupt("y"));
        assert!(healthy(&file));
        assert_eq!(file.latest().seen, now, "a bad file is not fresh");
        assert!(!file.observe(bad("y"), now + 5 * GRACE));
        assert_eq!(file.due(), None);
    }

    #[test]
    fn trouble_that_turns_into_other_trouble_has_its_own_grace() {
        let now = Instant::now();
        let mut file = HealthFile::first("file".into(), bad("x"), now);
        assert!(!file.observe(bad("half of the repair"), now + GRACE));
        let look = good(None, r#"{"a": true}"#, 3);
        assert!(file.observe(look, now + GRACE + MS));
        assert!(!file.observe(Look::Missing, now + 3 * GRACE));
        assert!(file.observe(Look::Missing, now + 4 * GRACE));
        assert_eq!(file.latest().state, FileState::Missing);
        assert!(healthy(&file));
    }

    #[test]
    fn a_file_that_returns_unwritten_is_ok_but_not_fresh() {
        let now = Instant::now();
        let mut file = opened(now);
        file.observe(Look::Missing, now);
        assert!(file.observe(Look::Missing, now + GRACE));
        let look = good(Some(&file), r#"{"a": true}"#, 0);
        assert!(file.observe(look, now + 2 * GRACE));
        assert_eq!(file.latest().state, FileState::Ok);
        assert_eq!(file.latest().seen, now);
    }

    #[test]
    fn only_regular_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(
            read_regular(directory.path()),
            Err(FileError::NotRegular)
        ));
        let file = directory.path().join("file");
        assert!(matches!(read_regular(&file), Err(FileError::Missing)));
        std::fs::write(&file, "{}").unwrap();
        assert!(matches!(
            read_regular(&file.join("below")),
            Err(FileError::Missing)
        ));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_regular(&link).unwrap().0, b"{}");
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(read_regular(&path).unwrap().0.len(), FILE_BYTES_MAX + 1);
        let file = HealthFile::open(path);
        assert_eq!(file.latest().state, corrupt("longer than 16777216 bytes"));
    }
}
