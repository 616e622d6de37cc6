//! Which requests are let in, and what of them and of their answers passes through.

use crate::harness::{backend, get, head, post, proxy, request};

#[tokio::test]
async fn the_rewrite_keeps_the_query() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    lb.ask(get("/home?x=1&y=%20z&x=2")).await;
    lb.ask(get("/home")).await;
    let targets: Vec<_> = a.requests().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/?x=1&y=%20z&x=2", "/"]);
}

#[tokio::test]
async fn each_route_leads_to_its_own_upstream() {
    let (a, b) = (backend("a").start().await, backend("b").start().await);
    let lb = proxy()
        .upstream("web", [&a])
        .upstream("other", [&b])
        .start()
        .await;
    assert_eq!(lb.ask(get("/home")).await.backend(), Some("a"));
    assert_eq!(lb.ask(get("/other")).await.backend(), Some("b"));
}

#[tokio::test]
async fn an_unknown_path_is_404_and_reaches_no_backend() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    for path in ["/", "/homes", "/home/", "/Home", "/?/home"] {
        let answer = lb.ask(get(path).accepts_json()).await;
        answer.assert_refusal(404, "not_found");
    }
    assert_eq!(a.begun(), 0);
}

#[tokio::test]
async fn another_method_is_405_and_says_which_are_allowed() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let answer = lb.ask(request("DELETE", "/home").accepts_json()).await;
    answer.assert_refusal(405, "method_not_allowed");
    for method in ["GET", "HEAD", "POST"] {
        assert!(
            answer.headers.lists("Allow", method),
            "{:?}",
            answer.header("Allow")
        );
    }
    assert!(!answer.headers.lists("Allow", "DELETE"));
    for name in ["Allow", "Content-Type", "Cache-Control"] {
        assert!(answer.headers.spells(name), "{:?}", answer.headers);
    }
    assert_eq!(a.begun(), 0);
}

#[tokio::test]
async fn get_head_and_post_reach_the_backend_as_they_are() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    assert_eq!(lb.ask(get("/home")).await.text(), "Hello from a");
    let headed = lb.ask(head("/home")).await;
    assert_eq!(
        (
            headed.status,
            headed.header("Content-Length"),
            headed.body.len()
        ),
        (200, Some("12"), 0)
    );
    lb.ask(post("/home").body(vec![b'x'; 5_000])).await;
    lb.ask(post("/home").chunked_body(vec![b'x'; 100_000]))
        .await;
    let seen: Vec<_> = a
        .requests()
        .into_iter()
        .map(|seen| (seen.method, seen.body_bytes))
        .collect();
    let expected = [("GET", 0), ("HEAD", 0), ("POST", 5_000), ("POST", 100_000)];
    assert_eq!(
        seen,
        expected.map(|(method, bytes)| (method.to_owned(), Some(bytes)))
    );
}

