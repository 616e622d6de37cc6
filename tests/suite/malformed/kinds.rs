//! Every kind of answer that is not as it should be, and what a client is to see of it.
//!
//! Each answer bears the tag of its request, so that a piece of it is known wherever it turns up.

use std::time::Duration;

use crate::harness::Wire;

/// What a client has of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// 502 `invalid_response`: nobody knows what the backend meant.
    Invalid,
    /// 502 `bad_gateway`: the backend broke off before its header was whole.
    Nothing,
    /// The beginning, and then the end of the connection.
    BrokenOff,
    /// Its own answer, whole, of this status.
    Whole(u16),
}

use Seen::{BrokenOff, Invalid, Nothing, Whole};

/// One kind.
pub struct Kind {
    pub name: &'static str,
    pub method: &'static str,
    pub seen: Seen,
    /// The answer to the request with this tag; with a part that comes later, if there is one.
    bytes: fn(&str) -> Vec<u8>,
    later: Option<fn(&str) -> Vec<u8>>,
    /// The server closes after it; else it waits until the proxy does.
    closes: bool,
}

/// Between an answer and what comes later.
const LATER: Duration = Duration::from_millis(5);

impl Kind {
    /// Answers so. `false`: and that was all on this connection.
    pub async fn answer(&self, wire: &mut Wire, tag: &str) -> bool {
        if wire.write(&(self.bytes)(tag)).await.is_err() {
            return false;
        }
        if let Some(later) = self.later {
            tokio::time::sleep(LATER).await;
            return wire.write(&later(tag)).await.is_ok();
        }
        !self.closes
    }

    const fn then_closes(mut self) -> Self {
        self.closes = true;
        self
    }

    const fn and_later(mut self, later: fn(&str) -> Vec<u8>) -> Self {
        self.later = Some(later);
        self
    }

    const fn to(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }
}

const fn kind(name: &'static str, seen: Seen, bytes: fn(&str) -> Vec<u8>) -> Kind {
    Kind {
        name,
        method: "GET",
        seen,
        bytes,
        later: None,
        closes: false,
    }
}

/// An answer as it should be.
pub fn fine(tag: &str) -> Vec<u8> {
    with(
        "HTTP/1.1 200 OK",
        &format!("Content-Length: {}", tag.len()),
        tag,
    )
}

fn with(line: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("{line}\r\n{fields}\r\n\r\n{body}").into_bytes()
}

/// One whose status line is this one.
fn line(line: &str, tag: &str) -> Vec<u8> {
    with(line, &format!("Content-Length: {}", tag.len()), tag)
}

/// One with this field, and the right length.
fn field(field: &str, tag: &str) -> Vec<u8> {
    let fields = format!("{field}\r\nContent-Length: {}", tag.len());
    with("HTTP/1.1 200 OK", &fields, tag)
}

/// One of which these fields say the length.
fn framed(fields: &str, tag: &str) -> Vec<u8> {
    with("HTTP/1.1 200 OK", fields, tag)
}

