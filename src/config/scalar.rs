//! What a single value may be. A [`Reader`] says it in words once, for messages and documentation
//! alike; in a message, `section` puts the value in front of them.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderName;
use http::uri::PathAndQuery;

use crate::address::{Address, AddressError};
use crate::id::BackendName;

use super::section::nearest;
use super::tree::{Kind, Node};

/// No wait is shorter than a timer can tell, and none is endless.
const DURATIONS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
const DURATIONS_SHOWN: &str = "in 1ms..=24h";
const NAME_BYTES_MAX: usize = 64;
const STATUSES: RangeInclusive<u16> = 100..=599;

/// Reads one kind of value.
pub(super) struct Reader<'a, T> {
    form: Cow<'static, str>,
    read: Box<Read<'a, T>>,
}

type Read<'a, T> = dyn Fn(&Node) -> Result<T, String> + 'a;

impl<'a, T> Reader<'a, T> {
    /// For values that are of a form or not.
    pub fn new(form: impl Into<Cow<'static, str>>, read: impl Fn(&Node) -> Option<T> + 'a) -> Self {
        let form = form.into();
        let expected = form.clone();
        Self::telling(form, move |node| {
            read(node).ok_or_else(|| expected.clone().into_owned())
        })
    }

    /// For values that can be nearly right: the error is the part of the form that is not met, or more.
    pub fn telling(
        form: impl Into<Cow<'static, str>>,
        read: impl Fn(&Node) -> Result<T, String> + 'a,
    ) -> Self {
        let (form, read) = (form.into(), Box::new(read));
        Self { form, read }
    }

    /// All that it takes, with range: `a whole number in 1..=10`.
    pub fn form(&self) -> &str {
        &self.form
    }

    /// The value, or what was expected: `a whole number`, `in 1..=10`. The sentence goes on from "is
    /// not".
    pub fn read(&self, node: &Node) -> Result<T, String> {
        (self.read)(node)
    }
}

/// A whole number, decimal and not quoted.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> Reader<'static, T>
where
    T: TryFrom<u64> + PartialOrd + Display + 'static,
{
    const KIND: &str = "a whole number";
    let bounds = format!("in {}..={}", range.start(), range.end());
    Reader::telling(format!("{KIND} {bounds}"), move |node| {
        let is_number = |text: &&str| is_digits(text.strip_prefix('-').unwrap_or(text));
        let text = node.plain().filter(is_number).ok_or(KIND)?;
        let number = text.parse::<u64>().ok();
        number
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| bounds.clone())
    })
}

/// A whole number with a percent sign.
pub(super) fn percent(range: RangeInclusive<u8>) -> Reader<'static, u8> {
    const KIND: &str = "a percentage such as 10%";
    let bounds = format!("in {}%..={}%", range.start(), range.end());
    Reader::telling(format!("{KIND}, {bounds}"), move |node| {
        let digits = node.text().and_then(|text| text.strip_suffix('%'));
        let digits = digits.filter(|digits| is_digits(digits)).ok_or(KIND)?;
        let number = digits.parse().ok();
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| bounds.clone())
    })
}

/// A part of the whole, as a decimal fraction; not quoted.
pub(super) fn share() -> Reader<'static, f64> {
    Reader::new("a share such as 0.01, in 0..=1", |node| {
        let is_decimal = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        let text = node.plain().filter(|text| text.bytes().all(is_decimal));
        let share: f64 = text?.parse().ok()?;
        (0.0..=1.0).contains(&share).then_some(share)
    })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `true` or `false`, not quoted.
pub(super) fn flag() -> Reader<'static, bool> {
    Reader::new("true or false", |node| match node.plain() {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => None,
    })
}

/// A duration with its unit, such as `250ms` or `1m30s`.
pub(super) fn duration() -> Reader<'static, Duration> {
    const KIND: &str = "a duration such as 10s";
    Reader::telling(format!("{KIND}, {DURATIONS_SHOWN}"), |node| {
        let has_unit = |text: &&str| text.bytes().any(|byte| byte.is_ascii_alphabetic());
        let text = node.text().filter(has_unit);
        let duration = text
            .and_then(|text| humantime::parse_duration(text).ok())
            .ok_or(KIND)?;
        if !DURATIONS.contains(&duration) {
            return Err(DURATIONS_SHOWN.into());
        }
        Ok(duration)
    })
}

