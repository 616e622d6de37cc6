//! The rules of [`HealthFile`], with a clock of ours and looks that never touched a disk.

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