/// One with this body, in what should be chunks.
fn chunked(body: &str) -> Vec<u8> {
    with("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", body)
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn twice(tag: &str) -> Vec<u8> {
    [fine(tag), fine("tag-stray-")].concat()
}

/// The kinds.
pub const KINDS: &[Kind] = &[
    // The status line.
    kind("no version", Invalid, |tag| line("HTTP 200 OK", tag)),
    kind("no protocol", Invalid, |tag| line("200 OK", tag)),
    kind("HTTP/9.9", Invalid, |tag| line("HTTP/9.9 200 OK", tag)),
    kind("HTTP/2", Invalid, |tag| line("HTTP/2 200 OK", tag)),
    kind("status of two digits", Invalid, |tag| {
        line("HTTP/1.1 99 Low", tag)
    }),
    kind("status 099", Invalid, |tag| line("HTTP/1.1 099 Low", tag)),
    kind("status 1000", Invalid, |tag| {
        line("HTTP/1.1 1000 High", tag)
    }),
    kind("status of letters", Invalid, |tag| {
        line("HTTP/1.1 abc OK", tag)
    }),
    kind("status below zero", Invalid, |tag| {
        line("HTTP/1.1 -20 OK", tag)
    }),
    // The fields.
    kind("no colon", Invalid, |tag| field("X-None", tag)),
    kind("no name", Invalid, |tag| field(": nobody", tag)),
    kind("a space in a name", Invalid, |tag| field("X Two: 1", tag)),
    kind("a space before the colon", Whole(200), |tag| {
        field("X-Space : 1", tag)
    }),
    kind("a folded field", Whole(200), |tag| {
        field("X-Folded: a\r\n b", tag)
    }),
    kind("NUL in a value", Invalid, |tag| field("X-Nul: a\0b", tag)),
    kind("a bare CR in a value", Invalid, |tag| {
        field("X-Bare: a\rb", tag)
    }),
    kind("a header of more than a mebibyte", Invalid, |tag| {
        field(&format!("X-Long: {}", "x".repeat(1_200_000)), tag)
    }),
    kind("three hundred fields", Invalid, |tag| {
        field(&["X-Many: 1"; 300].join("\r\n"), tag)
    }),
    kind("half a header", Nothing, |tag| {
        format!("HTTP/1.1 200 OK\r\nX-Half: {tag}").into_bytes()
    })
    .then_closes(),
    // Where the body ends.
    kind("two lengths", Invalid, |tag| {
        framed("Content-Length: 3\r\nContent-Length: 9", tag)
    }),
    kind("one length twice", Invalid, |tag| {
        framed("Content-Length: 3, 3", tag)
    }),
    kind("a length below zero", Invalid, |tag| {
        framed("Content-Length: -3", tag)
    }),
    kind("a length with a sign", Invalid, |tag| {
        framed("Content-Length: +3", tag)
    }),
    kind("a length of letters", Invalid, |tag| {
        framed("Content-Length: abc", tag)
    }),
    kind("a length beyond all bounds", Invalid, |tag| {
        framed("Content-Length: 99999999999999999999", tag)
    }),
    kind("a length and chunks", Whole(200), |tag| {
        let body = chunk(tag) + "0\r\n\r\n";
        framed("Content-Length: 3\r\nTransfer-Encoding: chunked", &body)
    }),
    kind("gzip for a coding", Invalid, |tag| {
        framed("Transfer-Encoding: gzip", tag)
    }),
    kind("gzip below the chunks", Invalid, |tag| {
        framed(
            "Transfer-Encoding: gzip, chunked",
            &(chunk(tag) + "0\r\n\r\n"),
        )
    }),
    kind("chunks in chunks", Invalid, |tag| {
        let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";
        framed(twice, &(chunk(tag) + "0\r\n\r\n"))
    }),
    kind("a body that is too short", BrokenOff, |tag| {
        framed("Content-Length: 1000", tag)
    })
    .then_closes(),
    // The chunks.
    kind("a chunk size of letters", BrokenOff, |tag| {
        chunked(&format!("{}zz\r\n{tag}\r\n0\r\n\r\n", chunk(tag)))
    }),
    kind("a chunk without an end", BrokenOff, |tag| {
        chunked(&format!("{}3\r\nabcdef\r\n0\r\n\r\n", chunk(tag)))
    }),
    kind("a chunk beyond all bounds", BrokenOff, |tag| {
        chunked(&format!("{}fffffffffffffffff\r\n{tag}", chunk(tag)))
    }),
    kind("no last chunk", BrokenOff, |tag| chunked(&chunk(tag))).then_closes(),
    kind("a last chunk that goes on", BrokenOff, |tag| {
        let trailer = "x".repeat(100_000);
        chunked(&format!("{}0\r\n{trailer}", chunk(tag)))
    }),
    kind("a trailer that is none", Whole(200), |tag| {
        chunked(&format!("{}0\r\nno colon\r\n\r\n", chunk(tag)))
    }),
    // More than one answer.
    kind("bytes after the body", Whole(200), twice),
    kind("bytes after the last chunk", Whole(200), |tag| {
        [chunked(&(chunk(tag) + "0\r\n\r\n")), fine("tag-stray-")].concat()
    }),
    kind("a body at HEAD", Whole(200), fine).to("HEAD"),
    kind("a late body at HEAD", Whole(200), |tag| {
        framed(&format!("Content-Length: {}", tag.len()), "")
    })
    .to("HEAD")
    .and_later(|_| fine("tag-stray-")),
    kind("a body at 204", Whole(204), |tag| {
        line("HTTP/1.1 204 None", tag)
    }),
    kind("a late body at 204", Whole(204), |_| {
        b"HTTP/1.1 204 None\r\nContent-Length: 9\r\n\r\n".to_vec()
    })
    .and_later(|_| fine("tag-stray-")),
    kind("a body at 304", Whole(304), |tag| {
        line("HTTP/1.1 304 Same", tag)
    }),
    // Interim answers.
    kind("an upgrade that nobody asked for", Invalid, |_| {
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_vec()
    }),
    kind("interim answers without end", Invalid, |_| {
        "HTTP/1.1 100 Continue\r\n\r\n".repeat(2_000).into_bytes()
    }),
    kind("a folded field in an interim answer", Whole(200), |tag| {
        let interim = b"HTTP/1.1 103 Early\r\nLink: a\r\n b\r\n\r\n".to_vec();
        [interim, fine(tag)].concat()
    }),
    kind("an interim answer with a body", Invalid, |tag| {
        [
            &b"HTTP/1.1 103 Early\r\nContent-Length: 5\r\n\r\nabcde"[..],
            &fine(tag),
        ]
        .concat()
    }),
    // No HTTP/1.1 at all.
    kind("HTTP/0.9", Invalid, |tag| {
        format!("<html>{tag}</html>\r\n").into_bytes()
    })
    .then_closes(),
    kind("SSH", Invalid, |_| b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()),
    kind("TLS", Invalid, |_| b"\x15\x03\x01\x00\x02\x02\x46".to_vec()),
    kind("noise", Invalid, |_| (0..=255).rev().collect()),
    kind("a preface of HTTP/2", Invalid, |_| {
        b"\0\0\x12\x04\0\0\0\0\0".to_vec()
    }),
    kind("nothing", Nothing, |_| Vec::new()).then_closes(),
];
