//! One server of an upstream: what is fixed, where it is, and what it has done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pingora::upstreams::peer::HttpPeer;

use super::connect::Connector;
use super::errors::Errors;
use super::sightings::Sightings;
use super::{BackendParams, UpstreamParams, connect};
use crate::address::Endpoint;
use crate::id::BackendName;
use crate::metrics::{RequestCounts, RequestTimes, Words};
use crate::policy::outlier::{Cause, Misstep, OutlierParams};

/// One server of an upstream.
pub struct Backend {
    params: BackendParams,
    location: ArcSwap<Location>,
    connector: Arc<Connector>,
    served: AtomicU64,
    failed: AtomicU64,
    /// The requests that ended with it.
    pub requests: RequestCounts,
    /// How long they took.
    pub times: RequestTimes,
    /// How often it was taken out, and what for.
    pub ejections: Words,
    errors: Errors,
    sightings: Sightings,
}

/// Where a backend is at the moment. Immutable; another takes its place.
#[derive(Debug)]
pub struct Location {
    /// What its address stands for; `None`: its name was never resolved.
    pub endpoint: Option<Endpoint>,
    /// Why its name stands for no server now; `endpoint` is then the last good one.
    pub problem: Option<String>,
    peer: HttpPeer,
}

impl Backend {
    pub(super) fn new(params: &BackendParams, upstream: &UpstreamParams) -> Self {
        let endpoint = params.address.endpoint();
        let connector = Arc::new(Connector::new(upstream));
        let location = Location {
            peer: connect::peer(endpoint.as_ref(), upstream, connector.clone()),
            endpoint,
            problem: None,
        };
        let now = Instant::now();
        Self {
            params: params.clone(),
            location: ArcSwap::from_pointee(location),
            connector,
            served: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            requests: RequestCounts::default(),
            times: RequestTimes::default(),
            ejections: Words::new(Cause::WORDS),
            errors: Errors::new(now),
            sightings: Sightings::new(now),
        }
    }

    /// What the configuration says of it.
    pub fn params(&self) -> &BackendParams {
        &self.params
    }

    /// What it is called in configuration and health file.
    pub fn name(&self) -> &BackendName {
        &self.params.name
    }

    /// How Pingora reaches it, every timeout set.
    pub fn peer(&self) -> HttpPeer {
        self.location.load().peer.clone()
    }

    /// Where it is.
    pub fn location(&self) -> Arc<Location> {
        self.location.load_full()
    }

    /// No connection to it serves another request: it turned sick, is back (perhaps as another process), or has closed
    /// so many that the others may be closed, too.
    pub fn close_connections(&self) {
        self.connector.close_all();
    }

    /// Closes the connections that have rested for too long, if that is late.
    pub(super) fn close_late_connections(&self, now: Instant) {
        self.connector.close_late(now);
    }

    /// Its name was asked for: it is at `found` from the next connection on, those to another address serve no other
    /// request; or it stays where it was because of a problem. One caller at a time.
    pub fn locate(&self, found: Result<Endpoint, String>) {
        let last = self.location();
        let mut peer = last.peer.clone();
        let (endpoint, problem) = match found {
            Ok(endpoint) => {
                connect::move_to(&mut peer, &endpoint);
                (Some(endpoint), None)
            }
            Err(problem) => (last.endpoint.clone(), Some(problem)),
        };
        let has_moved = endpoint != last.endpoint;
        self.location.store(Arc::new(Location {
            endpoint,
            problem,
            peer,
        }));
        if has_moved {
            self.close_connections();
        }
    }

    /// It has sent some of an answer, or taken some of a body that is sent on as it comes.
    pub fn note_heard(&self, now: Instant) {
        self.sightings.note_heard(now);
    }

    /// Counts an attempt that it answered; `is_error`: with something that speaks against it.
    pub fn count_served(&self, now: Instant, is_error: bool) {
        self.sightings.note_served(now);
        self.errors.note_begun();
        self.count_answer(!is_error);
    }

    /// Counts an answer without an end of its own, which its client has ended. That says as much for the backend as what
    /// came of it last: one that hangs is left by all.
    pub(super) fn count_left(&self) {
        self.count_answer(self.sightings.has_spoken_since_failure());
    }

    fn count_answer(&self, speaks_for_it: bool) {
        if speaks_for_it {
            self.errors.end_run();
        } else {
            self.errors.count_answer();
        }
        self.served.fetch_add(1, Relaxed);
    }

