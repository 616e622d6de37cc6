//! Owns what clients and backends have agreed on: how a request says what it wants, and how its answer shows that it
//! is this request's and nobody else's.

use std::collections::HashMap;
use std::time::Duration;

use crate::http::{Head, chunks};

/// Who is asked, and what for: the request's id, which the proxy passes on.
pub const ID: &str = "X-Request-Id";
/// The same id, as the backend read it: the proxy does not know this field.
const TAG: &str = "X-Soak-Id";
const BACKEND: &str = "X-Soak-Backend";
/// What the backend read of the request's body.
const BODY_SEEN: &str = "X-Soak-Body";

/// What a request asks for, in its query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub takes: Duration,
    /// Of the answer's body.
    pub bytes: usize,
    pub is_chunked: bool,
    /// In the middle of the answer's body.
    pub pause: Duration,
}

impl Wish {
    pub fn query(&self) -> String {
        format!(
            "takes={}&bytes={}&chunked={}&pause={}",
            self.takes.as_millis(),
            self.bytes,
            u8::from(self.is_chunked),
            self.pause.as_millis(),
        )
    }

    /// From a request line. What is not said is zero.
    pub fn read(start: &str) -> Self {
        let query = start.split(' ').nth(1).and_then(|it| it.split_once('?'));
        let query = query.map_or("", |(_, query)| query);
        let values: HashMap<&str, u64> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
            .collect();
        let value = |name| values.get(name).copied().unwrap_or(0);
        Self {
            takes: Duration::from_millis(value("takes")),
            bytes: usize::try_from(value("bytes")).unwrap_or(0),
            is_chunked: value("chunked") > 0,
            pause: Duration::from_millis(value("pause")),
        }
    }
}

/// An answer as it should be.
pub struct Answer {
    pub head: String,
    /// As it goes over the wire, without what ends a chunked one.
    pub body: Vec<u8>,
    pub is_chunked: bool,
}

impl Answer {
    pub fn new(backend: &str, request: &Head, request_body: &[u8], wish: &Wish) -> Self {
        let id = request.get(ID).unwrap_or_default();
        let is_head = request.start.starts_with("HEAD ");
        let framing = match wish.is_chunked {
            true => "Transfer-Encoding: chunked".to_owned(),
            false => format!("Content-Length: {}", wish.bytes),
        };
        let seen = fingerprint(request_body);
        let head = format!(
            "HTTP/1.1 200 OK\r\n{TAG}: {id}\r\n{BACKEND}: {backend}\r\n{BODY_SEEN}: {seen}\r\n{framing}\r\n\r\n"
        );
        let body = match (is_head, wish.is_chunked) {
            (true, _) => Vec::new(),
            (false, true) => chunks(&body_of(id, wish.bytes), 8 * 1024),
            (false, false) => body_of(id, wish.bytes),
        };
        Self {
            head,
            body,
            is_chunked: wish.is_chunked && !is_head,
        }
    }
}

/// What is wrong with an answer's head, if it should be that of this request.
pub fn fault_in_head(head: &Head, id: &str, request_body: &[u8]) -> Option<String> {
    match (head.status(), head.get(TAG)) {
        (200, Some(tag)) if tag != id => Some(format!("the answer of {tag}")),
        (200, None) => Some("an answer of nobody's".into()),
        (200, _) if head.get(BODY_SEEN) != Some(&fingerprint(request_body)) => {
            Some("the backend read another body".into())
        }
        (200, _) => None,
        (status, _) => Some(format!("status {status}")),
    }
}

/// What is wrong with the body of this request's answer.
pub fn fault_in_body(body: &[u8], id: &str, bytes: usize) -> Option<String> {
    (body != body_of(id, bytes)).then(|| "another body".into())
}

/// Who says that this is its answer.
pub fn backend_of(head: &Head) -> Option<&str> {
    head.get(BACKEND)
}

/// A body that only this request has.
pub fn body_of(id: &str, bytes: usize) -> Vec<u8> {
    id.bytes().chain([b' ']).cycle().take(bytes).collect()
}

/// Length and hash (FNV-1a).
fn fingerprint(body: &[u8]) -> String {
    let hash = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{}-{hash:x}", body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_understood() {
        let wish = Wish {
            takes: Duration::from_millis(5),
            bytes: 7,
            is_chunked: true,
            pause: Duration::from_millis(9),
        };
        assert_eq!(
            Wish::read(&format!("GET /one?{} HTTP/1.1", wish.query())),
            wish
        );
        assert_eq!(Wish::read("GET /one HTTP/1.1"), Wish::default());
    }

    #[test]
    fn bodies_differ() {
        assert_eq!(body_of("a-1", 6), b"a-1 a-");
        assert!(fault_in_body(b"a-2 a-", "a-1", 6).is_some());
        assert!(fault_in_body(b"a-1 a", "a-1", 6).is_some());
        assert!(fault_in_body(b"a-1 a-", "a-1", 6).is_none());
        assert_ne!(fingerprint(b"ab"), fingerprint(b"ba"));
    }
}