/// A duration that is no longer than another key's. `limit`: that one's, `None` if it is wrong, for a
/// default that nobody wrote is no reason to blame anybody.
pub(super) fn duration_within(
    limit: Option<Duration>,
    key: &'static str,
) -> Reader<'static, Duration> {
    let inner = duration();
    Reader::telling(format!("{}, at most the {key}", inner.form), move |node| {
        let duration = inner.read(node)?;
        match limit {
            Some(limit) if duration > limit => {
                let limit = humantime::format_duration(limit);
                Err(format!("at most the {key} of {limit}"))
            }
            _ => Ok(duration),
        }
    })
}

/// What another reader takes, or `off`: nothing.
pub(super) fn or_off<T: 'static>(inner: Reader<'static, T>) -> Reader<'static, Option<T>> {
    Reader::telling(format!("{}, or off", inner.form), move |node| {
        match node.text() {
            Some("off") => Ok(None),
            _ => inner
                .read(node)
                .map(Some)
                .map_err(|expected| format!("{expected}, or off")),
        }
    })
}

/// Text that is not empty. Numbers count as text where text is expected.
pub(super) fn text() -> Reader<'static, String> {
    Reader::new("text", filled_text)
}

/// A file's path, not empty.
pub(super) fn file() -> Reader<'static, PathBuf> {
    Reader::new("a file's path", |node| filled_text(node).map(PathBuf::from))
}

fn filled_text(node: &Node) -> Option<String> {
    let text = node.text()?;
    (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

/// An IP address and a port, 0 for one that the system chooses.
pub(super) fn bind() -> Reader<'static, SocketAddr> {
    Reader::new("an address such as 0.0.0.0:8080 or [::]:8080", |node| {
        node.text()?.parse().ok()
    })
}

/// Where a backend listens.
pub(super) fn peer() -> Reader<'static, Address> {
    Reader::telling(AddressError::Form.to_string(), |node| {
        let text = node.text().ok_or(AddressError::Form);
        text.and_then(str::parse)
            .map_err(|error: AddressError| error.to_string())
    })
}

/// Where a proxy tells what it knows: its admin address, as a URL.
pub(super) fn evidence_source() -> Reader<'static, Address> {
    const FORM: &str = "an admin address such as http://127.0.0.1:9900 (no path, no TLS)";
    Reader::new(FORM, |node| {
        let authority = node.text()?.strip_prefix("http://")?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let address = authority.parse().ok()?;
        (!matches!(address, Address::Unix(_))).then_some(address)
    })
}

/// An IP address of one family, as it was written.
pub(super) fn ip_address<T: FromStr>(form: &'static str) -> Reader<'static, String> {
    Reader::new(form, |node| {
        let text = node.text().filter(|text| text.parse::<T>().is_ok());
        text.map(str::to_owned)
    })
}

/// What an upstream or a backend may be called. Taken from a mapping's key as well.
pub(super) fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// What `is_name` accepts, in words.
pub(super) const NAME: &str = "a name of 1..=64 letters, digits, `.`, `_` and `-`";

/// A name of a backend.
pub(super) fn backend_name() -> Reader<'static, BackendName> {
    Reader::new(NAME, |node| {
        let name = node.text().filter(|text| is_name(text));
        name.map(BackendName::from)
    })
}

/// The name of a header field.
pub(super) fn header_name() -> Reader<'static, HeaderName> {
    Reader::new("a header's name such as X-Tenant", |node| {
        node.text()?.parse().ok()
    })
}

/// One of several words.
pub(super) fn choice<T: Copy>(choices: &'static [(&'static str, T)]) -> Reader<'static, T> {
    let words = || choices.iter().map(|(word, _)| *word);
    let form = format!("one of {}", words().collect::<Vec<_>>().join(", "));
    let expected = form.clone();
    Reader::telling(form, move |node| {
        let text = node.text().unwrap_or_default();
        let found = choices.iter().find(|(word, _)| *word == text);
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| or_nearest(&expected, text, words()))
    })
}

