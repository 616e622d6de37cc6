//! May this request be sent again?
//!
//! Idempotence as RFC 9110, section 9.2.2 defines it: a method that may be repeated may be resent
//! until something was passed on to the client; any other only if not one of its bytes was sent.

use http::Method;

/// Attempts per request, the first included, that may reach a backend.
pub const ATTEMPTS_MAX: u32 = 3;

/// What is known of a failed attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// Some byte of the request may have reached the backend.
    pub sent: bool,
    /// Some byte of the answer was passed on to the client.
    pub answered: bool,
    /// The body is still in memory from its first byte on (or there is none).
    pub replayable: bool,
    /// Attempts so far in which a byte was sent, this one included, but those on a connection that the
    /// backend had ended before.
    pub attempts: u32,
}

/// Whether to try again.
pub fn may_retry(attempt: &Attempt<'_>) -> bool {
    if attempt.answered {
        return false;
    }
    let may_repeat = attempt.method.is_idempotent() && attempt.attempts < ATTEMPTS_MAX;
    !attempt.sent || (attempt.replayable && may_repeat)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESET: Attempt<'static> = Attempt {
        method: &Method::GET,
        sent: true,
        answered: false,
        replayable: true,
        attempts: 1,
    };

    #[test]
    fn a_repeatable_request_is_sent_again() {
        assert!(may_retry(&RESET));
        assert!(may_retry(&Attempt {
            method: &Method::DELETE,
            ..RESET
        }));
    }

    #[test]
    fn a_post_is_sent_again_only_if_no_byte_of_it_was_sent() {
        let post = Attempt {
            method: &Method::POST,
            ..RESET
        };
        assert!(!may_retry(&post));
        assert!(may_retry(&Attempt {
            sent: false,
            ..post
        }));
    }

    #[test]
    fn nothing_is_sent_again_once_the_client_saw_an_answer() {
        assert!(!may_retry(&Attempt {
            answered: true,
            ..RESET
        }));
        assert!(!may_retry(&Attempt {
            answered: true,
            sent: false,
            ..RESET
        }));
    }

    #[test]
    fn a_body_that_is_gone_cannot_be_sent_again() {
        let gone = Attempt {
            replayable: false,
            ..RESET
        };
        assert!(!may_retry(&gone));
        assert!(may_retry(&Attempt {
            sent: false,
            ..gone
        }));
    }

    #[test]
    fn attempts_are_bounded_but_those_that_sent_nothing_are_not() {
        assert!(!may_retry(&Attempt {
            attempts: ATTEMPTS_MAX,
            ..RESET
        }));
        assert!(may_retry(&Attempt {
            attempts: ATTEMPTS_MAX,
            sent: false,
            ..RESET
        }));
    }
}
