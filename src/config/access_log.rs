//! One event per request: what of it is written, and where.

use std::path::PathBuf;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};

use crate::access_log::{AccessLogFormat, AccessLogParams, Destination, LoggedHeader, QueryRule};

use super::scalar::{self, Reader};
use super::section::Section;

const FORMATS: &[(&str, AccessLogFormat)] = &[
    ("text", AccessLogFormat::Text),
    ("json", AccessLogFormat::Json),
    ("off", AccessLogFormat::Off),
];

/// Whether a query is logged.
const QUERY: &[(&str, bool)] = &[("keep", true), ("drop", false)];

/// What these say is who the client is, and nobody else's business.
const SECRETS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

const PARAMETERS: &str = "a list of names such as [token, key]";
const HEADERS: &str = "a list of headers such as [User-Agent, Referer]";

pub(super) fn read(mut section: Section<'_>) -> AccessLogParams {
    let format = section.value(
        "format",
        "text",
        scalar::choice(FORMATS),
        "How requests are logged: for people, for programs, or not at all. Every field: \
         [docs/access_log.md](access_log.md).",
    );
    let destination = section.value(
        "path",
        "stdout",
        destination(),
        "Where to: standard output, or the end of a file, which is made if it is not there, and opened anew at SIGUSR1.",
    );
    let sample = section.value(
        "sample",
        "1",
        scalar::share(),
        "Which share is logged of the requests that nothing is wrong with: answered below 400, by a backend, at the \
         first attempt. All others are always logged. Chosen by the request's id.",
    );
    let query = query(&mut section);
    let request_headers = request_headers(&mut section);
    section.finish();
    AccessLogParams {
        format,
        destination,
        sample,
        query,
        request_headers,
    }
}

fn destination() -> Reader<'static, Destination> {
    let file = scalar::file();
    let form = format!("stdout, or {}", file.form());
    Reader::new(form, move |node| match node.text() {
        Some("stdout") => Some(Destination::Stdout),
        _ => file
            .read(node)
            .ok()
            .map(|path: PathBuf| Destination::File(path)),
    })
}

fn query(section: &mut Section<'_>) -> QueryRule {
    let is_kept = section.value(
        "query",
        "keep",
        scalar::choice(QUERY),
        "What is logged of the query: all, or nothing. The same holds for that of a `Referer`.",
    );
    let names = list(
        section,
        "redact_query",
        (PARAMETERS, scalar::text()),
        "Parameters of the query whose values are not told, whatever the case of their names.",
    );
    if !is_kept && section.has("redact_query") {
        section.fail("redact_query", "has no effect with query: drop");
    }
    match (is_kept, names.is_empty()) {
        (false, _) => QueryRule::Drop,
        (true, true) => QueryRule::Keep,
        (true, false) => QueryRule::Redact(names),
    }
}

fn request_headers(section: &mut Section<'_>) -> Vec<LoggedHeader> {
    let names = list(
        section,
        "request_headers",
        (HEADERS, scalar::header_name()),
        "Fields of the request that are logged, too.",
    );
    let redacted = list(
        section,
        "redact_headers",
        (HEADERS, scalar::header_name()),
        "Those of them of which only is told that they are there. `Authorization`, `Cookie` and \
         `Proxy-Authorization` always are.",
    );
    for name in redacted.iter().filter(|name| !names.contains(name)) {
        section.fail(
            "redact_headers",
            format!("{name} is not in request_headers"),
        );
    }
    let logged = names.into_iter().map(|name| LoggedHeader {
        is_redacted: redacted.contains(&name) || SECRETS.contains(&name),
        name,
    });
    logged.collect()
}

/// A list of different things. Missing: none.
fn list<T: PartialEq>(
    section: &mut Section<'_>,
    key: &'static str,
    (form, reader): (&str, Reader<'static, T>),
    about: &str,
) -> Vec<T> {
    let mut read = Vec::new();
    let values = section.described(key, "`[]`", form, about);
    for value in values
        .and_then(|value| value.list(form))
        .unwrap_or_default()
    {
        match value.read(&reader) {
            Some(item) if read.contains(&item) => value.fail("twice in the list"),
            item => read.extend(item),
        }
    }
    read
}