/// What was expected, and the word that was probably meant.
fn or_nearest<'a>(expected: &str, text: &str, words: impl Iterator<Item = &'a str>) -> String {
    match nearest(text, words) {
        Some(word) => format!("{expected}, did you mean `{word}`?"),
        None => expected.to_owned(),
    }
}

/// A word from a list that the configuration itself makes.
pub(super) fn known<'a>(form: &'static str, words: &'a [&'a str]) -> Reader<'a, &'a str> {
    Reader::telling(form, move |node| {
        let text = node.text().ok_or(form)?;
        let mut known = words.iter().copied();
        known
            .find(|word| *word == text)
            .ok_or_else(|| or_nearest(form, text, words.iter().copied()))
    })
}

/// A path of a URI: what the `http` crate accepts in one; it has no query.
pub(super) fn uri_path() -> Reader<'static, PathAndQuery> {
    const FORM: &str = "a path such as /home, in visible ascii without ? and #";
    Reader::new(FORM, |node| {
        let path = node.text().and_then(parse_target)?;
        path.query().is_none().then_some(path)
    })
}

/// A path of a URI, with a query if need be.
pub(super) fn uri_path_and_query() -> Reader<'static, String> {
    const FORM: &str = "a path such as /ping, in visible ascii without #";
    Reader::new(FORM, |node| {
        node.text()
            .and_then(parse_target)
            .map(|target| target.to_string())
    })
}

fn parse_target(text: &str) -> Option<PathAndQuery> {
    let is_plain = text.starts_with('/') && text.is_ascii() && !text.contains('#');
    is_plain.then(|| text.parse().ok()).flatten()
}

/// What a `Host` field may say: a host, with a port if need be.
pub(super) fn host_field() -> Reader<'static, String> {
    const FORM: &str = "a host such as app.internal, app.internal:8081 or [::1]:8081";
    Reader::new(FORM, |node| {
        node.text()
            .filter(|text| is_host_field(text))
            .map(str::to_owned)
    })
}

fn is_host_field(text: &str) -> bool {
    let is_port = |port: &str| is_digits(port) && port.parse().is_ok_and(|port: u16| port != 0);
    match text.rsplit_once(':') {
        _ if is_host(text) => true,
        Some((host, port)) => is_host(host) && is_port(port),
        None => false,
    }
}

/// Whether a text is a host of a URI: a domain, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn is_host(text: &str) -> bool {
    let literal = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match literal {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_domain(text),
    }
}

/// Whether a text is labels between dots. An IPv4 address is, too.
pub(super) fn is_domain(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.split('.')
        .all(|label| !label.is_empty() && label.bytes().all(is_allowed))
}

/// An HTTP status, or a range of them.
pub(super) fn statuses() -> Reader<'static, RangeInclusive<u16>> {
    const KIND: &str = "a status such as 200 or a range such as 200-299";
    let bounds = format!("in {}..={}", STATUSES.start(), STATUSES.end());
    Reader::telling(format!("{KIND}, {bounds}"), move |node| {
        let text = node.text().ok_or(KIND)?;
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        if !is_digits(first) || !is_digits(last) {
            return Err(KIND.into());
        }
        let status = |text: &str| text.parse().ok().filter(|status| STATUSES.contains(status));
        let (Some(first), Some(last)) = (status(first), status(last)) else {
            return Err(bounds.clone());
        };
        if first > last {
            return Err("a range from the lower to the higher status".into());
        }
        Ok(first..=last)
    })
}

/// A value for a message: on one line, not too long, quoted as it was written.
pub(super) fn shown(node: &Node) -> String {
    const CHARS_MAX: usize = 64;
    let (text, is_quoted) = match &node.kind {
        Kind::Plain(text) => (text, false),
        Kind::Quoted(text) => (text, true),
        Kind::Broken => return "a value".into(),
        Kind::Sequence(_) => return "a list".into(),
        Kind::Mapping(_) => return "a mapping".into(),
    };
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    if is_quoted || short.contains(char::is_control) {
        format!("{short:?}")
    } else {
        short
    }
}
