//! Where lines go: standard output, or a file that can be opened anew. Written are whole lines, as far as the system
//! takes them: where a disk is full in the middle of one, its rest is what is written next, so that no line is torn.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::OFlags;

/// Who is neither owner nor of the group reads no addresses and queries.
const MODE: u32 = 0o640;

/// Before a reader that takes nothing is asked again.
const PAUSE: Duration = Duration::from_millis(5);

/// Bytes on their way to a descriptor.
pub(super) struct Output<W> {
    sink: W,
    /// Whole lines, but for the first one if it is torn.
    pub lines: Vec<u8>,
    /// A part of the first line is written already.
    is_torn: bool,
}

/// Lines that could not be written.
#[derive(Debug)]
pub(super) struct Lost {
    pub lines: usize,
    pub error: io::Error,
}

impl<W: Write> Output<W> {
    pub fn new(sink: W) -> Self {
        Self {
            sink,
            lines: Vec::new(),
            is_torn: false,
        }
    }

    /// Writes what there is. Afterwards there is nothing, or the rest of a torn line.
    pub fn flush(&mut self) -> Result<(), Lost> {
        let mut written = 0;
        while written < self.lines.len() {
            let error = match self.sink.write(&self.lines[written..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(bytes) => {
                    written += bytes;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A pipe that is full, and was told by somebody not to wait.
                    sleep(PAUSE);
                    continue;
                }
                Err(error) => error,
            };
            let lines = self.lose(written);
            return Err(Lost { lines, error });
        }
        self.lines.clear();
        self.is_torn = false;
        Ok(())
    }

    /// Gives up what is not written but the rest of a line that was begun; returns how many lines that are.
    fn lose(&mut self, written: usize) -> usize {
        if written > 0 {
            self.is_torn = self.lines[written - 1] != b'\n';
            self.lines.drain(..written);
        }
        let kept = match self.is_torn {
            true => self
                .lines
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1),
            false => 0,
        };
        let lost = self.lines[kept..]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        self.lines.truncate(kept);
        lost
    }

    /// Goes on elsewhere, after what there is was written. The rest of a line that is torn is lost.
    pub fn replace(&mut self, sink: W) -> Result<(), Lost> {
        let flushed = self.flush();
        self.sink = sink;
        self.lines.clear();
        let torn = usize::from(std::mem::take(&mut self.is_torn));
        flushed.map_err(|Lost { lines, error }| Lost {
            lines: lines + torn,
            error,
        })
    }
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

/// Opens a file to be appended to, and makes it if need be. A FIFO needs a reader.
pub(super) fn open(path: &Path) -> io::Result<File> {
    File::options()
        .append(true)
        .create(true)
        .mode(MODE)
        // To open a FIFO waits for a reader, unless we say no.
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(path)
}

/// Standard output without the buffer of the standard library, which would tear lines.
pub(super) fn stdout() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then says that there is no room.
    #[derive(Default)]
    struct Disk {
        room: usize,
        bytes: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.bytes.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lost(output: &mut Output<Disk>, lines: &str) -> usize {
        output.lines.extend_from_slice(lines.as_bytes());
        output.flush().map_or_else(|lost| lost.lines, |()| 0)
    }

    #[test]
    fn a_full_disk_tears_no_line_and_what_is_lost_is_counted() {
        let mut output = Output::new(Disk {
            room: 8,
            ..Disk::default()
        });
        assert_eq!(lost(&mut output, "one\ntwo\n"), 0);
        assert_eq!(lost(&mut output, "three\n"), 1);
        output.sink.room = 2;
        // Of `four` two letters are written; its rest is owed, and `five` is lost.
        assert_eq!(lost(&mut output, "four\nfive\n"), 1);
        assert_eq!(lost(&mut output, "six\n"), 1);
        output.sink.room = 1;
        assert_eq!(lost(&mut output, "seven\neight\n"), 2);
        output.sink.room = 100;
        assert_eq!(lost(&mut output, "nine\n"), 0);
        assert_eq!(output.sink.bytes, b"one\ntwo\nfour\nnine\n");
        assert_eq!(lost(&mut output, "ten\n"), 0);
    }

    /// Between two lines there is nothing to be owed.
    #[test]
    fn a_disk_that_is_full_after_a_line_owes_nothing() {
        let mut output = Output::new(Disk {
            room: 4,
            ..Disk::default()
        });
        assert_eq!(lost(&mut output, "one\ntwo\n"), 1);
        output.sink.room = 100;
        assert_eq!(lost(&mut output, "six\n"), 0);
        assert_eq!(output.sink.bytes, b"one\nsix\n");
    }

    #[test]
    fn another_file_begins_with_a_whole_line() {
        let mut output = Output::new(Disk {
            room: 6,
            ..Disk::default()
        });
        assert_eq!(lost(&mut output, "one\ntwo\n"), 0);
        let lines = output
            .replace(Disk {
                room: 100,
                ..Disk::default()
            })
            .unwrap_err()
            .lines;
        assert_eq!(lines, 1);
        assert_eq!(lost(&mut output, "six\n"), 0);
        assert_eq!(output.sink.bytes, b"six\n");
    }
}
