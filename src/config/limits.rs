//! How much the proxy takes on at once.

use super::scalar::integer;
use super::section::Section;

/// Bounds of the whole proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitParams {
    /// Requests under way, waiting ones included, in `1..=1_000_000`. Default 10,000.
    pub max_concurrent_requests: usize,
}

pub(super) fn read(mut section: Section<'_>) -> LimitParams {
    let params = LimitParams {
        max_concurrent_requests: section.value(
            "max_concurrent_requests",
            "10000",
            integer(1..=1_000_000),
            "How many requests may be under way, waiting ones included; one more is 503.",
        ),
    };
    section.finish();
    params
}
