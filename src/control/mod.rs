//! The single writer: events in, one immutable snapshot out.
//!
//! One task applies what changes (the health file, its age, the addresses of host names) and
//! publishes one [`Snapshot`]; a request loads it once. Invariant: nothing that a request can see is
//! cleared and filled again.

mod caution;
mod judgement;
mod phase;
mod resolver;
mod snapshot;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::time::sleep_until;

use crate::address::Resolver;
use crate::config::Config;
use crate::events::Events;
use crate::health::FileEvent;
use crate::metrics::ProxyCounters;

use judgement::Judgement;

pub use phase::{Phase, PhaseSwitch, PhaseWatch};
pub use snapshot::{Current, ReportStatus, Snapshot};

/// Applies events, one after the other.
pub struct Control {
    current: Current,
    judgement: Judgement,
    counters: Arc<ProxyCounters>,
    resolver: Resolver,
    events: Events,
}

impl Control {
    /// Everything as the configuration, the first look at the health file and the resolver say. Needs
    /// a tokio runtime with time.
    pub async fn start(
        config: Arc<Config>,
        health: FileEvent,
        counters: Arc<ProxyCounters>,
        events: Events,
    ) -> Self {
        let snapshot = Snapshot::new(config, health, &events);
        let resolver = Resolver::new();
        resolver::round(&resolver, &snapshot.upstreams, &events).await;
        let mut judgement = Judgement::new(&snapshot, counters.clone(), events.clone());
        let report = judgement.apply(&snapshot, &snapshot.report.event).await;
        Self {
            current: Current::new(snapshot.with_report(report)),
            judgement,
            counters,
            resolver,
            events,
        }
    }

    /// Where the snapshot in force is always to be found.
    pub fn current(&self) -> Current {
        self.current.clone()
    }

    /// Puts each change in force, until nobody watches the health file any more.
    pub async fn run(self, health: watch::Receiver<FileEvent>) {
        let upstreams = self.current.load_full().upstreams.clone();
        let (resolver, events) = (self.resolver.clone(), self.events.clone());
        tokio::select! {
            () = self.obey(health) => {}
            () = async {
                resolver::run(resolver, upstreams, events).await;
                std::future::pending().await
            } => {}
        }
    }

    async fn obey(mut self, mut health: watch::Receiver<FileEvent>) {
        loop {
            let due = self.judgement.due(&self.current.load().report.event);
            tokio::select! {
                changed = health.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let state = health.borrow().state.name();
                    self.counters.report_readings.add(state);
                }
                () = at(due) => {}
            }
            let event = health.borrow_and_update().clone();
            let old = self.current.load_full();
            let report = self.judgement.apply(&old, &event).await;
            self.current.store(old.with_report(report));
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
