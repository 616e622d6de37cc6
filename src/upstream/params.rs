//! What the configuration says of an upstream. Immutable; a reload replaces it whole.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::{Balance, FairBy, Network};
use crate::address::Address;
use crate::health::State;
use crate::id::{BackendName, UpstreamName};
use crate::policy::outlier::OutlierParams;
use crate::policy::retry::RetryParams;

/// A group of backends that serve the same thing, with one queue.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamParams {
    /// Unique in the configuration.
    pub name: UpstreamName,
    /// How it is chosen among the backends that have a free slot.
    pub balance: Balance,
    /// Who may wait, and how long.
    pub queue: QueueParams,
    /// Every wait of one request.
    pub timeouts: Timeouts,
    /// When a request is sent again.
    pub retry: RetryParams,
    /// When a backend is taken out, and for how long.
    pub outlier: OutlierParams,
    /// Whether a connection to a backend serves several requests, one after the other.
    pub keepalive: bool,
    /// How long a slot stays taken for a request that we gave up on, if the backend neither
    /// answers nor closes.
    pub busy_limit: Duration,
    /// Where connections to the backends come from.
    pub sources: Arc<Sources>,
    /// In configuration order, which is the order in which they have their turns. Not empty; names and
    /// addresses are unique.
    pub backends: Vec<BackendParams>,
}

/// Addresses of this machine from which connections to backends are made, one after the other; of a
/// family without any, the system chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// For backends with an IPv4 address.
    pub v4: Vec<Ipv4Addr>,
    /// For backends with an IPv6 address.
    pub v6: Vec<Ipv6Addr>,
}

impl Sources {
    /// The address for connection number `count` to a backend of the one family or the other.
    pub fn choose(&self, is_ipv4: bool, count: usize) -> Option<IpAddr> {
        fn nth<T: Copy + Into<IpAddr>>(list: &[T], count: usize) -> Option<IpAddr> {
            let place = count.checked_rem(list.len())?;
            list.get(place).map(|address| (*address).into())
        }
        if is_ipv4 {
            nth(&self.v4, count)
        } else {
            nth(&self.v6, count)
        }
    }
}

/// Limits of an upstream's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueParams {
    /// How many requests may wait; one more is answered 503 at once. 0: nobody waits.
    pub size: usize,
    /// How many requests of one key and class may wait, if `fair_by` gives them one.
    pub size_per_key: usize,
    /// How long a request may wait for its turn, all its attempts together.
    pub timeout: Duration,
    /// What tells clients apart, if they are to have their turns one after the other.
    pub fair_by: Option<FairBy>,
    /// Who may say how urgent a request is, if anybody.
    pub priority: Option<PriorityParams>,
}

/// Who may say how urgent a request is, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorityParams {
    /// The header that says it.
    pub header: HeaderName,
    /// Whose word counts. Not empty.
    pub trusted: Vec<Network>,
    /// How long a request waits before its class, too, gets some of the slots.
    pub aging: Duration,
}

impl PriorityParams {
    /// Whether what a client at this address says counts.
    pub fn trusts(&self, address: Option<IpAddr>) -> bool {
        let mut networks = self.trusted.iter();
        address.is_some_and(|address| networks.any(|network| network.contains(address)))
    }
}

/// Every wait of one request. None is endless.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timeouts {
    /// Until the connection to the backend stands.
    pub connect: Duration,
    /// From the request's last byte sent to the response's header complete.
    pub response_header: Duration,
    /// Between two reads of the response's body.
    pub read: Duration,
    /// How long the backend may take nothing of what is sent to it.
    pub write: Duration,
    /// How long an idle connection to a backend is kept for the next request.
    pub idle: Duration,
    /// Queue, attempts and the response's header together; bodies are not covered.
    pub request: Duration,
}

/// One server.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendParams {
    /// Unique in the whole configuration.
    pub name: BackendName,
    /// Where it listens. Unique in the whole configuration: a slot has one owner.
    pub address: Address,
    /// How many requests it may serve at once, in `1..=10_000`; the health file may say otherwise.
    pub max_in_flight: u32,
    /// Its share of new requests, in `1..=1000`; the health file may say otherwise.
    pub weight: u32,
    /// What the operator wants of it; the health file may be more restrictive, not less.
    pub state: State,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_the_backends_family_take_turns() {
        let sources = Sources {
            v4: vec![Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)],
            v6: Vec::new(),
        };
        let chosen: Vec<_> = (0..3).map(|count| sources.choose(true, count)).collect();
        let [one, other] = [0, 1].map(|index| Some(IpAddr::V4(sources.v4[index])));
        assert_eq!(chosen, [one, other, one]);
        assert_eq!(sources.choose(false, 0), None, "the system chooses");
    }

    #[test]
    fn whoever_is_in_one_of_the_networks_is_trusted_and_without_an_address_nobody() {
        let params = |trusted: &[&str]| PriorityParams {
            header: HeaderName::from_static("x-priority"),
            trusted: trusted.iter().map(|text| text.parse().unwrap()).collect(),
            aging: Duration::ZERO,
        };
        let is_trusted = |trusted: &[&str], address: &str| {
            let address = address.parse().unwrap();
            params(trusted).trusts(Some(address))
        };
        assert!(is_trusted(&["10.0.0.0/8", "::1"], "::1"));
        assert!(is_trusted(&["10.0.0.0/8", "::1"], "10.1.2.3"));
        assert!(!is_trusted(&["10.0.0.0/8", "::1"], "11.1.2.3"));
        assert!(!params(&["0.0.0.0/0", "::/0"]).trusts(None));
    }
}
