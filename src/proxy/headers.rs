//! Header fields, on their way to the backend and back.

use http::header::{self, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{ErrorType, OrErr, Result};
use pingora_proxy::Session;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The gateway's own entry in `Via` (RFC 9110, section 7.6.3).
const VIA: &str = "1.1 maitred";

/// Fields of an answer that concern one connection only (RFC 9110, section 7.6.1), but the framing
/// ones, which Pingora needs and renews.
const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::TE,
    header::UPGRADE,
];

/// Makes a request ready for the backend: where it came from is added, the path rewritten. Its
/// hop-by-hop fields are Pingora's to drop, and it has.
///
/// # Errors
/// When the rewritten path is no path.
pub(super) fn forward_request(
    request: &mut RequestHeader,
    client: Option<&HeaderValue>,
    path: Option<&str>,
) -> Result<()> {
    if let Some(path) = path {
        let target = with_query(path, request.uri.query())?;
        request.set_uri(target);
    }
    // Answered by us: the body is sent when there is a slot.
    request.remove_header(&header::EXPECT);
    if let Some(client) = client {
        append(request, FORWARDED_FOR, client)?;
    }
    append(request, header::VIA, &HeaderValue::from_static(VIA))?;
    request.insert_header(FORWARDED_PROTO, HeaderValue::from_static("http"))?;
    match request.headers.get(header::HOST).cloned() {
        Some(host) => request.insert_header(FORWARDED_HOST, host),
        None => {
            request.remove_header(&FORWARDED_HOST);
            Ok(())
        }
    }
}

fn with_query(path: &str, query: Option<&str>) -> Result<Uri> {
    let target = match query {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    target
        .map(Uri::from)
        .or_err(ErrorType::InvalidHTTPHeader, "rewriting the path")
}

/// Adds `value` at the end of a list field.
fn append(request: &mut RequestHeader, name: HeaderName, value: &HeaderValue) -> Result<()> {
    let mut values = request.headers.get_all(&name).iter();
    let Some(first) = values.next() else {
        return request.insert_header(name, value.clone());
    };
    let mut list = first.as_bytes().to_vec();
    for value in values.chain([value]) {
        list.extend_from_slice(b", ");
        list.extend_from_slice(value.as_bytes());
    }
    let list =
        HeaderValue::from_bytes(&list).or_err(ErrorType::InvalidHTTPHeader, "a list field")?;
    request.insert_header(name, list)
}

/// Drops the fields of an answer that concern the backend's connection only, those that
/// `Connection` names included. An accepted upgrade keeps what makes it one.
pub(super) fn strip_response(response: &mut ResponseHeader) {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    for name in nominated(&response.headers) {
        response.remove_header(&name);
    }
    for name in &HOP_BY_HOP {
        response.remove_header(name);
    }
}

/// Makes an answer fit a client of HTTP/1.0, which knows no chunks (RFC 9112, section 6.1): the end of
/// the connection ends the body.
pub(super) fn end_by_close(response: &mut ResponseHeader, session: &mut Session) {
    if response.remove_header(&header::TRANSFER_ENCODING).is_some() {
        session.set_keepalive(None);
    }
}

/// The fields that `Connection` names. Nearly always none: then nothing is allocated.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| {
            !["close", "keep-alive"]
                .iter()
                .any(|known| token.eq_ignore_ascii_case(known))
        })
        .filter_map(|token| token.parse().ok())
        // The body's framing is not the backend's to take away.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING)
        .collect()
}

/// The length that a message says its body has.
pub(super) fn content_length(headers: &HeaderMap) -> Option<usize> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.trim().parse().ok()
}

/// Whether an answer ends with its header (RFC 9112, section 6.3).
pub(super) fn has_no_body(method: &Method, response: &ResponseHeader) -> bool {
    method == Method::HEAD
        || matches!(
            response.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        )
        || content_length(&response.headers) == Some(0)
}

/// How many bytes this request has on the wire; `None` if its body is chunked.
pub(super) fn request_length(session: &Session) -> Option<u64> {
    let headers = &session.req_header().headers;
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let header = session
        .as_downstream()
        .as_http1()?
        .get_headers_raw_bytes()
        .len();
    let body = content_length(headers).unwrap_or(0);
    Some((header + body) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str) -> RequestHeader {
        RequestHeader::build("GET", target.as_bytes(), None).unwrap()
    }

    #[test]
    fn the_query_survives_a_rewrite() {
        let mut request = request("/home?a=b&c=%20");
        forward_request(&mut request, None, Some("/")).unwrap();
        assert_eq!(request.uri.path_and_query().unwrap(), "/?a=b&c=%20");
    }

    #[test]
    fn the_client_is_added_to_those_before_it() {
        let mut request = request("/");
        request
            .append_header("X-Forwarded-For", "10.0.0.1")
            .unwrap();
        request
            .append_header("X-Forwarded-For", "10.0.0.2")
            .unwrap();
        let client = HeaderValue::from_static("10.0.0.3");
        forward_request(&mut request, Some(&client), None).unwrap();
        assert_eq!(
            request.headers["x-forwarded-for"],
            "10.0.0.1, 10.0.0.2, 10.0.0.3"
        );
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
