//! Whose word is taken for what a request is called.

use super::scalar;
use super::section::Section;

/// Where a request's id comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestIdParams {
    /// From `X-Request-Id`, if the client sends a usable one; else it is made. The default.
    Accept,
    /// It is made, whatever the client sends.
    Replace,
    /// There is none; the field passes as it comes.
    Off,
}

const SOURCES: &[(&str, RequestIdParams)] = &[
    ("accept", RequestIdParams::Accept),
    ("replace", RequestIdParams::Replace),
    ("off", RequestIdParams::Off),
];

pub(super) fn read(section: &mut Section<'_>) -> RequestIdParams {
    section.value(
        "request_id",
        "accept",
        scalar::choice(SOURCES),
        "Where a request's id comes from, which backends, clients and the access log see as `X-Request-Id`. `accept`: \
         from the client, if it sends one that is usable, else it is made. `replace`: it is made, for who does not \
         want clients to name requests. `off`: there is none, and the field passes as it comes.",
    )
}
