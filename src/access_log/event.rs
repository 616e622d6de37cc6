//! What is said of one request, as the request path hands it over: numbers, and all texts in one piece of memory, so
//! that an event costs two allocations and shares nothing with the request.

use std::time::{Duration, SystemTime};

/// Of a text that is longer, the beginning is logged. So what waits for the writer is bounded, whatever clients send.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// What texts of a usual request need together.
const TEXTS_BYTES: usize = 256;

/// One request that is over.
pub struct AccessEvent {
    /// When it was over.
    pub time: SystemTime,
    /// What it was asked in, such as `HTTP/1.1`.
    pub protocol: &'static str,
    /// The status that the client saw; 499 if it left before, 0 if it saw none.
    pub status: u16,
    /// Bytes of the request's body that were read.
    pub bytes_received: u64,
    /// Bytes of the answer's body that were sent.
    pub bytes_sent: u64,
    /// How often it was sent to a backend.
    pub attempts: u32,
    /// From the header's end to the answer's.
    pub total: Duration,
    /// Waiting for a slot.
    pub queued: Duration,
    /// From being sent to the answer's header, in the last attempt.
    pub first_byte: Option<Duration>,
    /// From being sent to the backend's last byte, in the last attempt.
    pub served: Option<Duration>,
    /// Why the proxy answered by itself.
    pub reason: Option<&'static str>,
    /// Why it was sent again.
    pub retried: Option<&'static str>,
    /// What it and others are called, and what the client said.
    pub texts: Texts,
}

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// The request's id.
    Id,
    /// The client's address.
    Client,
    /// The method.
    Method,
    /// The `Host` field.
    Host,
    /// Path and query, as the client sent them.
    Target,
    /// Where it went.
    Upstream,
    /// Who had it last.
    Backend,
    /// The `traceparent` field.
    Trace,
}

const TEXTS: usize = Text::Trace as usize + 1;

/// Where a text begins and ends.
type Span = (usize, usize);

/// The texts of an event, each there or not, and those header fields that are to be logged.
pub struct Texts {
    bytes: Vec<u8>,
    spans: [Option<Span>; TEXTS],
    /// By number in the configuration.
    headers: Vec<(usize, Span)>,
}

impl Texts {
    /// None yet, and room for those of a request with this target.
    pub fn with_room_for(target: &[u8]) -> Self {
        Self {
            bytes: Vec::with_capacity(TEXTS_BYTES + target.len().min(TEXT_BYTES_MAX)),
            spans: [None; TEXTS],
            headers: Vec::new(),
        }
    }

    /// Sets a text, or its first 8 KiB.
    pub fn put(&mut self, text: Text, bytes: &[u8]) {
        self.spans[text as usize] = Some(self.keep([bytes]));
    }

    /// A text, if it is there.
    pub fn get(&self, text: Text) -> Option<&[u8]> {
        self.spans[text as usize].map(|span| self.at(span))
    }

    /// Sets what a field says, which may have come several times: a list then (RFC 9110, section 5.3).
    pub fn put_header<'a>(&mut self, number: usize, values: impl IntoIterator<Item = &'a [u8]>) {
        let span = self.keep(values);
        self.headers.retain(|(known, _)| *known != number);
        self.headers.push((number, span));
    }

    /// What a field says, if it is there.
    pub fn header(&self, number: usize) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(known, _)| *known == number);
        found.map(|(_, span)| self.at(*span))
    }

    fn keep<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Span {
        let begin = self.bytes.len();
        for piece in pieces {
            if self.bytes.len() > begin {
                self.bytes.extend_from_slice(b", ");
            }
            let room = (begin + TEXT_BYTES_MAX).saturating_sub(self.bytes.len());
            self.bytes
                .extend_from_slice(&piece[..piece.len().min(room)]);
        }
        (begin, self.bytes.len())
    }

    fn at(&self, (begin, end): Span) -> &[u8] {
        &self.bytes[begin..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_there_or_not_and_bounded() {
        let mut texts = Texts::with_room_for(b"/");
        assert_eq!((texts.get(Text::Host), texts.header(0)), (None, None));
        texts.put(Text::Host, b"");
        texts.put(Text::Target, &[b'x'; 100_000]);
        texts.put(Text::Id, b"id");
        texts.put_header(1, [&b"a"[..], b"b"]);
        texts.put_header(0, [&[b'y'; 8191][..], b"z", b"z"]);
        assert_eq!(texts.get(Text::Host), Some(&b""[..]));
        assert_eq!(texts.get(Text::Target).unwrap().len(), TEXT_BYTES_MAX);
        assert_eq!(texts.get(Text::Id), Some(&b"id"[..]));
        assert_eq!(texts.header(1), Some(&b"a, b"[..]));
        assert!(texts.header(0).unwrap().len() < TEXT_BYTES_MAX + 8);
        texts.put_header(1, [&b"c"[..]]);
        assert_eq!(texts.header(1), Some(&b"c"[..]));
    }
}
