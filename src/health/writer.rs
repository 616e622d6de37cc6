//! Writes verdicts into the health file, so that no reader ever sees half of them.
//!
//! What the writer does not own stays as it is: the order of the file, names that it has no verdict
//! for, and the fields of an object other than `healthy` and `reason`. Whoever writes to the file
//! between our read and our rename loses that change: two writers of one file need a lock of their
//! own.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::warn;

use super::file::{FileError, read_regular};
use super::json::Json;
use super::report;

/// What a judge has found out about one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged<'a> {
    /// Its name in the health file.
    pub name: &'a str,
    /// Whether it is well.
    pub healthy: bool,
    /// Why, for a person; written where verdicts are objects.
    pub reason: &'a str,
}

/// The one writer of a health file, for as long as it lives: it holds the lock beside the file.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
}

/// Why there is no writer.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process is the writer of this file.
    #[error("{} is written by another poller{}", path.display(), process.map(|id| format!(", process {id}")).unwrap_or_default())]
    Taken {
        /// The health file.
        path: PathBuf,
        /// Whose it is, if it says so.
        process: Option<u32>,
    },
    /// The lock cannot be tried.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Writer {
    /// Takes the lock of the health file at `path`, which need not exist yet.
    ///
    /// # Errors
    ///
    /// When another process has it, or it cannot be tried (its folder is missing, for example).
    pub fn open(path: PathBuf) -> Result<Self, LockError> {
        Ok(Self { path })
    }

    /// Writes what was found out (names unique) into the file. With `detail` every entry becomes an
    /// object with a reason; without, entries that are objects stay so.
    ///
    /// # Errors
    ///
    /// When the file could not be written; it is then as it was.
    pub fn write<'a>(
        &mut self,
        judged: impl IntoIterator<Item = Judged<'a>>,
        detail: bool,
    ) -> io::Result<()> {
        let _ = detail;
        let judged = judged.into_iter().map(|one| (one.name, one.healthy));
        write(&self.path, judged)
    }
}

/// Writes `verdicts` (name, healthy; names unique) into the health file at `path`.
///
/// The file is replaced at once, by a rename, and synced to the disk; it keeps its mode and, where
/// we may, its owner. Links are followed. Where the directory does not let itself be written or the
/// file not be replaced (a single file mounted into a container), it is written in place. Keys that
/// are in the file stay where they are, new ones come last. A file that is no JSON object is
/// replaced whole, with a warning.
///
/// Blocks for as long as the disk does.
///
/// # Errors
///
/// When the file could not be written; it is then as it was, unless it was being written in place.
pub fn write<'a>(
    path: &Path,
    verdicts: impl IntoIterator<Item = (&'a str, bool)>,
) -> io::Result<()> {
    write_by(path, verdicts, |from, to| fs::rename(from, to))
}

/// [`write`], with the rename that a test can let fail.
fn write_by<'a>(
    path: &Path,
    verdicts: impl IntoIterator<Item = (&'a str, bool)>,
    rename: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    // To rename over a link would replace the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (entries, metadata) = read(&path);
    let merged = Json::Object(merge(entries, verdicts));
    let mut text = serde_json::to_string_pretty(&merged)?;
    text.push('\n');
    match replace(&path, text.as_bytes(), metadata.as_ref(), rename) {
        Err(error) if metadata.is_some() && may_be_written_in_place(&error) => {
            write_in_place(&path, text.as_bytes())
        }
        result => result,
    }
}

/// The entries of the file as it is; none when there is no readable file.
fn read(path: &Path) -> (Vec<(String, Json)>, Option<Metadata>) {
    let (bytes, metadata) = match read_regular(path) {
        Ok(found) => found,
        Err(FileError::Missing) => return (Vec::new(), None),
        Err(error) => {
            warn!(path = %path.display(), %error, "health file is replaced");
            return (Vec::new(), None);
        }
    };
    let entries = report::entries(&bytes).unwrap_or_else(|error| {
        warn!(path = %path.display(), %error, "health file is replaced");
        Vec::new()
    });
    (entries, Some(metadata))
}

