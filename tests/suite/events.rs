//! What changed and why: every kind of event is made to happen and read, as JSON and live.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;

use crate::harness::{Backend, Client, Proxy, Units, backend, get, proxy, soon, until};
use crate::many_backends::aliases;

const PAGE: &str = "/api/v1/events";

async fn two() -> [Backend; 2] {
    [backend("a").start().await, backend("b").start().await]
}

/// Everything that is remembered.
async fn events(lb: &Proxy) -> Vec<Value> {
    let page = lb.admin(PAGE).await.json();
    page["events"].as_array().unwrap().clone()
}

/// Waits for an event that has all these fields, and returns it.
async fn saw(lb: &Proxy, fields: Value) -> Value {
    let has = |event: &Value| {
        let mut fields = fields.as_object().unwrap().iter();
        fields.all(|(field, value)| event[field] == *value)
    };
    let mut found = None;
    until(&format!("{fields} happened"), 5.secs(), async || {
        found = events(lb).await.into_iter().find(|event| has(event));
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// One who follows the events.
struct Follower {
    lines: Lines<BufReader<TcpStream>>,
}

/// What came live: kind, id, data.
type Live = (String, u64, Value);

impl Follower {
    async fn start(lb: &Proxy, target: &str, last_seen: Option<u64>) -> Self {
        let mut stream = TcpStream::connect(lb.site().admin()).await.unwrap();
        let request = get(target).header("Accept", "text/event-stream");
        let request = match last_seen {
            Some(id) => request.header("Last-Event-ID", &id.to_string()),
            None => request,
        };
        stream.write_all(&request.encode()).await.unwrap();
        let lines = BufReader::new(stream).lines();
        let mut follower = Self { lines };
        assert_eq!(follower.line().await, "HTTP/1.1 200 OK");
        let head = follower.until_line("").await;
        assert!(
            head.iter()
                .any(|line| line == "content-type: text/event-stream"),
            "{head:?}"
        );
        follower
    }

    async fn line(&mut self) -> String {
        let line = soon("a line", 20.secs(), self.lines.next_line()).await;
        line.unwrap().expect("the stream goes on")
    }

    async fn until_line(&mut self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.line().await {
                line if line == last => return lines,
                line => lines.push(line),
            }
        }
    }

    /// The next event. Chunk sizes are lines between, without a colon.
    async fn next(&mut self) -> Live {
        let (mut kind, mut data) = (String::new(), Value::Null);
        loop {
            let line = self.line().await;
            match line.split_once(':') {
                Some(("event", value)) => kind = value.to_owned(),
                Some(("data", value)) => data = serde_json::from_str(value).unwrap(),
                Some(("id", value)) => return (kind, value.parse().unwrap(), data),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn what_the_report_says_of_a_backend_is_told_when_it_changes() {
    let lb = proxy().upstream("web", &two().await).start().await;
    let admitted = json!({ "kind": "backend_admitted", "upstream": "web", "backend": "b" });
    saw(&lb, admitted).await;
    let says = |text: &str| lb.site().health_says(text);
    says(r#"{"a": true, "b": {"healthy": false, "reason": "no \"answer\"\n"}}"#);
    // What would break a line is a space.
    let why = "the health file says false: no \"answer\" ";
    let sick = json!({ "kind": "backend_kept_out", "backend": "b", "cause": "sick", "why": why });
    saw(&lb, sick).await;
    // In other words it is no news, for another cause it is.
    says(r#"{"a": true, "b": {"healthy": false, "reason": "still none"}}"#);
    says(r#"{"a": true, "b": {"healthy": false, "state": "drain"}}"#);
    let drained = json!({ "kind": "backend_kept_out", "backend": "b", "cause": "drain" });
    let drained = saw(&lb, drained).await;
    assert_eq!(drained["why"], "its state is drain");
    says(r#"{"a": {"healthy": true, "max_in_flight": 4, "weight": 3}, "b": true}"#);
    let slots = json!({ "kind": "slots_changed", "backend": "a", "from": 1, "to": 4 });
    saw(&lb, slots).await;
    saw(
        &lb,
        json!({ "kind": "weight_changed", "backend": "a", "from": 1, "to": 3 }),
    )
    .await;
    let expected = [
        "backend_admitted",
        "backend_kept_out",
        "backend_kept_out",
        "backend_admitted",
    ];
    until("so much is told of it", 2.secs(), async || {
        let of_b = events(&lb).await;
        let of_b = of_b.iter().filter(|event| event["backend"] == "b");
        of_b.map(|event| event["kind"].as_str().unwrap())
            .eq(expected)
    })
    .await;
    let log = lb.log();
    assert_eq!(log.matches("kept out by the report").count(), 2, "{log}");
}

#[tokio::test]
async fn what_becomes_of_the_health_file_is_told() {
    let lb = proxy().upstream("web", &two().await).start().await;
    lb.site()
        .health_says(r#"{"a": true, "b": true, "c": true}"#);
    let ignored = saw(&lb, json!({ "kind": "report_ignored", "count": 1 })).await;
    assert_eq!(ignored["names"], "\"c\"");
    std::fs::remove_file(lb.site().health_path()).unwrap();
    saw(&lb, json!({ "kind": "report_missing" })).await;
    lb.site().health_says("{\"a\": \u{1}}");
    let corrupt = saw(&lb, json!({ "kind": "report_corrupt" })).await;
    assert!(
        corrupt["problem"].as_str().unwrap().contains("line 1"),
        "{corrupt}"
    );
    lb.site().health(&[]);
    saw(&lb, json!({ "kind": "report_good" })).await;
}

#[tokio::test]
async fn a_report_that_is_stale_or_doubted_is_told() {
    let lb = proxy()
        .upstream("web", &two().await)
        .poll_every(100.millis())
        .health_key("stale_after", "3s")
        .health_key("when_stale", "fail_closed")
        .health_key("max_flip_percent", 50)
        .health_key("confirm_after", "500ms")
        .start()
        .await;
    lb.site().health(&[("a", false), ("b", false)]);
    saw(
        &lb,
        json!({ "kind": "report_doubted", "upstream": "web", "count": 2 }),
    )
    .await;
    saw(&lb, json!({ "kind": "report_believed", "upstream": "web" })).await;
    let stale = saw(&lb, json!({ "kind": "report_stale" })).await;
    assert_eq!(stale["effect"], "no backend counts as healthy");
    let age = stale["age_seconds"].as_u64().unwrap();
    assert!((3..=5).contains(&age), "{age}");
    lb.site().health(&[]);
    saw(&lb, json!({ "kind": "report_fresh" })).await;
}

#[tokio::test]
async fn who_is_ejected_and_comes_back_is_told_with_the_cause() {
    let [a, b] = [
        backend("a").start().await,
        backend("b").closes_on_accept().start().await,
    ];
    let lb = proxy().upstream("web", [&a, &b]).start().await;
    for _ in 0..6 {
        assert_eq!(lb.ask(get("/home")).await.backend(), Some("a"));
    }
    let broken = json!({ "kind": "backend_ejected", "upstream": "web", "backend": "b", "cause": "broken_off" });
    saw(&lb, broken).await;
    a.kill().await;
    let _client = lb.send(&get("/home")).await;
    let refused =
        json!({ "kind": "backend_ejected", "backend": "a", "cause": "connection_refused" });
    saw(&lb, refused).await;
    a.revive().await;
    saw(
        &lb,
        json!({ "kind": "backend_reinstated", "upstream": "web", "backend": "a" }),
    )
    .await;
}

#[tokio::test]
async fn names_that_resolve_or_do_not_are_told() {
    let [a, b] = two().await;
    let name = format!("localhost:{}", a.address().port());
    let lb = proxy()
        .upstream("web", [&a, &b])
        .backend_key("a", "address", name.as_str())
        .backend_key("b", "address", "nobody.invalid:80")
        .start()
        .await;
    let endpoint = a.address().to_string();
    let found =
        json!({ "kind": "name_resolved", "backend": "a", "address": name, "endpoint": endpoint });
    saw(&lb, found).await;
    let problem = "nobody.invalid does not resolve";
    saw(
        &lb,
        json!({ "kind": "name_not_resolved", "backend": "b", "problem": problem }),
    )
    .await;
}

#[tokio::test]
async fn the_life_of_the_process_is_told_to_its_end() {
    let a = backend("a").held().start().await;
    let lb = proxy().upstream("web", [&a]).grace(3.secs()).start().await;
    let address = lb.address().to_string();
    saw(&lb, json!({ "kind": "listening", "address": address })).await;
    let _client = lb.send(&get("/home")).await;
    a.working_on(1).await;
    let mut follower = Follower::start(&lb, PAGE, None).await;
    let mut lb = lb;
    lb.program().terminate();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|kind| kind != "grace_over") {
        let (kind, _, event) = follower.next().await;
        if kind == "stopping" {
            assert_eq!(event["grace_seconds"], 3);
        }
        seen.push(kind);
    }
    assert_eq!(seen[seen.len() - 2..], ["stopping", "grace_over"]);
}

/// Not each of them: ten thousand would leave nothing of what happened before.
#[tokio::test]
async fn of_many_backends_that_turn_at_once_twenty_are_named() {
    let server = backend("all").on_every_address().start().await;
    let aliases = aliases(30, server.address().port());
    let lb = proxy().upstream("web", &aliases).start().await;
    let more = json!({ "kind": "backends_changed", "upstream": "web", "more": 10 });
    saw(&lb, more).await;
    let events = events(&lb).await;
    let named = events
        .iter()
        .filter(|event| event["kind"] == "backend_admitted");
    assert_eq!(named.count(), 20);
}

#[tokio::test]
async fn every_kind_that_is_documented_is_made_to_happen_here() {
    let (docs, tests) = (
        include_str!("../../docs/events.md"),
        include_str!("events.rs"),
    );
    let table = docs.split("## Kinds").nth(1).unwrap();
    let table = table.split("## Fields").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let kinds: Vec<_> = rows.filter_map(|row| row.split('`').next()).collect();
    assert!(kinds.len() >= 20, "{kinds:?}");
    for kind in kinds {
        assert!(tests.contains(&format!("\"{kind}\"")), "{kind}");
    }
}

#[tokio::test]
async fn events_can_be_asked_for_by_upstream_and_after_an_id() {
    let [a, b] = two().await;
    let lb = proxy()
        .upstream("web", [&a])
        .upstream("other", [&b])
        .start()
        .await;
    saw(&lb, json!({ "kind": "listening" })).await;
    let page = lb.admin(&format!("{PAGE}?upstream=other")).await.json();
    let only = page["events"].as_array().unwrap();
    assert_eq!(only.len(), 1, "{page}");
    assert_eq!(only[0]["backend"], "b");
    let all = events(&lb).await;
    let ids: Vec<_> = all
        .iter()
        .map(|event| event["id"].as_u64().unwrap())
        .collect();
    assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ids:?}");
    let [first, last] = [ids[0], ids[ids.len() - 1]];
    assert_eq!(
        (page["origin"].as_u64(), page["last"].as_u64()),
        (Some(first - 1), Some(last))
    );
    let rest = lb.admin(&format!("{PAGE}?after={first}")).await.json();
    assert_eq!(rest["events"].as_array().unwrap().len(), ids.len() - 1);
    assert_eq!(
        (&rest["missed"], &rest["restarted"]),
        (&json!(0), &json!(false))
    );
    // An id of a process before this one: everything is new.
    let other = lb.admin(&format!("{PAGE}?after=17")).await.json();
    assert_eq!(other["events"].as_array().unwrap().len(), ids.len());
    assert_eq!(other["restarted"], true);
    for wrong in [
        "?after=x",
        "?after=-1",
        "?since=1",
        "?after=1&upstream=web&more=1",
    ] {
        assert_eq!(
            lb.admin(&format!("{PAGE}{wrong}")).await.status,
            400,
            "{wrong}"
        );
    }
    let none = lb.admin(&format!("{PAGE}?upstream=%22%0d%0a")).await.json();
    assert_eq!(none["events"], json!([]));
}

#[tokio::test]
async fn who_follows_sees_each_event_once_and_goes_on_where_he_was() {
    let lb = proxy().upstream("web", &two().await).start().await;
    saw(&lb, json!({ "kind": "listening" })).await;
    let known = events(&lb).await;
    let mut follower = Follower::start(&lb, PAGE, None).await;
    let mut last = 0;
    for event in &known {
        let (kind, id, data) = follower.next().await;
        assert_eq!(
            (&json!(kind), &json!(id), &data),
            (&event["kind"], &event["id"], event)
        );
        last = id;
    }
    lb.health(&[("a", false)]).await;
    let (kind, id, live) = follower.next().await;
    assert_eq!((kind.as_str(), id), ("backend_kept_out", last + 1));
    assert_eq!(live["backend"], "a");
    drop(follower);
    lb.health(&[("a", false), ("b", false)]).await;
    let mut back = Follower::start(&lb, PAGE, Some(id)).await;
    let (kind, next, data) = back.next().await;
    assert_eq!((kind.as_str(), next), ("backend_kept_out", id + 1));
    assert_eq!(data["backend"], "b");
    // What he has seen last goes before what the address says.
    let target = format!("{PAGE}?after=1&upstream=nobody");
    let mut filtered = Follower::start(&lb, &target, Some(id)).await;
    let comment = filtered.until_line(":").await;
    assert!(
        comment.iter().all(|line| !line.contains("data")),
        "{comment:?}"
    );
}

/// Makes some thousand events.
async fn overflow(lb: &Proxy, names: &[String]) {
    const ROUNDS: usize = 60;
    let last = async || events(lb).await.last().unwrap()["id"].as_u64().unwrap();
    let told = last().await + (ROUNDS * names.len()) as u64;
    for round in 0..ROUNDS {
        let healthy = round % 2 == 1;
        let said: Vec<_> = names.iter().map(|name| (name.as_str(), healthy)).collect();
        lb.site().health(&said);
        let (first, what) = (&names[0], format!("{healthy} for all"));
        until(&what, 10.secs(), async || {
            lb.is_eligible(first).await == healthy
        })
        .await;
    }
    // A verdict is in force a moment before it is told.
    until("all is told", 10.secs(), async || last().await == told).await;
}

async fn twenty() -> (Backend, Proxy, Vec<String>) {
    let server = backend("all").on_every_address().start().await;
    let aliases = aliases(20, server.address().port());
    let names = aliases.iter().map(|alias| alias.name.clone()).collect();
    let lb = proxy().upstream("web", &aliases).start().await;
    saw(&lb, json!({ "kind": "listening" })).await;
    (server, lb, names)
}

#[tokio::test]
async fn what_nobody_remembers_any_more_is_told_as_a_gap() {
    let (_server, lb, names) = twenty().await;
    let last = events(&lb).await.last().unwrap()["id"].as_u64().unwrap();
    overflow(&lb, &names).await;
    let page = lb.admin(&format!("{PAGE}?after={last}")).await.json();
    assert_eq!(page["events"].as_array().unwrap().len(), 1_000);
    assert_eq!(page["missed"], 200);
    let mut follower = Follower::start(&lb, PAGE, Some(last)).await;
    let (kind, id, gap) = follower.next().await;
    assert_eq!((kind.as_str(), id), ("gap", last + 200));
    assert_eq!(gap, json!({ "missed": 200, "restarted": false }));
    assert_eq!(follower.next().await.1, last + 201);
}

#[tokio::test]
#[ignore = "takes 15 s: a reader is given ten"]
async fn who_never_reads_loses_its_place_and_who_reads_does_not() {
    let (_server, mut lb, names) = twenty().await;
    overflow(&lb, &names).await;
    let mut reading = Follower::start(&lb, PAGE, None).await;
    let mut asleep = Vec::new();
    let request = get(PAGE).header("Accept", "text/event-stream");
    for _ in 1..32 {
        let mut client = Client::connect_with_small_buffer(lb.site().admin())
            .await
            .unwrap();
        client.send(&request).await.unwrap();
        assert_eq!(client.read_bytes(12).await.unwrap(), b"HTTP/1.1 200");
        asleep.push(client);
    }
    let one_more = request.send_to(lb.site().admin()).await.unwrap();
    assert_eq!(one_more.status, 503);
    for _ in 0..1_000 {
        reading.next().await;
    }
    // Who may follow is not answered to the end, who may not is at once.
    let mut awake = Vec::new();
    until("every place is free again", 30.secs(), async || {
        let mut client = Client::connect(lb.site().admin()).await.unwrap();
        client.send(&request).await.unwrap();
        if client.read_bytes(12).await.unwrap() == b"HTTP/1.1 200" {
            awake.push(client);
        }
        awake.len() == asleep.len()
    })
    .await;
    lb.health(&[(&names[0], false)]).await;
    assert_eq!(reading.next().await.0, "backend_kept_out");
    println!("resident: {} kB", lb.program().rss_bytes() / 1024);
}
