//! What is counted is what happened: the metrics beside what clients saw and backends did.

use std::time::Instant;

use crate::harness::{
    Proxy, Scraped, Units, backend, get, load, post, proxy, request, scrape, until,
};

/// A request is counted when it is over, which the client may know a moment earlier.
pub async fn scrape_after(lb: &Proxy, requests: usize) -> Scraped {
    until("every request is counted", 5.secs(), async || {
        let counted = scrape(lb.site().admin())
            .await
            .sum("maitred_requests_total", &[]);
        assert!(counted <= requests as f64, "{counted} of {requests}");
        counted == requests as f64
    })
    .await;
    scrape(lb.site().admin()).await
}

/// Waits until no client is connected: by then whatever is known of their requests is counted.
pub async fn everybody_has_left(lb: &Proxy) {
    until("every connection is closed", 5.secs(), async || {
        let page = scrape(lb.site().admin()).await;
        page.sum("maitred_connections_open", &[]) == 0.0
    })
    .await;
}

#[tokio::test]
async fn every_request_is_counted_once_with_its_end() {
    let [a, b] = [
        backend("a").takes(5.millis()).start().await,
        backend("b").takes(5.millis()).status(404).start().await,
    ];
    let lb = proxy()
        .upstream("web", [&a])
        .upstream("other", [&b])
        .start()
        .await;
    let tally = load(lb.address()).clients(20).requests_each(10).run().await;
    tally.assert_none_failed();
    for _ in 0..3 {
        assert_eq!(lb.ask(get("/nowhere")).await.status, 404);
        assert_eq!(lb.ask(get("/other")).await.status, 404);
    }
    assert_eq!(lb.ask(post("/other").body(b"1".to_vec())).await.status, 404);
    assert_eq!(lb.ask(request("BREW", "/home")).await.status, 405);
    let page = scrape_after(&lb, 208).await;
    let requests = |labels: &[&str]| page.sum("maitred_requests_total", labels);
    assert_eq!(
        requests(&["backend=\"a\"", "method=\"GET\"", "code=\"2xx\""]),
        200.0
    );
    assert_eq!(
        requests(&["upstream=\"other\"", "method=\"GET\"", "code=\"4xx\""]),
        3.0
    );
    assert_eq!(
        requests(&["backend=\"b\"", "method=\"POST\"", "code=\"4xx\""]),
        1.0
    );
    assert_eq!(
        requests(&["upstream=\"\"", "method=\"GET\"", "code=\"4xx\""]),
        3.0
    );
    assert_eq!(requests(&["method=\"other\"", "code=\"4xx\""]), 1.0);
    let refusals = |reason| page.sum("maitred_refusals_total", &[&format!("reason=\"{reason}\"")]);
    assert_eq!(
        (refusals("not_found"), refusals("method_not_allowed")),
        (3.0, 1.0)
    );
    for histogram in [
        "maitred_request_duration_seconds",
        "maitred_queue_duration_seconds",
        "maitred_backend_first_byte_duration_seconds",
        "maitred_backend_last_byte_duration_seconds",
    ] {
        for end in ["_count", "_bucket"] {
            let labels: &[&str] = if end == "_bucket" {
                &["le=\"+Inf\""]
            } else {
                &[]
            };
            let count = page.sum(&format!("{histogram}{end}"), labels);
            let of_requests = !histogram.starts_with("maitred_backend");
            let expected = if of_requests { 208 } else { 204 };
            assert_eq!(count as usize, expected, "{histogram}{end}");
        }
    }
    // Each was sent 5 ms of work, 20 stood in one line.
    assert!(
        page.sum(
            "maitred_backend_last_byte_duration_seconds_sum",
            &["backend=\"a\""]
        ) >= 1.0
    );
    assert!(page.sum("maitred_queue_duration_seconds_sum", &["backend=\"a\""]) >= 10.0);
}

