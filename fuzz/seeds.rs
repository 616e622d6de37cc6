//! Replays the seeds of the fuzz targets on stable, so that none is forgotten and what was mended
//! stays so. Declared by `src/lib.rs` as a test only.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::health::Report;

/// The path and bytes of every seed of a target, in any order.
fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// The names, sorted, of the seeds that `parses` accepts.
fn accepted(target: &str, parses: impl Fn(&[u8]) -> bool) -> Vec<String> {
    let good = seeds(target).into_iter().filter(|(_, bytes)| parses(bytes));
    let mut names: Vec<String> = good
        .map(|(path, _)| path.file_name().unwrap().display().to_string())
        .collect();
    names.sort();
    names
}

#[test]
fn health_reports() {
    let good = accepted("health_report", |bytes| Report::parse(bytes).is_ok());
    let expected = [
        "empty_object.json",
        "escapes_and_numbers.json",
        "objects.json",
        "tracked.json",
    ];
    assert_eq!(good, expected);
}

#[test]
fn configurations() {
    let good = accepted("configuration", |bytes| {
        let text = std::str::from_utf8(bytes).unwrap();
        Config::parse(text, "seed").is_ok()
    });
    assert!(good.iter().any(|name| name == "tracked.yaml"), "{good:?}");
}
