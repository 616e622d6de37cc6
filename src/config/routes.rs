//! Routes: what they match, and that no two claim the same requests.

use std::net::Ipv6Addr;

use http::Method;

use crate::id::UpstreamName;
use crate::routing::{HostMatch, PathMatch, Route};

use super::scalar;
use super::section::{Place, Section, Value};
use super::tree::Node;

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
    let rewrite = section.optional("rewrite", scalar::uri_path);
    let upstream = section.required(
        "upstream",
        scalar::known("the name of an upstream", upstreams),
    );
    section.finish();
    let (host, path, methods) = matched?;
    Some(Route {
        host,
        path: path?,
        methods,
        rewrite,
        upstream: UpstreamName::from(upstream?),
    })
}

fn read_match(mut section: Section<'_>) -> (HostMatch, Option<PathMatch>, Vec<Method>) {
    let host = section.optional("host", host).unwrap_or(HostMatch::Any);
    let exact = section.find("path");
    let prefix = section.find("path_prefix");
    let path = match (&exact, &prefix) {
        (Some(_), Some(prefix)) => {
            prefix.fail("stands beside path, expected only one of them");
            None
        }
        (Some(exact), None) => exact.read(scalar::uri_path).map(PathMatch::Exact),
        (None, Some(prefix)) => prefix.read(scalar::uri_path).map(PathMatch::Prefix),
        (None, None) => {
            let message = "missing, expected path or path_prefix";
            section.problems().add(&section.place_of("path"), message);
            None
        }
    };
    let methods = section
        .find("methods")
        .map_or(Vec::new(), |value| methods(&value));
    section.finish();
    (host, path, methods)
}

fn methods(value: &Value<'_>) -> Vec<Method> {
    let mut methods = Vec::new();
    for value in value.filled_list(METHODS).into_iter().flatten() {
        let Some(method) = value.read(method) else {
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
fn method(node: &Node) -> Result<Method, String> {
    let expected = "a method such as GET";
    let text = node.text().ok_or(expected)?;
    let upper = text.to_ascii_uppercase();
    let method = Method::from_bytes(upper.as_bytes()).map_err(|_| expected)?;
    if upper != text {
        return Err(format!("a method in upper case, did you mean `{upper}`?"));
    }
    Ok(method)
}

fn host(node: &Node) -> Result<HostMatch, String> {
    let expected = "a host such as example.com, *.example.com or [::1], without a port";
    let text = node.text().ok_or(expected)?.to_ascii_lowercase();
    match text.strip_prefix("*.") {
        Some(domain) if is_domain(domain) => Ok(HostMatch::Suffix(format!(".{domain}"))),
        None if is_domain(&text) || is_ipv6_literal(&text) => Ok(HostMatch::Exact(text)),
        _ => Err(expected.into()),
    }
}

fn is_domain(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.split('.')
        .all(|label| !label.is_empty() && label.bytes().all(is_allowed))
}

fn is_ipv6_literal(text: &str) -> bool {
    let address = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
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
