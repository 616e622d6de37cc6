//! The lock of a health file: one writer at a time, whatever becomes of the one before.
//!
//! The kernel takes a `flock` away from whoever dies, so nothing is ever left locked; the lock file
//! itself stays, because removing it would let two processes lock two files of the same name. When
//! somebody else removes it, or its folder, whoever had it must find out before the next write
//! ([`Lock::holds`]): it keeps nobody away any more.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::super::file::Place;
use super::storage::{beside, may_be_written_in_place, resolved};

/// How often to lock anew when the lock file is replaced while it is locked.
const TRIES_MAX: usize = 4;

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
    #[error("cannot lock {}, so nothing is written{}", path.display(), advice(source))]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What a person can do about it.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => " (make the folder)",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            " (let this user write into the folder, or else into the health file, which must be there)"
        }
        _ => "",
    }
}

/// The lock of one health file. Dropped, it is free.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// Where it was found; no link.
    place: PathBuf,
}

impl Lock {
    /// Takes the lock of the health file at `path`, or says who has it.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let mut lock = try_take(path)?;
        for _ in 1..TRIES_MAX {
            // It may have been removed between being opened and being locked.
            if lock.holds(path) {
                break;
            }
            lock = try_take(path)?;
        }
        if lock.holds(path) {
            return Ok(lock);
        }
        Err(LockError::Io {
            path: lock.place,
            source: io::Error::other("is replaced all the time"),
        })
    }

    /// Whether it still keeps others from the health file at `path`: whether it is what they would lock.
    pub fn holds(&self, path: &Path) -> bool {
        let real = resolved(path);
        let there = fs::symlink_metadata(&self.place);
        (self.place == real || self.place == beside(&real, "lock"))
            && matches!(
                (self.file.metadata(), there),
                (Ok(ours), Ok(there)) if Place::of(&ours) == Place::of(&there)
            )
    }
}

fn try_take(path: &Path) -> Result<Lock, LockError> {
    let real = resolved(path);
    let beside = beside(&real, "lock");
    let (file, place) = match open_lock(&beside) {
        Err(error) if may_be_written_in_place(&error) && real.is_file() => {
            (OpenOptions::new().read(true).write(true).open(&real), real)
        }
        result => (result, beside.clone()),
    };
    let failed = |source| LockError::Io {
        path: place.clone(),
        source,
    };
    let file = file.map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(LockError::Taken {
                path: path.to_owned(),
                process: holder(&file),
            });
        }
        Err(error) => return Err(failed(error.into())),
    }
    if place == beside {
        let id = format!("{}\n", process::id());
        // It is for people; the lock holds without, on a full disk for example.
        let _ = file
            .write_all_at(id.as_bytes(), 0)
            .and_then(|()| file.set_len(id.len() as u64));
    }
    Ok(Lock { file, place })
}

fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // What others have put there is not to lead us elsewhere (a link) or to hold us up (a FIFO).
    options
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    let created = options
        .clone()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path);
    match created {
        // Another user's, from an earlier run: to lock it, to read it is enough.
        Err(error) if may_be_written_in_place(&error) => options.open(path).map_err(|_| error),
        result => result,
    }
}

/// The process that a lock file names.
fn holder(lock: &File) -> Option<u32> {
    let mut text = String::new();
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
