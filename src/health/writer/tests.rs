//! The writer as a whole: what stands in the file and beside it after each write, and after none.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

use super::super::json::Json;
use super::super::report::Report;
use super::super::rerun;
use super::entries::*;
use super::storage::*;
use super::*;

const NAME: &str = "health_status.json";
const SPOILT: &str = ".health_status.json.spoilt";
const LOCK: &str = ".health_status.json.lock";
const TEMPORARY: &str = ".health_status.json.tmp";

fn file_with(text: &str) -> (TempDir, PathBuf) {
    let directory = tempdir().unwrap();
    let path = directory.path().join(NAME);
    fs::write(&path, text).unwrap();
    (directory, path)
}

fn names_in(directory: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

fn judged<'a>(verdicts: &[(&'a str, bool)]) -> Vec<Judged<'a>> {
    let one = |(name, healthy): &(&'a str, bool)| Judged {
        name,
        healthy: *healthy,
        verdict: "word",
        reason: "why",
    };
    verdicts.iter().map(one).collect()
}

/// A writer with the lock that waits for nobody.
fn opened(path: &Path) -> Result<Writer, LockError> {
    let mut writer = Writer::new(path.to_owned());
    writer.patience = Patience {
        busy: Duration::ZERO,
        spoilt: Duration::ZERO,
    };
    writer.hold().map(|()| writer)
}

fn write(path: &Path, verdicts: &[(&str, bool)]) -> Result<(), WriteError> {
    opened(path).unwrap().write(judged(verdicts), false)
}

fn io_kind(error: WriteError) -> ErrorKind {
    match error {
        WriteError::Io { source, .. } => source.kind(),
        other => panic!("{other:?}"),
    }
}

/// What the file says after `verdicts` were written over `text`, without blanks.
fn compact(text: &str, verdicts: &[(&str, bool)], detail: bool) -> String {
    let (_directory, path) = file_with(text);
    let mut writer = opened(&path).unwrap();
    writer.write(judged(verdicts), detail).unwrap();
    let text = fs::read_to_string(path).unwrap();
    text.split_whitespace().collect()
}

#[test]
fn a_new_file_is_pretty_and_in_the_given_order() {
    let directory = tempdir().unwrap();
    let path = directory.path().join(NAME);
    write(&path, &[("server2", true), ("server1", false)]).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, "{\n  \"server2\": true,\n  \"server1\": false\n}\n");
    assert_eq!(names_in(directory.path()), [LOCK, NAME]);
}

#[test]
fn the_tracked_file_stays_byte_for_byte() {
    let tracked = include_str!("../../../health_status.json");
    let (_directory, path) = file_with(tracked);
    let verdicts = [("server1", true), ("server2", true), ("server3", true)];
    write(&path, &verdicts).unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), tracked);
}

#[test]
fn what_is_not_ours_stays_where_it_is() {
    let before = r#"{"x": {"healthy": true, "z": 1, "a": [1.5, null]}, "b": true, "y": false}"#;
    let after = compact(before, &[("a", true), ("b", false)], false);
    let expected = r#"{"x":{"healthy":true,"z":1,"a":[1.5,null]},"b":false,"y":false,"a":true}"#;
    assert_eq!(after, expected);
}

#[test]
fn an_object_keeps_all_but_verdict_and_reason() {
    let before = r#"{"a": {"reason": "200", "state": "drain", "healthy": true, "weight": 3}, "b": {"w": 2}}"#;
    let verdicts = [("a", false), ("b", true)];
    let expected =
        r#"{"a":{"state":"drain","healthy":false,"weight":3},"b":{"healthy":true,"w":2}}"#;
    assert_eq!(compact(before, &verdicts, false), expected);
    let expected = r#"{"a":{"state":"drain","healthy":false,"verdict":"word","reason":"why","weight":3},"b":{"healthy":true,"verdict":"word","reason":"why","w":2}}"#;
    assert_eq!(compact(before, &verdicts, true), expected);
}