#[tokio::test]
async fn the_backend_learns_who_asked_and_how() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    lb.ask(get("/home")).await;
    let seen = &a.requests()[0];
    assert_eq!(seen.header("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(seen.header("X-Forwarded-Proto"), Some("http"));
    assert_eq!(seen.header("X-Forwarded-Host"), Some("example.test"));
    let via = seen.header("Via").unwrap_or("");
    assert!(via.starts_with("1.1 "), "Via: {via}");
}

#[tokio::test]
async fn hop_by_hop_fields_of_a_request_stop_at_the_proxy() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let request = get("/home")
        .header("Connection", "keep-alive, X-Secret, X-Forwarded-For")
        .header("X-Secret", "1")
        .header("X-Forwarded-For", "6.6.6.6")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "trailers")
        .header("X-Kept", "yes");
    assert_eq!(lb.ask(request).await.status, 200);
    let seen = &a.requests()[0];
    for field in ["X-Secret", "Keep-Alive", "Proxy-Connection", "TE"] {
        assert_eq!(seen.header(field), None, "{field}");
    }
    assert!(!seen.headers.lists("Connection", "X-Secret"));
    // What is added there is the proxy's, and no client's to take away.
    assert_eq!(seen.header("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(seen.header("X-Kept"), Some("yes"));
}

/// Without a `Connection` field beside it, too.
#[tokio::test]
async fn each_hop_by_hop_field_stops_at_the_proxy_by_itself() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let fields = [
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Authorization", "Basic YTpi"),
        ("TE", "trailers"),
        ("Trailer", "X-Sum"),
        ("Upgrade", "example/1"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
    ];
    for (number, (name, value)) in fields.into_iter().enumerate() {
        assert_eq!(lb.ask(get("/home").header(name, value)).await.status, 200);
        assert_eq!(a.requests()[number].header(name), None, "{name}");
    }
}

#[tokio::test]
async fn fields_reach_the_backend_as_often_and_in_the_order_in_which_they_came() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let request = get("/home")
        .header("X-Many", "1")
        .header("Cookie", "a=b")
        .header("x-many", "2")
        .header("X-MANY", "3");
    assert_eq!(lb.ask(request).await.status, 200);
    let seen = &a.requests()[0];
    assert_eq!(
        seen.headers.all("X-Many").collect::<Vec<_>>(),
        ["1", "2", "3"]
    );
    assert_eq!(seen.header("Cookie"), Some("a=b"));
}

#[tokio::test]
async fn hop_by_hop_fields_of_an_answer_stop_at_the_proxy() {
    let a = backend("a")
        .header("Connection", "X-Internal")
        .header("X-Internal", "1")
        .header("Keep-Alive", "timeout=5")
        .header("X-Kept", "yes")
        .start()
        .await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let answer = lb.ask(get("/home")).await;
    for field in ["X-Internal", "Keep-Alive"] {
        assert_eq!(answer.header(field), None, "{field}");
    }
    assert!(!answer.headers.lists("Connection", "X-Internal"));
    assert_eq!(answer.header("X-Kept"), Some("yes"));
}

#[tokio::test]
async fn a_refusal_speaks_json_or_text_as_the_client_accepts() {
    let lb = proxy()
        .upstream("web", [&backend("a").start().await])
        .start()
        .await;
    let json = lb.ask(get("/nowhere").accepts_json()).await;
    assert!(
        json.header("Content-Type")
            .unwrap_or("")
            .starts_with("application/json")
    );
    assert_eq!(json.json()["error"], "not_found");
    assert!(json.json()["message"].is_string(), "{}", json.text());
    let text = lb.ask(get("/nowhere")).await;
    assert!(
        text.header("Content-Type")
            .unwrap_or("")
            .starts_with("text/plain")
    );
    assert!(
        !text.body.is_empty() && !text.text().starts_with('{'),
        "{}",
        text.text()
    );
}

#[tokio::test]
async fn an_answer_of_the_backend_passes_unchanged_whatever_its_status() {
    for status in [201, 204, 301, 404, 500, 503] {
        let a = backend("a").status(status).start().await;
        let lb = proxy().upstream("web", [&a]).start().await;
        let answer = lb.ask(get("/home")).await;
        assert_eq!((answer.status, answer.backend()), (status, Some("a")));
    }
}

#[tokio::test]
async fn a_checked_configuration_exits_0_and_a_wrong_one_78() {
    let a = backend("a").start().await;
    let site = proxy().upstream("web", [&a]).site();
    let good = site.check().await;
    assert_eq!(
        good.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&good.stderr)
    );
    let text = std::fs::read_to_string(site.config_path()).unwrap();
    std::fs::write(site.config_path(), text.replace("\"queue\"", "\"queu\"")).unwrap();
    let wrong = site.check().await;
    assert_eq!(wrong.status.code(), Some(78));
    let said = String::from_utf8_lossy(&[wrong.stdout, wrong.stderr].concat()).into_owned();
    assert!(said.contains("queu") && said.contains("queue"), "{said}");
}
