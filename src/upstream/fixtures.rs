//! What the tests of this module start from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use super::{BackendParams, Balance, QueueParams, Timeouts, Upstream, UpstreamParams};
use crate::health::{Report, Ruling, State};

/// An upstream of backends `0`, `1`, … with this many slots each, all healthy, in round robin.
pub(super) fn upstream(slots: &[u32], queue: usize) -> Arc<Upstream> {
    balanced(Balance::RoundRobin, slots, queue)
}

/// The same, balanced in this way.
pub(super) fn balanced(balance: Balance, slots: &[u32], queue: usize) -> Arc<Upstream> {
    let timeout = Duration::from_secs(5);
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
    let upstream = Upstream::new(UpstreamParams {
        name: "test".into(),
        balance,
        queue: QueueParams {
            size: queue,
            timeout,
        },
        timeouts: Timeouts {
            connect: timeout,
            response_header: timeout,
            read: timeout,
            write: timeout,
            idle: timeout,
            request: timeout,
        },
        busy_limit: timeout,
        sources: Arc::default(),
        backends: backends.collect(),
    });
    report(&upstream, &vec![true; slots.len()]);
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
    let ruling = Arc::new(Ruling::fresh(Arc::new(Report::parse(text).unwrap())));
    let mut apply = std::pin::pin!(upstream.apply(&ruling));
    let applied = apply.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(applied.is_ready(), "applying a report waits for nothing");
}
