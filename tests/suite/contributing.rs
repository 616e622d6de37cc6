//! The worked example of CONTRIBUTING.md is code: its steps are applied to a copy of the source, which
//! must then build and pass the tests that the example brings.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::Room;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const EXAMPLE: &str = "## How to add a balancing algorithm";

/// What the example does to one file.
#[derive(Debug, PartialEq)]
struct Step {
    path: String,
    change: Change,
}

#[derive(Debug, PartialEq)]
enum Change {
    /// There is a new file with this text.
    New(String),
    /// These lines take the place of those.
    Edits(Vec<Edit>),
}

#[derive(Debug, Default, PartialEq)]
struct Edit {
    before: Vec<String>,
    after: Vec<String>,
}

/// The steps of a section: its code blocks that name a file (```` ```rust src/new.rs ````).
fn steps(document: &str, section: &str) -> Vec<Step> {
    let (_, text) = document.split_once(section).expect("the section is there");
    let text = text.split_once("\n## ").map_or(text, |(text, _)| text);
    let mut lines = text.lines();
    let mut steps = Vec::new();
    while let Some(line) = lines.next() {
        let Some(header) = line.strip_prefix("```") else {
            continue;
        };
        let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        let (language, path) = header.split_once(' ').unwrap_or((header, ""));
        let change = match language {
            _ if path.is_empty() => continue,
            "diff" => Change::Edits(block.split(|line| *line == "@@").map(edit).collect()),
            _ => Change::New(block.join("\n") + "\n"),
        };
        let path = path.to_owned();
        steps.push(Step { path, change });
    }
    steps
}

/// One hunk of a diff. A line without a sign is an empty one.
fn edit(hunk: &[&str]) -> Edit {
    let mut edit = Edit::default();
    for line in hunk {
        let (sign, text) = line.split_at_checked(1).unwrap_or((" ", ""));
        if sign != "+" {
            edit.before.push(text.to_owned());
        }
        if sign != "-" {
            edit.after.push(text.to_owned());
        }
    }
    edit
}

/// A file's text after an edit, or what stands in its way.
fn edited(text: &str, edit: &Edit) -> Result<String, String> {
    let lines: Vec<_> = text.lines().collect();
    let length = edit.before.len();
    let places = (0..lines.len()).filter(|place| lines[*place..].starts_with_lines(&edit.before));
    let [place] = places.collect::<Vec<_>>()[..] else {
        return Err(format!(
            "not there, or not once:\n{}",
            edit.before.join("\n")
        ));
    };
    let mut result: Vec<_> = lines[..place].to_vec();
    result.extend(edit.after.iter().map(String::as_str));
    result.extend(&lines[place + length..]);
    Ok(result.join("\n") + "\n")
}

trait StartsWithLines {
    fn starts_with_lines(&self, other: &[String]) -> bool;
}

impl StartsWithLines for [&str] {
    fn starts_with_lines(&self, other: &[String]) -> bool {
        self.len() >= other.len() && self.iter().zip(other).all(|(left, right)| left == right)
    }
}

/// Does a step to the tree in `folder`.
fn apply(step: &Step, folder: &Path) {
    let Step { path, change } = step;
    let file = folder.join(path);
    let text = match change {
        Change::New(text) => {
            assert!(!file.exists(), "{path} is not new");
            text.clone()
        }
        Change::Edits(edits) => {
            let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
            let edited = edits
                .iter()
                .try_fold(text, |text, edit| edited(&text, edit));
            edited.unwrap_or_else(|problem| panic!("{path}: {problem}"))
        }
    };
    fs::write(file, text).unwrap();
}

/// Copies a source tree, without what is built or hidden. Files keep their times, so that cargo takes what
/// is the same for the same.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (name, path) = (entry.file_name(), entry.path());
        if name == "target" || name.to_string_lossy().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            let time = entry.metadata().unwrap().modified().unwrap();
            fs::copy(&path, to.join(&name)).unwrap();
            let copied = fs::File::options().write(true).open(to.join(&name));
            copied.unwrap().set_modified(time).unwrap();
        }
    }
}

/// Copies the source to a folder and follows the example there.
fn follow(folder: &Path) {
    copy(Path::new(ROOT), folder);
    let document = fs::read_to_string(folder.join("CONTRIBUTING.md")).unwrap();
    let steps = steps(&document, EXAMPLE);
    assert!(steps.len() > 3, "{} steps", steps.len());
    for step in steps {
        apply(&step, folder);
    }
}

/// Makes the copy another package for cargo, which would otherwise take what it builds of the copy for
/// what it builds of the original.
fn set_apart(folder: &Path) {
    let manifest = folder.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let version = concat!("\nversion = \"", env!("CARGO_PKG_VERSION"), "\"\n");
    assert!(text.contains(version));
    let apart = text.replacen(version, "\nversion = \"0.0.0-example\"\n", 1);
    fs::write(manifest, apart).unwrap();
}

/// Runs cargo there, with what is built already of the dependencies.
fn cargo(folder: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> String {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let is_clean = output.status.success() && !stderr.contains("warning:");
    assert!(is_clean, "{arguments:?}\n{stdout}\n{stderr}");
    stdout
}

#[test]
fn the_example_of_a_new_algorithm_fits_the_source() {
    follow(tempfile::tempdir().unwrap().path());
}

#[tokio::test]
#[ignore = "takes about a minute: the library is built once more"]
async fn the_example_of_a_new_algorithm_builds_and_keeps_its_promise() {
    // The compiler would make others late.
    let _room = Room::alone().await;
    // Always the same folder, so that what was built of it takes up room only once.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contributing");
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    follow(&folder);
    set_apart(&folder);
    let test = ["test", "--offline", "--lib", "--"];
    let documents = [("MAITRED_UPDATE_DOCS", "1")];
    cargo(
        &folder,
        &documents,
        &[&test[..], &["configuration_is_documented"]].concat(),
    );
    let document = fs::read_to_string(folder.join("docs/configuration.md")).unwrap();
    assert!(document.contains("one of round_robin, least_requests, first"));
    let output = cargo(
        &folder,
        &[],
        &[&test[..], &["selection::", "upstream::", "config::"]].concat(),
    );
    assert!(output.contains("selection::first::tests::"), "{output}");
    cargo(&folder, &[], &["check", "--offline", "--test", "suite"]);
}

#[test]
fn a_diff_that_does_not_fit_is_told() {
    let document = "## A\n```diff a.rs\n one\n-two\n+three\n\n```\n\n## B\n```diff b.rs\n```\n";
    let steps = steps(document, "## A");
    let [
        Step {
            path,
            change: Change::Edits(edits),
        },
    ] = &steps[..]
    else {
        panic!("{steps:?}");
    };
    assert_eq!(path, "a.rs");
    let apply = |text: &str| edited(text, &edits[0]);
    assert_eq!(apply("one\ntwo\n\nfour\n").unwrap(), "one\nthree\n\nfour\n");
    for other in ["one\ntwo", "one\ntwo \n\n", "one\ntwo\n\none\ntwo\n\n"] {
        assert!(apply(other).is_err(), "{other:?}");
    }
}
