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

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            place: Place {
                device: metadata.dev(),
                inode: metadata.ino(),
            },
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
        changed: modified.max(status_change(&metadata)),
    })
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
        if version(&before) == version(&after) {
            return Ok((bytes, after));
        }
        if reads == READS_MAX {
            return Err(FileError::Restless(Stamp::of(&after).place));
        }
        reads += 1;
    }
}

/// Changes with each write, to the precision of the file system's clock.
fn version(metadata: &Metadata) -> [i64; 5] {
    [
        metadata.size().cast_signed(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ]
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

    /// Good content in another file than any other `stamp`.
    fn good(last: Option<&HealthFile>, text: &str, stamp: i64) -> Look {
        good_at(last, text, place(stamp), stamp)
    }

    fn place(inode: i64) -> Place {
        Place {
            device: 0,
            inode: inode.cast_unsigned(),
        }
    }

    fn good_at(last: Option<&HealthFile>, text: &str, place: Place, stamp: i64) -> Look {
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
                place,
                seconds: stamp,
                nanoseconds: 0,
            },
            modified: None,
            changed: None,
        })
    }

    fn bad(problem: &str) -> Look {
        bad_at(problem, None)
    }

    fn bad_at(problem: &str, place: Option<Place>) -> Look {
        Look::Corrupt {
            problem: problem.into(),
            place,
        }
    }

    /// A look that takes no time and that no event has caused.
    fn saw(file: &mut HealthFile, look: Look, now: Instant) -> bool {
        hears(file, look, now, false)
    }

    /// A look after an event that says that the writer is done.
    fn saw_whole(file: &mut HealthFile, look: Look, now: Instant) -> bool {
        hears(file, look, now, true)
    }

    fn hears(file: &mut HealthFile, look: Look, now: Instant, is_whole: bool) -> bool {
        let sighting = Sighting {
            look,
            began: now,
            noticed: now,
            is_whole,
        };
        file.observe(sighting, now)
    }

    fn first(look: Look, now: Instant) -> HealthFile {
        HealthFile::first("file".into(), look, now, SystemTime::now())
    }

    fn corrupt(problem: &str) -> FileState {
        FileState::Corrupt {
            problem: problem.into(),
        }
    }

    fn opened(now: Instant) -> HealthFile {
        first(good(None, r#"{"a": true}"#, 0), now)
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
        let missing = first(Look::Missing, now);
        assert_eq!(missing.latest().state, FileState::Missing);
        assert_eq!(missing.latest().report, None);
        let broken = first(bad("x"), now);
        assert_eq!(broken.latest().state, corrupt("x"));
    }

    #[test]
    fn new_content_is_news_at_once_and_the_same_look_is_none() {
        let now = Instant::now();
        let mut file = opened(now);
        let look = good(Some(&file), r#"{"a": true}"#, 0);
        assert!(!saw(&mut file, look, now + MS));
        let look = good(Some(&file), r#"{"a": false}"#, 1);
        assert!(saw(&mut file, look, now + 2 * MS));
        assert!(!healthy(&file));
        assert_eq!(file.latest().seen, now + 2 * MS);
        assert_eq!(file.latest().noticed, now + 2 * MS);
    }

    #[test]
    fn a_change_in_place_is_believed_at_once_when_its_writer_is_done() {
        let now = Instant::now();
        let mut file = opened(now);
        let changed = |file: &HealthFile| good_at(Some(file), r#"{"a": false}"#, place(0), 1);
        let look = changed(&file);
        assert!(!saw(&mut file, look, now));
        assert!(healthy(&file));
        let look = changed(&file);
        assert!(saw_whole(&mut file, look, now + MS));
        assert!(!healthy(&file));
        assert_eq!(file.due(), None);
    }

    #[test]
    fn a_change_in_place_that_nobody_tells_of_is_believed_once_it_has_settled() {
        let now = Instant::now();
        let mut file = opened(now);
        let changed = |file: &HealthFile| good_at(Some(file), r#"{"a": false}"#, place(0), 1);
        let look = changed(&file);
        assert!(!saw(&mut file, look, now));
        assert_eq!(file.due(), Some(now + SETTLE));
        let look = changed(&file);
        assert!(!saw(&mut file, look, now + SETTLE - MS), "too early");
        assert_eq!(file.latest().state, FileState::Ok);
        let look = changed(&file);
        assert!(saw(&mut file, look, now + SETTLE));
        assert!(!healthy(&file));
        assert_eq!((file.due(), file.latest().seen), (None, now + SETTLE));
    }

    #[test]
    fn a_slow_writer_in_place_is_not_believed_before_it_stops() {
        let now = Instant::now();
        let mut file = opened(now);
        // Old and new mixed: each of them is a report, and none is the writer's.
        for (round, text) in [r#"{"a":  false}"#, r#"{"a": false }"#].iter().enumerate() {
            let at = now + SETTLE * u32::try_from(round).unwrap();
            let look = good_at(Some(&file), text, place(0), 1);
            assert!(!saw(&mut file, look, at), "{text}");
        }
        // The same bytes, but written at another time.
        let look = good_at(Some(&file), r#"{"a": false }"#, place(0), 2);
        assert!(!saw(&mut file, look, now + 2 * SETTLE));
        let look = good_at(Some(&file), "{}", place(0), 3);
        assert!(saw(&mut file, look, now + GRACE), "but it lasts too long");
        assert_eq!(file.latest().state, corrupt("is being written"));
        assert!(healthy(&file));
        let look = good_at(Some(&file), "{}", place(0), 3);
        assert_eq!(file.due(), Some(now + GRACE + SETTLE));
        assert!(saw(&mut file, look, now + GRACE + SETTLE));
        assert_eq!(file.latest().state, FileState::Ok);
    }

    #[test]
    fn what_a_bad_file_turns_into_is_a_change_in_place() {
        let now = Instant::now();
        let mut file = first(bad_at("x", Some(place(7))), now);
        let look = good_at(None, r#"{"a": true}"#, place(7), 1);
        assert!(!saw(&mut file, look, now));
        let look = good_at(None, r#"{"a": true}"#, place(8), 1);
        assert!(saw(&mut file, look, now), "renamed");
    }

    #[test]
    fn a_change_that_is_undone_is_none() {
        let now = Instant::now();
        let mut file = opened(now);
        let look = good_at(Some(&file), "{}", place(0), 0);
        assert!(!saw(&mut file, look, now));
        let look = good(Some(&file), r#"{"a": true}"#, 0);
        assert!(!saw(&mut file, look, now + MS));
        assert_eq!(file.due(), None);
        assert!(healthy(&file));
    }

    #[test]
    fn the_first_look_finds_the_age_and_no_later_one() {
        let now = Instant::now();
        let wall_clock = SystemTime::now();
        let written = |age: i32| {
            let Look::Good(mut good) = good(None, r#"{"a": true}"#, age.into()) else {
                unreachable!("it is good");
            };
            good.modified = match u32::try_from(age) {
                Ok(age) => Some(wall_clock - MS * age),
                Err(_) => Some(wall_clock + MS * age.unsigned_abs()),
            };
            Look::Good(good)
        };
        let open = |age| HealthFile::first("file".into(), written(age), now, wall_clock);
        let mut file = open(5_000);
        assert_eq!(file.latest().age(now + 7 * MS), 5_007 * MS);
        assert_eq!(open(-5_000).latest().age(now + 7 * MS), 7 * MS);
        // The wall clock has jumped: the modification time is hours away.
        for (at, age) in [(10, 3_600_000), (20, -3_600_000)] {
            assert!(saw(&mut file, written(age), now + at * MS));
            assert_eq!(file.latest().age(now + (at + 3) * MS), 3 * MS);
        }
        let missing = first(Look::Missing, now);
        assert_eq!(missing.latest().age(now + MS), MS);
    }

    #[test]
    fn a_rename_is_when_the_file_was_changed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, temporary) = (directory.path().join("a"), directory.path().join("b"));
        std::fs::write(&temporary, "{}").unwrap();
        let modified = std::fs::metadata(&temporary).unwrap().modified().unwrap();
        std::thread::sleep(20 * MS);
        std::fs::rename(&temporary, &path).unwrap();
        let file = HealthFile::open(path);
        assert_eq!(file.latest().modified, Some(modified));
        let changed = file.latest().changed.unwrap();
        assert!(changed >= modified + 10 * MS, "{changed:?}");
        assert!(file.latest().age(Instant::now()) >= 20 * MS);
    }

    #[test]
    fn the_same_content_written_anew_is_fresh() {
        let now = Instant::now();
        let mut file = opened(now);
        let before = file.latest().report.clone().unwrap();
        let look = good(Some(&file), r#"{"a": true}"#, 1);
        assert!(saw(&mut file, look, now + 5 * MS));
        assert_eq!(file.latest().seen, now + 5 * MS);
        assert!(Arc::ptr_eq(&before, file.latest().report.as_ref().unwrap()));
    }

    #[test]
    fn trouble_shorter_than_the_grace_is_no_news() {
        let now = Instant::now();
        let mut file = opened(now);
        assert!(!saw(&mut file, Look::Missing, now));
        assert_eq!(file.due(), Some(now + GRACE));
        assert!(!saw(&mut file, bad("half"), now + GRACE - MS));
        let look = good(Some(&file), r#"{"a": true}"#, 0);
        assert!(!saw(&mut file, look, now + GRACE));
        assert_eq!(file.due(), None);
        // And the time starts anew.
        assert!(!saw(&mut file, bad("half"), now + 2 * GRACE));
    }

    #[test]
    fn lasting_trouble_is_news_once_and_the_report_stays() {
        let now = Instant::now();
        let mut file = opened(now);
        assert!(!saw(&mut file, bad("x"), now));
        assert!(!saw(&mut file, bad("y"), now + GRACE / 2));
        assert!(saw(&mut file, bad("y"), now + GRACE));
        assert_eq!(file.latest().state, corrupt("y"));
        assert!(healthy(&file));
        assert_eq!(file.latest().seen, now, "a bad file is not fresh");
        assert!(!saw(&mut file, bad("y"), now + 5 * GRACE));
        assert_eq!(file.due(), None);
    }

    #[test]
    fn trouble_that_turns_into_other_trouble_has_its_own_grace() {
        let now = Instant::now();
        let mut file = first(bad("x"), now);
        assert!(!saw(&mut file, bad("half of the repair"), now + GRACE));
        let look = good(None, r#"{"a": true}"#, 3);
        assert!(saw(&mut file, look, now + GRACE + MS));
        assert!(!saw(&mut file, Look::Missing, now + 3 * GRACE));
        assert!(saw(&mut file, Look::Missing, now + 4 * GRACE));
        assert_eq!(file.latest().state, FileState::Missing);
        assert!(healthy(&file));
    }

    #[test]
    fn a_file_that_returns_unwritten_is_ok_but_not_fresh() {
        let now = Instant::now();
        let mut file = opened(now);
        saw(&mut file, Look::Missing, now);
        assert!(saw(&mut file, Look::Missing, now + GRACE));
        let look = good(Some(&file), r#"{"a": true}"#, 0);
        assert!(saw(&mut file, look, now + 2 * GRACE));
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

    #[test]
    fn a_file_that_is_cut_or_damaged_leaves_the_old_report_or_is_read_in_full() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let old_text = br#"{"a": true, "b": {"healthy": true}}"#;
        let old = Report::parse(old_text).unwrap();
        let text = b"{\"a\": false, \"b\": {\"healthy\": false, \"state\": \"maint\"}}\n";
        let cuts = (0..text.len()).map(|end| text[..end].to_vec());
        let flips = (0..8 * text.len()).map(|bit| {
            let mut bytes = text.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        for bytes in cuts.chain(flips) {
            std::fs::write(&path, old_text).unwrap();
            let mut file = HealthFile::open(path.clone());
            std::fs::write(&path, &bytes).unwrap();
            let now = Instant::now();
            for at in [now, now + GRACE] {
                let found = look(&path, file.content().as_ref());
                saw_whole(&mut file, found, at);
            }
            let report = file.latest().report.as_deref();
            let said = String::from_utf8_lossy(&bytes);
            match Report::parse(&bytes) {
                Ok(new) => {
                    assert_eq!(report, Some(&new), "{said}");
                    assert_eq!(file.latest().state, FileState::Ok, "{said}");
                }
                Err(error) => {
                    assert_eq!(report, Some(&old), "{said}");
                    assert_eq!(file.latest().state, corrupt(&error.to_string()), "{said}");
                }
            }
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_not_believed() {
        use std::os::unix::fs::FileExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, " ".repeat(1 << 20)).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let file = OpenOptions::new().write(true).open(&path).unwrap();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    file.write_all_at(b" ", 0).unwrap();
                }
            });
            let start = Instant::now();
            let restless = loop {
                match read_regular(&path) {
                    Err(FileError::Restless(place)) => break Some(place),
                    _ if start.elapsed() > Duration::from_secs(10) => break None,
                    _ => {}
                }
            };
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            let stamp = Stamp::of(&std::fs::metadata(&path).unwrap());
            assert_eq!(restless, Some(stamp.place));
        });
        assert_eq!(read_regular(&path).unwrap().0.len(), 1 << 20);
    }

    #[test]
    fn a_file_that_may_not_be_read_is_corrupt() {
        use super::super::rerun;
        use std::os::unix::fs::PermissionsExt;
        let Some(folder) = rerun::folder() else {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("file");
            std::fs::write(&path, "{}").unwrap();
            let mode = std::fs::Permissions::from_mode;
            std::fs::set_permissions(directory.path(), mode(0o755)).unwrap();
            std::fs::set_permissions(&path, mode(0)).unwrap();
            rerun::as_nobody(
                "file::tests::a_file_that_may_not_be_read_is_corrupt",
                directory.path(),
            );
            return;
        };
        let file = HealthFile::open(folder.join("file"));
        let problem = "cannot be read: Permission denied (os error 13)";
        assert_eq!(file.latest().state, corrupt(problem));
    }
}
