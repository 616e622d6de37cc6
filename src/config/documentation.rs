//! Keeps what is written about the configuration true: the tables of docs/configuration.md are made
//! from the keys as they are read, and every example in the documentation is loaded.
//!
//! `MAITRED_UPDATE_DOCS=1 cargo test --lib configuration_is_documented` writes the tables anew. A
//! table stands between `<!-- keys of PREFIX -->` and `<!-- end of keys -->` and has the keys below
//! that prefix which no longer prefix has; `top level` is the prefix of Pingora's own.

use std::env::VarError;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use crate::health::Report;

use super::reference::{KeyReference, SAMPLE, keys};
use super::server::WITHOUT_EFFECT;
use super::{Config, ConfigError, Problem};

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");
const DOCUMENT: &str = "docs/configuration.md";
const BEGIN: &str = "<!-- keys of ";
const END: &str = "<!-- end of keys -->";

#[test]
fn configuration_is_documented() {
    let path = PathBuf::from(FOLDER).join(DOCUMENT);
    let written = fs::read_to_string(&path).unwrap();
    let generated = with_tables(&written);
    if std::env::var_os("MAITRED_UPDATE_DOCS").is_some() {
        fs::write(&path, generated).unwrap();
        return;
    }
    assert!(
        written == generated,
        "{DOCUMENT} is not what the code says; to write its tables anew: \
         MAITRED_UPDATE_DOCS=1 cargo test --lib configuration_is_documented"
    );
}

/// The document with its tables as they should be.
fn with_tables(document: &str) -> String {
    let mut parts = document.split(BEGIN);
    let mut text = parts.next().unwrap().to_owned();
    let parts: Vec<(&str, &str)> = parts.map(|part| part.split_once(" -->").unwrap()).collect();
    let prefixes: Vec<&str> = parts.iter().map(|(prefix, _)| *prefix).collect();
    for (prefix, rest) in parts {
        let (_, after) = rest.split_once(END).unwrap();
        let table = table(prefix, &prefixes);
        text += &format!("{BEGIN}{prefix} -->\n\n{table}\n{END}{after}");
    }
    text
}

fn table(prefix: &str, prefixes: &[&str]) -> String {
    let mut table = "| key | value | default | |\n|---|---|---|---|\n".to_owned();
    for key in keys() {
        let names = prefixes.iter().filter_map(|one| below(&key.path, one));
        let shortest = names.min_by_key(|name| name.len());
        let name = below(&key.path, prefix).filter(|name| Some(*name) == shortest);
        if let Some(name) = name {
            let KeyReference {
                form,
                default,
                about,
                ..
            } = &key;
            writeln!(table, "| `{name}` | {form} | {default} | {about} |").unwrap();
        }
    }
    table
}

/// What a key is called in the table of a prefix.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    match prefix {
        "top level" => Some(path),
        _ => path.strip_prefix(prefix)?.strip_prefix('.'),
    }
}

#[test]
fn every_key_is_described_once_and_stands_in_the_document() {
    let document = fs::read_to_string(PathBuf::from(FOLDER).join(DOCUMENT)).unwrap();
    let rows = document.lines().filter(|line| line.starts_with("| `"));
    let mut paths: Vec<String> = keys().into_iter().map(|key| key.path).collect();
    assert_eq!(rows.count(), paths.len());
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), keys().len());
    for key in keys() {
        let is_sentence = key.about.starts_with(char::is_uppercase) && key.about.ends_with('.');
        assert!(is_sentence && !key.form.is_empty(), "{key:?}");
        assert!(!format!("{key:?}").contains('|'), "{key:?}");
    }
}

#[test]
fn keys_without_effect_are_named_in_the_document() {
    let document = fs::read_to_string(PathBuf::from(FOLDER).join(DOCUMENT)).unwrap();
    for key in WITHOUT_EFFECT {
        assert!(document.contains(&format!("`{key}`")), "{key}");
    }
}

#[test]
fn a_default_that_is_written_changes_nothing() {
    let absent = Config::parse(SAMPLE, "c").unwrap();
    let keys = keys();
    for KeyReference { path, default, .. } in &keys {
        let value = default.strip_prefix('`').and_then(|d| d.strip_suffix('`'));
        let is_key = |value: &str| {
            let end = format!(".{value}");
            keys.iter().any(|key| key.path.ends_with(&end))
        };
        let Some(value) = value.filter(|value| !is_key(value)) else {
            continue;
        };
        let text = with_value(path, value);
        let config = Config::parse(&text, "c").unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(config, absent, "{path}: {value}");
    }
}

#[test]
fn every_key_refuses_what_is_no_value_of_its_form() {
    for key in keys() {
        let problems = match Config::parse(&with_value(&key.path, "{}"), "c") {
            Err(ConfigError::Invalid(problems)) => problems,
            other => panic!("{key:?}: {other:?}"),
        };
        let path = key.path.replace("[]", "[0]");
        let is_about_it = |problem: &Problem| {
            problem.path == path && problem.message.starts_with("a mapping is not ")
        };
        assert!(problems.iter().any(is_about_it), "{key:?}: {problems:?}");
    }
}

/// `SAMPLE` with one more value.
fn with_value(path: &str, value: &str) -> String {
    let mut whole: serde_json::Value = serde_json::from_str(SAMPLE).unwrap();
    let mut at = &mut whole;
    for key in path.replace("[]", ".0").split('.') {
        at = match key.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[key],
        };
    }
    *at = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    whole.to_string()
}

/// Every block of a kind in README.md and docs/, and where it stands.
fn examples(kind: &str) -> Vec<(String, String)> {
    let mut files = vec![PathBuf::from(FOLDER).join("README.md")];
    let folder = fs::read_dir(PathBuf::from(FOLDER).join("docs")).unwrap();
    files.extend(folder.map(|entry| entry.unwrap().path()));
    files.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut examples = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let mut start = 0;
        for part in text.split_inclusive("```\n") {
            if let Some((before, block)) = part.split_once(&format!("```{kind}\n")) {
                let line = 1 + text[..start + before.len()].matches('\n').count();
                let block = block.trim_end_matches("```\n").to_owned();
                examples.push((format!("{}:{line}", path.display()), block));
            }
            start += part.len();
        }
    }
    examples
}

/// An example in YAML is a whole file or ends with `maitred:`, to which this adds what it lacks.
fn completed(example: &str) -> String {
    let mut text = example.to_owned();
    let mut complete = |key: &str, lines: &str| {
        if !text.lines().any(|line| line == key) {
            text += &format!("{key}\n{lines}\n");
        }
    };
    complete("maitred:", "");
    complete("  routes:", "    - { match: { path: / }, upstream: demo }");
    complete(
        "  upstreams:",
        "    demo: { backends: [{ name: a, address: 127.0.0.1:81 }] }",
    );
    text
}

#[test]
fn every_example_is_a_configuration() {
    let environment = |name: &str| match name {
        "APP_HOST" => Ok("app.internal".to_owned()),
        "DEBUG_TOKEN" => Ok("nobody-guesses-this".to_owned()),
        _ => Err(VarError::NotPresent),
    };
    let examples = examples("yaml");
    assert!(examples.len() >= 8, "{}", examples.len());
    for (place, example) in examples {
        let text = completed(&example);
        if let Err(error) = Config::parse_with(&text, &place, &environment) {
            panic!("{error}\n{text}");
        }
    }
}

#[test]
fn every_json_example_is_a_health_file() {
    let examples = examples("json");
    assert!(!examples.is_empty());
    for (place, example) in examples {
        assert_eq!(Report::parse(example.as_bytes()).err(), None, "{place}");
    }
}
