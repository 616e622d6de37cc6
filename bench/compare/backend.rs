//! Owns the fast backend: a fixed answer per request, with as little work as that takes, so that what is
//! measured is the balancer in front of it.

use std::net::Ipv4Addr;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::http::find_header_end;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, client";

/// Serves each port until the process ends. Prints a line once all of them listen.
pub async fn serve(ports: &[u16]) -> Result<ExitCode> {
    let mut listeners = JoinSet::new();
    for port in ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port))
            .await
            .with_context(|| format!("port {port}"))?;
        listeners.spawn(accept(listener));
    }
    println!("listening");
    while listeners.join_next().await.is_some() {}
    Ok(ExitCode::SUCCESS)
}

async fn accept(listener: TcpListener) {
    loop {
        // An error here is one client's, or a lack of descriptors that passes.
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(stream));
        }
    }
}

/// One connection: ends when the client does.
async fn answer_all(mut stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut pending = Vec::with_capacity(4096);
    while stream
        .read_buf(&mut pending)
        .await
        .is_ok_and(|read| read > 0)
    {
        while let Some(end) = find_header_end(&pending) {
            pending.drain(..end);
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}
