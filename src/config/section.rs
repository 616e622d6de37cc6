//! Typed reading of the tree: every check is made where a key is asked for, every problem goes to
//! one list, and reading goes on after a problem, so that all of them are reported at once.
//!
//! One call names a key, its default, its type with its range, and what it is for:
//! `section.value("rise", "2", integer(1..=100), "How many ..")`. Messages, documentation and the
//! list of known keys all come from that call. What nobody asked for is unknown; `finish` says so.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;

use super::notes::{Notes, Place};
use super::reference::KeyReference;
use super::scalar::{Reader, shown};
use super::tree::{Entry, Kind, Node};

/// A node on its way to a type.
#[derive(Clone)]
pub(super) struct Value<'a> {
    node: &'a Node,
    notes: &'a Notes,
    pub place: Place,
}

impl<'a> Value<'a> {
    pub fn root(node: &'a Node, notes: &'a Notes) -> Self {
        Self {
            node,
            notes,
            place: Place::root(node),
        }
    }

    fn of_entry(entry: &'a Entry, parent: &Place, notes: &'a Notes) -> Self {
        Self {
            node: &entry.value,
            notes,
            place: parent.of_entry(entry),
        }
    }

    /// The value as a type; a problem otherwise.
    pub fn read<T>(&self, reader: &Reader<'_, T>) -> Option<T> {
        reader
            .read(self.node)
            .map_err(|expected| self.reject(&expected))
            .ok()
    }

    /// Whether this text is what is written, without quotes or with, or `null` and nothing is.
    pub fn says(&self, text: &str) -> bool {
        match self.node.text() {
            Some(written) => written == text,
            None => self.node.is_null() && text == "null",
        }
    }

    /// The value as a mapping of known keys; a problem otherwise.
    pub fn section(&self, expected: &str) -> Option<Section<'a>> {
        let entries = self.entries(expected)?;
        Some(Section {
            entries,
            place: self.place.clone(),
            notes: self.notes,
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
            let value = Self::of_entry(entry, &self.place, self.notes);
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
        let value = |(index, node): (usize, &'a Node)| Self {
            node,
            notes: self.notes,
            place: self.place.of_item(index, node),
        };
        Some(nodes.iter().enumerate().map(value).collect())
    }

    /// The value as a list that is not empty; what is no list stands for a list of itself.
    pub fn one_or_list(&self, expected: &str) -> Option<Vec<Value<'a>>> {
        match self.node.kind {
            Kind::Sequence(_) => self.filled_list(expected),
            _ => Some(vec![self.clone()]),
        }
    }

    fn reject(&self, expected: &str) {
        match self.node.kind {
            Kind::Broken => {}
            _ if self.node.is_null() => self.fail(format!("empty, expected {expected}")),
            _ => self.fail(format!("{} is not {expected}", shown(self.node))),
        }
    }

    pub fn fail(&self, message: impl Into<String>) {
        self.notes.fail(&self.place, message);
    }

    fn entries(&self, expected: &str) -> Option<&'a [Entry]> {
        let Kind::Mapping(entries) = &self.node.kind else {
            self.reject(expected);
            return None;
        };
        let mut first: HashMap<&str, usize> = HashMap::new();
        for Entry { key, .. } in entries {
            match first.get(key.text.as_str()) {
                Some(line) => self.notes.fail(
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
    notes: &'a Notes,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// A key's value, null included.
    pub fn find(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        let entry = self.entries.iter().find(|entry| entry.key.text == key)?;
        Some(Value::of_entry(entry, &self.place, self.notes))
    }

    /// Whether a key is written, with whatever value.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key.text == key)
    }

    /// A key's value; missing: the default, as it would be written. `None` if it is wrong, which is
    /// recorded.
    pub fn valid<T>(
        &mut self,
        key: &'static str,
        default: &str,
        reader: &Reader<'_, T>,
        about: &str,
    ) -> Option<T> {
        match self.described(key, &code(default), reader.form(), about) {
            Some(value) => value.read(reader),
            None => Some(by_default(default, reader)),
        }
    }

    /// A key's value; missing or wrong: the default, as it would be written.
    pub fn value<T>(
        &mut self,
        key: &'static str,
        default: &str,
        reader: Reader<'_, T>,
        about: &str,
    ) -> T {
        self.valid(key, default, &reader, about)
            .unwrap_or_else(|| by_default(default, &reader))
    }

    /// A key's value; missing or wrong: a default that depends, and how that is described.
    pub fn value_or<T>(
        &mut self,
        key: &'static str,
        (shown, default): (&str, T),
        reader: Reader<'_, T>,
        about: &str,
    ) -> T {
        self.described(key, shown, reader.form(), about)
            .and_then(|value| value.read(&reader))
            .unwrap_or(default)
    }

    /// A key's value, if it is there and right. Null is wrong. `shown`: what it means that it is not
    /// there.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        shown: &str,
        reader: Reader<'_, T>,
        about: &str,
    ) -> Option<T> {
        self.described(key, shown, reader.form(), about)?
            .read(&reader)
    }

    /// As [`Section::optional`], of a value that no message shows.
    pub fn secret<T>(
        &mut self,
        key: &'static str,
        reader: Reader<'_, T>,
        about: &str,
    ) -> Option<T> {
        let value = self.described(key, "none", reader.form(), about)?;
        let read = reader.read(value.node);
        read.map_err(|expected| match value.node.text() {
            Some(_) => value.fail(format!("what is written is not {expected}")),
            None => value.reject(&expected),
        })
        .ok()
    }

    /// A key's value where null is a value too: nothing.
    pub fn nullable<T>(
        &mut self,
        key: &'static str,
        (shown, default): (&str, Option<T>),
        reader: Reader<'_, T>,
        about: &str,
    ) -> Option<T> {
        match self.described(key, shown, reader.form(), about) {
            None => default,
            Some(value) if value.node.is_null() => None,
            Some(value) => value.read(&reader),
        }
    }

    /// A key's value; that it is missing is a problem.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        reader: Reader<'_, T>,
        about: &str,
    ) -> Option<T> {
        let value = self.described(key, "required", reader.form(), about);
        if value.is_none() {
            self.missing(key, reader.form());
        }
        value?.read(&reader)
    }

