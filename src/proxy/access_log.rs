//! One line per request, written by a thread of its own: the request path fills an event and hands
//! it over. When the writer can't keep up, events are dropped and counted rather than waited for.
//!
//! The writer rests a moment after each batch, so that under load most requests find it awake or resting
//! and need not wake it, which is a system call.

use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method};
use pingora_proxy::Session;
use serde_json::json;

use super::context::Context;
use super::fault::Fault;
use super::outcome::Outcome;
use crate::config::AccessLogFormat;
use crate::door::ClientStream;
use crate::id::{BackendName, UpstreamName};
use crate::metrics::ProxyCounters;

/// How many events may wait for the writer.
const EVENTS_MAX: usize = 16 * 1024;

/// Between two batches of lines.
const REST: Duration = Duration::from_millis(5);

/// What is said of one request.
pub struct AccessEvent {
    /// When its answer was over.
    pub time: SystemTime,
    /// The client's address.
    pub client: Option<HeaderValue>,
    /// Its method.
    pub method: Method,
    /// Its path and query, as the client sent them.
    pub target: String,
    /// The status that the client saw; 499 if it left before.
    pub status: u16,
    /// Bytes of the answer's body that were sent.
    pub bytes: usize,
    /// Where it went.
    pub upstream: Option<UpstreamName>,
    /// Who had it last.
    pub backend: Option<BackendName>,
    /// How often it was sent to a backend.
    pub attempts: u32,
    /// From the header's end to the answer's.
    pub total: Duration,
    /// Waiting for a slot.
    pub queued: Duration,
    /// From being sent to the backend's last byte, in the last attempt.
    pub served: Option<Duration>,
    /// Why the proxy answered by itself.
    pub reason: Option<&'static str>,
    /// Why it was sent again.
    pub retried: Option<&'static str>,
}

/// The request path's end of the log. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    /// `None`: the log is off.
    events: Option<SyncSender<Message>>,
    counters: Arc<ProxyCounters>,
}

/// The other end. Without it running, events are dropped once the buffer is full.
pub struct AccessLogWriter {
    events: Receiver<Message>,
    line: fn(&AccessEvent, &mut Line),
    counters: Arc<ProxyCounters>,
}

enum Message {
    Event(Box<AccessEvent>),
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Both ends of a log; no writer when it is off.
    pub fn new(
        format: AccessLogFormat,
        counters: Arc<ProxyCounters>,
    ) -> (Self, Option<AccessLogWriter>) {
        let line: fn(&AccessEvent, &mut Line) = match format {
            AccessLogFormat::Off => {
                return (
                    Self {
                        events: None,
                        counters,
                    },
                    None,
                );
            }
            AccessLogFormat::Text => text,
            AccessLogFormat::Json => json,
        };
        let (sender, events) = sync_channel(EVENTS_MAX);
        let log = Self {
            events: Some(sender),
            counters: counters.clone(),
        };
        (
            log,
            Some(AccessLogWriter {
                events,
                line,
                counters,
            }),
        )
    }

    /// Whether anyone reads events: without, none need be made.
    pub fn is_on(&self) -> bool {
        self.events.is_some()
    }

    /// Hands an event over, or drops it.
    pub fn log(&self, event: AccessEvent) {
        let Some(events) = &self.events else { return };
        if events.try_send(Message::Event(Box::new(event))).is_err() {
            self.counters.log_dropped.add();
        }
    }

    /// Waits until everything handed over so far is written, five seconds at the most: a reader may be
    /// slow, and the process must end.
    pub fn flush(&self) {
        let Some(events) = &self.events else { return };
        let (done, wait) = sync_channel(1);
        if events.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_secs(5));
        }
    }
}

impl AccessLogWriter {
    /// Writes events until nobody can send any; blocks its thread.
    pub fn run(self, out: impl Write) {
        let mut out = BufWriter::new(out);
        let mut line = Line::default();
        let mut reported = 0;
        while let Ok(first) = self.events.recv() {
            for message in std::iter::once(first).chain(self.events.try_iter()) {
                self.write(message, &mut line, &mut out);
            }
            let _ = out.flush();
            let dropped = self.counters.log_dropped.get();
            if dropped > reported {
                let lines = dropped - reported;
                tracing::warn!(lines, "access log lines dropped: the reader is slow");
                reported = dropped;
            }
            std::thread::sleep(REST);
        }
    }

    /// A reader that went away (a closed pipe) is no reason to stop serving.
    fn write(&self, message: Message, line: &mut Line, out: &mut impl Write) {
        match message {
            Message::Event(event) => {
                line.0.clear();
                (self.line)(&event, line);
                line.0.push('\n');
                let _ = out.write_all(line.0.as_bytes());
            }
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.send(());
            }
        }
    }
}

