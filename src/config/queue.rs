//! Who may wait, for how long, and in which order.

use std::time::Duration;

use http::HeaderName;

use crate::upstream::{FairBy, Network, NetworkError, PriorityParams, QueueParams};

use super::scalar::{self, Reader, duration};
use super::section::Section;

/// Where a priority is said, and how long the others stand it, once somebody is trusted.
const HEADER: HeaderName = HeaderName::from_static("x-priority");
const AGING: Duration = Duration::from_secs(10);
const NETWORKS: &str = "a list such as [127.0.0.1, 10.0.0.0/8]";

pub(super) fn read(mut section: Section<'_>) -> QueueParams {
    let size = section.value(
        "size",
        "10000",
        scalar::integer(0..=1_000_000),
        "How many requests may wait. One more is 503 at once, or takes the place of one with less of a claim \
         where there are keys or priorities.",
    );
    let timeout = section.value(
        "timeout",
        "30s",
        duration(),
        "How long one may wait, then 503; `timeouts.request` may end it earlier.",
    );
    let fair_by = section.value(
        "fair_by",
        "off",
        scalar::or_off(fair_by()),
        "What tells clients apart; their requests are then served in turn, one of each. A client is an IPv4 \
         address or an IPv6 network of 64 bits; or what a header says, and where it is not there, the \
         address.",
    );
    let size_per_key = section.value_or(
        "size_per_key",
        ("`queue.size`", size),
        scalar::integer(1..=1_000_000),
        "How many requests of one client may wait (in each class); one more is 503 at once.",
    );
    if fair_by.is_none() && section.has("size_per_key") {
        section.fail("size_per_key", "has no effect without fair_by");
    }
    let priority = priority(section.section("priority"));
    section.finish();
    QueueParams {
        size,
        size_per_key,
        timeout,
        fair_by,
        priority,
    }
}

/// Nobody's word counts unless somebody is trusted.
fn priority(mut section: Section<'_>) -> Option<PriorityParams> {
    let trusted = section.described(
        "trusted",
        "nobody",
        NETWORKS,
        "Who may say how urgent a request is: IP addresses and networks. The others' word is taken out of \
         their requests.",
    );
    let trusted = trusted.and_then(|value| value.filled_list(NETWORKS));
    let trusted: Option<Vec<Network>> = trusted.map(|values| {
        values
            .iter()
            .filter_map(|value| value.read(&network()))
            .collect()
    });
    let header = section.value_or(
        "header",
        ("X-Priority", HEADER),
        scalar::header_name(),
        "Where it is said: `high`, `normal` or `low`; anything else is `normal`.",
    );
    let aging = section.value_or(
        "aging",
        ("10s", AGING),
        duration(),
        "How long a request waits behind more urgent ones; then every second slot is for its class.",
    );
    for key in ["header", "aging"] {
        if section.has(key) && !section.has("trusted") {
            section.fail(key, "has no effect without trusted");
        }
    }
    section.finish();
    Some(PriorityParams {
        header,
        trusted: trusted?,
        aging,
    })
}

fn fair_by() -> Reader<'static, FairBy> {
    const FORM: &str = "client_address or a header such as header:X-Tenant";
    Reader::new(FORM, |node| {
        let text = node.text()?;
        match text.split_once(':') {
            Some(("header", name)) => name.parse().ok().map(FairBy::Header),
            _ => (text == "client_address").then_some(FairBy::ClientAddress),
        }
    })
}

fn network() -> Reader<'static, Network> {
    Reader::telling(NetworkError::Form.to_string(), |node| {
        let text = node.text().ok_or(NetworkError::Form);
        text.and_then(str::parse)
            .map_err(|error: NetworkError| error.to_string())
    })
}
