//! One request's decisions, as they are noted while it is under way: numbers, words of ours and cut copies.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::upstream::{Backend, BackendIndex, Lease, Survey, Upstream};

/// How many attempts are noted: the first ones, and the last in place of the one before it.
const ATTEMPTS_MAX: usize = 8;

const METHOD_BYTES_MAX: usize = 16;
const ID_BYTES_MAX: usize = 128;
const TARGET_BYTES_MAX: usize = 160;

/// What is known of a request from the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What it is called.
    pub id: &'a str,
    /// Its method.
    pub method: &'a str,
    /// Its path and query, as the client sent them.
    pub target: &'a [u8],
    /// When its header was complete.
    pub arrived: Instant,
}

/// One request's decisions.
#[derive(Debug)]
pub struct Explanation {
    id: Cut<ID_BYTES_MAX>,
    method: Cut<METHOD_BYTES_MAX>,
    target: Cut<TARGET_BYTES_MAX>,
    pub(super) time: SystemTime,
    pub(super) arrived: Instant,
    pub(super) report: ReportSeen,
    /// The client may see it in the answer.
    pub(super) is_told: bool,
    /// When it was ready to be sent: its header, and the body if that is read ahead.
    pub(super) ready: Option<Instant>,
    pub(super) upstream: Option<Place>,
    pub(super) attempts: Vec<Attempt>,
    /// How many attempts were made.
    pub(super) attempts_made: u32,
    pub(super) end: Option<End>,
}

/// The health file when a request came.
#[derive(Clone, Copy, Debug)]
pub struct ReportSeen {
    /// `ok`, `stale`, `missing` or `corrupt`.
    pub state: &'static str,
    /// Of the report in force; `None` without one.
    pub age: Option<Duration>,
}

/// Where a request goes.
pub(super) struct Place(pub(super) Arc<Upstream>);

/// One attempt to have it served.
#[derive(Debug)]
pub struct Attempt {
    /// When it asked for a slot.
    pub(super) asked: Instant,
    /// What there was to choose from.
    pub(super) survey: Survey,
    /// When it had its slot, and whose.
    pub(super) seated: Option<(Instant, BackendIndex)>,
    /// It was to tell whether the backend is well again.
    pub(super) is_trial: bool,
    pub(super) sent: Option<Instant>,
    pub(super) answered: Option<Instant>,
    pub(super) served: Option<Instant>,
    /// What went wrong with it.
    pub(super) failed: Option<&'static str>,
    /// Why there is no other, though one was wanted.
    pub(super) denied: Option<&'static str>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// When.
    pub at: Instant,
    /// What the client saw; 499 if it left before, 0 if it saw nothing.
    pub status: u16,
    /// Why the proxy answered by itself: a word, and a sentence.
    pub fault: Option<(&'static str, &'static str)>,
}

impl Explanation {
    /// Of a request that has just come.
    pub fn new(request: Request<'_>, report: ReportSeen, is_told: bool) -> Self {
        Self {
            id: Cut::of(request.id.as_bytes()),
            method: Cut::of(request.method.as_bytes()),
            target: Cut::of(request.target),
            time: SystemTime::now(),
            arrived: request.arrived,
            report,
            is_told,
            ready: None,
            upstream: None,
            attempts: Vec::with_capacity(1),
            attempts_made: 0,
            end: None,
        }
    }

    /// What the request is called.
    pub fn id(&self) -> Cow<'_, str> {
        self.id.text()
    }

    /// Its path and query, cut.
    pub fn target(&self) -> Cow<'_, str> {
        self.target.text()
    }

    pub(super) fn method(&self) -> Cow<'_, str> {
        self.method.text()
    }

    /// Whether the client may see this in the answer.
    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// It goes there, and was ready to be sent at this moment.
    pub fn routed(&mut self, upstream: Arc<Upstream>, ready: Instant) {
        self.upstream = Some(Place(upstream));
        self.ready = Some(ready);
    }

    /// It asks for a slot: what there is to choose from belongs in the survey, which is always there.
    pub fn ask(&mut self, now: Instant) -> Option<&mut Survey> {
        self.attempts_made += 1;
        if self.attempts.len() == ATTEMPTS_MAX {
            self.attempts.pop();
        }
        let attempt = Attempt {
            asked: now,
            survey: Survey::default(),
            seated: None,
            is_trial: false,
            sent: None,
            answered: None,
            served: None,
            failed: None,
            denied: None,
        };
        self.attempts.push(attempt);
        self.attempts.last_mut().map(|attempt| &mut attempt.survey)
    }

    /// The attempt under way.
    pub fn attempt(&mut self) -> Option<&mut Attempt> {
        self.attempts.last_mut()
    }

    /// It is over.
    pub fn ended(&mut self, end: End) {
        self.end = Some(end);
    }

    pub(super) fn backend(&self, index: BackendIndex) -> Option<&Backend> {
        self.upstream.as_ref().map(|place| place.0.backend(index))
    }
}

