//! What is in force: configuration, routes, upstreams and the report, as one value.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::config::Config;
use crate::health::FileEvent;
use crate::id::UpstreamName;
use crate::routing::Router;
use crate::upstream::{BackendView, Upstream};

/// Everything that a request is decided by. Immutable; the upstreams in it are live.
pub struct Snapshot {
    /// The configuration.
    pub config: Arc<Config>,
    /// Its routes.
    pub router: Arc<Router>,
    /// Its upstreams.
    pub upstreams: Arc<BTreeMap<UpstreamName, Arc<Upstream>>>,
    /// The health file and the report in force.
    pub health: FileEvent,
}

impl Snapshot {
    pub(super) fn new(config: Arc<Config>, health: FileEvent) -> Self {
        let upstreams = config
            .upstreams
            .iter()
            .map(|params| (params.name.clone(), Upstream::new(params.clone())))
            .collect();
        Self {
            router: Arc::new(Router::new(config.routes.clone())),
            upstreams: Arc::new(upstreams),
            config,
            health,
        }
    }

    pub(super) fn with_health(&self, health: FileEvent) -> Self {
        Self {
            config: self.config.clone(),
            router: self.router.clone(),
            upstreams: self.upstreams.clone(),
            health,
        }
    }

    /// Why a backend may not be chosen; `None` if it may.
    pub fn ineligible(&self, backend: &BackendView<'_>) -> Option<Ineligible> {
        if backend.is_eligible() {
            return None;
        }
        if backend.healthy {
            return Some(Ineligible::Refuses);
        }
        let report = self.health.report.as_ref();
        let verdict = report.and_then(|report| report.verdict(backend.params.name.as_str()));
        Some(match verdict {
            Some(verdict) => Ineligible::Sick(verdict.reason.clone()),
            None if report.is_some() => Ineligible::Unnamed,
            None => Ineligible::NoReport,
        })
    }
}

/// Why a backend may not be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ineligible {
    /// No health file was read yet.
    NoReport,
    /// The report does not name it.
    Unnamed,
    /// The report calls it sick, perhaps with a reason.
    Sick(Option<Box<str>>),
    /// It refuses connections.
    Refuses,
}

impl fmt::Display for Ineligible {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReport => formatter.write_str("no health file was read yet"),
            Self::Unnamed => formatter.write_str("the health file does not name it"),
            Self::Sick(None) => formatter.write_str("the health file says false"),
            Self::Sick(Some(reason)) => write!(formatter, "the health file says false: {reason}"),
            Self::Refuses => formatter.write_str("it refuses connections"),
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
