//! The access log: what it says is what happened, whatever clients send, and no line is lost or torn where a file is
//! moved away. A log that cannot be written harms nobody.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};

use crate::harness::{
    Backend, Proxy, ProxyBuilder, Response, Units, backend, get, head, load, post, proxy, scrape,
    soon, until,
};
use crate::metrics::everybody_has_left;

/// Logs as JSON, to `access.log` in the site's folder.
fn to_file(a: &Backend) -> ProxyBuilder {
    proxy()
        .upstream("web", [a])
        .json_access_log()
        .key("maitred.access_log.path", "access.log")
}

/// The lines of a file, each of them whole.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "torn: {text:?}");
    let parsed = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    };
    text.lines().map(parsed).collect()
}

/// Waits for this many lines on standard output and returns them.
async fn logged(lb: &Proxy, number: usize) -> Vec<Value> {
    let what = format!("{number} lines are written");
    until(&what, 5.secs(), async || lb.access_log().len() >= number).await;
    let lines = lb.access_log();
    assert_eq!(lines.len(), number);
    lines
}

async fn dropped(lb: &Proxy) -> usize {
    let page = scrape(lb.site().admin()).await;
    page.count("maitred_access_log_dropped_total", &[])
}

/// The line of the request that this answer belongs to. Lines are written a moment after the answer, so those of
/// different connections are in any order.
fn line_of<'a>(lines: &'a [Value], answer: &Response) -> &'a Value {
    let id = answer.header("X-Request-Id").unwrap();
    let line = lines.iter().find(|line| line["request_id"] == id);
    line.unwrap_or_else(|| panic!("no line of {id} in {lines:?}"))
}

/// The line has these fields; one that is null is null there or missing.
fn assert_says(line: &Value, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(line[name], *value, "{name} in {line}");
    }
}

#[tokio::test]
async fn a_line_says_what_became_of_a_request_under_the_id_that_its_client_knows() {
    let a = backend("a").response_body(7).start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .json_access_log()
        .start()
        .await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let posted = post("/home?a=b").body(b"12345".to_vec());
    let posted = lb.ask(posted.header("traceparent", &parent)).await;
    let looked = lb.ask(head("/home").header("X-Request-Id", "mine")).await;

    let lines = logged(&lb, 2).await;
    let posted = line_of(&lines, &posted);
    let common = json!({
        "client": "127.0.0.1", "host": "example.test", "protocol": "HTTP/1.1", "status": 200,
        "upstream": "web", "backend": "a", "attempts": 1, "reason": null, "retried": null,
    });
    assert_says(posted, &common);
    let own = json!({
        "method": "POST", "target": "/home?a=b", "bytes_received": 5, "bytes_sent": 7, "trace_id": trace,
    });
    assert_says(posted, &own);
    let looked = line_of(&lines, &looked);
    assert_says(looked, &common);
    let own = json!({
        "method": "HEAD", "target": "/home", "bytes_received": 0, "bytes_sent": 0, "trace_id": null,
    });
    assert_says(looked, &own);
    let times = ["first_byte_seconds", "backend_seconds", "total_seconds"];
    let times = times.map(|name| posted[name].as_f64().unwrap());
    assert!(times.is_sorted(), "{times:?}");
    assert!(posted["queue_seconds"].as_f64().unwrap() < 1.0);
}

