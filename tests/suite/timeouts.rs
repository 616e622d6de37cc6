//! Each timeout ends what it is for, and says so. Those of clients' headers, idle connections and writes
//! are in `connections`, those of an answer's header and body in `slots` and `stalls`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::time::timeout;

use crate::harness::{
    Client, Proxy, Response, Server, Units, backend, free_port, get, post, proxy, scrape, soon,
    until,
};

/// A server that takes no connection: its accept queue is full, and the system drops whoever knocks.
struct Deaf {
    listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Deaf {
    async fn start() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut queue = Vec::new();
        while let Ok(taken) = timeout(100.millis(), TcpStream::connect(address)).await {
            queue.push(taken.unwrap());
        }
        Self {
            listener,
            _queue: queue,
        }
    }
}

impl Server for Deaf {
    fn name(&self) -> &str {
        "deaf"
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }
}

/// The default is one second.
#[tokio::test]
async fn a_backend_that_takes_no_connection_in_two_seconds_is_taken_out_then() {
    let deaf = Deaf::start().await;
    let lb = proxy()
        .upstream("web", [&deaf])
        .connect_timeout(2.secs())
        .start()
        .await;
    let mut client = lb.connect().await;
    let begun = Instant::now();
    client.send(&get("/home")).await.unwrap();
    until("it is taken out", 10.secs(), async || {
        lb.backend_status("deaf").await["eligible"] == false
    })
    .await;
    assert!(begun.elapsed() >= 1900.millis(), "{:?}", begun.elapsed());
}

/// The answer to these bytes, which must come no earlier than `least` and soon after.
async fn answer_after(client: &mut Client, bytes: &[u8], least: Duration) -> Response {
    let begun = Instant::now();
    client.send_bytes(bytes).await.unwrap();
    let answer = soon("the answer", 5.secs(), client.receive("GET"))
        .await
        .unwrap();
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    answer
}

#[tokio::test]
async fn a_request_that_is_not_answered_in_its_time_is_504() {
    let a = backend("a").held().start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .request_timeout(400.millis())
        .start()
        .await;
    let mut client = lb.connect().await;
    let asked = get("/home").accepts_json().encode();
    let answer = answer_after(&mut client, &asked, 390.millis()).await;
    answer.assert_refusal(504, "request_timeout");
    let said = answer.json();
    assert_eq!(
        (&said["backend"], &said["attempts"]),
        (&"a".into(), &1.into())
    );
}