    /// A key whose value its own code reads. All keys but those of sections and lists of sections
    /// pass here.
    pub fn described(
        &mut self,
        key: &'static str,
        default: &str,
        form: &str,
        about: &str,
    ) -> Option<Value<'a>> {
        self.notes.key(|| KeyReference {
            path: self.place.below(key).replace("[0]", "[]"),
            form: form.into(),
            default: default.into(),
            about: about.trim().into(),
        });
        self.find(key)
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
            notes: self.notes,
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
            Some(entry) => self.place.of_entry(entry),
            None => Place {
                path: self.place.below(key),
                ..self.place.clone()
            },
        }
    }

    /// Records a problem with a key's value, there or not.
    pub fn fail(&self, key: &str, message: impl Into<String>) {
        self.notes.fail(&self.place_of(key), message);
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
            self.notes.fail(&self.place.of_key(key), message);
        }
    }

    fn missing(&self, key: &str, expected: &str) {
        self.fail(key, format!("missing, expected {expected}"));
    }
}

fn by_default<T>(default: &str, reader: &Reader<'_, T>) -> T {
    // Whatever is asked for is asked for in the tests.
    reader
        .read(&Node::plain_text(default))
        .unwrap_or_else(|expected| panic!("the default {default} is not {expected}"))
}

/// A value for people, as code.
pub(super) fn code(value: impl Display) -> String {
    format!("`{value}`")
}

/// The word that was probably meant, if any is near: at most two of five letters are wrong (added,
/// left out, changed or swapped). `maxInFlight` is `max_in_flight`.
pub(super) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const SIMILARITY_MIN: f64 = 0.6;
    /// Longer words are no typos, and comparing takes quadratic time.
    const CHARS_MAX: usize = 128;
    if wrong.chars().nth(CHARS_MAX).is_some() {
        return None;
    }
    let plain = |word: &str| word.to_lowercase().replace(['_', '-'], "");
    let wrong = plain(wrong);
    known
        .map(|word| {
            let similarity = strsim::normalized_damerau_levenshtein(&wrong, &plain(word));
            (similarity, word)
        })
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_was_probably_meant() {
        let known = [
            "listeners",
            "queue",
            "timeouts",
            "max_in_flight",
            "backends",
            "path",
            "daemon",
            "demo",
            "host",
            "name",
        ];
        for (wrong, meant) in [
            ("maxInFlight", Some("max_in_flight")),
            ("max-in-flight", Some("max_in_flight")),
            ("max_inflight", Some("max_in_flight")),
            ("ques", Some("queue")),
            ("timeout", Some("timeouts")),
            ("BACKEND", Some("backends")),
            ("pth", Some("path")),
            ("deamon", Some("daemon")),
            ("demoo", Some("demo")),
            ("balance", None),
            ("port", None),
            ("weight", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, known.into_iter()), meant, "{wrong}");
        }
        assert_eq!(nearest(&"n".repeat(1_000), known.into_iter()), None);
    }
}
