//! Upstreams and their backends, whose names and addresses are unique in the whole file.

use std::collections::HashMap;

use std::sync::Arc;

use crate::address::Address;
use crate::health::State;
use crate::id::{BackendName, UpstreamName};
use crate::upstream::{BackendParams, Balance, Timeouts, UpstreamParams};

use super::health::{self, ProbeParams};
use super::listeners::Binds;
use super::notes::Place;
use super::outlier_detection;
use super::queue;
use super::retry;
use super::scalar::{self, duration};
use super::section::{Section, Value};

const MAPPING: &str = "a mapping such as { demo: { backends: [..] } }";
const BACKENDS: &str = "a list such as [{ name: server1, address: 127.0.0.1:8081 }]";

/// All upstreams, in the order of the file, and how each is pinged; and the names of even those that
/// are wrong, so that one error does not make another of every route.
pub(super) fn read<'a>(
    section: &mut Section<'a>,
    binds: &Binds,
    probe: &ProbeParams,
) -> (Vec<(UpstreamParams, ProbeParams)>, Vec<&'a str>) {
    let value = section.required_value("upstreams", MAPPING);
    let named = value
        .and_then(|value| value.named(MAPPING))
        .unwrap_or_default();
    let mut names = Vec::new();
    let mut upstreams = Vec::new();
    let mut taken = Taken::new(binds);
    for (key, name, value) in named {
        names.push(name);
        if !scalar::is_name(name) {
            key.fail(format!("not {}", scalar::NAME));
        }
        let Some(mut section) = value.section("a mapping with backends") else {
            continue;
        };
        let probe = health::read_own_probe(section.section("poller"), probe);
        upstreams.extend(upstream(name, section, &mut taken).map(|upstream| (upstream, probe)));
    }
    (upstreams, names)
}

fn upstream(name: &str, mut section: Section<'_>, taken: &mut Taken<'_>) -> Option<UpstreamParams> {
    let balance = section.value(
        "balance",
        "round_robin",
        scalar::choice(&Balance::ALL),
        "How a backend with a free slot is chosen. `round_robin`: each in its turn, as often as its \
         `weight` says. `least_requests`: the one with the least `in_flight / weight` (abandoned \
         requests count, too), among equals each in its turn.",
    );
    let queue = queue::read(section.section("queue"));
    let timeouts = timeouts(section.section("timeouts"));
    let retry = retry::read(section.section("retry"));
    let outlier = section.section("outlier_detection");
    let outlier = outlier_detection::read(outlier, timeouts.response_header);
    let keepalive = section.value(
        "keepalive",
        "on",
        scalar::choice(&[("on", true), ("off", false)]),
        "Whether a connection to a backend is kept for the next request. `off`: each request has a connection of its \
         own, and is sent with `Connection: close`; for servers that serve one connection at a time.",
    );
    let busy_limit = section.value_or(
        "busy_limit",
        ("`timeouts.response_header`", timeouts.response_header),
        duration(),
        "How long a silent backend is believed to be at work: so long a slot stays taken for a request that we \
         gave up on, and so long a request in hand excuses unanswered pings.",
    );
    let backends = section
        .required_value("backends", BACKENDS)
        .and_then(|value| value.filled_list(BACKENDS))
        .map(|values| {
            values
                .iter()
                .filter_map(|value| backend(value, taken))
                .collect()
        });
    section.finish();
    let name = UpstreamName::from(name);
    Some(UpstreamParams {
        name,
        balance,
        queue,
        timeouts,
        retry,
        outlier,
        keepalive,
        busy_limit,
        sources: Arc::default(),
        backends: backends?,
    })
}

fn timeouts(mut section: Section<'_>) -> Timeouts {
    let params = Timeouts {
        connect: section.value("connect", "1s", duration(), "A connection to a backend."),
        response_header: section.value(
            "response_header",
            "60s",
            duration(),
            "From the request sent to the answer's header.",
        ),
        read: section.value(
            "read",
            "60s",
            duration(),
            "Between two pieces of an answer's body, or of what the backend sends after an upgrade \
             (WebSocket).",
        ),
        write: section.value(
            "write",
            "30s",
            duration(),
            "How long a backend may take nothing of what is sent to it.",
        ),
        idle: section.value(
            "idle",
            "1s",
            duration(),
            "How long an idle connection to a backend is kept; below the backends' own.",
        ),
        request: section.value(
            "request",
            "90s",
            duration(),
            "Queue, attempts and the answer's header together.",
        ),
    };
    section.finish();
    params
}

fn backend(value: &Value<'_>, taken: &mut Taken<'_>) -> Option<BackendParams> {
    let mut section = value.section("a mapping with name and address")?;
    let name = section.required(
        "name",
        scalar::backend_name(),
        "As in the health file; unique in the whole configuration.",
    );
    let address = section.required(
        "address",
        scalar::peer(),
        "Where it listens; unique in the whole configuration, for a slot has one owner.",
    );
    let max_in_flight = section.value(
        "max_in_flight",
        "1",
        scalar::integer(1..=10_000),
        "How many requests it gets at once. The health file may say otherwise.",
    );
    let weight = section.value(
        "weight",
        "1",
        scalar::integer(1..=1_000),
        "Its share of the requests among those that are free. The health file may say otherwise.",
    );
    let state = section.value(
        "state",
        "ready",
        scalar::choice(&State::ALL),
        "What is wanted of it: to serve, to finish what it has and get no new requests, or that \
         without being pinged. The most restrictive of this and the health file's holds.",
    );
    if let Some(name) = &name {
        taken.claim_name(name, &section);
    }
    if let Some(address) = &address {
        taken.claim_address(address, &section);
    }
    section.finish();
    Some(BackendParams {
        name: name?,
        address: address?,
        max_in_flight,
        weight,
        state,
    })
}

/// What backends before this one are called and where they and the proxy listen, and where that
/// stands.
struct Taken<'a> {
    binds: &'a Binds,
    names: HashMap<BackendName, Place>,
    addresses: HashMap<Address, Place>,
}

impl<'a> Taken<'a> {
    fn new(binds: &'a Binds) -> Self {
        Self {
            binds,
            names: HashMap::new(),
            addresses: HashMap::new(),
        }
    }

    fn claim_name(&mut self, name: &BackendName, section: &Section<'_>) {
        if let Some(Place { path, line, .. }) = self.names.get(name) {
            section.fail("name", format!("{name} is taken by {path} on line {line}"));
        } else {
            self.names.insert(name.clone(), section.place_of("name"));
        }
    }

    fn claim_address(&mut self, address: &Address, section: &Section<'_>) {
        if let Some(Place { path, line, .. }) = self.binds.reached_by(address) {
            let message =
                format!("{address} is taken by {path} on line {line}, which is the proxy itself");
            section.fail("address", message);
        }
        let canonical = address.canonical();
        if let Some(Place { path, line, .. }) = self.addresses.get(&canonical) {
            let message = format!("{address} is taken by {path} on line {line}");
            section.fail("address", message);
        } else {
            self.addresses
                .insert(canonical, section.place_of("address"));
        }
    }
}
