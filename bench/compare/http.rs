//! Owns as much of HTTP/1.1 as the benchmark speaks: requests without a body, answers with a `Content-Length`.
//! It is lean because it runs on the core that the backends share.

use std::io;
use std::net::Ipv4Addr;

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// No answer in a benchmark is longer; one that is would fill memory.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A keep-alive connection of a client.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Whether the connection may carry another request.
    pub keep: bool,
}

/// A request for a path, as short as it can be.
pub fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

impl Client {
    /// Connects to a port of this machine.
    pub async fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4096),
        })
    }

    /// Sends a request and reads its answer.
    pub async fn get(&mut self, request: &[u8]) -> Result<Answer> {
        self.send(request).await?;
        self.answer().await
    }

    /// Reads the answer to what was sent.
    pub async fn answer(&mut self) -> Result<Answer> {
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("closed before the answer was complete");
            }
            if let Some(answer) = parse(&self.buffer)? {
                return Ok(answer);
            }
        }
    }

    /// Sends a request and leaves its answer alone.
    pub async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await
    }

    /// Leaves at once, with a reset and not with an orderly close.
    pub fn reset(self) -> io::Result<()> {
        self.stream.set_zero_linger()
    }
}

/// The answer, if it is there as a whole. One without a length is over with its header if it is a refusal,
/// which is counted as such either way.
fn parse(bytes: &[u8]) -> Result<Option<Answer>> {
    let Some(header_end) = find_header_end(bytes) else {
        if bytes.len() > ANSWER_BYTES_MAX {
            bail!("the answer's header does not end");
        }
        return Ok(None);
    };
    let header = std::str::from_utf8(&bytes[..header_end])?;
    let mut lines = header.split("\r\n");
    let Some(status) = lines.next().and_then(|line| line.get(9..12)?.parse().ok()) else {
        bail!("this is not HTTP: {header:?}");
    };
    let (mut length, mut keep) = (None, true);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<usize>()?);
        } else if name.eq_ignore_ascii_case("connection") {
            keep = !value.trim().eq_ignore_ascii_case("close");
        }
    }
    match length {
        Some(length) if bytes.len() < header_end + length => Ok(None),
        Some(_) => Ok(Some(Answer { status, keep })),
        None if status != 200 => Ok(Some(Answer {
            status,
            keep: false,
        })),
        None => bail!("an answer without a length"),
    }
}

/// Where the body begins.
pub fn find_header_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|start| start + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_there_with_its_last_byte() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(parse(&whole[..whole.len() - 1]).unwrap(), None);
        assert_eq!(
            parse(whole).unwrap(),
            Some(Answer {
                status: 200,
                keep: true
            })
        );
    }

    #[test]
    fn a_close_ends_the_connection_in_any_case_of_letters() {
        let whole = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: Close\r\n\r\n";
        assert_eq!(
            parse(whole).unwrap(),
            Some(Answer {
                status: 503,
                keep: false
            })
        );
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        assert!(parse(b"hello\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
