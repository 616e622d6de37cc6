//! Owns as much of HTTP/1.1 as the soak speaks, as a client and as a server: heads, and bodies with a length or in
//! chunks.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// No message here is longer; one that is would fill memory.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 1 << 20;

/// A connection of which a message is read at a time.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The start line and the fields of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub start: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// The first field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let of_name = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        Some(self.fields.iter().find(of_name)?.1.as_str())
    }

    /// Of an answer; 0 if that is none.
    pub fn status(&self) -> u16 {
        let status = self.start.get(9..12).map(str::parse);
        status.and_then(Result::ok).unwrap_or(0)
    }

    /// Whether the connection ends with this message.
    pub fn says_close(&self) -> bool {
        self.get("Connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    fn is_chunked(&self) -> bool {
        self.get("Transfer-Encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    fn length(&self) -> io::Result<Option<usize>> {
        let length = self.get("Content-Length").map(str::parse).transpose();
        length.map_err(|_| invalid("a Content-Length that is no number"))
    }
}

impl Wire {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let buffer = Vec::with_capacity(1024);
        Ok(Self { stream, buffer })
    }

    /// To a port of this machine.
    pub async fn connect(port: u16) -> io::Result<Self> {
        Self::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?)
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Whether there is a byte of a message; `false`: the other side has closed.
    pub async fn has_more(&mut self) -> io::Result<bool> {
        Ok(!self.buffer.is_empty() || self.fill().await?)
    }

    /// The next message's head. `None`: the other side has closed before it.
    pub async fn read_head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = parse(&self.buffer[..end])?;
                self.buffer.drain(..end + 4);
                return Ok(Some(head));
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(invalid("a head that does not end"));
            }
            if !self.fill().await? {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// The body of this message. A message without a length has none, if it is a request; an answer must have one.
    pub async fn read_body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        if head.is_chunked() {
            return self.read_chunks().await;
        }
        match head.length()? {
            Some(length) => self.take(length).await,
            None if head.start.starts_with("HTTP/") => Err(invalid("an answer without a length")),
            None => Ok(Vec::new()),
        }
    }

    /// Ends with a reset and not with an orderly close.
    pub fn reset(self) {
        // It fails if the other side was faster.
        let _ = self.stream.set_zero_linger();
    }

    async fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line().await?;
            let length = usize::from_str_radix(&line, 16);
            let length = length.map_err(|_| invalid("a chunk without a length"))?;
            if body.len() + length > BODY_BYTES_MAX {
                return Err(invalid("a body that does not end"));
            }
            body.append(&mut self.take(length).await?);
            if !self.take_line().await?.is_empty() {
                return Err(invalid("a chunk that is longer than it says"));
            }
            if length == 0 {
                return Ok(body);
            }
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        if length > BODY_BYTES_MAX {
            return Err(invalid("a body that is too long"));
        }
        while self.buffer.len() < length {
            self.fill_or_fail().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn take_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(invalid("a line that does not end"));
            }
            self.fill_or_fail().await?;
        }
    }

    async fn fill_or_fail(&mut self) -> io::Result<()> {
        match self.fill().await? {
            true => Ok(()),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }
}

fn parse(head: &[u8]) -> io::Result<Head> {
    let text = str::from_utf8(head).map_err(|_| invalid("a head that is no text"))?;
    let mut lines = text.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let fields = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Ok(Head { start, fields })
}

/// Where `pattern` begins.
fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes
        .windows(pattern.len())
        .position(|window| window == pattern)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// As `Transfer-Encoding: chunked` has it, in pieces of this size, without the end.
pub fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(body.len() + body.len() / size * 8 + 16);
    for piece in body.chunks(size) {
        encoded.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        encoded.extend_from_slice(piece);
        encoded.extend_from_slice(b"\r\n");
    }
    encoded
}

/// What ends a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn reading(bytes: &[u8]) -> Wire {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (wire, peer) = tokio::join!(Wire::connect(port), listener.accept());
        peer.unwrap().0.write_all(bytes).await.unwrap();
        wire.unwrap()
    }

    #[tokio::test]
    async fn messages_follow_each_other() {
        let mut bytes = b"PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        bytes.extend(chunks(b"hello, world", 5));
        bytes.extend(LAST_CHUNK);
        bytes.extend(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\nconnection: Close\r\n\r\nok");
        let mut wire = reading(&bytes).await;
        let first = wire.read_head().await.unwrap().unwrap();
        assert_eq!(wire.read_body(&first).await.unwrap(), b"hello, world");
        let second = wire.read_head().await.unwrap().unwrap();
        assert_eq!((second.status(), second.says_close()), (503, true));
        assert_eq!(wire.read_body(&second).await.unwrap(), b"ok");
        assert_eq!(wire.read_head().await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_cut_short_or_no_http_is_an_error() {
        for bytes in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        ] {
            let mut wire = reading(bytes.as_bytes()).await;
            let head = wire.read_head().await.unwrap().unwrap();
            assert!(wire.read_body(&head).await.is_err(), "{bytes}");
        }
        assert!(reading(b"HTTP/1.1 200").await.read_head().await.is_err());
    }
}
