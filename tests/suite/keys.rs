//! Every key of the configuration has a test in which it makes a difference that can be seen from
//! outside. Most stand with what they are about; the table says where. The others stand here; of
//! Pingora's, some make none that can be seen.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::net::TcpListener;

use crate::harness::{
    Backend, Client, Proxy, Room, Site, Units, backend, free_port, get, is_root, load, proxy, until,
};

/// Every key of ours and then of Pingora's, and the test that it makes a difference.
const TESTS: &[(&str, &str)] = &[
    ("listeners[].bind", "keys::every_listener_serves"),
    (
        "admin.bind",
        "keys::the_admin_pages_are_where_they_are_told_to_be",
    ),
    (
        "clients.header_timeout",
        "connections::half_a_header_is_cut_at_the_header_timeout",
    ),
    (
        "clients.idle_timeout",
        "connections::an_idle_connection_is_closed_at_the_idle_timeout",
    ),
    (
        "clients.read_timeout",
        "timeouts::a_body_that_stops_coming_is_408_and_holds_no_slot",
    ),
    (
        "clients.write_timeout",
        "connections::a_client_that_never_reads_is_cut_at_the_write_timeout",
    ),
    (
        "limits.max_concurrent_requests",
        "limits::no_more_requests_are_under_way_than_the_proxy_is_to_take",
    ),
    (
        "health.file",
        "odd_files::a_folder_that_is_deleted_and_made_anew_is_watched_again",
    ),
    (
        "health.stale_after",
        "freshness::a_report_goes_stale_on_time_and_each_writing_counts",
    ),
    (
        "health.when_stale",
        "freshness::a_stale_report_stays_in_force_unless_told_otherwise",
    ),
    (
        "health.when_missing",
        "freshness::without_a_report_requests_are_let_through_where_that_is_wanted",
    ),
    (
        "health.max_flip_percent",
        "freshness::a_report_that_turns_too_many_sick_waits_for_a_second_writing",
    ),
    (
        "health.confirm_after",
        "freshness::what_stays_written_is_believed_in_the_end",
    ),
    (
        "poller.path",
        "poller_probe::each_upstream_has_its_own_path_host_and_statuses",
    ),
    (
        "poller.host",
        "poller_probe::each_upstream_has_its_own_path_host_and_statuses",
    ),
    (
        "poller.expect_status",
        "poller_probe::each_upstream_has_its_own_path_host_and_statuses",
    ),
    (
        "poller.interval",
        "poller_schedule::the_file_is_written_each_interval_though_nothing_changes",
    ),
    (
        "poller.fast_interval",
        "poller_schedule::fast_interval_holds_from_the_first_failed_ping_to_the_verdict",
    ),
    (
        "poller.timeout",
        "keys::a_ping_is_given_up_on_at_its_timeout",
    ),
    (
        "poller.jitter",
        "poller_schedule::jitter_makes_waits_longer_and_shorter",
    ),
    (
        "poller.rise",
        "poller_schedule::a_sick_backend_is_healthy_after_rise_good_pings",
    ),
    (
        "poller.fall",
        "poller_schedule::a_single_lost_ping_does_not_flap",
    ),
    ("poller.detail", "poller_file::detail_writes_reasons"),
    (
        "poller.evidence",
        "busy::without_evidence_every_ping_counts",
    ),
    (
        "poller.skip_when_busy",
        "busy::skip_when_busy_pings_nobody_who_is_at_work",
    ),
    (
        "poller.metrics",
        "poller_metrics::the_page_is_where_the_configuration_says_and_tells_of_reloads",
    ),
    (
        "access_log.format",
        "keys::the_access_log_is_text_json_or_nothing",
    ),
    (
        "access_log.path",
        "access_log::a_file_that_is_moved_away_twenty_times_under_load_loses_and_tears_no_line",
    ),
    (
        "access_log.sample",
        "access_log::a_share_of_what_is_fine_is_logged_and_all_that_is_not",
    ),
    (
        "access_log.query",
        "access_log::what_is_nobodys_business_is_not_logged",
    ),
    (
        "access_log.redact_query",
        "access_log::what_is_nobodys_business_is_not_logged",
    ),
    (
        "access_log.request_headers",
        "access_log::what_is_nobodys_business_is_not_logged",
    ),
    (
        "access_log.redact_headers",
        "access_log::what_is_nobodys_business_is_not_logged",
    ),
    (
        "routes[].match.host",
        "keys::a_route_may_be_for_one_host_or_a_prefix",
    ),
    (
        "routes[].match.path",
        "requests::an_unknown_path_is_404_and_reaches_no_backend",
    ),
    (
        "routes[].match.path_prefix",
        "keys::a_route_may_be_for_one_host_or_a_prefix",
    ),
    (
        "routes[].match.methods",
        "requests::another_method_is_405_and_says_which_are_allowed",
    ),
    (
        "routes[].max_concurrent_requests",
        "limits::a_route_that_is_full_leaves_room_to_another",
    ),
    (
        "explain.capacity",
        "explain::only_the_last_ones_are_remembered_and_of_one_id_the_newest",
    ),
    (
        "explain.debug_token",
        "explain::who_knows_the_token_is_told_in_the_answer_and_nobody_else",
    ),
    (
        "request_id",
        "request_ids::whose_word_is_taken_is_a_matter_of_configuration",
    ),
    (
        "server_timing",
        "limits::an_answer_tells_its_times_where_that_is_wanted",
    ),
    ("routes[].rewrite", "requests::the_rewrite_keeps_the_query"),
    (
        "routes[].upstream",
        "requests::each_route_leads_to_its_own_upstream",
    ),
    (
        "upstreams.NAME.poller.path",
        "poller_probe::each_upstream_has_its_own_path_host_and_statuses",
    ),
    (
        "upstreams.NAME.poller.host",
        "poller_probe::each_upstream_has_its_own_path_host_and_statuses",
    ),
    (
        "upstreams.NAME.poller.expect_status",
        "poller_probe::each_upstream_has_its_own_path_host_and_statuses",
    ),
    (
        "upstreams.NAME.balance",
        "balance::least_requests_spares_a_backend_that_is_stuck_and_round_robin_does_not",
    ),
    (
        "upstreams.NAME.queue.size",
        "queue::one_more_than_the_queue_holds_is_refused_at_once",
    ),
    (
        "upstreams.NAME.queue.timeout",
        "queue::past_the_queue_timeout_the_answer_is_503",
    ),
    (
        "upstreams.NAME.queue.fair_by",
        "fairness::clients_are_served_in_turn_however_many_requests_one_has",
    ),
    (
        "upstreams.NAME.queue.size_per_key",
        "fairness::no_client_has_more_requests_waiting_than_it_may",
    ),
    (
        "upstreams.NAME.queue.priority.trusted",
        "fairness::who_is_trusted_says_what_is_urgent_and_nobody_else_does",
    ),
    (
        "upstreams.NAME.queue.priority.header",
        "fairness::who_is_trusted_says_what_is_urgent_and_nobody_else_does",
    ),
    (
        "upstreams.NAME.queue.priority.aging",
        "fairness::a_request_of_low_priority_gets_through_once_it_has_waited_long",
    ),
    (
        "upstreams.NAME.timeouts.connect",
        "timeouts::a_backend_that_takes_no_connection_in_two_seconds_is_taken_out_then",
    ),
    (
        "upstreams.NAME.timeouts.response_header",
        "slots::a_request_that_times_out_leaves_its_slot_taken",
    ),
    (
        "upstreams.NAME.timeouts.read",
        "timeouts::a_backend_that_pauses_in_its_answer_is_broken_off_at_the_read_timeout",
    ),
    (
        "upstreams.NAME.timeouts.write",
        "timeouts::a_backend_that_reads_nothing_for_half_a_second_is_given_up_on",
    ),
    (
        "upstreams.NAME.timeouts.idle",
        "timeouts::an_idle_connection_to_a_backend_is_closed_in_time",
    ),
    (
        "upstreams.NAME.timeouts.request",
        "timeouts::a_request_that_is_not_answered_in_its_time_is_504",
    ),
    (
        "upstreams.NAME.keepalive",
        "pools::without_keepalive_each_request_has_a_connection_of_its_own",
    ),
    (
        "upstreams.NAME.retry.attempts",
        "retry_rules::attempts_are_as_many_as_are_allowed",
    ),
    (
        "upstreams.NAME.retry.on",
        "retry_rules::after_an_answer_502_503_or_504_only_where_that_is_wanted",
    ),
    (
        "upstreams.NAME.retry.budget_percent",
        "retry_rules::no_more_is_sent_again_than_the_budget_has",
    ),
    (
        "upstreams.NAME.retry.non_idempotent",
        "retry_rules::a_post_is_done_twice_only_where_that_is_allowed",
    ),
    (
        "upstreams.NAME.outlier_detection.consecutive_errors",
        "outlier::so_many_errors_take_a_backend_out",
    ),
    (
        "upstreams.NAME.outlier_detection.error_percent",
        "outlier::half_of_its_requests_in_a_window_are_too_many",
    ),
    (
        "upstreams.NAME.outlier_detection.error_window",
        "outlier::so_many_errors_take_a_backend_out",
    ),
    (
        "upstreams.NAME.outlier_detection.min_requests",
        "outlier::so_many_errors_take_a_backend_out",
    ),
    (
        "upstreams.NAME.outlier_detection.latency_factor",
        "outlier::who_is_far_slower_than_the_others_is_out_where_that_is_wanted",
    ),
    (
        "upstreams.NAME.outlier_detection.base_ejection",
        "outlier::a_rest_is_as_long_as_is_wanted",
    ),
    (
        "upstreams.NAME.outlier_detection.max_ejection",
        "outlier::a_backend_that_asks_for_a_pause_has_it",
    ),
    (
        "upstreams.NAME.outlier_detection.max_ejection_percent",
        "outlier::no_more_are_out_than_may_be",
    ),
    (
        "upstreams.NAME.busy_limit",
        "slots::past_the_busy_limit_an_abandoned_slot_is_free_again",
    ),
    (
        "upstreams.NAME.backends[].name",
        "balance::a_backend_that_the_file_does_not_name_gets_nothing",
    ),
    (
        "upstreams.NAME.backends[].address",
        "addresses::a_unix_socket_is_a_backend_as_any_other",
    ),
    (
        "upstreams.NAME.backends[].max_in_flight",
        "keys::max_in_flight_weight_and_state_are_obeyed",
    ),
    (
        "upstreams.NAME.backends[].weight",
        "keys::max_in_flight_weight_and_state_are_obeyed",
    ),
    (
        "upstreams.NAME.backends[].state",
        "keys::max_in_flight_weight_and_state_are_obeyed",
    ),
    (
        "daemon",
        "keys::a_daemon_says_when_it_serves_and_where_it_is",
    ),
    (
        "daemon_wait_for_ready",
        "keys::a_daemon_says_when_it_serves_and_where_it_is",
    ),
    (
        "error_log",
        "keys::a_daemon_says_when_it_serves_and_where_it_is",
    ),
    (
        "pid_file",
        "keys::a_daemon_says_when_it_serves_and_where_it_is",
    ),
    (
        "working_directory",
        "keys::a_daemon_says_when_it_serves_and_where_it_is",
    ),
    ("user", "keys::a_daemon_becomes_who_it_is_told_to_be"),
    ("group", "keys::a_daemon_becomes_who_it_is_told_to_be"),
    ("threads", "keys::threads_are_as_many_as_are_asked_for"),
    (
        "upstream_connect_offload_threadpools",
        "keys::threads_are_as_many_as_are_asked_for",
    ),
    (
        "upstream_connect_offload_thread_per_pool",
        "keys::threads_are_as_many_as_are_asked_for",
    ),
    (
        "grace_period_seconds",
        "stopping::a_request_that_never_ends_does_not_outlast_the_grace",
    ),
    (
        "client_bind_to_ipv4",
        "keys::connections_to_backends_come_from_where_they_are_told_to",
    ),
    (
        "client_bind_to_ipv6",
        "keys::connections_to_backends_come_from_where_they_are_told_to",
    ),
    (
        "upstream_keepalive_pool_size",
        "keys::a_full_pool_closes_the_connection_that_was_idle_longest",
    ),
    (
        "max_retries",
        "keys::one_attempt_is_all_where_no_more_are_allowed",
    ),
];

