//! Routes: what they match, and that no two claim the same requests.

use http::Method;

use crate::id::UpstreamName;
use crate::routing::{HostMatch, PathMatch, Route};

use super::notes::Place;
use super::scalar::{self, Reader, is_domain, is_host};
use super::section::{Section, Value};

const LIST: &str = "a list such as [{ match: { path: /home }, upstream: demo }]";
const MATCH: &str = "a mapping with path or path_prefix";
const METHODS: &str = "a list such as [GET, HEAD]";

/// All routes, in the order of the file. `upstreams`: the names that a route may use.
pub(super) fn read(section: &mut Section<'_>, upstreams: &[&str]) -> Vec<Route> {
    let Some(value) = section.required_value("routes", LIST) else {
        return Vec::new();
    };
    let mut placed: Vec<(Route, Place)> = Vec::new();
    for value in value.filled_list(LIST).into_iter().flatten() {
        let section = value.section("a mapping with match and upstream");
        let Some(route) = section.and_then(|section| route(section, upstreams)) else {
            continue;
        };
        if let Some(message) = placed
            .iter()
            .find_map(|(other, place)| clash(&route, other, place))
        {
            value.fail(message);
        }
        placed.push((route, value.place.clone()));
    }
    placed.into_iter().map(|(route, _)| route).collect()
}

fn route(mut section: Section<'_>, upstreams: &[&str]) -> Option<Route> {
    let matched = section
        .required_value("match", MATCH)
        .and_then(|value| value.section(MATCH))
        .map(read_match);
    let rewrite = section.optional(
        "rewrite",
        "none",
        scalar::uri_path(),
        "Replaces the path, or the matched prefix; the query stays.",
    );
    let upstream = section.required(
        "upstream",
        scalar::known("the name of an upstream", upstreams),
        "Who answers: a name below `upstreams`.",
    );
    let max_concurrent_requests = section.optional(
        "max_concurrent_requests",
        "none",
        scalar::integer(1..=1_000_000),
        "How many of its requests may be under way, waiting ones included; one more is 503.",
    );
    section.finish();
    let (host, path, methods) = matched?;
    Some(Route {
        host,
        path: path?,
        methods,
        rewrite,
        max_concurrent_requests,
        upstream: UpstreamName::from(upstream?),
    })
}

fn read_match(mut section: Section<'_>) -> (HostMatch, Option<PathMatch>, Vec<Method>) {
    let host = section.optional("host", "any", host(), "A host, or all below one.");
    let exact = section.optional("path", "none", scalar::uri_path(), "This path exactly.");
    let prefix = section.optional(
        "path_prefix",
        "none",
        scalar::uri_path(),
        "Or this path and what is below it, on segment borders.",
    );
    match (section.has("path"), section.has("path_prefix")) {
        (true, true) => {
            let message = "stands beside path, expected only one of them";
            section.fail("path_prefix", message);
        }
        (false, false) => section.fail("path", "missing, expected path or path_prefix"),
        _ => {}
    }
    let methods = section
        .described("methods", "any", METHODS, "With these methods.")
        .map_or(Vec::new(), |value| methods(&value));
    section.finish();
    let path = match (exact, prefix) {
        (Some(exact), _) => Some(PathMatch::Exact(exact.path().to_owned())),
        (_, prefix) => prefix.map(|prefix| PathMatch::Prefix(prefix.path().to_owned())),
    };
    (host.unwrap_or(HostMatch::Any), path, methods)
}

fn methods(value: &Value<'_>) -> Vec<Method> {
    let mut methods = Vec::new();
    for value in value.filled_list(METHODS).into_iter().flatten() {
        let Some(method) = value.read(&method()) else {
            continue;
        };
        if methods.contains(&method) {
            value.fail(format!("{method} stands twice in the list"));
        } else {
            methods.push(method);
        }
    }
    methods
}

/// A method; they are case-sensitive, and those that exist are in upper case (RFC 9110, 9.1).
fn method() -> Reader<'static, Method> {
    const FORM: &str = "a method such as GET";
    Reader::telling(FORM, |node| {
        let text = node.text().ok_or(FORM)?;
        let upper = text.to_ascii_uppercase();
        let method = Method::from_bytes(upper.as_bytes()).map_err(|_| FORM)?;
        if upper != text {
            return Err(format!("a method in upper case, did you mean `{upper}`?"));
        }
        Ok(method)
    })
}

fn host() -> Reader<'static, HostMatch> {
    const FORM: &str = "a host such as example.com, *.example.com or [::1], without a port";
    Reader::new(FORM, |node| {
        let text = node.text()?.to_ascii_lowercase();
        match text.strip_prefix("*.") {
            Some(domain) => is_domain(domain).then(|| HostMatch::Suffix(format!(".{domain}"))),
            None => is_host(&text).then_some(HostMatch::Exact(text)),
        }
    })
}

/// What is wrong with a route if an earlier one takes some of the same requests.
fn clash(route: &Route, earlier: &Route, Place { path, line, .. }: &Place) -> Option<String> {
    if !route.is_same_place(earlier) {
        return None;
    }
    let methods = match (&route.methods[..], &earlier.methods[..]) {
        ([], []) => "any method".into(),
        ([], methods) | (methods, []) => words(methods.iter()),
        (left, right) => words(left.iter().filter(|method| right.contains(method))),
    };
    let message = format!("same host and path as {path} on line {line}, and both take {methods}");
    (!methods.is_empty()).then_some(message)
}

fn words<'a>(methods: impl Iterator<Item = &'a Method>) -> String {
    methods.map(Method::as_str).collect::<Vec<_>>().join(", ")
}
