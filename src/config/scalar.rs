//! What a single value may be. Each reader says in one sentence what it expects; `section` puts
//! the value in front of it.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::address::{Address, AddressError};
use crate::id::BackendName;

use super::section::{Read, nearest};
use super::tree::{Kind, Node};

/// No wait is shorter than a timer can tell, and none is endless.
const DURATIONS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
const NAME_BYTES_MAX: usize = 64;
const PATH: &str = "a path such as /home, in visible ascii without ? and #";

/// A whole number, decimal and not quoted.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> impl Read<T>
where
    T: TryFrom<u64> + PartialOrd + Display,
{
    move |node: &Node| {
        let is_number = |text: &&str| {
            let digits = text.strip_prefix('-').unwrap_or(text);
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        };
        let text = node.plain().filter(is_number).ok_or("a whole number")?;
        let number = text
            .parse::<u64>()
            .ok()
            .and_then(|number| T::try_from(number).ok());
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("in {}..={}", range.start(), range.end()))
    }
}

/// `true` or `false`, not quoted.
pub(super) fn flag(node: &Node) -> Result<bool, String> {
    match node.plain() {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        _ => Err("true or false".into()),
    }
}

/// A duration with its unit, such as `250ms` or `1m30s`.
pub(super) fn duration(node: &Node) -> Result<Duration, String> {
    let expected = "a duration such as 10s";
    let text = node
        .text()
        .filter(|text| text.bytes().any(|byte| byte.is_ascii_alphabetic()));
    let duration = text
        .and_then(|text| humantime::parse_duration(text).ok())
        .ok_or(expected)?;
    if !DURATIONS.contains(&duration) {
        return Err("in 1ms..=24h".into());
    }
    Ok(duration)
}

/// Text that is not empty. Numbers count as text where text is expected.
pub(super) fn text(node: &Node) -> Result<String, String> {
    let text = node
        .text()
        .filter(|text| !text.is_empty() && !text.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| "text".into())
}

/// A file's path, not empty.
pub(super) fn file(node: &Node) -> Result<PathBuf, String> {
    text(node)
        .map(PathBuf::from)
        .map_err(|_| "a file's path".into())
}

/// An IP address and a port, 0 for one that the system chooses.
pub(super) fn bind(node: &Node) -> Result<SocketAddr, String> {
    let address = node.text().and_then(|text| text.parse().ok());
    address.ok_or_else(|| "an address such as 0.0.0.0:8080 or [::]:8080".into())
}

/// Where a backend listens.
pub(super) fn peer(node: &Node) -> Result<Address, String> {
    let text = node.text().ok_or_else(|| AddressError::Form.to_string())?;
    text.parse()
        .map_err(|error: AddressError| error.to_string())
}

/// An IP address of one family, as it was written.
pub(super) fn ip_address<T: FromStr>(expected: &'static str) -> impl Read<String> {
    move |node: &Node| {
        let text = node.text().filter(|text| text.parse::<T>().is_ok());
        text.map(str::to_owned).ok_or_else(|| expected.into())
    }
}

/// What an upstream or a backend may be called. Taken from a mapping's key as well.
pub(super) fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// What `is_name` accepts, in words.
pub(super) const NAME: &str = "a name of 1..=64 letters, digits, `.`, `_` and `-`";

/// A name of a backend.
pub(super) fn backend_name(node: &Node) -> Result<BackendName, String> {
    let name = node.text().filter(|text| is_name(text));
    name.map(BackendName::from).ok_or_else(|| NAME.into())
}

/// One of several words.
pub(super) fn choice<T: Copy>(choices: &'static [(&'static str, T)]) -> impl Read<T> {
    move |node: &Node| {
        let found = choices.iter().find(|(word, _)| node.text() == Some(word));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            format!("one of {}", words.join(", "))
        })
    }
}

/// A word from a list that the configuration itself makes.
pub(super) fn known<'a>(what: &'static str, words: &'a [&'a str]) -> impl Read<&'a str> {
    move |node: &Node| {
        let text = node.text().ok_or_else(|| what.to_owned())?;
        words
            .iter()
            .copied()
            .find(|word| *word == text)
            .ok_or_else(|| match nearest(text, words.iter().copied()) {
                Some(word) => format!("{what}, did you mean `{word}`?"),
                None => what.to_owned(),
            })
    }
}

/// A path of a URI: what the `http` crate accepts in one, without a query.
pub(super) fn uri_path(node: &Node) -> Result<String, String> {
    let path = node
        .text()
        .filter(|text| is_uri_path(text) && !text.contains('?'));
    path.map(str::to_owned).ok_or_else(|| PATH.into())
}

/// A path of a URI, with a query if need be.
pub(super) fn uri_path_and_query(node: &Node) -> Result<String, String> {
    let path = node.text().filter(|text| is_uri_path(text));
    path.map(str::to_owned)
        .ok_or_else(|| "a path such as /ping, in visible ascii without #".into())
}

fn is_uri_path(text: &str) -> bool {
    text.starts_with('/')
        && text.is_ascii()
        && !text.contains('#')
        && http::uri::PathAndQuery::try_from(text).is_ok()
}

/// A value for a message: on one line, not too long, quoted as it was written.
pub(super) fn shown(node: &Node) -> String {
    const CHARS_MAX: usize = 64;
    let (text, is_quoted) = match &node.kind {
        Kind::Plain(text) => (text, false),
        Kind::Quoted(text) => (text, true),
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