    /// Counts an attempt that failed on it; `is_overdue`: because it took longer than it may.
    pub fn count_failed(&self, now: Instant, is_overdue: bool) {
        self.failed.fetch_add(1, Relaxed);
        self.sightings.note_failed(now, is_overdue);
    }

    /// Counts an error. Returns what it is too many by, if it is, and how long the backend wants to be left alone.
    pub(super) fn count_error(
        &self,
        params: &OutlierParams,
        misstep: Misstep,
        now: Instant,
    ) -> Option<(Cause, Duration)> {
        self.errors.count(params, misstep, self.served(), now)
    }

    /// It is out, or admitted anew: what it has done until now, and does to requests that it has, is settled by that.
    pub(super) fn settle_errors(&self, now: Instant) {
        self.errors.settle();
        self.sightings.note_settled(now);
    }

    pub(super) fn errors(&self) -> &Errors {
        &self.errors
    }

    /// Whether what becomes of a request that it was given then is settled.
    pub(super) fn has_settled(&self, given: Instant) -> bool {
        self.sightings
            .settled()
            .is_some_and(|settled| given < settled)
    }

    pub(super) fn sightings(&self) -> &Sightings {
        &self.sightings
    }

    /// Attempts that it answered.
    pub fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }

    /// Attempts that failed on it.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// When it last answered.
    pub fn last_served(&self) -> Option<Instant> {
        self.sightings.served()
    }
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use std::io::{self, Read as _};
    use std::net::{TcpListener, TcpStream};

    use pingora::connectors::l4::Connect as _;
    use pingora::protocols::l4::stream::Stream;
    use pingora::protocols::{Digest, GetProxyDigest as _};
    use pingora::upstreams::peer::Peer as _;

    use super::*;
    use crate::upstream::BackendSocket;
    use crate::upstream::fixtures::{report, upstream};

    fn moved(backend: &Backend) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = Endpoint::Ip(listener.local_addr().unwrap());
        backend.locate(Ok(here));
        listener
    }

    /// A connection that nobody uses, and the backend's end of it.
    async fn resting(backend: &Backend, listener: &TcpListener) -> (Stream, TcpStream) {
        let made = backend.connector.connect(backend.peer().address()).await;
        let stream = made.unwrap();
        let digest = Digest {
            proxy_digest: stream.get_proxy_digest(),
            ..Digest::default()
        };
        BackendSocket::of(&digest).unwrap().put_back(Instant::now());
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        (stream, accepted)
    }

    fn is_open(accepted: &mut TcpStream) -> bool {
        let read = accepted.read(&mut [0]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    #[tokio::test]
    async fn what_leads_to_where_it_was_serves_no_other_request() {
        let upstream = upstream(&[1], 9);
        let backend = &upstream.backends()[0];
        let listener = moved(backend);
        let (_stream, mut accepted) = resting(backend, &listener).await;
        backend.locate(Ok(Endpoint::Ip(listener.local_addr().unwrap())));
        backend.locate(Err("it does not resolve".to_owned()));
        assert!(is_open(&mut accepted));
        backend.locate(Ok(Endpoint::Ip("127.0.0.1:9".parse().unwrap())));
        assert!(!is_open(&mut accepted));
    }

    #[tokio::test]
    async fn what_has_rested_for_too_long_is_closed_when_it_is_late_for_that() {
        let upstream = upstream(&[1], 9);
        let backend = &upstream.backends()[0];
        let listener = moved(backend);
        let (_stream, mut accepted) = resting(backend, &listener).await;
        let now = Instant::now();
        backend.close_late_connections(now);
        assert!(is_open(&mut accepted));
        backend.close_late_connections(now + upstream.params().timeouts.idle);
        assert!(!is_open(&mut accepted));
    }

    #[tokio::test]
    async fn who_turns_sick_or_is_well_again_serves_on_fresh_connections_only() {
        let upstream = upstream(&[1, 1], 9);
        let backend = &upstream.backends()[0];
        let listener = moved(backend);
        for [before, after] in [[true, false], [false, true]] {
            let (_stream, mut accepted) = resting(backend, &listener).await;
            report(&upstream, &[before, false]);
            report(&upstream, &[before, true]);
            assert!(is_open(&mut accepted), "nothing is new of this one");
            report(&upstream, &[after, true]);
            assert!(!is_open(&mut accepted));
        }
    }
}