#[tokio::test]
async fn a_line_says_why_a_request_reached_no_backend() {
    let a = backend("a").start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .json_access_log()
        .start()
        .await;
    let lost = lb.ask(get("/nowhere")).await;
    lb.health(&[("a", false)]).await;
    let refused = lb.ask(get("/home")).await;
    let mut old = lb.connect().await;
    let asked = b"GET /nowhere HTTP/1.0\r\n\r\n";
    old.send_bytes(asked).await.unwrap();
    old.read_until_closed().await;

    let lines = logged(&lb, 3).await;
    let common = json!({ "backend": null, "attempts": 0 });
    lines.iter().for_each(|line| assert_says(line, &common));
    let not_found = json!({
        "target": "/nowhere", "status": 404, "reason": "not_found", "upstream": null,
        "host": "example.test", "protocol": "HTTP/1.1",
    });
    assert_says(line_of(&lines, &lost), &not_found);
    let unavailable = json!({
        "target": "/home", "status": 503, "reason": "no_eligible_backend", "upstream": "web",
        "host": "example.test", "protocol": "HTTP/1.1",
    });
    assert_says(line_of(&lines, &refused), &unavailable);
    let old = lines.iter().find(|line| line["protocol"] == "HTTP/1.0");
    let without_host =
        json!({ "target": "/nowhere", "status": 404, "reason": "not_found", "host": null });
    assert_says(old.unwrap(), &without_host);
}

/// The old file is moved away, then comes the signal, as `logrotate` does it.
#[tokio::test]
async fn a_file_that_is_moved_away_twenty_times_under_load_loses_and_tears_no_line() {
    let a = backend("a").start().await;
    let mut lb = to_file(&a)
        .backend_key("a", "max_in_flight", 100)
        .start()
        .await;
    let path = lb.site().path("access.log");
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode & !0o640, 0, "{mode:o}");
    let running = load(lb.address()).clients(8).spawn();
    let mut parts = Vec::new();
    for number in 0..20 {
        until("there is a line", 5.secs(), async || {
            fs::metadata(&path).unwrap().len() > 0
        })
        .await;
        let part = lb.site().path(&format!("access.log.{number}"));
        fs::rename(&path, &part).unwrap();
        lb.program().reopen_log();
        until("the log is open anew", 5.secs(), async || path.exists()).await;
        parts.push(part);
    }
    let tally = running.stop().await;
    tally.assert_none_failed();
    lb.program().terminate();
    lb.program().wait_exit(5.secs()).await;
    let mut parts: Vec<_> = parts.iter().map(|part| lines(part)).collect();
    assert!(parts.iter().all(|part| !part.is_empty()));
    parts.push(lines(&path));
    let ids = parts
        .iter()
        .flatten()
        .map(|line| line["request_id"].as_str().unwrap());
    assert_eq!(ids.clone().count(), tally.ok);
    assert_eq!(ids.collect::<BTreeSet<_>>().len(), tally.ok);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_anew_is_written_on_and_the_signal_harms_nobody_else() {
    let a = backend("a").start().await;
    let lb = to_file(&a)
        .key("maitred.access_log.path", "logs/access.log")
        .site();
    fs::create_dir(lb.path("logs")).unwrap();
    let mut lb = lb.started().await;
    fs::rename(lb.site().path("logs"), lb.site().path("moved")).unwrap();
    lb.program().reopen_log();
    until("that is told", 5.secs(), async || {
        lb.log().contains("cannot be opened anew")
    })
    .await;
    assert_eq!(lb.ask(get("/home")).await.status, 200);
    let path = lb.site().path("moved/access.log");
    until("the line is there", 5.secs(), async || {
        lines(&path).len() == 1
    })
    .await;
    drop(lb);

    for format in ["text", "off"] {
        let mut plain = proxy()
            .upstream("web", [&a])
            .key("maitred.access_log.format", format)
            .start()
            .await;
        plain.program().reopen_log();
        assert_eq!(plain.ask(get("/home")).await.status, 200);
        assert!(plain.program().exit().is_none());
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_is_an_error_at_the_start() {
    let a = backend("a").start().await;
    let site = to_file(&a)
        .key("maitred.access_log.path", "missing/access.log")
        .site();
    let mut program = site.start_proxy();
    assert_eq!(program.wait_exit(5.secs()).await.0, Some(1));
    let log = program.log();
    let said = "missing/access.log: No such file or directory";
    assert!(
        log.contains("cannot open the access log") && log.contains(said),
        "{log}"
    );
}

#[tokio::test]
async fn a_full_disk_is_told_once_and_costs_lines_but_no_requests() {
    let a = backend("a").start().await;
    let site = to_file(&a).site();
    let path = site.path("access.log");
    symlink("/dev/full", &path).unwrap();
    let mut lb = site.started().await;
    for _ in 0..3 {
        load(lb.address())
            .requests_each(10)
            .run()
            .await
            .assert_none_failed();
        tokio::time::sleep(20.millis()).await;
    }
    until("all are counted", 5.secs(), async || {
        dropped(&lb).await == 30
    })
    .await;
    assert_eq!(
        lb.log().matches("cannot be written").count(),
        1,
        "{}",
        lb.log()
    );
    // There is room again.
    fs::remove_file(&path).unwrap();
    lb.program().reopen_log();
    until("the log is open anew", 5.secs(), async || path.exists()).await;
    load(lb.address())
        .requests_each(10)
        .run()
        .await
        .assert_none_failed();
    until("all lines are there", 5.secs(), async || {
        lines(&path).len() == 10
    })
    .await;
    assert_eq!(dropped(&lb).await, 30);
    assert_eq!(
        lb.log().matches("is written again").count(),
        1,
        "{}",
        lb.log()
    );
}

/// What fits is kept, what does not is counted, and no request waits.
#[tokio::test]
async fn a_reader_that_never_reads_holds_no_request_up() {
    let a = backend("a").start().await;
    let site = to_file(&a).backend_key("a", "max_in_flight", 100).site();
    let path = site.path("access.log");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    let mut reader = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let lb = site.started().await;
    let requests = 19_200;
    let tally = load(lb.address())
        .clients(16)
        .requests_each(requests / 16)
        .run()
        .await;
    tally.assert_none_failed();
    everybody_has_left(&lb).await;
    let lost = dropped(&lb).await;
    assert!((500..requests - 16_384).contains(&lost), "{lost}");
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        let mut piece = vec![0; 1 << 16];
        while text.iter().filter(|byte| **byte == b'\n').count() < requests - lost {
            let bytes = reader.read(&mut piece).unwrap();
            text.extend_from_slice(&piece[..bytes]);
        }
        String::from_utf8(text).unwrap()
    });
    let text = soon("all other lines", 20.secs(), reading).await.unwrap();
    let whole = text
        .lines()
        .filter(|line| serde_json::from_str::<Value>(line).is_ok());
    assert_eq!(whole.count(), requests - lost);
    assert_eq!(dropped(&lb).await, lost);
}

