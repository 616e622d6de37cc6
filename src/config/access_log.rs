//! One event per request.

use super::scalar;
use super::section::Section;

/// How requests are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogParams {
    /// Default text.
    pub format: AccessLogFormat,
}

/// What an access event looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// For people.
    Text,
    /// For programs, an object a line.
    Json,
    /// None at all.
    Off,
}

const FORMATS: &[(&str, AccessLogFormat)] = &[
    ("text", AccessLogFormat::Text),
    ("json", AccessLogFormat::Json),
    ("off", AccessLogFormat::Off),
];

pub(super) fn read(mut section: Section<'_>) -> AccessLogParams {
    let format = section.value(
        "format",
        "text",
        scalar::choice(FORMATS),
        "How requests are logged to standard output: for people, for programs, or not at all.",
    );
    section.finish();
    AccessLogParams { format }
}
