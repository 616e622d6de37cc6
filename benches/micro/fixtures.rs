//! Upstreams, reports and requests to measure with.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::HeaderName;
use maitred::events::Events;
use maitred::health::{Report, Ruling, State};
use maitred::policy::outlier::OutlierParams;
use maitred::policy::retry::RetryParams;
use maitred::upstream::{
    Arrival, Ask, BackendParams, Balance, FairBy, Guest, Lease, PriorityParams, QueueParams,
    Timeouts, Turn, Upstream, UpstreamParams,
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// First in, first out.
pub fn plain_queue() -> QueueParams {
    QueueParams {
        size: 10_000,
        size_per_key: 10_000,
        timeout: TIMEOUT,
        fair_by: None,
        priority: None,
    }
}

/// Each client has its turn.
pub fn fair_queue() -> QueueParams {
    QueueParams {
        fair_by: Some(FairBy::ClientAddress),
        ..plain_queue()
    }
}

/// The same, and some requests are more urgent than others.
pub fn fair_queue_with_classes() -> QueueParams {
    QueueParams {
        priority: Some(PriorityParams {
            header: HeaderName::from_static("x-priority"),
            trusted: Vec::new(),
            aging: Duration::from_millis(1),
        }),
        ..fair_queue()
    }
}

/// What a backend is called in these reports.
fn name(index: usize) -> String {
    format!("backend-{index:05}")
}

/// An upstream of backends with one slot each. None is eligible before a report is applied.
pub fn upstream(balance: Balance, backends: usize, queue: QueueParams) -> Arc<Upstream> {
    let timeout = TIMEOUT;
    let backend = |index: usize| {
        let [.., high, low] = index.to_be_bytes();
        BackendParams {
            name: name(index).as_str().into(),
            address: SocketAddr::from((Ipv4Addr::new(127, 1, high, low), 8080)).into(),
            max_in_flight: 1,
            weight: 1,
            state: State::Ready,
        }
    };
    Upstream::new(
        UpstreamParams {
            name: "measured".into(),
            balance,
            queue,
            timeouts: Timeouts {
                connect: timeout,
                response_header: timeout,
                read: timeout,
                write: timeout,
                idle: timeout,
                request: timeout,
            },
            retry: RetryParams::default(),
            outlier: OutlierParams::default(),
            keepalive: true,
            busy_limit: timeout,
            sources: Arc::default(),
            backends: (0..backends).map(backend).collect(),
        },
        Events::default(),
    )
}

/// A health file in which so many backends are sick, evenly spread.
pub fn report(backends: usize, sick: usize) -> Vec<u8> {
    let entry = |index: usize| {
        let is_sick = index * sick / backends != (index + 1) * sick / backends;
        let entry = serde_json::json!({ "healthy": !is_sick, "reason": "200 in 3 ms" });
        (name(index), entry)
    };
    let entries: serde_json::Map<_, _> = (0..backends).map(entry).collect();
    serde_json::to_vec_pretty(&entries).unwrap()
}

/// What a health file says, ready to be applied.
pub fn ruling(text: &[u8]) -> Arc<Ruling> {
    Arc::new(Ruling::fresh(Arc::new(Report::parse(text).unwrap())))
}

/// Puts it in force.
pub fn apply(upstream: &Upstream, ruling: &Arc<Ruling>) {
    let mut apply = std::pin::pin!(upstream.apply(ruling));
    let applied = apply.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(applied.is_ready(), "applying a report waits for nothing");
}

/// A request that need not wait, and says nothing of itself.
pub fn seated(upstream: &Arc<Upstream>, begun: Instant) -> Lease {
    match upstream.arrive(Ask::First(Guest::any(begun))) {
        Arrival::Seated(lease) => lease,
        Arrival::Waiting(_) => panic!("has to wait"),
        Arrival::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

/// A request that has to wait.
pub fn waiting(upstream: &Arc<Upstream>, ask: Ask) -> Turn {
    match upstream.arrive(ask) {
        Arrival::Waiting(turn) => look(turn).err().expect("nobody has called it"),
        Arrival::Seated(_) => panic!("need not wait"),
        Arrival::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

/// What has become of one that waits: its lease, or itself.
pub fn look(mut turn: Turn) -> Result<Lease, Turn> {
    match Pin::new(&mut turn).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(lease)) => Ok(lease),
        Poll::Ready(Err(refusal)) => panic!("refused: {refusal:?}"),
        Poll::Pending => Err(turn),
    }
}
