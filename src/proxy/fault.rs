//! Why the proxy answers by itself: every outcome that is not a backend's answer, named once for the
//! body, the access log and the code.

use crate::upstream::Refusal;

/// An outcome of the proxy's own making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No route takes this host and path.
    NotFound,
    /// The route takes other methods: the value of `Allow`.
    MethodNotAllowed(String),
    /// The request can't be understood, or broke off.
    BadRequest,
    /// `X-Request-Timeout` is no duration.
    InvalidRequestTimeout,
    /// The client sent no part of its body for `clients.read_timeout`.
    BodyTimeout,
    /// Every backend is sick by the report.
    NoEligibleBackend,
    /// As many requests as `max_concurrent_requests` allows are under way.
    ConcurrencyLimit,
    /// The queue is full.
    QueueFull,
    /// No slot became free in time: within `queue.timeout`, `timeouts.request`, or before the client gives up.
    QueueTimeout,
    /// The process stops.
    Stopping,
    /// The backend refused the connection or broke off.
    BadGateway,
    /// The backend answered something that is not HTTP, or that nobody asked for.
    InvalidResponse,
    /// No connection within `timeouts.connect`.
    ConnectTimeout,
    /// The backend took nothing of the request for `timeouts.write`.
    WriteTimeout,
    /// No answer within `timeouts.response_header`.
    ResponseHeaderTimeout,
    /// The answer's body paused for longer than `timeouts.read`.
    ReadTimeout,
    /// The backend did not answer within `timeouts.request`, or before the client gives up.
    RequestTimeout,
    /// The client left; nobody reads an answer.
    ClientGone,
    /// The proxy itself ran out of something.
    Internal,
}

impl Fault {
    /// Every [code](Self::code) that there is.
    pub const CODES: [&str; 19] = [
        "not_found",
        "method_not_allowed",
        "bad_request",
        "invalid_request_timeout",
        "body_timeout",
        "no_eligible_backend",
        "max_concurrent_requests",
        "queue_full",
        "queue_timeout",
        "stopping",
        "bad_gateway",
        "invalid_response",
        "connect_timeout",
        "write_timeout",
        "response_header_timeout",
        "read_timeout",
        "request_timeout",
        "client_gone",
        "internal",
    ];

    /// The status to answer with; 499 is only ever logged (as nginx does).
    pub fn status(&self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::MethodNotAllowed(_) => 405,
            Self::BadRequest | Self::InvalidRequestTimeout => 400,
            Self::BodyTimeout => 408,
            Self::NoEligibleBackend
            | Self::ConcurrencyLimit
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::Stopping => 503,
            Self::BadGateway | Self::InvalidResponse => 502,
            Self::ConnectTimeout
            | Self::WriteTimeout
            | Self::ResponseHeaderTimeout
            | Self::ReadTimeout
            | Self::RequestTimeout => 504,
            Self::ClientGone => 499,
            Self::Internal => 500,
        }
    }

    /// Its name for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::BadRequest => "bad_request",
            Self::InvalidRequestTimeout => "invalid_request_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::NoEligibleBackend => "no_eligible_backend",
            Self::ConcurrencyLimit => "max_concurrent_requests",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Stopping => "stopping",
            Self::BadGateway => "bad_gateway",
            Self::InvalidResponse => "invalid_response",
            Self::ConnectTimeout => "connect_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::ResponseHeaderTimeout => "response_header_timeout",
            Self::ReadTimeout => "read_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::ClientGone => "client_gone",
            Self::Internal => "internal",
        }
    }

    /// A sentence for people.
    pub fn message(&self) -> &'static str {
        match self {
            Self::NotFound => "no route takes this host and path",
            Self::MethodNotAllowed(_) => "the route takes other methods",
            Self::BadRequest => "the request can't be understood, or broke off",
            Self::InvalidRequestTimeout => {
                "X-Request-Timeout is not a duration such as 2s or 500ms"
            }
            Self::BodyTimeout => "the request's body did not come in time",
            Self::NoEligibleBackend => "no backend is eligible",
            Self::ConcurrencyLimit => "as many requests as are allowed are under way",
            Self::QueueFull => "no backend has a free slot, and the queue is full",
            Self::QueueTimeout => "no backend had a free slot until the wait was over",
            Self::Stopping => "the proxy is stopping",
            Self::BadGateway => "the backend refused the connection or broke off",
            Self::InvalidResponse => "the backend's answer is not valid HTTP",
            Self::ConnectTimeout => "the backend took no connection in time",
            Self::WriteTimeout => "the backend stopped taking the request",
            Self::ResponseHeaderTimeout => "the backend did not answer in time",
            Self::ReadTimeout => "the backend stopped in the middle of its answer",
            Self::RequestTimeout => "the request was not answered in time",
            Self::ClientGone => "the client left",
            Self::Internal => "the proxy ran out of something; its log says of what",
        }
    }

    /// Whether it says something about the backend.
    pub fn is_backends(&self) -> bool {
        matches!(self.status(), 502 | 504)
    }

    /// Whether the backend took longer than a backend may. (A request that timed out may have spent its
    /// time in the queue.)
    pub fn is_overdue(&self) -> bool {
        matches!(
            self,
            Self::WriteTimeout | Self::ResponseHeaderTimeout | Self::ReadTimeout
        )
    }

    /// Whether it says that no backend was to be had, and so has to say why.
    pub fn is_about_all(&self) -> bool {
        matches!(
            self,
            Self::NoEligibleBackend | Self::QueueFull | Self::QueueTimeout
        )
    }

    /// Whether the same request may well succeed later.
    pub fn is_temporary(&self) -> bool {
        self.status() == 503
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoneEligible => Self::NoEligibleBackend,
            Refusal::QueueFull => Self::QueueFull,
            Refusal::Stopping => Self::Stopping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_list_once_and_documented() {
        let faults = [
            Fault::NotFound,
            Fault::MethodNotAllowed(String::new()),
            Fault::BadRequest,
            Fault::InvalidRequestTimeout,
            Fault::BodyTimeout,
            Fault::NoEligibleBackend,
            Fault::ConcurrencyLimit,
            Fault::QueueFull,
            Fault::QueueTimeout,
            Fault::Stopping,
            Fault::BadGateway,
            Fault::InvalidResponse,
            Fault::ConnectTimeout,
            Fault::WriteTimeout,
            Fault::ResponseHeaderTimeout,
            Fault::ReadTimeout,
            Fault::RequestTimeout,
            Fault::ClientGone,
            Fault::Internal,
        ];
        assert_eq!(faults.each_ref().map(Fault::code), Fault::CODES);
        let operating = include_str!("../../docs/operating.md");
        for fault in faults {
            let row = format!("\n| `{}` | {} |", fault.code(), fault.status());
            assert!(operating.contains(&row), "docs/operating.md lacks {row}");
        }
    }
}
