//! Upstreams and their backends, whose names and addresses are unique in the whole file.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::address::Address;
use crate::health::State;
use crate::id::{BackendName, UpstreamName};
use crate::upstream::{BackendParams, QueueParams, Timeouts, UpstreamParams};

use super::scalar::{self, duration};
use super::section::{Place, Section, Value};

const MAPPING: &str = "a mapping such as { demo: { backends: [..] } }";
const BACKENDS: &str = "a list such as [{ name: server1, address: 127.0.0.1:8081 }]";

/// All upstreams, in the order of the file, and the names of even those that are wrong, so that
/// one error does not make another of every route.
pub(super) fn read<'a>(section: &mut Section<'a>) -> (Vec<UpstreamParams>, Vec<&'a str>) {
    let value = section.required_value("upstreams", MAPPING);
    let named = value
        .and_then(|value| value.named(MAPPING))
        .unwrap_or_default();
    let mut names = Vec::new();
    let mut upstreams = Vec::new();
    let mut taken = Taken::default();
    for (key, name, value) in named {
        names.push(name);
        if !scalar::is_name(name) {
            key.fail(format!("not {}", scalar::NAME));
        }
        let section = value.section("a mapping with backends");
        upstreams.extend(section.and_then(|section| upstream(name, section, &mut taken)));
    }
    (upstreams, names)
}

fn upstream(name: &str, mut section: Section<'_>, taken: &mut Taken) -> Option<UpstreamParams> {
    let queue = queue(section.section("queue"));
    let timeouts = timeouts(section.section("timeouts"));
    let busy_limit = section.value("busy_limit", timeouts.response_header, duration);
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
        queue,
        timeouts,
        busy_limit,
        backends: backends?,
    })
}

fn queue(mut section: Section<'_>) -> QueueParams {
    let params = QueueParams {
        size: section.value("size", 10_000, scalar::integer(0..=1_000_000)),
        timeout: section.value("timeout", Duration::from_secs(30), duration),
    };
    section.finish();
    params
}

fn timeouts(mut section: Section<'_>) -> Timeouts {
    let params = Timeouts {
        connect: section.value("connect", Duration::from_secs(1), duration),
        response_header: section.value("response_header", Duration::from_secs(60), duration),
        read: section.value("read", Duration::from_secs(60), duration),
        write: section.value("write", Duration::from_secs(30), duration),
        idle: section.value("idle", Duration::from_secs(1), duration),
        request: section.value("request", Duration::from_secs(90), duration),
    };
    section.finish();
    params
}

fn backend(value: &Value<'_>, taken: &mut Taken) -> Option<BackendParams> {
    let mut section = value.section("a mapping with name and address")?;
    let name = section.required("name", scalar::backend_name);
    let address = section.required("address", scalar::peer);
    let max_in_flight = section.value("max_in_flight", 1, scalar::integer(1..=10_000));
    if let Some(name) = &name {
        claim(&mut taken.names, name.clone(), name, "name", &section);
    }
    if let Some(address) = &address {
        claim(
            &mut taken.addresses,
            address.canonical(),
            address,
            "address",
            &section,
        );
    }
    section.finish();
    Some(BackendParams {
        name: name?,
        address: address?,
        max_in_flight,
        weight: 1,
        state: State::Ready,
    })
}

/// What backends before this one are called and where they listen, and where that stands.
#[derive(Default)]
struct Taken {
    names: HashMap<BackendName, Place>,
    addresses: HashMap<Address, Place>,
}

fn claim<T: Eq + Hash>(
    taken: &mut HashMap<T, Place>,
    value: T,
    shown: &dyn std::fmt::Display,
    key: &str,
    section: &Section<'_>,
) {
    let place = section.place_of(key);
    match taken.get(&value) {
        Some(Place { path, line, .. }) => {
            let message = format!("{shown} is taken by {path} on line {line}");
            section.problems().add(&place, message);
        }
        None => _ = taken.insert(value, place),
    }
}
