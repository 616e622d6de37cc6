//! The single writer: events in, one immutable snapshot out.
//!
//! One task applies what changes (so far: the health file) and publishes one [`Snapshot`]; a request
//! loads it once. Invariant: nothing that a request can see is cleared and filled again.

mod phase;
mod snapshot;

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::Config;
use crate::health::FileEvent;

pub use phase::{Phase, PhaseSwitch, PhaseWatch};
pub use snapshot::{Current, Ineligible, Snapshot};

/// Applies events, one after the other.
pub struct Control {
    current: Current,
}

impl Control {
    /// Everything as the configuration and the first look at the health file say.
    pub async fn start(config: Arc<Config>, health: FileEvent) -> Self {
        let snapshot = Snapshot::new(config, health);
        apply(&snapshot).await;
        Self {
            current: Current::new(snapshot),
        }
    }

    /// Where the snapshot in force is always to be found.
    pub fn current(&self) -> Current {
        self.current.clone()
    }

    /// Puts each change of the health file in force, until nobody watches the file any more.
    pub async fn run(self, mut health: watch::Receiver<FileEvent>) {
        while health.changed().await.is_ok() {
            let event = health.borrow_and_update().clone();
            let old = self.current.load_full();
            let is_same = same_report(&old.health, &event);
            let snapshot = old.with_health(event);
            if !is_same {
                apply(&snapshot).await;
            }
            self.current.store(snapshot);
        }
    }
}

/// Whether nothing changed but the time: the poller writes the file each round.
fn same_report(old: &FileEvent, new: &FileEvent) -> bool {
    match (&old.report, &new.report) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (None, None) => true,
        _ => false,
    }
}

/// Tells every upstream what the report in force says. Before the first one, nobody is healthy.
async fn apply(snapshot: &Snapshot) {
    let report = snapshot.health.report.clone().unwrap_or_default();
    for upstream in snapshot.upstreams.values() {
        upstream.apply(&report).await;
    }
}
