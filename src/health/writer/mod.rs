//! Writes verdicts into the health file, so that no reader ever sees half of them.
//!
//! - A file has one [`Writer`]: it holds a lock beside the file that the kernel takes away from whoever
//!   dies. Only that lock keeps two of them from undoing each other's work; a person who edits the
//!   file between our read and our rename still loses the change.
//! - What the writer does not own stays as it is: the order of the file, names that it has no verdict
//!   for, and the fields of an object other than `healthy` and `reason`.
//! - The file is replaced by a rename or, where that is impossible, overwritten at one stroke with room
//!   reserved before. A failure leaves it as it was.

mod lock;
mod storage;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use serde::Serializer;
use tracing::warn;

use super::file::{FileError, GRACE, SETTLE, read_regular};
use super::json::Json;
use super::report::{self, FILE_BYTES_MAX};

use lock::lock;
use storage::{may_be_written_in_place, replace, resolved, write_in_place};

pub use lock::LockError;

/// What a judge has found out about one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged<'a> {
    /// Its name in the health file.
    pub name: &'a str,
    /// Whether it is well.
    pub healthy: bool,
    /// Why, for a person; written when details are.
    pub reason: &'a str,
}

/// The one writer of a health file, for as long as it lives: it holds the lock beside the file.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    /// What the file said last. It stands in for a file that somebody has spoilt, so that a drained
    /// backend stays drained.
    known: Entries,
    /// Closing it gives the lock back.
    _lock: File,
}

/// The entries of a file in their order.
type Entries = Vec<(String, Json)>;

impl Writer {
    /// Takes the lock of the health file at `path`, which need not exist yet.
    ///
    /// The lock is on `.<name>.lock` in the folder of the file (links are followed), which stays when
    /// it is free. Where the folder does not let itself be written, it is on the file: that one is
    /// then written in place, and stays the same file.
    ///
    /// # Errors
    ///
    /// When another process has it, or it cannot be tried (its folder is missing, for example).
    pub fn open(path: PathBuf) -> Result<Self, LockError> {
        let lock = lock(&path)?;
        Ok(Self {
            path,
            known: Entries::new(),
            _lock: lock,
        })
    }

    /// Writes what was found out (names unique) into the file. With `detail` every entry becomes an
    /// object with a reason; without, entries that are objects stay so, but lose their reason, which
    /// was that of an earlier verdict.
    ///
    /// The file is replaced at once, by a rename, and synced to the disk; it keeps its mode and, where
    /// we may, its owner. Links are followed. Where the folder does not let itself be written or the
    /// file not be replaced (a single file mounted into a container), it is written in place. Keys
    /// that are in the file stay where they are, new ones come last. For a file that is no JSON
    /// object, and does not become one in a moment, stands what it said after the last round, with a
    /// warning.
    ///
    /// Blocks for as long as the disk does.
    ///
    /// # Errors
    ///
    /// When the file could not be read or written; it is then as it was.
    pub fn write<'a>(
        &mut self,
        judged: impl IntoIterator<Item = Judged<'a>>,
        detail: bool,
    ) -> io::Result<()> {
        self.write_by(judged, detail, |from, to| fs::rename(from, to))
    }

    /// [`Self::write`], with the rename that a test can let fail.
    fn write_by<'a>(
        &mut self,
        judged: impl IntoIterator<Item = Judged<'a>>,
        detail: bool,
        rename: impl Fn(&Path, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        // To rename over a link would replace the link.
        let path = resolved(&self.path);
        let (existing, metadata) = self.read(&path)?;
        self.known = merge(existing, judged, detail);
        let text = pretty(&self.known)?;
        match replace(&path, &text, metadata.as_ref(), rename) {
            Err(error) if metadata.is_some() && may_be_written_in_place(&error) => {
                write_in_place(&path, &text)
            }
            result => result,
        }
    }

    /// The entries of the file as it is; what is known of it when it is spoilt, none when there is no
    /// file.
    fn read(&self, path: &Path) -> io::Result<(Entries, Option<Metadata>)> {
        let start = Instant::now();
        loop {
            let (bytes, metadata) = match read_regular(path) {
                Ok(found) => found,
                Err(FileError::Missing) => return Ok((Entries::new(), None)),
                // To replace what cannot be read would lose it.
                Err(FileError::Unreadable(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error)),
            };
            match report::entries(&bytes) {
                Ok(entries) => return Ok((entries, Some(metadata))),
                // Somebody may be writing it in place: his change is not ours to lose.
                Err(_) if start.elapsed() < GRACE => thread::sleep(SETTLE),
                Err(error) => {
                    warn!(path = %path.display(), %error, "health file is replaced");
                    return Ok((self.known.clone(), Some(metadata)));
                }
            }
        }
    }
}

/// Puts what was found out into the entries of a file. Of a key that is there twice, which no reader
/// accepts, the first stays.
fn merge<'a>(
    existing: Entries,
    judged: impl IntoIterator<Item = Judged<'a>>,
    detail: bool,
) -> Entries {
    let mut judged: Vec<Option<Judged>> = judged.into_iter().map(Some).collect();
    let places: HashMap<&str, usize> = judged
        .iter()
        .enumerate()
        .filter_map(|(place, one)| Some((one.as_ref()?.name, place)))
        .collect();
    let mut merged = Vec::with_capacity(existing.len());
    let mut met = HashSet::new();
    for (name, value) in existing {
        if !met.insert(name.clone()) {
            continue;
        }
        let found = places
            .get(name.as_str())
            .and_then(|place| judged[*place].take());
        let value = match found {
            Some(one) => judge(Some(value), one, detail),
            None => value,
        };
        merged.push((name, value));
    }
    let new = judged.into_iter().flatten();
    merged.extend(new.map(|one| (one.name.to_owned(), judge(None, one, detail))));
    merged
}

/// One entry with the new verdict. An object keeps its other fields.
fn judge(value: Option<Json>, judged: Judged, detail: bool) -> Json {
    let mut fields = match value {
        Some(Json::Object(fields)) => fields,
        _ if detail => Vec::new(),
        _ => return Json::Bool(judged.healthy),
    };
    fields.retain(|(name, _)| name != "reason");
    let place = fields.iter().position(|(name, _)| name == "healthy");
    let place = place.unwrap_or(0);
    fields.retain(|(name, _)| name != "healthy");
    fields.insert(place, ("healthy".to_owned(), Json::Bool(judged.healthy)));
    if detail {
        let reason = Json::String(judged.reason.to_owned());
        fields.insert(place + 1, ("reason".to_owned(), reason));
    }
    Json::Object(fields)
}

fn pretty(entries: &Entries) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::pretty(&mut text);
    serializer.collect_map(entries.iter().map(|(name, value)| (name, value)))?;
    text.push(b'\n');
    Ok(text)
}
