//! A server of which a test says every byte.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::ports::free_port;
use super::proxy::Server;
use super::wire::Wire;

/// A running server. It ends with the runtime of its test.
pub struct RawServer {
    name: &'static str,
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    listens: watch::Sender<bool>,
}

/// A server of this name that does as it is told with each connection, until that is over.
pub async fn raw_server<F, Served>(name: &'static str, serve: F) -> RawServer
where
    F: Fn(Wire) -> Served + Send + 'static,
    Served: Future<Output = ()> + Send + 'static,
{
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let listener = TcpListener::bind(address)
        .await
        .expect("its port is its own");
    let (listens, mut told) = watch::channel(true);
    let server = RawServer {
        name,
        address,
        connections: Arc::default(),
        open: Arc::default(),
        listens,
    };
    let (connections, open) = (server.connections.clone(), server.open.clone());
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                biased;
                _ = told.changed() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else { continue };
            let Ok(wire) = Wire::new(stream) else {
                continue;
            };
            connections.fetch_add(1, SeqCst);
            open.fetch_add(1, SeqCst);
            let (served, open) = (serve(wire), open.clone());
            tokio::spawn(async move {
                served.await;
                open.fetch_sub(1, SeqCst);
            });
        }
    });
    server
}

impl RawServer {
    /// Connections ever accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// Connections with which it is not done.
    pub fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// Refuses connections from now on; those that there are go on.
    pub async fn refuse(&self) {
        let _ = self.listens.send(false);
        self.listens.closed().await;
    }
}

impl Server for RawServer {
    fn name(&self) -> &str {
        self.name
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}
