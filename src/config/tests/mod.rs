//! Whole texts in, parameters out. `wrong`: texts in, every problem out. `anything`: texts that nobody
//! would write.

use std::collections::BTreeSet;
use std::env::VarError;
use std::fs;
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, Method};
use pingora::server::configuration::ServerConf;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::access_log::{AccessLogFormat, Destination, LoggedHeader, QueryRule};
use crate::health::{State, WhenMissing, WhenStale};
use crate::policy::outlier::OutlierParams;
use crate::policy::retry::{Reason, RetryParams};
use crate::routing::{HostMatch, PathMatch, Route};
use crate::upstream::{
    BackendParams, Balance, FairBy, PriorityParams, QueueParams, Timeouts, UpstreamParams,
};

use super::server::WITHOUT_EFFECT;
use super::*;

mod anything;
mod wrong;

const SHIPPED: &str = include_str!("../../../conf/pingora.yaml");

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

/// `LEAST` with lines of ours below `maitred:`, from line 2.
fn ours(lines: &str) -> String {
    LEAST.replacen(
        "maitred:\n",
        &format!("maitred:\n  {}\n", lines.replace('\n', "\n  ")),
        1,
    )
}

/// `LEAST` with another route, which stands on line 3.
fn routed(route: &str) -> String {
    LEAST.replacen("{ match: { path: /home }, upstream: demo }", route, 1)
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
        balance: Balance::RoundRobin,
        queue: QueueParams {
            size: 10_000,
            size_per_key: 10_000,
            timeout: seconds(30),
            fair_by: None,
            priority: None,
        },
        timeouts: Timeouts {
            connect: seconds(1),
            response_header: seconds(60),
            read: seconds(60),
            write: seconds(30),
            idle: seconds(1),
            request: seconds(90),
        },
        retry: RetryParams::default(),
        outlier: OutlierParams::default(),
        keepalive: true,
        busy_limit: seconds(60),
        sources: Default::default(),
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
        rewrite: Some(PathAndQuery::from_static("/")),
        max_concurrent_requests: None,
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
        evidence: Arc::new([address("127.0.0.1:9900").into()]),
        skip_when_busy: false,
        metrics: None,
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
            format: AccessLogFormat::Text,
            destination: Destination::Stdout,
            sample: 1.0,
            query: QueryRule::Keep,
            request_headers: Vec::new(),
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

/// Every key of ours with a value that is not its default.
const ALL: &str = "
maitred:
  listeners: [{ bind: '[::]:80' }, { bind: '127.0.0.1:0' }, { bind: '127.0.0.1:0' }]
  clients: { header_timeout: 1s, idle_timeout: 2s, read_timeout: 3s, write_timeout: 250ms }
  health:
    file: /run/health.json
    stale_after: off
    when_stale: fail_open
    when_missing: fail_open
    max_flip_percent: 50
    confirm_after: 5s
  poller:
    path: /ping?deep=1
    host: app.internal:81
    interval: 1m30s
    fast_interval: 90s
    timeout: 80s
    jitter: 10%
    expect_status: 204
    rise: 1
    fall: 3
    detail: true
    evidence: ['http://[::1]:9901', http://proxy.internal:9900/]
    skip_when_busy: true
    metrics: '[::1]:9902'
  admin: { bind: '[::1]:9901' }
  access_log:
    format: json
    path: /var/log/access.log
    sample: 0.01
    redact_query: [token, 1]
    request_headers: [User-Agent, Cookie, X-Key]
    redact_headers: [x-key]
  request_id: replace
  routes:
    - { match: { host: '*.Example.com', path_prefix: /api/ }, upstream: b.2 }
    - { match: { host: '[::1]', path: / }, upstream: b.2 }
    - { match: { host: localhost, path: /, methods: [PURGE] }, upstream: b.2 }
  upstreams:
    b.2:
      balance: least_requests
      queue:
        size: 0
        timeout: 1ms
        fair_by: header:X-Tenant
        size_per_key: 3
        priority: { header: X-Urgency, trusted: ['::1', 10.0.0.0/8], aging: 2s }
      timeouts:
        { connect: 2ms, response_header: 3ms, read: 4ms, write: 5ms, idle: 6ms, request: 24h }
      retry: { attempts: 5, on: [502, timeout], budget_percent: 0, non_idempotent: true }
      poller: { path: /up, host: '[::1]', expect_status: [200, 204, '300-399'] }
      backends: [{ name: 1, address: '[::1]:81', max_in_flight: 10000, weight: 3, state: drain }]
    unused: { busy_limit: 7s, backends: [{ name: B, address: 10.0.0.1:81 }] }
";

#[test]
fn the_proxys_own_sections_are_read_as_written() {
    let config = parse(ALL);
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
    assert_eq!(config.admin.bind.to_string(), "[::1]:9901");
    let header = |name, is_redacted| LoggedHeader {
        name: HeaderName::from_static(name),
        is_redacted,
    };
    let access_log = AccessLogParams {
        format: AccessLogFormat::Json,
        destination: Destination::File("/var/log/access.log".into()),
        sample: 0.01,
        query: QueryRule::Redact(vec!["token".into(), "1".into()]),
        request_headers: vec![
            header("user-agent", false),
            header("cookie", true),
            header("x-key", true),
        ],
    };
    assert_eq!(config.access_log, access_log);
    assert_eq!(config.request_id, RequestIdParams::Replace);
}

#[test]
fn health_and_poller_are_read_as_written() {
    let config = parse(ALL);
    let health = HealthParams {
        file: "/run/health.json".into(),
        stale_after: None,
        when_stale: WhenStale::FailOpen,
        when_missing: WhenMissing::FailOpen,
        max_flip_percent: 50,
        confirm_after: seconds(5),
    };
    assert_eq!(config.health, health);
    let probe = |path: &str, host: &str, ranges: Vec<RangeInclusive<u16>>| ProbeParams {
        path: path.into(),
        host: Some(host.into()),
        expect_status: StatusRanges(ranges),
    };
    let own = probe("/up", "[::1]", vec![200..=200, 204..=204, 300..=399]);
    let global = probe("/ping?deep=1", "app.internal:81", vec![204..=204]);
    let poller = PollerParams {
        interval: seconds(90),
        fast_interval: seconds(90),
        timeout: seconds(80),
        jitter_percent: 10,
        rise: 1,
        fall: 3,
        detail: true,
        evidence: Arc::new([
            "[::1]:9901".parse().unwrap(),
            "proxy.internal:9900".parse().unwrap(),
        ]),
        skip_when_busy: true,
        metrics: Some("[::1]:9902".parse().unwrap()),
        probes: [("b.2".into(), own), ("unused".into(), global)].into(),
    };
    assert_eq!(config.poller, poller);
}

#[test]
fn routes_are_read_as_written() {
    let routes = parse(ALL).routes;
    let hosts: Vec<_> = routes.iter().map(|route| route.host.clone()).collect();
    let exact = |host: &str| HostMatch::Exact(host.into());
    let suffix = HostMatch::Suffix(".example.com".into());
    assert_eq!(hosts, [suffix, exact("[::1]"), exact("localhost")]);
    assert_eq!(routes[0].path, PathMatch::Prefix("/api/".into()));
    assert_eq!(routes[2].methods[0].as_str(), "PURGE");
}

#[test]
fn upstreams_are_read_as_written() {
    let config = parse(ALL);
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
    let retry = RetryParams {
        attempts: 5,
        on: [Reason::BadGateway, Reason::Timeout].into_iter().collect(),
        budget_percent: 0,
        non_idempotent: true,
    };
    assert_eq!((first.retry, second.retry), (retry, RetryParams::default()));
    assert_eq!(
        (first.balance, second.balance),
        (Balance::LeastRequests, Balance::RoundRobin)
    );
    assert_eq!(
        first.queue,
        QueueParams {
            size: 0,
            size_per_key: 3,
            timeout: milliseconds(1),
            fair_by: Some(FairBy::Header(HeaderName::from_static("x-tenant"))),
            priority: Some(PriorityParams {
                header: HeaderName::from_static("x-urgency"),
                trusted: vec!["::1".parse().unwrap(), "10.0.0.0/8".parse().unwrap()],
                aging: seconds(2),
            }),
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
            weight: 3,
            state: State::Drain,
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
user: u
group: g
working_directory: /w
threads: 4
listener_tasks_per_fd: 2
work_stealing: false
grace_period_seconds: 0
client_bind_to_ipv4: [10.0.0.1]
client_bind_to_ipv6: ['::1']
upstream_keepalive_pool_size: 5
upstream_connect_offload_threadpools: 6
upstream_connect_offload_thread_per_pool: 7
max_retries: 1
max_blocking_threads: 12
blocking_threads_ttl_seconds: 13
fast_timeout_to_tokio_threshold_seconds: null
daemon_wait_for_ready: true
daemon_ready_timeout_seconds: 16
daemon_notify_timeout_seconds: 17
";
    let theirs = ServerConf::from_yaml(text).unwrap();
    assert_eq!(
        parse(&format!("{LEAST}{text}")).server.server_conf(),
        theirs
    );
    let keys = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.map(|(key, _)| key.trim().to_owned()).collect()
    };
    let refused = WITHOUT_EFFECT.iter().map(|key| (*key).to_owned());
    assert_eq!(
        keys(text)
            .into_iter()
            .chain(refused)
            .collect::<BTreeSet<_>>(),
        keys(&ServerConf::default().to_yaml()),
        "a key is not in this test"
    );
}

#[test]
fn all_that_pingora_has_by_default_may_be_written() {
    let defaults = ServerConf::default().to_yaml();
    let config = parse(&format!("{LEAST}{defaults}"));
    assert_eq!(config.server.server_conf(), ServerConf::default());
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
    let said = || Config::load(&path).unwrap_err().report("proxy");
    let cannot = format!("proxy: cannot read {}", path.display());
    assert_eq!(
        said(),
        format!("{cannot}: No such file or directory (os error 2)")
    );
    fs::write(&path, "a: 1\n").unwrap();
    let problem = format!("{}:1:1: maitred: missing", path.display());
    assert!(said().contains(&problem), "{}", said());
    fs::write(&path, "a: 1\nö: \u{fc}".as_bytes().split_last().unwrap().1).unwrap();
    let problem = "2:4: not UTF-8: byte 0xc3 at offset 9";
    assert_eq!(said(), format!("{}:{problem}", path.display()));
    fs::write(&path, vec![b'#'; FILE_BYTES_MAX as usize + 1]).unwrap();
    assert_eq!(said(), format!("{cannot}: larger than 16 MiB"));
    // The parser skips the byte order mark with which some editors begin a file.
    for text in [LEAST.to_owned(), format!("\u{feff}{LEAST}")] {
        fs::write(&path, text).unwrap();
        assert_eq!(Config::load(&path).unwrap(), parse(LEAST));
    }
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    for path in [&fifo, folder.path(), Path::new("/dev/zero")] {
        let Err(ConfigError::Read { source, .. }) = Config::load(path) else {
            panic!("{} was read", path.display())
        };
        let expected = "not a regular file; a pipe is read as /dev/stdin";
        assert_eq!(source.to_string(), expected, "{}", path.display());
    }
}

#[test]
fn a_pipe_that_is_handed_over_is_read() {
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(LEAST.as_bytes()).unwrap();
    drop(writer);
    let path = format!("/dev/fd/{}", reader.as_raw_fd());
    assert_eq!(Config::load(Path::new(&path)).unwrap(), parse(LEAST));
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

#[test]
fn waits_of_the_poller_are_at_most_its_interval() {
    let times = |poller: &str| {
        let poller = parse(&ours(&format!("poller: {{ {poller} }}"))).poller;
        [poller.interval, poller.fast_interval, poller.timeout].map(|time| time.as_millis())
    };
    assert_eq!(times("interval: 1h"), [3_600_000, 1_000, 2_000]);
    assert_eq!(times("interval: 1500ms"), [1_500, 1_000, 1_500]);
    assert_eq!(times("interval: 20ms"), [20, 20, 20]);
    let written = "interval: 20s, fast_interval: 20s, timeout: 20s";
    assert_eq!(times(written), [20_000; 3]);
}

#[test]
fn a_file_is_fresh_for_three_intervals_unless_told_otherwise() {
    let stale_after = |lines: &str| parse(&ours(lines)).health.stale_after;
    assert_eq!(stale_after("poller: { interval: 5s }"), Some(seconds(30)));
    assert_eq!(stale_after("poller: { interval: 30s }"), Some(seconds(90)));
    let jitter = "poller: { interval: 30s, jitter: 50% }";
    assert_eq!(stale_after(jitter), Some(seconds(135)));
    let off = "poller: { interval: 24h }\nhealth: { stale_after: off }";
    assert_eq!(stale_after(off), None);
    let quick = "poller: { interval: 500ms }\nhealth: { stale_after: 2s }";
    assert_eq!(stale_after(quick), Some(seconds(2)));
}

#[test]
fn evidence_is_asked_for_where_the_proxy_tells_of_itself() {
    let evidence = |sections: &str| {
        let sources = parse(&ours(sections)).poller.evidence;
        let sources = sources.iter().map(ToString::to_string);
        sources.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(evidence("admin: { bind: 10.0.0.1:99 }"), "10.0.0.1:99");
    assert_eq!(evidence("admin: { bind: 0.0.0.0:99 }"), "127.0.0.1:99");
    assert_eq!(evidence("admin: { bind: '[::]:99' }"), "[::1]:99");
    assert_eq!(evidence("admin: { bind: 127.0.0.1:0 }"), "");
    assert_eq!(evidence("poller: { evidence: [] }"), "");
}

#[test]
fn an_upstreams_poller_overrides_what_it_says_and_nothing_else() {
    let text = ours("poller: { path: /all, host: all, expect_status: 500-599 }")
        + "      poller: { path: /own }\n";
    let probe = &parse(&text).poller.probes["demo"];
    assert_eq!((&*probe.path, probe.host.as_deref()), ("/own", Some("all")));
    assert!(probe.expect_status.contains(500) && !probe.expect_status.contains(200));
}

#[test]
fn every_kind_of_address_is_read() {
    for address in [
        "10.0.0.1:81",
        "[::1]:81",
        "app.internal:81",
        "unix:/run/app.sock",
    ] {
        let text = LEAST.replace("127.0.0.1:8081", &format!("'{address}'"));
        let read = &parse(&text).upstreams[0].backends[0].address;
        assert_eq!(read.to_string(), address);
    }
}

#[test]
fn references_are_replaced_by_what_the_environment_says() {
    let environment = |name: &str| match name {
        "HOST" => Ok("app.internal".to_owned()),
        "SLOTS" => Ok("4".to_owned()),
        "EMPTY" => Ok(String::new()),
        "DOLLARS" => Ok("/${HOST}".to_owned()),
        _ => Err(VarError::NotPresent),
    };
    let text = |value: &str| format!("{LEAST}pid_file: {value}\n");
    for (value, expected) in [
        ("${HOST}", "app.internal"),
        ("'${HOST}:${SLOTS}'", "app.internal:4"),
        ("\"/run/${HOST}.pid\"", "/run/app.internal.pid"),
        ("|\n  ${HOST}", "app.internal\n"),
        ("${NOBODY:-a b}", "a b"),
        ("${NOBODY:-a:-b}", "a:-b"),
        ("${EMPTY:-a}", "a"),
        ("${HOST:-a}", "app.internal"),
        ("${EMPTY}a${NOBODY:-}", "a"),
        ("$${HOST}", "${HOST}"),
        ("$HOST $$ $", "$HOST $$ $"),
        ("${DOLLARS}", "/${HOST}"),
        ("${SLOTS}", "4"),
    ] {
        let config = Config::parse_with(&text(value), "c", &environment);
        let config = config.unwrap_or_else(|error| panic!("{value}: {error}"));
        assert_eq!(config.server.pid_file, expected, "{value}");
    }
    let slots = ours("poller:\n  rise: ${SLOTS}\n  detail: ${NOBODY:-true}");
    let poller = Config::parse_with(&slots, "c", &environment)
        .unwrap()
        .poller;
    assert_eq!((poller.rise, poller.detail), (4, true));
}

#[test]
fn the_environment_of_the_process_is_asked() {
    let text = format!("{LEAST}pid_file: '${{CARGO_PKG_NAME}}'\n");
    assert_eq!(parse(&text).server.pid_file, "maitred");
}

#[test]
fn reports_say_who_could_not_read_what_and_why() {
    let error = Config::load(Path::new("/nowhere/c.yaml")).unwrap_err();
    assert_eq!(
        error.report("proxy"),
        "proxy: cannot read /nowhere/c.yaml: No such file or directory (os error 2)"
    );
    let error = Config::parse("a: 1\nb: [", "c").unwrap_err();
    assert!(error.report("proxy").starts_with("c:2:"), "{error}");
}
