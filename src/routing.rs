//! Method, host and path to a route.
//!
//! Owns what a match means; where routes come from is `config`'s, what is done with one is
//! `proxy`'s. Only routes whose host *and* path match compete: the most specific host wins
//! (exact, then the longest suffix, then any), then the longest path, then exact before prefix.
//! Routes of the same host and path form a group; in it the first written that takes the method
//! wins. The method never sends a request to a less specific route: what may not be posted to
//! `/a/b` may not be posted there by way of `/a` either.

use std::cell::LazyCell;
use std::cmp::Reverse;

use http::Method;
use http::uri::{InvalidUri, PathAndQuery, Uri};

use crate::id::UpstreamName;

/// Which requests go to an upstream, and under what path.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The hosts that it takes.
    pub host: HostMatch,
    /// The paths that it takes.
    pub path: PathMatch,
    /// The methods that it takes; empty: any. `GET` does not imply `HEAD`.
    pub methods: Vec<Method>,
    /// What replaces the matched path or prefix. Starts with `/`, has no query.
    pub rewrite: Option<PathAndQuery>,
    /// How many of its requests may be under way; `None`: as many as come.
    pub max_concurrent_requests: Option<usize>,
    /// Where its requests go.
    pub upstream: UpstreamName,
}

/// The hosts that a route takes. Letter case, a port and one trailing dot of the request's host
/// play no part; IPv6 hosts keep their brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostMatch {
    /// This host, in lower case.
    Exact(String),
    /// Every host below a domain, at any depth, but not the domain itself. In lower case, with
    /// its leading dot: `.example.com`.
    Suffix(String),
    /// Every host, and requests without one.
    Any,
}

/// The paths that a route takes. Letter case matters; the query is no part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// This path and no other; `/a/` is not `/a`.
    Exact(String),
    /// This path and everything below it, on segment borders: `/api` takes `/api`, `/api/` and
    /// `/api/x`, not `/apix`. Slashes at its end mean nothing: `/api/` takes the same as `/api`,
    /// and `/` takes every path that starts with a slash (so not the `*` of `OPTIONS`).
    Prefix(String),
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Routed<'a> {
    /// To this route, which has this index.
    To(usize, &'a Route),
    /// No route takes its host and path.
    NotFound,
    /// The routes that decide take other methods: these, as the value of an `Allow` header
    /// (RFC 9110, section 10.2.1), such as `GET, HEAD`. Not empty, each once, as first written.
    MethodNotAllowed(&'a str),
}

/// All routes, sorted once so that a request takes the first group that matches.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    routes: Vec<Route>,
    groups: Vec<Group>,
}

/// The routes of one host and path. Never empty.
#[derive(Clone, Debug, PartialEq)]
struct Group {
    /// Indexes into the routes, as written.
    members: Vec<usize>,
    allow: String,
}

impl Router {
    /// Sorts the routes; their order decides only between those of equal host and path.
    pub fn new(routes: Vec<Route>) -> Self {
        let mut order: Vec<usize> = (0..routes.len()).collect();
        order.sort_by(|&left, &right| precedence(&routes[left]).cmp(&precedence(&routes[right])));
        let groups = order
            .chunk_by(|&left, &right| routes[left].is_same_place(&routes[right]))
            .map(|members| Group {
                members: members.to_vec(),
                allow: allow(&routes, members),
            })
            .collect();
        Self { routes, groups }
    }

    /// Where a request goes. Allocates nothing. `host` is the authority as the client sent it,
    /// with or without a port; `path` has no query.
    pub fn route<'a>(&'a self, method: &Method, host: Option<&str>, path: &str) -> Routed<'a> {
        // Most configurations ask for no host.
        let host = LazyCell::new(|| host.map(without_port));
        let Some(group) = self.groups.iter().find(|group| {
            let route = &self.routes[group.members[0]];
            (route.host == HostMatch::Any || route.host.matches(*host)) && route.path.matches(path)
        }) else {
            return Routed::NotFound;
        };
        group
            .members
            .iter()
            .map(|&index| (index, &self.routes[index]))
            .find(|(_, route)| route.methods.is_empty() || route.methods.contains(method))
            .map_or(Routed::MethodNotAllowed(&group.allow), |(index, route)| {
                Routed::To(index, route)
            })
    }

    /// The routes, as written.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

