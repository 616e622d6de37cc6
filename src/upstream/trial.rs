//! Brings an ejected backend back: tries to connect until it accepts.
//!
//! A bare connection is the trial, not a client's request: refusing connections is all that the
//! backend was ejected for, so accepting one is the whole evidence, no request is put at risk, and
//! a backend comes back even while nobody asks for it.

use std::sync::Arc;
use std::time::Instant;

use pingora::connectors::l4::Connect as _;
use pingora::upstreams::peer::Peer as _;
use tokio::time::{sleep, timeout};

use super::connect::Connector;
use super::{BackendIndex, Upstream, wake};
use crate::events::Event;
use crate::policy::backoff;

/// Tries the backend at `index`, one connection at a time, until it accepts one or its ejection
/// ends otherwise (the report turned from sick to healthy).
pub(super) async fn until_reinstated(upstream: Arc<Upstream>, index: BackendIndex) {
    let Some((ejected_at, _)) = ejection(&upstream, index) else {
        return;
    };
    let (mut trial, mut steps) = (0, 0);
    loop {
        sleep(backoff::STEP).await;
        steps += 1;
        let Some((_, others_eligible)) = ejection(&upstream, index).filter(|e| e.0 == ejected_at)
        else {
            return;
        };
        if !backoff::is_due(trial, steps, others_eligible) {
            continue;
        }
        if accepts(&upstream, index).await {
            return reinstate(&upstream, index, ejected_at);
        }
        trial += 1;
        steps = 0;
    }
}

/// When the backend was ejected, and whether another is eligible; `None` if it is not ejected.
fn ejection(upstream: &Upstream, index: BackendIndex) -> Option<(Instant, bool)> {
    let slots = upstream.slots.lock();
    let account = &slots.accounts()[index.0];
    account
        .ejected
        .map(|ejected_at| (ejected_at, slots.is_other_eligible(index)))
}

async fn accepts(upstream: &Upstream, index: BackendIndex) -> bool {
    let peer = upstream.backend(index).peer();
    let connector = Connector::new(&upstream.params);
    let connection = connector.connect(peer.address());
    matches!(
        timeout(upstream.params.timeouts.connect, connection).await,
        Ok(Ok(_))
    )
}

fn reinstate(upstream: &Upstream, index: BackendIndex, ejected_at: Instant) {
    upstream.backend(index).close_connections();
    let wakers = upstream
        .slots
        .lock()
        .reinstate(index, ejected_at, Instant::now());
    upstream.events.publish(Event::BackendReinstated {
        upstream: upstream.params.name.clone(),
        backend: upstream.backend(index).name().clone(),
    });
    wake(wakers);
}
