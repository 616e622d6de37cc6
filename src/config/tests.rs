//! Whole texts in, parameters or every problem out.

use std::time::Duration;

use http::Method;
use pingora::server::configuration::ServerConf;
use proptest::prelude::*;

use crate::health::{State, WhenMissing, WhenStale};
use crate::routing::{HostMatch, PathMatch, Route};
use crate::upstream::{BackendParams, QueueParams, Timeouts, UpstreamParams};

use super::*;

const SHIPPED: &str = include_str!("../../conf/pingora.yaml");

/// The least that is a configuration.
const LEAST: &str = "\
maitred:
  routes:
    - { match: { path: /home }, upstream: demo }
  upstreams:
    demo:
      backends:
        - { name: server1, address: 127.0.0.1:8081 }
";

fn parse(text: &str) -> Config {
    Config::parse(text, "c").unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What is said of a text; nothing if it is right.
fn said(text: &str) -> String {
    Config::parse(text, "c")
        .err()
        .map_or(String::new(), |error| error.to_string())
}

/// `LEAST` with lines of ours below `maitred:` (from line 2) or at the top (from line 8).
fn ours(lines: &str) -> String {
    LEAST.replacen(
        "maitred:\n",
        &format!("maitred:\n  {}\n", lines.replace('\n', "\n  ")),
        1,
    )
}

fn top(lines: &str) -> String {
    format!("{LEAST}{lines}\n")
}

/// `LEAST` with another route, which stands on line 3.
fn routed(route: &str) -> String {
    LEAST.replacen("{ match: { path: /home }, upstream: demo }", route, 1)
}

/// `LEAST` with another backend, which stands on line 7.
fn backed(backend: &str) -> String {
    LEAST.replacen("{ name: server1, address: 127.0.0.1:8081 }", backend, 1)
}

/// `LEAST` with lines of its upstream, from line 6.
fn upstreamed(line: &str) -> String {
    LEAST.replacen("    demo:\n", &format!("    demo:\n      {line}\n"), 1)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn backend(name: &str, address: &str) -> BackendParams {
    BackendParams {
        name: name.into(),
        address: address.parse().unwrap(),
        max_in_flight: 1,
        weight: 1,
        state: State::Ready,
    }
}

fn demo(backends: Vec<BackendParams>) -> UpstreamParams {
    UpstreamParams {
        name: "demo".into(),
        queue: QueueParams {
            size: 10_000,
            timeout: seconds(30),
        },
        timeouts: Timeouts {
            connect: seconds(1),
            response_header: seconds(60),
            read: seconds(60),
            write: seconds(30),
            idle: seconds(1),
            request: seconds(90),
        },
        busy_limit: seconds(60),
        backends,
    }
}

#[test]
fn the_shipped_file_is_what_it_says() {
    let config = parse(SHIPPED);
    let route = Route {
        host: HostMatch::Any,
        path: PathMatch::Exact("/home".into()),
        methods: vec![Method::GET, Method::HEAD],
        rewrite: Some("/".into()),
        upstream: "demo".into(),
    };
    let backends = vec![
        backend("server1", "127.0.0.1:8081"),
        backend("server2", "127.0.0.1:8082"),
        backend("server3", "127.0.0.1:8083"),
    ];
    assert_eq!(config.routes, [route]);
    assert_eq!(config.upstreams, [demo(backends)]);
    assert_eq!((config.server.version, config.server.threads), (1, 2));
    let defaults = parse(LEAST);
    let rest = Config {
        routes: defaults.routes,
        upstreams: defaults.upstreams,
        ..config
    };
    assert_eq!(
        rest,
        Config {
            server: rest.server.clone(),
            ..parse(LEAST)
        }
    );
}

#[test]
fn absent_keys_have_their_defaults() {
    let config = parse(LEAST);
    let address = |text: &str| text.parse().unwrap();
    assert_eq!(
        config.listeners,
        [ListenerParams {
            bind: address("0.0.0.0:8080")
        }]
    );
    let clients = ClientParams {
        header_timeout: seconds(10),
        idle_timeout: seconds(60),
        read_timeout: seconds(30),
        write_timeout: seconds(30),
    };
    assert_eq!(config.clients, clients);
    assert_eq!(
        config.health,
        HealthParams {
            file: "health_status.json".into(),
            stale_after: Some(seconds(30)),
            when_stale: WhenStale::Keep,
            when_missing: WhenMissing::FailClosed,
            max_flip_percent: 100,
            confirm_after: seconds(30),
        }
    );
    let poller = PollerParams {
        interval: seconds(10),
        fast_interval: seconds(1),
        timeout: seconds(2),
        jitter_percent: 0,
        rise: 2,
        fall: 2,
        detail: false,
        probes: [("demo".into(), ProbeParams::default())].into(),
    };
    assert_eq!(config.poller, poller);
    assert_eq!(
        config.admin,
        AdminParams {
            bind: address("127.0.0.1:9900")
        }
    );
    assert_eq!(
        config.access_log,
        AccessLogParams {
            format: AccessLogFormat::Text
        }
    );
    assert_eq!(
        config.upstreams,
        [demo(vec![backend("server1", "127.0.0.1:8081")])]
    );
    let [route] = &config.routes[..] else {
        panic!("{:?}", config.routes)
    };
    assert_eq!(
        (route.methods.len(), &route.rewrite, &route.host),
        (0, &None, &HostMatch::Any)
    );
    let server = ServerConf {
        grace_period_seconds: Some(10),
        max_retries: 1_000,
        ..ServerConf::default()
    };
    assert_eq!(config.server.server_conf(), server);
}

#[test]
fn every_key_is_obeyed() {
    let text = "
maitred:
  listeners: [{ bind: '[::]:80' }, { bind: '127.0.0.1:0' }, { bind: '127.0.0.1:0' }]
  clients: { header_timeout: 1s, idle_timeout: 2s, read_timeout: 3s, write_timeout: 250ms }
  health: { file: /run/health.json }
  poller: { path: '/ping?deep=1', interval: 1m30s, timeout: 90s }
  admin: { bind: '[::1]:9901' }
  access_log: { format: off }
  routes:
    - { match: { host: '*.Example.com', path_prefix: /api/ }, upstream: b.2 }
    - { match: { host: '[::1]', path: / }, upstream: b.2 }
    - { match: { host: localhost, path: /, methods: [PURGE] }, upstream: b.2 }
  upstreams:
    b.2:
      queue: { size: 0, timeout: 1ms }
      timeouts:
        { connect: 2ms, response_header: 3ms, read: 4ms, write: 5ms, idle: 6ms, request: 24h }
      backends: [{ name: 1, address: '[::1]:81', max_in_flight: 10000 }]
    unused: { busy_limit: 7s, backends: [{ name: B, address: 10.0.0.1:81 }] }
";
    let config = parse(text);
    let binds: Vec<String> = config
        .listeners
        .iter()
        .map(|l| l.bind.to_string())
        .collect();
    assert_eq!(binds, ["[::]:80", "127.0.0.1:0", "127.0.0.1:0"]);
    let clients = ClientParams {
        header_timeout: seconds(1),
        idle_timeout: seconds(2),
        read_timeout: seconds(3),
        write_timeout: Duration::from_millis(250),
    };
    assert_eq!(config.clients, clients);
    assert_eq!(config.health.file, Path::new("/run/health.json"));
    assert!(
        config
            .poller
            .probes
            .values()
            .all(|probe| probe.path == "/ping?deep=1")
    );
    assert_eq!(config.poller.interval, seconds(90));
    assert_eq!(config.poller.timeout, seconds(90));
    assert_eq!(config.admin.bind.to_string(), "[::1]:9901");
    assert_eq!(config.access_log.format, AccessLogFormat::Off);
    let hosts: Vec<_> = config
        .routes
        .iter()
        .map(|route| route.host.clone())
        .collect();
    let exact = |host: &str| HostMatch::Exact(host.into());
    let suffix = HostMatch::Suffix(".example.com".into());
    assert_eq!(hosts, [suffix, exact("[::1]"), exact("localhost")]);
    assert_eq!(config.routes[0].path, PathMatch::Prefix("/api/".into()));
    assert_eq!(config.routes[2].methods[0].as_str(), "PURGE");
    let milliseconds = Duration::from_millis;
    let [first, second] = &config.upstreams[..] else {
        panic!("{:?}", config.upstreams)
    };
    let timeouts = Timeouts {
        connect: milliseconds(2),
        response_header: milliseconds(3),
        read: milliseconds(4),
        write: milliseconds(5),
        idle: milliseconds(6),
        request: seconds(86_400),
    };
    assert_eq!((first.name.as_str(), first.timeouts), ("b.2", timeouts));
    assert_eq!(
        first.queue,
        QueueParams {
            size: 0,
            timeout: milliseconds(1)
        }
    );
    assert_eq!(
        (first.busy_limit, second.busy_limit),
        (milliseconds(3), seconds(7))
    );
    let backend = backend("1", "[::1]:81");
    assert_eq!(
        first.backends,
        [BackendParams {
            max_in_flight: 10_000,
            ..backend
        }]
    );
}

#[test]
fn every_key_of_pingora_is_read_as_pingora_reads_it() {
    let text = "
version: 1
daemon: true
error_log: /e
pid_file: /p
upgrade_sock: /s
user: u
group: g
working_directory: /w
threads: 4
listener_tasks_per_fd: 2
work_stealing: false
runtime_enable_alt_timer: true
ca_file: /c
grace_period_seconds: 0
graceful_shutdown_timeout_seconds: 3
client_bind_to_ipv4: [10.0.0.1]
client_bind_to_ipv6: ['::1']
upstream_keepalive_pool_size: 5
upstream_connect_offload_threadpools: 6
upstream_connect_offload_thread_per_pool: 7
downstream_tls_offload_threadpools: 8
downstream_tls_offload_thread_per_pool: 9
upstream_debug_ssl_keylog: true
max_retries: 1
upgrade_sock_connect_accept_max_retries: 11
max_blocking_threads: 12
blocking_threads_ttl_seconds: 13
fast_timeout_to_tokio_threshold_seconds: null
runtime_metrics_poll_time_histogram: true
runtime_metrics_poll_time_histogram_scale: log
runtime_metrics_poll_time_histogram_resolution_micros: 14
runtime_metrics_poll_time_histogram_buckets: 15
daemon_wait_for_ready: true
daemon_ready_timeout_seconds: 16
daemon_notify_timeout_seconds: 17
";
    let theirs = ServerConf::from_yaml(text).unwrap();
    assert_eq!(
        parse(&format!("{LEAST}{text}")).server.server_conf(),
        theirs
    );
    let keys = |text: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let mut keys: Vec<String> = lines.map(|(key, _)| key.trim().to_owned()).collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(
        keys(text),
        keys(&ServerConf::default().to_yaml()),
        "a key is not in this test"
    );
}

/// Each text and everything that is said of it.
fn assert_said<const N: usize>(cases: [(String, &str); N]) {
    for (text, expected) in cases {
        assert_eq!(said(&text), expected, "\n{text}");
    }
}

#[test]
fn what_is_no_tree_of_plain_values_is_refused() {
    assert_said([
        ("".into(), "c:1:1: empty, expected a configuration"),
        (
            "# nothing\n".into(),
            "c:1:1: empty, expected a configuration",
        ),
        (
            "---\n".into(),
            "c:2:1: empty, expected a mapping with maitred",
        ),
        (
            "maitred".into(),
            "c:1:1: maitred is not a mapping with maitred",
        ),
        (
            "- 1\n".into(),
            "c:1:1: a list is not a mapping with maitred",
        ),
        (
            "a: 1\n\tb: 2\n".into(),
            "c:1:4: not YAML: while scanning a plain scalar, found a tab",
        ),
        (
            "a:\n\t- b\n".into(),
            "c:2:2: not YAML: tabs disallowed within this context (block indentation)",
        ),
        (
            "a: b: c\n".into(),
            "c:1:5: not YAML: mapping values are not allowed in this context",
        ),
        (
            "a: 1\n---\nb: 1\n".into(),
            "c:2:1: a second document, expected one",
        ),
        (
            "a: &x 1\n".into(),
            "c:1:4: an anchor, expected a plain value",
        ),
        (
            "a: [&x {}]\n".into(),
            "c:1:5: an anchor, expected a plain value",
        ),
        (
            "a: !!int 1\n".into(),
            "c:1:4: a tag, expected a plain value",
        ),
        (
            "? [a]\n: 1\n".into(),
            "c:1:3: a list or mapping as a key, expected text",
        ),
    ]);
}

#[test]
fn the_top_level_is_checked() {
    assert_said([
        (
            "threads: 2\n".into(),
            "c:1:1: maitred: missing, expected a mapping with routes and upstreams",
        ),
        (
            "maitred:\n".into(),
            "c:1:1: maitred: empty, expected a mapping with routes and upstreams",
        ),
        (
            "maitred: {}\n".into(),
            "c:1:10: maitred.upstreams: missing, expected a mapping such as { demo: { backends: [..] } }\n\
             c:1:10: maitred.routes: missing, expected a list such as [{ match: { path: /home }, upstream: demo }]",
        ),
        (
            "maitred: 5\n".into(),
            "c:1:10: maitred: 5 is not a mapping with routes and upstreams",
        ),
        (
            top("maitred: {}"),
            "c:8:1: maitred: duplicate key, first on line 1",
        ),
        (
            top("thread: 2"),
            "c:8:1: thread: unknown key, did you mean `threads`?",
        ),
        (
            top("\"a b\\n\": 2"),
            "c:8:1: \"a b\\n\": unknown key, expected one of version, daemon, error_log, pid_file, upgrade_sock, user, group, working_directory, threads, listener_tasks_per_fd, work_stealing, runtime_enable_alt_timer, ca_file, grace_period_seconds, graceful_shutdown_timeout_seconds, client_bind_to_ipv4, client_bind_to_ipv6, upstream_keepalive_pool_size, upstream_connect_offload_threadpools, upstream_connect_offload_thread_per_pool, downstream_tls_offload_threadpools, downstream_tls_offload_thread_per_pool, upstream_debug_ssl_keylog, max_retries, upgrade_sock_connect_accept_max_retries, max_blocking_threads, blocking_threads_ttl_seconds, fast_timeout_to_tokio_threshold_seconds, runtime_metrics_poll_time_histogram, runtime_metrics_poll_time_histogram_scale, runtime_metrics_poll_time_histogram_resolution_micros, runtime_metrics_poll_time_histogram_buckets, daemon_wait_for_ready, daemon_ready_timeout_seconds, daemon_notify_timeout_seconds, maitred",
        ),
    ]);
}

#[test]
fn keys_of_pingora_are_checked() {
    assert_said([
        (top("threads: 0"), "c:8:10: threads: 0 is not in 1..=1024"),
        (
            top("threads: \"2\""),
            "c:8:10: threads: \"2\" is not a whole number",
        ),
        (
            top("threads: 2.5"),
            "c:8:10: threads: 2.5 is not a whole number",
        ),
        (top("threads: -1"), "c:8:10: threads: -1 is not in 1..=1024"),
        (
            top("threads:"),
            "c:8:1: threads: empty, expected a whole number",
        ),
        (
            top("threads: 99999999999999999999999"),
            "c:8:10: threads: 99999999999999999999999 is not in 1..=1024",
        ),
        (
            top("max_retries: 0"),
            "c:8:14: max_retries: 0 is not in 1..=4294967295",
        ),
        (
            top("daemon: yes"),
            "c:8:9: daemon: yes is not true or false",
        ),
        (
            top("daemon: 'true'"),
            "c:8:9: daemon: \"true\" is not true or false",
        ),
        (top("pid_file: []"), "c:8:11: pid_file: a list is not text"),
        (top("user: ''"), "c:8:7: user: \"\" is not text"),
        (
            top("client_bind_to_ipv4: 10.0.0.1"),
            "c:8:22: client_bind_to_ipv4: 10.0.0.1 is not a list of ip addresses",
        ),
        (
            top("client_bind_to_ipv4: [10.0.0.1, '::1']"),
            "c:8:33: client_bind_to_ipv4[1]: \"::1\" is not an ipv4 address",
        ),
        (
            top("runtime_metrics_poll_time_histogram_scale: big"),
            "c:8:44: runtime_metrics_poll_time_histogram_scale: big is not one of linear, log",
        ),
        (
            top("daemon_ready_timeout_seconds: 0"),
            "c:8:31: daemon_ready_timeout_seconds: 0 is not in 1..=4294967295",
        ),
    ]);
}

#[test]
fn sections_of_ours_are_checked() {
    assert_said([
        (
            ours("pollers: {}"),
            "c:2:3: maitred.pollers: unknown key, did you mean `poller`?",
        ),
        (
            ours("xyz: {}"),
            "c:2:3: maitred.xyz: unknown key, expected one of listeners, admin, clients, health, poller, access_log, upstreams, routes",
        ),
        (
            ours("admin: { port: 1 }"),
            "c:2:12: maitred.admin.port: unknown key, expected one of bind",
        ),
        (
            ours("health: { file: a, file: b }"),
            "c:2:22: maitred.health.file: duplicate key, first on line 2",
        ),
        (
            ours("health: { file: '' }"),
            "c:2:19: maitred.health.file: \"\" is not a file's path",
        ),
        (
            ours("health: []"),
            "c:2:11: maitred.health: a list is not a mapping",
        ),
        (
            ours("access_log: { format: xml }"),
            "c:2:25: maitred.access_log.format: xml is not one of text, json, off",
        ),
        (
            ours("AccessLog: {}"),
            "c:2:3: maitred.AccessLog: unknown key, did you mean `access_log`?",
        ),
        (
            ours("HEALTH: {}"),
            "c:2:3: maitred.HEALTH: unknown key, did you mean `health`?",
        ),
    ]);
}

#[test]
fn listeners_do_not_get_in_each_others_way() {
    assert_said([
        (
            ours("listeners: []"),
            "c:2:14: maitred.listeners: empty, expected a list such as [{ bind: 0.0.0.0:8080 }]",
        ),
        (
            ours("listeners: [{}]"),
            "c:2:15: maitred.listeners[0].bind: missing, expected an address such as 0.0.0.0:8080 or [::]:8080",
        ),
        (
            ours("listeners: [{ bind: localhost:80 }]"),
            "c:2:23: maitred.listeners[0].bind: localhost:80 is not an address such as 0.0.0.0:8080 or [::]:8080",
        ),
        (
            ours("listeners: [{ bind: 8080 }]"),
            "c:2:23: maitred.listeners[0].bind: 8080 is not an address such as 0.0.0.0:8080 or [::]:8080",
        ),
        (
            ours("listeners:\n- bind: 127.0.0.1:80\n- bind: 127.0.0.1:80"),
            "c:4:11: maitred.listeners[1].bind: 127.0.0.1:80 is taken by 127.0.0.1:80 of maitred.listeners[0].bind on line 3",
        ),
        (
            ours("listeners: [{ bind: 0.0.0.0:9900 }]"),
            "c:2:3: maitred.admin.bind: 127.0.0.1:9900 is taken by 0.0.0.0:9900 of maitred.listeners[0].bind on line 2",
        ),
        (
            ours("admin: { bind: 0.0.0.0:8080 }"),
            "c:2:18: maitred.admin.bind: 0.0.0.0:8080 is taken by 0.0.0.0:8080 of maitred.listeners on line 2",
        ),
        (
            ours("admin: { bind: x }\nlisteners: [{ bind: 127.0.0.1:9900 }]"),
            "c:2:18: maitred.admin.bind: x is not an address such as 0.0.0.0:8080 or [::]:8080",
        ),
    ]);
}

#[test]
fn durations_need_a_unit_and_an_end() {
    assert_said([
        (
            ours("clients: { idle_timeout: 10 }"),
            "c:2:28: maitred.clients.idle_timeout: 10 is not a duration such as 10s",
        ),
        (
            ours("clients: { idle_timeout: 0 }"),
            "c:2:28: maitred.clients.idle_timeout: 0 is not a duration such as 10s",
        ),
        (
            ours("clients: { read_timeout: 0s }"),
            "c:2:28: maitred.clients.read_timeout: 0s is not in 1ms..=24h",
        ),
        (
            ours("clients: { write_timeout: 999us }"),
            "c:2:29: maitred.clients.write_timeout: 999us is not in 1ms..=24h",
        ),
        (
            ours("clients: { write_timeout: 24h1ms }"),
            "c:2:29: maitred.clients.write_timeout: 24h1ms is not in 1ms..=24h",
        ),
        (
            ours("clients: { header_timeout: ten }"),
            "c:2:30: maitred.clients.header_timeout: ten is not a duration such as 10s",
        ),
        (
            ours("clients: { header_timeout: -1s }"),
            "c:2:30: maitred.clients.header_timeout: -1s is not a duration such as 10s",
        ),
    ]);
}

#[test]
fn the_poller_is_checked() {
    assert_said([
        (
            ours("poller: { interval: 1s, timeout: 1500ms }"),
            "c:2:36: maitred.poller.timeout: 1s 500ms is longer than the interval of 1s",
        ),
        (
            ours("poller: { interval: 1s }"),
            "c:2:11: maitred.poller.timeout: 2s is longer than the interval of 1s",
        ),
        (
            ours("poller: { path: ping }"),
            "c:2:19: maitred.poller.path: ping is not a path such as /ping, in visible ascii without #",
        ),
        (
            ours("poller: { path: /a b }"),
            "c:2:19: maitred.poller.path: /a b is not a path such as /ping, in visible ascii without #",
        ),
        (
            ours("poller: { path: \"/a\\nb\" }"),
            "c:2:19: maitred.poller.path: \"/a\\nb\" is not a path such as /ping, in visible ascii without #",
        ),
    ]);
}

#[test]
fn routes_are_checked() {
    assert_said([
        (
            routed("{ upstream: demo }"),
            "c:3:7: maitred.routes[0].match: missing, expected a mapping with path or path_prefix",
        ),
        (
            routed("{ match: {}, upstream: demo }"),
            "c:3:16: maitred.routes[0].match.path: missing, expected path or path_prefix",
        ),
        (
            routed("{ match: { path: /, path_prefix: / }, upstream: demo }"),
            "c:3:40: maitred.routes[0].match.path_prefix: stands beside path, expected only one of them",
        ),
        (
            routed("{ match: { path: home }, upstream: demo }"),
            "c:3:24: maitred.routes[0].match.path: home is not a path such as /home, in visible ascii without ? and #",
        ),
        (
            routed("{ match: { path_prefix: /a?b }, upstream: demo }"),
            "c:3:31: maitred.routes[0].match.path_prefix: /a?b is not a path such as /home, in visible ascii without ? and #",
        ),
        (
            routed("{ match: { path: /é }, upstream: demo }"),
            "c:3:24: maitred.routes[0].match.path: /é is not a path such as /home, in visible ascii without ? and #",
        ),
        (
            routed("{ match: { path: / }, rewrite: /a#b, upstream: demo }"),
            "c:3:38: maitred.routes[0].rewrite: /a#b is not a path such as /home, in visible ascii without ? and #",
        ),
        (
            routed("{ match: { path: /, methods: [get] }, upstream: demo }"),
            "c:3:37: maitred.routes[0].match.methods[0]: get is not a method in upper case, did you mean `GET`?",
        ),
        (
            routed("{ match: { path: /, methods: [GET, 'A B', GET] }, upstream: demo }"),
            "c:3:42: maitred.routes[0].match.methods[1]: \"A B\" is not a method such as GET\n\
             c:3:49: maitred.routes[0].match.methods[2]: GET stands twice in the list",
        ),
        (
            routed("{ match: { path: /, methods: [] }, upstream: demo }"),
            "c:3:36: maitred.routes[0].match.methods: empty, expected a list such as [GET, HEAD]",
        ),
        (
            routed("{ match: { path: /, host: 'a:80' }, upstream: demo }"),
            "c:3:33: maitred.routes[0].match.host: \"a:80\" is not a host such as example.com, *.example.com or [::1], without a port",
        ),
        (
            routed("{ match: { path: /, host: a.*.b }, upstream: demo }"),
            "c:3:33: maitred.routes[0].match.host: a.*.b is not a host such as example.com, *.example.com or [::1], without a port",
        ),
        (
            routed("{ match: { path: / }, upstream: dem }"),
            "c:3:39: maitred.routes[0].upstream: dem is not the name of an upstream, did you mean `demo`?",
        ),
        (
            routed("{ match: { path: / }, upstream: web }"),
            "c:3:39: maitred.routes[0].upstream: web is not the name of an upstream",
        ),
        (
            routed("{ match: { path: / } }"),
            "c:3:7: maitred.routes[0].upstream: missing, expected the name of an upstream",
        ),
        (
            routed(
                "{ match: { path_prefix: /a, methods: [GET, PUT] }, upstream: demo }\n    - { match: { path_prefix: /a/, methods: [PUT, GET, HEAD] }, upstream: demo }",
            ),
            "c:4:7: maitred.routes[1]: same host and path as maitred.routes[0] on line 3, and both take PUT, GET",
        ),
        (
            routed(
                "{ match: { path: /a }, upstream: demo }\n    - { match: { path: /a, methods: [PUT] }, upstream: demo }",
            ),
            "c:4:7: maitred.routes[1]: same host and path as maitred.routes[0] on line 3, and both take PUT",
        ),
        (
            routed(
                "{ match: { path: /a, host: A }, upstream: demo }\n    - { match: { path: /a, host: a }, upstream: demo }",
            ),
            "c:4:7: maitred.routes[1]: same host and path as maitred.routes[0] on line 3, and both take any method",
        ),
    ]);
}

#[test]
fn upstreams_and_backends_are_checked() {
    let long = "x".repeat(65);
    assert_said([
        (
            "maitred: { routes: [{ match: { path: / }, upstream: a }], upstreams: {} }".into(),
            "c:1:53: maitred.routes[0].upstream: a is not the name of an upstream\n\
             c:1:70: maitred.upstreams: empty, expected a mapping such as { demo: { backends: [..] } }",
        ),
        (
            upstreamed("ques: {}"),
            "c:6:7: maitred.upstreams.demo.ques: unknown key, did you mean `queue`?",
        ),
        (
            upstreamed("busyLimit: 1s"),
            "c:6:7: maitred.upstreams.demo.busyLimit: unknown key, did you mean `busy_limit`?",
        ),
        (
            upstreamed("queue: { size: 1000001 }"),
            "c:6:22: maitred.upstreams.demo.queue.size: 1000001 is not in 0..=1000000",
        ),
        (
            upstreamed("timeouts: { connect: 25h }"),
            "c:6:28: maitred.upstreams.demo.timeouts.connect: 25h is not in 1ms..=24h",
        ),
        (
            LEAST
                .replace("demo:", "de mo:")
                .replace("upstream: demo", "upstream: de mo"),
            "c:5:5: maitred.upstreams.\"de mo\": not a name of 1..=64 letters, digits, `.`, `_` and `-`",
        ),
        (
            LEAST.to_owned() + "    demo: {}\n",
            "c:8:5: maitred.upstreams.demo: duplicate key, first on line 5",
        ),
        (
            LEAST.to_owned() + "    web: { backends: [] }\n",
            "c:8:22: maitred.upstreams.web.backends: empty, expected a list such as [{ name: server1, address: 127.0.0.1:8081 }]",
        ),
        (
            LEAST.to_owned() + "    web: {}\n",
            "c:8:10: maitred.upstreams.web.backends: missing, expected a list such as [{ name: server1, address: 127.0.0.1:8081 }]",
        ),
        (
            backed("server1"),
            "c:7:11: maitred.upstreams.demo.backends[0]: server1 is not a mapping with name and address",
        ),
        (
            backed("{ name: a, address: 127.0.0.1:81, max_in_flight: 0 }"),
            "c:7:60: maitred.upstreams.demo.backends[0].max_in_flight: 0 is not in 1..=10000",
        ),
        (
            backed(&format!("{{ name: {long}, address: 127.0.0.1:81 }}")),
            "c:7:19: maitred.upstreams.demo.backends[0].name: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx… is not a name of 1..=64 letters, digits, `.`, `_` and `-`",
        ),
        (
            backed("{ name: a, address: backend.local:80 }"),
            "c:7:31: maitred.upstreams.demo.backends[0].address: backend.local:80 is not an address such as 127.0.0.1:8081 or [::1]:8081",
        ),
        (
            backed("{ name: a, address: '127.0.0.1:0' }"),
            "c:7:31: maitred.upstreams.demo.backends[0].address: \"127.0.0.1:0\" is not an address with a port in 1..=65535",
        ),
        (
            backed("{ address: 127.0.0.1:80 }"),
            "c:7:11: maitred.upstreams.demo.backends[0].name: missing, expected a name of 1..=64 letters, digits, `.`, `_` and `-`",
        ),
        (
            LEAST.to_owned()
                + "    web: { backends: [{ name: server1, address: 127.0.0.1:82 }] }\n",
            "c:8:31: maitred.upstreams.web.backends[0].name: server1 is taken by maitred.upstreams.demo.backends[0].name on line 7",
        ),
        (
            LEAST.to_owned()
                + "    web: { backends: [{ name: b, address: '[::ffff:127.0.0.1]:8081' }] }\n",
            "c:8:43: maitred.upstreams.web.backends[0].address: [::ffff:127.0.0.1]:8081 is taken by maitred.upstreams.demo.backends[0].address on line 7",
        ),
    ]);
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_text() {
    let text = "\
threads: 0
maitred:
  routes:
    - { match: { path: home }, upstream: dem }
    - 5
  upstreams:
    demo:
      ques: 1
      backends:
        - { name: a, address: 127.0.0.1:0 }
        - { name: a, address: 127.0.0.1:81, max_in_flight: x }
  poller: { interval: 0s, timeout: 20s, path: x }
deamon: true
";
    let Err(ConfigError::Invalid(problems)) = Config::parse(text, "f") else {
        panic!()
    };
    let places: Vec<_> = problems.iter().map(|p| (p.line, p.path.as_str())).collect();
    let expected = [
        (1, "threads"),
        (4, "maitred.routes[0].match.path"),
        (4, "maitred.routes[0].upstream"),
        (5, "maitred.routes[1]"),
        (8, "maitred.upstreams.demo.ques"),
        (10, "maitred.upstreams.demo.backends[0].address"),
        (11, "maitred.upstreams.demo.backends[1].name"),
        (11, "maitred.upstreams.demo.backends[1].max_in_flight"),
        (12, "maitred.poller.interval"),
        (12, "maitred.poller.path"),
        (13, "deamon"),
    ];
    assert_eq!(places, expected);
}

#[test]
fn sections_may_be_left_empty_and_routes_may_share_a_place() {
    let text = ours("poller:\nclients: ~\nhealth: {}");
    assert_eq!(parse(&text), parse(LEAST));
    let routes = "{ match: { path: /a, methods: [GET] }, upstream: demo }
    - { match: { path: /a, methods: [PUT] }, upstream: demo }
    - { match: { path: /a, host: a }, upstream: demo }
    - { match: { path_prefix: /a }, upstream: demo }";
    assert_eq!(parse(&routed(routes)).routes.len(), 4);
}

#[test]
fn files_are_read_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    let error = Config::load(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read {}", path.display()));
    assert!(matches!(error, ConfigError::Read { .. }));
    std::fs::write(&path, LEAST).unwrap();
    assert_eq!(Config::load(&path).unwrap(), parse(LEAST));
    std::fs::write(&path, "a: 1\n").unwrap();
    let problem = format!("{}:1:1: maitred: missing", path.display());
    assert!(
        Config::load(&path)
            .unwrap_err()
            .to_string()
            .contains(&problem)
    );
    std::fs::write(&path, [0xff]).unwrap();
    assert!(matches!(Config::load(&path), Err(ConfigError::Read { .. })));
    let large = vec![b'#'; FILE_BYTES_MAX as usize + 1];
    std::fs::write(&path, large).unwrap();
    let Err(ConfigError::Read { source, .. }) = Config::load(&path) else {
        panic!()
    };
    assert_eq!(source.to_string(), "larger than 16 MiB");
}

#[test]
fn ten_thousand_backends_are_read() {
    let line = |i: usize| {
        format!(
            "        - {{ name: b{i}, address: 10.0.{}.{}:80 }}\n",
            i / 250,
            i % 250
        )
    };
    let text = LEAST.to_owned() + &(0..10_000).map(line).collect::<String>();
    assert_eq!(parse(&text).upstreams[0].backends.len(), 10_001);
}

/// Every message is one line, and there is always one.
fn check_any(text: &str) -> Result<(), TestCaseError> {
    if let Err(error) = Config::parse(text, "c") {
        let ConfigError::Invalid(problems) = error else {
            panic!("nothing was read")
        };
        prop_assert!(!problems.is_empty());
        for problem in problems {
            let line = problem.to_string();
            prop_assert!(!line.contains('\n'), "{line:?}");
            prop_assert!(problem.line >= 1 && problem.column >= 1, "{line:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        check_any(&text)?;
    }

    #[test]
    fn no_yaml_like_text_panics(text in "([-?:,\\[\\]{}#&*!|>'\"%@` \n\t~]|a|1|maitred: |routes:|upstreams: ){0,60}") {
        check_any(&text)?;
    }

    #[test]
    fn no_damaged_file_panics(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..12usize, "(?s)[-?:,\\[\\]{}#&*!|>'\" \n\ta0\u{0}é]{0,4}"), 1..6),
    ) {
        let mut text: Vec<char> = SHIPPED.chars().collect();
        for (at, length, insert) in cuts {
            let start = at.index(text.len());
            let end = (start + length).min(text.len() - 1).max(start);
            text.splice(start..end, insert.chars());
        }
        check_any(&text.into_iter().collect::<String>())?;
    }
}
