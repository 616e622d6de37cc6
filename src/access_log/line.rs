//! Writes an event as a line, of text or of JSON.
//!
//! Whatever a client sends, a line is one line, of printable ASCII, and can be read back. In text, words stand between
//! single spaces; a byte that is not printable ASCII, and each `"`, `\` and space, is `\xHH`; what is not there is a
//! dash, and a dash that somebody sent is `\x2d`. Values of header fields, which often have spaces, are quoted
//! instead. In JSON, what is not ASCII is `\uXXXX` (some readers take U+0085 or U+2028 for the end of a line, some
//! terminals obey U+009B), and what is not UTF-8 is U+FFFD.
//!
//! Without `format!` and `serde_json`'s values, with which a line cost three times as much.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderName;

use super::event::AccessEvent;
use super::fields::{FIELDS, Value};

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

/// What writes lines: a format, and the names of the header fields that are logged.
pub(super) struct Lines {
    pub format: Format,
    pub headers: Vec<HeaderName>,
    clock: Clock,
}

impl Lines {
    pub fn new(format: Format, headers: Vec<HeaderName>) -> Self {
        Self {
            format,
            headers,
            clock: Clock::default(),
        }
    }

    /// Adds an event's line to `out`.
    pub fn write(&mut self, event: &AccessEvent, out: &mut Vec<u8>) {
        let begin = out.len();
        match self.format {
            Format::Text => self.write_text(event, out),
            Format::Json => {
                self.write_json(event, out);
                out.push(b'}');
                // The first field's separator.
                out[begin] = b'{';
            }
        }
        out.push(b'\n');
    }

    fn write_text(&mut self, event: &AccessEvent, out: &mut Vec<u8>) {
        for (index, field) in FIELDS.iter().enumerate() {
            // Nothing stands before the first.
            out.extend_from_slice(if index == 0 {
                b""
            } else {
                field.text.as_bytes()
            });
            match (field.value)(event) {
                Value::Time(time) => self.clock.write(time, out),
                Value::Count(count) => write_count(count, out),
                Value::Seconds(Some(duration)) => write_seconds(duration, out),
                Value::Word(Some(word)) => out.extend_from_slice(word),
                Value::Said(Some(bytes)) => write_word(bytes, out),
                Value::Seconds(None) | Value::Word(None) | Value::Said(None) => out.push(b'-'),
            }
        }
        for (number, name) in self.headers.iter().enumerate() {
            out.push(b' ');
            out.extend_from_slice(name.as_str().as_bytes());
            out.push(b'=');
            match event.texts.header(number) {
                Some(value) => {
                    out.push(b'"');
                    write_escaped(value, |byte| byte == b' ', out);
                    out.push(b'"');
                }
                None => out.push(b'-'),
            }
        }
    }

    fn write_json(&mut self, event: &AccessEvent, out: &mut Vec<u8>) {
        for field in &FIELDS {
            out.extend_from_slice(field.json.as_bytes());
            match (field.value)(event) {
                Value::Time(time) => {
                    out.push(b'"');
                    self.clock.write(time, out);
                    out.push(b'"');
                }
                Value::Count(count) => write_count(count, out),
                Value::Seconds(Some(duration)) => write_seconds(duration, out),
                Value::Word(Some(word)) => {
                    out.push(b'"');
                    out.extend_from_slice(word);
                    out.push(b'"');
                }
                Value::Said(Some(bytes)) => write_string(bytes, out),
                Value::Seconds(None) | Value::Word(None) | Value::Said(None) => {
                    out.extend_from_slice(b"null");
                }
            }
        }
        if self.headers.is_empty() {
            return;
        }
        out.extend_from_slice(b",\"request_headers\":");
        for (number, name) in self.headers.iter().enumerate() {
            out.extend_from_slice(if number == 0 { b"{\"" } else { b",\"" });
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b"\":");
            match event.texts.header(number) {
                Some(value) => write_string(value, out),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
    }
}

/// Writes points in time. What it wrote of the last one is kept: most are in the same second.
#[derive(Default)]
struct Clock {
    second: Option<u64>,
    text: String,
}

impl Clock {
    fn write(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.text.clear();
            // A string takes everything; there is no year 10000.
            let _ = write!(self.text, "{}", humantime::format_rfc3339_seconds(time));
        }
        out.extend_from_slice(self.text.trim_end_matches('Z').as_bytes());
        out.push(b'.');
        // A leading one keeps the zeros; it is not written.
        out.extend_from_slice(
            &itoa::Buffer::new()
                .format(1_000 + since.subsec_millis())
                .as_bytes()[1..],
        );
        out.push(b'Z');
    }
}

fn write_count(count: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
}

/// In seconds, with six decimals.
fn write_seconds(duration: Duration, out: &mut Vec<u8>) {
    write_count(duration.as_secs(), out);
    out.push(b'.');
    let micros = 1_000_000 + duration.subsec_micros();
    out.extend_from_slice(&itoa::Buffer::new().format(micros).as_bytes()[1..]);
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'
}

/// One word of a text line.
fn write_word(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes == b"-" {
        write_hexadecimal(b'-', out);
    } else {
        write_escaped(bytes, |_| false, out);
    }
}

fn write_escaped(bytes: &[u8], is_kept: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    let is_kept = |byte| is_plain(byte) || is_kept(byte);
    if bytes.iter().all(|byte| is_kept(*byte)) {
        return out.extend_from_slice(bytes);
    }
    for &byte in bytes {
        match is_kept(byte) {
            true => out.push(byte),
            false => write_hexadecimal(byte, out),
        }
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn write_hexadecimal(byte: u8, out: &mut Vec<u8>) {
    let digit = |value: u8| DIGITS[usize::from(value)];
    out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte & 15)]);
}

/// A string of JSON (RFC 8259, section 7).
fn write_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if bytes.iter().all(|byte| is_plain(*byte) || *byte == b' ') {
        out.extend_from_slice(bytes);
    } else {
        for chunk in bytes.utf8_chunks() {
            chunk.valid().chars().for_each(|char| write_char(char, out));
            if !chunk.invalid().is_empty() {
                write_char(char::REPLACEMENT_CHARACTER, out);
            }
        }
    }
    out.push(b'"');
}

fn write_char(char: char, out: &mut Vec<u8>) {
    match u8::try_from(char) {
        Ok(byte) if is_plain(byte) || byte == b' ' => out.push(byte),
        Ok(byte @ (b'"' | b'\\')) => out.extend_from_slice(&[b'\\', byte]),
        _ => {
            for unit in char.encode_utf16(&mut [0; 2]) {
                let digit = |shift: u32| DIGITS[usize::from(*unit >> shift & 15)];
                out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
            }
        }
    }
}
