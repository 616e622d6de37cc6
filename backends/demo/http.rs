//! One kept connection that asks with GET.

use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A client of one address.
pub struct Client {
    address: SocketAddr,
    kept: Option<SendRequest<Empty<Bytes>>>,
}

impl Client {
    /// A client that connects when it first asks.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            kept: None,
        }
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        self.kept = None;
    }

    /// The status and the body.
    ///
    /// # Errors
    /// When there was no whole answer; the connection is given up.
    ///
    /// # Cancel safety
    /// Dropping it gives up the connection.
    pub async fn get(&mut self, path: &str) -> Result<(u16, Bytes)> {
        let mut sender = match self.kept.take() {
            Some(kept) if !kept.is_closed() => kept,
            _ => self.connect().await?,
        };
        sender.ready().await?;
        let request = hyper::Request::get(path)
            .header("Host", self.address.to_string())
            .body(Empty::new())?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        self.kept = Some(sender);
        Ok((head.status.as_u16(), body))
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the sender; what goes wrong on it, the sender is told.
        tokio::spawn(connection);
        Ok(sender)
    }
}
