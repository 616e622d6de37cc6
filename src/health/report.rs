//! What one version of the health file says. Immutable once parsed; knows no file and no clock.
//!
//! The format is one JSON object. A key is the name of a backend; a value is `true`, `false`, or an
//! object with a boolean `healthy` and an optional string `reason`, whose other fields are ignored.
//! A file is taken whole or not at all: a report that is half right could send requests to a
//! backend that someone meant to take out.

use std::collections::BTreeMap;

use thiserror::Error;

use super::json::Json;

/// The largest health file that is read, in bytes: 16 MiB, some hundred thousand backends.
pub const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What the health file says about every backend that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    verdicts: BTreeMap<Box<str>, Verdict>,
}

/// What the health file says about one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is well.
    pub healthy: bool,
    /// The writer's reason, for a person.
    pub reason: Option<Box<str>>,
    /// Whether it may be given new requests while it is well.
    pub state: State,
    /// Its share of new requests, in `1..=1000`; `None`: as configured.
    pub weight: Option<u32>,
    /// How many requests it may serve at once, in `1..=10_000`; `None`: as configured.
    pub max_in_flight: Option<u32>,
}

/// What an operator wants of a backend, whatever its health. Ordered from the least restrictive to the
/// most: where two disagree, the greater wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It serves while it is healthy.
    #[default]
    Ready,
    /// It finishes what it has and gets no new requests. It is still pinged.
    Drain,
    /// As `Drain`, and it is not pinged.
    Maint,
}

impl State {
    /// Every state and its name in files.
    pub const ALL: [(&'static str, Self); 3] = [
        ("ready", Self::Ready),
        ("drain", Self::Drain),
        ("maint", Self::Maint),
    ];

    /// Its name in files: `ready`, `drain` or `maint`.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

/// Why a file is no report. All of them mean the same to the caller: keep the last good report, and
/// show this text. The texts are for the person who edits the file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReportError {
    /// Larger than [`FILE_BYTES_MAX`].
    #[error("longer than {FILE_BYTES_MAX} bytes")]
    TooLong,
    /// Not text.
    #[error("not UTF-8 from byte {offset} on")]
    NotUtf8 {
        /// Bytes before the first that is wrong.
        offset: usize,
    },
    /// Not JSON, or cut off.
    #[error("line {line}, column {column}: not JSON: {problem}")]
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes; 0 is the end of the line before.
        column: usize,
        /// What the parser says.
        problem: String,
    },
    /// JSON, but not an object at the top.
    #[error("expected an object with a key for each backend, found {found}")]
    NotAnObject {
        /// What it is instead.
        found: &'static str,
    },
    /// A value of the wrong type.
    #[error("{key:?}: expected {expected}, found {found}")]
    WrongType {
        /// The key, with a dot before the field of an object (`server1.healthy`).
        key: String,
        /// What may stand there.
        expected: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// A key that is there twice: which one is meant?
    #[error("{key:?} is there twice")]
    DuplicateKey {
        /// The key, with a dot before the field of an object.
        key: String,
    },
}

impl Report {
    /// Parses the bytes of a health file.
    ///
    /// # Errors
    ///
    /// When anything at all is wrong with the file: see [`ReportError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let mut verdicts = BTreeMap::new();
        for (key, value) in entries(bytes)? {
            let verdict = Verdict::parse(&key, &value)?;
            if verdicts.insert(key.as_str().into(), verdict).is_some() {
                return Err(ReportError::DuplicateKey { key });
            }
        }
        Ok(Self { verdicts })
    }

    /// What the file says about the backend of this name; `None` when it does not name it.
    pub fn verdict(&self, name: &str) -> Option<&Verdict> {
        self.verdicts.get(name)
    }

    /// TEMPORARY
    pub fn unknown_fields(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }

    /// Every name in the file, sorted and unique; also names that no backend has.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.verdicts.keys().map(Box::as_ref)
    }
}

impl Verdict {
    fn parse(key: &str, value: &Json) -> Result<Self, ReportError> {
        match value {
            Json::Bool(healthy) => Ok(Self {
                healthy: *healthy,
                ..Self::default()
            }),
            Json::Object(fields) => Self::parse_fields(key, fields),
            other => Err(ReportError::WrongType {
                key: key.to_owned(),
                expected: "true, false or an object",
                found: other.kind(),
            }),
        }
    }

    fn parse_fields(key: &str, fields: &[(String, Json)]) -> Result<Self, ReportError> {
        let healthy = match only(key, fields, "healthy")? {
            Some(Json::Bool(healthy)) => *healthy,
            other => return Err(wrong_field(key, "healthy", "true or false", other)),
        };
        let reason = match only(key, fields, "reason")? {
            None => None,
            Some(Json::String(reason)) => Some(reason.as_str().into()),
            other => return Err(wrong_field(key, "reason", "a string", other)),
        };
        Ok(Self {
            healthy,
            reason,
            ..Self::default()
        })
    }
}

/// The top-level entries in the order of the file, duplicates included.
pub(super) fn entries(bytes: &[u8]) -> Result<Vec<(String, Json)>, ReportError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(ReportError::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| ReportError::NotUtf8 {
        offset: error.valid_up_to(),
    })?;
    match serde_json::from_str(text).map_err(|error| not_json(&error))? {
        Json::Object(entries) => Ok(entries),
        other => Err(ReportError::NotAnObject {
            found: other.kind(),
        }),
    }
}

