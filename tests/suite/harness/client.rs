//! A client of our own: it sends exactly what a test says and hides nothing of what comes back.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpSocket;

use super::wire::{Framing, Headers, Wire};

/// A request to send; built by [`get`], [`head`], [`post`] or [`request`].
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Headers,
    body: Option<Body>,
}

#[derive(Clone, Debug)]
enum Body {
    Sized(Vec<u8>),
    Chunked(Vec<u8>),
    /// A `Content-Length` whose bytes the test sends itself, or does not.
    Promised(u64),
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
    /// From before the request was sent to the last byte.
    pub took: Duration,
}

/// How a request ended, as far as its client can tell.
#[derive(Debug)]
pub enum Ending {
    /// With an answer, read to its end.
    Answered(Response),
    /// With an answer that broke off after its header.
    CutShort,
    /// Without an answer.
    Unanswered(io::Error),
}

/// One connection.
pub struct Client {
    wire: Wire,
}

pub fn get(target: &str) -> Request {
    request("GET", target)
}

pub fn head(target: &str) -> Request {
    request("HEAD", target)
}

pub fn post(target: &str) -> Request {
    request("POST", target)
}

pub fn request(method: &str, target: &str) -> Request {
    let mut headers = Headers::default();
    headers.push("Host", "example.test");
    Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body: None,
    }
}

impl Request {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Marks the request so that a backend's record of it can be found.
    pub fn id(self, id: impl ToString) -> Self {
        self.header("X-Id", &id.to_string())
    }

    pub fn accepts_json(self) -> Self {
        self.header("Accept", "application/json")
    }

    pub fn body(mut self, bytes: Vec<u8>) -> Self {
        self.body = Some(Body::Sized(bytes));
        self
    }

    pub fn chunked_body(mut self, bytes: Vec<u8>) -> Self {
        self.body = Some(Body::Chunked(bytes));
        self
    }

    pub fn promises(mut self, bytes: u64) -> Self {
        self.body = Some(Body::Promised(bytes));
        self
    }

    /// The request as it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let Self {
            method,
            target,
            headers,
            body,
        } = self;
        let (framing, bytes) = match body {
            None => (String::new(), Vec::new()),
            Some(Body::Sized(bytes)) => (
                format!("Content-Length: {}\r\n", bytes.len()),
                bytes.clone(),
            ),
            Some(Body::Promised(bytes)) => (format!("Content-Length: {bytes}\r\n"), Vec::new()),
            Some(Body::Chunked(bytes)) => (
                "Transfer-Encoding: chunked\r\n".to_owned(),
                in_chunks(bytes),
            ),
        };
        let head = format!(
            "{method} {target} HTTP/1.1\r\n{}{framing}\r\n",
            headers.encode()
        );
        [head.into_bytes(), bytes].concat()
    }

    /// Sends it on a connection of its own.
    pub async fn send_to(&self, address: SocketAddr) -> io::Result<Response> {
        let begun = Instant::now();
        let mut response = Client::connect(address).await?.ask(self).await?;
        response.took = begun.elapsed();
        Ok(response)
    }
}