impl Route {
    /// What to ask the upstream for: of an exact match the rewrite, of a prefix the path with the
    /// prefix replaced. Where the two parts meet stands one slash, however many the client sent:
    /// `//evil.example` must not come out as a path of its own. The query stays. `None`: what the
    /// client asked for.
    ///
    /// # Errors
    /// When the two parts make no target, which parts that were parsed before always do.
    pub fn rewritten(&self, uri: &Uri) -> Result<Option<Uri>, InvalidUri> {
        let Some(rewrite) = &self.rewrite else {
            return Ok(None);
        };
        let rest = match &self.path {
            PathMatch::Exact(_) => "",
            PathMatch::Prefix(_) => match uri.path().strip_prefix(self.path.pattern()) {
                None => return Ok(None),
                Some(rest) => rest,
            },
        };
        let target = match (rest, uri.query()) {
            ("", None) => rewrite.clone(),
            (_, query) => join(rewrite.path(), rest, query).try_into()?,
        };
        Ok(Some(target.into()))
    }

    /// Whether both take exactly the same hosts and paths.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        precedence(self) == precedence(other)
    }
}

fn join(rewrite: &str, rest: &str, query: Option<&str>) -> String {
    let mut target = match rest {
        "" => rewrite.to_owned(),
        _ => {
            let (front, back) = (rewrite.trim_end_matches('/'), rest.trim_start_matches('/'));
            format!("{front}/{back}")
        }
    };
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    target
}

impl HostMatch {
    fn matches(&self, host: Option<&str>) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (_, None) => false,
            (Self::Exact(pattern), Some(host)) => host.eq_ignore_ascii_case(pattern),
            (Self::Suffix(pattern), Some(host)) => {
                let (host, pattern) = (host.as_bytes(), pattern.as_bytes());
                host.len() > pattern.len()
                    && host[host.len() - pattern.len()..].eq_ignore_ascii_case(pattern)
            }
        }
    }

    /// 0: any.
    fn suffix_bytes(&self) -> usize {
        match self {
            Self::Suffix(pattern) => pattern.len(),
            Self::Exact(_) | Self::Any => 0,
        }
    }
}

impl PathMatch {
    /// The text that a path must equal or start with.
    fn pattern(&self) -> &str {
        match self {
            Self::Exact(pattern) => pattern,
            Self::Prefix(pattern) => pattern.trim_end_matches('/'),
        }
    }

    fn is_prefix(&self) -> bool {
        matches!(self, Self::Prefix(_))
    }

    fn matches(&self, path: &str) -> bool {
        match path.strip_prefix(self.pattern()) {
            None => false,
            Some(rest) if self.is_prefix() => {
                path.starts_with('/') && (rest.is_empty() || rest.starts_with('/'))
            }
            Some(rest) => rest.is_empty(),
        }
    }
}

/// The smaller decides. Equal exactly for routes of the same host and path, so that sorting
/// brings them together; texts are compared last and only for that, for two different hosts or
/// paths of the same kind and length never both match.
fn precedence(route: &Route) -> impl Ord + '_ {
    let rank = match route.host {
        HostMatch::Exact(_) => 0,
        HostMatch::Suffix(_) => 1,
        HostMatch::Any => 2,
    };
    let pattern = route.path.pattern();
    (
        (rank, Reverse(route.host.suffix_bytes()), &route.host),
        (Reverse(pattern.len()), route.path.is_prefix(), pattern),
    )
}

fn allow(routes: &[Route], members: &[usize]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for method in members.iter().flat_map(|&index| &routes[index].methods) {
        if !names.contains(&method.as_str()) {
            names.push(method.as_str());
        }
    }
    names.join(", ")
}

