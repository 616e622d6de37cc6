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
    let format = section.value("format", AccessLogFormat::Text, scalar::choice(FORMATS));
    section.finish();
    AccessLogParams { format }
}
