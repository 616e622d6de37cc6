//! How bytes get into a file so that no reader finds half of them: by a rename, or at one stroke where
//! that is impossible.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use super::super::file::Version;
use super::super::report::FILE_BYTES_MAX;

/// How many links that lead nowhere are followed, one to the next: as the kernel does.
const LINKS_MAX: usize = 40;

/// A file that is written and synced, and has only to be renamed into its place.
pub(super) struct Ready {
    file: File,
    temporary: Temporary,
}

impl Ready {
    /// Writes `bytes` beside `path`, with mode and owner of `like`.
    pub fn beside(path: &Path, bytes: &[u8], like: Option<&Metadata>) -> io::Result<Self> {
        let (mut file, temporary) = Temporary::beside(path)?;
        file.write_all(bytes)?;
        if let Some(metadata) = like {
            // Only root may give a file away; who may not, keeps it. Before the mode: it resets bits.
            let _ = fchown(&file, Some(metadata.uid()), Some(metadata.gid()));
            file.set_permissions(metadata.permissions())?;
        }
        // Or a crash could leave the new name with no content.
        file.sync_all()?;
        Ok(Self { file, temporary })
    }

    /// Puts it in the place of the file at once. Says which writing that is, `None` when somebody has
    /// written into it already.
    pub fn put(
        self,
        path: &Path,
        rename: impl Fn(&Path, &Path) -> io::Result<()>,
    ) -> io::Result<Option<Version>> {
        let before = Version::of(&self.file.metadata()?);
        rename(&self.temporary.path, path)?;
        let after = Version::of(&self.file.metadata()?);
        sync_directory(directory_of(path))?;
        // A rename changes the time of the inode only.
        Ok((after.modified == before.modified).then_some(after))
    }
}

/// Which writing of the file is there now, if any.
pub(super) fn version_at(path: &Path) -> Option<Version> {
    fs::metadata(path).ok().as_ref().map(Version::of)
}

/// A rename over a mount point gives EBUSY or EXDEV; a directory that is not ours gives EACCES,
/// EPERM or EROFS even for the temporary file.
pub(super) fn may_be_written_in_place(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ResourceBusy
            | ErrorKind::CrossesDevices
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
    )
}

/// Overwrites the file at one stroke. It is never empty or cut off, neither for a reader nor when the
/// disk is full; who reads at that very moment may find old and new mixed.
pub(super) fn write_in_place(path: &Path, bytes: &[u8]) -> io::Result<Option<Version>> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let before = file.metadata()?;
    if before.len() > FILE_BYTES_MAX as u64 {
        // No reader takes more, and neither do we.
        file.set_len(FILE_BYTES_MAX as u64)?;
    }
    let mut old = Vec::new();
    file.read_to_end(&mut old)?;
    if let Err(error) = overwrite(&file, bytes, old.len()) {
        // As it was, its time included: nobody is to take it for fresh.
        let _ = file
            .write_all_at(&old, 0)
            .and_then(|()| file.set_len(old.len() as u64))
            .and_then(|()| file.set_modified(before.modified()?));
        return Err(error);
    }
    let after = Version::of(&file.metadata()?);
    file.sync_all()?;
    Ok(Some(after))
}

/// Puts `bytes` in the place of the `old_bytes` that are there. Blanks behind an object are no part of
/// it: they reserve the room that is missing (as `fallocate` would, but on every file system, and so
/// that no reader finds the new text cut off at the old length), and they cover what is left over.
fn overwrite(file: &File, bytes: &[u8], old_bytes: usize) -> io::Result<()> {
    let room = vec![b' '; bytes.len().saturating_sub(old_bytes)];
    file.write_all_at(&room, old_bytes as u64)?;
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().max(old_bytes), b' ');
    file.write_all_at(&padded, 0)?;
    file.set_len(bytes.len() as u64)
}

/// The path without links; its last part need not exist yet, not even behind a link.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        if let Ok(real) = fs::canonicalize(&path) {
            return real;
        }
        if let Ok(directory) = fs::canonicalize(directory_of(&path)) {
            path = directory.join(path.file_name().unwrap_or_default());
        }
        let Ok(target) = fs::read_link(&path) else {
            break;
        };
        path = directory_of(&path).join(target);
    }
    path
}

/// `.<name>.<suffix>` in the folder of a file.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".");
    name.push(suffix);
    directory_of(path).join(name)
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
    /// Creates `.<name>.tmp` in the folder of the file, which a rename cannot leave. Always the same
    /// name, which the lock makes ours: however often we are killed, one is left over at most.
    fn beside(path: &Path) -> io::Result<(File, Self)> {
        let path = beside(path, "tmp");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Never one that is there, or that a link leads to; 0666 less the umask for a new health file.
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
