//! The least that a load balancer on Pingora can be: its own round robin, all defaults, nothing of ours.
//! What the benchmark compares the proxy with.
//!
//! `bare PORT BACKEND..`: listens on 127.0.0.1:PORT.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::Result;
use pingora::prelude::{HttpPeer, LoadBalancer, RoundRobin, Server};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sends everything to the next backend.
struct Bare(Arc<LoadBalancer<RoundRobin>>);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        let backend = self.0.select(b"", 256).ok_or_else(|| {
            pingora::Error::explain(pingora::ErrorType::ConnectError, "no backend is healthy")
        })?;
        Ok(Box::new(HttpPeer::new(backend, false, String::new())))
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().unwrap_or_else(|| "8080".into());
    let backends: Vec<String> = arguments.collect();
    let mut server = Server::new(None)?;
    server.bootstrap();
    let balancer = LoadBalancer::try_from_iter(backends)?;
    let mut service = http_proxy_service(&server.configuration, Bare(Arc::new(balancer)));
    service.add_tcp(&format!("127.0.0.1:{port}"));
    server.add_service(service);
    server.run_forever();
}
