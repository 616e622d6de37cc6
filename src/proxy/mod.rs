//! The Pingora callbacks, in the order in which a request meets them. Each is a few lines: what they
//! decide with is in `policy` and `upstream`, what they say in `reply` and `headers`.
//!
//! The order matters in two places. A backend that failed is ejected *before* its lease is given
//! back, or the head of the queue is handed the dead backend. And the lease is given back *before*
//! the request asks for another slot, or it can queue behind itself.

mod access_log;
mod body;
mod context;
mod fault;
mod headers;
mod reply;
mod seating;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::control::{Current, PhaseWatch};
use crate::door::{Awaited, ClientStream, Departures};
use crate::policy::retry::{self, Attempt};
use crate::routing::Routed;
use crate::upstream::{BackendSocket, Upstream, Work};

pub use access_log::{AccessEvent, AccessLog, AccessLogWriter};
pub use context::Context;
pub use fault::Fault;

/// Before a request that failed for want of something of the proxy's own is tried again.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// The load balancer as Pingora sees it.
pub struct Proxy {
    current: Current,
    departures: Arc<Departures>,
    access_log: AccessLog,
    phase: PhaseWatch,
}

impl Proxy {
    /// A proxy for whatever snapshot is in force.
    pub fn new(
        current: Current,
        departures: Arc<Departures>,
        access_log: AccessLog,
        phase: PhaseWatch,
    ) -> Self {
        Self {
            current,
            departures,
            access_log,
            phase,
        }
    }

    /// Finds where a request goes, reads what is to be read of its body and gets it a slot.
    async fn admit(&self, session: &mut Session, context: &mut Context) -> Result<(), Fault> {
        let upstream = self.route(session, context)?;
        context
            .body
            .read_ahead(session)
            .await
            .map_err(|error| fault_of_client(error.etype()))?;
        context.ready = Instant::now();
        if !context.body.is_streamed()
            && let Some(stream) = ClientStream::of(session)
        {
            stream.park();
        }
        self.seat(session, context, &upstream).await
    }

    fn route(&self, session: &Session, context: &mut Context) -> Result<Arc<Upstream>, Fault> {
        let request = session.req_header();
        let host = request.headers.get(http::header::HOST);
        let host = host.and_then(|host| host.to_str().ok());
        let path = request.uri.path();
        let snapshot = self.current.load();
        let route = match snapshot.router.route(&request.method, host, path) {
            Routed::To(route) => route,
            Routed::NotFound => return Err(Fault::NotFound),
            Routed::MethodNotAllowed(allow) => return Err(Fault::MethodNotAllowed(allow.into())),
        };
        if route.rewrite.is_some() {
            context.path = Some(route.rewrite_path(path).into_owned());
        }
        let upstream = snapshot.upstreams.get(&route.upstream).cloned();
        context.upstream = upstream.clone();
        // The configuration's check has seen that every route's upstream exists.
        upstream.ok_or(Fault::Internal)
    }

    async fn seat(
        &self,
        session: &mut Session,
        context: &mut Context,
        upstream: &Arc<Upstream>,
    ) -> Result<(), Fault> {
        seating::seat(&self.departures, session, context, upstream).await?;
        context
            .body
            .slot_taken(session)
            .await
            .map_err(|_| Fault::ClientGone)
    }

    /// Gets a request that failed another slot, with the ticket that it has.
    async fn seat_again(&self, session: &mut Session, context: &mut Context) -> Result<(), Fault> {
        let upstream = context.upstream.clone().ok_or(Fault::Internal)?;
        if std::mem::take(&mut context.is_short) {
            if context.ready.elapsed() > upstream.params().queue.timeout {
                return Err(Fault::Internal);
            }
            tokio::time::sleep(SHORTAGE_PAUSE).await;
        }
        self.seat(session, context, &upstream).await
    }

    /// Ends a failed attempt: tells why, gives the lease back (now, or when the backend has let go)
    /// and decides whether there is another.
    fn end_attempt(&self, session: &mut Session, context: &mut Context, fault: Fault) -> bool {
        if let Some(stream) = ClientStream::of(session) {
            stream.end_request();
        }
        let Some(mut work) = context.work.take() else {
            return false;
        };
        if let Some(bytes) = session.upstream_body_bytes_sent()
            && context.body.is_sent(bytes)
        {
            work.sent();
        }
        if fault == Fault::InvalidResponse {
            // It has begun to answer; when it ends, only the close can tell.
            work.answering();
        }
        tell(&work, &fault);
        let may_retry = matches!(fault, Fault::BadGateway | Fault::Internal)
            && retry::may_retry(&Attempt {
                method: &session.req_header().method,
                sent: work.is_sent(),
                answered: reply::has_answered(session),
                replayable: !session.as_ref().retry_buffer_truncated(),
                attempts: context.record.attempts,
            });
        if may_retry {
            context.record.retried = Some(retried(&fault, work.is_sent()));
        } else {
            context.fault = Some(fault);
        }
        may_retry
    }