/// The keys whose difference is not to be seen from outside, and why.
const UNSEEN: &[(&str, &str)] = &[
    ("version", "nobody looks at it"),
    ("listener_tasks_per_fd", "who accepts shows in no answer"),
    ("work_stealing", "there are as many threads either way"),
    ("max_blocking_threads", "files and names need one at a time"),
    ("blocking_threads_ttl_seconds", "it is about idle threads"),
    (
        "fast_timeout_to_tokio_threshold_seconds",
        "a timer ends on time either way",
    ),
    (
        "daemon_ready_timeout_seconds",
        "a daemon that starts at all is ready at once",
    ),
    (
        "daemon_notify_timeout_seconds",
        "it is about a race between parent and child",
    ),
];

/// The keys in the tables of the documentation, which are made from the code.
fn documented() -> BTreeSet<String> {
    let text = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/docs/configuration.md"
    ))
    .unwrap();
    let mut keys = BTreeSet::new();
    let mut section = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("<!-- keys of ") {
            let name = name.strip_suffix(" -->").unwrap();
            section = Some(match name {
                "top level" => "",
                name => name.strip_prefix("maitred").unwrap(),
            });
        } else if line == "<!-- end of keys -->" {
            section = None;
        }
        let key = line
            .strip_prefix("| `")
            .and_then(|line| line.split('`').next());
        if let (Some(section), Some(key)) = (section, key) {
            keys.insert(
                format!("{section}.{key}")
                    .trim_start_matches('.')
                    .to_owned(),
            );
        }
    }
    keys
}