#[tokio::test]
async fn faults_are_counted_by_what_they_were() {
    let [a, b] = [
        backend("a").start().await,
        backend("b").held().start().await,
    ];
    let lb = proxy().upstream("web", [&a, &b]).queue(0).start().await;
    a.kill().await;
    b.release(1);
    assert_eq!(
        lb.ask(get("/home")).await.status,
        200,
        "by b, after a retry"
    );
    let mut busy = lb.send(&get("/home")).await;
    b.working_on(1).await;
    assert_eq!(lb.ask(get("/home")).await.status, 503);
    b.release(1);
    assert_eq!(busy.receive("GET").await.unwrap().status, 200);
    let page = scrape_after(&lb, 3).await;
    assert_eq!(
        page.sum("maitred_retries_total", &["reason=\"connect_failure\""]),
        1.0
    );
    assert_eq!(page.sum("maitred_ejections_total", &["backend=\"a\""]), 1.0);
    assert_eq!(
        page.sum("maitred_refusals_total", &["reason=\"queue_full\""]),
        1.0
    );
    assert_eq!(
        page.sum("maitred_requests_total", &["backend=\"\"", "code=\"5xx\""]),
        1.0
    );
    assert_eq!(
        page.sum("maitred_attempts_total", &["backend=\"a\"", "failed"]),
        1.0
    );
    assert_eq!(
        page.sum("maitred_attempts_total", &["backend=\"b\"", "answered"]),
        2.0
    );
    let eligible = |name| {
        page.sum(
            "maitred_backend_eligible",
            &[&format!("backend=\"{name}\"")],
        )
    };
    assert_eq!((eligible("a"), eligible("b")), (0.0, 1.0));
}

#[tokio::test]
async fn what_is_the_case_now_is_told() {
    let a = backend("a").held().start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .backend_key("a", "max_in_flight", 2)
        .start()
        .await;
    let (mut first, begun) = (lb.connect().await, Instant::now());
    first.send(&get("/home")).await.unwrap();
    a.working_on(1).await;
    tokio::time::sleep(100.millis()).await;
    a.release(1);
    assert_eq!(first.receive("GET").await.unwrap().status, 200);
    let took = begun.elapsed().as_secs_f64();
    drop(first);
    everybody_has_left(&lb).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let client = lb.send(&get("/home")).await;
        clients.push(client);
    }
    lb.has_waiting(3).await;
    let page = scrape(lb.site().admin()).await;
    let expected = [
        ("maitred_queue_waiting", 3.0),
        ("maitred_queue_size", 10_000.0),
        ("maitred_slots", 2.0),
        ("maitred_slots_taken", 2.0),
        ("maitred_slots_abandoned", 0.0),
        ("maitred_backend_eligible", 1.0),
        ("maitred_backend_weight", 1.0),
    ];
    for (metric, value) in expected {
        assert_eq!(page.sum(metric, &["upstream=\"web\""]), value, "{metric}");
    }
    // Three wait, two are served at once, and so far a request took as long as the first.
    let wait = page.sum("maitred_queue_expected_wait_seconds", &["upstream=\"web\""]);
    assert!((0.1..took * 4.0).contains(&wait), "{wait}");
    assert_eq!(page.sum("maitred_report_state", &["state=\"ok\""]), 1.0);
    assert_eq!(page.sum("maitred_report_state", &[]), 1.0);
    assert_eq!(page.sum("maitred_connections_open", &[]), 5.0);
    let tasks = page.sum("maitred_tasks", &[]);
    assert!(tasks >= 5.0, "one for each connection: {tasks}");
    assert_eq!(page.sum("maitred_config_generation", &[]), 1.0);
    assert_eq!(page.sum("maitred_config_last_reload_successful", &[]), 1.0);
    for metric in [
        "maitred_report_age_seconds",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_start_time_seconds",
        "process_open_fds",
        "process_max_fds",
        "maitred_build_info",
        "maitred_config_hash",
        "maitred_config_last_reload_success_timestamp_seconds",
    ] {
        assert!(page.sum(metric, &[]) > 0.0, "{metric}");
    }
    drop(clients);
    a.release(2);
    until(
        "the connections are closed, and their tasks done",
        5.secs(),
        async || {
            let page = scrape(lb.site().admin()).await;
            page.sum("maitred_connections_open", &[]) == 0.0
                && page.sum("maitred_tasks", &[]) <= tasks - 5.0
        },
    )
    .await;
}

