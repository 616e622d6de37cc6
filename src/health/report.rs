//! What one version of the health file says. Immutable once parsed; knows no file and no clock.
//!
//! The format is one JSON object. A key is the name of a backend; a value is `true`, `false`, or an
//! object with a boolean `healthy` and, if wanted, `verdict`, `reason`, `weight`, `max_in_flight` and `state`.
//! Other fields are ignored, but remembered, for somebody may have misspelt one.
//!
//! A file is taken whole or not at all: a report that is half right could send requests to a
//! backend that someone meant to take out. It is checked while it is parsed, so that every complaint
//! has a line and a column.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use thiserror::Error;

use super::json::{Json, checked};

/// The largest health file that is read, in bytes: 16 MiB, some hundred thousand backends.
pub const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The longest name that a file may say something about, in bytes: far more than a backend's can have.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// How much of a reason is taken in, in bytes. A long one is no reason to refuse a report.
const REASON_BYTES_MAX: usize = 1024;

/// How much of the file a message quotes, in bytes, give or take a character.
const QUOTE_BYTES_MAX: usize = 100;

/// How many unknown fields a report remembers by name.
const UNKNOWN_FIELDS_MAX: usize = 8;

/// The fields that the object of a backend may have.
pub(super) const FIELDS: [&str; 6] = [
    "healthy",
    "verdict",
    "reason",
    "weight",
    "max_in_flight",
    "state",
];

/// What some editors put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const WEIGHTS: RangeInclusive<u32> = 1..=1000;
const SLOTS: RangeInclusive<u32> = 1..=10_000;

/// What the health file says about every backend that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    verdicts: BTreeMap<Box<str>, Verdict>,
    unknown_fields: UnknownFields,
}

/// The first of the fields that nobody knows, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct UnknownFields {
    first: Vec<String>,
    count: usize,
}

/// What the health file says about one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is well.
    pub healthy: bool,
    /// The writer's reason, for a person: at most 1024 bytes, the rest cut off, and no control character.
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
    /// Not UTF-8, not JSON, cut off, a wrong type or range, a key that is there twice.
    #[error("line {line}, column {column}: {problem}")]
    Invalid {
        /// Where the problem was found, counted from 1.
        line: usize,
        /// Counted from 1, in bytes; 0 is the end of the line before.
        column: usize,
        /// What is wrong.
        problem: String,
    },
}

impl Report {
    /// Parses the bytes of a health file.
    ///
    /// # Errors
    ///
    /// When anything at all is wrong with the file: see [`ReportError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let mut deserializer = serde_json::Deserializer::from_str(text(bytes)?);
        let parsed = deserializer.deserialize_map(ReportVisitor);
        parsed
            .and_then(|report| deserializer.end().map(|()| report))
            .map_err(|error| invalid(&error))
    }

    /// What the file says about the backend of this name; `None` when it does not name it.
    pub fn verdict(&self, name: &str) -> Option<&Verdict> {
        self.verdicts.get(name)
    }

    /// Every name in the file, sorted and unique; also names that no backend has.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.verdicts.keys().map(Box::as_ref)
    }

    /// Fields that nobody knows, as `server1.colour`: the first eight, in the order of the file.
    pub fn unknown_fields(&self) -> impl Iterator<Item = &str> {
        self.unknown_fields.first.iter().map(String::as_str)
    }

    /// How many fields nobody knows, those beyond [`Self::unknown_fields`] included.
    pub fn unknown_field_count(&self) -> usize {
        self.unknown_fields.count
    }
}

impl Verdict {
    /// Takes in one of [`FIELDS`]; the error is what would have been right.
    fn set(&mut self, field: &str, value: &Json) -> Result<(), String> {
        match (field, value) {
            ("healthy", Json::Bool(healthy)) => self.healthy = *healthy,
            ("healthy", _) => return Err("true or false".to_owned()),
            // The writer's own word, for people; what holds is `healthy`.
            ("verdict", Json::String(_)) => {}
            ("verdict", _) => return Err("a string".to_owned()),
            ("reason", Json::String(reason)) => self.reason = Some(presentable(reason).into()),
            ("reason", _) => return Err("a string".to_owned()),
            ("weight", value) => self.weight = Some(whole_number(value, WEIGHTS)?),
            ("max_in_flight", value) => self.max_in_flight = Some(whole_number(value, SLOTS)?),
            (_, value) => self.state = state(value)?,
        }
        Ok(())
    }
}

impl UnknownFields {
    fn add(&mut self, path: String) {
        self.count += 1;
        if self.first.len() < UNKNOWN_FIELDS_MAX {
            self.first
                .push(shortened(&path, QUOTE_BYTES_MAX).into_owned());
        }
    }
}

/// Whether a reader accepts this value in the object of a backend; of a field that nobody knows, any.
pub(super) fn accepts(field: &str, value: &Json) -> bool {
    !FIELDS.contains(&field) || Verdict::default().set(field, value).is_ok()
}

/// Any JSON object, for the writer: its entries in the order of the file, duplicates included.
pub(super) fn entries(bytes: &[u8]) -> Result<Vec<(String, Json)>, ReportError> {
    match serde_json::from_str(text(bytes)?).map_err(|error| invalid(&error))? {
        Json::Object(entries) => Ok(entries),
        other => Err(ReportError::Invalid {
            line: 1,
            column: 1,
            problem: format!("expected an object, found {}", other.found()),
        }),
    }
}

struct ReportVisitor;