#[test]
fn every_key_has_a_test_and_every_test_is_there() {
    let tables = TESTS.iter().chain(UNSEEN);
    let known: BTreeSet<_> = tables.map(|(key, _)| (*key).to_owned()).collect();
    assert_eq!(documented(), known);
    for (key, test) in TESTS {
        let (module, name) = test.split_once("::").unwrap();
        let path = format!("{}/tests/suite/{module}.rs", env!("CARGO_MANIFEST_DIR"));
        let source = fs::read_to_string(path).unwrap();
        assert!(
            source.contains(&format!("fn {name}(")),
            "{key}: there is no {test}"
        );
    }
}

async fn one(name: &str) -> [Backend; 1] {
    [backend(name).start().await]
}

/// A proxy whose configuration was edited.
async fn edited(site: Site, edit: impl FnOnce(&mut serde_json::Value)) -> Proxy {
    site.edit_config(edit);
    site.started().await
}

#[tokio::test]
async fn every_listener_serves() {
    let site = proxy().upstream("web", &one("a").await).site();
    let (first, second) = (site.address(), (Ipv4Addr::LOCALHOST, free_port()).into());
    let _lb = edited(site, |config| {
        config["maitred"]["listeners"] = json!([{ "bind": first }, { "bind": second }]);
    })
    .await;
    for address in [first, second] {
        assert_eq!(get("/home").send_to(address).await.unwrap().status, 200);
    }
}