/// The value of a field that may be there once or not at all.
fn only<'a>(
    key: &str,
    fields: &'a [(String, Json)],
    field: &str,
) -> Result<Option<&'a Json>, ReportError> {
    let mut found = fields.iter().filter(|(name, _)| name == field);
    let first = found.next();
    if found.next().is_some() {
        return Err(ReportError::DuplicateKey {
            key: format!("{key}.{field}"),
        });
    }
    Ok(first.map(|(_, value)| value))
}

fn wrong_field(
    key: &str,
    field: &str,
    expected: &'static str,
    found: Option<&Json>,
) -> ReportError {
    ReportError::WrongType {
        key: format!("{key}.{field}"),
        expected,
        found: found.map_or("nothing", Json::kind),
    }
}

fn not_json(error: &serde_json::Error) -> ReportError {
    let text = error.to_string();
    // serde_json ends its text with the position, which our own already begins with.
    let problem = text.split(" at line ").next().unwrap_or(&text);
    ReportError::NotJson {
        line: error.line(),
        column: error.column(),
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        Report::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn reads_booleans_and_objects() {
        let report = Report::parse(
            br#" {"b": true, "a": false, "c": {"healthy": false, "reason": "no answer", "x": [1]}} "#,
        )
        .unwrap();
        assert_eq!(report.names().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(report.verdict("b").unwrap().healthy);
        assert!(!report.verdict("a").unwrap().healthy);
        let c = report.verdict("c").unwrap();
        assert_eq!((c.healthy, c.reason.as_deref()), (false, Some("no answer")));
        assert_eq!(report.verdict("d"), None);
    }

    #[test]
    fn an_empty_object_is_the_empty_report() {
        assert_eq!(Report::parse(b"{}").unwrap(), Report::default());
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let table = [
            ("", "line 1, column 0: not JSON: EOF while parsing a value"),
            (
                "{\"a\": true,\n \"b\": maybe}",
                "line 2, column 7: not JSON: expected value",
            ),
            (
                "{\"a\": true",
                "line 1, column 10: not JSON: EOF while parsing an object",
            ),
            (
                "{\"a\": true} x",
                "line 1, column 13: not JSON: trailing characters",
            ),
            (
                "[true]",
                "expected an object with a key for each backend, found an array",
            ),
            (
                "true",
                "expected an object with a key for each backend, found a boolean",
            ),
            (
                r#"{"a": 1}"#,
                r#""a": expected true, false or an object, found a number"#,
            ),
            (
                r#"{"a": "true"}"#,
                r#""a": expected true, false or an object, found a string"#,
            ),
            (
                r#"{"a": null}"#,
                r#""a": expected true, false or an object, found null"#,
            ),
            (
                r#"{"a": {}}"#,
                r#""a.healthy": expected true or false, found nothing"#,
            ),
            (
                r#"{"a": {"healthy": 1}}"#,
                r#""a.healthy": expected true or false, found a number"#,
            ),
            (
                r#"{"a": {"healthy": true, "reason": 3}}"#,
                r#""a.reason": expected a string, found a number"#,
            ),
            (
                r#"{"a": true, "b": true, "a": true}"#,
                r#""a" is there twice"#,
            ),
            (
                r#"{"a": {"healthy": true, "healthy": false}}"#,
                r#""a.healthy" is there twice"#,
            ),
        ];
        for (text, expected) in table {
            assert_eq!(error(text), expected, "{text}");
        }
    }

    #[test]
    fn a_key_written_with_escapes_is_the_same_key() {
        assert_eq!(
            error(r#"{"a": true, "\u0061": false}"#),
            r#""a" is there twice"#
        );
    }

    #[test]
    fn refuses_what_is_not_text_or_too_long() {
        assert_eq!(
            Report::parse(b"{\"\xff\": true}"),
            Err(ReportError::NotUtf8 { offset: 2 })
        );
        let mut long = b"{}".to_vec();
        long.resize(FILE_BYTES_MAX, b' ');
        assert_eq!(Report::parse(&long), Ok(Report::default()));
        long.push(b' ');
        assert_eq!(Report::parse(&long), Err(ReportError::TooLong));
    }

    #[test]
    fn nesting_without_end_is_an_error_not_a_crash() {
        let deep = format!("{{\"a\": {}", "[".repeat(1_000_000));
        assert!(error(&deep).contains("recursion limit"), "{}", error(&deep));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Report::parse(&bytes);
        }

        #[test]
        fn nothing_that_looks_like_json_panics_the_parser(
            text in r#"([{}\[\]:, \n]|"a"|"healthy"|"reason"|true|false|null|1|-|e9|\\u00){0,30}"#,
        ) {
            let _ = Report::parse(text.as_bytes());
        }

        #[test]
        fn a_cut_file_is_never_half_a_report(
            entries in proptest::collection::btree_map("[a-z\u{e4}\"\\\\]{0,6}", any::<bool>(), 0..6),
            pretty in any::<bool>(),
        ) {
            let text = if pretty {
                serde_json::to_string_pretty(&entries).unwrap() + "\n"
            } else {
                serde_json::to_string(&entries).unwrap()
            };
            let full = Report::parse(text.as_bytes()).unwrap();
            for (name, healthy) in &entries {
                prop_assert_eq!(full.verdict(name).unwrap().healthy, *healthy);
            }
            for end in 0..text.len() {
                if let Ok(report) = Report::parse(&text.as_bytes()[..end]) {
                    prop_assert_eq!(&report, &full);
                }
            }
        }
    }
}
