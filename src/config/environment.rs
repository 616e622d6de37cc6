//! References to the environment, in values only and after YAML is parsed, so that no variable can
//! change the structure of a file or what a key is called.
//!
//! `${NAME}` is the variable's value; `${NAME:-default}` is the default if there is none or it is
//! empty, as in shells; `$${` is a plain `${`. A value is not looked through for references again.

use std::env::VarError;

use super::notes::{Notes, Place};
use super::tree::{Kind, Node};

/// How a variable is looked up.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Result<String, VarError>;

/// Puts the variables' values in place of every reference at or below a node. What refers in vain is
/// recorded and becomes [`Kind::Broken`].
pub(super) fn substitute(node: &mut Node, place: &Place, lookup: Lookup<'_>, notes: &Notes) {
    match &mut node.kind {
        Kind::Plain(text) | Kind::Quoted(text) if text.contains("${") => {
            match expand(text, lookup) {
                Ok(expanded) => *text = expanded,
                Err(message) => {
                    notes.fail(place, message);
                    node.kind = Kind::Broken;
                }
            }
        }
        Kind::Plain(_) | Kind::Quoted(_) | Kind::Broken => {}
        Kind::Sequence(nodes) => {
            for (index, node) in nodes.iter_mut().enumerate() {
                let place = place.of_item(index, node);
                substitute(node, &place, lookup, notes);
            }
        }
        Kind::Mapping(entries) => {
            for entry in entries {
                let place = place.of_entry(entry);
                substitute(&mut entry.value, &place, lookup, notes);
            }
        }
    }
}

fn expand(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        expanded.push_str(before);
        let reference = Reference::parse(after);
        let (reference, after) = reference.ok_or_else(|| malformed(after))?;
        expanded.push_str(&reference.value(lookup)?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn malformed(after: &str) -> String {
    let start: String = after.chars().take(16).collect();
    format!(
        "{:?} is not a reference such as ${{NAME}} or ${{NAME:-default}}; a plain ${{ is written $${{",
        format!("${{{start}")
    )
}

struct Reference<'a> {
    name: &'a str,
    default: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// From behind `${`; with what follows the reference.
    fn parse(text: &'a str) -> Option<(Self, &'a str)> {
        let (inside, after) = text.split_once('}')?;
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        // A default with a reference in it would end at the wrong brace.
        let is_nested = default.is_some_and(|default| default.contains("${"));
        (is_name(name) && !is_nested).then_some((Self { name, default }, after))
    }

    fn value(&self, lookup: Lookup<'_>) -> Result<String, String> {
        let name = self.name;
        match (lookup(name), self.default) {
            (Err(VarError::NotUnicode(_)), _) => Err(format!("${{{name}}} is not UTF-8")),
            (Err(VarError::NotPresent), None) => Err(format!(
                "${{{name}}} is not set, expected a value or a default as in ${{{name}:-default}}"
            )),
            (Err(VarError::NotPresent), Some(default)) => Ok(default.to_owned()),
            (Ok(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
            (Ok(value), _) => Ok(value),
        }
    }
}

/// What POSIX allows.
fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().all(is_allowed)
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
}