/// The harness tells every proxy another port.
#[tokio::test]
async fn the_admin_pages_are_where_they_are_told_to_be() {
    let lb = proxy().upstream("web", &one("a").await).start().await;
    assert_ne!(lb.site().admin().port(), 9900);
    assert_eq!(lb.status().await["state"], "running");
}

#[tokio::test]
async fn the_access_log_is_text_json_or_nothing() {
    for (format, begins) in [("text", "2"), ("json", "{"), ("off", "")] {
        let site = proxy().upstream("web", &one("a").await).site();
        let mut lb = edited(site, |config| {
            config["maitred"]["access_log"]["format"] = format.into();
        })
        .await;
        assert_eq!(lb.ask(get("/home")).await.status, 200);
        // It is written out when the process ends at the latest.
        lb.program().terminate();
        lb.program().wait_exit(5.secs()).await;
        let output = lb.program().output();
        assert!(output.starts_with(begins), "{format}: {output}");
        assert_eq!(output.lines().count(), begins.len(), "{format}: {output}");
    }
}

#[tokio::test]
async fn a_route_may_be_for_one_host_or_a_prefix() {
    let (a, b, c) = (one("a").await, one("b").await, one("c").await);
    let site = proxy()
        .upstream("a", &a)
        .upstream("b", &b)
        .upstream("c", &c)
        .site();
    let lb = edited(site, |config| {
        config["maitred"]["routes"] = json!([
            { "match": { "path_prefix": "/" }, "upstream": "a" },
            { "match": { "path_prefix": "/deep" }, "upstream": "b" },
            { "match": { "host": "*.example.com", "path_prefix": "/" }, "upstream": "c" },
        ]);
    })
    .await;
    for (path, host, backend) in [
        ("/deeper", "example.test", "a"),
        ("/deep/er", "example.test", "b"),
        ("/deep", "www.example.com", "c"),
    ] {
        let text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let mut client = lb.connect().await;
        client.send_bytes(text.as_bytes()).await.unwrap();
        let answer = client.receive("GET").await.unwrap();
        assert_eq!(answer.backend(), Some(backend), "{host}{path}");
    }
}