/// Puts the verdicts into the entries of a file. Of a key that is there twice, which no reader
/// accepts, the first stays.
fn merge<'a>(
    existing: Vec<(String, Json)>,
    verdicts: impl IntoIterator<Item = (&'a str, bool)>,
) -> Vec<(String, Json)> {
    let mut verdicts: Vec<(&str, Option<bool>)> = verdicts
        .into_iter()
        .map(|(name, healthy)| (name, Some(healthy)))
        .collect();
    let places: HashMap<&str, usize> = verdicts
        .iter()
        .enumerate()
        .map(|(place, (name, _))| (*name, place))
        .collect();
    let mut merged = Vec::with_capacity(existing.len());
    let mut met = HashSet::new();
    for (name, value) in existing {
        if !met.insert(name.clone()) {
            continue;
        }
        let verdict = places
            .get(name.as_str())
            .and_then(|place| verdicts[*place].1.take());
        let value = match verdict {
            Some(healthy) => judge(value, healthy),
            None => value,
        };
        merged.push((name, value));
    }
    let new = verdicts
        .into_iter()
        .filter_map(|(name, healthy)| Some((name.to_owned(), healthy?)));
    merged.extend(new.map(|(name, healthy)| (name, Json::Bool(healthy))));
    merged
}

/// One entry with the new verdict. An object keeps its other fields; the reason goes, because it was
/// the reason of another verdict.
fn judge(value: Json, healthy: bool) -> Json {
    let Json::Object(mut fields) = value else {
        return Json::Bool(healthy);
    };
    fields.retain(|(name, _)| name != "reason");
    match fields.iter_mut().find(|(name, _)| name == "healthy") {
        Some((_, value)) => *value = Json::Bool(healthy),
        None => fields.insert(0, ("healthy".to_owned(), Json::Bool(healthy))),
    }
    Json::Object(fields)
}

fn replace(
    path: &Path,
    bytes: &[u8],
    like: Option<&Metadata>,
    rename: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let (mut file, temporary) = Temporary::beside(path)?;
    file.write_all(bytes)?;
    if let Some(metadata) = like {
        // Only root may give a file away; who may not, keeps it. Before the mode: it resets bits.
        let _ = fchown(&file, Some(metadata.uid()), Some(metadata.gid()));
        file.set_permissions(metadata.permissions())?;
    }
    // Or a crash could leave the new name with no content.
    file.sync_all()?;
    rename(&temporary.path, path)?;
    sync_directory(directory_of(path))
}

/// A rename over a mount point gives EBUSY or EXDEV; a directory that is not ours gives EACCES,
/// EPERM or EROFS even for the temporary file.
fn may_be_written_in_place(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ResourceBusy
            | ErrorKind::CrossesDevices
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
    )
}

