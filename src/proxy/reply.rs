//! Writes the proxy's own answers: small, JSON or text by `Accept`, and never without the reason.

use bytes::Bytes;
use http::header;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;
use serde_json::{Value, json};

use super::context::Context;
use super::explaining;
use super::fault::Fault;
use super::headers;
use crate::control::Snapshot;
use crate::id::RequestId;
use crate::upstream::{Guest, Upstream};

/// Answers a request with `fault`, if nothing was answered yet. The connection stays open when the
/// request was read to its end and `keep_alive` holds.
///
/// # Errors
/// When the client can't be written to.
pub(super) async fn write(
    session: &mut Session,
    context: &Context,
    fault: &Fault,
    snapshot: &Snapshot,
    keep_alive: bool,
) -> Result<()> {
    if *fault == Fault::ClientGone || has_answered(session) {
        session.set_keepalive(None);
        return Ok(());
    }
    let expects_leave = session.req_header().headers.contains_key(header::EXPECT);
    let body_may_come = session.response_written().is_some() || !expects_leave;
    if !keep_alive || !body_may_come {
        session.set_keepalive(None);
    }
    let id = context.id.as_ref();
    let details = details(context, fault, snapshot);
    let (kind, body) = if wants_json(session) {
        (
            "application/json",
            format!("{}\n", as_json(fault, id, details)),
        )
    } else {
        ("text/plain; charset=utf-8", as_text(fault, id, &details))
    };
    let mut response = ResponseHeader::build(fault.status(), Some(6))?;
    response.insert_header(header::CONTENT_TYPE, kind)?;
    response.insert_header(header::CONTENT_LENGTH, body.len())?;
    response.insert_header(header::CACHE_CONTROL, "no-store")?;
    headers::tell_id(&mut response, context.id.as_ref())?;
    explaining::tell(&mut response, context)?;
    if let Fault::MethodNotAllowed(allow) = fault {
        // As a string, which keeps its case: Pingora writes the constant small, and the next one.
        response.insert_header("Allow", allow)?;
    }
    if fault.is_temporary() {
        response.insert_header("Retry-After", retry_after(fault, context, snapshot))?;
    }
    if context.tells_timing {
        headers::tell_timing(&mut response, context.record.queued, None)?;
    }
    session
        .write_response_header(Box::new(response), false)
        .await?;
    session
        .write_response_body(Some(Bytes::from(body)), true)
        .await?;
    if !keep_alive && body_may_come {
        // A connection closed with a body unread is reset, and the answer lost with it.
        let _ = session.as_mut().drain_request_body().await;
    }
    Ok(())
}

/// Whether the client has seen the beginning of a final answer.
pub(super) fn has_answered(session: &Session) -> bool {
    session
        .response_written()
        .is_some_and(|response| !response.status.is_informational())
}

/// In seconds, 1 at the least. The next report comes with the poller's next round; a turn, when those
/// who wait now and would go before it have had theirs, which is no sooner than it would be with all backends
/// where all are ejected.
fn retry_after(fault: &Fault, context: &Context, snapshot: &Snapshot) -> u64 {
    let wait = match (fault, &context.upstream) {
        (Fault::NoEligibleBackend, _) => Some(snapshot.config.poller.interval),
        (_, Some(upstream)) => {
            let newcomer = || Guest::any(context.ready);
            let guest = context.record.guest.unwrap_or_else(newcomer);
            let expected = upstream.expected_wait(&guest);
            expected.or_else(|| upstream.least_wait(&guest))
        }
        (_, None) => None,
    };
    let seconds = wait.map_or(0.0, |wait| wait.as_secs_f64().ceil());
    (seconds as u64).max(1)
}

fn wants_json(session: &Session) -> bool {
    let accept = session.req_header().headers.get(header::ACCEPT);
    accept.is_some_and(|accept| accept.as_bytes().windows(4).any(|window| window == b"json"))
}

/// How many backends an answer names: an answer is for a person, and must cost little while many are sick.
const NAMED_MAX: usize = 20;

/// Where it was to go, and what was wrong there.
fn details(context: &Context, fault: &Fault, snapshot: &Snapshot) -> Option<Value> {
    let upstream = context.upstream.as_ref()?;
    let mut details = json!({ "upstream": upstream.params().name });
    if fault.is_backends()
        && let Some(backend) = context.backend()
    {
        details["backend"] = json!(backend.name());
        details["attempts"] = json!(context.record.attempts);
    }
    if fault.is_about_all() {
        let out_of_service = out_of_service(upstream);
        // Else all are busy, which has nothing to do with the report.
        if *fault == Fault::NoEligibleBackend || !out_of_service.is_empty() {
            details["backends"] = Value::Object(out_of_service);
            details["report"] = report(snapshot);
        }
    }
    Some(details)
}

/// Which backends take no requests, why, and since when.
fn out_of_service(upstream: &Upstream) -> serde_json::Map<String, Value> {
    let views = upstream.first_ineligible(NAMED_MAX).into_iter();
    let entries = views.filter_map(|view| {
        let why_not = view.why_not.as_ref()?.to_string();
        let since_seconds = view.since.elapsed().as_secs();
        let entry = json!({ "why_not": why_not, "since_seconds": since_seconds });
        Some((view.backend.name().to_string(), entry))
    });
    entries.collect()
}

fn report(snapshot: &Snapshot) -> Value {
    json!({
        "path": snapshot.config.health.file,
        "state": snapshot.report.name(),
        // Of the report in force; null if none was ever read.
        "age_seconds": snapshot.report.age().map(|age| age.as_secs()),
    })
}

fn as_json(fault: &Fault, id: Option<&RequestId>, details: Option<Value>) -> Value {
    let mut body = json!({ "error": fault.code(), "message": fault.message() });
    if let Some(id) = id {
        body["request_id"] = id.as_str().into();
    }
    if let (Value::Object(body), Some(Value::Object(details))) = (&mut body, details) {
        body.extend(details);
    }
    body
}

fn as_text(fault: &Fault, id: Option<&RequestId>, details: &Option<Value>) -> String {
    let mut text = format!("{} {}: {}\n", fault.status(), fault.code(), fault.message());
    if let Some(id) = id {
        text += &format!("request id: {}\n", id.as_str());
    }
    let Some(details) = details else { return text };
    if let Some(backend) = details.get("backend") {
        let (backend, attempts) = (backend.as_str().unwrap_or_default(), &details["attempts"]);
        text += &format!("backend: {backend}, attempts: {attempts}\n");
    }
    for (name, backend) in details["backends"].as_object().into_iter().flatten() {
        text += &format!(
            "{name}: {}, for {} s\n",
            backend["why_not"].as_str().unwrap_or_default(),
            backend["since_seconds"],
        );
    }
    if let Some(report) = details.get("report") {
        let age = match report["age_seconds"].as_u64() {
            Some(age) => format!("the report in force is {age} s old"),
            None => "never read".into(),
        };
        text += &format!(
            "{}: {}, {age}\n",
            report["path"].as_str().unwrap_or_default(),
            report["state"].as_str().unwrap_or_default(),
        );
    }
    text
}
