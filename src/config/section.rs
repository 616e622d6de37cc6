//! Typed reading of the tree: every check is made where a key is asked for, every problem goes to
//! one list, and reading goes on after a problem, so that all of them are reported at once.
//!
//! One call names a key, its default and its type with its range: `section.value("timeout",
//! Duration::from_secs(2), scalar::duration)`. What nobody asked for is unknown; `finish` says so.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Problem;
use super::scalar::shown;
use super::tree::{Entry, Fault, Key, Kind, Node};

/// Reads a value, or says what was expected: `a whole number`, `in 1..=10`. The sentence goes on
/// from "is not", or from "missing, expected".
pub(super) trait Read<T>: Fn(&Node) -> Result<T, String> {}
impl<T, F: Fn(&Node) -> Result<T, String>> Read<T> for F {}

/// What is wrong with one configuration, collected.
pub(super) struct Problems {
    file: Arc<str>,
    list: RefCell<Vec<Problem>>,
}

impl Problems {
    pub fn new(file: &str) -> Self {
        Self {
            file: file.into(),
            list: RefCell::default(),
        }
    }

    pub fn add(&self, place: &Place, message: impl Into<String>) {
        self.list.borrow_mut().push(Problem {
            file: self.file.clone(),
            line: place.line,
            column: place.column,
            path: place.path.clone(),
            message: message.into(),
        });
    }

    pub fn count(&self) -> usize {
        self.list.borrow().len()
    }

    pub fn add_fault(&self, fault: Fault) {
        let place = Place {
            line: fault.line,
            column: fault.column,
            path: String::new(),
        };
        self.add(&place, fault.message);
    }

    /// In the order of the text.
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut list = self.list.into_inner();
        list.sort_by_key(|problem| (problem.line, problem.column));
        list
    }
}

/// Where a value stands, in the text and in the tree.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub line: usize,
    pub column: usize,
    /// Such as `maitred.routes[0].match`; empty: the whole.
    pub path: String,
}

impl Place {
    fn below(&self, key: &str) -> String {
        let is_simple = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let separator = if self.path.is_empty() { "" } else { "." };
        if !key.is_empty() && key.chars().all(is_simple) {
            format!("{}{separator}{key}", self.path)
        } else {
            format!("{}{separator}{key:?}", self.path)
        }
    }

    fn of_key(&self, key: &Key) -> Self {
        Self {
            line: key.line,
            column: key.column,
            path: self.below(&key.text),
        }
    }
}

/// A node on its way to a type.
#[derive(Clone)]
pub(super) struct Value<'a> {
    node: &'a Node,
    problems: &'a Problems,
    pub place: Place,
}

impl<'a> Value<'a> {
    pub fn root(node: &'a Node, problems: &'a Problems) -> Self {
        let place = Place {
            line: node.line,
            column: node.column,
            path: String::new(),
        };
        Self {
            node,
            problems,
            place,
        }
    }

    fn of_entry(entry: &'a Entry, parent: &Place, problems: &'a Problems) -> Self {
        let mut place = parent.of_key(&entry.key);
        // Of a value that is not there, show the key.
        if !entry.value.is_null() {
            (place.line, place.column) = (entry.value.line, entry.value.column);
        }
        Self {
            node: &entry.value,
            problems,
            place,
        }
    }

    /// The value as a type; a problem otherwise.
    pub fn read<T>(&self, read: impl Read<T>) -> Option<T> {
        read(self.node)
            .map_err(|expected| self.reject(&expected))
            .ok()
    }

    /// The value as a mapping of known keys; a problem otherwise.
    pub fn section(&self, expected: &str) -> Option<Section<'a>> {
        let entries = self.entries(expected)?;
        Some(Section {
            entries,
            place: self.place.clone(),
            problems: self.problems,
            asked: Vec::new(),
        })
    }

    /// The value as a mapping whose keys are names: each name with its own place, and its value.
    /// A name that is written twice is a problem and comes once.
    pub fn named(&self, expected: &str) -> Option<Vec<(Value<'a>, &'a str, Value<'a>)>> {
        let entries = self.entries(expected)?;
        if entries.is_empty() {
            self.fail(format!("empty, expected {expected}"));
        }
        let mut seen = HashSet::new();
        let mut named = Vec::new();
        for entry in entries {
            if !seen.insert(entry.key.text.as_str()) {
                continue;
            }
            let value = Self::of_entry(entry, &self.place, self.problems);
            let name = Self {
                place: self.place.of_key(&entry.key),
                ..value.clone()
            };
            named.push((name, entry.key.text.as_str(), value));
        }
        Some(named)
    }

    /// The value as a list that is not empty; a problem otherwise.
    pub fn filled_list(&self, expected: &str) -> Option<Vec<Value<'a>>> {
        let values = self.list(expected)?;
        if values.is_empty() {
            self.fail(format!("empty, expected {expected}"));
            return None;
        }
        Some(values)
    }

    /// The value as a list; a problem otherwise.
    pub fn list(&self, expected: &str) -> Option<Vec<Value<'a>>> {
        let Kind::Sequence(nodes) = &self.node.kind else {
            self.reject(expected);
            return None;
        };
        let value = |(index, node): (usize, &'a Node)| {
            let path = format!("{}[{index}]", self.place.path);
            let place = Place {
                line: node.line,
                column: node.column,
                path,
            };
            Self {
                node,
                problems: self.problems,
                place,
            }
        };
        Some(nodes.iter().enumerate().map(value).collect())
    }

    pub fn reject(&self, expected: &str) {
        let message = if self.node.is_null() {
            format!("empty, expected {expected}")
        } else {
            format!("{} is not {expected}", shown(self.node))
        };
        self.fail(message);
    }

    pub fn fail(&self, message: impl Into<String>) {
        self.problems.add(&self.place, message);
    }

    fn entries(&self, expected: &str) -> Option<&'a [Entry]> {
        let Kind::Mapping(entries) = &self.node.kind else {
            self.reject(expected);
            return None;
        };
        let mut first: HashMap<&str, usize> = HashMap::new();
        for Entry { key, .. } in entries {
            match first.get(key.text.as_str()) {
                Some(line) => self.problems.add(
                    &self.place.of_key(key),
                    format!("duplicate key, first on line {line}"),
                ),
                None => _ = first.insert(&key.text, key.line),
            }
        }
        Some(entries)
    }
}

