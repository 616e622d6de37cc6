//! Where the poller tells what it counts: `/metrics`, on an address of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::sleep;
use tracing::{error, info};
use warp::Filter;
use warp::http::HeaderMap;

use super::counts::Counts;
use super::task::Task;
use crate::metrics::scrape;

/// How often to try an address that is taken.
const RETRY: Duration = Duration::from_secs(1);

/// The page, served until this is dropped.
pub(super) struct Served {
    pub address: SocketAddr,
    _task: Task<()>,
}

impl Served {
    /// Serves there as soon as the address is free: that it is taken is no reason not to ping. Needs a tokio
    /// runtime.
    pub fn at(address: SocketAddr, counts: Arc<Counts>) -> Self {
        Self {
            address,
            _task: Task::spawn(serve(address, counts)),
        }
    }
}

async fn serve(address: SocketAddr, counts: Arc<Counts>) {
    let listener = listen(address).await;
    let get = warp::get().or(warp::head()).unify();
    let page = warp::path!("metrics").and(warp::header::headers_cloned());
    let page = get.and(page).map(move |header: HeaderMap| {
        let written = counts.clone();
        scrape(&header, counts.process(), move |page| written.write(page))
    });
    warp::serve(page).incoming(listener).run().await;
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut is_told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                info!(%address, "metrics");
                return listener;
            }
            Err(error) if !is_told => error!(%address, %error, "no metrics yet"),
            Err(_) => {}
        }
        is_told = true;
        sleep(RETRY).await;
    }
}