#[tokio::test]
async fn a_share_of_what_is_fine_is_logged_and_all_that_is_not() {
    let a = backend("a").start().await;
    let sampled = || to_file(&a).key("maitred.access_log.sample", 0.2);
    let mut chosen = Vec::new();
    for _ in 0..2 {
        let mut lb = sampled().start().await;
        let mut client = lb.connect().await;
        for number in 0..1_000 {
            let fine = get("/home").header("X-Request-Id", &number.to_string());
            assert_eq!(client.ask(&fine).await.unwrap().status, 200);
        }
        for _ in 0..50 {
            assert_eq!(client.ask(&get("/nowhere")).await.unwrap().status, 404);
        }
        lb.program().terminate();
        lb.program().wait_exit(5.secs()).await;
        let lines = lines(&lb.site().path("access.log"));
        let (fine, others): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["status"] == 200);
        assert_eq!(others.len(), 50);
        // The numbers are always the same, so there is nothing to chance.
        assert!((160..=240).contains(&fine.len()), "{}", fine.len());
        let ids = fine.iter().map(|line| line["request_id"].to_string());
        chosen.push(ids.collect::<Vec<_>>());
        drop(lb);
    }
    assert_eq!(chosen[0], chosen[1]);
}

#[tokio::test]
async fn what_is_nobodys_business_is_not_logged() {
    let a = backend("a").start().await;
    let mut lb = proxy()
        .upstream("web", [&a])
        .json_access_log()
        .key("maitred.access_log.redact_query", json!(["token"]))
        .key(
            "maitred.access_log.request_headers",
            json!(["User-Agent", "Referer", "Cookie", "X-Key", "X-None"]),
        )
        .key("maitred.access_log.redact_headers", json!(["X-Key"]))
        .start()
        .await;
    let request = || {
        get("/home?a=1&Token=secret1&b")
            .header("User-Agent", "tester 1.0")
            .header("Referer", "http://example.test/?token=secret2")
            .header("Cookie", "secret3")
            .header("X-Key", "secret4")
            .header("Authorization", "secret5")
    };
    lb.ask(request()).await;
    let line = &logged(&lb, 1).await[0];
    assert_eq!(line["target"], "/home?a=1&Token=redacted&b");
    let expected = json!({
        "user-agent": "tester 1.0",
        "referer": "http://example.test/?token=redacted",
        "cookie": "redacted",
        "x-key": "redacted",
        "x-none": null,
    });
    assert_eq!(line["request_headers"], expected);
    lb.program().terminate();
    lb.program().wait_exit(5.secs()).await;
    let all = lb.program().output();
    assert!(!all.contains("secret"), "{all}");
    assert_eq!(a.requests()[0].target, "/?a=1&Token=secret1&b");
    drop(lb);

    let quiet = proxy()
        .upstream("web", [&a])
        .json_access_log()
        .key("maitred.access_log.query", "drop");
    let quiet = quiet.start().await;
    quiet.ask(request()).await;
    let line = &logged(&quiet, 1).await[0];
    assert_eq!(
        (&line["target"], &line["request_headers"]),
        (&json!("/home"), &Value::Null)
    );
}

