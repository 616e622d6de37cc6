//! The layers of the crate, read from its source: a module names only those declared before it in
//! `src/lib.rs`. The checks are functions over text, so that they are seen to fail on bad samples.

mod tokens;

use std::fs;
use std::path::Path;

use tokens::{Token, tokens};

/// These stand beside each other: none names another, whatever their order.
const SIBLINGS: [&str; 3] = ["poller", "door", "admin"];

/// A source file of the library.
struct Source {
    /// Path below `src`.
    path: String,
    text: String,
}

impl Source {
    /// The module that it belongs to, right below the crate's root.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or("");
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How many modules deep it stands: 1 for `id.rs` and `upstream/mod.rs`, 2 for `upstream/queue.rs`.
    fn depth(&self) -> usize {
        self.path
            .strip_suffix("/mod.rs")
            .unwrap_or(&self.path)
            .split('/')
            .count()
    }
}

/// Every path of `source` to a module that it may not name, as `FILE:LINE: names MODULE`.
fn upward_names(order: &[String], source: &Source) -> Vec<String> {
    let place = |module: &str| order.iter().position(|name| name == module);
    let own =
        place(source.module()).unwrap_or_else(|| panic!("{} belongs to no module", source.path));
    let is_forbidden = |named: &str| {
        let are_siblings = SIBLINGS.contains(&named)
            && SIBLINGS.contains(&source.module())
            && named != source.module();
        named == "*" || are_siblings || place(named).is_some_and(|other| other > own)
    };
    let named = root_names(&tokens(&source.text), source.depth());
    let forbidden = named.into_iter().filter(|(_, named)| is_forbidden(named));
    forbidden
        .map(|(line, named)| format!("{}:{line}: names {named}", source.path))
        .collect()
}

/// The modules in the order in which the crate's root declares them.
fn declared_order(root: &str) -> Vec<String> {
    let tokens = tokens(root);
    let declarations = tokens.windows(3).filter_map(|window| match window {
        [
            (_, Token::Word(keyword)),
            (_, Token::Word(name)),
            (_, Token::Sign(';')),
        ] if keyword == "mod" => Some(name),
        _ => None,
    });
    declarations.cloned().collect()
}

/// Each name right below the crate's root that a path begins with, and its line; `*` for a glob.
fn root_names(tokens: &[(usize, Token)], file_depth: usize) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    let mut braces = 0;
    // The brace depths at which the modules that stand in this file opened.
    let mut inline: Vec<usize> = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        let word = word_at(tokens, index);
        let is_path = matches!(tokens.get(index + 1), Some((_, Token::Path)));
        match &tokens[index].1 {
            Token::Sign('{') => braces += 1,
            Token::Sign('}') => {
                braces -= 1;
                inline.pop_if(|opened| *opened == braces);
            }
            _ if word == "mod"
                && tokens
                    .get(index + 2)
                    .is_some_and(|(_, token)| *token == Token::Sign('{')) =>
            {
                inline.push(braces);
            }
            _ if word == "crate" && is_path => names.extend(heads(tokens, index + 2)),
            _ if word == "super" && is_path => {
                let steps = (index..tokens.len())
                    .step_by(2)
                    .take_while(|&at| word_at(tokens, at) == "super")
                    .count();
                let after = index + 2 * steps;
                if steps == file_depth + inline.len() {
                    names.extend(heads(tokens, after));
                }
                // Stays before what follows, which may be a brace.
                index = after - 1;
            }
            _ => {}
        }
        index += 1;
    }
    names
}

fn word_at(tokens: &[(usize, Token)], index: usize) -> &str {
    match tokens.get(index) {
        Some((_, Token::Word(word))) => word,
        _ => "",
    }
}

