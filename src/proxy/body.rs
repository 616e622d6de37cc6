//! Bodies, kept from holding a slot: a request's is read before the slot is taken, an answer's is
//! read from the backend before the client has to take it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};
use http::header;
use pingora::Result;
use pingora_proxy::Session;

use super::headers;

/// A request body up to this size is read before a slot is taken. It is the size of Pingora's buffer
/// for retries, which sends it on.
const READ_AHEAD_MAX: usize = 64 * 1024;

/// An answer of known length up to this size is read as fast as the backend sends it.
const HELD_MAX: usize = 256 * 1024;

/// How much of a request's body has come and gone.
#[derive(Default)]
pub struct RequestBody {
    /// What was read ahead of a body that then turned out too long for Pingora's buffer.
    ahead: BytesMut,
    streamed: bool,
    /// Bytes passed on in this attempt, and whether the last was among them.
    passed: usize,
    ended: bool,
}

impl RequestBody {
    /// Whether the client's body is sent on as it comes.
    pub fn is_streamed(&self) -> bool {
        self.streamed
    }

    /// Reads a body of up to 64 KiB, so that a slow client never holds a slot. A longer one is left
    /// to be sent on as it comes; of one that does not say its length, the first 64 KiB are read.
    ///
    /// Says whether there is one.
    ///
    /// # Errors
    /// When the client breaks off, pauses for too long or sends broken chunks.
    pub async fn read_ahead(&mut self, session: &mut Session) -> Result<bool> {
        if session.as_mut().is_body_empty() {
            return Ok(false);
        }
        if headers::content_length(&session.req_header().headers)
            .is_some_and(|n| n > READ_AHEAD_MAX)
        {
            self.streamed = true;
            return Ok(true);
        }
        send_continue(session).await?;
        let may_be_long = session
            .req_header()
            .headers
            .contains_key(header::TRANSFER_ENCODING);
        let downstream = session.as_mut();
        downstream.enable_retry_buffering();
        while !downstream.is_body_done() && !downstream.retry_buffer_truncated() {
            let chunk = downstream.read_request_body().await?;
            if may_be_long {
                self.ahead.extend_from_slice(&chunk.unwrap_or_default());
            }
        }
        self.streamed = !downstream.is_body_done();
        if !self.streamed {
            // Pingora's buffer has it, too, and sends it as often as it takes.
            self.ahead = BytesMut::new();
        }
        Ok(true)
    }

    /// A slot is taken: a client that waits for leave to send its body may start.
    pub async fn slot_taken(&self, session: &mut Session) -> Result<()> {
        if self.streamed {
            send_continue(session).await
        } else {
            Ok(())
        }
    }

    /// A new attempt begins.
    pub fn restart(&mut self) {
        self.passed = 0;
        self.ended = false;
    }

    /// Notes a piece of the body on its way to the backend, and puts before the first one what was
    /// read ahead.
    pub fn pass(&mut self, piece: &mut Option<Bytes>, is_last: bool) {
        if !self.ahead.is_empty() {
            let mut whole = std::mem::take(&mut self.ahead);
            whole.extend_from_slice(piece.as_deref().unwrap_or_default());
            *piece = Some(whole.freeze());
        }
        self.passed += piece.as_ref().map_or(0, Bytes::len);
        self.ended |= is_last;
    }

    /// Whether any of it was passed on.
    pub fn has_passed(&self) -> bool {
        self.passed > 0
    }

    /// Whether all of it was passed on.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the backend has all of it, if it was sent `bytes`.
    pub fn is_sent(&self, bytes: usize) -> bool {
        self.ended && bytes == self.passed
    }
}

/// Answers `Expect: 100-continue`.
async fn send_continue(session: &mut Session) -> Result<()> {
    if !session.req_header().headers.contains_key(header::EXPECT) {
        return Ok(());
    }
    session.as_mut().write_continue_response().await
}

/// How many bytes of answers may be held for slow clients, all requests together.
#[derive(Clone)]
pub struct Budget {
    left: Arc<AtomicUsize>,
}

/// Bytes of the budget, given back on `Drop`.
struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of which nothing is taken yet.
    pub fn new(bytes: usize) -> Self {
        Self {
            left: Arc::new(AtomicUsize::new(bytes)),
        }
    }

    fn take(&self, bytes: usize) -> Option<Share> {
        let take = |left: usize| left.checked_sub(bytes);
        self.left.fetch_update(Relaxed, Relaxed, take).ok()?;
        Some(Share {
            budget: self.clone(),
            bytes,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Relaxed);
    }
}

/// An answer that is collected until the backend has sent all of it.
#[derive(Default)]
pub struct HeldResponse {
    /// `Some` while collecting.
    collected: Option<BytesMut>,
    length: usize,
    /// Kept until the client has the answer.
    share: Option<Share>,
}

impl HeldResponse {
    /// Decides whether to collect this answer's body: if its `length` is known, that is short enough, and
    /// the budget has room for it.
    pub fn begin(&mut self, length: Option<usize>, budget: &Budget) -> bool {
        self.length = length.unwrap_or(usize::MAX);
        self.share = (self.length <= HELD_MAX)
            .then(|| budget.take(self.length))
            .flatten();
        self.collected = self.share.as_ref().map(|_| BytesMut::new());
        self.share.is_some()
    }

    /// Keeps a piece back until the last one, which then is the whole body. An answer that came in
    /// one piece is not copied.
    pub fn collect(&mut self, piece: &mut Option<Bytes>, is_last: bool) {
        let Some(collected) = &mut self.collected else {
            return;
        };
        if is_last && collected.is_empty() {
            return;
        }
        collected.reserve(self.length - collected.len().min(self.length));
        collected.extend_from_slice(&piece.take().unwrap_or_default());
        if is_last {
            *piece = Some(std::mem::take(collected).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(length: Option<usize>) -> HeldResponse {
        let mut held = HeldResponse::default();
        held.begin(length, &Budget::new(HELD_MAX));
        held
    }

    fn piece(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_short_answer_is_kept_back_until_it_is_whole() {
        let mut held = held(Some(6));
        let (mut first, mut last) = (piece("abc"), piece("def"));
        held.collect(&mut first, false);
        held.collect(&mut last, true);
        assert_eq!((first, last), (None, piece("abcdef")));
    }

    #[test]
    fn a_long_answer_or_one_of_unknown_length_passes() {
        for mut held in [held(Some(262_145)), held(None)] {
            let mut first = piece("abc");
            held.collect(&mut first, false);
            assert_eq!(first, piece("abc"));
        }
    }

    #[test]
    fn what_no_longer_fits_the_budget_passes_until_something_is_given_back() {
        let budget = Budget::new(100);
        let (mut first, mut second) = (HeldResponse::default(), HeldResponse::default());
        assert!(first.begin(Some(60), &budget));
        assert!(!second.begin(Some(60), &budget));
        drop(first);
        assert!(second.begin(Some(60), &budget));
    }

    #[test]
    fn what_was_read_ahead_goes_before_the_first_piece() {
        let mut body = RequestBody {
            ahead: BytesMut::from("ab"),
            ..RequestBody::default()
        };
        let (mut first, mut last) = (piece("cd"), None);
        body.pass(&mut first, false);
        body.pass(&mut last, true);
        assert_eq!((first, last), (piece("abcd"), None));
        assert!(body.is_sent(4) && !body.is_sent(3));
    }
}