#[tokio::test]
async fn whatever_a_client_says_a_line_is_a_line() {
    let a = backend("a").start().await;
    for format in ["json", "text"] {
        let mut lb = proxy()
            .upstream("web", [&a])
            .key("maitred.access_log.format", format)
            .key("maitred.access_log.request_headers", json!(["User-Agent"]))
            .start()
            .await;
        let hostile: [&[u8]; 8] = [
            b"GET /\xff\xfe\"\\ HTTP/1.1\r\nHost: h\r\n",
            b"GET /\x7f\xc2\x85\xe2\x80\xa8 HTTP/1.1\r\nHost: h\r\n",
            b"GET /a HTTP/1.1\r\nHost: \"h\xff\" status=200\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nUser-Agent: \"} x=\\\xc2\x9b31m\t\xff\r\n",
            b"GET /a HTTP/1.1\r\nHost: -\r\nUser-Agent: -\r\n",
            b"GET-'\"|`~!#$%&*+ /a HTTP/1.1\r\nHost: h\r\n",
            b"BREW`|'~ /a HTTP/1.1\r\nHost: h\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\ntraceparent: \"\r\n",
        ];
        let mut answered = 0;
        for head in hostile {
            let mut client = lb.connect().await;
            let request = [head, b"X-Request-Id: \"\\\xff\r\nConnection: close\r\n\r\n"].concat();
            client.send_bytes(&request).await.unwrap();
            let answer = client.read_until_closed().await;
            // What Pingora itself refuses is not logged, and has no id.
            let text = String::from_utf8_lossy(&answer).into_owned();
            answered += usize::from(text.contains("X-Request-Id: "));
        }
        assert!(answered >= 5, "{answered}");
        lb.program().terminate();
        lb.program().wait_exit(5.secs()).await;
        let output = lb.program().output();
        let is_plain = |byte: u8| byte == b'\n' || byte == b' ' || byte.is_ascii_graphic();
        assert!(output.bytes().all(is_plain), "{output}");
        assert_eq!(output.lines().count(), answered, "{output}");
        for line in output.lines() {
            match format {
                "json" => assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}"),
                _ => assert_eq!(
                    line.split('"')
                        .step_by(2)
                        .flat_map(str::split_whitespace)
                        .count(),
                    22,
                    "{line}"
                ),
            }
        }
    }
}