/// The first names of what follows a path's prefix: one name, a glob, or a group of paths.
fn heads(tokens: &[(usize, Token)], start: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut depth = 0;
    let mut is_first = true;
    for (line, token) in &tokens[start..] {
        match token {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') => depth -= 1,
            Token::Sign(',') if depth == 1 => is_first = true,
            Token::Word(word) if is_first => {
                found.push((*line, word.clone()));
                is_first = false;
            }
            Token::Sign('*') if is_first => {
                found.push((*line, "*".to_owned()));
                is_first = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// Lines that have a word which begins with `prefix`.
fn lines_with_word(text: &str, prefix: &str) -> Vec<usize> {
    let tokens = tokens(text);
    let begins = |token: &Token| matches!(token, Token::Word(word) if word.starts_with(prefix));
    tokens
        .iter()
        .filter(|(_, token)| begins(token))
        .map(|(line, _)| *line)
        .collect()
}

/// Lines that have the path `TYPE::FUNCTION`.
fn lines_with_call(text: &str, type_name: &str, function: &str) -> Vec<usize> {
    let tokens = tokens(text);
    let is_call = |window: &&[(usize, Token)]| {
        word_at(window, 0) == type_name
            && window[1].1 == Token::Path
            && word_at(window, 2) == function
    };
    tokens
        .windows(3)
        .filter(is_call)
        .map(|window| window[0].0)
        .collect()
}

/// The root's text, and every other file of the library.
fn library() -> (String, Vec<Source>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    collect(&folder, "", &mut sources);
    // Programs stand above all modules.
    sources.retain(|source| source.path != "lib.rs" && !source.path.starts_with("bin/"));
    assert!(sources.len() >= 11, "the source is where it was");
    (fs::read_to_string(folder.join("lib.rs")).unwrap(), sources)
}

fn collect(folder: &Path, prefix: &str, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{path}/"), sources);
        } else if path.ends_with(".rs") {
            sources.push(Source {
                path,
                text: fs::read_to_string(entry.path()).unwrap(),
            });
        }
    }
}

/// Every finding of `check` in the files that `is_checked`, as `FILE:LINE`.
fn findings(is_checked: impl Fn(&str) -> bool, check: impl Fn(&str) -> Vec<usize>) -> Vec<String> {
    let (_, sources) = library();
    let checked = sources.iter().filter(|source| is_checked(source.module()));
    checked
        .flat_map(|source| {
            check(&source.text)
                .into_iter()
                .map(|line| format!("{}:{line}", source.path))
        })
        .collect()
}

#[test]
fn modules_name_only_those_declared_before_them() {
    let (root, sources) = library();
    let order = declared_order(&root);
    let upward: Vec<_> = sources
        .iter()
        .flat_map(|source| upward_names(&order, source))
        .collect();
    assert_eq!(upward, Vec::<String>::new());
}

#[test]
fn the_root_is_in_layer_order_not_sorted() {
    let order = declared_order(&library().0);
    assert!(
        !order.is_sorted(),
        "rustfmt sorted the modules of src/lib.rs: set `reorder_modules = false`"
    );
}

#[test]
fn the_root_hides_no_module_behind_another_name() {
    let (root, _) = library();
    assert_eq!(lines_with_word(&root, "use"), Vec::<usize>::new());
}

#[test]
fn policy_reads_no_clock_and_no_random_source() {
    let policy = |check: &dyn Fn(&str) -> Vec<usize>| findings(|module| module == "policy", check);
    assert_eq!(
        policy(&|text| lines_with_call(text, "Instant", "now")),
        Vec::<String>::new()
    );
    assert_eq!(
        policy(&|text| lines_with_call(text, "SystemTime", "now")),
        Vec::<String>::new()
    );
    for source in ["rand", "fastrand", "thread_rng", "getrandom", "RandomState"] {
        assert_eq!(
            policy(&|text| lines_with_word(text, source)),
            Vec::<String>::new(),
            "{source}"
        );
    }
}

#[test]
fn only_config_knows_yaml() {
    assert_eq!(
        findings(
            |module| module != "config",
            |text| lines_with_word(text, "saphyr")
        ),
        Vec::<String>::new()
    );
}

#[test]
fn the_lower_layers_name_no_pingora_type() {
    let is_low = |module: &str| ["id", "policy", "health", "routing"].contains(&module);
    assert_eq!(
        findings(is_low, |text| lines_with_word(text, "pingora")),
        Vec::<String>::new()
    );
}

#[test]
fn there_is_no_mutable_static() {
    let statics = |text: &str| {
        let tokens = tokens(text);
        let is_mutable =
            |pair: &&[(usize, Token)]| word_at(pair, 0) == "static" && word_at(pair, 1) == "mut";
        tokens
            .windows(2)
            .filter(is_mutable)
            .map(|pair| pair[0].0)
            .collect()
    };
    assert_eq!(findings(|_| true, statics), Vec::<String>::new());
}

mod the_checker {
    use super::*;

    fn order() -> Vec<String> {
        declared_order(
            "pub mod id; /// mod fake;\n pub mod upstream; mod door; pub(crate) mod admin; pub mod proxy;",
        )
    }

    fn complaints(path: &str, text: &str) -> Vec<String> {
        upward_names(
            &order(),
            &Source {
                path: path.to_owned(),
                text: text.to_owned(),
            },
        )
    }

    #[test]
    fn reads_the_order() {
        assert_eq!(order(), ["id", "upstream", "door", "admin", "proxy"]);
    }

    #[test]
    fn finds_upward_names_however_they_are_written() {
        for text in [
            "use crate::proxy::Context;",
            "use crate::{id::Name, proxy};",
            "use crate::{\n    id::{A, B},\n    proxy::{self, C},\n};",
            "use crate::*;",
            "fn f(x: crate :: proxy :: Context) {}",
            "pub(in crate::proxy) fn f() {}",
            "use super::super::proxy::Context;",
            "use super::super::{id, proxy};",
            "mod tests { use super::super::super::proxy::Context; }",
            "mod tests { fn f() { {} } use super::super::super::proxy::Context; }",
            "fn f<'a>(x: &'a str) -> char { crate::proxy::g('\\'', '\"') }",
            "const A: &str = r#\"say \"hi\"\"#; use crate::proxy::B;",
            "/* a /* nested */ comment */ use crate::proxy::B;",
            "mod a {} use super::super::proxy::Context;",
        ] {
            assert_eq!(complaints("upstream/queue.rs", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn says_where() {
        let found = complaints("upstream/mod.rs", "//! One.\n\nuse super::proxy::Context;");
        assert_eq!(found, ["upstream/mod.rs:3: names proxy"]);
    }

    #[test]
    fn lets_be_what_is_allowed() {
        for text in [
            "use crate::id::Name; use crate::upstream::Slots;",
            "use super::slots::Slots; use super::proxy::OurOwn;",
            "use super::{slots, door};",
            "mod tests { use super::*; use super::super::proxy; }",
            "// use crate::proxy::Context;\n/// [`crate::proxy`]\nfn f() {}",
            "const A: &str = \"crate::proxy\"; const B: &str = r\"crate::proxy\";",
            "pub(crate) fn f() {} pub(super) fn g() {}",
            "use std::proxy; use other::{door, admin};",
        ] {
            assert_eq!(
                complaints("upstream/queue.rs", text),
                Vec::<String>::new(),
                "{text}"
            );
        }
    }

    #[test]
    fn keeps_siblings_apart_in_both_directions() {
        assert_eq!(complaints("door/mod.rs", "use crate::admin::X;").len(), 1);
        assert_eq!(complaints("admin.rs", "use crate::door::X;").len(), 1);
        assert_eq!(complaints("admin.rs", "use crate::admin::X;").len(), 0);
    }

    #[test]
    fn finds_words_and_calls_in_code_only() {
        let text = "// Instant::now\nlet a = std::time::Instant::now();\nuse pingora_proxy::X; // pingora\n";
        assert_eq!(lines_with_call(text, "Instant", "now"), [2]);
        assert_eq!(lines_with_word(text, "pingora"), [3]);
        assert_eq!(
            lines_with_word("let operand = \"rand\";", "rand"),
            Vec::<usize>::new()
        );
    }
}
