//! Header fields, on their way to the backend and back.

use std::time::Duration;

use http::header::{self, Entry, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode, request};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{ErrorType, OrErr, Result};
use pingora_proxy::Session;

use crate::id::RequestId;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");
pub(super) const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// How many fields are added to a request at the most.
const ADDED: usize = 5;

/// The gateway's own entry in `Via` (RFC 9110, section 7.6.3).
const VIA: &str = "1.1 maitred";

/// Fields of a request that concern one connection only, and those whose framing is renewed.
const REQUEST_HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    header::UPGRADE,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    HTTP2_SETTINGS,
];

/// Fields of an answer that concern one connection only (RFC 9110, section 7.6.1), but the framing
/// ones, which Pingora needs and renews.
const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::TE,
    header::UPGRADE,
];

/// Takes a request in: drops what its `Connection` names, adds where it came from and what it is called, and gives
/// up the letter case of its fields' names, which means nothing (RFC 9110, section 5.1) and would have to be kept in
/// a second map, copied with the first. To be called once per request.
///
/// # Errors
/// When what was parsed once can't be parsed again.
pub(super) fn take_in(
    request: &mut RequestHeader,
    asked: Asked,
    client: Option<HeaderValue>,
    id: Option<&RequestId>,
) -> Result<()> {
    let odd_target = odd_target(request).map(<[u8]>::to_vec);
    let nothing = http::Request::new(()).into_parts().0.into();
    let mut parts = request::Parts::from(std::mem::replace(request, nothing));
    if asked.hop_by_hop {
        drop_nominated(&mut parts.headers);
    }
    add_origin(&mut parts.headers, client)?;
    if let Some(id) = id {
        parts.headers.insert(REQUEST_ID, id.value().clone());
    }
    *request = parts.into();
    odd_target.map_or(Ok(()), |target| request.set_raw_path(&target))
}

/// A request's target, if its URI alone does not say it: a whole URL, or not UTF-8.
fn odd_target(request: &RequestHeader) -> Option<&[u8]> {
    let target = request.uri.path_and_query();
    let is_plain = target.is_some_and(|target| target.as_str().as_bytes() == request.raw_path());
    (!is_plain).then(|| request.raw_path())
}

fn add_origin(headers: &mut HeaderMap, client: Option<HeaderValue>) -> Result<()> {
    headers.reserve(ADDED);
    if let Some(client) = client {
        append(headers, FORWARDED_FOR, client)?;
    }
    append(headers, header::VIA, HeaderValue::from_static(VIA))?;
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    match headers.get(header::HOST).cloned() {
        Some(host) => headers.insert(FORWARDED_HOST, host),
        None => headers.remove(FORWARDED_HOST),
    };
    Ok(())
}

/// Adds `value` at the end of a list field.
fn append(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) -> Result<()> {
    match headers.entry(name) {
        Entry::Vacant(entry) => {
            entry.insert(value);
        }
        Entry::Occupied(mut entry) => {
            let values: Vec<_> = entry
                .iter()
                .chain([&value])
                .map(HeaderValue::as_bytes)
                .collect();
            let list = HeaderValue::from_bytes(&values.join(&b", "[..]))
                .or_err(ErrorType::InvalidHTTPHeader, "a list field")?;
            entry.insert(list);
        }
    }
    Ok(())
}

/// Which fields of a request ask something of the proxy, found in one pass: most requests have none of them,
/// and to look for each by itself is dearer.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked {
    /// Something concerns this connection only; without, Pingora need not look for it.
    pub(super) hop_by_hop: bool,
    /// There is an `Expect`.
    pub(super) leave: bool,
    /// There is an `X-Request-Id`.
    pub(super) request_id: bool,
    /// There is a `traceparent`.
    pub(super) trace: bool,
    /// There is an `X-Request-Timeout`.
    pub(super) timeout: bool,
    is_chunked: bool,
    has_length: bool,
}

impl Asked {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut asked = Self::default();
        for name in headers.keys() {
            asked.hop_by_hop |= REQUEST_HOP_BY_HOP.contains(name);
            asked.leave |= *name == header::EXPECT;
            asked.request_id |= *name == REQUEST_ID;
            asked.trace |= *name == TRACE_PARENT;
            asked.timeout |= *name == REQUEST_TIMEOUT;
            asked.is_chunked |= *name == header::TRANSFER_ENCODING;
            asked.has_length |= *name == header::CONTENT_LENGTH;
        }
        asked
    }
}

/// What a field says that came once; one that came several times says nothing.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether another answer follows this one.
pub(super) fn is_interim(response: &ResponseHeader) -> bool {
    response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS
}

/// What is wrong with an answer, though Pingora lets it through: others might find another end of it.
pub(super) fn problem(response: &ResponseHeader) -> Option<&'static str> {
    let (mut has_length, mut has_coding) = (false, false);
    for (name, value) in &response.headers {
        let value = value.as_bytes();
        if *name == header::CONTENT_LENGTH {
            if has_length || !value.iter().all(u8::is_ascii_digit) {
                return Some("not one length (RFC 9110, section 8.6)");
            }
            has_length = true;
        } else if *name == header::TRANSFER_ENCODING {
            if has_coding || !value.eq_ignore_ascii_case(b"chunked") {
                return Some("a coding that nobody asked for (RFC 9112, section 7)");
            }
            has_coding = true;
        }
    }
    None
}

