//! Why a request went where it went, asked for afterwards or told in the answer.

use serde_json::{Value, json};

use crate::harness::{
    Backend, Client, Proxy, ProxyBuilder, Units, backend, get, proxy, request, until,
};
use crate::many_backends::aliases;

const TOKEN: &str = "open-sesame-0123456789";

fn explaining<'a>(backends: impl IntoIterator<Item = &'a Backend>) -> ProxyBuilder {
    proxy()
        .upstream("web", backends)
        .key("maitred.explain.capacity", 1_000)
}

/// What is said of a request once it is over.
async fn explained(lb: &Proxy, id: &str) -> Value {
    let page = format!("/api/v1/explain/{id}");
    let mut found = Value::Null;
    until(&format!("{id} is explained"), 5.secs(), async || {
        let answer = lb.admin(&page).await;
        if answer.status == 200 {
            found = answer.json();
        }
        answer.status == 200
    })
    .await;
    found
}

async fn text_of(lb: &Proxy, id: &str) -> String {
    lb.admin(&format!("/api/v1/explain/{id}?format=text"))
        .await
        .text()
}

async fn ask(lb: &Proxy, id: &str) -> (u16, Value) {
    let answer = lb.ask(get("/home").header("X-Request-Id", id)).await;
    (answer.status, explained(lb, id).await)
}

/// What happened is in this order, and not in a moment.
fn assert_in_order(explained: &Value) {
    let seconds = |value: &Value, key: &str| {
        let seconds = value[key].as_f64();
        seconds.unwrap_or_else(|| panic!("{key} in {explained:#}"))
    };
    let attempt = &explained["attempts"][0];
    let moments = [
        seconds(explained, "ready_seconds"),
        seconds(attempt, "asked_seconds"),
        seconds(attempt, "seated_seconds"),
        seconds(attempt, "sent_seconds"),
        seconds(attempt, "answered_seconds"),
        seconds(attempt, "served_seconds"),
        seconds(explained, "end_seconds"),
    ];
    assert!(moments.is_sorted(), "{moments:?}");
    assert!(moments[6] > moments[3] && moments[6] < 20.0, "{moments:?}");
}

/// The one backend of a list that is this one.
fn candidate<'a>(attempt: &'a Value, name: &str) -> &'a Value {
    let mut candidates = attempt["candidates"].as_array().unwrap().iter();
    candidates.find(|one| one["backend"] == name).unwrap()
}

