//! Looks at the health file whenever it may have changed, and publishes what is news.
//!
//! Events of the file system (inotify) come from the *directory* of the file, not the file: a
//! rename, a delete and recreate, or the swap of a link in the same directory (how Kubernetes
//! updates a ConfigMap) put another file in its place. What happens to other names there matters only
//! while ours is a link: each look reads the whole file. A look each second covers the rest: file
//! systems without events, a directory that is missing or is recreated, a link whose target lies in
//! another directory.
//!
//! The events also say when a writer that works in place is done: see [`Heard`].

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::{debug, warn};

use super::file::{FileEvent, FileState, HealthFile, Look, Sighting, look};
use crate::events::{Event as Change, Events};

/// How often to look without being told to.
const FALLBACK: Duration = Duration::from_secs(1);

/// Watches the file and publishes each change of [`HealthFile::latest`], until nobody listens any
/// more. Nothing is published for the state that `file` was opened with.
///
/// All file I/O is done on threads for blocking work, so that a file system that hangs does not hold
/// up requests.
///
/// # Cancel safety
///
/// May be dropped at any time; what was published stays.
pub async fn watch(mut file: HealthFile, publish: watch::Sender<FileEvent>, changes: Events) {
    let signals = Arc::new(Signals::default());
    // Missing or bad from the start is news too; good is what everybody expects.
    if file.latest().state != FileState::Ok {
        tell(&changes, file.path(), &FileState::Ok, file.latest());
    }
    let mut directory = DirectoryWatch::new(file.path(), signals.clone());
    let mut fallback = interval(FALLBACK);
    fallback.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // The first tick comes at once: it sets up the events, and then looks for what changed
        // since the file was opened.
        let rearm = tokio::select! {
            () = publish.closed() => return,
            () = signals.wake.notified() => false,
            _ = fallback.tick() => true,
            () = due(&file) => false,
        };
        let heard = std::mem::take(&mut *signals.heard.lock());
        let began = Instant::now();
        let (path, last) = (file.path().to_owned(), file.content());
        let looked = spawn_blocking(move || {
            if rearm {
                directory.arm();
            }
            directory.note_link();
            (directory, look(&path, last.as_ref()))
        });
        let look = match looked.await {
            Ok((back, look)) => {
                directory = back;
                look
            }
            // A defect of ours. To end here would mean to go on by an old report for ever.
            Err(error) if error.is_panic() => {
                directory = DirectoryWatch::new(file.path(), signals.clone());
                Look::Corrupt {
                    problem: "the look at it failed".to_owned(),
                    place: None,
                }
            }
            // The runtime is shutting down.
            Err(_) => return,
        };
        // What was heard before the look vouches for nothing that was written during it.
        let is_whole = heard.writer == Some(FileWriter::Done) && signals.is_quiet();
        let sighting = Sighting {
            look,
            began,
            noticed: heard.first.unwrap_or(began),
            is_whole,
        };
        let before = file.latest().state.clone();
        if file.observe(sighting, Instant::now()) {
            tell(&changes, file.path(), &before, file.latest());
            publish.send_replace(file.latest().clone());
        }
    }
}

/// What the events tell the watch.
#[derive(Default)]
struct Signals {
    wake: Notify,
    heard: Mutex<Heard>,
    /// Whether the file was a symbolic link at the last look, which may go through other names.
    is_link: AtomicBool,
}

/// What was heard since the last look began.
#[derive(Default)]
struct Heard {
    /// When the first event came.
    first: Option<Instant>,
    /// The last thing that whoever writes the file did, if he did anything.
    writer: Option<FileWriter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileWriter {
    /// He has written in place.
    Busy,
    /// He has closed the file, or put a whole one in its place.
    Done,
}

impl Signals {
    /// Never blocks for long: `Notify` keeps one wake-up however many events come, so that a burst
    /// costs one look after the one under way.
    fn hear(&self, writer: Option<FileWriter>) {
        let mut heard = self.heard.lock();
        heard.first.get_or_insert_with(Instant::now);
        heard.writer = writer.or(heard.writer);
        drop(heard);
        self.wake.notify_one();
    }

