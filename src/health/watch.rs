//! Looks at the health file whenever it may have changed, and publishes what is news.
//!
//! Events of the file system (inotify) come from the *directory* of the file, not the file: a
//! rename, a delete and recreate, or the swap of a link in the same directory (how Kubernetes
//! updates a ConfigMap) put another file in its place. A look each second covers the rest: file
//! systems without events, a directory that is missing or is recreated, a link whose target lies in
//! another directory.
//!
//! The events also say when a writer that works in place is done: see [`Heard`].

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::{debug, info, warn};

use super::file::{FileEvent, FileState, HealthFile, Sighting, look};

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
pub async fn watch(mut file: HealthFile, publish: watch::Sender<FileEvent>) {
    let signals = Arc::new(Signals::default());
    // Missing or bad from the start is news too; good is what everybody expects.
    if file.latest().state != FileState::Ok {
        log(file.path(), &FileState::Ok, file.latest());
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
            (directory, look(&path, last.as_ref()))
        });
        let look = match looked.await {
            Ok((back, look)) => {
                directory = back;
                look
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
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
            log(file.path(), &before, file.latest());
            publish.send_replace(file.latest().clone());
        }
    }
}

/// What the events tell the watch.
#[derive(Default)]
struct Signals {
    wake: Notify,
    heard: Mutex<Heard>,
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

fn log(path: &Path, before: &FileState, event: &FileEvent) {
    let path = path.display();
    match &event.state {
        state if state == before => debug!(%path, "health file written"),
        FileState::Ok => info!(%path, "health file is good"),
        FileState::Missing => warn!(%path, "health file is missing"),
        FileState::Corrupt { problem } => warn!(%path, %problem, "health file is corrupt"),
    }
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
                if concerns(&event, &name) {
                    signals.hear(writer(&event, &name));
                }
            }
            // It can mean that events were lost.
            Err(_) => signals.hear(None),
        }
    }
}

