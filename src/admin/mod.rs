//! What the proxy tells of itself, on an address of its own: alive, ready, and the status of
//! everything that a request is decided by.

mod events;
mod evidence;
mod explain;
mod metrics;
mod status;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::TcpListener;
use warp::http::{HeaderMap, StatusCode};
use warp::{Filter, Reply};

use crate::control::{Current, Phase, PhaseWatch};
use crate::events::Events;
use crate::explain::Explanations;
use crate::metrics::{Process, ProxyCounters, scrape};

/// What the pages are made from.
#[derive(Clone)]
pub struct Admin {
    /// When the process began, or soon after; before its first request.
    pub begun: Instant,
    /// The snapshot in force.
    pub current: Current,
    /// Where the process stands.
    pub phase: PhaseWatch,
    /// What is counted for the whole process.
    pub counters: Arc<ProxyCounters>,
    /// What has changed.
    pub events: Events,
    /// Why requests went where they went, where that is noted.
    pub explanations: Option<Explanations>,
    /// The process itself.
    pub process: Arc<Process>,
}

/// How long, in milliseconds, somebody may take nothing of an answer: then the connection is ended.
const WRITE_TIMEOUT: u32 = 10_000;

impl Admin {
    /// Serves until dropped:
    /// - `/healthz`: 200 while the process runs;
    /// - `/readyz`: 200 while it takes new requests, 503 before and after. Never the backends' health;
    /// - `/api/v1/status`: everything, as JSON;
    /// - `/api/v1/evidence`: what a poller wants to know of the backends, as JSON;
    /// - `/api/v1/events`: what changed and why, as JSON or live;
    /// - `/api/v1/explain/ID`: why a request went where it went;
    /// - `/metrics`: what is counted, for Prometheus.
    pub async fn serve(self, listener: TcpListener) {
        // Connections inherit it. Fails only on a socket that is none of TCP's.
        let _ = set_tcp_user_timeout(&listener, WRITE_TIMEOUT);
        warp::serve(self.pages()).incoming(listener).run().await;
    }

    fn pages(self) -> impl Filter<Extract = (impl Reply,), Error = Infallible> + Clone {
        let get = warp::get().or(warp::head()).unify();
        let alive = warp::path!("healthz").map(|| plain(StatusCode::OK, "alive\n"));
        let (readiness, scraped) = (self.clone(), self.clone());
        let ready = warp::path!("readyz").map(move || readiness.ready());
        let events = events::page(self.events.clone());
        let explain = explain::page(self.explanations.clone());
        let witness = self.clone();
        let evidence = warp::path!("api" / "v1" / "evidence")
            .map(move || warp::reply::json(&witness.evidence()).into_response());
        let status = warp::path!("api" / "v1" / "status")
            .map(move || warp::reply::json(&self.status()).into_response());
        let metrics = warp::path!("metrics")
            .and(warp::header::headers_cloned())
            .map(move |header| scraped.scraped(&header));
        let unknown = warp::any().map(|| plain(StatusCode::NOT_FOUND, "no such page\n"));
        let history = events.or(explain).unify();
        let machine = history
            .or(evidence)
            .unify()
            .or(status)
            .unify()
            .or(metrics)
            .unify();
        get.and(alive.or(ready).unify().or(machine).unify())
            .or(unknown)
            .unify()
    }

    fn scraped(&self, header: &HeaderMap) -> warp::reply::Response {
        let admin = self.clone();
        scrape(header, &self.process, move |page| admin.write(page)).into_response()
    }

    fn ready(&self) -> warp::reply::Response {
        match self.phase.now() {
            Phase::Starting => plain(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            Phase::Running => plain(StatusCode::OK, "ready\n"),
            Phase::Stopping => plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        }
    }
}

fn plain(status: StatusCode, body: &'static str) -> warp::reply::Response {
    warp::reply::with_status(body, status).into_response()
}
