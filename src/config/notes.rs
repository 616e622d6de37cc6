//! What is noted while a configuration is read, and how a place in it is called.

use std::cell::RefCell;
use std::sync::Arc;

use super::Problem;
use super::reference::KeyReference;
use super::tree::{Entry, Fault, Key, Node};

/// What reading one configuration leaves behind beside the parameters: what is wrong with it and, if
/// somebody wants to know, every key that was asked for.
pub(super) struct Notes {
    file: Arc<str>,
    problems: RefCell<Vec<Problem>>,
    keys: Option<RefCell<Vec<KeyReference>>>,
}

impl Notes {
    pub fn new(file: &str) -> Self {
        Self {
            file: file.into(),
            problems: RefCell::default(),
            keys: None,
        }
    }

    /// Notes that know every key.
    pub fn with_keys() -> Self {
        Self {
            keys: Some(RefCell::default()),
            ..Self::new("")
        }
    }

    pub fn fail(&self, place: &Place, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem {
            file: self.file.clone(),
            line: place.line,
            column: place.column,
            path: place.path.clone(),
            message: message.into(),
        });
    }

    pub fn fault(&self, fault: Fault) {
        let place = Place {
            line: fault.line,
            column: fault.column,
            path: String::new(),
        };
        self.fail(&place, fault.message);
    }

    /// Takes down a key that is asked for.
    pub fn key(&self, key: impl FnOnce() -> KeyReference) {
        if let Some(keys) = &self.keys {
            keys.borrow_mut().push(key());
        }
    }

    /// The problems, in the order of the text.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems
    }

    /// The keys, in the order of asking.
    pub fn into_keys(self) -> Vec<KeyReference> {
        self.keys.map(RefCell::into_inner).unwrap_or_default()
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
    /// Of the whole file.
    pub fn root(node: &Node) -> Self {
        Self {
            line: node.line,
            column: node.column,
            path: String::new(),
        }
    }

    /// Of a value in the mapping that stands here.
    pub fn of_entry(&self, entry: &Entry) -> Self {
        let mut place = self.of_key(&entry.key);
        // Of a value that is not there, show the key.
        if !entry.value.is_null() {
            (place.line, place.column) = (entry.value.line, entry.value.column);
        }
        place
    }

    /// Of a value in the list that stands here.
    pub fn of_item(&self, index: usize, node: &Node) -> Self {
        Self {
            line: node.line,
            column: node.column,
            path: format!("{}[{index}]", self.path),
        }
    }

    /// The path of a key in the mapping that stands here.
    pub fn below(&self, key: &str) -> String {
        let is_simple = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let separator = if self.path.is_empty() { "" } else { "." };
        if !key.is_empty() && key.chars().all(is_simple) {
            format!("{}{separator}{key}", self.path)
        } else {
            format!("{}{separator}{key:?}", self.path)
        }
    }

    /// Of a key in the mapping that stands here.
    pub fn of_key(&self, key: &Key) -> Self {
        Self {
            line: key.line,
            column: key.column,
            path: self.below(&key.text),
        }
    }
}
