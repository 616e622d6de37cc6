//! Every request has an id, and client, backend, log and error answer know it by the same one.

use crate::harness::{
    Backend, Client, Proxy, Request, Response, Units, backend, get, head, post, proxy, request,
    soon,
};

fn id(answer: &Response) -> &str {
    let ids: Vec<_> = answer.headers.all("X-Request-Id").collect();
    assert_eq!(ids.len(), 1, "{:?}", answer.headers);
    ids[0]
}

/// One for each request; several fields would show.
fn ids_seen(a: &Backend) -> Vec<String> {
    let requests = a.requests();
    let fields = requests.iter().map(|seen| seen.headers.all("X-Request-Id"));
    fields
        .map(|ids| ids.collect::<Vec<_>>().join(" and "))
        .collect()
}

/// Asserts that this is a version 7 UUID (RFC 9562) of the last minute.
fn assert_is_made(id: &str) {
    let groups: Vec<_> = id.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
    let digits = id.replace('-', "");
    assert!(
        digits
            .bytes()
            .all(|digit| b"0123456789abcdef".contains(&digit)),
        "{id}"
    );
    assert!(
        digits[12..13] == *"7" && "89ab".contains(&digits[16..17]),
        "{id}"
    );
    let millis = u64::from_str_radix(&digits[..12], 16).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let age = now.unwrap().as_millis() as u64 - millis;
    assert!(age < 60_000, "{id} is {age} ms old");
}

async fn with_backend() -> (Backend, Proxy) {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    (a, lb)
}

fn with_id(id: &str) -> Request {
    get("/home").header("X-Request-Id", id)
}