/// What the log says of a request that is over.
pub(super) fn event(session: &Session, context: &Context, outcome: &Outcome<'_>) -> AccessEvent {
    let request = session.req_header();
    let stream = ClientStream::of(session);
    AccessEvent {
        time: SystemTime::now(),
        client: stream.map(|stream| stream.address().clone()),
        method: request.method.clone(),
        target: String::from_utf8_lossy(request.raw_path()).into_owned(),
        status: outcome.status,
        bytes: session.body_bytes_sent(),
        upstream: context
            .upstream
            .as_ref()
            .map(|upstream| upstream.params().name.clone()),
        backend: context.backend().map(|backend| backend.name().clone()),
        attempts: context.record.attempts,
        total: outcome.total,
        queued: context.record.queued,
        served: context.record.served,
        reason: outcome.fault.map(Fault::code),
        retried: context.record.retried,
    }
}

/// A line in the making. Without `format!`, with which it cost three times as much (6.7k instructions).
#[derive(Default)]
struct Line(String);

impl Line {
    fn word(&mut self, word: &str) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        self.0.push_str(word);
    }

    fn field(&mut self, name: &str, value: Option<&str>) {
        self.word(name);
        self.0.push('=');
        self.0.push_str(value.unwrap_or("-"));
    }

    fn count(&mut self, name: &str, count: usize) {
        self.field(name, Some(itoa::Buffer::new().format(count)));
    }

    /// In seconds, with six decimals.
    fn duration(&mut self, name: &str, duration: Option<Duration>) {
        let Some(duration) = duration else {
            return self.field(name, None);
        };
        self.field(name, Some(itoa::Buffer::new().format(duration.as_secs())));
        self.0.push('.');
        // A leading one keeps the zeros; it is not written.
        let micros = 1_000_000 + duration.subsec_micros();
        self.0.push_str(&itoa::Buffer::new().format(micros)[1..]);
    }
}

fn text(event: &AccessEvent, line: &mut Line) {
    // A string takes everything.
    let _ = write!(line.0, "{}", humantime::format_rfc3339_millis(event.time));
    line.word(client(event).unwrap_or("-"));
    line.word(event.method.as_str());
    line.word(&event.target);
    line.word(itoa::Buffer::new().format(event.status));
    line.field(
        "upstream",
        event.upstream.as_ref().map(UpstreamName::as_str),
    );
    line.field("backend", event.backend.as_ref().map(BackendName::as_str));
    line.count("attempts", event.attempts as usize);
    line.duration("total", Some(event.total));
    line.duration("queue", Some(event.queued));
    line.duration("backend_time", event.served);
    line.count("bytes", event.bytes);
    line.field("reason", event.reason);
    line.field("retried", event.retried);
}

fn json(event: &AccessEvent, line: &mut Line) {
    let json = json!({
        "time": humantime::format_rfc3339_millis(event.time).to_string(),
        "client": client(event),
        "method": event.method.as_str(),
        "target": event.target,
        "status": event.status,
        "bytes": event.bytes,
        "upstream": event.upstream,
        "backend": event.backend,
        "attempts": event.attempts,
        "total_seconds": event.total.as_secs_f64(),
        "queue_seconds": event.queued.as_secs_f64(),
        "backend_seconds": event.served.map(|served| served.as_secs_f64()),
        "reason": event.reason,
        "retried": event.retried,
    });
    line.0.push_str(&json.to_string());
}

fn client(event: &AccessEvent) -> Option<&str> {
    event.client.as_ref()?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn event() -> AccessEvent {
        AccessEvent {
            time: SystemTime::UNIX_EPOCH,
            client: Some(HeaderValue::from_static("10.0.0.1")),
            method: Method::GET,
            target: "/home?q=\"1\"".into(),
            status: 200,
            bytes: 5,
            upstream: Some("demo".into()),
            backend: Some("server1".into()),
            attempts: 2,
            total: Duration::from_millis(12),
            queued: Duration::from_millis(2),
            served: Some(Duration::from_millis(10)),
            reason: None,
            retried: Some("connect_refused"),
        }
    }

    fn line(format: fn(&AccessEvent, &mut Line), event: &AccessEvent) -> String {
        let mut line = Line::default();
        format(event, &mut line);
        line.0
    }

    #[test]
    fn a_text_line_has_every_field() {
        assert_eq!(
            line(text, &event()),
            "1970-01-01T00:00:00.000Z 10.0.0.1 GET /home?q=\"1\" 200 upstream=demo backend=server1 \
             attempts=2 total=0.012000 queue=0.002000 backend_time=0.010000 bytes=5 reason=- \
             retried=connect_refused"
        );
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_times_keep_their_zeros() {
        let event = AccessEvent {
            backend: None,
            total: Duration::new(61, 20_300),
            served: None,
            ..event()
        };
        let line = line(text, &event);
        for part in ["backend=-", "total=61.000020", "backend_time=-"] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn a_json_line_is_json_whatever_the_client_sent() {
        let read: serde_json::Value = serde_json::from_str(&line(json, &event())).unwrap();
        assert_eq!(read["target"], "/home?q=\"1\"");
        assert_eq!(read["backend_seconds"], 0.01);
    }

    #[test]
    fn what_was_logged_is_written_once_flushed() {
        let (mut read, write) = std::io::pipe().unwrap();
        let (log, writer) = AccessLog::new(AccessLogFormat::Text, crate::proxy::counters());
        std::thread::spawn(move || writer.unwrap().run(write));
        log.log(event());
        log.flush();
        let mut line = [0; 24];
        read.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"1970-01-01T00:00:00.000Z");
    }
}
