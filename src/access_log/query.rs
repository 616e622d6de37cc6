//! Takes out of a query what is nobody's business.

/// What stands in the place of what is not told.
pub(super) const REDACTED: &[u8] = b"redacted";

/// What of a query is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryRule {
    /// All of it.
    Keep,
    /// All but the values of these parameters, whatever the case of their names. Not empty.
    Redact(Vec<String>),
    /// Nothing.
    Drop,
}

impl QueryRule {
    /// A target, or a URL, as it is logged; `None`: as it is.
    pub(super) fn applied(&self, url: &[u8]) -> Option<Vec<u8>> {
        let begin = url.iter().position(|byte| *byte == b'?')?;
        match self {
            Self::Keep => None,
            Self::Drop => Some(url[..begin].to_vec()),
            Self::Redact(names) => Some(redacted(url, begin + 1, names)),
        }
    }
}

/// Both `&` and `;` end a parameter: some servers take the latter so, too.
fn redacted(url: &[u8], query: usize, names: &[String]) -> Vec<u8> {
    let mut out = url[..query].to_vec();
    for parameter in url[query..].split_inclusive(|byte| b"&;".contains(byte)) {
        let equals = parameter.iter().position(|byte| *byte == b'=');
        let is_secret = |end: &usize| names.iter().any(|name| is_called(name, &parameter[..*end]));
        match equals.filter(is_secret) {
            Some(end) => {
                out.extend_from_slice(&parameter[..=end]);
                out.extend_from_slice(REDACTED);
                out.extend(parameter.last().filter(|byte| b"&;".contains(byte)));
            }
            None => out.extend_from_slice(parameter),
        }
    }
    out
}

/// Whether a parameter's name, which may be encoded, stands for this one.
fn is_called(name: &str, encoded: &[u8]) -> bool {
    let mut left = encoded;
    let decoded = std::iter::from_fn(|| {
        let (first, rest) = left.split_first()?;
        let hexadecimal = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
        let (byte, rest) = match (first, hexadecimal(rest.first()), hexadecimal(rest.get(1))) {
            (b'%', Some(high), Some(low)) => ((high * 16 + low) as u8, &rest[2..]),
            (b'+', ..) => (b' ', rest),
            _ => (*first, rest),
        };
        left = rest;
        Some(byte.to_ascii_lowercase())
    });
    decoded.eq(name.bytes().map(|byte| byte.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(rule: &QueryRule, url: &str) -> String {
        let applied = rule.applied(url.as_bytes());
        applied.map_or(url.to_owned(), |url| String::from_utf8(url).unwrap())
    }

    #[test]
    fn a_query_is_kept_or_dropped() {
        assert_eq!(logged(&QueryRule::Keep, "/a?b=1?c"), "/a?b=1?c");
        assert_eq!(logged(&QueryRule::Drop, "/a?b=1?c"), "/a");
        assert_eq!(logged(&QueryRule::Drop, "/a"), "/a");
    }

    #[test]
    fn the_values_of_some_names_are_not_told() {
        let rule = QueryRule::Redact(vec!["token".into(), "pass word".into(), "user[key]".into()]);
        for (url, expected) in [
            ("/a", "/a"),
            ("/token=1", "/token=1"),
            ("/a?token=1", "/a?token=redacted"),
            ("/a?x=1&token=a=b;y=2", "/a?x=1&token=redacted;y=2"),
            (
                "/a?TOKEN=1&Token=&token",
                "/a?TOKEN=redacted&Token=redacted&token",
            ),
            (
                "/a?to%6Ben=1&to%6ben=2",
                "/a?to%6Ben=redacted&to%6ben=redacted",
            ),
            (
                "/a?pass+word=1&pass%20word=2",
                "/a?pass+word=redacted&pass%20word=redacted",
            ),
            ("/a?user%5Bkey%5D=1", "/a?user%5Bkey%5D=redacted"),
            (
                "/a?tokens=1&atoken=1&token%=1",
                "/a?tokens=1&atoken=1&token%=1",
            ),
            ("/a??token=1", "/a??token=1"),
            ("/a?&&token=1&", "/a?&&token=redacted&"),
            (
                "https://b.example/?token=1",
                "https://b.example/?token=redacted",
            ),
        ] {
            assert_eq!(logged(&rule, url), expected, "{url}");
        }
    }
}
