//! What is in force: configuration, routes, upstreams and what is known of the health file, as one
//! value.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Guard};

use crate::config::Config;
use crate::events::Events;
use crate::health::FileEvent;
use crate::id::UpstreamName;
use crate::routing::Router;
use crate::upstream::Upstream;

/// Everything that a request is decided by. Immutable; the upstreams in it are live.
pub struct Snapshot {
    /// The configuration.
    pub config: Arc<Config>,
    /// Its routes.
    pub router: Arc<Router>,
    /// Its upstreams.
    pub upstreams: Arc<BTreeMap<UpstreamName, Arc<Upstream>>>,
    /// The health file.
    pub report: ReportStatus,
}

/// What is known of the health file and what was made of it.
#[derive(Clone, Debug)]
pub struct ReportStatus {
    /// The file and the last good report.
    pub event: FileEvent,
    /// The report is older than `stale_after`.
    pub is_stale: bool,
    /// The upstreams for which the report is held back, and since when.
    pub held: BTreeMap<UpstreamName, Instant>,
    /// How long the last change took; `None` before the first.
    pub in_force: Option<InForce>,
}

/// How long a change of the health file took until every decision was made by it.
#[derive(Clone, Copy, Debug)]
pub struct InForce {
    /// From the change of the file (by the time stamp that the file system gave it, whose steps are
    /// some milliseconds; so up to one step too long). `None` where the clocks contradict each other.
    pub since_change: Option<Duration>,
    /// From the moment at which the proxy was told of it.
    pub since_notice: Duration,
}

impl InForce {
    pub(super) fn since(event: &FileEvent, now: Instant, clock: SystemTime) -> Self {
        Self {
            since_change: event
                .changed
                .and_then(|changed| clock.duration_since(changed).ok()),
            since_notice: now.saturating_duration_since(event.noticed),
        }
    }
}

impl ReportStatus {
    /// For machines: `stale`, else the state of the file.
    pub fn name(&self) -> &'static str {
        match self.event.state.name() {
            "ok" if self.is_stale => "stale",
            other => other,
        }
    }

    /// How old the report in force is; `None` without one.
    pub fn age(&self) -> Option<Duration> {
        let age = self.event.age(Instant::now());
        self.event.report.as_ref().map(|_| age)
    }
}

impl Snapshot {
    pub(super) fn new(config: Arc<Config>, event: FileEvent, events: &Events) -> Self {
        let upstreams = config
            .upstreams
            .iter()
            .map(|params| {
                let upstream = Upstream::new(params.clone(), events.clone());
                (params.name.clone(), upstream)
            })
            .collect();
        Self {
            router: Arc::new(Router::new(config.routes.clone())),
            upstreams: Arc::new(upstreams),
            config,
            report: ReportStatus {
                event,
                is_stale: false,
                held: BTreeMap::new(),
                in_force: None,
            },
        }
    }

    pub(super) fn with_report(&self, report: ReportStatus) -> Self {
        Self {
            config: self.config.clone(),
            router: self.router.clone(),
            upstreams: self.upstreams.clone(),
            report,
        }
    }
}

/// The snapshot in force. Cheap to clone and to load.
#[derive(Clone)]
pub struct Current(Arc<ArcSwap<Snapshot>>);

impl Current {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(snapshot)))
    }

    /// The snapshot in force now. Not to be held across an `.await`.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.0.load()
    }

    /// The same, to be held for as long as need be.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    pub(super) fn store(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }
}