impl<'de> Visitor<'de> for ReportVisitor {
    type Value = Report;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with a key for each backend")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Report, A::Error> {
        let mut report = Report::default();
        while let Some(name) = access.next_key::<Box<str>>()? {
            if name.len() > NAME_BYTES_MAX {
                let problem = format!("{}: longer than {NAME_BYTES_MAX} bytes", quoted(&name));
                return Err(Error::custom(problem));
            }
            if report.verdicts.contains_key(&name) {
                return Err(Error::custom(is_there_twice(&name)));
            }
            let verdict = access.next_value_seed(VerdictVisitor {
                name: &name,
                unknown_fields: &mut report.unknown_fields,
            })?;
            report.verdicts.insert(name, verdict);
        }
        Ok(report)
    }
}

/// Reads what stands behind the name of a backend.
struct VerdictVisitor<'a> {
    name: &'a str,
    unknown_fields: &'a mut UnknownFields,
}

impl VerdictVisitor<'_> {
    /// What is no verdict, whatever it is.
    fn refuse<E: Error>(self, found: Json) -> Result<Verdict, E> {
        Err(E::custom(wrong(
            self.name,
            "true, false or an object",
            &found,
        )))
    }
}

impl<'de> DeserializeSeed<'de> for VerdictVisitor<'_> {
    type Value = Verdict;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Verdict, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for VerdictVisitor<'_> {
    type Value = Verdict;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("true, false or an object")
    }

    fn visit_bool<E>(self, healthy: bool) -> Result<Verdict, E> {
        Ok(Verdict {
            healthy,
            ..Verdict::default()
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Verdict, A::Error> {
        let mut verdict = Verdict::default();
        let mut met = Vec::with_capacity(FIELDS.len());
        while let Some(field) = access.next_key::<String>()? {
            let path = format!("{}.{field}", self.name);
            if !FIELDS.contains(&field.as_str()) {
                access.next_value_seed(checked(|_| Ok(())))?;
                self.unknown_fields.add(path);
                continue;
            }
            if met.contains(&field) {
                return Err(Error::custom(is_there_twice(&path)));
            }
            access.next_value_seed(checked(|value| {
                let set = verdict.set(&field, &value);
                set.map_err(|expected| wrong(&path, &expected, &value))
            }))?;
            met.push(field);
        }
        if !met.iter().any(|field| field == "healthy") {
            let path = quoted(&format!("{}.healthy", self.name));
            let problem = format!("{path}: expected true or false, found nothing");
            return Err(Error::custom(problem));
        }
        Ok(verdict)
    }

    fn visit_unit<E: Error>(self) -> Result<Verdict, E> {
        self.refuse(Json::Null)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Verdict, E> {
        self.refuse(Json::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Verdict, E> {
        self.refuse(Json::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Verdict, E> {
        checked(Ok)
            .visit_f64(value)
            .and_then(|found| self.refuse(found))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Verdict, E> {
        self.refuse(Json::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Verdict, A::Error> {
        self.refuse(Json::Array(Vec::new()))
    }
}

fn whole_number(value: &Json, range: RangeInclusive<u32>) -> Result<u32, String> {
    let number = match value {
        Json::Number(number) => number.as_u64().and_then(|number| number.try_into().ok()),
        _ => None,
    };
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            let (least, most) = range.into_inner();
            format!("a whole number in {least}..={most}")
        })
}

fn state(value: &Json) -> Result<State, String> {
    State::ALL
        .iter()
        .find(|(name, _)| matches!(value, Json::String(found) if found == name))
        .map(|(_, state)| *state)
        .ok_or_else(|| "\"ready\", \"drain\" or \"maint\"".to_owned())
}

fn wrong(path: &str, expected: &str, found: &Json) -> String {
    let path = quoted(path);
    format!("{path}: expected {expected}, found {}", found.found())
}

fn is_there_twice(path: &str) -> String {
    format!("{} is there twice", quoted(path))
}

/// What a file says, as a message may quote it: with nothing in it that a terminal obeys or that could
/// pass for another line of the log, and not much of it.
pub(super) fn quoted(text: &str) -> String {
    let mut shown = format!("{:?}", shortened(text, QUOTE_BYTES_MAX));
    // A character may be escaped by as many as ten.
    if shown.len() > 2 * QUOTE_BYTES_MAX {
        shown = format!("{}\"", shortened(&shown, QUOTE_BYTES_MAX));
    }
    shown
}

/// A reason on one line, however long and whatever is in it: it goes to logs and to clients.
fn presentable(reason: &str) -> String {
    shortened(reason, REASON_BYTES_MAX).replace(char::is_control, " ")
}

/// At most this many bytes; `…` says that there were more.
fn shortened(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return text.into();
    }
    let mut end = bytes_max - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end]).into()
}

fn text(bytes: &[u8]) -> Result<&str, ReportError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(ReportError::TooLong);
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        return Err(ReportError::Invalid {
            line: 1,
            column: 1,
            problem: "begins with a byte order mark, which JSON does not have".to_owned(),
        });
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let last_line = before.rsplit(|byte| *byte == b'\n').next();
        ReportError::Invalid {
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            column: 1 + last_line.map_or(0, <[u8]>::len),
            problem: "not UTF-8".to_owned(),
        }
    })
}

fn invalid(error: &serde_json::Error) -> ReportError {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    // serde_json ends its text with the position, which our own begins with.
    let position = format!(" at line {line} column {column}");
    let problem = text.strip_suffix(&position).unwrap_or(&text);
    // Ours are short; of a string that stands where the object should, serde quotes all.
    let problem = shortened(problem, 4 * QUOTE_BYTES_MAX);
    ReportError::Invalid {
        line,
        column,
        problem: match error.classify() {
            Category::Data => problem.into_owned(),
            _ => format!("not JSON: {problem}"),
        },
    }
}
