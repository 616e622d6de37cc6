//! What the proxy says of itself: the part of `/api/v1/status` that is shown.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::http;

/// Between two looks.
const STEP: Duration = Duration::from_millis(200);
/// Longest wait for one; then there is none.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The upstream of `pingora.yaml`.
const UPSTREAM: &str = "demo";

/// One look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// The health file.
    pub report: Report,
    /// The servers behind the proxy.
    pub upstream: Upstream,
}

/// The health file as the proxy sees it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Report {
    /// `ok`, `stale`, `missing` or `corrupt`.
    pub state: String,
    /// Since it was last written.
    pub age_seconds: Option<f64>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// The group of servers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Upstream {
    /// Requests in the queue.
    pub waiting: usize,
    /// By name.
    pub backends: BTreeMap<String, Backend>,
}

/// One server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Backend {
    /// Why it gets no requests; `None` if it is eligible.
    pub why_not: Option<String>,
    /// Requests on it, abandoned ones included.
    pub in_flight: u32,
    /// How many there may be.
    pub max_in_flight: u32,
    /// Requests that were given up on and that it has not let go.
    pub abandoned: u32,
    /// Requests that it has answered.
    pub served: u64,
}

#[derive(Deserialize)]
struct Whole {
    state: String,
    report: Report,
    upstreams: BTreeMap<String, Upstream>,
}

/// Looks until nobody is interested; `None` while the proxy does not answer.
pub async fn watch(admin: SocketAddr, publish: watch::Sender<Option<Status>>) {
    let mut client = http::Client::new(admin);
    while !publish.is_closed() {
        let status = ask(&mut client).await.and_then(|whole| {
            let upstream = whole.upstreams.into_iter();
            let found = upstream.into_iter().find(|(name, _)| name == UPSTREAM);
            let (_, upstream) = found.context("the upstream is not there")?;
            Ok(Status {
                report: whole.report,
                upstream,
            })
        });
        publish.send_replace(status.ok());
        sleep(STEP).await;
    }
}

/// Whether the proxy answers that it serves.
pub async fn says_running(client: &mut http::Client) -> bool {
    ask(client)
        .await
        .is_ok_and(|status| status.state == "running")
}

async fn ask(client: &mut http::Client) -> Result<Whole> {
    let (_, body) = timeout(ANSWER_WITHIN, client.get("/api/v1/status")).await??;
    Ok(serde_json::from_slice(&body)?)
}
