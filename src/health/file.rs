//! What each look at the health file means.
//!
//! [`HealthFile`] is the one that decides: it takes what a look found and the time, and says whether
//! that is news. It has no clock and waits for nothing, so its rules can be tested as sentences;
//! `watch` does the looking.
//!
//! - Good content is news at once; so is the same content written anew (freshness counts from it).
//! - Content under a path that the last look found another file at was renamed into place, and is
//!   believed at once. Other content in the same file may be old and new bytes mixed, and is believed
//!   once its writer is done: when the file system says so, or when two looks [`SETTLE`] apart find
//!   the same.
//! - A missing or bad file, or one that does not settle, is news only when it stays so for [`GRACE`]:
//!   people write in place, and delete and recreate.
//! - Freshness counts from when a change was seen, by the monotonic clock. Only the first look goes by
//!   the modification time: nobody saw that change.
//! - Whatever happens, the last good report stays in force.

#[cfg(test)]
mod tests;

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::OFlags;
use thiserror::Error;
use tracing::warn;

use super::report::{FILE_BYTES_MAX, Report};

/// How long a file may be missing or bad before anyone hears of it.
pub(super) const GRACE: Duration = Duration::from_millis(100);

/// How long a file that is written in place must stay the same to be believed, where no event says
/// that its writer is done.
pub(super) const SETTLE: Duration = Duration::from_millis(20);

/// How often to read a file anew that changes while it is read.
const READS_MAX: usize = 4;

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
    /// Every name that a state has.
    pub const NAMES: [&'static str; 3] = ["ok", "missing", "corrupt"];

    /// Its name for machines, one of [`Self::NAMES`].
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
    /// How old the writing was when it was seen: by its modification time if the first look found
    /// it, else nothing.
    pub age_when_seen: Duration,
    /// The modification time of the file that `report` was read from; `None` without a report, or
    /// where the file system has no such time.
    pub modified: Option<SystemTime>,
    /// When that file became what it is, a rename into place included: the later of its modification
    /// and its status change, with nanoseconds; `None` as `modified`.
    pub changed: Option<SystemTime>,
    /// When the look that made this event began or, if an event of the file system caused it, when
    /// that came.
    pub noticed: Instant,
}

impl FileEvent {
    /// How old the report is, or how long there was none. No jump of the wall clock changes it.
    pub fn age(&self, now: Instant) -> Duration {
        self.age_when_seen + now.saturating_duration_since(self.seen)
    }
}

/// The health file as far as it has been read.
pub struct HealthFile {
    path: PathBuf,
    good: Option<Good>,
    event: FileEvent,
    /// Where the last look found a regular file.
    place: Option<Place>,
    unsettled: Option<Unsettled>,
    doubt: Option<Doubt>,
}

/// A look, and what is known about it besides.
pub(super) struct Sighting {
    pub(super) look: Look,
    pub(super) began: Instant,
    /// When the event came that caused the look; else `began`.
    pub(super) noticed: Instant,
    /// Whether the last thing heard about the file is that a writer was done with it.
    pub(super) is_whole: bool,
}

/// What one look at the file found.
pub(super) enum Look {
    Missing,
    Corrupt {
        problem: String,
        place: Option<Place>,
    },
    Good(Good),
}

/// A good file: what it says, and which writing of it this is.
#[derive(Clone)]
pub(super) struct Good {
    content: Arc<Content>,
    stamp: Stamp,
    modified: Option<SystemTime>,
    changed: Option<SystemTime>,
}

pub(super) struct Content {
    bytes: Vec<u8>,
    report: Arc<Report>,
}

/// Differs between two writings of the same content, but for two in place within one tick of the
/// file system's clock (some milliseconds), which freshness need not tell apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    place: Place,
    seconds: i64,
    nanoseconds: i64,
}

/// Which file it is, for as long as it is there: its number may be given to another afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    device: u64,
    inode: u64,
}

/// Differs between any two writings, as far as the file system's clock can tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    place: Place,
    bytes: u64,
    pub(super) modified: (i64, i64),
    changed: (i64, i64),
}

