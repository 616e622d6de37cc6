//! What one request is called, here and at everybody whom it passes.

use bytes::Bytes;
use http::HeaderValue;
use uuid::fmt::Hyphenated;

/// The value of `X-Request-Id`: 1 to 128 bytes, each of them a letter, a digit or one of `._~:+/=@-`. That is room for
/// UUIDs, trace ids, base64 and URLs, and none of it means anything in a log line, a query, JSON or HTML; so whoever
/// writes it anywhere need not escape it. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Longer ones would fill logs, and the memory of whoever keeps them.
    pub const BYTES_MAX: usize = 128;

    /// A version 7 UUID (RFC 9562, section 5.7), which sorts by its time. `None` never happens: a UUID is such a
    /// value.
    pub fn new(unix_millis: u64, random: [u8; 10]) -> Option<Self> {
        let uuid = uuid::Builder::from_unix_timestamp_millis(unix_millis, &random).into_uuid();
        let mut text = [0; Hyphenated::LENGTH];
        uuid.hyphenated().encode_lower(&mut text);
        // One allocation, whoever shares it; that of a `Vec` takes another with the first clone.
        let value = HeaderValue::from_maybe_shared(Bytes::from_owner(text));
        value.ok().map(Self)
    }

    /// What somebody else has called it, if that is such a value.
    pub fn accept(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let is_valid = (1..=Self::BYTES_MAX).contains(&bytes.len())
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._~:+/=@-".contains(byte));
        is_valid.then(|| Self(value.clone()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// As a field's value.
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(value: &[u8]) -> bool {
        HeaderValue::from_bytes(value)
            .ok()
            .and_then(|value| RequestId::accept(&value))
            .is_some()
    }

    /// The example of RFC 9562, appendix A.6.
    #[test]
    fn a_new_one_is_a_uuid_of_version_7() {
        let random = [0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f];
        let id = RequestId::new(0x017F_22E2_79B0, random).unwrap();
        assert_eq!(id.as_str(), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        assert!(accepts(id.as_str().as_bytes()));
    }

    #[test]
    fn what_others_use_is_accepted() {
        for value in [
            "x",
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "dGhlIHNhbXBsZSBub25jZQ==",
            "web-1/2f:77+a~b_c.d@host",
            &"x".repeat(128),
        ] {
            assert!(accepts(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn what_could_mean_something_elsewhere_is_not() {
        for value in [
            &b""[..],
            b"a b",
            b"a\tb",
            b"a\"b",
            b"a\\b",
            b"a,b",
            b"a;b",
            b"a%0a",
            b"<a>",
            b"a&b",
            b"a'b",
            b"\xff",
            b"\xc3\xa4",
            &[b'x'; 129],
        ] {
            assert!(!accepts(value), "{value:?}");
        }
    }
}