/// An authority without its port, and without the dot that marks a name as absolute.
fn without_port(authority: &str) -> &str {
    // The colons of an IPv6 literal stand in brackets (RFC 3986, section 3.2.2).
    let end = match authority.find(']') {
        Some(bracket) if authority.starts_with('[') => bracket + 1,
        _ => authority.find(':').unwrap_or(authority.len()),
    };
    let host = &authority[..end];
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(path: &str) -> PathMatch {
        PathMatch::Exact(path.into())
    }

    fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.into())
    }

    fn route(host: HostMatch, path: PathMatch, methods: &[Method], upstream: &str) -> Route {
        let (methods, upstream) = (methods.to_vec(), upstream.into());
        Route {
            host,
            path,
            methods,
            rewrite: None,
            max_concurrent_requests: None,
            upstream,
        }
    }

    fn any(path: PathMatch, upstream: &str) -> Route {
        route(HostMatch::Any, path, &[], upstream)
    }

    fn host(name: &str, upstream: &str) -> Route {
        let host = match name.strip_prefix('*') {
            Some(suffix) => HostMatch::Suffix(suffix.into()),
            None => HostMatch::Exact(name.into()),
        };
        route(host, prefix("/"), &[], upstream)
    }

    /// Where a GET goes, by upstream.
    fn get<'a>(router: &'a Router, host: Option<&str>, path: &str) -> Option<&'a str> {
        match router.route(&Method::GET, host, path) {
            Routed::To(_, route) => Some(route.upstream.as_str()),
            Routed::NotFound => None,
            Routed::MethodNotAllowed(allow) => panic!("not allowed: {allow}"),
        }
    }

    #[test]
    fn a_path_is_exact() {
        let router = Router::new(vec![any(exact("/home"), "a")]);
        assert_eq!(get(&router, None, "/home"), Some("a"));
        for path in ["/", "/home/", "/home/x", "/homes", "/Home", "", "*"] {
            assert_eq!(get(&router, None, path), None, "{path}");
        }
    }

    #[test]
    fn a_prefix_ends_on_a_segment_border() {
        for pattern in ["/api", "/api/"] {
            let router = Router::new(vec![any(prefix(pattern), "a")]);
            for path in ["/api", "/api/", "/api/x", "/api//x"] {
                assert_eq!(get(&router, None, path), Some("a"), "{path}");
            }
            for path in ["/apix", "/ap", "/", "", "/x/api", "/API"] {
                assert_eq!(get(&router, None, path), None, "{path}");
            }
        }
    }

    #[test]
    fn the_root_prefix_takes_every_path() {
        let router = Router::new(vec![any(prefix("/"), "a")]);
        for path in ["/", "/x", "//", "/x/y/"] {
            assert_eq!(get(&router, None, path), Some("a"), "{path}");
        }
        for path in ["", "*", "x"] {
            assert_eq!(get(&router, None, path), None, "{path}");
        }
    }

    #[test]
    fn the_longest_path_wins_and_exact_beats_prefix() {
        let router = Router::new(vec![
            any(prefix("/"), "root"),
            any(prefix("/a"), "prefix"),
            any(exact("/a"), "exact"),
            any(prefix("/a/b"), "longer"),
        ]);
        assert_eq!(get(&router, None, "/x"), Some("root"));
        assert_eq!(get(&router, None, "/a"), Some("exact"));
        assert_eq!(get(&router, None, "/a/"), Some("prefix"));
        assert_eq!(get(&router, None, "/a/b/c"), Some("longer"));
    }

    #[test]
    fn the_most_specific_host_wins() {
        let router = Router::new(vec![
            host("*.example.com", "wide"),
            host("*.a.example.com", "narrow"),
            host("b.a.example.com", "exact"),
            host("[::1]", "loopback"),
            any(exact("/only"), "any"),
        ]);
        assert_eq!(get(&router, Some("x.example.com"), "/only"), Some("wide"));
        assert_eq!(get(&router, Some("x.y.example.com"), "/"), Some("wide"));
        assert_eq!(get(&router, Some("x.a.example.com"), "/"), Some("narrow"));
        assert_eq!(get(&router, Some("a.example.com"), "/"), Some("wide"));
        assert_eq!(
            get(&router, Some("B.A.Example.COM.:8080"), "/"),
            Some("exact")
        );
        assert_eq!(get(&router, Some("[::1]"), "/"), Some("loopback"));
        assert_eq!(get(&router, Some("[::1]:80"), "/"), Some("loopback"));
        assert_eq!(get(&router, Some("example.com"), "/only"), Some("any"));
        assert_eq!(get(&router, Some("notexample.com"), "/"), None);
        assert_eq!(get(&router, Some(".example.com"), "/"), None);
        assert_eq!(get(&router, Some("[::2]"), "/"), None);
        assert_eq!(get(&router, None, "/only"), Some("any"));
        assert_eq!(get(&router, Some(""), "/"), None);
    }

    #[test]
    fn a_specific_host_without_the_path_leaves_it_to_others() {
        let specific = route(HostMatch::Exact("a".into()), exact("/x"), &[], "specific");
        let router = Router::new(vec![any(prefix("/"), "any"), specific]);
        assert_eq!(get(&router, Some("a"), "/x"), Some("specific"));
        assert_eq!(get(&router, Some("a"), "/y"), Some("any"));
    }

    #[test]
    fn routes_of_one_place_differ_by_method() {
        let router = Router::new(vec![
            route(
                HostMatch::Any,
                prefix("/a"),
                &[Method::GET, Method::HEAD],
                "read",
            ),
            any(prefix("/"), "root"),
            route(
                HostMatch::Any,
                prefix("/a/"),
                &[Method::POST, Method::GET],
                "write",
            ),
        ]);
        let routed = |method| router.route(&method, None, "/a/x");
        assert_eq!(routed(Method::GET), Routed::To(0, &router.routes()[0]));
        assert_eq!(routed(Method::POST), Routed::To(2, &router.routes()[2]));
        assert_eq!(
            routed(Method::PUT),
            Routed::MethodNotAllowed("GET, HEAD, POST")
        );
    }

    #[test]
    fn a_route_for_any_method_takes_what_its_neighbour_leaves() {
        let router = Router::new(vec![
            route(HostMatch::Any, exact("/a"), &[Method::GET], "get"),
            any(exact("/a"), "rest"),
        ]);
        let rest = router.route(&Method::DELETE, None, "/a");
        assert_eq!(rest, Routed::To(1, &router.routes()[1]));
        assert_eq!(get(&router, None, "/a"), Some("get"));
    }

    #[test]
    fn without_routes_nothing_is_found() {
        assert_eq!(
            Router::new(vec![]).route(&Method::GET, None, "/"),
            Routed::NotFound
        );
    }

    #[test]
    fn a_rewrite_replaces_what_matched() {
        let cases = [
            (exact("/home"), "/", "/home", "/"),
            (exact("/home"), "/a/", "/home", "/a/"),
            (prefix("/api"), "/", "/api", "/"),
            (prefix("/api"), "/", "/api/x", "/x"),
            (prefix("/api"), "/v2", "/api", "/v2"),
            (prefix("/api"), "/v2", "/api/", "/v2/"),
            (prefix("/api/"), "/v2", "/api/x/y", "/v2/x/y"),
            (prefix("/api"), "/v2/", "/api/x", "/v2/x"),
            (
                prefix("/api"),
                "/",
                "/api//evil.example/x",
                "/evil.example/x",
            ),
            (prefix("/"), "/base", "/x", "/base/x"),
            (prefix("/"), "/base", "/", "/base/"),
            (prefix("/"), "/", "/x", "/x"),
        ];
        for (path, rewrite, from, to) in cases {
            let route = Route {
                rewrite: Some(PathAndQuery::from_static(rewrite)),
                ..any(path, "a")
            };
            let rewritten = route.rewritten(&Uri::from_static(from)).unwrap().unwrap();
            assert_eq!(rewritten, to, "{:?} {rewrite} {from}", route.path);
        }
    }

    #[test]
    fn a_rewrite_keeps_the_query() {
        for (path, to) in [
            (exact("/home"), "/a?b=c&d=%20"),
            (prefix("/"), "/a/home?b=c&d=%20"),
        ] {
            let route = Route {
                rewrite: Some(PathAndQuery::from_static("/a")),
                ..any(path, "a")
            };
            let uri = Uri::from_static("/home?b=c&d=%20");
            assert_eq!(route.rewritten(&uri).unwrap().unwrap(), to);
        }
    }

    #[test]
    fn without_a_rewrite_the_target_stays() {
        let route = any(prefix("/api"), "a");
        assert_eq!(route.rewritten(&Uri::from_static("/api//x")).unwrap(), None);
    }

    /// The definition, read slowly: every route, no sorting.
    fn reference<'a>(
        routes: &'a [Route],
        method: &Method,
        host: Option<&str>,
        path: &str,
    ) -> Result<&'a Route, Option<Vec<&'a str>>> {
        let host = host.map(|host| {
            let host = host.to_lowercase();
            host.split_once(':')
                .map_or(host.clone(), |(name, _)| name.to_owned())
        });
        let segments = |path: &str| -> Vec<String> {
            path.trim_end_matches('/')
                .split('/')
                .map(str::to_owned)
                .collect()
        };
        let score = |route: &Route| {
            let host_score = match (&route.host, &host) {
                (HostMatch::Any, _) => 0,
                (HostMatch::Exact(name), Some(host)) if name == host => usize::MAX,
                (HostMatch::Suffix(suffix), Some(host))
                    if host.ends_with(suffix.as_str()) && host != suffix =>
                {
                    suffix.len()
                }
                _ => return None,
            };
            let path_score = match &route.path {
                PathMatch::Exact(text) if text == path => usize::MAX,
                PathMatch::Prefix(text) if segments(path).starts_with(&segments(text)) => {
                    segments(text).len()
                }
                _ => return None,
            };
            Some((host_score, path_score))
        };
        let best = routes.iter().filter_map(score).max().ok_or(None)?;
        let deciding: Vec<&Route> = routes.iter().filter(|&r| score(r) == Some(best)).collect();
        let takes = |route: &&&Route| route.methods.is_empty() || route.methods.contains(method);
        if let Some(route) = deciding.iter().find(takes) {
            return Ok(route);
        }
        let mut allowed: Vec<&str> = deciding
            .iter()
            .flat_map(|route| route.methods.iter().map(Method::as_str))
            .collect();
        allowed.sort_unstable();
        allowed.dedup();
        Err(Some(allowed))
    }

    /// Few, so that they meet.
    fn some_path() -> impl Strategy<Value = String> {
        let paths = vec!["/", "/a", "/a/", "/a/b", "/a/b/", "/ab", "/a/b/c"];
        prop::sample::select(paths).prop_map(str::to_owned)
    }

    fn some_route() -> impl Strategy<Value = Route> {
        let hosts = prop_oneof![
            Just(HostMatch::Any),
            prop::sample::select(vec!["a", "x.a", "y.x.a"])
                .prop_map(|name| HostMatch::Exact(name.into())),
            prop::sample::select(vec![".a", ".x.a"])
                .prop_map(|name| HostMatch::Suffix(name.into())),
        ];
        let paths = prop_oneof![
            some_path().prop_map(PathMatch::Exact),
            some_path().prop_map(PathMatch::Prefix)
        ];
        let methods =
            prop::sample::subsequence(vec![Method::GET, Method::HEAD, Method::POST], 0..3);
        (hosts, paths, methods).prop_map(|(host, path, methods)| route(host, path, &methods, "u"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn sorting_changes_no_answer(
            routes in prop::collection::vec(some_route(), 0..12),
            method in prop::sample::select(vec![Method::GET, Method::POST]),
            host in prop::option::of(prop::sample::select(
                vec!["a", "X.A", "y.x.a:80", "z.x.a", "q.a", "b", ""])),
            path in some_path(),
        ) {
            let mut routes = routes;
            for (index, route) in routes.iter_mut().enumerate() {
                route.upstream = index.to_string().as_str().into();
            }
            let router = Router::new(routes.clone());
            prop_assert_eq!(router.routes(), &routes[..]);
            match router.route(&method, host, &path) {
                Routed::To(index, route) => {
                    prop_assert_eq!(route, &routes[index]);
                    prop_assert_eq!(Ok(route), reference(&routes, &method, host, &path));
                }
                Routed::NotFound => {
                    prop_assert_eq!(Err(None), reference(&routes, &method, host, &path));
                }
                Routed::MethodNotAllowed(allow) => {
                    let mut names: Vec<&str> = allow.split(", ").collect();
                    names.sort_unstable();
                    prop_assert_eq!(Err(Some(names)), reference(&routes, &method, host, &path));
                }
            }
        }

        #[test]
        fn no_input_panics(authority in ".*", path in ".*", rewrite in "/.*", pattern in "/.*") {
            let mut route = any(prefix(&pattern), "a");
            route.rewrite = rewrite.parse().ok();
            if let Ok(uri) = path.parse() {
                let _ = route.rewritten(&uri);
            }
            let router = Router::new(vec![route, host("*.é", "b")]);
            let _ = router.route(&Method::GET, Some(&authority), &path);
        }
    }
}
