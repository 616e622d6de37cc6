//! What can be wrong with a backend for a while: set and cleared while it runs.
//!
//! A fault that shows in an answer shows when the request is done: its body was read to the end and the work
//! has taken its time, so whoever sends it again has it done twice.

use std::io;
use std::time::Duration;

use super::super::wire::{Head, Wire};
use super::serving::Ending;

/// Between two pieces of a broken answer, so that the other side has seen the first one.
const PAUSE: Duration = Duration::from_millis(2);

/// What is wrong with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Resets each connection as soon as it stands.
    ResetOnAccept,
    /// Resets when it should answer.
    Reset,
    /// Resets in the middle of the answer's header.
    ResetInHeader,
    /// Resets after the answer's header.
    ResetAfterHeader,
    /// Answers something that is not HTTP, and closes.
    Garbage,
    /// Promises more than it sends, and closes.
    ShortBody,
    /// Closes in the middle of a chunk.
    TruncatedChunk,
    /// Answers 503.
    Unavailable,
}

impl Fault {
    /// Answers as this fault has it; says how the connection ends, if it does.
    pub(super) async fn answer(
        self,
        wire: &mut Wire,
        request: &Head,
    ) -> io::Result<Option<Ending>> {
        let id = request.headers.get("X-Id").unwrap_or("");
        let with = |status: &str, fields: &str| {
            format!("HTTP/1.1 {status}\r\nX-Id: {id}\r\n{fields}\r\n\r\n")
        };
        let (answer, ending) = match self {
            Self::ResetOnAccept | Self::Reset => (String::new(), Some(Ending::Reset)),
            Self::ResetInHeader => (
                "HTTP/1.1 200 OK\r\nContent-Le".to_owned(),
                Some(Ending::Reset),
            ),
            Self::ResetAfterHeader => (with("200 OK", "Content-Length: 5"), Some(Ending::Reset)),
            Self::Garbage => (
                "\x01\x02 what? \u{fffd}\r\n\r\n".to_owned(),
                Some(Ending::Close),
            ),
            Self::ShortBody => (
                with("200 OK", "Content-Length: 50") + "short",
                Some(Ending::Close),
            ),
            Self::TruncatedChunk => {
                let head = with("200 OK", "Transfer-Encoding: chunked");
                (head + "32\r\nshort", Some(Ending::Close))
            }
            Self::Unavailable => (with("503 Busy", "Content-Length: 0"), None),
        };
        wire.write(answer.as_bytes()).await?;
        if matches!(ending, Some(Ending::Reset)) {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(ending)
    }
}
