//! One line per request, written by a thread of its own: the request path fills an event and hands it over. When the
//! writer can't keep up, events are dropped and counted rather than waited for.
//!
//! `event` is what is handed over, `fields` what a line says of it, `line` how that is written, `query` and `sample`
//! what is left out, `writer` the thread, and `output` where it goes. Who makes the events is above.

mod event;
mod fields;
mod line;
mod output;
mod query;
mod sample;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, header};

use crate::id::RequestId;
use crate::metrics::Count;

use line::{Format, Lines};
use sample::Sample;
use writer::Message;

pub use event::{AccessEvent, Text, Texts};
pub use output::Destination;
pub use query::QueryRule;
pub use writer::AccessLogWriter;

/// How many events may wait for the writer.
const EVENTS_MAX: usize = 16 * 1024;

/// How long the end of the process waits for the last lines: a reader may be slow.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Before a full buffer is tried again.
const PAUSE: Duration = Duration::from_millis(5);

/// How requests are logged.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLogParams {
    /// Default text.
    pub format: AccessLogFormat,
    /// Default standard output.
    pub destination: Destination,
    /// Which share of the requests that nothing is wrong with is logged, in `0.0..=1.0`. Default 1.
    pub sample: f64,
    /// Default all of it.
    pub query: QueryRule,
    /// Fields of the request that are logged. No name twice. Default none.
    pub request_headers: Vec<LoggedHeader>,
}

/// What an access event looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// For people.
    Text,
    /// For programs, an object a line.
    Json,
    /// None at all.
    Off,
}

/// A field of the request that is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedHeader {
    /// Its name.
    pub name: HeaderName,
    /// Only that it is there is told, not what it says.
    pub is_redacted: bool,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the access log {}", path.display())]
pub struct AccessLogError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The request path's end of the log. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    /// `None`: the log is off.
    messages: Option<SyncSender<Message>>,
    sample: Sample,
    headers: Arc<[LoggedHeader]>,
    dropped: Arc<Count>,
}

impl AccessLog {
    /// Both ends of a log; no writer when it is off. Lines that are lost are counted in `dropped`.
    ///
    /// # Errors
    /// When its file cannot be opened or made.
    pub fn open(
        params: AccessLogParams,
        dropped: Arc<Count>,
    ) -> Result<(Self, Option<AccessLogWriter>), AccessLogError> {
        let format = match params.format {
            AccessLogFormat::Off => None,
            AccessLogFormat::Text => Some(Format::Text),
            AccessLogFormat::Json => Some(Format::Json),
        };
        let headers: Arc<[_]> = params.request_headers.into();
        let mut log = Self {
            messages: None,
            sample: Sample::of(params.sample),
            headers: headers.clone(),
            dropped: dropped.clone(),
        };
        let Some(format) = format else {
            return Ok((log, None));
        };
        let file = opened(&params.destination)?;
        let (sender, messages) = sync_channel(EVENTS_MAX);
        log.messages = Some(sender);
        let names: Vec<_> = headers.iter().map(|header| header.name.clone()).collect();
        let writer = AccessLogWriter {
            messages,
            referer: names.iter().position(|name| *name == header::REFERER),
            lines: Lines::new(format, names),
            query: params.query,
            destination: params.destination,
            file,
            dropped,
        };
        Ok((log, Some(writer)))
    }

    /// Whether a request is to be logged: all with which something was not as it should be, and a share of the others.
    pub fn takes(&self, is_fine: bool, id: Option<&RequestId>) -> bool {
        self.messages.is_some() && (!is_fine || self.sample.takes(id))
    }

    /// Sets those of a request's fields that are to be logged.
    pub fn put_headers(&self, fields: &HeaderMap, texts: &mut Texts) {
        for (number, header) in self.headers.iter().enumerate() {
            let mut values = fields.get_all(&header.name).iter().peekable();
            if values.peek().is_none() {
                continue;
            }
            match header.is_redacted {
                true => texts.put_header(number, [query::REDACTED]),
                false => texts.put_header(number, values.map(|value| value.as_bytes())),
            }
        }
    }

    /// Hands an event over, or drops it.
    pub fn log(&self, event: AccessEvent) {
        let Some(messages) = &self.messages else {
            return;
        };
        if messages.try_send(Message::Event(Box::new(event))).is_err() {
            self.dropped.add();
        }
    }

    /// Has the file opened anew, after what was logged until now is written to the old one.
    ///
    /// # Cancel safety
    /// It may be asked for or not.
    pub async fn reopen(&self) {
        while let Some(messages) = &self.messages
            && let Err(TrySendError::Full(_)) = messages.try_send(Message::Reopen)
        {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until everything handed over so far is written, five seconds at the most.
    pub fn flush(&self) {
        let Some(messages) = &self.messages else {
            return;
        };
        let (done, wait) = sync_channel(1);
        let due = Instant::now() + LAST_WORDS;
        while let Err(TrySendError::Full(_)) = messages.try_send(Message::Flush(done.clone())) {
            if Instant::now() >= due {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        drop(done);
        let _ = wait.recv_timeout(due.saturating_duration_since(Instant::now()));
    }
}

fn opened(destination: &Destination) -> Result<Option<File>, AccessLogError> {
    let Destination::File(path) = destination else {
        return Ok(None);
    };
    let file = output::open(path).map_err(|source| AccessLogError {
        path: path.clone(),
        source,
    })?;
    Ok(Some(file))
}
