//! Wrong texts and everything that is said of them.

use std::env::VarError;

use super::*;

/// What is said of a text; nothing if it is right.
fn said(text: &str) -> String {
    Config::parse(text, "c")
        .err()
        .map_or(String::new(), |error| error.to_string())
}

/// `LEAST` with lines of Pingora's, from line 8.
fn top(lines: &str) -> String {
    format!("{LEAST}{lines}\n")
}

/// `LEAST` with another backend, which stands on line 7.
fn backed(backend: &str) -> String {
    LEAST.replacen("{ name: server1, address: 127.0.0.1:8081 }", backend, 1)
}

/// `LEAST` with lines of its upstream, from line 6.
fn upstreamed(line: &str) -> String {
    LEAST.replacen("    demo:\n", &format!("    demo:\n      {line}\n"), 1)
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
            "a:\n  {".into(),
            "c:2:4: not YAML: while parsing a node, did not find expected node content",
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
            "c:8:1: \"a b\\n\": unknown key, expected one of version, daemon, error_log, pid_file, user, group, working_directory, threads, listener_tasks_per_fd, work_stealing, grace_period_seconds, client_bind_to_ipv4, client_bind_to_ipv6, upstream_keepalive_pool_size, upstream_connect_offload_threadpools, upstream_connect_offload_thread_per_pool, max_retries, max_blocking_threads, blocking_threads_ttl_seconds, fast_timeout_to_tokio_threshold_seconds, daemon_wait_for_ready, daemon_ready_timeout_seconds, daemon_notify_timeout_seconds, upgrade_sock, upgrade_sock_connect_accept_max_retries, graceful_shutdown_timeout_seconds, ca_file, upstream_debug_ssl_keylog, downstream_tls_offload_threadpools, downstream_tls_offload_thread_per_pool, runtime_enable_alt_timer, runtime_metrics_poll_time_histogram, runtime_metrics_poll_time_histogram_scale, runtime_metrics_poll_time_histogram_resolution_micros, runtime_metrics_poll_time_histogram_buckets, maitred",
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
            top("upstream_keepalive_pool_size: 65537"),
            "c:8:31: upstream_keepalive_pool_size: 65537 is not in 1..=65536",
        ),
        (
            top("daemon_ready_timeout_seconds: 0"),
            "c:8:31: daemon_ready_timeout_seconds: 0 is not in 1..=4294967295",
        ),
    ]);
}

