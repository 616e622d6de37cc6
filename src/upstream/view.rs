//! An upstream as the status and the proxy's own answers show it: one consistent look.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::Account;
use super::health_check::Identity;
use super::slots::Slots;
use super::{Backend, Priority, QueueParams, Upstream};
use crate::health::{Ruling, Standing, State};
use crate::policy::outlier::Cause;

/// One look at an upstream.
pub struct UpstreamView<'a> {
    /// What is in force.
    pub ruling: Arc<Ruling>,
    /// Who waits for a slot.
    pub queue: QueueView,
    /// In configuration order.
    pub backends: Vec<BackendView<'a>>,
}

/// Who waits at the moment of the look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueView {
    /// How many requests wait for a slot.
    pub waiting: usize,
    /// How many of each priority, but those that wait once more; `None` where there are none.
    pub by_priority: Option<[usize; Priority::ALL.len()]>,
    /// How many clients have requests waiting, those of different priority counted as different, and how
    /// many the one with most has; `None` where clients are not told apart.
    pub clients: Option<(usize, usize)>,
}

/// One backend as it is at the moment of the look.
pub struct BackendView<'a> {
    /// The backend itself: its counters go on.
    pub backend: &'a Backend,
    /// The report calls it sick, and is not believed yet.
    pub is_doubted: bool,
    /// Why it may not be chosen; `None` if it may, once it has a free slot.
    pub why_not: Option<Ineligible>,
    /// What it is out for, if it is ejected, whatever the report says.
    pub outage: Option<Outage>,
    /// The file says one thing and the requests show another: it was called sick and has answered since,
    /// or is called healthy and refuses or fails requests. The file has its way.
    pub disagrees: bool,
    /// When its eligibility changed last.
    pub since: Instant,
    /// Its share of new requests, as it is now.
    pub weight: u32,
    /// Its slots, as they are now.
    pub max_in_flight: u32,
    /// Slots taken, abandoned ones included.
    pub in_flight: u32,
    /// Slots of requests that we gave up on and the backend has not let go.
    pub abandoned: u32,
}

/// Why a backend may not be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ineligible {
    /// No health file was read yet.
    NoReport,
    /// The report is too old to be believed.
    Stale,
    /// The report does not name it.
    Unnamed,
    /// The report calls it sick, perhaps with a reason.
    Sick(Option<Box<str>>),
    /// Configuration or report keep requests from it.
    Kept(State),
    /// It refuses connections.
    Refuses,
    /// It was taken out for what happened to its requests.
    Ejected(Outage),
    /// Its name stands for no server.
    Unresolved(String),
}

/// What a backend was taken out for, and what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// What it was taken out for.
    pub cause: Cause,
    /// Until when it rests; over when it is on probation. `None`: it refuses, and is tried with bare connections.
    pub until: Option<Instant>,
    /// It may have one request, whose end decides.
    pub is_on_probation: bool,
}

impl Upstream {
    /// Everything as it is now; one consistent look.
    pub fn view(&self) -> UpstreamView<'_> {
        let (ruling, queue, accounts) = {
            let slots = self.slots.lock();
            let queue = QueueView::new(&slots, &self.params.queue);
            (slots.ruling().clone(), queue, slots.accounts().to_vec())
        };
        let backends = self.backends.iter().zip(&accounts);
        let backends = backends
            .map(|(backend, account)| BackendView::new(backend, account, &ruling, self.made));
        UpstreamView {
            queue,
            backends: backends.collect(),
            ruling,
        }
    }

    /// Some of those that may not be chosen, the first ones: what an answer says must cost little, however
    /// many there are.
    pub fn first_ineligible(&self, most: usize) -> Vec<BackendView<'_>> {
        let (ruling, accounts) = {
            let slots = self.slots.lock();
            (slots.ruling().clone(), slots.first_ineligible(most))
        };
        let accounts = accounts.iter();
        let view = |(index, account): &(usize, Account)| {
            BackendView::new(&self.backends[*index], account, &ruling, self.made)
        };
        accounts.map(view).collect()
    }
}

impl QueueView {
    fn new(slots: &Slots, params: &QueueParams) -> Self {
        let tally = slots.tally();
        Self {
            waiting: slots.waiting(),
            by_priority: params.priority.as_ref().map(|_| tally.by_class),
            clients: params
                .fair_by
                .as_ref()
                .map(|_| (tally.lines, tally.longest)),
        }
    }
}