#[tokio::test]
async fn a_ping_is_given_up_on_at_its_timeout() {
    let group = [backend("a").takes(1.secs()).start().await];
    for (timeout, healthy) in [("300ms", false), ("5s", true)] {
        let site = proxy()
            .upstream("web", &group)
            .poll_every(10.secs())
            .poller_key("path", "/check")
            .poller_key("timeout", timeout)
            .site();
        let output = site.poll_once().await;
        let table = String::from_utf8_lossy(&output.stdout);
        assert_eq!(site.says_healthy("a"), healthy, "{timeout}: {table}");
    }
}

#[tokio::test]
async fn max_in_flight_weight_and_state_are_obeyed() {
    let a = backend("a").takes(50.millis()).start().await;
    let b = backend("b").takes(50.millis()).start().await;
    let c = backend("c").start().await;
    let lb = proxy()
        .upstream("web", [&a, &b, &c])
        .backend_key("a", "max_in_flight", 4)
        .backend_key("b", "max_in_flight", 4)
        .backend_key("b", "weight", 3)
        .backend_key("c", "state", "drain")
        .start()
        .await;
    let mut client = lb.connect().await;
    for _ in 0..8 {
        assert_eq!(client.ask(&get("/home")).await.unwrap().status, 200);
    }
    assert_eq!((a.begun(), b.begun(), c.begun()), (2, 6, 0));
    let tally = load(lb.address()).clients(20).requests_each(3).run().await;
    tally.assert_none_failed();
    assert_eq!((a.overlap(), b.overlap(), c.begun()), (4, 4, 0));
}

/// Takes connections and closes them; the other ends' addresses.
async fn recorder(ip: IpAddr) -> (SocketAddr, Arc<Mutex<Vec<IpAddr>>>) {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((_, peer)) = listener.accept().await {
            record.lock().unwrap().push(peer.ip());
        }
    });
    (address, seen)
}