#[test]
fn keys_of_pingora_that_do_nothing_are_refused() {
    assert_said([
        (
            top("ca_file: /etc/ssl/ca.pem"),
            "c:8:10: ca_file: has no effect in maitred: it does not do TLS yet",
        ),
        (
            top("upgrade_sock: /run/upgrade.sock"),
            "c:8:15: upgrade_sock: has no effect in maitred: it does not hand its listeners on to a new process",
        ),
        (
            top("graceful_shutdown_timeout_seconds: 5"),
            "c:8:36: graceful_shutdown_timeout_seconds: has no effect in maitred: it ends with its last request, and when grace_period_seconds are over at the latest",
        ),
        (
            top("runtime_enable_alt_timer: true"),
            "c:8:27: runtime_enable_alt_timer: has no effect in maitred: it is not built with --cfg tokio_unstable",
        ),
        (
            top("upstream_connect_offload_threadpools: 2"),
            "c:8:39: upstream_connect_offload_threadpools: has no effect without upstream_connect_offload_thread_per_pool",
        ),
        (
            top(
                "upstream_connect_offload_threadpools: 0\nupstream_connect_offload_thread_per_pool: 2",
            ),
            "c:9:43: upstream_connect_offload_thread_per_pool: has no effect without upstream_connect_offload_threadpools",
        ),
    ]);
    for key in WITHOUT_EFFECT {
        let said = said(&top(&format!("{key}: 5")));
        assert!(said.contains("has no effect in maitred"), "{said}");
    }
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
            "c:2:3: maitred.xyz: unknown key, expected one of listeners, admin, clients, limits, poller, health, access_log, explain, request_id, server_timing, upstreams, routes",
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
            ours("access_log: { sample: 1.5 }"),
            "c:2:25: maitred.access_log.sample: 1.5 is not a share such as 0.01, in 0..=1",
        ),
        (
            ours("access_log: { sample: 1e-2 }"),
            "c:2:25: maitred.access_log.sample: 1e-2 is not a share such as 0.01, in 0..=1",
        ),
        (
            ours("access_log: { query: drop, redact_query: [a] }"),
            "c:2:44: maitred.access_log.redact_query: has no effect with query: drop",
        ),
        (
            ours("access_log: { request_headers: [A, a] }"),
            "c:2:38: maitred.access_log.request_headers[1]: twice in the list",
        ),
        (
            ours("access_log: { request_headers: [A], redact_headers: [B] }"),
            "c:2:55: maitred.access_log.redact_headers: b is not in request_headers",
        ),
        (
            ours("request_id: on"),
            "c:2:15: maitred.request_id: on is not one of accept, replace, off",
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
            ours("listeners:\n- bind: 0.0.0.0:80\n- bind: '[::]:80'"),
            "c:4:11: maitred.listeners[1].bind: [::]:80 is taken by 0.0.0.0:80 of maitred.listeners[0].bind on line 3",
        ),
        (
            ours("listeners:\n- bind: '[::]:80'\n- bind: 10.0.0.1:80"),
            "c:4:11: maitred.listeners[1].bind: 10.0.0.1:80 is taken by [::]:80 of maitred.listeners[0].bind on line 3",
        ),
        (
            ours("listeners:\n- bind: 0.0.0.0:80\n- bind: '[::1]:80'"),
            "",
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
            ours(
                "poller: { evidence: [127.0.0.1:9900, https://a:1, http://a, http://a:1/b, unix:/a, 7] }",
            ),
            "c:2:24: maitred.poller.evidence[0]: 127.0.0.1:9900 is not an admin address such as http://127.0.0.1:9900 (no path, no TLS)\n\
             c:2:40: maitred.poller.evidence[1]: https://a:1 is not an admin address such as http://127.0.0.1:9900 (no path, no TLS)\n\
             c:2:53: maitred.poller.evidence[2]: http://a is not an admin address such as http://127.0.0.1:9900 (no path, no TLS)\n\
             c:2:63: maitred.poller.evidence[3]: http://a:1/b is not an admin address such as http://127.0.0.1:9900 (no path, no TLS)\n\
             c:2:77: maitred.poller.evidence[4]: unix:/a is not an admin address such as http://127.0.0.1:9900 (no path, no TLS)\n\
             c:2:86: maitred.poller.evidence[5]: 7 is not an admin address such as http://127.0.0.1:9900 (no path, no TLS)",
        ),
        (
            ours("poller: { evidence: http://a:1, skip_when_busy: 1 }"),
            "c:2:23: maitred.poller.evidence: http://a:1 is not a list such as [\"http://127.0.0.1:9900\"], or [] for none\n\
             c:2:51: maitred.poller.skip_when_busy: 1 is not true or false",
        ),
        (
            ours("poller: { metrics: 9901 }"),
            "c:2:22: maitred.poller.metrics: 9901 is not an address such as 0.0.0.0:8080 or [::]:8080, or off",
        ),
        (
            ours("poller: { metrics: '0.0.0.0:9900' }"),
            "c:2:22: maitred.poller.metrics: 0.0.0.0:9900 is taken by 127.0.0.1:9900 of maitred.admin.bind on line 2",
        ),
        (
            ours("poller: { interval: 1s, timeout: 1500ms }"),
            "c:2:36: maitred.poller.timeout: 1500ms is not at most the interval of 1s",
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
fn freshness_is_checked() {
    assert_said([
        (
            ours("health: { stale_after: 30 }"),
            "c:2:26: maitred.health.stale_after: 30 is not a duration such as 10s, or off",
        ),
        (
            ours("health: { stale_after: 25h }"),
            "c:2:26: maitred.health.stale_after: 25h is not in 1ms..=24h, or off",
        ),
        (
            ours("health: { when_stale: fail }"),
            "c:2:25: maitred.health.when_stale: fail is not one of keep, fail_open, fail_closed",
        ),
        (
            ours("health: { when_missing: keep }"),
            "c:2:27: maitred.health.when_missing: keep is not one of fail_closed, fail_open",
        ),
        (
            ours("health: { max_flip_percent: 0 }"),
            "c:2:31: maitred.health.max_flip_percent: 0 is not in 1..=100",
        ),
        (
            ours("health: { max_flip_percent: 101 }"),
            "c:2:31: maitred.health.max_flip_percent: 101 is not in 1..=100",
        ),
        (
            ours("health: { max_flip_percent: 50% }"),
            "c:2:31: maitred.health.max_flip_percent: 50% is not a whole number",
        ),
        (
            ours("health: { confirm_after: off }"),
            "c:2:28: maitred.health.confirm_after: off is not a duration such as 10s",
        ),
        (
            ours("health: { stale: off }"),
            "c:2:13: maitred.health.stale: unknown key, expected one of file, stale_after, when_stale, when_missing, max_flip_percent, confirm_after",
        ),
        (
            ours("health: { staleAfter: off }"),
            "c:2:13: maitred.health.staleAfter: unknown key, did you mean `stale_after`?",
        ),
    ]);
}

#[test]
fn a_file_may_not_go_stale_between_two_rounds_of_the_poller() {
    assert_said([
        (
            ours("health: { stale_after: 1s }\npoller: { interval: 3s }"),
            "c:2:26: maitred.health.stale_after: 1s is not at least 6s, a round of the poller (interval 3s, jitter 0%, timeout 2s) and 1s: raise it or shorten those, or off",
        ),
        (
            ours("health: { stale_after: 12999ms }"),
            "c:2:26: maitred.health.stale_after: 12999ms is not at least 13s, a round of the poller (interval 10s, jitter 0%, timeout 2s) and 1s: raise it or shorten those, or off",
        ),
        (
            ours("health: { stale_after: 13s }\npoller: { jitter: 1% }"),
            "c:2:26: maitred.health.stale_after: 13s is not at least 13s 100ms, a round of the poller (interval 10s, jitter 1%, timeout 2s) and 1s: raise it or shorten those, or off",
        ),
        (
            ours("health: { stale_after: 13s }\npoller: { skip_when_busy: true }"),
            "c:2:26: maitred.health.stale_after: 13s is not at least 14s, a round of the poller (interval 10s, jitter 0%, timeout 2s) and 2s: raise it or shorten those, or off",
        ),
        (ours("health: { stale_after: 13s }"), ""),
        // One mistake is one problem.
        (
            ours("health: { stale_after: 1s }\npoller: { interval: 3 }"),
            "c:3:23: maitred.poller.interval: 3 is not a duration such as 10s",
        ),
    ]);
}

#[test]
fn pings_are_checked() {
    assert_said([
        (
            ours("poller: { fast_interval: 11s }"),
            "c:2:28: maitred.poller.fast_interval: 11s is not at most the interval of 10s",
        ),
        (
            ours("poller: { interval: 500ms, fast_interval: 1s }"),
            "c:2:45: maitred.poller.fast_interval: 1s is not at most the interval of 500ms",
        ),
        (
            ours("poller: { interval: x, fast_interval: 1h, timeout: 1h }"),
            "c:2:23: maitred.poller.interval: x is not a duration such as 10s",
        ),
        (
            ours("poller: { fast_interval: 0s }"),
            "c:2:28: maitred.poller.fast_interval: 0s is not in 1ms..=24h",
        ),
        (
            ours("poller: { jitter: 10 }"),
            "c:2:21: maitred.poller.jitter: 10 is not a percentage such as 10%",
        ),
        (
            ours("poller: { jitter: 51% }"),
            "c:2:21: maitred.poller.jitter: 51% is not in 0%..=50%",
        ),
        (
            ours("poller: { jitter: 256% }"),
            "c:2:21: maitred.poller.jitter: 256% is not in 0%..=50%",
        ),
        (
            ours("poller: { jitter: -1% }"),
            "c:2:21: maitred.poller.jitter: -1% is not a percentage such as 10%",
        ),
        (
            ours("poller: { rise: 0 }"),
            "c:2:19: maitred.poller.rise: 0 is not in 1..=100",
        ),
        (
            ours("poller: { fall: 101 }"),
            "c:2:19: maitred.poller.fall: 101 is not in 1..=100",
        ),
        (
            ours("poller: { detail: 1 }"),
            "c:2:21: maitred.poller.detail: 1 is not true or false",
        ),
        (
            ours("poller: { host: 'a b' }"),
            "c:2:19: maitred.poller.host: \"a b\" is not a host such as app.internal, app.internal:8081 or [::1]:8081",
        ),
        (
            ours("poller: { host: 'a:0' }"),
            "c:2:19: maitred.poller.host: \"a:0\" is not a host such as app.internal, app.internal:8081 or [::1]:8081",
        ),
        (
            ours("poller: { host: 'a:65536' }"),
            "c:2:19: maitred.poller.host: \"a:65536\" is not a host such as app.internal, app.internal:8081 or [::1]:8081",
        ),
        (
            ours("poller: { host: '::1' }"),
            "c:2:19: maitred.poller.host: \"::1\" is not a host such as app.internal, app.internal:8081 or [::1]:8081",
        ),
        (
            ours("poller: { host: 'user@a' }"),
            "c:2:19: maitred.poller.host: \"user@a\" is not a host such as app.internal, app.internal:8081 or [::1]:8081",
        ),
        (
            ours("poller: { host: ~ }"),
            "c:2:13: maitred.poller.host: empty, expected a host such as app.internal, app.internal:8081 or [::1]:8081",
        ),
        (
            ours("poller: { expect_status: ok }"),
            "c:2:28: maitred.poller.expect_status: ok is not a status such as 200 or a range such as 200-299",
        ),
        (
            ours("poller: { expect_status: 99 }"),
            "c:2:28: maitred.poller.expect_status: 99 is not in 100..=599",
        ),
        (
            ours("poller: { expect_status: 200-600 }"),
            "c:2:28: maitred.poller.expect_status: 200-600 is not in 100..=599",
        ),
        (
            ours("poller: { expect_status: 299-200 }"),
            "c:2:28: maitred.poller.expect_status: 299-200 is not a range from the lower to the higher status",
        ),
        (
            ours("poller: { expect_status: [] }"),
            "c:2:28: maitred.poller.expect_status: empty, expected a list such as [200, 300-399]",
        ),
        (
            ours("poller: { expect_status: [200, 2xx, '300-'] }"),
            "c:2:34: maitred.poller.expect_status[1]: 2xx is not a status such as 200 or a range such as 200-299\nc:2:39: maitred.poller.expect_status[2]: \"300-\" is not a status such as 200 or a range such as 200-299",
        ),
        (
            upstreamed("poller: { path: ping, interval: 1s }"),
            "c:6:23: maitred.upstreams.demo.poller.path: ping is not a path such as /ping, in visible ascii without #\nc:6:29: maitred.upstreams.demo.poller.interval: unknown key, expected one of path, host, expect_status",
        ),
        (
            upstreamed("poller: { host: '', expect_status: 0 }"),
            "c:6:23: maitred.upstreams.demo.poller.host: \"\" is not a host such as app.internal, app.internal:8081 or [::1]:8081\nc:6:42: maitred.upstreams.demo.poller.expect_status: 0 is not in 100..=599",
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
fn the_queue_is_checked() {
    assert_said([
        (
            upstreamed("queue: { fair_by: X-Tenant }"),
            "c:6:25: maitred.upstreams.demo.queue.fair_by: X-Tenant is not client_address or a header such as header:X-Tenant, or off",
        ),
        (
            upstreamed("queue: { fair_by: 'header:X Tenant' }"),
            "c:6:25: maitred.upstreams.demo.queue.fair_by: \"header:X Tenant\" is not client_address or a header such as header:X-Tenant, or off",
        ),
        (
            upstreamed("queue: { fair_by: client_address, size_per_key: 0 }"),
            "c:6:55: maitred.upstreams.demo.queue.size_per_key: 0 is not in 1..=1000000",
        ),
        (
            upstreamed("queue: { size_per_key: 5 }"),
            "c:6:30: maitred.upstreams.demo.queue.size_per_key: has no effect without fair_by",
        ),
        (
            upstreamed("queue: { priority: { header: X-Priority, aging: 5s } }"),
            "c:6:36: maitred.upstreams.demo.queue.priority.header: has no effect without trusted\n\
             c:6:55: maitred.upstreams.demo.queue.priority.aging: has no effect without trusted",
        ),
        (
            upstreamed("queue: { priority: { trusted: [] } }"),
            "c:6:37: maitred.upstreams.demo.queue.priority.trusted: empty, expected a list such as [127.0.0.1, 10.0.0.0/8]",
        ),
        (
            upstreamed("queue: { priority: { trusted: 10.0.0.0/8 } }"),
            "c:6:37: maitred.upstreams.demo.queue.priority.trusted: 10.0.0.0/8 is not a list such as [127.0.0.1, 10.0.0.0/8]",
        ),
        (
            upstreamed("queue: { priority: { trusted: [10.0.0.0/33, 10.0.0.1/8, proxy] } }"),
            "c:6:38: maitred.upstreams.demo.queue.priority.trusted[0]: 10.0.0.0/33 is not a network with a prefix of at most 32 bits\n\
             c:6:51: maitred.upstreams.demo.queue.priority.trusted[1]: 10.0.0.1/8 is not a network: its first address is 10.0.0.0/8\n\
             c:6:63: maitred.upstreams.demo.queue.priority.trusted[2]: proxy is not an IP address or a network such as 10.0.0.0/8",
        ),
        (
            upstreamed("queue: { priority: { trusted: [::1], header: 'X Y' } }"),
            "c:6:52: maitred.upstreams.demo.queue.priority.header: \"X Y\" is not a header's name such as X-Tenant",
        ),
        (
            upstreamed("queue: { priority: { trusted: ['::1'], levels: 3 } }"),
            "c:6:46: maitred.upstreams.demo.queue.priority.levels: unknown key, expected one of trusted, header, aging",
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
            backed("{ name: a, address: backend.local }"),
            "c:7:31: maitred.upstreams.demo.backends[0].address: backend.local is not an address with a port in 1..=65535",
        ),
        (
            backed("{ name: a, address: '127.0.0.1:0' }"),
            "c:7:31: maitred.upstreams.demo.backends[0].address: \"127.0.0.1:0\" is not an address with a port in 1..=65535",
        ),
        (
            backed("{ name: a, address: 0.0.0.0:80 }"),
            "c:7:31: maitred.upstreams.demo.backends[0].address: 0.0.0.0:80 is not an address of a server: it is one to listen on",
        ),
        (
            backed("{ name: a, address: '[::]:80' }"),
            "c:7:31: maitred.upstreams.demo.backends[0].address: \"[::]:80\" is not an address of a server: it is one to listen on",
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
fn weights_and_states_are_checked() {
    assert_said([
        (
            backed("{ name: a, address: 'a:1', weight: 0 }"),
            "c:7:46: maitred.upstreams.demo.backends[0].weight: 0 is not in 1..=1000",
        ),
        (
            backed("{ name: a, address: 'a:1', weight: 1001 }"),
            "c:7:46: maitred.upstreams.demo.backends[0].weight: 1001 is not in 1..=1000",
        ),
        (
            backed("{ name: a, address: 'a:1', state: down }"),
            "c:7:45: maitred.upstreams.demo.backends[0].state: down is not one of ready, drain, maint",
        ),
        (
            upstreamed("outlier: {}"),
            "c:6:7: maitred.upstreams.demo.outlier: unknown key, expected one of poller, balance, queue, timeouts, retry, outlier_detection, keepalive, busy_limit, backends",
        ),
        (
            upstreamed("outlier_detection: { errors: 3 }"),
            "c:6:28: maitred.upstreams.demo.outlier_detection.errors: unknown key, expected one of consecutive_errors, error_percent, error_window, min_requests, latency_factor, base_ejection, max_ejection, max_ejection_percent",
        ),
        (
            upstreamed("outlier_detection: { consecutive_errors: 0 }"),
            "c:6:48: maitred.upstreams.demo.outlier_detection.consecutive_errors: 0 is not in 1..=10000, or off",
        ),
        (
            upstreamed("outlier_detection: { error_percent: 101 }"),
            "c:6:43: maitred.upstreams.demo.outlier_detection.error_percent: 101 is not in 1..=100, or off",
        ),
        (
            upstreamed("outlier_detection: { error_window: 10 }"),
            "c:6:42: maitred.upstreams.demo.outlier_detection.error_window: 10 is not a duration such as 10s",
        ),
        (
            upstreamed("outlier_detection: { min_requests: 0 }"),
            "c:6:42: maitred.upstreams.demo.outlier_detection.min_requests: 0 is not in 1..=1000000",
        ),
        (
            upstreamed("outlier_detection: { latency_factor: 1 }"),
            "c:6:44: maitred.upstreams.demo.outlier_detection.latency_factor: 1 is not a factor such as 3, in 1.1..=1000, or off",
        ),
        (
            upstreamed("outlier_detection: { base_ejection: off }"),
            "c:6:43: maitred.upstreams.demo.outlier_detection.base_ejection: off is not a duration such as 10s",
        ),
        (
            upstreamed("outlier_detection: { max_ejection: 5s }"),
            "c:6:42: maitred.upstreams.demo.outlier_detection.max_ejection: shorter than base_ejection",
        ),
        (
            upstreamed("outlier_detection: { max_ejection_percent: 50% }"),
            "c:6:50: maitred.upstreams.demo.outlier_detection.max_ejection_percent: 50% is not a whole number",
        ),
        (
            upstreamed("keepalive: never"),
            "c:6:18: maitred.upstreams.demo.keepalive: never is not one of on, off",
        ),
        (
            upstreamed("retry: { attempts: 0 }"),
            "c:6:26: maitred.upstreams.demo.retry.attempts: 0 is not in 1..=100",
        ),
        (
            upstreamed("retry: { on: 503 }"),
            "c:6:20: maitred.upstreams.demo.retry.on: 503 is not a list such as [connect_failure, 503]",
        ),
        (
            upstreamed("retry: { on: [reset] }"),
            "c:6:21: maitred.upstreams.demo.retry.on[0]: reset is not one of connect_failure, reset_before_response, stale_connection, invalid_response, 502, 503, 504, timeout",
        ),
        (
            upstreamed("retry: { budget_percent: 101 }"),
            "c:6:32: maitred.upstreams.demo.retry.budget_percent: 101 is not in 0..=100",
        ),
        (
            upstreamed("retry: { non_idempotent: yes }"),
            "c:6:32: maitred.upstreams.demo.retry.non_idempotent: yes is not true or false",
        ),
    ]);
}

#[test]
fn ways_to_balance_are_checked() {
    assert_eq!(said(&upstreamed("balance: least_requests")), "");
    let wrong = said(&upstreamed("balance: roundrobin"));
    let place = "c:6:16: maitred.upstreams.demo.balance: roundrobin is not one of round_robin, ";
    assert!(wrong.starts_with(place), "{wrong}");
    assert!(wrong.ends_with(", did you mean `round_robin`?"), "{wrong}");
    for (value, shown) in [("least_conn", "least_conn"), ("[round_robin]", "a list")] {
        let wrong = said(&upstreamed(&format!("balance: {value}")));
        assert!(
            wrong.contains(&format!("{shown} is not one of ")),
            "{wrong}"
        );
        assert!(!wrong.contains("did you mean"), "{wrong}");
    }
    assert_said([(
        upstreamed("ballance: round_robin"),
        "c:6:7: maitred.upstreams.demo.ballance: unknown key, did you mean `balance`?",
    )]);
}

#[test]
fn one_address_is_one_backend() {
    let two = |first: &str, second: &str| {
        let backends = format!(
            "{{ name: a, address: '{first}' }}\n        - {{ name: b, address: '{second}' }}"
        );
        backed(&backends)
    };
    assert_said([
        (
            two("127.0.0.1:81", "[::ffff:127.0.0.1]:81"),
            "c:8:31: maitred.upstreams.demo.backends[1].address: [::ffff:127.0.0.1]:81 is taken by maitred.upstreams.demo.backends[0].address on line 7",
        ),
        (
            two("app.internal:81", "App.Internal:81"),
            "c:8:31: maitred.upstreams.demo.backends[1].address: app.internal:81 is taken by maitred.upstreams.demo.backends[0].address on line 7",
        ),
        (
            two("unix:/run/app.sock", "unix:/run/app.sock"),
            "c:8:31: maitred.upstreams.demo.backends[1].address: unix:/run/app.sock is taken by maitred.upstreams.demo.backends[0].address on line 7",
        ),
        (
            two("unix:/run/app.sock", "unix:run/app.sock"),
            "c:8:31: maitred.upstreams.demo.backends[1].address: \"unix:run/app.sock\" is not an absolute path of a socket, at most 107 bytes after unix:",
        ),
        (two("a:81", "a:82"), ""),
        (two("[::1]:81", "127.0.0.1:81"), ""),
        (two("unix:/a", "unix:/b"), ""),
        (
            LEAST.to_owned() + "    web: { backends: [{ name: b, address: '127.0.0.1:8081' }] }\n",
            "c:8:43: maitred.upstreams.web.backends[0].address: 127.0.0.1:8081 is taken by maitred.upstreams.demo.backends[0].address on line 7",
        ),
    ]);
}

#[test]
fn the_proxy_is_no_backend_of_itself() {
    let bound = |bind: &str, backend: &str| {
        let text = ours(&format!("listeners: [{{ bind: '{bind}' }}]"));
        text.replace("127.0.0.1:8081", &format!("'{backend}'"))
    };
    assert_said([
        (
            backed("{ name: a, address: 127.0.0.1:8080 }"),
            "c:7:31: maitred.upstreams.demo.backends[0].address: 127.0.0.1:8080 is taken by maitred.listeners on line 2, which is the proxy itself",
        ),
        (
            backed("{ name: a, address: 127.0.0.1:9900 }"),
            "c:7:31: maitred.upstreams.demo.backends[0].address: 127.0.0.1:9900 is taken by maitred.admin.bind on line 2, which is the proxy itself",
        ),
        (
            bound("0.0.0.0:80", "127.0.0.2:80"),
            "c:8:37: maitred.upstreams.demo.backends[0].address: 127.0.0.2:80 is taken by maitred.listeners[0].bind on line 2, which is the proxy itself",
        ),
        (
            bound("10.0.0.1:80", "[::ffff:10.0.0.1]:80"),
            "c:8:37: maitred.upstreams.demo.backends[0].address: [::ffff:10.0.0.1]:80 is taken by maitred.listeners[0].bind on line 2, which is the proxy itself",
        ),
        (
            bound("[::]:80", "127.0.0.1:80"),
            "c:8:37: maitred.upstreams.demo.backends[0].address: 127.0.0.1:80 is taken by maitred.listeners[0].bind on line 2, which is the proxy itself",
        ),
        (
            bound("[::]:80", "[::1]:80"),
            "c:8:37: maitred.upstreams.demo.backends[0].address: [::1]:80 is taken by maitred.listeners[0].bind on line 2, which is the proxy itself",
        ),
        (
            bound("0.0.0.0:80", "localhost:80"),
            "c:8:37: maitred.upstreams.demo.backends[0].address: localhost:80 is taken by maitred.listeners[0].bind on line 2, which is the proxy itself",
        ),
        (bound("0.0.0.0:80", "[::1]:80"), ""),
        (bound("0.0.0.0:80", "10.0.0.1:80"), ""),
        (bound("127.0.0.1:80", "127.0.0.2:80"), ""),
        (bound("127.0.0.1:80", "127.0.0.1:81"), ""),
        (bound("0.0.0.0:80", "unix:/80"), ""),
    ]);
}

#[test]
fn references_to_the_environment_are_checked() {
    let environment = |name: &str| match name {
        "SLOTS" => Ok("five".to_owned()),
        "STRUCTURE" => Ok("1, name: b }".to_owned()),
        "EMPTY" => Ok(String::new()),
        "BYTES" => Err(VarError::NotUnicode("\u{0}".into())),
        _ => Err(VarError::NotPresent),
    };
    let threads = |value: &str| top(&format!("threads: {value}"));
    let cases = [
        (
            threads("${NOBODY}"),
            "c:8:10: threads: ${NOBODY} is not set, expected a value or a default as in ${NOBODY:-default}",
        ),
        (
            threads("${BYTES}"),
            "c:8:10: threads: ${BYTES} is not UTF-8",
        ),
        (
            threads("${BYTES:-1}"),
            "c:8:10: threads: ${BYTES} is not UTF-8",
        ),
        (
            threads("${SLOTS}"),
            "c:8:10: threads: five is not a whole number",
        ),
        (
            threads("'${SLOTS}'"),
            "c:8:10: threads: \"five\" is not a whole number",
        ),
        (
            threads("'${NOBODY:-4}'"),
            "c:8:10: threads: \"4\" is not a whole number",
        ),
        (
            threads("${STRUCTURE}"),
            "c:8:10: threads: 1, name: b } is not a whole number",
        ),
        (
            threads("${EMPTY}"),
            "c:8:1: threads: empty, expected a whole number",
        ),
        (
            threads("${EMPTY:-0}"),
            "c:8:10: threads: 0 is not in 1..=1024",
        ),
        (
            threads("$${SLOTS}"),
            "c:8:10: threads: ${SLOTS} is not a whole number",
        ),
        (
            threads("${"),
            "c:8:10: threads: \"${\" is not a reference such as ${NAME} or ${NAME:-default}; a plain ${ is written $${",
        ),
        (
            threads("${}"),
            "c:8:10: threads: \"${}\" is not a reference such as ${NAME} or ${NAME:-default}; a plain ${ is written $${",
        ),
        (
            threads("${:-1}"),
            "c:8:10: threads: \"${:-1}\" is not a reference such as ${NAME} or ${NAME:-default}; a plain ${ is written $${",
        ),
        (
            threads("${1A}"),
            "c:8:10: threads: \"${1A}\" is not a reference such as ${NAME} or ${NAME:-default}; a plain ${ is written $${",
        ),
        (
            threads("${A-B}"),
            "c:8:10: threads: \"${A-B}\" is not a reference such as ${NAME} or ${NAME:-default}; a plain ${ is written $${",
        ),
        (
            threads("${A:=1}"),
            "c:8:10: threads: \"${A:=1}\" is not a reference such as ${NAME} or ${NAME:-default}; a plain ${ is written $${",
        ),
        (
            threads("${A:-${B}}"),
            "c:8:10: threads: \"${A:-${B}}\" is not a reference such as ${NAME} or ${NAME:-default}; a plain ${ is written $${",
        ),
        (
            threads("1${é}"),
            "c:8:10: threads: \"${é}\" is not a reference such as ${NAME} or ${NAME:-default}; a plain ${ is written $${",
        ),
        (
            ours("admin:\n  ${SLOTS}: 1"),
            "c:3:5: maitred.admin.\"${SLOTS}\": unknown key, expected one of bind",
        ),
        (
            ours("poller:\n  interval: ${NOBODY}\n  timeout: 20s"),
            "c:3:15: maitred.poller.interval: ${NOBODY} is not set, expected a value or a default as in ${NOBODY:-default}",
        ),
        (
            ours("health: ${NOBODY}\nadmin:\n  bind: ${NOBODY}"),
            "c:2:11: maitred.health: ${NOBODY} is not set, expected a value or a default as in ${NOBODY:-default}\nc:4:11: maitred.admin.bind: ${NOBODY} is not set, expected a value or a default as in ${NOBODY:-default}",
        ),
        (
            top("client_bind_to_ipv4:\n- ${NOBODY}\n- ${SLOTS}"),
            "c:9:3: client_bind_to_ipv4[0]: ${NOBODY} is not set, expected a value or a default as in ${NOBODY:-default}\nc:10:3: client_bind_to_ipv4[1]: five is not an ipv4 address",
        ),
        (
            ours("admin: { bind: ${NOBODY} }"),
            "c:2:19: not YAML: while parsing a flow mapping, did not find expected ',' or '}'; ${ needs quotes between { } and [ ]",
        ),
    ];
    for (text, expected) in cases {
        let error = Config::parse_with(&text, "c", &environment).err();
        let said = error.map_or(String::new(), |error| error.to_string());
        assert_eq!(said, expected, "\n{text}");
    }
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
