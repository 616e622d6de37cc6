//! A person's hand in the health file: takes a server out by `"state": "drain"`, which the poller leaves alone.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

/// Drains the server of this name, or makes it ready again, by replacing the file; says whether it is drained
/// then. What the poller writes between the read and the rename is lost until its next round, a second later.
///
/// # Errors
/// When the file cannot be read or replaced.
pub fn toggle(file: &Path, server: &str) -> Result<bool> {
    let text = fs::read_to_string(file).context("cannot read the health file")?;
    let mut report: Map<String, Value> =
        serde_json::from_str(&text).context("the health file is broken")?;
    let entry = report.get(server).unwrap_or(&Value::Null);
    let (toggled, is_drained) = toggled(entry);
    report.insert(server.to_owned(), toggled);
    let aside = file.with_extension("json.demo");
    fs::write(&aside, format!("{:#}\n", Value::Object(report)))?;
    fs::rename(&aside, file).context("cannot replace the health file")?;
    Ok(is_drained)
}

fn toggled(entry: &Value) -> (Value, bool) {
    let is_healthy = entry["healthy"]
        .as_bool()
        .or(entry.as_bool())
        .unwrap_or(false);
    match entry["state"].as_str() {
        Some("drain") => (json!(is_healthy), false),
        _ => (json!({ "healthy": is_healthy, "state": "drain" }), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_keeps_what_is_said_of_the_health() {
        for healthy in [true, false] {
            let (drained, is_drained) = toggled(&json!(healthy));
            assert_eq!(drained, json!({ "healthy": healthy, "state": "drain" }));
            assert!(is_drained);
            assert_eq!(toggled(&drained), (json!(healthy), false));
        }
    }

    #[test]
    fn the_others_stay_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("health_status.json");
        fs::write(
            &file,
            r#"{ "a": { "healthy": true, "weight": 2 }, "b": true }"#,
        )
        .unwrap();
        assert!(toggle(&file, "b").unwrap());
        let report: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(report["a"], json!({ "healthy": true, "weight": 2 }));
        assert_eq!(report["b"]["state"], "drain");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