/// Drops the fields of an answer that concern the backend's connection only, those that
/// `Connection` names included. An accepted upgrade keeps what makes it one.
pub(super) fn strip_response(response: &mut ResponseHeader) {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    if !response
        .headers
        .keys()
        .any(|name| HOP_BY_HOP.contains(name))
    {
        return;
    }
    for name in nominated(&response.headers) {
        response.remove_header(&name);
    }
    for name in &HOP_BY_HOP {
        response.remove_header(name);
    }
}

/// What a client wrote is no duration.
pub(super) struct NotADuration;

/// Makes an answer fit a client of HTTP/1.0, which knows no chunks (RFC 9112, section 6.1): the end of
/// the connection ends the body.
pub(super) fn end_by_close(response: &mut ResponseHeader, session: &mut Session) {
    if response.remove_header(&header::TRANSFER_ENCODING).is_some() {
        session.set_keepalive(None);
    }
}

/// Drops the fields that a request's `Connection` names, and their names in it: later, a field of ours would be
/// dropped with them.
fn drop_nominated(headers: &mut HeaderMap) {
    let nominated = nominated(headers);
    if nominated.is_empty() {
        return;
    }
    for name in &nominated {
        headers.remove(name);
    }
    let kept: Vec<_> = OPTIONS
        .into_iter()
        .filter(|option| options(headers).any(|token| token.eq_ignore_ascii_case(option)))
        .collect();
    match HeaderValue::try_from(kept.join(", ")) {
        Ok(value) if !kept.is_empty() => headers.insert(header::CONNECTION, value),
        _ => headers.remove(header::CONNECTION),
    };
}

/// What `Connection` may say that names no field, or none to be dropped by its name.
const OPTIONS: [&str; 3] = ["close", "keep-alive", "upgrade"];

/// What is neither side's to take away: where the message goes, and where it ends.
const KEPT: [HeaderName; 3] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
];

fn options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter();
    let lists = values.filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

/// The fields that `Connection` names. Nearly always none: then nothing is allocated.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    options(headers)
        .filter(|token| {
            !OPTIONS
                .iter()
                .any(|known| token.eq_ignore_ascii_case(known))
        })
        .filter_map(|token| token.parse().ok())
        .filter(|name| !KEPT.contains(name))
        .collect()
}

/// How long a backend wants to be left alone (RFC 9110, section 10.2.3), a day at the most. One that names a
/// date, which its clock and ours would have to agree on, is not heard.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    const SECONDS_MAX: u64 = 24 * 60 * 60;
    let seconds: u64 = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds.min(SECONDS_MAX)))
}

/// The length that a message says its body has.
pub(super) fn content_length(headers: &HeaderMap) -> Option<usize> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    let digits = std::str::from_utf8(value.as_bytes().trim_ascii());
    digits.ok()?.parse().ok()
}

/// Whether an answer ends with its header (RFC 9112, section 6.3).
pub(super) fn has_no_body(
    method: &Method,
    status: StatusCode,
    content_length: Option<usize>,
) -> bool {
    method == Method::HEAD
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || content_length == Some(0)
}

/// Whether an answer is a stream of events, which is not meant to end.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let media_type = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    media_type.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// Whether an answer that ends with its header says that it has a body.
pub(super) fn announces_body(headers: &HeaderMap, content_length: Option<usize>) -> bool {
    content_length.is_some_and(|length| length > 0)
        || headers.contains_key(header::TRANSFER_ENCODING)
}

/// Asks the backend to close the connection after its answer. An upgrade stays one.
pub(super) fn ask_to_close(request: &mut RequestHeader) -> Result<()> {
    let is_upgrade = request.headers.contains_key(header::UPGRADE);
    let value = if is_upgrade {
        "close, Upgrade"
    } else {
        "close"
    };
    request.insert_header(header::CONNECTION, value)
}

/// When the client itself gives up, as it says in `X-Request-Timeout`.
///
/// # Errors
/// When that is no duration such as `2s`.
pub(super) fn client_timeout(headers: &HeaderMap) -> Result<Option<Duration>, NotADuration> {
    let Some(value) = headers.get(REQUEST_TIMEOUT) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| NotADuration)?;
    let timeout = humantime::parse_duration(text).map_err(|_| NotADuration)?;
    Ok(Some(timeout))
}

/// Tells how long a request waited for its slot and how long its backend took to begin its answer, in
/// milliseconds (W3C Server Timing).
pub(super) fn tell_timing(
    response: &mut ResponseHeader,
    queued: Duration,
    backend: Option<Duration>,
) -> Result<()> {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let mut timing = format!("queue;dur={:.3}", millis(queued));
    if let Some(backend) = backend {
        timing += &format!(", backend;dur={:.3}", millis(backend));
    }
    response.append_header("Server-Timing", timing)?;
    Ok(())
}