/// Whether this event can mean that the file has changed.
fn concerns(event: &Event, name: &OsStr) -> bool {
    match event.kind {
        // Another entry can be a link that ours goes through.
        EventKind::Create(_) | EventKind::Remove(_) => true,
        EventKind::Modify(ModifyKind::Name(_)) => true,
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use notify::event::{CreateKind, DataChange, Flag, MetadataKind, RemoveKind};
    use tempfile::TempDir;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::super::file::{GRACE, SETTLE};
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// More changes than looks without events could see before the deadline.
    const CHANGES: usize = 30;

    struct Watched {
        directory: TempDir,
        path: PathBuf,
        events: watch::Receiver<FileEvent>,
        task: JoinHandle<()>,
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    impl Watched {
        /// Watches `name` in a new directory that `prepare` has filled.
        fn start(name: &str, prepare: impl FnOnce(&Path)) -> Self {
            let directory = tempfile::tempdir().unwrap();
            prepare(directory.path());
            let path = directory.path().join(name);
            let file = HealthFile::open(path.clone());
            let (publish, events) = watch::channel(file.latest().clone());
            let task = tokio::spawn(watch(file, publish));
            Self {
                directory,
                path,
                events,
                task,
            }
        }

        /// Watches a file that says that `a` is healthy.
        fn good() -> Self {
            Self::start("health.json", |directory| {
                fs::write(directory.join("health.json"), says(true)).unwrap();
            })
        }

        async fn until(&mut self, what: impl Fn(&FileEvent) -> bool) -> FileEvent {
            let waited = timeout(DEADLINE, self.events.wait_for(|event| what(event))).await;
            waited
                .expect("no such event")
                .expect("the watch has ended")
                .clone()
        }

        async fn until_a_is(&mut self, healthy: bool) {
            self.until(|event| event.state == FileState::Ok && a(event) == Some(healthy))
                .await;
        }

        async fn until_corrupt(&mut self) -> FileEvent {
            self.until(|event| matches!(event.state, FileState::Corrupt { .. }))
                .await
        }

        async fn until_missing(&mut self) -> FileEvent {
            self.until(|event| event.state == FileState::Missing).await
        }

        /// Fails when the changes are seen by looking once a second only.
        async fn sees_at_once(&mut self, mut change: impl FnMut(&Path, bool)) {
            self.until(|event| event.report.is_some()).await;
            // What is next must differ from what is there.
            let mut healthy = a(&self.events.borrow()) == Some(true);
            let start = Instant::now();
            for _ in 0..CHANGES {
                healthy = !healthy;
                change(&self.path, healthy);
                self.until_a_is(healthy).await;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "{CHANGES} changes took {:?}",
                start.elapsed()
            );
        }
    }

    fn says(healthy: bool) -> String {
        format!("{{\n  \"a\": {healthy},\n  \"b\": true\n}}\n")
    }

    fn a(event: &FileEvent) -> Option<bool> {
        Some(event.report.as_ref()?.verdict("a")?.healthy)
    }

    fn rename(path: &Path, healthy: bool) {
        let temporary = path.with_extension("new");
        fs::write(&temporary, says(healthy)).unwrap();
        fs::rename(&temporary, path).unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sees_renames_at_once() {
        Watched::good().sees_at_once(rename).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sees_writes_in_place_at_once() {
        Watched::good()
            .sees_at_once(|path, healthy| fs::write(path, says(healthy)).unwrap())
            .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sees_deletes_and_recreates_at_once() {
        let recreate = |path: &Path, healthy| {
            fs::remove_file(path).unwrap();
            fs::write(path, says(healthy)).unwrap();
        };
        Watched::good().sees_at_once(recreate).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sees_the_swap_of_a_link_at_once() {
        let swap = |directory: &Path, healthy: bool| {
            let version = directory.join(format!("..{healthy}"));
            fs::create_dir_all(&version).unwrap();
            fs::write(version.join("health.json"), says(healthy)).unwrap();
            symlink(&version, directory.join("..new")).unwrap();
            fs::rename(directory.join("..new"), directory.join("..data")).unwrap();
        };
        let mut watched = Watched::start("health.json", |directory| {
            swap(directory, true);
            symlink("..data/health.json", directory.join("health.json")).unwrap();
        });
        watched
            .sees_at_once(|path, healthy| swap(path.parent().unwrap(), healthy))
            .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_same_content_written_anew_is_published() {
        let mut watched = Watched::good();
        let before = watched.events.borrow().clone();
        rename(&watched.path, true);
        let after = watched.until(|event| event.seen > before.seen).await;
        assert!(Arc::ptr_eq(&before.report.unwrap(), &after.report.unwrap()));
    }

    /// Overwrites the file a byte per millisecond, a hundred times, waiting until each is obeyed. Exactly
    /// one of two backends is healthy in every version, and half of a change would make it none or two.
    async fn writes_slowly(truncate: bool) {
        let one_of = [r#"{"a": true,"b":false}"#, r#"{"a":false,"b": true}"#];
        let mut watched = Watched::start("health.json", |directory| {
            fs::write(directory.join("health.json"), one_of[0]).unwrap();
        });
        let mut events = watched.events.clone();
        let seen = tokio::spawn(async move {
            let mut seen = Vec::new();
            while events.changed().await.is_ok() {
                seen.push((Instant::now(), events.borrow_and_update().clone()));
            }
            seen
        });
        let mut too_long = Vec::new();
        for round in 1..=100 {
            let path = watched.path.clone();
            let text = one_of[round % 2];
            let start = Instant::now();
            let writing = spawn_blocking(move || {
                let mut options = fs::OpenOptions::new();
                let file = options.write(true).truncate(truncate).open(path);
                let mut file = file.unwrap();
                for byte in text.bytes() {
                    io::Write::write_all(&mut file, &[byte]).unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            writing.await.unwrap();
            watched.until_a_is(round % 2 == 0).await;
            if start.elapsed() >= GRACE {
                too_long.push(start..Instant::now());
            }
        }
        watched.task.abort();
        for (at, event) in timeout(DEADLINE, seen).await.unwrap().unwrap() {
            let report = event.report.unwrap();
            let healthy = ["a", "b"].map(|name| report.verdict(name).unwrap().healthy);
            assert!(healthy[0] != healthy[1], "{report:?}");
            let may_be_bad = too_long.iter().any(|round| round.contains(&at));
            assert!(
                event.state == FileState::Ok || may_be_bad,
                "{:?}",
                event.state
            );
        }
        // On a machine that is busy elsewhere, some writes take longer than anyone means them to.
        assert!(too_long.len() < 50, "{} took too long", too_long.len());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_slow_write_is_never_a_wrong_report() {
        writes_slowly(true).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_slow_write_over_the_old_content_is_never_a_wrong_report() {
        writes_slowly(false).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_write_in_place_need_not_settle_when_its_writer_is_done() {
        let mut watched = Watched::good();
        let mut fastest = DEADLINE;
        for round in 0..CHANGES {
            // The watch has looked for the last time before the next change begins.
            tokio::time::sleep(2 * SETTLE).await;
            let start = Instant::now();
            fs::write(&watched.path, says(round % 2 == 1)).unwrap();
            watched.until_a_is(round % 2 == 1).await;
            fastest = fastest.min(start.elapsed());
        }
        assert!(fastest < SETTLE, "{fastest:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_write_in_place_that_no_event_tells_of_is_seen_by_the_next_look() {
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("target.json");
        fs::write(&target, says(true)).unwrap();
        let mut watched = Watched::start("health.json", |directory| {
            symlink(&target, directory.join("health.json")).unwrap();
        });
        fs::write(&target, says(false)).unwrap();
        watched.until_a_is(false).await;
        assert_eq!(watched.events.borrow().state, FileState::Ok);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_event_tells_when_it_was_noticed() {
        let mut watched = Watched::good();
        let mut by_event = 0;
        for round in 0..CHANGES {
            let start = Instant::now();
            rename(&watched.path, round % 2 == 1);
            watched.until_a_is(round % 2 == 1).await;
            let event = watched.events.borrow().clone();
            assert!(event.noticed <= event.seen);
            assert_eq!(event.age_when_seen, Duration::ZERO);
            // A look that began before the rename may find it, too.
            by_event += usize::from(start <= event.noticed);
        }
        assert!(by_event > CHANGES / 2, "{by_event}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_lasting_bad_file_is_corrupt_and_the_report_stays() {
        let mut watched = Watched::good();
        let start = Instant::now();
        fs::write(&watched.path, "{\n\"a\": fals").unwrap();
        let event = watched.until_corrupt().await;
        assert!(start.elapsed() >= GRACE);
        let problem = "line 2, column 9: not JSON: EOF while parsing a value".into();
        assert_eq!(event.state, FileState::Corrupt { problem });
        assert_eq!(a(&event), Some(true));
        fs::write(&watched.path, says(false)).unwrap();
        watched.until_a_is(false).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_file_that_is_gone_is_missing_and_the_report_stays() {
        let mut watched = Watched::good();
        let start = Instant::now();
        fs::remove_file(&watched.path).unwrap();
        let event = watched.until_missing().await;
        assert!(start.elapsed() >= GRACE);
        assert_eq!(a(&event), Some(true));
        fs::write(&watched.path, says(false)).unwrap();
        watched.until_a_is(false).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_no_file_is_corrupt_and_the_report_stays() {
        type Put = fn(&Path);
        let fifo: Put = |path| {
            let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
        };
        let table: [(Put, &str); 6] = [
            (fifo, "not a regular file"),
            (|path| fs::create_dir(path).unwrap(), "not a regular file"),
            (
                |path| symlink("/dev/zero", path).unwrap(),
                "not a regular file",
            ),
            (|path| symlink("/", path).unwrap(), "not a regular file"),
            (
                |path| symlink(path, path).unwrap(),
                "cannot be read: Too many levels of symbolic links (os error 40)",
            ),
            (
                |path| fs::File::create(path).unwrap().set_len(20 << 20).unwrap(),
                "longer than 16777216 bytes",
            ),
        ];
        let mut watched = Watched::good();
        for (round, (put, problem)) in table.into_iter().enumerate() {
            let healthy = round % 2 == 0;
            watched.until_a_is(healthy).await;
            fs::remove_file(&watched.path).unwrap();
            put(&watched.path);
            let event = watched.until_corrupt().await;
            let problem = problem.into();
            assert_eq!(event.state, FileState::Corrupt { problem });
            assert_eq!(a(&event), Some(healthy));
            let _ = fs::remove_dir(&watched.path);
            rename(&watched.path, !healthy);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_directory_that_comes_later_is_watched() {
        let mut watched = Watched::start("below/health.json", |_| {});
        assert_eq!(watched.events.borrow().state, FileState::Missing);
        fs::create_dir(watched.directory.path().join("below")).unwrap();
        rename(&watched.path, true);
        watched.until_a_is(true).await;
        watched.sees_at_once(rename).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_directory_that_is_deleted_and_recreated_is_watched_again() {
        let mut watched = Watched::start("below/health.json", |directory| {
            fs::create_dir(directory.join("below")).unwrap();
            fs::write(directory.join("below/health.json"), says(true)).unwrap();
        });
        watched.sees_at_once(rename).await;
        let below = watched.directory.path().join("below");
        fs::remove_dir_all(&below).unwrap();
        assert!(watched.until_missing().await.report.is_some());
        fs::create_dir(&below).unwrap();
        rename(&watched.path, false);
        watched.until_a_is(false).await;
        watched.sees_at_once(rename).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn ends_when_nobody_listens() {
        let file = HealthFile::open("/nowhere/health.json".into());
        let (publish, events) = watch::channel(file.latest().clone());
        let task = tokio::spawn(watch(file, publish));
        drop(events);
        timeout(DEADLINE, task).await.unwrap().unwrap();
    }

    #[test]
    fn our_own_looks_and_other_files_do_not_wake_the_watch() {
        let ours = |kind| Event::new(kind).add_path("/d/health.json".into());
        let other = |kind| Event::new(kind).add_path("/d/access.log".into());
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let closed = |mode| EventKind::Access(AccessKind::Close(mode));
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let created = EventKind::Create(CreateKind::File);
        let removed = EventKind::Remove(RemoveKind::File);
        let table = [
            (ours(opened), false),
            (ours(closed(AccessMode::Read)), false),
            (ours(closed(AccessMode::Write)), true),
            (ours(data), true),
            (other(closed(AccessMode::Write)), false),
            (other(data), false),
            (other(renamed), true),
            (other(created), true),
            (other(removed), true),
            (Event::new(EventKind::Other).set_flag(Flag::Rescan), true),
        ];
        for (event, expected) in table {
            assert_eq!(
                concerns(&event, OsStr::new("health.json")),
                expected,
                "{event:?}"
            );
        }
    }

    #[test]
    fn who_closes_the_file_or_renames_one_into_place_is_done() {
        let name = OsStr::new("health.json");
        let ours = |kind| writer(&Event::new(kind).add_path("/d/health.json".into()), name);
        let other = |kind| writer(&Event::new(kind).add_path("/d/health.new".into()), name);
        let closed = |mode| EventKind::Access(AccessKind::Close(mode));
        let renamed = |mode| EventKind::Modify(ModifyKind::Name(mode));
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let mode = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        assert_eq!(ours(closed(AccessMode::Write)), Some(FileWriter::Done));
        assert_eq!(ours(renamed(RenameMode::To)), Some(FileWriter::Done));
        assert_eq!(ours(data), Some(FileWriter::Busy));
        for kind in [
            closed(AccessMode::Read),
            renamed(RenameMode::From),
            mode,
            EventKind::Create(CreateKind::File),
        ] {
            assert_eq!(ours(kind), None, "{kind:?}");
        }
        for kind in [closed(AccessMode::Write), renamed(RenameMode::To), data] {
            assert_eq!(other(kind), None, "{kind:?}");
        }
    }

    #[test]
    fn the_last_that_was_heard_of_a_writer_counts() {
        let signals = Signals::default();
        assert!(signals.is_quiet());
        signals.hear(Some(FileWriter::Busy));
        let first = signals.heard.lock().first;
        signals.hear(Some(FileWriter::Done));
        signals.hear(None);
        assert!(!signals.is_quiet());
        let heard = std::mem::take(&mut *signals.heard.lock());
        assert_eq!(heard.writer, Some(FileWriter::Done));
        assert_eq!(heard.first, first, "the one that woke the look");
        signals.hear(None);
        assert!(signals.is_quiet(), "nobody has written");
    }
}
