//! Which backend gets this request, and when: slots, the queue, selection, ejection.
//!
//! A request [arrives](Upstream::arrive) and is seated at once, waits for its [`Turn`], or is
//! refused. Seated, it holds a [`Lease`]; the lease returns its slot on `Drop`. Everything that a
//! decision needs is under the upstream's one lock ([`slots`]), so a request is never seated by an
//! outdated report. [`Work`] ties a lease to the connection, because a slot belongs to the
//! backend's work and not to our request.

mod account;
mod backend;
mod connect;
mod errors;
#[cfg(test)]
mod fixtures;
mod guest;
mod health_check;
mod idle;
mod lease;
mod network;
mod news;
mod outliers;
mod pace;
mod params;
mod queue;
#[cfg(test)]
#[cfg(feature = "shuttle")]
mod schedules;
mod selection;
mod service;
mod sightings;
mod slots;
mod socket;
mod survey;
mod sync;
#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests;
mod trial;
mod view;
mod work;

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use pingora_load_balancing::discovery::Static;
use pingora_load_balancing::{Backend as Target, Backends, Extensions, LoadBalancer};

use crate::events::Events;
use crate::health::{Ruling, Standing, Verdict};
use crate::metrics::{RequestCounts, RequestTimes};
use crate::policy::budget::Budget;

pub use backend::{Backend, Location};
pub use guest::{Ask, FairBy, Guest, Key, Keys, Priority};
pub use lease::{Lease, LeaseWatch, Turn};
pub use network::{Network, NetworkError};
pub use params::{BackendParams, PriorityParams, QueueParams, Sources, Timeouts, UpstreamParams};
pub use queue::Ticket;
pub use selection::Balance;
pub use sightings::Evidence;
pub use socket::BackendSocket;
pub use survey::{Counts, Finding, LISTED_MAX, Survey};
pub use view::{BackendView, Ineligible, Outage, QueueView, UpstreamView};
pub use work::Work;

use account::Terms;
use health_check::{Identity, RulingHealth};
use pace::Pace;
use queue::Rules;
use selection::{Selection, Selector};
use service::ServiceTime;
use slots::{Edition, Slots};
use sync::Mutex;

/// A backend's place in its upstream's configuration order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendIndex(usize);

/// Why a request got no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The report admits nobody: it calls every backend sick, or names none of them.
    NoneEligible,
    /// The queue is full, or as full as it may be of this client's requests.
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

/// How many changed backends one change of health tells of by name.
const NAMED_MAX: usize = 20;

/// A group of backends with one queue. Live: it outlives every health change.
pub struct Upstream {
    params: UpstreamParams,
    backends: Vec<Backend>,
    /// The same backends as the `LoadBalancer` knows them.
    targets: Box<[Target]>,
    selection: Arc<Selection>,
    keys: Keys,
    slots: Mutex<Slots>,
    service: ServiceTime,
    /// `None` where nobody is taken out for being slow.
    pace: Option<Pace>,
    retries: Mutex<Budget>,
    /// When it was made; `retries` and, as `slots` do, ejections count from here.
    made: Instant,
    events: Events,
    /// The requests that ended without a backend.
    pub unassigned: RequestCounts,
    /// How long they took.
    pub times: RequestTimes,
}