#[tokio::test]
async fn a_request_whose_time_goes_by_while_it_waits_is_503_and_never_sent() {
    let a = backend("a").held().start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .request_timeout(400.millis())
        .start()
        .await;
    let mut first = lb.connect().await;
    first.send(&get("/home")).await.unwrap();
    a.working_on(1).await;
    let mut second = lb.connect().await;
    let asked = get("/home").accepts_json().encode();
    let answer = answer_after(&mut second, &asked, 390.millis()).await;
    answer.assert_refusal(503, "queue_timeout");
    assert!(answer.header("Retry-After").is_some());
    assert_eq!(a.begun(), 1);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_408_and_holds_no_slot() {
    let a = backend("a").start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .client_read_timeout(400.millis())
        .start()
        .await;
    let mut client = lb.connect().await;
    let asked =
        b"POST /home HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nContent-Length: 9\r\n\r\nx";
    let answer = answer_after(&mut client, asked, 390.millis()).await;
    answer.assert_refusal(408, "body_timeout");
    assert_eq!(a.served(), 0);
}

#[tokio::test]
async fn an_idle_connection_to_a_backend_is_closed_in_time() {
    let a = backend("a").start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .idle_timeout(200.millis())
        .start()
        .await;
    let mut client = lb.connect().await;
    // Asked three times a second, it would never be closed by the default of one second.
    until("three connections", 10.secs(), async || {
        assert_eq!(client.ask(&get("/home")).await.unwrap().status, 200);
        tokio::time::sleep(300.millis()).await;
        a.connections() >= 3
    })
    .await;
}

/// The default is a minute. The header has gone to the client, so all that is left is to break off.
#[tokio::test]
async fn a_backend_that_pauses_in_its_answer_is_broken_off_at_the_read_timeout() {
    let a = backend("a")
        .response_body(1000)
        .pauses_before_body(5.secs())
        .start()
        .await;
    let lb = proxy()
        .upstream("web", [&a])
        .read_timeout(400.millis())
        .json_access_log()
        .start()
        .await;
    let begun = Instant::now();
    let answer = soon("the end", 4.secs(), get("/home").send_to(lb.address())).await;
    let took = begun.elapsed();
    assert!(answer.is_err(), "{answer:?}");
    assert!(took >= 400.millis(), "{took:?}");
    // The client had the header: the log says what it saw, and why that was not all.
    is_told(&lb, "read_timeout", 200).await;
}

/// Uploads as much as any buffers take; how long it was until the proxy answered by itself, which says why.
async fn upload_is_given_up_on(lb: &Proxy) -> Duration {
    let mut client = lb.connect().await;
    let begun = Instant::now();
    let upload = post("/home").accepts_json().promises(1 << 40);
    client.send(&upload).await.unwrap();
    let sent = send_until_answered(&mut client);
    soon("the end of the upload", 20.secs(), sent).await;
    let answer = soon("the answer", 20.secs(), client.receive("POST")).await;
    answer.unwrap().assert_refusal(504, "write_timeout");
    let took = begun.elapsed();
    // Else the rest of the body is waited for.
    drop(client);
    is_told(lb, "write_timeout", 504).await;
    took
}

async fn send_until_answered(client: &mut Client) {
    let piece = vec![b'x'; 1 << 20];
    while timeout(1.millis(), client.is_answered()).await.is_err() {
        if let Ok(sent) = timeout(200.millis(), client.send_bytes(&piece)).await {
            sent.unwrap();
        }
    }
}

/// Waits until the one request that there was is logged and counted as this.
async fn is_told(lb: &Proxy, reason: &str, status: u16) {
    until("it is logged", 5.secs(), async || {
        !lb.access_log().is_empty()
    })
    .await;
    let line = lb.access_log().remove(0);
    assert_eq!(
        (&line["reason"], &line["status"]),
        (&reason.into(), &status.into())
    );
    let page = scrape(lb.site().admin()).await;
    let label = format!("reason=\"{reason}\"");
    assert_eq!(page.sum("maitred_refusals_total", &[&label]), 1.0);
}

/// Where a request that found no connection may not be sent again; else it waits for a backend, and what it is
/// told in the end is that none had a slot for it.
#[tokio::test]
async fn a_connection_that_is_not_made_in_its_time_is_504() {
    let deaf = Deaf::start().await;
    for (on, max_retries, status, reason) in [
        (json!([]), 1_000, 504, "connect_timeout"),
        (json!(["connect_failure"]), 1_000, 503, "queue_timeout"),
        (json!(["connect_failure"]), 1, 504, "connect_timeout"),
    ] {
        let lb = proxy()
            .upstream("web", [&deaf])
            .connect_timeout(300.millis())
            .request_timeout(1.secs())
            .key("maitred.upstreams.web.retry", json!({ "on": on }))
            .key("max_retries", max_retries)
            .json_access_log()
            .start()
            .await;
        let mut client = lb.connect().await;
        let asked = get("/home").accepts_json().encode();
        let answer = answer_after(&mut client, &asked, 290.millis()).await;
        answer.assert_refusal(status, reason);
        if status == 504 {
            assert_eq!(answer.json()["backend"], "deaf");
            is_told(&lb, reason, 504).await;
        }
    }
}

#[tokio::test]
async fn each_timeout_has_its_name_in_body_log_and_metrics() {
    let slow = backend("slow").held().start().await;
    for reason in ["response_header_timeout", "request_timeout"] {
        let mut lb = proxy().upstream("web", [&slow]).json_access_log();
        lb = match reason {
            "request_timeout" => lb.request_timeout(300.millis()),
            _ => lb.response_header_timeout(300.millis()),
        };
        let lb = lb.start().await;
        lb.ask(get("/home").accepts_json())
            .await
            .assert_refusal(504, reason);
        is_told(&lb, reason, 504).await;
        let status = lb.backend_status("slow").await;
        assert_eq!(
            (&status["in_flight"], &status["abandoned"]),
            (&1.into(), &1.into())
        );
        slow.release(1);
        lb.has_freed_all().await;
    }
}

/// The kernel of a server that accepts nothing takes what fits its buffers. The default is thirty seconds.
#[tokio::test]
async fn a_backend_that_reads_nothing_for_half_a_second_is_given_up_on() {
    let mute = Mute::start().await;
    let lb = proxy()
        .upstream("web", [&mute])
        .write_timeout(500.millis())
        .busy_limit(3.secs())
        .json_access_log()
        .start()
        .await;
    let begun = Instant::now();
    let took = upload_is_given_up_on(&lb).await;
    assert!(took >= 500.millis() && took < 10.secs(), "{took:?}");
    // What it has in hand nobody knows: there is no connection by which it could let go.
    assert_eq!(lb.backend_status("mute").await["abandoned"], 1);
    until("the busy limit is over", 10.secs(), async || {
        lb.backend_status("mute").await["in_flight"] == 0
    })
    .await;
    let freed = begun.elapsed() - took;
    assert!(freed >= 2.secs(), "{freed:?}");
}

/// Where the kernel has no such limit, the others do.
#[tokio::test]
async fn a_socket_that_reads_nothing_is_given_up_on_too() {
    let mute = Mute::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mute.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let lb = proxy()
        .upstream("web", [&mute])
        .backend_key("mute", "address", format!("unix:{}", path.display()))
        .write_timeout(300.millis())
        .response_header_timeout(300.millis())
        .read_timeout(300.millis())
        .client_read_timeout(300.millis())
        .json_access_log()
        .start()
        .await;
    let took = upload_is_given_up_on(&lb).await;
    assert!(took < 10.secs(), "{took:?}");
}

/// A server whose connections stand, and that never reads.
struct Mute {
    listener: TcpListener,
}

impl Mute {
    async fn start() -> Self {
        let address = (Ipv4Addr::LOCALHOST, free_port());
        Self {
            listener: TcpListener::bind(address).await.unwrap(),
        }
    }
}

impl Server for Mute {
    fn name(&self) -> &str {
        "mute"
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }
}

/// Where connections to backends come from is an address that this machine does not have: the proxy's own
/// trouble, which may pass. It is waited for, but not for longer than a request may take.
#[tokio::test]
async fn a_shortage_of_the_proxy_itself_ends_with_the_time_of_the_request() {
    let a = backend("a").start().await;
    let site = proxy()
        .upstream("web", [&a])
        .request_timeout(500.millis())
        .site();
    site.edit_config(|config| {
        config["client_bind_to_ipv4"] = serde_json::json!(["192.0.2.1"]);
    });
    let lb = site.started().await;
    let begun = Instant::now();
    let answer = lb.ask(get("/home")).await;
    let took = begun.elapsed();
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(took >= 500.millis() && took < 5.secs(), "{took:?}");
    assert_eq!(lb.log().matches("not for a backend's fault").count(), 1);
}
