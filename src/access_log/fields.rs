//! Every field of a line, once: its names, what it says, and where that is taken from. Both formats and
//! docs/access_log.md are made from this table, so none has a field that another lacks.

use std::time::{Duration, SystemTime};

use super::event::{AccessEvent, Text};

/// A field of a line.
pub(super) struct Field {
    /// What stands before its value in JSON: a separator and its name.
    pub json: &'static str,
    /// The same in text. The first ones have no names there.
    pub text: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation is a test's"))]
    pub about: &'static str,
    pub value: fn(&AccessEvent) -> Value<'_>,
}

/// What a field says.
pub(super) enum Value<'a> {
    Time(SystemTime),
    Count(u64),
    Seconds(Option<Duration>),
    /// Words of ours and names of the configuration, which mean nothing to either format.
    Word(Option<&'a [u8]>),
    /// What a client said: any bytes.
    Said(Option<&'a [u8]>),
}

macro_rules! field {
    ($json:literal, $text:literal, $value:expr, $about:literal) => {
        Field {
            json: concat!(",\"", $json, "\":"),
            text: concat!(" ", $text),
            about: $about,
            value: $value,
        }
    };
}

/// In the order in which they are written.
pub(super) static FIELDS: [Field; 21] = [
    field!(
        "time",
        "",
        |event| Value::Time(event.time),
        "When the answer was over: UTC, RFC 3339 with milliseconds."
    ),
    field!(
        "client",
        "",
        |event| Value::Word(event.texts.get(Text::Client)),
        "The client's IP address."
    ),
    field!(
        "method",
        "",
        |event| Value::Said(event.texts.get(Text::Method)),
        "The request's method."
    ),
    field!(
        "target",
        "",
        |event| Value::Said(event.texts.get(Text::Target)),
        "Path and query as the client sent them, but for `access_log.query` and `redact_query`."
    ),
    field!(
        "status",
        "",
        |event| Value::Count(event.status.into()),
        "The status that the client saw; 499 if it left before, 0 if it saw none."
    ),
    field!(
        "request_id",
        "id=",
        |event| Value::Word(event.texts.get(Text::Id)),
        "`X-Request-Id`, as backend and client know it. Absent with `request_id: off`."
    ),
    field!(
        "host",
        "host=",
        |event| Value::Said(event.texts.get(Text::Host)),
        "The request's `Host` field. Absent if it had none."
    ),
    field!(
        "protocol",
        "protocol=",
        |event| Value::Word(Some(event.protocol.as_bytes())),
        "What the client spoke, such as `HTTP/1.1`."
    ),
    field!(
        "upstream",
        "upstream=",
        |event| Value::Word(event.texts.get(Text::Upstream)),
        "Where it was to go. Absent if no route was found."
    ),
    field!(
        "backend",
        "backend=",
        |event| Value::Word(event.texts.get(Text::Backend)),
        "Who had it last. Absent if nobody had it."
    ),
    field!(
        "attempts",
        "attempts=",
        |event| Value::Count(event.attempts.into()),
        "How often something of it was sent to a backend."
    ),
    field!(
        "retries",
        "retries=",
        |event| Value::Count(event.retries.into()),
        "How often it was tried again, also where nothing had been sent."
    ),
    field!(
        "total_seconds",
        "total=",
        |event| Value::Seconds(Some(event.total)),
        "From the request's header complete to the end of the answer, or of the connection."
    ),
    field!(
        "queue_seconds",
        "queue=",
        |event| Value::Seconds(Some(event.queued)),
        "Waiting for a slot, all attempts together."
    ),
    field!(
        "first_byte_seconds",
        "first_byte=",
        |event| Value::Seconds(event.first_byte),
        "From the request being sent to the backend's header complete, in the last attempt. Absent if it never was."
    ),
    field!(
        "backend_seconds",
        "backend_time=",
        |event| Value::Seconds(event.served),
        "From the request being sent to the backend's last byte, in the last attempt: for so long the slot was in use. Absent if that never came."
    ),
    field!(
        "bytes_received",
        "received=",
        |event| Value::Count(event.bytes_received),
        "Bytes of the request's body that were read, without its framing."
    ),
    field!(
        "bytes_sent",
        "sent=",
        |event| Value::Count(event.bytes_sent),
        "Bytes of the answer's body that were sent, without its framing."
    ),
    field!(
        "reason",
        "reason=",
        |event| Value::Word(event.reason.map(str::as_bytes)),
        "Why the proxy answered by itself, such as `queue_timeout`: the `error` of the answer. Absent if a backend's answer was passed on."
    ),
    field!(
        "retried",
        "retried=",
        |event| Value::Word(event.retried.map(str::as_bytes)),
        "Why it was sent again, the last time: `connect_failure`, `stale_connection`, `reset_before_response`, `invalid_response`, `502`, `503`, `504`, `timeout`, or `shortage` of something of the proxy's own. Absent if it was not."
    ),
    field!(
        "trace_id",
        "trace=",
        |event| Value::Word(event.texts.get(Text::Trace).and_then(trace_id)),
        "The trace that it is part of: 32 hexadecimal digits of a `traceparent` (W3C Trace Context). Absent without a valid one."
    ),
];

/// What a `traceparent` names (W3C Trace Context, section 3.2): `VERSION-TRACE-PARENT-FLAGS`, in small hexadecimal
/// digits. Later versions may have more after that.
fn trace_id(field: &[u8]) -> Option<&[u8]> {
    let (known, more) = field.split_at_checked(55)?;
    let mut parts = known.split(|byte| *byte == b'-');
    let mut next = |digits| {
        parts
            .next()
            .filter(|part| part.len() == digits && is_hexadecimal(part))
    };
    let (version, trace, parent, _flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
    let is_complete = match version {
        b"00" => more.is_empty(),
        b"ff" => false,
        _ => more.first().is_none_or(|byte| *byte == b'-'),
    };
    let is_some = |id: &[u8]| id.iter().any(|digit| *digit != b'0');
    (is_complete && is_some(trace) && is_some(parent)).then_some(trace)
}

fn is_hexadecimal(digits: &[u8]) -> bool {
    digits
        .iter()
        .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_named_by_a_valid_parent_only() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let named =
            |field: String| trace_id(field.as_bytes()).is_some_and(|id| id == trace.as_bytes());
        for (field, is_valid) in [
            (format!("00-{trace}-00f067aa0ba902b7-01"), true),
            (format!("01-{trace}-00f067aa0ba902b7-01-more"), true),
            (format!("00-{trace}-00f067aa0ba902b7-01-more"), false),
            (format!("01-{trace}-00f067aa0ba902b7-01more"), false),
            (format!("ff-{trace}-00f067aa0ba902b7-01"), false),
            (format!("00-{trace}-0000000000000000-01"), false),
            (
                format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
                false,
            ),
            (format!("00-{trace}-00f067aa0ba902b7-0"), false),
            (format!("00-{trace}"), false),
            (String::new(), false),
        ] {
            assert_eq!(named(field.clone()), is_valid, "{field}");
        }
        let nobody = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        assert_eq!(trace_id(nobody.as_bytes()), None);
    }
}