#[tokio::test]
async fn who_may_not_be_chosen_is_told_with_the_reason() {
    let names = ["a", "b", "c", "d", "e"];
    let mut group = Vec::new();
    for name in names {
        group.push(backend(name).start().await);
    }
    let lb = proxy()
        .upstream("web", &group)
        .backend_key("c", "state", "maint")
        .start()
        .await;
    group[3].kill().await;
    for _ in 0..4 {
        assert_eq!(lb.ask(get("/home")).await.status, 200);
    }
    let report = r#"{ "a": true, "b": { "healthy": false, "reason": "a \"b\"\n} 1" }, "c": true, "d": true }"#;
    lb.site().health_says(report);
    until("e gets nothing", 2.secs(), async || {
        !lb.is_eligible("e").await
    })
    .await;
    let page = scrape(lb.site().admin()).await;
    page.assert_strict().await;
    let expected = [
        ("b", "sick"),
        ("c", "maint"),
        ("d", "refuses"),
        ("e", "unnamed"),
    ];
    for (backend, reason) in expected {
        let labels = [
            format!("backend=\"{backend}\""),
            format!("reason=\"{reason}\""),
        ];
        let labels = labels.each_ref().map(String::as_str);
        assert_eq!(
            page.sum("maitred_backend_ineligible", &labels),
            1.0,
            "{backend}"
        );
    }
    assert_eq!(page.sum("maitred_backend_ineligible", &[]), 4.0);
    assert_eq!(page.sum("maitred_backend_eligible", &[]), 1.0);
}

#[tokio::test]
async fn readings_of_the_health_file_are_counted_and_timed() {
    let lb = proxy()
        .upstream("web", [&backend("a").start().await])
        .start()
        .await;
    let timed = async || {
        let page = scrape(lb.site().admin()).await;
        page.sum("maitred_report_in_force_duration_seconds_count", &[])
    };
    assert_eq!(timed().await, 0.0);
    let begun = Instant::now();
    for (healthy, readings) in [(false, 1.0), (true, 2.0)] {
        lb.health(&[("a", healthy)]).await;
        until("it is timed", 5.secs(), async || timed().await == readings).await;
    }
    let took = begun.elapsed().as_secs_f64();
    lb.site().health_says("{");
    until("the broken file is counted", 5.secs(), async || {
        let page = scrape(lb.site().admin()).await;
        let broken = page.sum("maitred_report_readings_total", &["corrupt"]);
        broken == 1.0 && page.sum("maitred_report_state", &["corrupt"]) == 1.0
    })
    .await;
    let page = scrape(lb.site().admin()).await;
    assert_eq!(page.sum("maitred_report_readings_total", &["ok"]), 2.0);
    let sum = page.sum("maitred_report_in_force_duration_seconds_sum", &[]);
    // The time of a file is that of the system's last tick, which is 10 ms ago at most.
    assert!(sum <= took + 0.02, "{sum} in {took}");
    assert_eq!(timed().await, 2.0, "a broken file changes nothing");
}

#[tokio::test]
async fn a_hostile_client_breaks_no_line() {
    let lb = proxy()
        .upstream("web", [&backend("a").start().await])
        .start()
        .await;
    for method in [
        "get",
        "GET\u{e9}",
        "X-\"}",
        "BREW",
        "~'`|^!#$%&*+.",
        "A".repeat(4000).as_str(),
    ] {
        // Whether Pingora takes it at all is not the question.
        let _ = request(method, "/home\"}%0a{x=\"1")
            .send_to(lb.address())
            .await;
    }
    assert_eq!(
        lb.ask(get("/home").header("X-\u{7f}", "\"\n")).await.status,
        400
    );
    let page = scrape(lb.site().admin()).await;
    page.assert_strict().await;
    for method in ["get", "BREW", "AAAA", "$"] {
        assert!(!page.has("maitred_requests_total", &[method]), "{method}");
    }
}

#[tokio::test]
async fn who_does_not_ask_for_open_metrics_gets_the_text_format() {
    let lb = proxy()
        .upstream("web", [&backend("a").start().await])
        .start()
        .await;
    let answer = lb.admin("/metrics").await;
    let kind = answer.header("Content-Type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let text = answer.text();
    assert!(
        text.contains("# TYPE maitred_retries_total counter\n"),
        "{text}"
    );
    assert!(
        !text.contains("# EOF") && !text.contains("# UNIT"),
        "{text}"
    );
}
