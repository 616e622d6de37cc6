//! Whether a request whose attempt failed is sent again: what is known of it is gathered here, and
//! `policy::retry` decides.
//!
//! A backend's answer 502, 503 or 504 is looked at when its header is here, and either turned down there, or
//! passed on as any other: so where there is no other attempt, the client has the last backend's own answer.
//! Of one that is turned down the rest is not read; its connection is closed, and the slot is free when the
//! backend has let go of it, as with all that is given up on.

use std::time::{Duration, Instant};

use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::{explaining, headers, reply};
use crate::door::ClientStream;
use crate::policy::outlier::Misstep;
use crate::policy::retry::{self, Attempt, Decision, Reason};
use crate::upstream::{BackendIndex, Upstream};

/// What went wrong with an attempt.
pub(super) struct Failure {
    reason: Reason,
    /// The backend may have seen some of the request.
    is_sent: bool,
    /// How long the backend wants to be left alone.
    wanted_pause: Duration,
}

impl Failure {
    pub(super) fn new(reason: Reason, is_sent: bool) -> Self {
        Self {
            reason,
            is_sent,
            wanted_pause: Duration::ZERO,
        }
    }
}

/// Whether this answer is turned down, because the request is sent again.
pub(super) fn turns_down(
    session: &Session,
    context: &mut Context,
    response: &ResponseHeader,
) -> bool {
    let Some(reason) = Reason::of_status(response.status) else {
        return false;
    };
    let has_left = ClientStream::of(session).is_some_and(ClientStream::has_departed);
    let mut failure = Failure::new(reason, true);
    if reason == Reason::Unavailable {
        failure.wanted_pause = headers::retry_after(&response.headers).unwrap_or_default();
    }
    // Turned down or passed on, and before anybody is handed its next slot.
    let misstep = Misstep::Status(failure.wanted_pause);
    if let Some(work) = &mut context.work {
        work.erred(misstep);
    }
    let is_again = !has_left && decide(session, context, failure);
    context.turned_down = is_again.then_some(reason);
    is_again
}

/// Whether the request is sent again. Notes where and when, or why not.
pub(super) fn decide(session: &Session, context: &mut Context, failure: Failure) -> bool {
    let (Some(upstream), Some(index)) = (context.upstream.clone(), context.record.backend) else {
        return false;
    };
    let now = Instant::now();
    let pause = pause(context, &failure, &upstream, index);
    let attempt = Attempt {
        reason: failure.reason,
        method: &session.req_header().method,
        sent: failure.is_sent,
        answered: reply::has_answered(session),
        replayable: !session.as_ref().retry_buffer_truncated(),
        attempts: context.record.attempts - context.record.stale,
        pause: pause.unwrap_or_default(),
        left: context.due(&upstream).saturating_duration_since(now),
    };
    let budget = || upstream.take_retry(now);
    match retry::decide(&upstream.params().retry, &attempt, budget) {
        Decision::Again => {
            context.record.retried = Some(failure.reason.word());
            // An idle connection that was closed is no sign of anything, and a shortage is the proxy's own.
            let is_backends = !matches!(failure.reason, Reason::Stale | Reason::Shortage);
            context.avoided = is_backends.then_some(index);
            context.pause_until = pause.map(|pause| now + pause);
            true
        }
        Decision::Never => false,
        Decision::Denied(denial) => {
            context.record.denied = Some(denial.word());
            explaining::denied(context, denial.word());
            false
        }
    }
}

/// How long a backend that is the only one left is spared before it has the request again. One that was not
/// sent anything, or had only closed an idle connection, has nothing to recover from.
fn pause(
    context: &Context,
    failure: &Failure,
    upstream: &Upstream,
    index: BackendIndex,
) -> Option<Duration> {
    let is_spared = failure.is_sent && failure.reason != Reason::Stale;
    (is_spared && !upstream.has_another(index)).then(|| {
        let pause = retry::pause(context.record.retries, fastrand::u64(..));
        pause.max(failure.wanted_pause)
    })
}