/// Keys of Pingora that are ours to obey, because we make the connections.
#[tokio::test]
async fn connections_to_backends_come_from_where_they_are_told_to() {
    let (v4, seen) = recorder(Ipv4Addr::LOCALHOST.into()).await;
    let (v6, nobody) = recorder(Ipv6Addr::LOCALHOST.into()).await;
    let site = proxy()
        .upstream("web", &one("a").await)
        .upstream("six", &one("b").await)
        .queue_timeout(500.millis())
        .site();
    let lb = edited(site, |config| {
        config["client_bind_to_ipv4"] = json!(["127.0.0.5", "127.0.0.6"]);
        // Not an address of ours: there is but one on this host for certain.
        config["client_bind_to_ipv6"] = json!(["2001:db8::1"]);
        let upstreams = &mut config["maitred"]["upstreams"];
        upstreams["web"]["backends"][0]["address"] = json!(v4);
        upstreams["six"]["backends"][0]["address"] = json!(v6);
    })
    .await;
    let expected: [IpAddr; 2] = ["127.0.0.5".parse().unwrap(), "127.0.0.6".parse().unwrap()];
    until("both were used", 10.secs(), async || {
        lb.ask(get("/home")).await;
        let seen = seen.lock().unwrap();
        expected.iter().all(|address| seen.contains(address))
    })
    .await;
    let seen = seen.lock().unwrap().clone();
    assert!(seen.iter().all(|address| expected.contains(address)));
    assert_eq!(lb.ask(get("/six")).await.status, 500);
    assert_eq!(*nobody.lock().unwrap(), [] as [IpAddr; 0]);
}

#[tokio::test]
async fn a_full_pool_closes_the_connection_that_was_idle_longest() {
    for (size, connections) in [(128, 1), (1, 3)] {
        let (a, b) = (backend("a").start().await, backend("b").start().await);
        let site = proxy()
            .upstream("web", [&a, &b])
            .idle_timeout(30.secs())
            .site();
        let lb = edited(site, |config| {
            config["threads"] = 1.into();
            config["upstream_keepalive_pool_size"] = size.into();
        })
        .await;
        for _ in 0..6 {
            assert_eq!(lb.ask(get("/home")).await.status, 200);
        }
        assert_eq!([a.connections(), b.connections()], [connections; 2]);
    }
}

#[tokio::test]
async fn one_attempt_is_all_where_no_more_are_allowed() {
    for (max_retries, all_are_good) in [(1_000, true), (1, false)] {
        let (dead, good) = (backend("dead").start().await, backend("good").start().await);
        let site = proxy().upstream("web", [&dead, &good]).site();
        let lb = edited(site, |config| config["max_retries"] = max_retries.into()).await;
        dead.kill().await;
        let statuses = [
            lb.ask(get("/home")).await.status,
            lb.ask(get("/home")).await.status,
        ];
        assert_eq!(statuses == [200, 200], all_are_good, "{statuses:?}");
    }
}

/// How many threads of a process have a name. The system keeps but its first 15 bytes.
fn threads_called(id: u32, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")));
    // A thread may end meanwhile.
    let names = names.map(Result::unwrap_or_default);
    names.filter(|one| one.trim_end() == name).count()
}

#[tokio::test]
async fn threads_are_as_many_as_are_asked_for() {
    let site = proxy().upstream("web", &one("a").await).site();
    let mut lb = edited(site, |config| {
        config["threads"] = 5.into();
        config["upstream_connect_offload_threadpools"] = 2.into();
        config["upstream_connect_offload_thread_per_pool"] = 3.into();
    })
    .await;
    assert_eq!(lb.ask(get("/home")).await.status, 200);
    let id = lb.program().id();
    // A thread that has just begun has not got its own name yet, but that of the process's first thread.
    until("every thread has its name", 5.secs(), async || {
        threads_called(id, "proxy") == 1 + 5 && threads_called(id, "upstream connec") == 2 * 3
    })
    .await;
}

/// A process that is no child of ours. Killed when dropped.
struct Daemon(Pid);

impl Daemon {
    /// The process whose id a file gets.
    async fn of(pid_file: &Path) -> Self {
        let mut id = None;
        until("the daemon writes its id", 5.secs(), async || {
            let text = fs::read_to_string(pid_file).unwrap_or_default();
            id = text.trim().parse().ok().and_then(Pid::from_raw);
            id.is_some()
        })
        .await;
        Self(id.unwrap())
    }