impl Upstream {
    /// An upstream in which nobody is eligible until the first [`Upstream::apply`]; it tells `events` what
    /// becomes of its backends.
    pub fn new(params: UpstreamParams, events: Events) -> Arc<Self> {
        let backends: Vec<_> = params
            .backends
            .iter()
            .map(|backend| Backend::new(backend, &params))
            .collect();
        let targets = params.backends.iter().enumerate();
        let targets: Box<[_]> = targets
            .map(|(index, params)| target(index, params))
            .collect();
        let selection = Arc::new(Selection::new(params.balance, targets.clone()));
        let first = Edition {
            ruling: Arc::default(),
            balancer: balancer(&params.backends, &targets, &selection, Arc::default()),
            terms: params
                .backends
                .iter()
                .map(|params| terms(params, (None, Standing::NoReport.name()), false))
                .collect(),
        };
        let rules = rules(&params.queue);
        let made = Instant::now();
        let pace = Pace::new(&params.outlier, backends.len(), made);
        let slots = Slots::new(first, selection.clone(), rules, made);
        let retries = Budget::new(params.retry.budget_percent, configured_slots(&params));
        Arc::new(Self {
            params,
            backends,
            targets,
            selection,
            keys: Keys::default(),
            slots: Mutex::new(slots),
            service: ServiceTime::default(),
            pace,
            retries: Mutex::new(retries),
            made,
            events,
            unassigned: RequestCounts::default(),
            times: RequestTimes::default(),
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

    /// Every backend, in configuration order.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// What is in force.
    pub fn ruling(&self) -> Arc<Ruling> {
        self.slots.lock().ruling().clone()
    }

    /// Puts a ruling in force, in one step: a new `LoadBalancer` is built and checked on the side,
    /// so that no request sees half a change.
    pub async fn apply(&self, ruling: &Arc<Ruling>) {
        let balancer = balancer(
            &self.params.backends,
            &self.targets,
            &self.selection,
            ruling.clone(),
        );
        // Both only fail when discovery does, and ours is a fixed list.
        if let Err(error) = balancer.update().await {
            tracing::error!(upstream = %self.params.name, %error, "health change not applied");
            return;
        }
        balancer.backends().run_health_check(false).await;
        let terms: Vec<_> = self
            .params
            .backends
            .iter()
            .zip(&self.targets)
            .map(|(params, target)| {
                let verdict = ruling.verdict(params.name.as_str());
                let standing = Identity::of(params).standing(ruling).name();
                terms(
                    params,
                    (verdict, standing),
                    balancer.backends().ready(target),
                )
            })
            .collect();
        let edition = Edition {
            ruling: ruling.clone(),
            terms: terms.clone(),
            balancer,
        };
        let published = self.slots.lock().publish(edition, Instant::now());
        self.close_connections(&published.replaced.terms, &terms);
        wake(published.wakers);
        self.settle_errors(&published.replaced, &terms);
        self.tell_changes(&published.replaced, ruling, &terms);
    }

    /// Whoever was taken out or let in again serves on fresh connections only.
    fn close_connections(&self, was: &[Terms], is: &[Terms]) {
        for ((backend, was), is) in self.backends.iter().zip(was).zip(is) {
            if was.admitted != is.admitted {
                backend.close_connections();
            }
        }
    }

    /// Tells one client from another, for its queue.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A request asks for a slot. With the ticket of an earlier lease it goes ahead of all who had none.
    pub fn arrive(self: &Arc<Self>, ask: Ask) -> Arrival {
        let decided = self.slots.lock().arrive(ask);
        self.decided(decided, ask)
    }

    /// The same, and notes what there was to choose from.
    pub fn arrive_noting(self: &Arc<Self>, ask: Ask, survey: &mut Survey) -> Arrival {
        let decided = self.slots.lock().arrive_noting(ask, survey, Instant::now());
        self.decided(decided, ask)
    }

    fn decided(self: &Arc<Self>, decided: (Ticket, slots::Arrival), ask: Ask) -> Arrival {
        let (ticket, arrival) = decided;
        match arrival {
            slots::Arrival::Seated(seat) => {
                let now = match ask {
                    // Just now; another look at the clock would be one per request.
                    Ask::First(guest) => guest.since,
                    Ask::Again { .. } => Instant::now(),
                };
                Arrival::Seated(Lease::new(self.clone(), seat, ticket, now))
            }
            slots::Arrival::Waiting(place, displaced) => {
                wake(displaced);
                Arrival::Waiting(Turn::new(self.clone(), place, ticket))
            }
            slots::Arrival::Refused(refusal) => Arrival::Refused(refusal),
        }
    }

    /// Takes one of the retries that may cost backends work, if there is one left.
    pub fn take_retry(&self, now: Instant) -> bool {
        let requests = self.slots.lock().requests();
        let age = now.saturating_duration_since(self.made);
        self.retries.lock().take(requests, age)
    }

    /// Whether a request that this backend failed may find another one.
    pub fn has_another(&self, index: BackendIndex) -> bool {
        self.slots.lock().has_another(index)
    }

    /// Refuses everyone who waits and everyone who comes: the process stops.
    pub fn close(&self) {
        let wakers = self.slots.lock().close();
        wake(wakers);
    }

    /// The time, where the queue goes by it.
    fn time_if_requests_age(&self) -> Option<Instant> {
        self.params.queue.priority.is_some().then(Instant::now)
    }

    /// How many requests wait for a slot.
    pub fn waiting(&self) -> usize {
        self.slots.lock().waiting()
    }

    /// Counts how long a backend took for a request, from it being sent to the answer's last byte.
    pub fn count_service(&self, took: Duration) {
        self.service.record(took);
    }

    /// How long backends take for a request, lately; `None` before the first answer.
    pub fn service_time(&self) -> Option<Duration> {
        self.service.mean()
    }

    /// How long this guest would wait if it came now: those who would be called before it, times what each
    /// takes, by how many are served at once. `None` where that is not known: nobody is eligible, or nothing
    /// was answered yet.
    pub fn expected_wait(&self, guest: &Guest) -> Option<Duration> {
        self.wait_with(guest, Slots::eligible_slots)
    }

    /// How long it would be if every backend were eligible at once; `None` before the first answer.
    pub fn least_wait(&self, guest: &Guest) -> Option<Duration> {
        self.wait_with(guest, |_| configured_slots(&self.params).into())
    }

    fn wait_with(&self, guest: &Guest, at_once: impl FnOnce(&Slots) -> u64) -> Option<Duration> {
        let now = Instant::now();
        let (ahead, slots) = {
            let slots = self.slots.lock();
            (slots.ahead_of(guest, now), at_once(&slots))
        };
        let service = self.service.mean()?.as_secs_f64();
        let until_called = |ahead: usize| {
            let wait = service * ahead as f64 / slots as f64;
            Duration::try_from_secs_f64(wait).ok()
        };
        let wait = until_called(ahead.by_urgency)?;
        // It need not wait for all that is more urgent: after a while its class has a share.
        let (Some(priority), Some(once_due)) = (&self.params.queue.priority, ahead.once_due) else {
            return Some(wait);
        };
        let shared = priority.aging.saturating_add(until_called(once_due)?);
        Some(wait.min(shared))
    }

    /// What can be testified of every backend, in configuration order.
    pub fn evidence(&self, now: Instant) -> Vec<(&Backend, Evidence)> {
        let accounts = self.slots.lock().accounts().to_vec();
        let backends = self.backends.iter().zip(&accounts);
        backends
            .map(|(backend, account)| (backend, Evidence::of(backend, account, now)))
            .collect()
    }
}

/// What the queue goes by.
fn rules(params: &QueueParams) -> Rules {
    Rules {
        size: params.size,
        size_per_key: params.size_per_key,
        is_fair: params.fair_by.is_some(),
        aging: params.priority.as_ref().map(|priority| priority.aging),
    }
}

/// What all backends can serve at once.
fn configured_slots(params: &UpstreamParams) -> u32 {
    let slots = params.backends.iter().map(|backend| backend.max_in_flight);
    slots.fold(0, u32::saturating_add)
}

/// What a backend may do: the file's word on weight and slots goes before the configuration's.
fn terms(
    params: &BackendParams,
    (verdict, standing): (Option<&Verdict>, &'static str),
    admitted: bool,
) -> Terms {
    Terms {
        admitted,
        standing,
        weight: verdict
            .and_then(|verdict| verdict.weight)
            .unwrap_or(params.weight),
        max_in_flight: verdict
            .and_then(|verdict| verdict.max_in_flight)
            .unwrap_or(params.max_in_flight),
    }
}

/// A `LoadBalancer` over `backends` that knows `ruling`, not yet updated and checked.
fn balancer(
    backends: &[BackendParams],
    targets: &[Target],
    selection: &Arc<Selection>,
    ruling: Arc<Ruling>,
) -> LoadBalancer<Selector> {
    let identified = backends.iter().zip(targets).map(|(params, target)| {
        let mut target = target.clone();
        target.ext.insert(Identity::of(params));
        target
    });
    let discovery = Static::new(identified.collect());
    let mut balancer =
        LoadBalancer::from_backends_with_config(Backends::new(discovery), Some(selection.clone()));
    balancer.set_health_check(Box::new(RulingHealth::new(ruling)));
    balancer
}

/// A backend as the `LoadBalancer` knows it, but for its extensions. The weight is part of Pingora's
/// identity of a backend, so it stays 1: a changed one would be another backend, with its health
/// forgotten. So is the address, which is why a host name has a stand-in that does not change.
fn target(index: usize, params: &BackendParams) -> Target {
    Target {
        addr: connect::identity(index, &params.address),
        weight: 1,
        ext: Extensions::new(),
    }
}

/// Wakes requests that were called, outside the lock.
fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