    fn log(&self, session: &Session, context: &Context) {
        if !self.access_log.is_on() {
            return;
        }
        let request = session.req_header();
        let fault = context.fault.as_ref();
        let answered = session
            .response_written()
            .map(|response| response.status.as_u16());
        let client_gone = fault.filter(|fault| **fault == Fault::ClientGone);
        self.access_log.log(AccessEvent {
            time: SystemTime::now(),
            client: ClientStream::of(session).map(|stream| stream.address().clone()),
            method: request.method.clone(),
            target: String::from_utf8_lossy(request.raw_path()).into_owned(),
            status: client_gone.map_or(answered.unwrap_or(0), Fault::status),
            bytes: session.body_bytes_sent(),
            upstream: context
                .upstream
                .as_ref()
                .map(|upstream| upstream.params().name.clone()),
            backend: context.record.backend.clone(),
            attempts: context.record.attempts,
            total: context.arrived.elapsed(),
            queued: context.record.queued,
            served: context.record.served,
            reason: fault.map(Fault::code),
            retried: context.record.retried,
        });
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new()
    }

    /// None: the default one compresses, which costs every request something.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    /// The header is complete: its deadline is over.
    async fn early_request_filter(&self, session: &mut Session, _: &mut Context) -> Result<()> {
        if let Some(stream) = ClientStream::of(session) {
            stream.clear_deadline();
            stream.set_request_length(request_length(session));
        }
        Ok(())
    }

