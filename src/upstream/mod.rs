//! Which backend gets this request, and when: slots, the queue, selection, ejection.
//!
//! A request [arrives](Upstream::arrive) and is seated at once, waits for its [`Turn`], or is
//! refused. Seated, it holds a [`Lease`]; the lease returns its slot on `Drop`. Everything that a
//! decision needs is under the upstream's one lock ([`slots`]), so a request is never seated by an
//! outdated report. [`Work`] ties a lease to the connection, because a slot belongs to the
//! backend's work and not to our request.

mod connect;
#[cfg(test)]
mod fixtures;
mod health_check;
mod lease;
mod params;
mod queue;
#[cfg(test)]
#[cfg(feature = "shuttle")]
mod schedules;
mod selection;
mod slots;
mod sync;
#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests;
mod trial;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::Waker;
use std::time::Instant;

use arc_swap::ArcSwap;
use pingora::Error;
use pingora::upstreams::peer::HttpPeer;
use pingora_load_balancing::discovery::Static;
use pingora_load_balancing::{Backend as Target, Backends, Extensions, LoadBalancer};

use crate::address::Endpoint;
use crate::health::Report;
use crate::id::BackendName;

pub use connect::BackendSocket;
pub use lease::{Lease, LeaseWatch, Turn};
pub use params::{BackendParams, QueueParams, Timeouts, UpstreamParams};
pub use queue::Ticket;
pub use work::Work;

use health_check::ReportHealth;
use selection::{Rotation, RoundRobin};
use slots::{Account, Slots};
use sync::Mutex;

/// A backend's place in its upstream's configuration order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendIndex(usize);

/// Why a request got no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The report calls every backend sick, or names none of them.
    NoneEligible,
    /// The queue is full.
    QueueFull,
    /// The process stops.
    Stopping,
}

/// What becomes of a request that asks for a slot.
pub enum Arrival {
    /// It may be sent now.
    Seated(Lease),
    /// It waits for its turn.
    Waiting(Turn),
    /// It gets none.
    Refused(Refusal),
}

/// One server of an upstream: what is fixed, and what it has done.
pub struct Backend {
    params: BackendParams,
    location: ArcSwap<Location>,
    served: AtomicU64,
    failed: AtomicU64,
    /// Fresh connections in a row that it closed without a byte of an answer.
    broken_off: AtomicU32,
}

/// Where a backend is reached at the moment. Immutable; another takes its place.
#[derive(Debug)]
pub struct Location {
    /// `None`: its name was never resolved.
    pub endpoint: Option<Endpoint>,
    /// Why the last try to resolve its name failed; the endpoint is then the last good one.
    pub problem: Option<String>,
    peer: HttpPeer,
}

/// How often in a row a backend may close a fresh connection without a byte of an answer. Once may be
/// a restart.
const BROKEN_OFF_MAX: u32 = 1;

impl Backend {
    fn new(params: &BackendParams, upstream: &UpstreamParams) -> Self {
        let endpoint = params.address.endpoint();
        let location = Location {
            peer: connect::peer(endpoint.as_ref(), &upstream.timeouts),
            endpoint,
            problem: None,
        };
        Self {
            params: params.clone(),
            location: ArcSwap::from_pointee(location),
            served: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            broken_off: AtomicU32::new(0),
        }
    }

    /// What it is called in configuration and health file.
    pub fn name(&self) -> &BackendName {
        &self.params.name
    }

    /// How Pingora reaches it, every timeout set.
    pub fn peer(&self) -> HttpPeer {
        self.location.load().peer.clone()
    }

    /// Counts an attempt that ended here, well or badly.
    pub fn count(&self, served: bool) {
        let counter = if served {
            self.broken_off.store(0, Relaxed);
            &self.served
        } else {
            &self.failed
        };
        counter.fetch_add(1, Relaxed);
    }
}

/// A group of backends with one queue. Live: it outlives every health change.
pub struct Upstream {
    params: UpstreamParams,
    backends: Vec<Backend>,
    rotation: Arc<Rotation>,
    slots: Mutex<Slots>,
}

/// One backend as the status shows it.
pub struct BackendView<'a> {
    /// What the configuration says of it.
    pub params: &'a BackendParams,
    /// The report calls it healthy.
    pub healthy: bool,
    /// Taken out because it refused connections.
    pub ejected: bool,
    /// When its eligibility changed last.
    pub since: Instant,
    /// Slots taken, abandoned ones included.
    pub in_flight: u32,
    /// Slots of requests that we gave up on and the backend has not let go.
    pub abandoned: u32,
    /// Attempts that it answered.
    pub served: u64,
    /// Attempts that failed on it.
    pub failed: u64,
}

impl BackendView<'_> {
    /// It may be chosen, once it has a free slot.
    pub fn is_eligible(&self) -> bool {
        self.healthy && !self.ejected
    }
}

impl Upstream {
    /// An upstream in which nobody is eligible until the first [`Upstream::apply`].
    pub fn new(params: UpstreamParams) -> Arc<Self> {
        let backends: Vec<_> = params
            .backends
            .iter()
            .map(|b| Backend::new(b, &params))
            .collect();
        let rotation = Arc::new(Rotation::new(backends.len()));
        let now = Instant::now();
        let accounts = targets(&params.backends)
            .zip(&params.backends)
            .map(|(target, backend)| Account::new(target, backend.max_in_flight, now))
            .collect();
        let slots = Slots::new(
            accounts,
            balancer(&params.backends, &rotation, Arc::default()),
            rotation.clone(),
            params.queue.size,
        );
        Arc::new(Self {
            params,
            backends,
            rotation,
            slots: Mutex::new(slots),
        })
    }