#[test]
fn with_detail_what_was_judged_becomes_an_object() {
    let before = r#"{"a": true, "x": false, "b": true}"#;
    let after = compact(before, &[("a", false), ("b", true), ("c", true)], true);
    let expected = r#"{"a":{"healthy":false,"verdict":"word","reason":"why"},"x":false,"b":{"healthy":true,"verdict":"word","reason":"why"},"c":{"healthy":true,"verdict":"word","reason":"why"}}"#;
    assert_eq!(after, expected);
}

#[test]
fn a_file_that_cannot_be_parsed_is_replaced_whole() {
    for text in ["", "{\"a\": tr", "[1]", "{\"a\": 1} x"] {
        assert_eq!(
            compact(text, &[("a", true)], false),
            r#"{"a":true}"#,
            "{text}"
        );
    }
}

#[test]
fn a_file_that_is_spoilt_between_two_rounds_loses_nothing() {
    let (_directory, path) = file_with(r#"{"a": {"healthy": true, "state": "drain"}, "x": true}"#);
    let mut writer = opened(&path).unwrap();
    writer.write(judged(&[("a", true)]), false).unwrap();
    fs::write(&path, "{\"a\": {").unwrap();
    writer.write(judged(&[("a", false)]), false).unwrap();
    let text: String = fs::read_to_string(&path)
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(text, r#"{"a":{"healthy":false,"state":"drain"},"x":true}"#);
    // But what somebody deletes is gone.
    fs::remove_file(&path).unwrap();
    writer.write(judged(&[("a", false)]), false).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\n  \"a\": false\n}\n");
}

/// Longer than a test that is not to wait takes, shorter than anyone wants to wait for.
const BUSY: Duration = Duration::from_millis(300);
const SPOILT_LONG: Duration = Duration::from_millis(2400);

fn patient(path: &Path) -> Writer {
    let mut writer = opened(path).unwrap();
    writer.patience = Patience {
        busy: BUSY,
        spoilt: SPOILT_LONG,
    };
    writer
}

/// Writes `a`, and says for how long that was refused and by what kind of error.
fn waits(writer: &mut Writer, healthy: bool) -> (Duration, Vec<&'static str>) {
    let (start, mut why) = (Instant::now(), Vec::new());
    loop {
        let error = match writer.write(judged(&[("a", healthy)]), false) {
            Ok(()) => return (start.elapsed(), why),
            Err(error) => error,
        };
        why.push(match error {
            WriteError::Busy { .. } => "busy",
            WriteError::Spoilt { .. } => "spoilt",
            error => panic!("{error}"),
        });
        assert!(start.elapsed() < Duration::from_secs(20));
        thread::sleep(error.wait().unwrap());
    }
}

fn report_at(path: &Path) -> Report {
    Report::parse(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn what_somebody_else_has_just_changed_is_left_alone_for_a_moment() {
    let (_directory, path) = file_with("{}");
    // However long it takes from here to the first look, the file was changed just then.
    let soon = SystemTime::now() + Duration::from_secs(3600);
    File::open(&path).unwrap().set_modified(soon).unwrap();
    let mut writer = patient(&path);
    let (took, why) = waits(&mut writer, true);
    assert!(took >= BUSY && why[0] == "busy", "{took:?} {why:?}");
    // Our own writing is nobody else's.
    assert_eq!(waits(&mut writer, false).1, [""; 0]);
    let changes: [fn(&Path); 4] = [
        |path| fs::write(path, r#"{"x": true}"#).unwrap(),
        |path| fs::rename(path.with_extension("new"), path).unwrap(),
        |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap(),
        |path| fs::remove_file(path).unwrap(),
    ];
    for change in changes {
        fs::write(path.with_extension("new"), r#"{"x": true}"#).unwrap();
        change(&path);
        let (took, why) = waits(&mut writer, true);
        assert!(took >= BUSY && why == ["busy"], "{took:?} {why:?}");
        assert_eq!(waits(&mut writer, false).1, [""; 0]);
    }
}

#[test]
fn a_slow_writer_is_waited_for() {
    let (_directory, path) = file_with("{}");
    let mut writer = opened(&path).unwrap();
    writer.write(judged(&[("a", true)]), false).unwrap();
    // It writes for longer than that, and no pause of it is nearly as long.
    writer.patience = Patience {
        busy: Duration::from_secs(2),
        spoilt: Duration::from_secs(6),
    };
    let text = r#"{"a": {"healthy": true, "state": "drain"}, "x": true}"#;
    let mut file = File::create(&path).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for byte in text.bytes() {
                io::Write::write_all(&mut file, &[byte]).unwrap();
                thread::sleep(Duration::from_millis(50));
            }
        });
        let (_, why) = waits(&mut writer, false);
        assert!(why.len() > 1 && !why.contains(&"spoilt"), "{why:?}");
    });
    let report = report_at(&path);
    let a = report.verdict("a").unwrap();
    assert_eq!((a.healthy, a.state), (false, report::State::Drain));
    assert!(report.verdict("x").is_some());
}

#[test]
fn a_change_while_we_write_is_found_before_it_is_lost() {
    let (directory, path) = file_with("{}");
    let mut writer = patient(&path);
    waits(&mut writer, true);
    let meanwhile = |_: &Judged| fs::write(&path, r#"{"x": true}"#).unwrap();
    let verdicts = judged(&[("a", true)]).into_iter().inspect(meanwhile);
    let error = writer.write(verdicts, false).unwrap_err();
    assert!(matches!(error, WriteError::Busy { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"x": true}"#);
    assert_eq!(names_in(directory.path()), [LOCK, NAME]);
}

#[test]
fn a_spoilt_file_is_replaced_when_that_has_lasted_and_kept_beside() {
    let (directory, path) = file_with(r#"{"a": {"healthy": true, "state": "drain"}, "x": true}"#);
    let mut writer = patient(&path);
    // Seen, never written.
    writer.look();
    let spoilt = "{\"a\": {\"heal";
    fs::write(&path, spoilt).unwrap();
    let (took, why) = waits(&mut writer, false);
    assert!(took >= SPOILT_LONG, "{took:?}");
    assert_eq!(why, ["busy", "spoilt"]);
    let text: String = fs::read_to_string(&path).unwrap();
    let text: String = text.split_whitespace().collect();
    assert_eq!(text, r#"{"a":{"healthy":false,"state":"drain"},"x":true}"#);
    assert_eq!(names_in(directory.path()), [LOCK, SPOILT, NAME]);
    let copy = directory.path().join(SPOILT);
    assert_eq!(fs::read_to_string(&copy).unwrap(), spoilt);
    // The next one overwrites it.
    writer.patience.spoilt = BUSY;
    fs::write(&path, "").unwrap();
    waits(&mut writer, false);
    assert_eq!(fs::read_to_string(&copy).unwrap(), "");
}

#[test]
fn a_spoilt_file_of_which_nothing_is_known_is_left_alone_as_long() {
    let (_directory, path) = file_with("{\"a\": {\"heal");
    let old = SystemTime::now() - Duration::from_secs(3600);
    File::open(&path).unwrap().set_modified(old).unwrap();
    let mut writer = patient(&path);
    let (took, why) = waits(&mut writer, false);
    assert!(took >= SPOILT_LONG - BUSY, "{took:?}");
    assert_eq!(why.last(), Some(&"spoilt"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\n  \"a\": false\n}\n");
}

#[test]
fn what_no_reader_accepts_is_dropped_and_kept_beside() {
    let long = "x".repeat(257);
    let table = [
        (
            r#"{"a": {"healthy": true, "weight": 0, "state": "drain"}}"#,
            r#"{"a":{"healthy":false,"state":"drain"}}"#,
        ),
        (
            r#"{"a": {"healthy": 1, "state": "down", "w": 2}}"#,
            r#"{"a":{"healthy":false,"w":2}}"#,
        ),
        (
            r#"{"x": {"state": "drain"}}"#,
            r#"{"x":{"healthy":false,"state":"drain"},"a":false}"#,
        ),
        (r#"{"x": 1, "y": null, "a": "no"}"#, r#"{"a":false}"#),
        (
            r#"{"a": {"healthy": true, "weight": 2, "weight": 3}}"#,
            r#"{"a":{"healthy":false,"weight":2}}"#,
        ),
        (
            r#"{"a": {"healthy": true, "max_in_flight": "1", "state": "maint"}}"#,
            r#"{"a":{"healthy":true,"state":"maint"}}"#,
        ),
        (
            r#"{"a": {"state": "maint"}}"#,
            r#"{"a":{"healthy":false,"state":"maint"}}"#,
        ),
        (&format!("{{\"{long}\": true}}"), r#"{"a":false}"#),
    ];
    for (before, after) in table {
        let (directory, path) = file_with(before);
        assert!(Report::parse(before.as_bytes()).is_err(), "{before}");
        write(&path, &[("a", false)]).unwrap();
        report_at(&path);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.split_whitespace().collect::<String>(), after);
        let copy = fs::read_to_string(directory.path().join(SPOILT)).unwrap();
        assert_eq!(copy, before);
    }
}

#[test]
fn what_was_dropped_is_named() {
    let text = br#"{"a": {"healthy": 1, "weight": 0}, "b": [], "a": true, "c": {"weight": 1}, "d": {"healthy": true}}"#;
    let (_, dropped) = mend(report::entries(text).unwrap());
    assert_eq!(
        dropped,
        [
            r#""a".healthy"#,
            r#""a".weight"#,
            r#""b""#,
            r#""a""#,
            r#""c".healthy"#
        ]
    );
}

#[test]
fn what_no_reader_would_take_for_its_length_is_not_written() {
    let object = format!(
        "{{\"x\":{{\"healthy\":true,\"y\":[{}1]}}}}",
        "1,".repeat(6 << 20)
    );
    let (_directory, path) = file_with(&object);
    let error = write(&path, &[("a", true)]).unwrap_err();
    assert_eq!(io_kind(error), ErrorKind::FileTooLarge);
    assert!(fs::read_to_string(&path).unwrap() == object);
}

#[test]
fn a_lock_that_was_taken_away_keeps_its_writer_from_writing() {
    let takes_away: [fn(&Path); 2] = [
        |folder| fs::remove_file(folder.join(LOCK)).unwrap(),
        |folder| {
            fs::rename(folder, folder.with_extension("old")).unwrap();
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(NAME), "{}").unwrap();
        },
    ];
    for take_away in takes_away {
        let directory = tempdir().unwrap();
        let folder = directory.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let path = folder.join(NAME);
        fs::write(&path, "{}").unwrap();
        let mut first = opened(&path).unwrap();
        first.write(judged(&[("a", true)]), false).unwrap();
        take_away(&folder);
        let mut second = opened(&path).unwrap();
        second.write(judged(&[("b", true)]), false).unwrap();
        let before = fs::read(&path).unwrap();
        for _ in 0..2 {
            match first.write(judged(&[("a", false)]), false) {
                Err(WriteError::Lock(LockError::Taken { .. })) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(fs::read(&path).unwrap(), before);
        drop(second);
        first.write(judged(&[("a", false)]), false).unwrap();
        assert!(report_at(&path).names().any(|name| name == "a"));
        assert!(opened(&path).is_err(), "it is the writer again");
    }
}

#[test]
fn a_link_that_leads_nowhere_yet_stays_a_link() {
    let directory = tempdir().unwrap();
    let folder = directory.path();
    fs::create_dir(folder.join("below")).unwrap();
    symlink("below/other", folder.join(NAME)).unwrap();
    symlink("real.json", folder.join("below/other")).unwrap();
    write(&folder.join(NAME), &[("a", true)]).unwrap();
    assert!(folder.join(NAME).is_symlink() && folder.join("below/other").is_symlink());
    report_at(&folder.join("below/real.json"));
    assert_eq!(names_in(folder), ["below", NAME].map(OsString::from));
    // Nor does a loop of them become a file.
    let looped = folder.join("loop");
    symlink(&looped, &looped).unwrap();
    assert!(write(&looped, &[("a", true)]).is_err());
    assert!(looped.is_symlink());
}

#[test]
fn a_key_that_is_there_twice_is_there_once_after() {
    let before = r#"{"a": true, "x": true, "a": true, "x": false}"#;
    assert_eq!(
        compact(before, &[("a", false)], false),
        r#"{"a":false,"x":true}"#
    );
    let before = r#"{"a": {"healthy": true, "w": 1, "healthy": true}}"#;
    let expected = r#"{"a":{"healthy":false,"w":1}}"#;
    assert_eq!(compact(before, &[("a", false)], false), expected);
}

#[test]
fn mode_and_link_stay() {
    let (directory, path) = file_with("{}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    write(&link, &[("a", true)]).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\n  \"a\": true\n}\n");
    assert_eq!(names_in(directory.path()), [LOCK, NAME, "link"]);
}

#[test]
fn nothing_that_lies_at_the_temporary_name_is_followed() {
    let (directory, path) = file_with("{}");
    let victim = directory.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, directory.path().join(TEMPORARY)).unwrap();
    write(&path, &[("a", true)]).unwrap();
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    assert_eq!(names_in(directory.path()), [LOCK, NAME, "victim"]);
}

#[test]
fn a_file_has_one_writer() {
    let (directory, path) = file_with("{}");
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    let writer = opened(&path).unwrap();
    for name in [&path, &link] {
        match opened(name) {
            Err(LockError::Taken { path, process }) => {
                assert_eq!((&path, process), (name, Some(process::id())));
            }
            other => panic!("{other:?}"),
        }
    }
    let text = fs::read_to_string(directory.path().join(LOCK)).unwrap();
    assert_eq!(text, format!("{}\n", process::id()));
    drop(writer);
    opened(&path).unwrap();
    assert!(directory.path().join(LOCK).exists());
}

#[test]
fn says_who_has_the_lock_and_which_cannot_be_tried() {
    let (directory, path) = file_with("{}");
    let _writer = opened(&path).unwrap();
    let error = opened(&path).unwrap_err().to_string();
    let id = process::id();
    let expected = format!(
        "{} is written by another poller, process {id}",
        path.display()
    );
    assert_eq!(error, expected);
    match opened(&directory.path().join("nowhere").join(NAME)) {
        Err(LockError::Io { path, source }) => {
            assert!(path.ends_with(Path::new("nowhere").join(LOCK)));
            assert_eq!(source.kind(), ErrorKind::NotFound);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn writes_in_place_where_a_rename_is_impossible() {
    let kinds = [
        ErrorKind::ResourceBusy,
        ErrorKind::CrossesDevices,
        ErrorKind::PermissionDenied,
        ErrorKind::ReadOnlyFilesystem,
    ];
    let long = r#"{"long": true, "x": {"healthy": true, "y": 1},                     "z": true}"#;
    for (kind, before) in kinds.into_iter().zip([long, "{}", long, "{}"]) {
        let (directory, path) = file_with(before);
        let inode = fs::metadata(&path).unwrap().ino();
        let mut writer = opened(&path).unwrap();
        let fails = |_: &Path, _: &Path| Err(kind.into());
        writer
            .write_by(judged(&[("long", false)]), false, fails)
            .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        let (_other, beside) = file_with(before);
        write(&beside, &[("long", false)]).unwrap();
        let texts = [&path, &beside].map(|path| fs::read_to_string(path).unwrap());
        assert_eq!(texts[0], texts[1], "as a rename would have written");
        assert_eq!(names_in(directory.path()), [LOCK, NAME]);
    }
}

#[test]
fn a_file_without_end_can_be_written_in_place() {
    let (_directory, path) = file_with("");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    write_in_place(&path, b"{}\n").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"{}\n");
}

#[test]
fn a_file_that_is_written_in_place_is_never_empty_or_shorter() {
    let (_directory, path) = file_with("{}");
    let texts = ["x", &"x".repeat(1_000)].map(|reason| {
        let text = format!("{{\"a\": {{\"healthy\": true, \"reason\": \"{reason}\"}}}}\n");
        fs::write(&path, &text).unwrap();
        text
    });
    let done = AtomicBool::new(false);
    let reads = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                // At one stroke, too. The kernel may still mix old and new within it (seen once
                // or twice in 100,000 reads on ext4): nothing but a rename prevents that.
                let mut buffer = [0; 4_096];
                let bytes = File::open(&path).unwrap().read(&mut buffer).unwrap();
                assert!(bytes >= texts[0].len(), "{bytes} bytes");
                assert!(buffer.starts_with(b"{\"a\": {"));
                reads += 1;
            }
            reads
        });
        for round in 0..500 {
            write_in_place(&path, texts[round % 2].as_bytes()).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(reads > 10, "only {reads} reads");
}

#[test]
fn any_other_failure_is_told_and_leaves_the_file_as_it_was() {
    let (directory, path) = file_with("{}");
    let full = |_: &Path, _: &Path| Err(ErrorKind::StorageFull.into());
    let mut writer = opened(&path).unwrap();
    let error = writer.write_by(judged(&[("a", true)]), false, full);
    assert_eq!(io_kind(error.unwrap_err()), ErrorKind::StorageFull);
    assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
    assert_eq!(names_in(directory.path()), [LOCK, NAME]);
    let nowhere = directory.path().join("nowhere").join(NAME);
    let Err(LockError::Io { source, .. }) = opened(&nowhere) else {
        panic!("there is no such folder");
    };
    assert_eq!(source.kind(), ErrorKind::NotFound);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    match writer.write(judged(&[("a", true)]), false).unwrap_err() {
        WriteError::Io { source, .. } => assert_eq!(source.to_string(), "not a regular file"),
        other => panic!("{other:?}"),
    }
}

/// Whether file systems can be mounted here, on `folder` for one test program only.
fn mounts(folder: &Path) -> bool {
    let tried = Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "none"])
        .arg(folder)
        .output();
    let mounts = tried.is_ok_and(|output| output.status.success());
    if !mounts {
        eprintln!("skipped: cannot mount a small file system");
    }
    mounts
}

/// `rerun` of a test, with a file system of 16 KiB at its folder.
fn on_a_small_disk(test: &str) {
    let folder = tempdir().unwrap();
    if !mounts(folder.path()) {
        return;
    }
    let inner = rerun::command(test, folder.path());
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c"])
        .arg("mount -t tmpfs -o size=16k none \"$0\" && exec \"$@\"")
        .arg(folder.path())
        .arg(inner.get_program())
        .args(inner.get_args());
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap());
    }
    rerun::assert_passes(command);
}

#[test]
fn a_full_disk_harms_nothing() {
    let Some(folder) = rerun::folder() else {
        return on_a_small_disk("writer::tests::a_full_disk_harms_nothing");
    };
    let path = folder.join(NAME);
    // Three of the four blocks; the lock takes the last.
    let filler = format!(
        "{{\n  \"x\": \"{}\",\n  \"a\": true\n}}\n",
        "x".repeat(9_000)
    );
    fs::write(&path, &filler).unwrap();
    let mut writer = opened(&path).unwrap();
    let before = fs::metadata(&path).unwrap();
    let untouched = |kind: ErrorKind| {
        assert_eq!(kind, ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).unwrap(), filler);
        let after = fs::metadata(&path).unwrap();
        assert_eq!(after.modified().unwrap(), before.modified().unwrap());
        assert_eq!(names_in(&folder), [LOCK, NAME]);
    };
    untouched(io_kind(
        writer.write(judged(&[("a", false)]), false).unwrap_err(),
    ));
    let longer = filler.replace('x', "xxx");
    untouched(write_in_place(&path, longer.as_bytes()).unwrap_err().kind());
    // What needs no more room is written.
    let other = filler.replace('x', "y");
    write_in_place(&path, other.as_bytes()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), other);
}

#[test]
fn in_a_folder_that_is_closed_the_file_itself_is_locked_and_overwritten() {
    let name =
        "writer::tests::in_a_folder_that_is_closed_the_file_itself_is_locked_and_overwritten";
    let Some(folder) = rerun::folder() else {
        let (directory, path) = file_with(r#"{"x": true}"#);
        let mode = |mode| fs::Permissions::from_mode(mode);
        fs::set_permissions(&path, mode(0o666)).unwrap();
        fs::set_permissions(directory.path(), mode(0o555)).unwrap();
        if rerun::as_nobody(name, directory.path()) {
            let report = Report::parse(&fs::read(&path).unwrap()).unwrap();
            assert!(report.names().eq(["a", "x"]));
        }
        fs::set_permissions(directory.path(), mode(0o755)).unwrap();
        return;
    };
    let path = folder.join(NAME);
    let mut writer = opened(&path).unwrap();
    writer.write(judged(&[("a", true)]), false).unwrap();
    match opened(&path) {
        Err(LockError::Taken { process: None, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(names_in(&folder), [NAME]);
    match opened(&folder.join("other.json")) {
        Err(error @ LockError::Io { .. }) => {
            let text = error.to_string();
            assert!(
                text.contains("so nothing is written (let this user"),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_lock_that_another_user_has_left_can_be_taken() {
    let name = "writer::tests::the_lock_that_another_user_has_left_can_be_taken";
    let Some(folder) = rerun::folder() else {
        let (directory, path) = file_with("{}");
        drop(opened(&path).unwrap());
        let mode = fs::Permissions::from_mode(0o777);
        fs::set_permissions(directory.path(), mode).unwrap();
        rerun::as_nobody(name, directory.path());
        return;
    };
    let writer = opened(&folder.join(NAME)).unwrap();
    assert!(opened(&folder.join(NAME)).is_err());
    drop(writer);
}

#[test]
fn who_is_killed_leaves_a_whole_file_and_a_free_lock() {
    if let Some(folder) = rerun::folder() {
        let mut writer = opened(&folder.join(NAME)).unwrap();
        for round in 0.. {
            writer
                .write(judged(&[("a", round % 2 == 0)]), true)
                .unwrap();
        }
    }
    let name = "writer::tests::who_is_killed_leaves_a_whole_file_and_a_free_lock";
    let (directory, path) = file_with(r#"{"a": true}"#);
    for round in 0..20 {
        let mut child = rerun::command(name, directory.path())
            .stdout(process::Stdio::null())
            .spawn()
            .unwrap();
        let before = fs::metadata(&path).unwrap().ino();
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::metadata(&path).unwrap().ino() == before {
            assert!(Instant::now() < deadline, "the child does not write");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(437 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let report = Report::parse(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(report.verdict("a").unwrap().reason.as_deref(), Some("why"));
        let mut names = names_in(directory.path());
        names.retain(|name| name != TEMPORARY);
        assert_eq!(names, [LOCK, NAME]);
    }
    write(&path, &[("a", true)]).unwrap();
    assert_eq!(names_in(directory.path()), [LOCK, NAME]);
}

#[test]
fn a_reader_never_sees_a_torn_file() {
    let names: Vec<String> = (0..100).map(|number| format!("server{number}")).collect();
    let verdicts = |healthy| names.iter().map(|name| (name.as_str(), healthy)).collect();
    let verdicts = [true, false].map(|healthy| -> Vec<_> { verdicts(healthy) });
    let (_directory, path) = file_with("{}");
    let mut writer = opened(&path).unwrap();
    writer.write(judged(&verdicts[0]), false).unwrap();
    let done = AtomicBool::new(false);
    let reads = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                let report = Report::parse(&fs::read(&path).unwrap()).unwrap();
                let healthy = names
                    .iter()
                    .filter(|name| report.verdict(name).unwrap().healthy);
                assert!([0, 100].contains(&healthy.count()));
                reads += 1;
            }
            reads
        });
        for round in 0..1_000 {
            writer.write(judged(&verdicts[round % 2]), false).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(reads > 10, "only {reads} reads");
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(|number| Json::Number(number.into())),
        ".{0,8}".prop_map(Json::String),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            object(inner).prop_map(Json::Object),
        ]
    })
}

/// Entries with names of which some are ours, none twice.
fn object(value: impl Strategy<Value = Json>) -> impl Strategy<Value = Entries> {
    let name = prop_oneof!["[abc]", "healthy|verdict|reason|weight|state", ".{0,4}"];
    proptest::collection::hash_map(name, value, 0..6)
        .prop_map(|entries| entries.into_iter().collect())
}

proptest! {
    #[test]
    fn whatever_a_file_says_only_what_is_ours_changes(
        before in object(json()),
        verdicts in proptest::collection::hash_map("[abcde]", any::<bool>(), 0..5),
        detail in any::<bool>(),
    ) {
        let verdicts: Vec<_> = verdicts.iter().map(|(name, healthy)| (name.as_str(), *healthy)).collect();
        let merged = merge(before.clone(), judged(&verdicts), detail);
        let after = report::entries(&text(&merged).unwrap()).unwrap();
        prop_assert_eq!(&merged, &after, "it is read as it was meant");
        let names = |entries: &Entries| entries.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        prop_assert_eq!(&names(&after)[..before.len()], &names(&before)[..]);
        for ((name, old), (_, new)) in before.iter().zip(&after) {
            let judged = verdicts.iter().find(|(judged, _)| judged == name);
            match (judged, old, new) {
                (None, old, new) => prop_assert_eq!(old, new),
                (Some(_), Json::Object(old), Json::Object(new)) => {
                    let not_ours = |fields: &Entries| {
                        let fields = fields.iter().filter(|(name, _)| !["healthy", "verdict", "reason"].contains(&name.as_str()));
                        fields.cloned().collect::<Vec<_>>()
                    };
                    prop_assert_eq!(not_ours(old), not_ours(new));
                }
                (Some(_), _, Json::Object(_)) => prop_assert!(detail),
                (Some(_), _, new) => prop_assert!(!detail && matches!(new, Json::Bool(_))),
            }
        }
        // Every verdict can be read back, once what is not ours is out of the way.
        let ours: Entries = after.into_iter().filter(|(name, _)| verdicts.iter().any(|(judged, _)| judged == name)).collect();
        prop_assert_eq!(ours.len(), verdicts.len());
        for (name, healthy) in &verdicts {
            let value = ours.iter().find(|(known, _)| known == name).map(|(_, value)| value);
            let said = match value {
                Some(Json::Object(fields)) => fields.iter().find(|(name, _)| name == "healthy").map(|(_, value)| value),
                value => value,
            };
            prop_assert_eq!(said, Some(&Json::Bool(*healthy)));
        }
    }

    #[test]
    fn whatever_a_file_says_what_is_written_is_a_report(before in object(json()), detail in any::<bool>()) {
        let (mended, dropped) = mend(before.clone());
        let merged = merge(mended.clone(), judged(&[("a", true)]), detail);
        let written = Report::parse(&text(&merged).unwrap());
        prop_assert!(written.is_ok(), "{:?}", written);
        let is_report = Report::parse(&text(&before).unwrap()).is_ok();
        prop_assert_eq!(is_report, dropped.is_empty());
        prop_assert!(!is_report || before == mended, "nothing is mended that is right");
    }
}