#[tokio::test]
async fn a_plain_request_is_explained_by_the_turn_that_its_backend_had() {
    let [a, b] = [backend("a").start().await, backend("b").start().await];
    let lb = explaining([&a, &b]).start().await;
    let (status, plain) = ask(&lb, "plain/1:x+y=z").await;
    assert_eq!((status, &plain["status"]), (200, &json!(200)));
    assert_eq!(
        (&plain["method"], &plain["target"]),
        (&json!("GET"), &json!("/home"))
    );
    assert_eq!(
        (&plain["upstream"], &plain["balance"]),
        (&json!("web"), &json!("round_robin"))
    );
    assert_eq!(plain["report"]["state"], "ok");
    assert!(plain["report"]["age_seconds"].as_f64().unwrap() < 10.0);
    let attempt = &plain["attempts"][0];
    assert_eq!(
        (&attempt["free"], &attempt["waiting"]),
        (&json!(2), &json!(0))
    );
    let chosen = candidate(attempt, attempt["backend"].as_str().unwrap());
    assert_eq!(
        (&chosen["chosen"], &chosen["condition"]),
        (&json!(true), &json!("free"))
    );
    assert_eq!(
        (&chosen["in_flight"], &chosen["max_in_flight"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(attempt["handed_over"], false);
    assert_in_order(&plain);
    // However the address writes it.
    let encoded = explained(&lb, "plain%2F1%3Ax%2By%3Dz").await;
    assert_eq!(encoded, plain);
    let text = text_of(&lb, "plain/1:x+y=z").await;
    assert!(
        text.contains("200: answered by a: 2 of 2 had a free slot, and it was its turn"),
        "{text}"
    );
    assert!(text.contains("> a ") && text.contains("  b "), "{text}");
    assert!(text.contains("a worked"), "{text}");
}

/// Every field's name, at any depth.
fn fields(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (field, value) in object {
                into.push(field.clone());
                fields(value, into);
            }
        }
        Value::Array(array) => array.iter().for_each(|value| fields(value, into)),
        _ => {}
    }
}

#[tokio::test]
async fn every_field_is_documented() {
    let a = backend("a").start().await;
    let lb = explaining([&a]).start().await;
    let mut names = Vec::new();
    fields(&ask(&lb, "x").await.1, &mut names);
    assert!(names.len() > 30, "{names:?}");
    let docs = include_str!("../../docs/explain.md");
    for name in names {
        // A candidate's are described in its row, most of them in words.
        let is_word = ["backend", "chosen"].contains(&name.as_str());
        assert!(is_word || docs.contains(&format!("`{name}`")), "{name}");
    }
}

#[tokio::test]
async fn a_request_that_waited_is_explained_by_who_was_busy_and_for_how_long() {
    let a = backend("a").held().start().await;
    let lb = explaining([&a]).start().await;
    let _first = lb.send(&get("/home")).await;
    a.working_on(1).await;
    let mut second = lb.send(&get("/home").header("X-Request-Id", "waits")).await;
    lb.has_waiting(1).await;
    assert_eq!(
        lb.admin("/api/v1/explain/waits").await.status,
        404,
        "it is not over"
    );
    tokio::time::sleep(200.millis()).await;
    a.release(2);
    assert_eq!(second.receive("GET").await.unwrap().status, 200);
    let waited = explained(&lb, "waits").await;
    let attempt = &waited["attempts"][0];
    assert_eq!((&attempt["full"], &attempt["free"]), (&json!(1), &json!(0)));
    assert_eq!(
        (&attempt["handed_over"], &attempt["backend"]),
        (&json!(true), &json!("a"))
    );
    let found = candidate(attempt, "a");
    assert_eq!(
        (&found["condition"], &found["chosen"]),
        (&json!("full"), &json!(false))
    );
    let wait =
        attempt["seated_seconds"].as_f64().unwrap() - attempt["asked_seconds"].as_f64().unwrap();
    assert!((0.2..5.0).contains(&wait), "{wait}");
    assert_in_order(&waited);
    let text = text_of(&lb, "waits").await;
    assert!(
        text.contains("none of 1 had a free slot, so it waited for "),
        "{text}"
    );
}

#[tokio::test]
async fn one_that_waited_and_was_to_tell_whether_the_backend_is_well_says_so() {
    let a = backend("a").status(503).held().start().await;
    let detection = json!({ "consecutive_errors": 1, "max_ejection_percent": 100 });
    let lb = explaining([&a])
        .key("maitred.upstreams.web.outlier_detection", detection)
        .start()
        .await;
    let mut fails = lb.send(&get("/home").header("X-Request-Id", "fails")).await;
    a.working_on(1).await;
    let mut tries = lb.send(&get("/home").header("X-Request-Id", "tries")).await;
    lb.has_waiting(1).await;
    a.release(1);
    assert_eq!(fails.receive("GET").await.unwrap().status, 503);
    a.turns(200);
    a.release(1);
    assert_eq!(tries.receive("GET").await.unwrap().status, 200);
    let failed = explained(&lb, "fails").await;
    assert_eq!(failed["attempts"][0]["trial"], false);
    let attempt = explained(&lb, "tries").await["attempts"][0].clone();
    assert_eq!(
        (&attempt["trial"], &attempt["handed_over"]),
        (&json!(true), &json!(true))
    );
    let text = text_of(&lb, "tries").await;
    assert!(
        text.contains("this request was to tell whether it is well again"),
        "{text}"
    );
}

#[tokio::test]
async fn a_retry_is_explained_attempt_by_attempt_and_who_was_passed_over_with_the_cause() {
    let [a, b, c] = [
        backend("a").start().await,
        backend("b").start().await,
        backend("c").start().await,
    ];
    let lb = explaining([&a, &b, &c]).with_down("c").start().await;
    a.kill().await;
    let (status, retried) = ask(&lb, "retried").await;
    assert_eq!((status, &retried["attempts_made"]), (200, &json!(2)));
    let [first, second] = [&retried["attempts"][0], &retried["attempts"][1]];
    assert_eq!(
        (&first["backend"], &first["failed"]),
        (&json!("a"), &json!("bad_gateway"))
    );
    assert_eq!(first["sent_seconds"], Value::Null);
    assert_eq!(
        (&second["backend"], &second["failed"]),
        (&json!("b"), &Value::Null)
    );
    let ejected = candidate(second, "a");
    assert_eq!(ejected["condition"], "ejected");
    assert_eq!(ejected["ejected_for"], "connection_refused");
    assert!(ejected["since_seconds"].as_f64().unwrap() < 5.0);
    assert_eq!(candidate(second, "c")["condition"], "sick");
    let counts = ["free", "full", "ejected", "kept_out"].map(|key| second[key].clone());
    assert_eq!(counts, [json!(1), json!(0), json!(1), json!(1)]);
    let text = text_of(&lb, "retried").await;
    for line in [
        "failed: bad_gateway",
        "a                ejected (connection_refused), for ",
        "c                sick, for ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(text.contains("of 3 it alone had a free slot"), "{text}");
}

#[tokio::test]
async fn an_answer_that_was_turned_down_is_explained_and_why_the_next_was_not() {
    let a = backend("a").status(503).start().await;
    let lb = explaining([&a])
        .key("maitred.upstreams.web.retry.on", json!([503]))
        .key("maitred.upstreams.web.retry.attempts", 2)
        .start()
        .await;
    let (status, again) = ask(&lb, "again").await;
    assert_eq!((status, &again["attempts_made"]), (503, &json!(2)));
    let told = |attempt: usize| {
        let attempt = &again["attempts"][attempt];
        [&attempt["failed"], &attempt["retry_denied"]].map(Value::clone)
    };
    assert_eq!(told(0), [json!("503"), Value::Null]);
    assert_eq!(told(1), [Value::Null, json!("attempts")]);
    let text = text_of(&lb, "again").await;
    for line in ["failed: 503", "not tried again: attempts"] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn refusals_and_time_outs_are_explained_with_the_reason_of_the_answer() {
    let a = backend("a").takes(2.secs()).start().await;
    let lb = explaining([&a])
        .queue(0)
        .response_header_timeout(300.millis())
        .start()
        .await;
    let mut slow = lb.send(&get("/home").header("X-Request-Id", "slow")).await;
    a.working_on(1).await;
    let (status, refused) = ask(&lb, "refused").await;
    assert_eq!((status, &refused["reason"]), (503, &json!("queue_full")));
    assert_eq!(
        (&refused["attempts"][0]["backend"], &refused["status"]),
        (&Value::Null, &json!(503))
    );
    assert_eq!(slow.receive("GET").await.unwrap().status, 504);
    let slow = explained(&lb, "slow").await;
    assert_eq!(
        (&slow["reason"], &slow["status"]),
        (&json!("response_header_timeout"), &json!(504))
    );
    assert_eq!(slow["attempts"][0]["answered_seconds"], Value::Null);
    assert_eq!(slow["attempts"][0]["failed"], "response_header_timeout");
    lb.health(&[("a", false)]).await;
    let (status, sick) = ask(&lb, "sick").await;
    assert_eq!(
        (status, &sick["reason"]),
        (503, &json!("no_eligible_backend"))
    );
    assert_eq!(sick["attempts"][0]["kept_out"], 1);
    let lost = lb.ask(get("/nowhere").header("X-Request-Id", "lost")).await;
    assert_eq!(lost.status, 404);
    let lost = explained(&lb, "lost").await;
    assert_eq!(
        (&lost["reason"], &lost["upstream"]),
        (&json!("not_found"), &Value::Null)
    );
    assert!(
        text_of(&lb, "lost")
            .await
            .contains("404: no route takes this host and path")
    );
}

#[tokio::test]
async fn a_client_that_left_while_it_waited_is_explained() {
    let a = backend("a").held().start().await;
    let lb = explaining([&a]).start().await;
    let _first = lb.send(&get("/home")).await;
    a.working_on(1).await;
    let gone = lb.send(&get("/home").header("X-Request-Id", "gone")).await;
    lb.has_waiting(1).await;
    drop(gone);
    let gone = explained(&lb, "gone").await;
    assert_eq!(
        (&gone["reason"], &gone["status"]),
        (&json!("client_gone"), &json!(499))
    );
    assert_eq!(gone["attempts"][0]["seated_seconds"], Value::Null);
    a.release(1);
}

#[tokio::test]
async fn only_the_last_ones_are_remembered_and_of_one_id_the_newest() {
    let a = backend("a").start().await;
    let lb = explaining([&a])
        .key("maitred.explain.capacity", 3)
        .start()
        .await;
    for target in ["/home?1", "/home?2"] {
        lb.ask(get(target).header("X-Request-Id", "same")).await;
        until("the newest is told", 5.secs(), async || {
            explained(&lb, "same").await["target"] == target
        })
        .await;
    }
    for id in ["x", "y", "z"] {
        ask(&lb, id).await;
    }
    let unknown = lb.admin("/api/v1/explain/same").await;
    assert_eq!(unknown.status, 404);
    assert!(
        unknown.text().contains("no request of this id"),
        "{}",
        unknown.text()
    );
    assert_eq!(lb.admin("/api/v1/explain/").await.status, 404);
    assert_eq!(lb.admin("/api/v1/explain/x?format=xml").await.status, 400);
}

#[tokio::test]
async fn by_default_nothing_is_noted() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let answer = lb
        .ask(
            get("/home")
                .header("X-Request-Id", "x")
                .header("X-Maitred-Debug", TOKEN),
        )
        .await;
    assert_eq!(answer.header("X-Maitred-Explain"), None);
    let page = lb.admin("/api/v1/explain/x").await;
    assert_eq!(page.status, 404);
    assert!(
        page.text().contains("maitred.explain.capacity is 0"),
        "{}",
        page.text()
    );
}

#[tokio::test]
async fn who_knows_the_token_is_told_in_the_answer_and_nobody_else() {
    let a = backend("a").start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .key("maitred.explain.debug_token", TOKEN)
        .start()
        .await;
    let with = |token: &str| get("/home").header("X-Maitred-Debug", token);
    let told = lb.ask(with(TOKEN).header("X-Request-Id", "x")).await;
    let field: Value = serde_json::from_str(told.header("X-Maitred-Explain").unwrap()).unwrap();
    assert_eq!(
        (&field["id"], &field["attempts"][0]["backend"]),
        (&json!("x"), &json!("a"))
    );
    assert!(field["attempts"][0]["answered_seconds"].as_f64().unwrap() > 0.0);
    let unrouted = lb
        .ask(request("GET", "/nowhere").header("x-maitred-debug", TOKEN))
        .await;
    let field: Value = serde_json::from_str(unrouted.header("X-Maitred-Explain").unwrap()).unwrap();
    assert_eq!(
        (&field["reason"], &field["status"]),
        (&json!("not_found"), &json!(404))
    );
    for wrong in [
        "",
        "open-sesame",
        "open-sesame-012345678X",
        "open-sesame-0123456789 x",
    ] {
        let answer = lb.ask(with(wrong)).await;
        assert_eq!(
            (answer.status, answer.header("X-Maitred-Explain")),
            (200, None),
            "{wrong:?}"
        );
    }
    for seen in a.requests() {
        assert_eq!(seen.header("X-Maitred-Debug"), None);
    }
    assert!(!lb.log().contains("sesame"), "{}", lb.log());
    let status = lb.admin("/api/v1/explain/x").await;
    assert_eq!(status.status, 404, "without capacity nothing is remembered");
}

#[tokio::test]
async fn a_wrong_token_in_the_configuration_is_not_shown() {
    let a = backend("a").start().await;
    let site = proxy()
        .upstream("web", [&a])
        .key("maitred.explain.debug_token", "s e s a m e")
        .site();
    let said = site.check().await;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.contains("maitred.explain.debug_token: what is written is not 16 to 256 visible"),
        "{said}"
    );
    assert!(!said.contains("s e s"), "{said}");
}

#[tokio::test]
async fn with_many_backends_a_request_costs_no_more_than_a_few_of_them() {
    let server = backend("all").on_every_address().start().await;
    let aliases = aliases(300, server.address().port());
    let lb = proxy()
        .upstream("web", &aliases)
        .key("maitred.explain.capacity", 10)
        .key("maitred.explain.debug_token", TOKEN)
        .start()
        .await;
    for _ in 0..20 {
        lb.ask(get("/home")).await;
    }
    let answer = lb
        .ask(
            get("/home")
                .header("X-Request-Id", "far")
                .header("X-Maitred-Debug", TOKEN),
        )
        .await;
    assert!(answer.header("X-Maitred-Explain").unwrap().len() <= 4096);
    let far = explained(&lb, "far").await;
    let candidates = far["attempts"][0]["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 17, "sixteen, and the one that was chosen");
    let last = &candidates[16];
    assert_eq!(
        (&last["backend"], &last["chosen"]),
        (&far["attempts"][0]["backend"], &json!(true))
    );
    assert_eq!(far["attempts"][0]["free"], 300);
    let text = text_of(&lb, "far").await;
    assert!(
        text.contains("and 283 more; of all 300, 300 free"),
        "{text}"
    );
}

#[tokio::test]
async fn nothing_that_a_client_sends_breaks_what_is_shown() {
    let a = backend("a").start().await;
    let lb = explaining([&a]).start().await;
    let long = format!("/home?{}", "\u{e4}".repeat(2_000));
    let targets = [
        "/home?\"}{\\",
        "/home?<script>",
        "/home?%0d%0a%1b",
        "/home?'\u{e4}\u{2028}",
        &long,
    ];
    let mut explained_count = 0;
    for (index, target) in targets.iter().enumerate() {
        let id = format!("odd-{index}");
        let mut client: Client = lb.connect().await;
        client
            .send(&get(target).header("X-Request-Id", &id))
            .await
            .unwrap();
        let answer = client.receive("GET").await.unwrap();
        if answer.header("X-Request-Id").is_none() {
            // What is no request at all never got as far.
            assert_eq!(answer.status, 400, "{target}");
            continue;
        }
        let shown = explained(&lb, &id).await;
        assert_eq!(shown["status"], answer.status);
        explained_count += 1;
        let shown = shown["target"].as_str().unwrap();
        assert!(
            target.starts_with(shown.trim_end_matches('\u{fffd}')),
            "{shown}"
        );
        let text = text_of(&lb, &id).await;
        assert!(
            text.lines().count() < 25 && !text.contains('\u{1b}'),
            "{text}"
        );
    }
    assert!(explained_count >= 3, "{explained_count}");
    let method = "M".repeat(200);
    lb.ask(request(&method, "/home").header("X-Request-Id", "odd-method"))
        .await;
    assert_eq!(explained(&lb, "odd-method").await["method"], "M".repeat(16));
    // Of an id that is none, the proxy makes another one.
    let answer = lb.ask(get("/home").header("X-Request-Id", "a\"b")).await;
    let made = answer.header("X-Request-Id").unwrap().to_owned();
    assert_eq!(explained(&lb, &made).await["id"], made.as_str());
    for id in ["%00", "%ff%fe", "..%2f..", "\"", "%22%7d"] {
        assert_eq!(
            lb.admin(&format!("/api/v1/explain/{id}")).await.status,
            404,
            "{id}"
        );
    }
}