    fn proc(&self, file: &str) -> PathBuf {
        format!("/proc/{}/{file}", self.0.as_raw_nonzero()).into()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails when it has ended.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Of one whose parent waits for it.
async fn daemons_site() -> Site {
    let site = proxy().upstream("web", &one("a").await).site();
    site.edit_config(|config| {
        config["daemon"] = true.into();
        config["daemon_wait_for_ready"] = true.into();
        config["pid_file"] = json!(site.path("proxy.pid"));
        config["error_log"] = json!(site.path("errors"));
    });
    site
}

/// Pingora's parent begins to listen after the fork, and would be ended by what it is told before that.
#[tokio::test]
async fn a_daemon_that_is_ready_before_its_parent_listens_waits_for_that() {
    let _room = Room::shared().await;
    // Two of three times it listens before it can be stopped.
    for _ in 0..8 {
        let site = daemons_site().await;
        let mut parent = site.start_proxy();
        let begun = Instant::now();
        while !site.path("proxy.pid").exists() {
            assert!(begun.elapsed() < 10.secs(), "no daemon");
            std::hint::spin_loop();
        }
        let id = Pid::from_raw(parent.id().cast_signed()).unwrap();
        kill_process(id, Signal::STOP).unwrap();
        let _daemon = Daemon::of(&site.path("proxy.pid")).await;
        tokio::time::sleep(200.millis()).await;
        kill_process(id, Signal::CONT).unwrap();
        assert_eq!(parent.wait_exit(10.secs()).await.0, Some(0));
    }
}

#[tokio::test]
async fn a_daemon_says_when_it_serves_and_where_it_is() {
    let _room = Room::shared().await;
    let site = daemons_site().await;
    let folder = site.path("elsewhere");
    fs::create_dir(&folder).unwrap();
    site.edit_config(|config| config["working_directory"] = json!(folder));
    let mut parent = site.start_proxy();
    assert_eq!(parent.wait_exit(10.secs()).await.0, Some(0));
    let daemon = Daemon::of(&site.path("proxy.pid")).await;
    site.says_ready().await;
    assert_eq!(
        get("/home").send_to(site.address()).await.unwrap().status,
        200
    );
    assert_eq!(fs::read_link(daemon.proc("cwd")).unwrap(), folder);
    let log = fs::read_to_string(site.path("errors")).unwrap();
    assert!(log.contains("listening"), "{log}");
    kill_process(daemon.0, Signal::TERM).unwrap();
    until("the daemon has ended", 5.secs(), async || {
        Client::connect(site.admin()).await.is_err()
    })
    .await;
}

/// The number in the third field of a name's line of /etc/passwd or /etc/group.
fn number_of(name: &str, file: &str) -> String {
    let text = fs::read_to_string(file).unwrap();
    let mut lines = text.lines().map(|line| line.split(':'));
    let mut line = lines
        .find(|line| line.clone().next() == Some(name))
        .unwrap();
    line.nth(2).unwrap().to_owned()
}

#[tokio::test]
async fn a_daemon_becomes_who_it_is_told_to_be() {
    if !is_root() {
        return;
    }
    let _room = Room::shared().await;
    let site = proxy().upstream("web", &one("a").await).site();
    site.edit_config(|config| {
        config["daemon"] = true.into();
        config["pid_file"] = json!(site.path("proxy.pid"));
        config["user"] = "nobody".into();
        config["group"] = "daemon".into();
    });
    let _parent = site.start_proxy();
    let daemon = Daemon::of(&site.path("proxy.pid")).await;
    let (user, group) = (
        number_of("nobody", "/etc/passwd"),
        number_of("daemon", "/etc/group"),
    );
    let expected = [
        format!("Uid:\t{user}\t{user}\t{user}\t{user}"),
        format!("Gid:\t{group}\t{group}\t{group}\t{group}"),
    ];
    until("it is somebody else", 5.secs(), async || {
        let status = fs::read_to_string(daemon.proc("status")).unwrap();
        expected.iter().all(|line| status.contains(line))
    })
    .await;
}
