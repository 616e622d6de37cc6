//! What the health file says, read all the time: a verdict that holds for a moment is one, too.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};
use tokio::task::JoinHandle;

use super::duration::Units;
use super::site::Site;

/// What the health file has said at any time since it was made.
pub struct Verdicts {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// Backends by what they were called at any time.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Who was called sick.
    pub sick: BTreeSet<String>,
    /// Who was called busy.
    pub busy: BTreeSet<String>,
}

impl Verdicts {
    /// Reads from now on.
    pub fn of(site: &Site) -> Self {
        let (path, seen) = (site.health_path(), Arc::new(Mutex::new(Seen::default())));
        let into = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let text = fs::read(&path).unwrap_or_default();
                if let Ok(Value::Object(report)) = serde_json::from_slice(&text) {
                    into.lock().unwrap().note(&report);
                }
                tokio::time::sleep(5.millis()).await;
            }
        });
        Self { seen, task }
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

impl Seen {
    fn note(&mut self, report: &Map<String, Value>) {
        for (name, entry) in report {
            if *entry == false || entry["healthy"] == false {
                self.sick.insert(name.clone());
            }
            if entry["verdict"] == "busy" {
                self.busy.insert(name.clone());
            }
        }
    }
}

impl Drop for Verdicts {
    fn drop(&mut self) {
        self.task.abort();
    }
}
