//! Brings an ejected backend back.
//!
//! One that refuses is tried with a bare connection, not with a client's request: accepting one is all that it was
//! ejected for, no request is put at risk, and it comes back even while nobody asks for it. One that was ejected for
//! what it did to requests has a rest, and is tried with one of them.

use std::sync::Arc;
use std::time::Instant;

use pingora::connectors::l4::Connect as _;
use pingora::upstreams::peer::Peer as _;
use pingora::{Error, ErrorType, Result};
use tokio::time::{sleep, timeout};

use super::connect::{self, Connector};
use super::{BackendIndex, Upstream, wake};
use crate::policy::backoff;
use crate::policy::outlier::{Cause, Ejection, Tending};

/// Looks after a backend until it is back, or its ejection ends otherwise (the report turned from sick to healthy, or
/// it was ejected anew). `may_be_gone`: what broke its connections off may have been its end.
pub(super) async fn until_reinstated(
    upstream: Arc<Upstream>,
    index: BackendIndex,
    ejection: Ejection,
    may_be_gone: bool,
) {
    if ejection.until.is_none() {
        return until_it_accepts(&upstream, index, ejection.number).await;
    }
    if may_be_gone
        && is_gone(&upstream, index).await
        && upstream.refuses(index, &ejection, Cause::ConnectionRefused)
    {
        return until_it_accepts(&upstream, index, ejection.number).await;
    }
    until_it_answers(&upstream, index, ejection.number).await;
}

/// Tries to connect, one connection at a time, until it is accepted.
async fn until_it_accepts(upstream: &Upstream, index: BackendIndex, ejection: u32) {
    let (mut trial, mut steps) = (0, 0);
    loop {
        sleep(backoff::STEP).await;
        steps += 1;
        let Some(is_other_well) = is_out_by(upstream, index, ejection) else {
            return;
        };
        if !backoff::is_due(trial, steps, is_other_well) {
            continue;
        }
        if connect(upstream, index).await.is_ok() {
            return upstream.reinstate(index, ejection);
        }
        // Anew where nobody else was well: all that were lost at one blow come back as soon as the first does.
        trial = if is_other_well { trial + 1 } else { 0 };
        steps = 0;
    }
}

/// Puts it on probation when its rest is over, as often as it takes.
async fn until_it_answers(upstream: &Upstream, index: BackendIndex, ejection: u32) {
    loop {
        let params = &upstream.params.outlier;
        let now = Instant::now();
        let fails =
            |other: usize, is_held| upstream.backends[other].errors().are_lasting(is_held, now);
        let (tending, waker) = upstream
            .slots
            .lock()
            .tend(index, params, ejection, fails, now);
        wake(waker);
        match tending {
            Tending::Over => return,
            Tending::Look(pause) => sleep(pause).await,
        }
    }
}

/// Whether another is well; `None` if the backend is not out by this ejection any more.
fn is_out_by(upstream: &Upstream, index: BackendIndex, ejection: u32) -> Option<bool> {
    let slots = upstream.slots.lock();
    let out_by = slots.accounts()[index.0].circuit.ejection()?;
    let now = Instant::now();
    let fails = |other: usize, is_held| {
        let errors = upstream.backends[other].errors();
        errors.are_lasting(is_held, now)
    };
    (out_by.number == ejection).then(|| slots.is_anyone_well(fails))
}

/// Whether nobody listens there any more. A process that ends closes one socket after the other: so who accepts a
/// connection still is asked once more.
async fn is_gone(upstream: &Upstream, index: BackendIndex) -> bool {
    let refuses = async || {
        let error = connect(upstream, index).await.err();
        error.is_some_and(|error| connect::cause(&error) == Cause::ConnectionRefused)
    };
    if refuses().await {
        return true;
    }
    sleep(backoff::STEP.min(upstream.params.outlier.base_ejection)).await;
    refuses().await
}

/// Whether it accepts a connection.
async fn connect(upstream: &Upstream, index: BackendIndex) -> Result<()> {
    let peer = upstream.backend(index).peer();
    let connector = Connector::new(&upstream.params);
    let connection = connector.connect(peer.address());
    match timeout(upstream.params.timeouts.connect, connection).await {
        Ok(connected) => connected.map(drop),
        Err(_) => Error::e_explain(ErrorType::ConnectTimedout, "a trial"),
    }
}