    /// What the configuration says of it.
    pub fn params(&self) -> &UpstreamParams {
        &self.params
    }

    /// The backend at `index`.
    pub fn backend(&self, index: BackendIndex) -> &Backend {
        &self.backends[index.0]
    }

    /// Puts a report in force, in one step: a new `LoadBalancer` is built and checked on the side,
    /// so that no request sees half a change.
    pub async fn apply(&self, report: &Arc<Report>) {
        let balancer = balancer(&self.params.backends, &self.rotation, report.clone());
        // Both only fail when discovery does, and ours is a fixed list.
        if let Err(error) = balancer.update().await {
            tracing::error!(upstream = %self.params.name, %error, "health change not applied");
            return;
        }
        balancer.backends().run_health_check(false).await;
        let published = self.slots.lock().publish(balancer, Instant::now());
        wake(published.wakers);
        drop(published.replaced);
        for (index, healthy) in published.changed {
            self.log_health(index, healthy);
        }
    }

    fn log_health(&self, index: BackendIndex, healthy: bool) {
        let (upstream, backend) = (&self.params.name, self.backend(index).name());
        if healthy {
            tracing::info!(%upstream, %backend, "healthy by the report");
        } else {
            tracing::warn!(%upstream, %backend, "sick by the report");
        }
    }

    /// A request asks for a slot: for the first time with `None`, later with the ticket that its
    /// lease or turn had, which keeps its place ahead of those who came after it.
    pub fn arrive(self: &Arc<Self>, ticket: Option<Ticket>) -> Arrival {
        let (ticket, arrival) = self.slots.lock().arrive(ticket);
        match arrival {
            slots::Arrival::Seated(index) => {
                Arrival::Seated(Lease::new(self.clone(), index, ticket))
            }
            slots::Arrival::Waiting(place) => {
                Arrival::Waiting(Turn::new(self.clone(), place, ticket))
            }
            slots::Arrival::Refused(refusal) => Arrival::Refused(refusal),
        }
    }

    /// A connection to the backend failed with `error`. If that was the backend's fault, takes it
    /// out at once and starts trials that bring it back; says whether it was. To be called before
    /// the lease is dropped: otherwise the head of the queue is handed the dead backend. Needs a
    /// tokio runtime.
    pub fn connect_failed(self: &Arc<Self>, index: BackendIndex, error: &Error) -> bool {
        let is_backends_fault = connect::is_backends_fault(error);
        if is_backends_fault {
            self.eject(index);
        }
        is_backends_fault
    }

    /// The backend closed a fresh connection without a byte of an answer. Such a backend frees its slot at
    /// once and looks like the emptiest; so it is taken out when it does it again, unless nobody else
    /// is left. To be called before the lease is dropped, as [`Upstream::connect_failed`].
    pub fn broke_off(self: &Arc<Self>, index: BackendIndex) {
        let again = self.backend(index).broken_off.fetch_add(1, Relaxed) >= BROKEN_OFF_MAX;
        if again && self.slots.lock().is_other_eligible(index) {
            self.eject(index);
        }
    }

    fn eject(self: &Arc<Self>, index: BackendIndex) {
        if self.slots.lock().eject(index, Instant::now()) {
            tracing::warn!(upstream = %self.params.name, backend = %self.backend(index).name(), "ejected: it refuses connections or breaks them off");
            tokio::spawn(trial::until_reinstated(self.clone(), index));
        }
    }

    /// Refuses everyone who waits and everyone who comes: the process stops.
    pub fn close(&self) {
        let wakers = self.slots.lock().close();
        wake(wakers);
    }

    /// How many requests wait for a slot.
    pub fn waiting(&self) -> usize {
        self.slots.lock().waiting()
    }

    /// Every backend as it is now, in configuration order; one consistent look.
    pub fn view(&self) -> Vec<BackendView<'_>> {
        let slots = self.slots.lock();
        self.backends
            .iter()
            .zip(slots.accounts())
            .map(|(backend, account)| BackendView {
                params: &backend.params,
                healthy: account.healthy,
                ejected: account.ejected.is_some(),
                since: account.since,
                in_flight: account.in_flight,
                abandoned: account.abandoned,
                served: backend.served.load(Relaxed),
                failed: backend.failed.load(Relaxed),
            })
            .collect()
    }
}

/// A `LoadBalancer` over `backends` that knows `report`, not yet updated and checked.
fn balancer(
    backends: &[BackendParams],
    rotation: &Arc<Rotation>,
    report: Arc<Report>,
) -> LoadBalancer<RoundRobin> {
    let discovery = Static::new(targets(backends).collect());
    let mut balancer =
        LoadBalancer::from_backends_with_config(Backends::new(discovery), Some(rotation.clone()));
    balancer.set_health_check(Box::new(ReportHealth::new(report)));
    balancer
}

/// The backends as the `LoadBalancer` knows them, in configuration order. The weight is part of
/// Pingora's identity of a backend, so it stays 1: a changed one would be another backend, with its
/// health forgotten. The address is, too: so a host name has a stand-in that does not change.
fn targets(backends: &[BackendParams]) -> impl Iterator<Item = Target> {
    backends.iter().enumerate().map(|(index, params)| {
        let mut ext = Extensions::new();
        ext.insert(params.name.clone());
        Target {
            addr: connect::identity(index, &params.address),
            weight: 1,
            ext,
        }
    })
}

/// Wakes requests that were called, outside the lock.
fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
