//! The watch over real files: what it sees at once, what it must not believe, what must not wake it.

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
        let task = tokio::spawn(watch(file, publish, Events::default()));
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

/// Overwrites the file a byte per millisecond until that was done a hundred times in no longer than anyone means
/// to take for it (on a machine that is busy elsewhere, some take longer), waiting until each is obeyed. Exactly
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
    let (mut in_time, mut too_long) = (0, Vec::new());
    for round in 1.. {
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
        } else {
            in_time += 1;
        }
        if in_time == 100 {
            break;
        }
        assert!(too_long.len() < 1000, "{in_time} in time");
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
    let task = tokio::spawn(watch(file, publish, Events::default()));
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
    // Whether it wakes the watch of a file, and of a link.
    let table = [
        (ours(opened), [false, false]),
        (ours(closed(AccessMode::Read)), [false, false]),
        (ours(closed(AccessMode::Write)), [true, true]),
        (ours(data), [true, true]),
        (ours(renamed), [true, true]),
        (ours(created), [true, true]),
        (ours(removed), [true, true]),
        (other(closed(AccessMode::Write)), [false, false]),
        (other(data), [false, false]),
        (other(renamed), [false, true]),
        (other(created), [false, true]),
        (other(removed), [false, true]),
        (
            Event::new(EventKind::Other).set_flag(Flag::Rescan),
            [true, true],
        ),
    ];
    for (event, expected) in table {
        let wakes =
            [false, true].map(|is_link| concerns(&event, OsStr::new("health.json"), is_link));
        assert_eq!(wakes, expected, "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_becomes_a_link_is_watched_as_one() {
    let mut watched = Watched::good();
    watched.sees_at_once(rename).await;
    let swap = |directory: &Path, healthy: bool| {
        fs::write(directory.join(format!("{healthy}")), says(healthy)).unwrap();
        symlink(format!("{healthy}"), directory.join("new")).unwrap();
        fs::rename(directory.join("new"), directory.join("current")).unwrap();
    };
    let directory = watched.directory.path();
    swap(directory, true);
    symlink("current", directory.join("link")).unwrap();
    fs::rename(directory.join("link"), &watched.path).unwrap();
    watched.until_a_is(true).await;
    watched
        .sees_at_once(|path, healthy| swap(path.parent().unwrap(), healthy))
        .await;
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
