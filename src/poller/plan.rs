//! What the poller does, as the configuration says it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::config::{Config, PollerParams, ProbeParams};
use crate::health::{Report, State};
use crate::id::BackendName;

/// Whom to ping, and where to write what was found. Immutable; a reload replaces it whole.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The configuration that says so, for messages.
    pub configuration: PathBuf,
    /// Equal for configurations that say the same.
    pub fingerprint: u64,
    /// The health file.
    pub file: PathBuf,
    /// Whether reasons are written, too.
    pub detail: bool,
    /// Where the poller tells what it counts.
    pub metrics: Option<SocketAddr>,
    /// Whom to ping, in the order of the configuration; names unique.
    pub targets: Vec<Target>,
}

/// One backend to ping.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name in the health file.
    pub name: BackendName,
    /// Where it listens.
    pub address: Address,
    /// What the operator wants of it, by the configuration.
    pub state: State,
    /// How long it is believed to be at work when nothing is heard of it.
    pub busy_limit: Duration,
    /// What it is asked, and what is a good answer.
    pub probe: ProbeParams,
    /// What holds for all targets.
    pub params: Arc<PollerParams>,
}

impl Plan {
    /// The poller's part of a configuration.
    pub fn new(config: &Config, configuration: &Path) -> Self {
        let params = Arc::new(config.poller.clone());
        let targets = config.upstreams.iter().flat_map(|upstream| {
            let probe = params.probes.get(&upstream.name);
            let probe = probe.cloned().unwrap_or_default();
            let params = params.clone();
            upstream.backends.iter().map(move |backend| Target {
                name: backend.name.clone(),
                address: backend.address.clone(),
                state: backend.state,
                busy_limit: upstream.busy_limit,
                probe: probe.clone(),
                params: params.clone(),
            })
        });
        Self {
            configuration: configuration.to_owned(),
            fingerprint: config.fingerprint(),
            file: config.health.file.clone(),
            detail: params.detail,
            metrics: params.metrics,
            targets: targets.collect(),
        }
    }
}

impl Target {
    /// Whether it is neither to be pinged nor to be written: of configuration and file, the more
    /// restrictive wins.
    pub(super) fn is_in_maintenance(&self, report: Option<&Report>) -> bool {
        let verdict = report.and_then(|report| report.verdict(self.name.as_str()));
        let state = verdict.map_or(State::Ready, |verdict| verdict.state);
        state.max(self.state) == State::Maint
    }
}