/// Good content that its writer may not be done with.
struct Unsettled {
    good: Good,
    since: Instant,
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
    #[error("changes while it is read")]
    Restless(Place),
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
        let began = Instant::now();
        let look = look(&path, None);
        let wall_clock = SystemTime::now();
        let file = Self::first(path, look, began, wall_clock);
        if let Some(ahead) = file.event.modified.filter(|time| *time > wall_clock) {
            let ahead = ahead.duration_since(wall_clock).unwrap_or_default();
            warn!(path = %file.path.display(), ?ahead, "health file is from the future, taken as fresh");
        }
        file
    }

    /// The path, as given to [`Self::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is known about the file now.
    pub fn latest(&self) -> &FileEvent {
        &self.event
    }

    fn first(path: PathBuf, look: Look, now: Instant, wall_clock: SystemTime) -> Self {
        let event = FileEvent {
            state: FileState::Missing,
            report: None,
            seen: now,
            age_when_seen: Duration::ZERO,
            modified: None,
            changed: None,
            noticed: now,
        };
        let mut file = Self {
            path,
            good: None,
            event,
            place: look.place(),
            unsettled: None,
            doubt: None,
        };
        match look {
            Look::Missing => {}
            Look::Corrupt { problem, .. } => file.event.state = FileState::Corrupt { problem },
            Look::Good(good) => {
                let age = good.modified.map(|time| wall_clock.duration_since(time));
                file.accept(good, now);
                // An error: it is from the future.
                file.event.age_when_seen = age.and_then(Result::ok).unwrap_or_default();
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
        let doubt = self.doubt.as_ref().map(|doubt| doubt.since + GRACE);
        let unsettled = self.unsettled.as_ref().map(|found| found.since + SETTLE);
        doubt.into_iter().chain(unsettled).min()
    }

    /// Takes in what a look found; true when [`Self::latest`] has changed.
    pub(super) fn observe(&mut self, sighting: Sighting, now: Instant) -> bool {
        let is_settled = self.is_settled(&sighting);
        self.place = sighting.look.place();
        let is_news = match sighting.look {
            Look::Good(good) if is_settled => self.accept(good, now),
            Look::Good(good) => self.wait_for(good, now),
            Look::Missing => self.suspect(FileState::Missing, now),
            Look::Corrupt { problem, .. } => self.suspect(FileState::Corrupt { problem }, now),
        };
        if is_settled {
            self.unsettled = None;
        }
        if is_news {
            self.event.noticed = sighting.noticed;
        }
        is_news
    }

    /// Whether what was found is not, as far as anyone can tell, half of a change.
    fn is_settled(&self, sighting: &Sighting) -> bool {
        let Look::Good(good) = &sighting.look else {
            return true;
        };
        let is_in_force = self.good.as_ref().is_some_and(|last| last.shares(good));
        let was_renamed = self.place != Some(good.stamp.place);
        let has_stayed = self.unsettled.as_ref().is_some_and(|found| {
            found.good.is_unchanged(good)
                && sighting.began.saturating_duration_since(found.since) >= SETTLE
        });
        is_in_force || was_renamed || sighting.is_whole || has_stayed
    }

    /// Good content that may be old and new mixed: nothing to believe yet.
    fn wait_for(&mut self, good: Good, now: Instant) -> bool {
        let is_known = |found: &Unsettled| found.good.is_unchanged(&good);
        if !self.unsettled.as_ref().is_some_and(is_known) {
            self.unsettled = Some(Unsettled { good, since: now });
        }
        let problem = "is being written".to_owned();
        self.suspect(FileState::Corrupt { problem }, now)
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
            self.event.age_when_seen = Duration::ZERO;
            self.event.modified = good.modified;
            self.event.changed = good.changed;
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

impl Look {
    fn place(&self) -> Option<Place> {
        match self {
            Self::Missing => None,
            Self::Corrupt { place, .. } => *place,
            Self::Good(good) => Some(good.stamp.place),
        }
    }
}

impl Good {
    fn differs_from(&self, other: &Self) -> bool {
        !self.shares(other) || self.stamp != other.stamp
    }

    /// Whether [`look`] has found `other` to say the same as this.
    fn shares(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.content, &other.content)
    }

    /// Whether nobody has written between two looks. Equal bytes alone would not say that: a slow
    /// writer may just be where old and new are the same.
    fn is_unchanged(&self, other: &Self) -> bool {
        self.content.bytes == other.content.bytes && self.stamp == other.stamp
    }
}

impl Place {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

impl Version {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            place: Place::of(metadata),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            place: Place::of(metadata),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
        }
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
                place: match error {
                    FileError::Restless(place) => Some(place),
                    _ => None,
                },
            };
        }
    };
    let stamp = Stamp::of(&metadata);
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
                    place: Some(stamp.place),
                };
            }
        },
    };
    let modified = metadata.modified().ok();
    Look::Good(Good {
        content,
        stamp,
        modified,
        changed: changed(&metadata),
    })
}

/// When the file became what it is: the later of its modification and its status change.
pub(super) fn changed(metadata: &Metadata) -> Option<SystemTime> {
    metadata.modified().ok().max(status_change(metadata))
}

/// When the inode was last changed, by a rename for example; `None` before 1970.
fn status_change(metadata: &Metadata) -> Option<SystemTime> {
    let seconds = metadata.ctime().try_into().ok()?;
    let nanoseconds = metadata.ctime_nsec().try_into().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

/// The bytes of a regular file (links are followed), of which at most one more than
/// [`FILE_BYTES_MAX`] is read. A file that changes meanwhile is read anew, for a moment.
pub(super) fn read_regular(path: &Path) -> Result<(Vec<u8>, Metadata), FileError> {
    let mut reads = 1;
    loop {
        let file = OpenOptions::new()
            .read(true)
            // To open a FIFO waits for a writer, and a terminal can become ours, unless we say no.
            .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
            .open(path)
            .map_err(FileError::from)?;
        // Of the opened file, not of the path: that may be another by now.
        let before = file.metadata().map_err(FileError::from)?;
        if !before.is_file() {
            return Err(FileError::NotRegular);
        }
        let mut bytes = Vec::new();
        (&file)
            .take(FILE_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(FileError::from)?;
        let after = file.metadata().map_err(FileError::from)?;
        if Version::of(&before) == Version::of(&after) {
            return Ok((bytes, after));
        }
        if reads == READS_MAX {
            return Err(FileError::Restless(Place::of(&after)));
        }
        reads += 1;
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing,
            _ => Self::Unreadable(error),
        }
    }
}
