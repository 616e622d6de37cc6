//! Owns what backends write down of themselves: a line for each thing that must be known even if the process is
//! killed at the next moment. A line is one write, so none is ever half there.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use crate::fault::Fault;

/// Where a backend writes.
pub struct Ledger(File);

/// What all backends have written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// How often each `POST` was begun.
    pub executed: BTreeMap<String, u32>,
    /// The requests that met: who came, and who was there.
    pub overlaps: Vec<String>,
    /// How many requests or connections each fault has met.
    pub hits: BTreeMap<String, u64>,
    /// Requests that were begun, of all kinds, `POST` or not.
    pub begun: u64,
}

impl Ledger {
    /// At the end of what is there: a backend that is started again goes on.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(file))
    }

    /// A request has come. `executed`: one that may not be done twice.
    pub fn begun(&mut self, id: &str, executed: bool) -> io::Result<()> {
        self.line(if executed { "post" } else { "other" }, id)
    }

    /// Somebody was here already, with no slot left.
    pub fn overlap(&mut self, id: &str, others: &[String]) -> io::Result<()> {
        self.line("overlap", &format!("{id} came to {}", others.join(", ")))
    }

    /// A fault has met somebody.
    pub fn hit(&mut self, fault: Fault) -> io::Result<()> {
        self.line("hit", &fault.name())
    }

    fn line(&mut self, kind: &str, what: &str) -> io::Result<()> {
        self.0.write_all(format!("{kind} {what}\n").as_bytes())
    }
}

impl Records {
    /// Adds what one backend has written.
    pub fn read(&mut self, path: &Path) -> io::Result<()> {
        for line in fs::read_to_string(path)?.lines() {
            let (kind, what) = line.split_once(' ').unwrap_or((line, ""));
            self.begun += u64::from(matches!(kind, "post" | "other"));
            match kind {
                "post" => *self.executed.entry(what.to_owned()).or_default() += 1,
                "overlap" => self.overlaps.push(what.to_owned()),
                "hit" => *self.hits.entry(what.to_owned()).or_default() += 1,
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        for _ in 0..2 {
            let mut ledger = Ledger::open(&path).unwrap();
            ledger.begun("a", true).unwrap();
            ledger.begun("b", false).unwrap();
        }
        let mut ledger = Ledger::open(&path).unwrap();
        ledger.overlap("b", &["a".into(), "c".into()]).unwrap();
        ledger.hit(Fault::HalfHeader).unwrap();
        let mut records = Records::default();
        records.read(&path).unwrap();
        assert_eq!(records.executed["a"], 2);
        assert_eq!(records.overlaps, ["b came to a, c"]);
        assert_eq!((records.hits["half-header"], records.begun), (1, 4));
    }
}