/// Several chunks, so that a reader has to put them together.
fn in_chunks(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for chunk in bytes.chunks(1000) {
        encoded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        encoded.extend_from_slice(chunk);
        encoded.extend_from_slice(b"\r\n");
    }
    encoded.extend_from_slice(b"0\r\n\r\n");
    encoded
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The backend that answered.
    pub fn backend(&self) -> Option<&str> {
        self.header("X-Backend")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// # Panics
    /// When the body is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// Asserts that this is the proxy's refusal, of a request that [accepts JSON](Request::accepts_json).
    #[track_caller]
    pub fn assert_refusal(&self, status: u16, error: &str) {
        let said = || format!("{} {:?} {:?}", self.status, self.headers, self.text());
        assert_eq!(self.status, status, "{}", said());
        assert_eq!(self.json()["error"], error, "{}", said());
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpSocket::new_v4()?, address).await
    }

    /// A client at this address of our own, all of `127.0.0.0/8` being ours.
    pub async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        Self::over(socket, address).await
    }

    /// A client whose kernel takes next to nothing that it does not read.
    pub async fn connect_with_small_buffer(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(2048)?;
        Self::over(socket, address).await
    }

    async fn over(socket: TcpSocket, address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            wire: Wire::new(socket.connect(address).await?)?,
        })
    }

    /// Sends a request and reads its answer; the connection can be used again.
    pub async fn ask(&mut self, request: &Request) -> io::Result<Response> {
        let begun = Instant::now();
        self.send(request).await?;
        let mut response = self.receive(&request.method).await?;
        response.took = begun.elapsed();
        Ok(response)
    }

    /// Sends a request and says how it ended; unless it was answered, the connection is of no use any more.
    pub async fn ask_to_the_end(&mut self, request: &Request) -> Ending {
        let begun = Instant::now();
        let head = match self.send(request).await {
            Ok(()) => self.receive_final_head().await,
            Err(error) => Err(error),
        };
        let (status, headers) = match head {
            Ok(head) => head,
            Err(error) => return Ending::Unanswered(error),
        };
        let mut body = Vec::new();
        let keep = |piece: &[u8]| body.extend_from_slice(piece);
        let rest = self.receive_rest(&request.method, status, &headers, keep);
        match rest.await {
            Ok(_) => Ending::Answered(Response {
                status,
                headers,
                body,
                took: begun.elapsed(),
            }),
            Err(_) => Ending::CutShort,
        }
    }

    pub async fn send(&mut self, request: &Request) -> io::Result<()> {
        self.send_bytes(&request.encode()).await
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write(bytes).await
    }

    /// Reads the final answer to a request of this method; interim ones are passed over.
    pub async fn receive(&mut self, method: &str) -> io::Result<Response> {
        let mut body = Vec::new();
        let (status, headers, _) = self
            .receive_body(method, |piece| body.extend_from_slice(piece))
            .await?;
        Ok(Response {
            status,
            headers,
            body,
            took: Duration::ZERO,
        })
    }

    /// As [`Client::receive`], but counts the body instead of keeping it.
    pub async fn receive_counting(&mut self) -> io::Result<(u16, u64)> {
        let (status, _, bytes) = self.receive_body("GET", |_| ()).await?;
        Ok((status, bytes))
    }

    /// Waits for the first byte of an answer, or the close, without reading it.
    pub async fn is_answered(&self) -> io::Result<()> {
        self.wire.stream().readable().await
    }

    /// Reads at most `most` bytes of what there is; 0 when the other side closed.
    pub async fn read_some(&mut self, most: usize) -> io::Result<u64> {
        Ok(self.wire.read_some(most, &mut |_| ()).await?.unwrap_or(0))
    }

    /// Reads exactly this many bytes.
    pub async fn read_bytes(&mut self, count: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.wire
            .read_body(Framing::Length(count), |piece| {
                bytes.extend_from_slice(piece)
            })
            .await?;
        Ok(bytes)
    }

    /// Reads until the other side closes or resets; returns what came before that.
    pub async fn read_until_closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset closes as well as an orderly end does.
        let _ = self
            .wire
            .read_body(Framing::UntilClose, |piece| bytes.extend_from_slice(piece))
            .await;
        bytes
    }

    async fn receive_body(
        &mut self,
        method: &str,
        keep: impl FnMut(&[u8]),
    ) -> io::Result<(u16, Headers, u64)> {
        let (status, headers) = self.receive_final_head().await?;
        let bytes = self.receive_rest(method, status, &headers, keep).await?;
        Ok((status, headers, bytes))
    }

    /// The body that belongs to this header; returns its length.
    async fn receive_rest(
        &mut self,
        method: &str,
        status: u16,
        headers: &Headers,
        keep: impl FnMut(&[u8]),
    ) -> io::Result<u64> {
        let framing = if method == "HEAD" || matches!(status, 101 | 204 | 304) {
            Framing::Length(0)
        } else {
            headers.framing(Framing::UntilClose)?
        };
        self.wire.read_body(framing, keep).await
    }

    async fn receive_final_head(&mut self) -> io::Result<(u16, Headers)> {
        loop {
            let head = self
                .wire
                .read_head()
                .await?
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            let status = head
                .start
                .split(' ')
                .nth(1)
                .and_then(|text| text.parse().ok());
            let status: u16 =
                status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, head.start))?;
            if !(100..200).contains(&status) || status == 101 {
                return Ok((status, head.headers));
            }
        }
    }
}
