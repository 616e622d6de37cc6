//! What the tests of this module start from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use super::{
    Ask, BackendParams, Balance, FairBy, Guest, QueueParams, Timeouts, Upstream, UpstreamParams,
};
use crate::events::Events;
use crate::health::{Report, Ruling, State};
use crate::policy::outlier::OutlierParams;
use crate::policy::retry::RetryParams;

const TIMEOUT: Duration = Duration::from_secs(5);

/// An upstream of backends `0`, `1`, … with this many slots each, all healthy, in round robin.
pub(super) fn upstream(slots: &[u32], queue: usize) -> Arc<Upstream> {
    balanced(Balance::RoundRobin, slots, queue)
}

/// The same, balanced in this way.
pub(super) fn balanced(balance: Balance, slots: &[u32], queue: usize) -> Arc<Upstream> {
    queued(balance, slots, queue_of(queue))
}

/// A queue in which so many may wait, first in, first out.
pub(super) fn queue_of(size: usize) -> QueueParams {
    QueueParams {
        size,
        size_per_key: size,
        timeout: TIMEOUT,
        fair_by: None,
        priority: None,
    }
}

/// One in which each key has its turn.
pub(super) fn fair_queue_of(size: usize) -> QueueParams {
    QueueParams {
        fair_by: Some(FairBy::ClientAddress),
        ..queue_of(size)
    }
}

/// One in which some are more urgent, for as long as the others stand it.
#[cfg(not(feature = "shuttle"))]
pub(super) fn with_priority(params: QueueParams, aging: Duration) -> QueueParams {
    QueueParams {
        priority: Some(super::PriorityParams {
            header: http::HeaderName::from_static("x-priority"),
            trusted: Vec::new(),
            aging,
        }),
        ..params
    }
}

/// A request that is nobody's in particular asks for the first time.
pub(super) fn first() -> Ask {
    Ask::First(Guest::any(Instant::now()))
}

/// The same, with a queue of its own.
pub(super) fn queued(balance: Balance, slots: &[u32], queue: QueueParams) -> Arc<Upstream> {
    made(params(balance, slots, queue))
}

/// In round robin, taken out for errors by these rules.
#[cfg(not(feature = "shuttle"))]
pub(super) fn detecting(outlier: OutlierParams, slots: &[u32]) -> Arc<Upstream> {
    let params = params(Balance::RoundRobin, slots, queue_of(9));
    made(UpstreamParams { outlier, ..params })
}

fn params(balance: Balance, slots: &[u32], queue: QueueParams) -> UpstreamParams {
    let backends = slots
        .iter()
        .enumerate()
        .map(|(index, slots)| BackendParams {
            name: index.to_string().as_str().into(),
            address: SocketAddr::from(([127, 0, 0, 1], 1000 + index as u16)).into(),
            max_in_flight: *slots,
            weight: 1,
            state: State::Ready,
        });
    UpstreamParams {
        name: "test".into(),
        balance,
        queue,
        timeouts: Timeouts {
            connect: TIMEOUT,
            response_header: TIMEOUT,
            read: TIMEOUT,
            write: TIMEOUT,
            idle: TIMEOUT,
            request: TIMEOUT,
        },
        retry: RetryParams::default(),
        outlier: OutlierParams::default(),
        keepalive: true,
        busy_limit: TIMEOUT,
        sources: Arc::default(),
        backends: backends.collect(),
    }
}

fn made(params: UpstreamParams) -> Arc<Upstream> {
    let healthy = vec![true; params.backends.len()];
    let upstream = Upstream::new(params, Events::default());
    report(&upstream, &healthy);
    upstream
}

/// Puts a report in force.
pub(super) fn report(upstream: &Upstream, healthy: &[bool]) {
    let verdicts: BTreeMap<_, _> = healthy.iter().enumerate().collect();
    let text = serde_json::to_vec(&verdicts).unwrap();
    rule(upstream, &text);
}

/// Puts what a health file says in force.
pub(super) fn rule(upstream: &Upstream, text: &[u8]) {
    decree(
        upstream,
        Ruling::fresh(Arc::new(Report::parse(text).unwrap())),
    );
}

/// Puts a ruling in force.
pub(super) fn decree(upstream: &Upstream, ruling: Ruling) {
    let ruling = Arc::new(ruling);
    let mut apply = std::pin::pin!(upstream.apply(&ruling));
    let applied = apply.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(applied.is_ready(), "applying a report waits for nothing");
}