impl<'a> BackendView<'a> {
    fn new(backend: &'a Backend, account: &Account, ruling: &Ruling, made: Instant) -> Self {
        let standing = Identity::of(backend.params()).standing(ruling);
        let outage = Outage::of(account, made);
        let why_not = match Ineligible::by(standing) {
            None => outage.map(|outage| Ineligible::ejected(backend, outage)),
            other => other,
        };
        let disagrees = match &why_not {
            Some(Ineligible::Sick(_)) => backend
                .last_served()
                .is_some_and(|served| served > account.since),
            Some(Ineligible::Refuses | Ineligible::Ejected(_) | Ineligible::Unresolved(_)) => true,
            _ => false,
        };
        Self {
            backend,
            is_doubted: ruling.doubted().contains(backend.name()),
            why_not,
            outage,
            disagrees,
            since: account.since,
            weight: account.terms.weight,
            max_in_flight: account.terms.max_in_flight,
            in_flight: account.in_flight,
            abandoned: account.abandoned,
        }
    }

    /// It may be chosen, once it has a free slot.
    pub fn is_eligible(&self) -> bool {
        self.why_not.is_none()
    }
}

impl Outage {
    fn of(account: &Account, made: Instant) -> Option<Self> {
        let ejection = account.circuit.ejection()?;
        Some(Self {
            cause: ejection.cause,
            until: ejection.until.map(|until| made + until),
            is_on_probation: account.circuit.is_on_probation(),
        })
    }

    /// `open`: it has no requests; `probation`: it may have one.
    pub fn state(&self) -> &'static str {
        match self.is_on_probation {
            true => "probation",
            false => "open",
        }
    }

    /// How long it rests still, if it rests at all.
    pub fn rest(&self, now: Instant) -> Option<Duration> {
        Some(self.until?.saturating_duration_since(now))
    }
}

impl Ineligible {
    /// What a standing keeps from being chosen, if it does.
    pub(super) fn by(standing: Standing<'_>) -> Option<Self> {
        match standing {
            Standing::Ready => None,
            Standing::Sick(reason) => Some(Self::Sick(reason.map(Box::from))),
            Standing::Unnamed => Some(Self::Unnamed),
            Standing::Kept(state) => Some(Self::Kept(state)),
            Standing::NoReport => Some(Self::NoReport),
            Standing::Stale => Some(Self::Stale),
        }
    }

    /// For machines, in a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoReport => "no_report",
            Self::Stale => "stale",
            Self::Unnamed => "unnamed",
            Self::Sick(_) => "sick",
            Self::Kept(state) => state.name(),
            Self::Refuses => "refuses",
            Self::Ejected(_) => "ejected",
            Self::Unresolved(_) => "unresolved",
        }
    }

    fn ejected(backend: &Backend, outage: Outage) -> Self {
        if outage.until.is_some() {
            return Self::Ejected(outage);
        }
        let location = backend.location();
        match (&location.endpoint, &location.problem) {
            (None, Some(problem)) => Self::Unresolved(problem.clone()),
            _ => Self::Refuses,
        }
    }
}

impl fmt::Display for Ineligible {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReport => formatter.write_str("no health file was read yet"),
            Self::Stale => formatter.write_str("the health file is too old"),
            Self::Unnamed => formatter.write_str("the health file does not name it"),
            Self::Sick(None) => formatter.write_str("the health file says false"),
            Self::Sick(Some(reason)) => write!(formatter, "the health file says false: {reason}"),
            Self::Kept(state) => write!(formatter, "its state is {}", state.name()),
            Self::Refuses => formatter.write_str("it refuses connections"),
            Self::Ejected(outage) => outage.fmt(formatter),
            Self::Unresolved(problem) => formatter.write_str(problem),
        }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.cause {
            Cause::BrokenOff => "it closed fresh connections without an answer",
            Cause::ConsecutiveErrors => "it failed too many requests in a row",
            Cause::ErrorPercent => "it failed too many of its requests",
            Cause::Latency => "it was far slower than the others",
            Cause::ConnectionRefused
            | Cause::ConnectTimeout
            | Cause::NoRoute
            | Cause::ConnectFailure => "it refused connections",
        };
        match self.rest(Instant::now()) {
            Some(rest) if !self.is_on_probation => {
                write!(
                    formatter,
                    "{why}; it is tried again within {:.1} s",
                    rest.as_secs_f64()
                )
            }
            _ => write!(formatter, "{why}; the next request tries it"),
        }
    }
}
