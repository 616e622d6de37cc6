//! The thread that writes lines. It rests a moment after each batch, so that under load most requests find it awake or
//! resting and need not wake it, which is a system call.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use super::event::{AccessEvent, Text};
use super::line::Lines;
use super::output::{self, Destination, Lost, Output};
use super::query::QueryRule;
use crate::metrics::Count;

/// Between two batches of lines.
const REST: Duration = Duration::from_millis(5);

/// How many messages are dealt with before a rest, at the most.
const BATCH: usize = 4 * 1024;

/// What is written at once, if there is as much.
const WRITE_BYTES: usize = 64 * 1024;

/// Between two complaints of a reader that is slow.
const COMPLAINTS: Duration = Duration::from_secs(10);

pub(super) enum Message {
    Event(Box<AccessEvent>),
    /// Open the file anew.
    Reopen,
    /// Say when all before is written.
    Flush(SyncSender<()>),
}

/// The writing end of a log. Without it running, events are dropped once the buffer is full.
pub struct AccessLogWriter {
    pub(super) messages: Receiver<Message>,
    pub(super) lines: Lines,
    pub(super) query: QueryRule,
    /// The number of the `Referer` field, if it is logged: its value has a query, too.
    pub(super) referer: Option<usize>,
    pub(super) destination: Destination,
    /// Open from the start if it is a file.
    pub(super) file: Option<File>,
    pub(super) dropped: Arc<Count>,
}

impl AccessLogWriter {
    /// Writes events until nobody can send any; blocks its thread.
    pub fn run(mut self) {
        // Not earlier than now: a daemon's is another one than its parent's.
        let sink = match self.file.take().map_or_else(output::stdout, Ok) {
            Ok(sink) => sink,
            Err(error) => return tracing::error!(%error, "no access log"),
        };
        let mut output = Output::new(sink);
        let mut troubles = Troubles::new(self.dropped.clone());
        while let Ok(first) = self.messages.recv() {
            let rest = self.messages.try_iter().take(BATCH);
            for message in std::iter::once(first).chain(rest) {
                match message {
                    Message::Event(event) => {
                        append(
                            &mut self.lines,
                            &self.query,
                            self.referer,
                            *event,
                            &mut output.lines,
                        );
                        if output.lines.len() >= WRITE_BYTES {
                            troubles.note(output.flush());
                        }
                    }
                    Message::Reopen => reopen(&self.destination, &mut output, &mut troubles),
                    Message::Flush(done) => {
                        troubles.note(output.flush());
                        let _ = done.send(());
                    }
                }
            }
            troubles.note(output.flush());
            troubles.complain_of_reader();
            std::thread::sleep(REST);
        }
    }
}

fn append(
    lines: &mut Lines,
    query: &QueryRule,
    referer: Option<usize>,
    mut event: AccessEvent,
    out: &mut Vec<u8>,
) {
    let texts = &mut event.texts;
    if let Some(target) = texts
        .get(Text::Target)
        .and_then(|target| query.applied(target))
    {
        texts.put(Text::Target, &target);
    }
    if let Some(referer) = referer
        && let Some(url) = texts.header(referer).and_then(|url| query.applied(url))
    {
        texts.put_header(referer, [&url[..]]);
    }
    lines.write(&event, out);
}

fn reopen(destination: &Destination, output: &mut Output<File>, troubles: &mut Troubles) {
    let Destination::File(path) = destination else {
        return;
    };
    let path: &Path = path;
    match output::open(path) {
        Ok(file) => {
            troubles.note(output.replace(file));
            tracing::info!(path = %path.display(), "the access log is open anew");
        }
        // Nothing is lost so: the file is still there, under whatever name.
        Err(error) => tracing::error!(
            %error,
            path = %path.display(),
            "the access log cannot be opened anew: writing goes on in the old file"
        ),
    }
}

/// Counts what is lost, and says so once in a while.
struct Troubles {
    dropped: Arc<Count>,
    /// Lines that could not be written since it began; `None`: all is well.
    failing: Option<u64>,
    /// How many dropped lines were told of, and when last.
    told: u64,
    told_at: Option<Instant>,
}

impl Troubles {
    fn new(dropped: Arc<Count>) -> Self {
        Self {
            dropped,
            failing: None,
            told: 0,
            told_at: None,
        }
    }

    fn note(&mut self, flushed: Result<(), Lost>) {
        match (flushed, self.failing) {
            (Ok(()), None) => {}
            (Ok(()), Some(lines)) => {
                self.failing = None;
                tracing::info!(
                    lines,
                    "the access log is written again; so many lines are lost"
                );
            }
            (Err(Lost { lines, error }), failing) => {
                if failing.is_none() {
                    tracing::error!(%error, "the access log cannot be written; its lines are lost");
                }
                let lines = lines as u64;
                self.failing = Some(failing.unwrap_or(0) + lines);
                self.dropped.add_many(lines);
                self.told += lines;
            }
        }
    }

    fn complain_of_reader(&mut self) {
        let dropped = self.dropped.get();
        let is_due = self.told_at.is_none_or(|at| at.elapsed() >= COMPLAINTS);
        if dropped > self.told && is_due {
            let lines = dropped - self.told;
            tracing::warn!(lines, "access log lines dropped: the reader is slow");
            (self.told, self.told_at) = (dropped, Some(Instant::now()));
        }
    }
}
