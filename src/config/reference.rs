//! Every key, in the words of the code that reads it.

use super::notes::Notes;
use super::section::Value;
use super::{read, tree};

/// One key: what docs/configuration.md says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReference {
    /// Such as `maitred.upstreams.NAME.backends[].weight`.
    pub path: String,
    /// Type and range.
    pub form: String,
    /// In Markdown: a value or another key as code, or words.
    pub default: String,
    /// Sentences.
    pub about: String,
}

/// The least that has every section; JSON, which is YAML too.
pub(super) const SAMPLE: &str = r#"{ "maitred": {
    "listeners": [{ "bind": "0.0.0.0:8080" }],
    "routes": [{ "match": { "path": "/home" }, "upstream": "NAME" }],
    "upstreams": { "NAME": { "backends": [{ "name": "a", "address": "127.0.0.1:8081" }] } }
} }"#;

/// Every key of the configuration, each once, in the order in which they are read.
pub fn keys() -> Vec<KeyReference> {
    let root = tree::parse(SAMPLE).expect("the sample is YAML");
    let notes = Notes::with_keys();
    Value::root(&root, &notes)
        .section("a mapping")
        .and_then(read);
    notes.into_keys()
}
