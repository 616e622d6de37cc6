//! What a backend has done, in a file: a backend that is a process of its own cannot be asked once it was
//! killed. A line is written at one stroke, so that nothing is lost with the process.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// How far a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its header was read.
    Begun,
    /// Its body was read to the end: from here on it is done.
    Read,
}

/// A line of the journal.
#[derive(Clone, Debug)]
pub struct Entry {
    pub step: Step,
    /// Of the request.
    pub id: String,
}

pub(super) struct Journal(File);

impl Journal {
    pub(super) fn open(path: &Path) -> Self {
        let file = File::options().create(true).append(true).open(path);
        Self(file.expect("the folder can be written"))
    }

    pub(super) fn note(&self, step: Step, id: &str) {
        let line = match step {
            Step::Begun => format!("+{id}\n"),
            Step::Read => format!("={id}\n"),
        };
        (&self.0)
            .write_all(line.as_bytes())
            .expect("the journal can be written");
    }
}

/// All that stands in the journal at `path`, in that order; nothing while there is none.
pub fn journal(path: &Path) -> Vec<Entry> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let (step, id) = match line.split_at_checked(1)? {
        ("+", id) => (Step::Begun, id),
        ("=", id) => (Step::Read, id),
        _ => return None,
    };
    let id = id.to_owned();
    Some(Entry { step, id })
}
