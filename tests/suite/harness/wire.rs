//! HTTP/1.1 on a socket, as both our server and our client speak it: heads and bodies, nothing
//! clever. It keeps header lines as they came, so that a test can tell what was really sent.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest line that is read; longer is an error.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// A connection of which a message is read at a time.
pub struct Wire {
    io: BufReader<TcpStream>,
}

/// The start line and the headers of a message.
#[derive(Clone, Debug)]
pub struct Head {
    pub start: String,
    pub headers: Headers,
}

/// Header fields in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Headers(Vec<(String, String)>);

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

impl Headers {
    pub fn push(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// The first field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Whether a field has this very name, letter case included.
    pub fn spells(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// Every field of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Whether a field of this name lists `token`.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// The fields as they go over the wire.
    pub fn encode(&self) -> String {
        self.0
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect()
    }

    /// What the fields say about the body; `otherwise` if they say nothing.
    pub fn framing(&self, otherwise: Framing) -> io::Result<Framing> {
        if self.lists("Transfer-Encoding", "chunked") {
            return Ok(Framing::Chunked);
        }
        match self.get("Content-Length") {
            Some(text) => text
                .parse()
                .map(Framing::Length)
                .map_err(|_| invalid(format!("Content-Length {text:?}"))),
            None => Ok(otherwise),
        }
    }
}

impl Wire {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            io: BufReader::with_capacity(64 * 1024, stream),
        })
    }

    pub fn stream(&self) -> &TcpStream {
        self.io.get_ref()
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.get_mut().write_all(bytes).await
    }

    /// `None` when the other side closed before the first byte.
    pub async fn read_head(&mut self) -> io::Result<Option<Head>> {
        let Some(start) = self.read_line().await? else {
            return Ok(None);
        };
        Ok(Some(Head {
            start,
            headers: self.read_fields().await?,
        }))
    }

    /// Hands the body to `keep` piece by piece and returns its length.
    pub async fn read_body(
        &mut self,
        framing: Framing,
        mut keep: impl FnMut(&[u8]),
    ) -> io::Result<u64> {
        match framing {
            Framing::Length(bytes) => self.read_exactly(bytes, &mut keep).await,
            Framing::Chunked => self.read_chunks(&mut keep).await,
            Framing::UntilClose => {
                let mut total = 0;
                while let Some(bytes) = self.read_some(usize::MAX, &mut keep).await? {
                    total += bytes;
                }
                Ok(total)
            }
        }
    }

    async fn read_chunks(&mut self, keep: &mut impl FnMut(&[u8])) -> io::Result<u64> {
        let mut total = 0;
        loop {
            let line = self.expect_line().await?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16)
                .map_err(|_| invalid(format!("chunk size {line:?}")))?;
            if size == 0 {
                self.read_fields().await?;
                return Ok(total);
            }
            total += self.read_exactly(size, keep).await?;
            if !self.expect_line().await?.is_empty() {
                return Err(invalid(
                    "a chunk that does not end where it said".to_owned(),
                ));
            }
        }
    }

    async fn read_exactly(&mut self, bytes: u64, keep: &mut impl FnMut(&[u8])) -> io::Result<u64> {
        let mut left = bytes;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            left -= self
                .read_some(most, keep)
                .await?
                .ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        Ok(bytes)
    }

    /// One piece of at most `most` bytes; `None` at the end of the stream.
    pub async fn read_some(
        &mut self,
        most: usize,
        keep: &mut impl FnMut(&[u8]),
    ) -> io::Result<Option<u64>> {
        let piece = self.io.fill_buf().await?;
        let bytes = piece.len().min(most);
        keep(&piece[..bytes]);
        self.io.consume(bytes);
        Ok((bytes > 0).then_some(bytes as u64))
    }

    /// Sends back what comes, until the other side closes.
    pub async fn echo(&mut self) -> io::Result<()> {
        loop {
            let piece = self.io.fill_buf().await?.to_vec();
            if piece.is_empty() {
                return Ok(());
            }
            self.io.consume(piece.len());
            self.write(&piece).await?;
        }
    }

    async fn read_fields(&mut self) -> io::Result<Headers> {
        let mut headers = Headers::default();
        loop {
            let line = self.expect_line().await?;
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| invalid(format!("header {line:?}")))?;
            headers.push(name, value.trim());
        }
    }

    async fn expect_line(&mut self) -> io::Result<String> {
        self.read_line()
            .await?
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// A line without its end; `None` at the end of the stream.
    async fn read_line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        loop {
            let piece = self.io.fill_buf().await?;
            if piece.is_empty() {
                return if line.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
            let end = piece.iter().position(|&byte| byte == b'\n');
            let bytes = end.map_or(piece.len(), |position| position + 1);
            line.extend_from_slice(&piece[..bytes]);
            self.io.consume(bytes);
            if line.len() > LINE_BYTES_MAX {
                return Err(invalid("a line without end".to_owned()));
            }
            if end.is_some() {
                let text = String::from_utf8(line)
                    .map_err(|_| invalid("a line that is not text".to_owned()))?;
                return Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()));
            }
        }
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