    /// The first slot is taken here and not in `upstream_peer`, because here a refusal can leave the
    /// client's connection open.
    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        let Err(fault) = self.admit(session, context).await else {
            return Ok(false);
        };
        let keep_alive = !self.phase.is_stopping() && fault != Fault::BadRequest;
        let snapshot = self.current.load_full();
        reply::write(session, context, &fault, &snapshot, keep_alive).await?;
        context.fault = Some(fault);
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        if context.work.is_none()
            && let Err(fault) = self.seat_again(session, context).await
        {
            context.fault = Some(fault);
            return Err(Error::new(ErrorType::InternalError));
        }
        let lease = context.work.as_ref().and_then(|work| work.lease());
        lease
            .map(|lease| Box::new(lease.backend().peer().clone()))
            .ok_or_else(|| Error::new(ErrorType::InternalError))
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let lease = context.work.as_ref().and_then(|work| work.lease());
        let is_backends_fault =
            lease.is_some_and(|lease| lease.upstream().connect_failed(lease.index(), &error));
        let fault = if is_backends_fault {
            Fault::BadGateway
        } else {
            tracing::error!(%error, "no connection, and not for a backend's fault");
            context.is_short = true;
            Fault::Internal
        };
        let retry = self.end_attempt(session, context, fault);
        error.set_retry(retry);
        error
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        is_reused: bool,
        _peer: &HttpPeer,
        _descriptor: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        context: &mut Context,
    ) -> Result<()> {
        if let Some(work) = &mut context.work {
            work.connected(digest.and_then(BackendSocket::of), !is_reused);
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        let stream = ClientStream::of(session);
        let client = stream.map(ClientStream::address);
        headers::forward_request(request, client, context.path.as_deref())?;
        if let Some(work) = &mut context.work {
            work.sending();
        }
        context.record.attempts += 1;
        context.record.sent = Some(Instant::now());
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        is_last: bool,
        context: &mut Context,
    ) -> Result<()> {
        context.body.pass(body, is_last);
        if is_last {
            await_answer(session, context);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS
        {
            return Ok(());
        }
        let is_upgrade = response.status == StatusCode::SWITCHING_PROTOCOLS;
        if is_upgrade && !session.is_upgrade_req() {
            let problem = "an upgrade that nobody asked for";
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, problem).into_up());
        }
        if let Some(work) = &mut context.work {
            work.answering();
        }
        headers::strip_response(response);
        let stream = ClientStream::of(session);
        if is_upgrade {
            stream.inspect(|stream| stream.upgrade());
        } else if has_no_body(&session.req_header().method, response) {
            end_work(session, context);
            return Ok(());
        } else if !context.held.begin(response) {
            // A stream may have no end: a client that leaves ends it.
            stream.inspect(|stream| stream.serve_openly());
        }
        set_read_deadline(session, context);
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        is_last: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>> {
        if is_last {
            end_work(session, context);
        } else {
            set_read_deadline(session, context);
        }
        context.held.collect(body, is_last);
        Ok(None)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        _context: &mut Context,
    ) -> Result<()> {
        if session.req_header().version == Version::HTTP_10 {
            headers::end_by_close(response, session);
        }
        if self.phase.is_stopping() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        context: &mut Context,
        _client_reused: bool,
    ) -> Box<Error> {
        let fault = fault_of(session, context, &error);
        let retry = self.end_attempt(session, context, fault);
        error.set_retry(retry);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        context: &mut Context,
    ) -> FailToProxy {
        let fault = match context.fault.take() {
            Some(fault) => fault,
            None => fault_of(session, context, error),
        };
        let snapshot = self.current.load_full();
        // Fails only where the client is gone, and then there is nobody to tell.
        let _ = reply::write(session, context, &fault, &snapshot, false).await;
        let error_code = fault.status();
        context.fault = Some(fault);
        FailToProxy {
            error_code,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, context: &mut Context) {
        if let Some(stream) = ClientStream::of(session) {
            stream.end_request();
        }
        context.work = None;
        self.log(session, context);
    }

    /// The access log has it all, once per request.
    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Context,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// What a failed attempt says about its backend.
fn tell(work: &Work, fault: &Fault) {
    let Some(lease) = work.lease().filter(|_| fault.is_backends()) else {
        return;
    };
    lease.backend().count(false);
    if *fault == Fault::BadGateway && work.is_fresh_and_unanswered() {
        lease.upstream().broke_off(lease.index());
    }
}

/// What went wrong, from Pingora's error and the deadline that may have caused it.
fn fault_of(session: &Session, context: &mut Context, error: &Error) -> Fault {
    let stream = ClientStream::of(session);
    match stream.and_then(ClientStream::take_expired) {
        Some(Awaited::ResponseHeader) => return Fault::ResponseHeaderTimeout,
        Some(Awaited::Response) => return Fault::RequestTimeout,
        Some(Awaited::ResponseBody) => return Fault::ReadTimeout,
        Some(Awaited::Abandoned) => {
            // The busy limit is over, whatever the backend does.
            context.work.as_mut().map(Work::done);
            return Fault::ClientGone;
        }
        Some(Awaited::Request) => return Fault::ClientGone,
        None => {}
    }
    if stream.is_some_and(ClientStream::has_departed) {
        return Fault::ClientGone;
    }
    match error.esource() {
        ErrorSource::Downstream => fault_of_client(error.etype()),
        ErrorSource::Internal => Fault::Internal,
        ErrorSource::Upstream if *error.etype() == ErrorType::InvalidHTTPHeader => {
            Fault::InvalidResponse
        }
        ErrorSource::Upstream | ErrorSource::Unset => Fault::BadGateway,
    }
}

/// What went wrong at the client's end.
fn fault_of_client(error: &ErrorType) -> Fault {
    match error {
        ErrorType::ReadTimedout => Fault::BodyTimeout,
        ErrorType::InvalidHTTPHeader => Fault::BadRequest,
        // Pingora has no variant for it, and keeps its constant to itself.
        error if error.as_str() == "InvalidChunk" => Fault::BadRequest,
        _ => Fault::ClientGone,
    }
}

/// The backend has the whole request: its answer is due, and it works on it whether the client stays
/// or not.
fn await_answer(session: &Session, context: &Context) {
    let lease = context.work.as_ref().and_then(|work| work.lease());
    if let (Some(stream), Some(lease)) = (ClientStream::of(session), lease) {
        let (due, awaited) = context.answer_due(lease.upstream());
        stream.park();
        stream.set_deadline(due.into(), awaited);
        stream.serve_quietly(lease.watch(), lease.upstream().params().busy_limit);
    }
}

/// Between two pieces of an answer's body.
fn set_read_deadline(session: &Session, context: &Context) {
    if let (Some(stream), Some(upstream)) = (ClientStream::of(session), &context.upstream) {
        let due = Instant::now() + upstream.params().timeouts.read;
        stream.set_deadline(due.into(), Awaited::ResponseBody);
    }
}

/// The backend's last byte was read.
fn end_work(session: &Session, context: &mut Context) {
    let socket = context.work_done();
    if let Some(stream) = ClientStream::of(session) {
        stream.clear_deadline();
        stream.backend_is_done(socket);
    }
}

/// Why a request is sent again, for the access log.
fn retried(fault: &Fault, is_sent: bool) -> &'static str {
    match fault {
        Fault::Internal => "shortage",
        _ if is_sent => "reset",
        _ => "connect_failure",
    }
}

/// Whether an answer ends with its header (RFC 9112, section 6.3).
fn has_no_body(method: &Method, response: &ResponseHeader) -> bool {
    method == Method::HEAD
        || matches!(
            response.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        )
        || body::content_length(&response.headers) == Some(0)
}

/// How many bytes this request has on the wire; `None` if its body is chunked.
fn request_length(session: &Session) -> Option<u64> {
    let headers = &session.req_header().headers;
    if headers.contains_key(http::header::TRANSFER_ENCODING) {
        return None;
    }
    let header = session
        .as_downstream()
        .as_http1()?
        .get_headers_raw_bytes()
        .len();
    let body = body::content_length(headers).unwrap_or(0);
    Some((header + body) as u64)
}
