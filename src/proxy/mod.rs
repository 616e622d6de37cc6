//! The Pingora callbacks, in the order in which a request meets them. Each is a few lines: how a request
//! gets its slot is in `admission` and `seating`, how an attempt ends in `attempt`, what an answer brings about in `answer`,
//! what is decided in `policy` and `upstream`, what is said in `reply` and `headers`.

mod access_event;
mod admission;
mod answer;
mod attempt;
mod body;
mod concurrency;
mod context;
mod explaining;
mod fault;
mod guest;
mod headers;
mod outcome;
mod reply;
mod request_id;
mod retrying;
mod seating;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::access_log::AccessLog;
use crate::control::{Current, PhaseWatch};
use crate::door::{ClientStream, Departures};
use crate::explain::Explanations;
use crate::health::FileState;
use crate::metrics::{ProxyCounters, Words};
use crate::policy::retry::{Denial, Reason};
use crate::upstream::{BackendSocket, Upstream};

use body::Budget;
use concurrency::Concurrency;
use explaining::Explaining;
use headers::Asked;
use outcome::Outcome;

pub use context::Context;
pub use fault::Fault;

/// Answers held for slow clients, all together. Beyond, a slow client holds a slot.
const HELD_BYTES_MAX: usize = 256 << 20;

/// The load balancer as Pingora sees it.
pub struct Proxy {
    current: Current,
    departures: Arc<Departures>,
    access_log: AccessLog,
    phase: PhaseWatch,
    held: Budget,
    concurrency: Concurrency,
    counters: Arc<ProxyCounters>,
    /// `None`: nobody may ask why.
    explaining: Option<Explaining>,
}

/// What is counted for the whole process; nothing is yet.
pub fn counters() -> Arc<ProxyCounters> {
    Arc::new(ProxyCounters {
        refusals: Words::new(Fault::CODES),
        retries: Words::new(Reason::words()),
        retries_denied: Words::new(Denial::WORDS),
        report_readings: Words::new(FileState::NAMES),
        ..ProxyCounters::default()
    })
}

impl Proxy {
    /// A proxy for whatever snapshot is in force.
    pub fn new(
        current: Current,
        departures: Arc<Departures>,
        access_log: AccessLog,
        phase: PhaseWatch,
        counters: Arc<ProxyCounters>,
        explanations: Option<Explanations>,
    ) -> Self {
        let config = current.load().config.clone();
        let concurrency = Concurrency::new(&config);
        Self {
            current,
            departures,
            access_log,
            phase,
            held: Budget::new(HELD_BYTES_MAX),
            concurrency,
            counters,
            explaining: Explaining::new(&config.explain, explanations),
        }
    }

    /// How long a backend may be silent while a body is sent on to it, because while it takes none of it
    /// our own deadlines do not run (nothing is read from the client): longer than any of the pauses that
    /// are allowed, so that it ends only what nothing else does.
    fn silence_limit(&self, upstream: &Upstream) -> Duration {
        let timeouts = &upstream.params().timeouts;
        let client = self.current.load().config.clients.read_timeout;
        client + timeouts.response_header + timeouts.read
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
    async fn early_request_filter(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<()> {
        let asked = Asked::of(&session.req_header().headers);
        context.asked = asked;
        let client = ClientStream::of(session).map(|stream| {
            stream.clear_deadline();
            stream.set_request_length(headers::request_length(session, asked));
            stream.address().clone()
        });
        let params = self.current.load().config.request_id;
        context.id = request_id::of(params, asked, &session.req_header().headers);
        headers::take_in(session.req_header_mut(), asked, client, context.id.as_ref())?;
        if let Some(explaining) = &self.explaining {
            explaining.begin(session, context, &self.current.load().report);
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
        explaining::refused(context, &fault);
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
        context.fault = None;
        if context.work.is_none()
            && let Err(fault) = self.seat_again(session, context).await
        {
            context.fault = Some(fault);
            return Err(Error::new(ErrorType::InternalError));
        }
        let lease = context.work.as_ref().and_then(|work| work.lease());
        let lease = lease.ok_or_else(|| Error::new(ErrorType::InternalError))?;
        let mut peer = Box::new(lease.backend().peer());
        if context.body.is_streamed() {
            peer.options.read_timeout = Some(self.silence_limit(lease.upstream()));
        }
        if !context.asked.hop_by_hop {
            peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
        }
        Ok(peer)
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
            lease.is_some_and(|lease| lease.upstream().connect_failed(lease, &error));
        let fault = if is_backends_fault && *error.etype() == ErrorType::ConnectTimedout {
            Fault::ConnectTimeout
        } else if is_backends_fault {
            Fault::BadGateway
        } else {
            // Once per request: it is tried again and again.
            if context.record.retried.is_none() {
                tracing::error!(%error, "no connection, and not for a backend's fault");
            }
            context.is_short = true;
            Fault::Internal
        };
        let retry = attempt::end(session, context, fault);
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
        let socket = digest.and_then(BackendSocket::of);
        let now = Instant::now();
        context.connected = now;
        let work = context.work.as_mut();
        if work.is_some_and(|work| !work.connected(socket, !is_reused, now)) {
            // Closed, or about to be, in the moment in which it was taken out of the pool. Nothing was sent.
            let problem = "a connection that is not kept any longer";
            return Err(Error::explain(ErrorType::ConnectionClosed, problem).into_in());
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        if let Some(target) = &context.target {
            request.set_uri(target.clone());
        }
        if context.asked.leave {
            // Answered by us: the body is sent when there is a slot.
            request.remove_header(&header::EXPECT);
        }
        if let Some(upstream) = &context.upstream
            && !upstream.params().keepalive
        {
            headers::ask_to_close(request)?;
        }
        if let Some(work) = &mut context.work {
            work.sending();
        }
        context.interim = 0;
        context.record.attempts += 1;
        // Now; another look at the clock would be one per request.
        context.record.sent = Some(context.connected);
        context.record.answered = None;
        context.record.served = None;
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
        if context.body.is_streamed() {
            attempt::note_upload(context);
        }
        if is_last {
            attempt::await_answer(session, context);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        answer::check(session, response)?;
        if headers::is_interim(response) {
            return attempt::interim(session, context);
        }
        answer::begun(context, response.status);
        if retrying::turns_down(session, context, response) {
            let kind = ErrorType::HTTPStatus(response.status.as_u16());
            return Err(Error::explain(kind, "turned down").into_up());
        }
        answer::pass_on(session, context, response, &self.held);
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
            attempt::end_work(session, context);
        } else {
            attempt::await_piece(session, context, Instant::now());
        }
        context.held.collect(body, is_last);
        Ok(None)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        if headers::is_interim(response) {
            return Ok(());
        }
        headers::tell_id(response, context.id.as_ref())?;
        explaining::note(context);
        explaining::tell(response, context)?;
        if context.tells_timing {
            headers::tell_timing(response, context.record.queued, context.record.answered)?;
        }
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
        let fault = attempt::fault_of(session, context, &error);
        let retry = attempt::end(session, context, fault);
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
            None => attempt::fault_of(session, context, error),
        };
        explaining::refused(context, &fault);
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
        if let Some(work) = context.work.take()
            && context.fault.is_none()
        {
            // An upgraded connection that the client has closed.
            work.left_by_client();
        }
        explaining::note(context);
        let explanation = context.explanation.take();
        let outcome = Outcome::of(session, context);
        outcome.count(session, context, &self.counters);
        if let (Some(explaining), Some(explanation)) = (&self.explaining, explanation) {
            explaining.keep(explanation, &outcome);
        }
        access_event::log(&self.access_log, session, context, &outcome);
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
