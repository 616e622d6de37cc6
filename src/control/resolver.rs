//! Keeps the host names of backends resolved: before the listeners open, and every half minute.
//!
//! A name that cannot be resolved keeps the address that it had; one that never could refuses
//! connections like a backend that is down. A name must not lead to another backend's address,
//! because a slot has one owner.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::address::Endpoint;
use crate::id::{BackendName, UpstreamName};
use crate::upstream::{Backend, Upstream};

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(30);
/// The same while some name was never resolved.
const IMPATIENT: Duration = Duration::from_secs(1);
/// For one name. A resolver that hangs must not keep the proxy from starting.
const TIMEOUT: Duration = Duration::from_secs(5);

type Upstreams = BTreeMap<UpstreamName, Arc<Upstream>>;

/// Resolves every name again and again. Ends at once if there is none.
pub(super) async fn run(upstreams: Arc<Upstreams>) {
    while named(&upstreams).next().is_some() {
        let is_lost = |backend: &Backend| backend.location().endpoint.is_none();
        let pause = if named(&upstreams).any(is_lost) {
            IMPATIENT
        } else {
            INTERVAL
        };
        sleep(pause).await;
        round(&upstreams).await;
    }
}

/// Resolves every name once, all at the same time.
pub(super) async fn round(upstreams: &Upstreams) {
    let asked = named(upstreams).map(|backend| {
        let address = backend.params().address.clone();
        tokio::spawn(async move { timeout(TIMEOUT, address.resolve()).await })
    });
    let asked: Vec<_> = asked.collect();
    let mut owners = owners(upstreams);
    for (backend, found) in named(upstreams).zip(asked) {
        let found = match found.await {
            Ok(Ok(resolved)) => resolved.map_err(|error| error.to_string()),
            Ok(Err(_)) => Err(format!(
                "{} does not resolve in time",
                backend.params().address
            )),
            // The runtime is shutting down.
            Err(_) => return,
        };
        note(
            backend,
            found.and_then(|endpoint| claim(&mut owners, backend, endpoint)),
        );
    }
}

fn named(upstreams: &Upstreams) -> impl Iterator<Item = &Backend> {
    let all = upstreams.values().flat_map(|upstream| upstream.backends());
    all.filter(|backend| backend.params().address.endpoint().is_none())
}

/// Whose every address is now.
fn owners(upstreams: &Upstreams) -> HashMap<Endpoint, BackendName> {
    let all = upstreams.values().flat_map(|upstream| upstream.backends());
    all.filter_map(|backend| {
        let endpoint = backend.location().endpoint.clone()?;
        Some((endpoint, backend.name().clone()))
    })
    .collect()
}

fn claim(
    owners: &mut HashMap<Endpoint, BackendName>,
    backend: &Backend,
    endpoint: Endpoint,
) -> Result<Endpoint, String> {
    let owner = owners
        .entry(endpoint.clone())
        .or_insert_with(|| backend.name().clone());
    if owner == backend.name() {
        return Ok(endpoint);
    }
    let address = &backend.params().address;
    Err(format!(
        "{address} resolves to {endpoint}, which is {owner}"
    ))
}

/// One log line per change.
fn note(backend: &Backend, found: Result<Endpoint, String>) {
    let last = backend.location();
    let (name, address) = (backend.name(), &backend.params().address);
    match &found {
        Ok(endpoint) if last.endpoint.as_ref() != Some(endpoint) || last.problem.is_some() => {
            info!(backend = %name, %address, %endpoint, "name resolved");
        }
        Err(problem) if last.problem.as_ref() != Some(problem) => {
            warn!(backend = %name, %problem, "name not resolved");
        }
        // Nothing is new.
        _ => return,
    }
    backend.locate(found);
}
