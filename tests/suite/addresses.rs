//! Backends by every kind of address.

use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixSocket, UnixStream};
use tokio::time::timeout;

use crate::harness::{Units, backend, get, load, post, proxy, unix_door, until};

#[tokio::test]
async fn a_unix_socket_is_a_backend_as_any_other() {
    let (a, b) = (
        backend("a").takes(2.millis()).start().await,
        backend("b").start().await,
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    unix_door(&path, a.address());
    let lb = proxy()
        .upstream("web", [&a, &b])
        .backend_key("a", "address", format!("unix:{}", path.display()))
        .start()
        .await;
    let tally = load(lb.address()).clients(20).requests_each(20).run().await;
    tally.assert_none_failed();
    assert!(tally.by_backend["a"] > 0);
    assert_eq!(a.overlap(), 1);
    // Connections are kept: a server behind a socket must not see one per request.
    assert!(
        a.connections() < a.begun(),
        "{} connections",
        a.connections()
    );
    let large = lb.ask(post("/home").body(vec![b'x'; 1 << 20])).await;
    assert_eq!(large.status, 200);
}

#[tokio::test]
async fn a_socket_that_is_not_there_refuses_and_comes_back() {
    let (a, b) = (backend("a").start().await, backend("b").start().await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let lb = proxy()
        .upstream("web", [&a, &b])
        .backend_key("a", "address", format!("unix:{}", path.display()))
        .start()
        .await;
    for _ in 0..4 {
        assert_eq!(lb.ask(get("/home")).await.backend(), Some("b"));
    }
    assert!(!lb.is_eligible("a").await);
    unix_door(&path, a.address());
    until("a is back", 15.secs(), async || lb.is_eligible("a").await).await;
    let answers = [lb.ask(get("/home")).await, lb.ask(get("/home")).await];
    assert!(answers.iter().any(|answer| answer.backend() == Some("a")));
}

/// The slot of a request that was given up on stays taken, by a socket of this kind as by any other.
#[tokio::test]
async fn abandoned_work_on_a_socket_keeps_its_slot() {
    let a = backend("a").held().start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    unix_door(&path, a.address());
    let lb = proxy()
        .upstream("web", [&a])
        .backend_key("a", "address", format!("unix:{}", path.display()))
        .response_header_timeout(200.millis())
        .start()
        .await;
    assert_eq!(lb.ask(get("/home")).await.status, 504);
    let mut next = lb.send(&get("/home")).await;
    lb.has_waiting(1).await;
    assert_eq!(lb.backend_status("a").await["abandoned"], 1);
    a.release(2);
    assert_eq!(next.receive("GET").await.unwrap().status, 200);
    assert_eq!(a.overlap(), 1);
}

#[tokio::test]
async fn a_host_name_is_resolved_before_the_first_request() {
    let a = backend("a").start().await;
    let name = format!("localhost:{}", a.address().port());
    let lb = proxy()
        .upstream("web", [&a])
        .backend_key("a", "address", name.as_str())
        .start()
        .await;
    assert_eq!(lb.ask(get("/home")).await.backend(), Some("a"));
    let status = lb.backend_status("a").await;
    assert_eq!(status["address"], name.as_str());
    let endpoint = format!("127.0.0.1:{}", a.address().port());
    assert_eq!(status["resolved"]["endpoint"], endpoint.as_str());
    assert_eq!(status["resolved"]["problem"], Value::Null);
    let before = a.connections();
    let mut client = lb.connect().await;
    for _ in 0..5 {
        assert_eq!(client.ask(&get("/home")).await.unwrap().status, 200);
    }
    assert!(a.connections() <= before + 1, "connections are kept");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_costs_nobody_an_answer() {
    let (a, b) = (backend("a").start().await, backend("b").start().await);
    let lb = proxy()
        .upstream("web", [&a, &b])
        .backend_key("a", "address", "nobody.invalid:80")
        .start()
        .await;
    for _ in 0..4 {
        assert_eq!(lb.ask(get("/home")).await.backend(), Some("b"));
    }
    let status = lb.backend_status("a").await;
    assert_eq!(
        status["why_not"], "nobody.invalid does not resolve",
        "{status}"
    );
    assert_eq!(status["resolved"]["endpoint"], Value::Null);
}

#[tokio::test]
async fn a_name_that_leads_to_another_backend_is_not_followed() {
    let (a, b) = (backend("a").start().await, backend("b").start().await);
    let port = b.address().port();
    let lb = proxy()
        .upstream("web", [&a, &b])
        .backend_key("a", "address", format!("localhost:{port}"))
        .start()
        .await;
    for _ in 0..4 {
        assert_eq!(lb.ask(get("/home")).await.backend(), Some("b"));
    }
    let why_not = format!("localhost:{port} resolves to 127.0.0.1:{port}, which is b");
    assert_eq!(lb.backend_status("a").await["why_not"], why_not.as_str());
}

/// Where TCP tries again by itself, a Unix socket says at once that its backlog is full.
#[tokio::test]
async fn a_socket_with_a_full_backlog_is_busy_and_not_dead() {
    let a = backend("a").start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let listener = UnixSocket::new_stream().unwrap();
    listener.bind(&path).unwrap();
    let listener = listener.listen(1).unwrap();
    let mut queue = Vec::new();
    while let Ok(Ok(taken)) = timeout(100.millis(), UnixStream::connect(&path)).await {
        queue.push(taken);
    }
    let lb = proxy()
        .upstream("web", [&a])
        .backend_key("a", "address", format!("unix:{}", path.display()))
        .connect_timeout(10.secs())
        .start()
        .await;
    let mut client = lb.send(&get("/home")).await;
    lb.has_taken("a").await;
    tokio::time::sleep(200.millis()).await;
    assert!(lb.is_eligible("a").await);
    // Now somebody accepts: the ones that stood in line, and then ours.
    let address = a.address();
    tokio::spawn(async move {
        while let Ok((mut outside, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut inside = TcpStream::connect(address).await.unwrap();
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    assert_eq!(client.receive("GET").await.unwrap().status, 200);
}