fn write_in_place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Emptied first: of an object that is cut off no reader can make a report, of old and new
    // bytes mixed it could.
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some file systems cannot sync a directory; the rename has been done all the same.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// A name that is gone when this is dropped: renamed by then, or else removed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// Creates `.<name>.<process>-<time>.tmp` in the same directory, which a rename cannot leave.
    fn beside(path: &Path) -> io::Result<(File, Self)> {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(
            ".{}-{}.tmp",
            std::process::id(),
            since_epoch.as_nanos()
        ));
        let path = directory_of(path).join(name);
        // Never one that is there, and 0666 less the umask for a health file that is new.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o666)
            .open(&path)?;
        Ok((file, Self { path }))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tempfile::{TempDir, tempdir};

    use super::super::report::Report;
    use super::*;

    fn file_with(text: &str) -> (TempDir, PathBuf) {
        let directory = tempdir().unwrap();
        let path = directory.path().join("health_status.json");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    fn names_in(directory: &TempDir) -> Vec<OsString> {
        fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect()
    }

    /// What the file says after `verdicts` were written over `text`.
    fn written(text: &str, verdicts: &[(&str, bool)]) -> String {
        let (_directory, path) = file_with(text);
        write(&path, verdicts.iter().copied()).unwrap();
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_new_file_is_pretty_and_in_the_given_order() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("health_status.json");
        write(&path, [("server2", true), ("server1", false)]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\n  \"server2\": true,\n  \"server1\": false\n}\n");
        assert_eq!(names_in(&directory), ["health_status.json"]);
    }

    #[test]
    fn the_tracked_file_stays_byte_for_byte() {
        let tracked = include_str!("../../health_status.json");
        let verdicts = [("server1", true), ("server2", true), ("server3", true)];
        assert_eq!(written(tracked, &verdicts), tracked);
    }

    #[test]
    fn what_is_not_ours_stays_where_it_is() {
        let before = r#"{"x": {"healthy": true, "z": 1, "a": [1.5, null]}, "b": true, "y": false}"#;
        let after = written(before, &[("a", true), ("b", false)]);
        let compact: String = after.split_whitespace().collect();
        let expected =
            r#"{"x":{"healthy":true,"z":1,"a":[1.5,null]},"b":false,"y":false,"a":true}"#;
        assert_eq!(compact, expected);
    }

    #[test]
    fn an_object_keeps_all_but_verdict_and_reason() {
        let before =
            r#"{"a": {"state": "drain", "healthy": true, "reason": "200"}, "b": {"w": 2}}"#;
        let after = written(before, &[("a", false), ("b", true)]);
        let compact: String = after.split_whitespace().collect();
        let expected = r#"{"a":{"state":"drain","healthy":false},"b":{"healthy":true,"w":2}}"#;
        assert_eq!(compact, expected);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_replaced_whole() {
        for text in ["", "{\"a\": tr", "[1]", "{\"a\": 1} x"] {
            assert_eq!(
                written(text, &[("a", true)]),
                "{\n  \"a\": true\n}\n",
                "{text}"
            );
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_there_once_after() {
        let after = written(r#"{"a": true, "x": 1, "a": true, "x": 2}"#, &[("a", false)]);
        assert_eq!(after, "{\n  \"a\": false,\n  \"x\": 1\n}\n");
    }

    #[test]
    fn mode_and_link_stay() {
        let (directory, path) = file_with("{}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write(&link, [("a", true)]).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o640
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\n  \"a\": true\n}\n");
    }

    #[test]
    fn writes_in_place_where_a_rename_is_impossible() {
        let kinds = [
            ErrorKind::ResourceBusy,
            ErrorKind::CrossesDevices,
            ErrorKind::PermissionDenied,
        ];
        for kind in kinds {
            let (directory, path) = file_with(r#"{"long": true, "longer": true, "longest": true}"#);
            let inode = fs::metadata(&path).unwrap().ino();
            write_by(&path, [("long", false)], |_, _| Err(kind.into())).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
            let report = Report::parse(&fs::read(&path).unwrap()).unwrap();
            assert!(!report.verdict("long").unwrap().healthy);
            assert_eq!(report.names().count(), 3);
            assert_eq!(names_in(&directory), ["health_status.json"]);
        }
    }

    #[test]
    fn any_other_failure_is_told_and_leaves_the_file_as_it_was() {
        let (directory, path) = file_with("{}");
        let full = |_: &Path, _: &Path| Err(ErrorKind::StorageFull.into());
        let error = write_by(&path, [("a", true)], full).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
        assert_eq!(names_in(&directory), ["health_status.json"]);
        let nowhere = directory.path().join("nowhere/health_status.json");
        assert_eq!(
            write(&nowhere, [("a", true)]).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn a_reader_never_sees_a_torn_file() {
        let names: Vec<String> = (0..100).map(|number| format!("server{number}")).collect();
        let verdicts = |healthy| names.iter().map(move |name| (name.as_str(), healthy));
        let (_directory, path) = file_with("{}");
        write(&path, verdicts(true)).unwrap();
        let done = AtomicBool::new(false);
        let reads = std::thread::scope(|scope| {
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
                write(&path, verdicts(round % 2 == 0)).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap()
        });
        assert!(reads > 10, "only {reads} reads");
    }
}
