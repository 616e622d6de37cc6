//! What the request path notes for those who ask why: nothing, unless somebody is to be able to. Where a request
//! has no explanation, each of these is one look at an `Option`.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderName;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::context::Context;
use super::fault::Fault;
use super::outcome::Outcome;
use crate::config::{ExplainParams, Secret};
use crate::control::ReportStatus;
use crate::explain::{End, Explanation, Explanations, ReportSeen, Request};
use crate::id::RequestId;
use crate::upstream::{Arrival, Ask, Lease, Upstream};

const DEBUG: HeaderName = HeaderName::from_static("x-maitred-debug");

/// As a string, which keeps its case.
const EXPLAIN: &str = "X-Maitred-Explain";

/// Who may ask, and where what is noted goes.
pub(super) struct Explaining {
    kept: Option<Explanations>,
    token: Option<Secret>,
}

impl Explaining {
    /// `None` where nobody may ask.
    pub(super) fn new(params: &ExplainParams, kept: Option<Explanations>) -> Option<Self> {
        let token = params.debug_token.clone();
        (kept.is_some() || token.is_some()).then_some(Self { kept, token })
    }

    /// A request has come. Whatever it says to be explained with goes no further.
    pub(super) fn begin(
        &self,
        session: &mut Session,
        context: &mut Context,
        report: &ReportStatus,
    ) {
        let request = session.req_header_mut();
        let is_told = self.has_token(request);
        request.remove_header(&DEBUG);
        // Without an id nobody could ask for it later.
        if !is_told && (self.kept.is_none() || context.id.is_none()) {
            return;
        }
        let age = report.event.age(context.arrived);
        let seen = ReportSeen {
            state: report.name(),
            age: report.event.report.as_ref().map(|_| age),
        };
        let request = Request {
            id: context.id.as_ref().map_or("", RequestId::as_str),
            method: request.method.as_str(),
            target: request.raw_path(),
            arrived: context.arrived,
        };
        context.explanation = Some(Box::new(Explanation::new(request, seen, is_told)));
    }

    fn has_token(&self, request: &RequestHeader) -> bool {
        let guess = request.headers.get(&DEBUG);
        let both = self.token.as_ref().zip(guess);
        both.is_some_and(|(token, guess)| token.is(guess.as_bytes()))
    }

    /// The request is over.
    pub(super) fn keep(&self, mut explanation: Box<Explanation>, outcome: &Outcome<'_>) {
        let Some(kept) = self.kept.as_ref().filter(|_| !explanation.id().is_empty()) else {
            return;
        };
        explanation.ended(end(outcome.status, outcome.fault));
        kept.keep(explanation);
    }
}

fn end(status: u16, fault: Option<&Fault>) -> End {
    End {
        at: Instant::now(),
        status,
        fault: fault.map(|fault| (fault.code(), fault.message())),
    }
}

/// Asks for a slot.
pub(super) fn arrive(context: &mut Context, upstream: &Arc<Upstream>, ask: Ask) -> Arrival {
    let explanation = context.explanation.as_mut();
    match explanation.and_then(|explanation| explanation.ask(Instant::now())) {
        Some(survey) => upstream.arrive_noting(ask, survey),
        None => upstream.arrive(ask),
    }
}

/// The attempt has its slot.
pub(super) fn seated(context: &mut Context, lease: &Lease) {
    let explanation = context.explanation.as_mut();
    if let Some(attempt) = explanation.and_then(|explanation| explanation.attempt()) {
        attempt.seated(lease, Instant::now());
    }
}

/// The attempt failed.
pub(super) fn failed(context: &mut Context, why: &'static str) {
    note(context);
    let explanation = context.explanation.as_mut();
    if let Some(attempt) = explanation.and_then(|explanation| explanation.attempt()) {
        attempt.failed(why);
    }
}

/// There is no other attempt, though one was wanted.
pub(super) fn denied(context: &mut Context, why: &'static str) {
    let explanation = context.explanation.as_mut();
    if let Some(attempt) = explanation.and_then(|explanation| explanation.attempt()) {
        attempt.denied(why);
    }
}

/// Notes how far it has come.
pub(super) fn note(context: &mut Context) {
    let Some(explanation) = &mut context.explanation else {
        return;
    };
    if let Some(upstream) = &context.upstream {
        explanation.routed(upstream.clone(), context.ready);
    }
    let record = &context.record;
    if let Some(attempt) = explanation.attempt() {
        attempt.sent(record.sent, record.answered, record.served);
    }
}

/// The proxy is about to answer by itself.
pub(super) fn refused(context: &mut Context, fault: &Fault) {
    note(context);
    if let Some(explanation) = &mut context.explanation {
        explanation.ended(end(fault.status(), Some(fault)));
    }
}

/// Tells the client, if it may know.
pub(super) fn tell(response: &mut ResponseHeader, context: &Context) -> Result<()> {
    let explanation = context.explanation.as_ref();
    match explanation.filter(|explanation| explanation.is_told()) {
        Some(explanation) => response.insert_header(EXPLAIN, explanation.to_field()),
        None => Ok(()),
    }
}
