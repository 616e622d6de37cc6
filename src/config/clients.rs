//! How long clients may take.

use std::time::Duration;

use super::scalar::duration;
use super::section::Section;

/// Every wait for a client. None is endless: each is between 1 ms and 24 h.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientParams {
    /// From a request's first byte to its header complete. Default 10 s.
    pub header_timeout: Duration,
    /// Between two requests of one connection. Default 60 s.
    pub idle_timeout: Duration,
    /// Between two reads of a request's body. Default 30 s.
    pub read_timeout: Duration,
    /// For one write of the response. Default 30 s.
    pub write_timeout: Duration,
}

pub(super) fn read(mut section: Section<'_>) -> ClientParams {
    let params = ClientParams {
        header_timeout: section.value(
            "header_timeout",
            "10s",
            duration(),
            "From a request's first byte to its header complete.",
        ),
        idle_timeout: section.value(
            "idle_timeout",
            "60s",
            duration(),
            "Between two requests of a connection.",
        ),
        read_timeout: section.value(
            "read_timeout",
            "30s",
            duration(),
            "Between two reads of a request's body.",
        ),
        write_timeout: section.value(
            "write_timeout",
            "30s",
            duration(),
            "For one write of an answer.",
        ),
    };
    section.finish();
    params
}