    /// Whether nobody was heard to write since the last look began.
    fn is_quiet(&self) -> bool {
        self.heard.lock().writer.is_none()
    }
}

async fn due(file: &HealthFile) {
    match file.due() {
        Some(instant) => sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

fn tell(changes: &Events, path: &Path, before: &FileState, event: &FileEvent) {
    let path = path.display().to_string();
    changes.publish(match &event.state {
        state if state == before => return debug!(%path, "health file written"),
        FileState::Ok => Change::ReportGood { path },
        FileState::Missing => Change::ReportMissing { path },
        FileState::Corrupt { problem } => Change::ReportCorrupt {
            path,
            problem: problem.clone(),
        },
    });
}

/// The events of one directory, as far as there are any.
struct DirectoryWatch {
    directory: PathBuf,
    name: OsString,
    signals: Arc<Signals>,
    watcher: Option<RecommendedWatcher>,
    complained: bool,
}

impl DirectoryWatch {
    fn new(file: &Path, signals: Arc<Signals>) -> Self {
        let parent = match file.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        Self {
            directory: parent.to_owned(),
            name: file.file_name().unwrap_or_default().to_owned(),
            signals,
            watcher: None,
            complained: false,
        }
    }

    /// Asks for the events of the directory that is at the path *now*. To ask again for the same
    /// directory changes nothing, so nobody need find out whether it is the same: its inode cannot
    /// tell, because file systems reuse the number.
    fn arm(&mut self) {
        match self.try_arm() {
            Ok(()) => self.complained = false,
            // The state of the file says this already.
            Err(error) if is_missing(&error) => {}
            Err(error) if self.complained => debug!(%error, "still no file events"),
            Err(error) => {
                self.complained = true;
                let directory = self.directory.display();
                warn!(%directory, %error, "no file events, looking once a second");
            }
        }
    }

    /// If it is a link from now on, an event of its own name says so.
    fn note_link(&self) {
        let is_link = self.directory.join(&self.name).is_symlink();
        self.signals.is_link.store(is_link, Ordering::Relaxed);
    }

    fn try_arm(&mut self) -> notify::Result<()> {
        let mut watcher = match self.watcher.take() {
            Some(watcher) => watcher,
            None => notify::recommended_watcher(self.listener())?,
        };
        let result = watcher.watch(&self.directory, RecursiveMode::NonRecursive);
        self.watcher = Some(watcher);
        result
    }

    fn listener(&self) -> impl FnMut(notify::Result<Event>) + Send + 'static {
        let (signals, name) = (self.signals.clone(), self.name.clone());
        move |event| match event {
            Ok(event) => {
                if concerns(&event, &name, signals.is_link.load(Ordering::Relaxed)) {
                    signals.hear(writer(&event, &name));
                }
            }
            // It can mean that events were lost.
            Err(_) => signals.hear(None),
        }
    }
}

/// Whether this event can mean that the file has changed.
fn concerns(event: &Event, name: &OsStr, is_link: bool) -> bool {
    match event.kind {
        // Another entry can be a link that ours goes through.
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
            is_link || names(event, name)
        }
        EventKind::Modify(_) => names(event, name),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => names(event, name),
        // Our own looks open and close the file: to wake for those would never end.
        EventKind::Access(_) => false,
        // Events were dropped (an overflow), or of a kind to come.
        EventKind::Any | EventKind::Other => true,
    }
}

/// What this event says about whoever writes the file.
fn writer(event: &Event, name: &OsStr) -> Option<FileWriter> {
    let writer = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => FileWriter::Done,
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => FileWriter::Done,
        EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Metadata(_)) => return None,
        EventKind::Modify(_) => FileWriter::Busy,
        _ => return None,
    };
    names(event, name).then_some(writer)
}

fn names(event: &Event, name: &OsStr) -> bool {
    let mut paths = event.paths.iter();
    paths.any(|path| path.file_name() == Some(name))
}

fn is_missing(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}