/// Tells the client what its request is called; what the backend calls it is dropped, so that the client knows it by
/// the name that it has in the log.
pub(super) fn tell_id(response: &mut ResponseHeader, id: Option<&RequestId>) -> Result<()> {
    id.map_or(Ok(()), |id| {
        // As a string, which keeps its case.
        response.insert_header("X-Request-Id", id.value().clone())
    })
}

/// How many bytes this request has on the wire; `None` if its body is chunked.
pub(super) fn request_length(session: &Session, asked: Asked) -> Option<u64> {
    if asked.is_chunked {
        return None;
    }
    let header = session
        .as_downstream()
        .as_http1()?
        .get_headers_raw_bytes()
        .len();
    let body = if asked.has_length {
        content_length(&session.req_header().headers)
    } else {
        None
    };
    Some((header + body.unwrap_or(0)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str) -> RequestHeader {
        RequestHeader::build("GET", target.as_bytes(), None).unwrap()
    }

    #[test]
    fn a_stream_of_events_is_known_by_its_type() {
        for (kind, is_one) in [
            ("text/event-stream; charset=utf-8", true),
            ("Text/Event-Stream ;charset=utf-8", true),
            ("text/event-streams", false),
            ("text/html", false),
        ] {
            let mut response = ResponseHeader::build(200, None).unwrap();
            assert!(!is_event_stream(&response.headers));
            response.insert_header("Content-Type", kind).unwrap();
            assert_eq!(is_event_stream(&response.headers), is_one);
        }
    }

    #[test]
    fn an_answer_that_others_might_read_otherwise_has_a_problem() {
        let has_problem = |fields: &[(&'static str, &str)]| {
            let mut response = ResponseHeader::build(200, None).unwrap();
            for (name, value) in fields {
                response.append_header(*name, *value).unwrap();
            }
            problem(&response).is_some()
        };
        for fields in [
            &[("Content-Length", "3"), ("X-List", "a, b")][..],
            &[("Transfer-Encoding", "Chunked")],
            &[],
        ] {
            assert!(!has_problem(fields), "{fields:?}");
        }
        for fields in [
            &[("Content-Length", "3, 3")][..],
            &[("Content-Length", "3"), ("Content-Length", "3")],
            &[("Content-Length", "+3")],
            &[("Transfer-Encoding", "gzip")],
            &[("Transfer-Encoding", "gzip, chunked")],
            &[
                ("Transfer-Encoding", "chunked"),
                ("Transfer-Encoding", "chunked"),
            ],
        ] {
            assert!(has_problem(fields), "{fields:?}");
        }
    }

    #[test]
    fn the_client_is_added_to_those_before_it() {
        let mut request = request("/");
        for client in ["10.0.0.1", "10.0.0.2"] {
            request.append_header("X-Forwarded-For", client).unwrap();
        }
        let client = HeaderValue::from_static("10.0.0.3");
        take_in(&mut request, Asked::default(), Some(client), None).unwrap();
        assert_eq!(
            request.headers["x-forwarded-for"],
            "10.0.0.1, 10.0.0.2, 10.0.0.3"
        );
    }

    #[test]
    fn what_connection_names_is_dropped_but_not_what_is_added_under_that_name() {
        let mut request = request("/");
        for (name, value) in [
            ("Host", "a.example"),
            ("Connection", "Upgrade, X-Forwarded-For, Host, via, X-Mine"),
            ("X-Forwarded-For", "10.0.0.1"),
            ("X-Mine", "1"),
        ] {
            request.append_header(name, value).unwrap();
        }
        let client = HeaderValue::from_static("10.0.0.3");
        let asked = Asked::of(&request.headers);
        take_in(&mut request, asked, Some(client), None).unwrap();
        let value = |name| request.headers.get(name).map(HeaderValue::as_bytes);
        assert_eq!(value("x-forwarded-for"), Some(&b"10.0.0.3"[..]));
        assert_eq!(value("via"), Some(VIA.as_bytes()));
        assert_eq!(value("host"), Some(&b"a.example"[..]));
        assert_eq!(value("connection"), Some(&b"upgrade"[..]));
        assert_eq!(value("x-mine"), None);
    }

    #[test]
    fn a_target_stays_as_it_was_written() {
        for target in [&b"/a?b=%20"[..], b"http://a.example/b", b"/\xff", b"*"] {
            let mut request = RequestHeader::build("GET", target, None).unwrap();
            take_in(&mut request, Asked::default(), None, None).unwrap();
            assert_eq!(request.raw_path(), target);
        }
    }

    #[test]
    fn an_answer_loses_what_connection_names_but_not_its_framing() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("Connection", "close, X-Mine, content-length"),
            ("X-Mine", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Content-Length", "2"),
        ] {
            response.append_header(name, value).unwrap();
        }
        strip_response(&mut response);
        let left: Vec<_> = response.headers.keys().collect();
        assert_eq!(left, ["content-length"]);
    }
}