impl Attempt {
    /// It has this slot.
    pub fn seated(&mut self, lease: &Lease, now: Instant) {
        self.seated = Some((now, lease.index()));
        self.is_trial = lease.is_trial();
    }

    /// How far the backend came: when it was sent the request, and how long it took to its header and its last byte.
    /// What was sent before this attempt is another's.
    pub fn sent(
        &mut self,
        sent: Option<Instant>,
        answered: Option<Duration>,
        served: Option<Duration>,
    ) {
        let Some(sent) = sent.filter(|sent| *sent >= self.asked) else {
            return;
        };
        self.sent = Some(sent);
        self.answered = answered.map(|after| sent + after);
        self.served = served.map(|after| sent + after);
    }

    /// It failed for this reason.
    pub fn failed(&mut self, why: &'static str) {
        self.failed = Some(why);
    }

    /// It is not made again for this reason, though that was wanted.
    pub fn denied(&mut self, why: &'static str) {
        self.denied = Some(why);
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.params().name.fmt(formatter)
    }
}

/// The first bytes of a text of somebody else's.
#[derive(Debug)]
struct Cut<const MAX: usize> {
    bytes: [u8; MAX],
    length: usize,
}

impl<const MAX: usize> Cut<MAX> {
    fn of(text: &[u8]) -> Self {
        let mut bytes = [0; MAX];
        let length = text.len().min(MAX);
        bytes[..length].copy_from_slice(&text[..length]);
        Self { bytes, length }
    }

    fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes[..self.length])
    }
}

#[cfg(test)]
pub(super) mod fixtures {
    use super::*;

    /// Of a request of which nothing is known but this.
    pub(crate) fn explanation(id: &str, target: &str) -> Box<Explanation> {
        let request = Request {
            id,
            method: "GET",
            target: target.as_bytes(),
            arrived: Instant::now(),
        };
        let report = ReportSeen {
            state: "ok",
            age: Some(Duration::from_millis(1500)),
        };
        Box::new(Explanation::new(request, report, false))
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::explanation;
    use super::*;

    #[test]
    fn what_a_request_says_of_itself_is_cut() {
        let explanation = explanation(&"i".repeat(500), &"\u{e4}".repeat(500));
        assert_eq!(explanation.id().len(), ID_BYTES_MAX);
        assert!(explanation.target().len() <= TARGET_BYTES_MAX + 3);
        assert!(
            size_of::<Explanation>() <= 640,
            "{}",
            size_of::<Explanation>()
        );
        assert!(size_of::<Attempt>() <= 1024, "{}", size_of::<Attempt>());
    }

    #[test]
    fn of_many_attempts_the_first_and_the_last_are_noted() {
        let mut explanation = explanation("a", "/");
        let begun = Instant::now();
        for second in 0..20 {
            let now = begun + Duration::from_secs(second);
            explanation.ask(now).unwrap().waiting = second as u32;
        }
        let noted = explanation.attempts.iter();
        let noted: Vec<_> = noted.map(|attempt| attempt.survey.waiting).collect();
        assert_eq!(noted, [0, 1, 2, 3, 4, 5, 6, 19]);
        assert_eq!(explanation.attempts_made, 20);
    }

    #[test]
    fn what_was_sent_before_an_attempt_is_another_ones() {
        let mut explanation = explanation("a", "/");
        let now = Instant::now();
        explanation.ask(now + Duration::from_secs(1));
        let attempt = explanation.attempt().unwrap();
        attempt.sent(Some(now), Some(Duration::ZERO), None);
        assert_eq!((attempt.sent, attempt.answered), (None, None));
    }
}
