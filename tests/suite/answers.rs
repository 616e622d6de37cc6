//! Backends that answer in odd ways: interim answers, silent closes, nonsense.

use crate::harness::{Units, backend, get, load, post, proxy};

const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Backend: a\r\n\r\nok";

#[tokio::test]
async fn interim_answers_do_not_confuse() {
    let interim =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
    let a = backend("a")
        .answers_raw(format!("{interim}{interim}{FINAL}"))
        .start()
        .await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let mut client = lb.connect().await;
    for _ in 0..50 {
        let answer = client.ask(&get("/home")).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        let answer = client
            .ask(&post("/home").body(b"x".to_vec()))
            .await
            .unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    }
    assert_eq!((a.served(), a.overlap()), (100, 1));
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_502() {
    let a = backend("a").answers_raw(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    );
    let a = a.start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let answer = lb.ask(get("/home").accepts_json()).await;
    answer.assert_refusal(502, "invalid_response");
}

#[tokio::test]
async fn what_is_not_http_is_502() {
    let a = backend("a")
        .answers_raw("SSH-2.0-OpenSSH_9.6\r\n\r\n")
        .start()
        .await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let answer = lb.ask(get("/home").accepts_json()).await;
    answer.assert_refusal(502, "invalid_response");
    let said = answer.json();
    assert_eq!(
        (&said["backend"], &said["attempts"]),
        (&"a".into(), &3.into())
    );
    let text = lb.ask(get("/home")).await.text();
    assert!(text.contains("backend: a, attempts: 3"), "{text}");
}

#[tokio::test]
async fn a_backend_that_closes_its_kept_connections_unannounced_costs_no_get() {
    let start = async |name| backend(name).takes(1.millis()).hangs_up().start().await;
    let group = [start("a").await, start("b").await, start("c").await];
    let lb = proxy().upstream("web", &group).start().await;
    load(lb.address())
        .requests_each(200)
        .run()
        .await
        .assert_none_failed();
    load(lb.address())
        .clients(20)
        .requests_each(20)
        .run()
        .await
        .assert_none_failed();
    for backend in &group {
        assert_eq!(backend.overlap(), 1, "{}", backend.name());
    }
}

#[tokio::test]
async fn a_backend_that_says_close_is_obeyed() {
    let a = backend("a").says_close().start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    let mut client = lb.connect().await;
    for _ in 0..20 {
        let answer = client
            .ask(&post("/home").body(b"x".to_vec()))
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
        assert!(
            !answer.headers.lists("Connection", "close"),
            "that was between the proxy and the backend"
        );
    }
    assert_eq!((a.served(), a.connections()), (20, 20));
}

#[tokio::test]
async fn connections_to_backends_are_kept() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    load(lb.address())
        .requests_each(50)
        .run()
        .await
        .assert_none_failed();
    assert!(
        a.connections() <= 5,
        "{} connections for 50 requests",
        a.connections()
    );
}

#[tokio::test]
async fn bytes_after_the_end_of_an_answer_do_not_reach_the_next_client() {
    let a = backend("a")
        .answers_raw(format!("{FINAL}{FINAL}"))
        .takes(1.millis())
        .start()
        .await;
    let lb = proxy().upstream("web", [&a]).start().await;
    for _ in 0..20 {
        assert_eq!(lb.ask(get("/home")).await.text(), "ok");
    }
    assert_eq!(a.served(), 20, "each answer belongs to its own request");
    assert!(!lb.log().contains("WARN"), "no line each: {}", lb.log());
}
