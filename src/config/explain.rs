//! Whether it is noted why requests went where they went.

use std::fmt;

use subtle::ConstantTimeEq as _;

use super::scalar::{Reader, integer};
use super::section::Section;

/// What is noted, and who may see it in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainParams {
    /// How many requests are remembered, in `0..=100_000`. Default 0: none.
    pub capacity: usize,
    /// With it, an answer explains itself. Default none.
    pub debug_token: Option<Secret>,
}

/// Something that only those may know who write or read the configuration. It is in no message and no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Whether this is it. How long that takes tells nothing but whether the lengths are equal.
    pub fn is(&self, guess: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(guess).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(a secret)")
    }
}

pub(super) fn read(mut section: Section<'_>) -> ExplainParams {
    let params = ExplainParams {
        capacity: section.value(
            "capacity",
            "0",
            integer(0..=100_000),
            "Of how many requests is remembered why they went where they went \
             ([explain.md](explain.md)); 0: of none. Each takes some 1.3 KB, and 0.8 KB for each further attempt. Needs `request_id`.",
        ),
        debug_token: section.secret(
            "debug_token",
            token(),
            "A request with this as `X-Maitred-Debug` is explained in its answer. Others learn from it how many backends \
             there are and how they fare, so it is a secret; as all values it may come from the environment.",
        ),
    };
    section.finish();
    params
}

/// What can be a field's value, and nobody guesses.
fn token() -> Reader<'static, Secret> {
    Reader::new("16 to 256 visible ASCII characters", |node| {
        let text = node.text()?;
        let is_token =
            (16..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_token.then(|| Secret(text.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_who_knows_all_of_it_and_shown_to_nobody() {
        let secret = Secret("0123456789abcdef".into());
        assert!(secret.is(b"0123456789abcdef"));
        for guess in [
            &b""[..],
            b"0123456789abcde",
            b"0123456789abcdeF",
            b"0123456789abcdef0",
        ] {
            assert!(!secret.is(guess), "{guess:?}");
        }
        assert!(!format!("{secret:?}").contains("0123"));
    }
}