#[tokio::test]
async fn a_request_without_an_id_gets_one_and_everybody_knows_it() {
    let (a, lb) = with_backend().await;
    let mut ids = Vec::new();
    for request in [
        get("/home"),
        head("/home"),
        post("/home").body(b"x".to_vec()),
    ] {
        let answer = lb.ask(request).await;
        assert_is_made(id(&answer));
        ids.push(id(&answer).to_owned());
    }
    assert_eq!(ids_seen(&a), ids);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn a_clients_id_is_taken_over_in_whatever_case_its_name_is() {
    let (a, lb) = with_backend().await;
    for name in ["X-Request-Id", "x-request-id", "X-REQUEST-ID"] {
        let answer = lb
            .ask(get("/home").header(name, "web-1/2f:77+a~b_c.d@h="))
            .await;
        assert_eq!(id(&answer), "web-1/2f:77+a~b_c.d@h=");
    }
    assert_eq!(ids_seen(&a), ["web-1/2f:77+a~b_c.d@h="; 3]);
    let longest = "x".repeat(128);
    assert_eq!(id(&lb.ask(with_id(&longest)).await), longest);
}

#[tokio::test]
async fn an_id_that_is_not_usable_is_replaced() {
    let (a, lb) = with_backend().await;
    let too_long = "x".repeat(129);
    let values = [
        "", "a b", "a\"b", "a,b", "<b>", "a;b", "a%0d", "\u{e4}", "a\tb", &too_long,
    ];
    for value in values {
        assert_is_made(id(&lb.ask(with_id(value)).await));
    }
    // Two say nothing, not even the same.
    assert_is_made(id(&lb.ask(with_id("a").header("x-request-id", "a")).await));
    let seen = ids_seen(&a);
    assert_eq!(seen.len(), values.len() + 1);
    seen.iter().for_each(|id| assert_is_made(id));
}

#[tokio::test]
async fn what_the_backend_calls_it_does_not_reach_the_client() {
    let a = backend("a")
        .header("x-Request-id", "theirs")
        .header("X-Request-Id", "another")
        .start()
        .await;
    let lb = proxy().upstream("web", [&a]).start().await;
    assert_eq!(id(&lb.ask(with_id("ours")).await), "ours");
    assert_is_made(id(&lb.ask(get("/home")).await));
}

#[tokio::test]
async fn refusals_have_an_id_in_their_field_and_body() {
    let (a, lb) = with_backend().await;
    for (request, status) in [
        (get("/nowhere"), 404),
        (get("/home").header("X-Request-Timeout", "soon"), 400),
        (request("DELETE", "/home"), 405),
    ] {
        let json = lb.ask(request.clone().accepts_json()).await;
        assert_eq!(json.status, status);
        assert_is_made(id(&json));
        assert_eq!(json.json()["request_id"], id(&json));
        let text = lb.ask(request.header("X-Request-Id", "mine")).await;
        assert_eq!((text.status, id(&text)), (status, "mine"));
        assert!(
            text.text().contains("\nrequest id: mine\n"),
            "{}",
            text.text()
        );
    }
    let headed = lb.ask(head("/nowhere")).await;
    assert_eq!(headed.status, 404);
    assert_is_made(id(&headed));

    lb.health(&[("a", false)]).await;
    let refused = lb.ask(with_id("mine")).await;
    assert_eq!((refused.status, id(&refused)), (503, "mine"));
    assert_eq!(a.begun(), 0);
}

#[tokio::test]
async fn a_bad_gateway_has_the_id_that_the_backend_saw() {
    let a = backend("a")
        .answers_raw("SSH-2.0-OpenSSH_9.6\r\n\r\n")
        .start()
        .await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let answer = lb.ask(get("/home").accepts_json()).await;
    answer.assert_refusal(502, "invalid_response");
    assert_eq!(ids_seen(&a), [id(&answer); 3]);
    assert_eq!(answer.json()["request_id"], id(&answer));
}

#[tokio::test]
async fn a_request_that_is_sent_again_keeps_its_id() {
    let a = backend("a").breaks_off_first(2).start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let answer = lb.ask(get("/home")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(ids_seen(&a), [id(&answer); 3]);
}

async fn heads_until_closed(client: &mut Client, request: &str) -> String {
    client.send_bytes(request.as_bytes()).await.unwrap();
    let all = soon("the close", 10.secs(), client.read_until_closed()).await;
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_client_of_http_10_is_told_too() {
    let (a, lb) = with_backend().await;
    for target in ["/home", "/nowhere"] {
        let mut client = lb.connect().await;
        let request = format!("GET {target} HTTP/1.0\r\nHost: h\r\nX-Request-Id: old\r\n\r\n");
        let answer = heads_until_closed(&mut client, &request).await;
        assert!(answer.contains("\r\nX-Request-Id: old\r\n"), "{answer}");
    }
    assert_eq!(ids_seen(&a), ["old"]);
}

#[tokio::test]
async fn interim_answers_have_none() {
    let a = backend("a")
        .answers_raw(
            "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        )
        .start()
        .await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let mut client = lb.connect().await;
    let request = "POST /home HTTP/1.1\r\nHost: h\r\nX-Request-Id: mine\r\nExpect: 100-continue\r\n\
                   Content-Length: 1\r\nConnection: close\r\n\r\nx";
    let answer = heads_until_closed(&mut client, request).await;
    let told = answer.matches("X-Request-Id: mine").count();
    assert_eq!(told, 1, "{answer}");
    let last = answer.rfind("HTTP/1.1 ").unwrap();
    assert!(
        last > 0 && answer[last..].contains("X-Request-Id"),
        "{answer}"
    );
}

/// `Connection` is about what the client sends, not about what we do.
#[tokio::test]
async fn a_client_cannot_keep_its_id_from_the_backend() {
    let (a, lb) = with_backend().await;
    let answer = lb
        .ask(with_id("mine").header("Connection", "keep-alive, X-Request-Id"))
        .await;
    assert_eq!((answer.status, id(&answer)), (200, "mine"));
    assert_eq!(ids_seen(&a), ["mine"]);
}

#[tokio::test]
async fn whose_word_is_taken_is_a_matter_of_configuration() {
    let a = backend("a").header("X-Request-Id", "theirs").start().await;
    let replacing = proxy()
        .upstream("web", [&a])
        .key("maitred.request_id", "replace")
        .start()
        .await;
    let answer = replacing.ask(with_id("mine")).await;
    assert_is_made(id(&answer));
    assert_eq!(ids_seen(&a), [id(&answer)]);
    drop(replacing);

    let off = proxy()
        .upstream("web", [&a])
        .key("maitred.request_id", "off")
        .start()
        .await;
    assert_eq!(id(&off.ask(with_id("mine ! ")).await), "theirs");
    assert_eq!(id(&off.ask(get("/home")).await), "theirs");
    assert_eq!(ids_seen(&a)[1..], ["mine !".to_owned(), String::new()]);
    assert_eq!(off.ask(get("/nowhere")).await.header("X-Request-Id"), None);
}

/// W3C Trace Context: who takes no part in a trace passes it on as it is.
#[tokio::test]
async fn a_trace_passes_untouched() {
    let (a, lb) = with_backend().await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = get("/home")
        .header("traceparent", parent)
        .header("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
        .header("Tracestate", "more=1");
    lb.ask(request).await;
    lb.ask(get("/home").header("Traceparent", "not a trace"))
        .await;
    lb.ask(get("/home")).await;
    let seen = a.requests();
    assert_eq!(
        seen[0].headers.all("traceparent").collect::<Vec<_>>(),
        [parent]
    );
    assert_eq!(
        seen[0].headers.all("tracestate").collect::<Vec<_>>(),
        ["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "more=1"]
    );
    assert_eq!(seen[1].header("traceparent"), Some("not a trace"));
    assert_eq!(
        (seen[2].header("traceparent"), seen[2].header("tracestate")),
        (None, None)
    );
}
