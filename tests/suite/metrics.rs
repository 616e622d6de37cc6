//! What is counted is what happened: the metrics beside what clients saw and backends did.

use std::collections::BTreeMap;

use crate::harness::{Proxy, Units, backend, get, load, post, proxy, request, until};

/// A scraped page: every sample by its name and labels, as they are written.
pub struct Page(BTreeMap<String, f64>);

async fn scrape(lb: &Proxy) -> Page {
    let answer = lb.admin("/metrics").await;
    assert_eq!(answer.status, 200);
    let kind = answer.header("Content-Type").unwrap();
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let split = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    Page(samples.map(split).collect())
}

/// A request is counted when it is over, which the client may know a moment earlier.
pub async fn scrape_after(lb: &Proxy, requests: usize) -> Page {
    until("every request is counted", 5.secs(), async || {
        let counted = scrape(lb).await.sum("maitred_requests_total", &[]);
        assert!(counted <= requests as f64, "{counted} of {requests}");
        counted == requests as f64
    })
    .await;
    scrape(lb).await
}

impl Page {
    /// [`Self::sum`] of what is counted in whole numbers.
    pub fn count(&self, metric: &str, labels: &[&str]) -> usize {
        self.sum(metric, labels) as usize
    }

    /// The sum of a metric's samples that have all of these labels, as they are written.
    fn sum(&self, metric: &str, labels: &[&str]) -> f64 {
        let chosen = self.0.iter().filter(|(name, _)| {
            let rest = name.strip_prefix(metric);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                && labels.iter().all(|label| name.contains(label))
        });
        chosen.map(|(_, value)| value).sum()
    }
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
        backend("b").takes(200.millis()).start().await,
    ];
    let lb = proxy().upstream("web", [&a, &b]).queue(0).start().await;
    a.kill().await;
    assert_eq!(
        lb.ask(get("/home")).await.status,
        200,
        "by b, after a retry"
    );
    let mut busy = lb.connect().await;
    busy.send(&get("/home")).await.unwrap();
    b.working_on(1).await;
    assert_eq!(lb.ask(get("/home")).await.status, 503);
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
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = lb.connect().await;
        client.send(&get("/home")).await.unwrap();
        clients.push(client);
    }
    lb.has_waiting(3).await;
    let page = scrape(&lb).await;
    let expected = [
        ("maitred_queue_waiting", 3.0),
        ("maitred_slots", 2.0),
        ("maitred_slots_taken", 2.0),
        ("maitred_slots_abandoned", 0.0),
        ("maitred_backend_eligible", 1.0),
        ("maitred_backend_weight", 1.0),
    ];
    for (metric, value) in expected {
        assert_eq!(page.sum(metric, &["upstream=\"web\""]), value, "{metric}");
    }
    assert_eq!(page.sum("maitred_report_state", &["state=\"ok\""]), 1.0);
    assert_eq!(page.sum("maitred_report_state", &[]), 1.0);
    assert_eq!(page.sum("maitred_connections_open", &[]), 5.0);
    for metric in [
        "maitred_report_age_seconds",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "maitred_build_info",
    ] {
        assert!(page.sum(metric, &[]) > 0.0, "{metric}");
    }
    drop(clients);
    a.release(2);
    until("the connections are closed", 5.secs(), async || {
        scrape(&lb).await.sum("maitred_connections_open", &[]) == 0.0
    })
    .await;
}