/// A mapping whose keys are known.
pub(super) struct Section<'a> {
    entries: &'a [Entry],
    place: Place,
    problems: &'a Problems,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// A key's value, null included.
    pub fn find(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        let entry = self.entries.iter().find(|entry| entry.key.text == key)?;
        Some(Value::of_entry(entry, &self.place, self.problems))
    }

    /// A key's value. Missing or wrong: the default, which is harmless, for wrong is recorded.
    pub fn value<T>(&mut self, key: &'static str, default: T, read: impl Read<T>) -> T {
        self.find(key)
            .and_then(|value| value.read(read))
            .unwrap_or(default)
    }

    /// A key's value, if it is there and right. Null is wrong.
    pub fn optional<T>(&mut self, key: &'static str, read: impl Read<T>) -> Option<T> {
        self.find(key)?.read(read)
    }

    /// A key's value where null is a value too: nothing.
    pub fn nullable<T>(
        &mut self,
        key: &'static str,
        default: Option<T>,
        read: impl Read<T>,
    ) -> Option<T> {
        match self.find(key) {
            None => default,
            Some(value) if value.node.is_null() => None,
            Some(value) => value.read(read),
        }
    }

    /// A key's value; that it is missing is a problem.
    pub fn required<T>(&mut self, key: &'static str, read: impl Read<T>) -> Option<T> {
        let Some(value) = self.find(key) else {
            // What a reader says of nothing is what it expects.
            if let Err(expected) = read(&Node::null()) {
                self.missing(key, &expected);
            }
            return None;
        };
        value.read(read)
    }

    /// A key's node, to be read by its own code; that it is missing is a problem.
    pub fn required_value(&mut self, key: &'static str, expected: &str) -> Option<Value<'a>> {
        let value = self.find(key);
        if value.is_none() {
            self.missing(key, expected);
        }
        value
    }

    /// A section in which every key has a default. Missing or null: all of them.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
        let missing = Section {
            entries: &[],
            place: self.place_of(key),
            problems: self.problems,
            asked: Vec::new(),
        };
        self.find(key)
            .filter(|value| !value.node.is_null())
            .and_then(|value| value.section("a mapping"))
            .unwrap_or(missing)
    }

    /// Where a key's value stands, or should.
    pub fn place_of(&self, key: &str) -> Place {
        match self.entries.iter().find(|entry| entry.key.text == key) {
            Some(entry) => Value::of_entry(entry, &self.place, self.problems).place,
            None => Place {
                path: self.place.below(key),
                ..self.place.clone()
            },
        }
    }

    pub fn problems(&self) -> &'a Problems {
        self.problems
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        let unknown = self
            .entries
            .iter()
            .filter(|e| !self.asked.contains(&e.key.text.as_str()));
        for Entry { key, .. } in unknown {
            let message = match nearest(&key.text, self.asked.iter().copied()) {
                Some(known) => format!("unknown key, did you mean `{known}`?"),
                None => format!("unknown key, expected one of {}", self.asked.join(", ")),
            };
            self.problems.add(&self.place.of_key(key), message);
        }
    }

    fn missing(&self, key: &str, expected: &str) {
        self.problems
            .add(&self.place_of(key), format!("missing, expected {expected}"));
    }
}

/// The word that was probably meant, if any is near. `maxInFlight` is near `max_in_flight`.
pub(super) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// clap's bound, found good over years of typos in options.
    const SIMILARITY_MIN: f64 = 0.7;
    /// Longer words are no typos, and comparing takes quadratic time.
    const CHARS_MAX: usize = 128;
    if wrong.chars().nth(CHARS_MAX).is_some() {
        return None;
    }
    let plain = |word: &str| word.to_lowercase().replace(['_', '-'], "");
    let wrong = plain(wrong);
    known
        .map(|word| (strsim::jaro(&wrong, &plain(word)), word))
        .filter(|(similarity, _)| *similarity > SIMILARITY_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, word)| word)
}
