//! Every key of the configuration has a test in which it makes a difference that can be seen from
//! outside. Most stand with what they are about; the table says where. The others stand here.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::net::TcpListener;

use crate::harness::{Backend, Proxy, Site, Units, backend, free_port, get, load, proxy, until};

/// Every key of ours, and the test that it makes a difference.
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
        "access_log.format",
        "keys::the_access_log_is_text_json_or_nothing",
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
        "upstreams.NAME.queue.size",
        "queue::one_more_than_the_queue_holds_is_refused_at_once",
    ),
    (
        "upstreams.NAME.queue.timeout",
        "queue::past_the_queue_timeout_the_answer_is_503",
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
            section = name
                .strip_suffix(" -->")
                .and_then(|name| name.strip_prefix("maitred"));
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
    let tested: BTreeSet<_> = TESTS.iter().map(|(key, _)| (*key).to_owned()).collect();
    assert_eq!(documented(), tested);
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

/// A Pingora key that is ours to obey, because we make the connections.
#[tokio::test]
async fn connections_to_backends_come_from_where_they_are_told_to() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port()))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((_, peer)) = listener.accept().await {
            record.lock().unwrap().push(peer.ip());
        }
    });
    let site = proxy().upstream("web", &one("a").await).site();
    let lb = edited(site, |config| {
        config["client_bind_to_ipv4"] = json!(["127.0.0.5", "127.0.0.6"]);
        config["maitred"]["upstreams"]["web"]["backends"][0]["address"] = json!(address);
    })
    .await;
    let expected: [IpAddr; 2] = ["127.0.0.5".parse().unwrap(), "127.0.0.6".parse().unwrap()];
    until("both were used", 10.secs(), async || {
        lb.ask(get("/home")).await;
        let seen = seen.lock().unwrap();
        expected.iter().all(|address| seen.contains(address))
    })
    .await;
    assert!(
        seen.lock()
            .unwrap()
            .iter()
            .all(|address| expected.contains(address))
    );
}
