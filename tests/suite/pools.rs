//! Connections to backends: whose they are, for how long, and that none outlives what it was good for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::harness::{
    Proxy, ProxyBuilder, RawServer, Request, Response, Seen, Server, Units, Wire, ask_on, backend,
    get, load, post, proxy, raw_server, request, scrape, until,
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server that answers each request, and those for `?slow` when there is a permit for them.
async fn willing() -> (RawServer, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let slow = permits.clone();
    let server = raw_server("a", move |wire| answer_all(wire, slow.clone())).await;
    (server, permits)
}

/// All that comes on this connection, until the other side closes.
async fn answer_all(mut wire: Wire, slow: Arc<Semaphore>) {
    while let Ok(Some(head)) = wire.read_head().await {
        if head.start.contains("slow") {
            slow.acquire().await.unwrap().forget();
        }
        if wire.write(OK).await.is_err() {
            return;
        }
    }
}

/// With connections that are kept for a minute.
fn keeping(server: &RawServer) -> ProxyBuilder {
    proxy()
        .upstream("web", [server])
        .backend_key(server.name(), "max_in_flight", 4)
        .idle_timeout(60.secs())
}

/// So many requests at once, each of which waits for a permit.
fn ask_slowly(lb: &Proxy, requests: usize) -> JoinSet<io::Result<Response>> {
    let address = lb.address();
    let asked = (0..requests).map(|_| async move { get("/home?slow").send_to(address).await });
    asked.collect()
}

/// Makes this many connections to the server, which are idle then.
async fn fill(lb: &Proxy, (server, slow): (&RawServer, &Semaphore), connections: usize) {
    let asked = ask_slowly(lb, connections);
    until("each has a connection", 5.secs(), async || {
        server.open() == connections
    })
    .await;
    slow.add_permits(connections);
    for answer in asked.join_all().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(
        (server.open(), server.connections()),
        (connections, connections)
    );
}

#[tokio::test]
async fn without_keepalive_each_request_has_a_connection_of_its_own() {
    for keepalive in [true, false] {
        let a = backend("a").start().await;
        let mut lb = proxy().upstream("web", [&a]);
        if !keepalive {
            lb = lb.key("maitred.upstreams.web.keepalive", "off");
        }
        let lb = lb.start().await;
        let mut client = lb.connect().await;
        for asked in [
            get("/home"),
            request("HEAD", "/home"),
            post("/home").body(vec![1; 9]),
        ] {
            for said in ["keep-alive", "close, X-Mine", "keep-alive"] {
                // What the client says of its own connection.
                let asked = asked.clone().header("Connection", said);
                if said != "keep-alive" {
                    assert_eq!(lb.ask(asked).await.status, 200);
                } else {
                    assert_eq!(client.ask(&asked).await.unwrap().status, 200);
                }
            }
        }
        let requests = a.requests();
        let closes = |one: &Seen| one.header("Connection") == Some("close");
        assert_eq!(requests.len(), 9);
        assert!(requests.iter().all(|one| closes(one) != keepalive));
        if keepalive {
            assert!(a.connections() < 9, "{}", a.connections());
        } else {
            assert_eq!(a.connections(), 9);
        }
    }
}

#[tokio::test]
async fn an_upgrade_stays_one_without_keepalive() {
    // Pingora may cut an upgrade that is granted sooner (cloudflare/pingora#946).
    let a = backend("a").upgrades("").takes(20.millis()).start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .key("maitred.upstreams.web.keepalive", "off");
    let lb = lb.start().await;
    let mut client = lb.connect().await;
    let asked = get("/home").header("Connection", "Upgrade");
    client
        .send(&asked.header("Upgrade", "websocket"))
        .await
        .unwrap();
    assert_eq!(client.receive("GET").await.unwrap().status, 101);
    let said = a.requests()[0].headers.clone();
    assert!(said.lists("Connection", "upgrade") && said.lists("Connection", "close"));
    a.release(1);
}

/// It takes a connection when the one before has ended, and leaves the ending to the other side.
#[tokio::test]
async fn two_hundred_clients_are_served_by_a_server_of_one_connection_at_a_time() {
    let a = backend("a").takes(1.millis()).one_connection_at_a_time();
    let a = a.start().await;
    let lb = proxy()
        .upstream("web", [&a])
        .key("maitred.upstreams.web.keepalive", "off")
        .start()
        .await;
    let tally = load(lb.address()).clients(200).requests_each(3).run().await;
    tally.assert_none_failed();
    assert_eq!((a.served(), a.connections(), a.overlap()), (600, 600, 1));
}

#[tokio::test]
async fn an_http_10_backend_may_ask_for_keep_alive_in_vain() {
    const ANSWER: &str = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok";
    // Where it is heard, the next request may still be there before the connection is back.
    for (keepalive, expected) in [("on", 1..5), ("off", 5..6)] {
        let a = backend("a").answers_raw(ANSWER).start().await;
        let lb = proxy()
            .upstream("web", [&a])
            .key("maitred.upstreams.web.keepalive", keepalive)
            .idle_timeout(60.secs())
            .start()
            .await;
        for _ in 0..5 {
            assert_eq!(lb.ask(get("/home")).await.text(), "ok");
        }
        assert!(expected.contains(&a.connections()), "{}", a.connections());
    }
}

#[tokio::test]
async fn a_backend_that_turns_sick_loses_its_idle_connections_at_once() {
    let (server, slow) = willing().await;
    let lb = keeping(&server).start().await;
    fill(&lb, (&server, &slow), 4).await;
    lb.site().health(&[("a", false)]);
    let took = until("they are closed", 5.secs(), async || server.open() == 0).await;
    println!("closed {took:?} after the change");
    lb.health(&[("a", true)]).await;
    assert_eq!(lb.ask(get("/home")).await.status, 200);
    assert_eq!((server.open(), server.connections()), (1, 5));
}

#[tokio::test]
async fn one_in_use_is_closed_when_it_is_done_and_serves_nobody_after_the_return() {
    let (server, slow) = willing().await;
    let lb = keeping(&server).start().await;
    let mut client = lb.connect().await;
    client.send(&get("/home?slow")).await.unwrap();
    until("it is in use", 2.secs(), async || server.open() == 1).await;
    lb.health(&[("a", false)]).await;
    assert_eq!(server.open(), 1);
    lb.health(&[("a", true)]).await;
    slow.add_permits(1);
    assert_eq!(client.receive("GET").await.unwrap().status, 200);
    until("it is closed", 2.secs(), async || server.open() == 0).await;
    assert_eq!(client.ask(&get("/home")).await.unwrap().status, 200);
    assert_eq!(server.connections(), 2);
}

/// It would be taken for the next request.
#[tokio::test]
async fn a_connection_on_which_a_body_was_refused_serves_no_other_request() {
    const TOO_LARGE: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";
    let server = raw_server("a", |mut wire: Wire| async move {
        while let Ok(Some(_)) = wire.read_head().await {
            let _ = wire.write(TOO_LARGE).await;
        }
    });
    let server = server.await;
    let lb = keeping(&server).start().await;
    for (connections, asked) in [
        (1, post("/home").body(b"hello".to_vec())),
        (2, get("/home")),
    ] {
        assert_eq!(lb.ask(asked).await.status, 413);
        assert_eq!(server.connections(), connections);
    }
}

/// It takes no new connections; those that stand still work.
#[tokio::test]
async fn an_ejected_backend_loses_its_connections() {
    let (server, slow) = willing().await;
    let lb = keeping(&server).start().await;
    fill(&lb, (&server, &slow), 2).await;
    server.refuse().await;
    let asked = ask_slowly(&lb, 3);
    until("it is ejected", 5.secs(), async || {
        !lb.is_eligible("a").await
    })
    .await;
    slow.add_permits(2);
    until("they are closed", 5.secs(), async || server.open() == 0).await;
    drop(asked);
}

/// Takes [`WORK`] for each request and closes a connection on which nothing has come for this long; counts those that
/// were closed so, and the requests.
fn impatient(
    limit: Duration,
    closed: &Arc<AtomicUsize>,
    seen: &Arc<AtomicUsize>,
) -> impl Fn(Wire) -> Served + use<> {
    let (closed, seen) = (closed.clone(), seen.clone());
    move |mut wire| {
        let (closed, seen) = (closed.clone(), seen.clone());
        Box::pin(async move {
            loop {
                match timeout(limit, wire.read_head()).await {
                    Ok(Ok(Some(_))) => seen.fetch_add(1, SeqCst),
                    Ok(_) => return,
                    Err(_) => {
                        closed.fetch_add(1, SeqCst);
                        return;
                    }
                };
                sleep(WORK).await;
                if wire.write(OK).await.is_err() {
                    return;
                }
            }
        })
    }
}

/// So long that requests which come together have a connection each.
const WORK: Duration = Duration::from_millis(5);

type Served = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Asks `each` times on one connection, about this long after all others have their answers: then every connection of
/// the proxy has rested for that long. How many did not get 200.
async fn hesitant(
    lb: SocketAddr,
    asked: Request,
    each: usize,
    (pause, seed): (Duration, u64),
    all: Arc<Barrier>,
) -> usize {
    let mut random = Rng::with_seed(seed);
    let (mut connection, mut failed) = (None, 0);
    for _ in 0..each {
        all.wait().await;
        sleep(pause.mul_f64(0.8 + 0.2 * random.f64())).await;
        let answer = ask_on(&mut connection, lb, &asked).await;
        failed += usize::from(!answer.is_ok_and(|answer| answer.status == 200));
    }
    failed
}

/// How many of so many requests failed at a backend that closes connections idle for `limit`, where the proxy closes
/// them after `idle`; and how many the backend had closed.
async fn stale(
    asked: Request,
    (limit, idle): (Duration, Duration),
    requests: usize,
) -> (usize, usize) {
    const CLIENTS: usize = 40;
    let (closed, seen) = (Arc::default(), Arc::default());
    let server = raw_server("a", impatient(limit, &closed, &seen)).await;
    let lb = proxy()
        .upstream("web", [&server])
        .backend_key("a", "max_in_flight", CLIENTS)
        .idle_timeout(idle)
        .alone()
        .start()
        .await;
    let all = Arc::new(Barrier::new(CLIENTS));
    let clients = (0..CLIENTS).map(|number| {
        let (each, pause) = (requests / CLIENTS, limit.min(idle));
        let rest = (pause, number as u64);
        hesitant(lb.address(), asked.clone(), each, rest, all.clone())
    });
    let clients: JoinSet<_> = clients.collect();
    let failed = clients.join_all().await.iter().sum();
    if failed == 0 {
        assert_eq!(seen.load(SeqCst), requests, "each was sent once");
    }
    let page = scrape(lb.site().admin()).await;
    let again = page.sum("maitred_retries_total", &["reason=\"stale_connection\""]);
    let closed = closed.load(SeqCst);
    println!(
        "{requests} requests, closed after {idle:?} by us and {limit:?} by the backend: {failed} failed; {closed} \
         connections closed by the backend, {again} of them in the moment of use"
    );
    (failed, closed)
}

#[tokio::test]
async fn a_backend_that_closes_idle_connections_early_costs_no_get() {
    let (failed, closed) = stale(get("/home"), (50.millis(), 60.secs()), 1_000).await;
    assert_eq!(failed, 0);
    assert!(closed > 200, "{closed}");
}

/// By as much earlier as a busy machine may stand still.
#[tokio::test]
async fn it_costs_no_post_where_the_proxy_closes_them_earlier() {
    let pay = post("/home").body(Vec::new());
    let (failed, _) = stale(pay, (500.millis(), 100.millis()), 200).await;
    assert_eq!(failed, 0);
}

#[tokio::test]
#[ignore = "takes half a minute, and wants a machine that stands still for less than 30 ms"]
async fn stale_connections_cost_nothing_of_ten_thousand() {
    let (failed, closed) = stale(get("/home"), (50.millis(), 60.secs()), 10_000).await;
    assert_eq!(failed, 0);
    assert!(closed > 2_000, "{closed}");
    let pay = post("/home").body(Vec::new());
    assert_eq!(stale(pay, (50.millis(), 20.millis()), 10_000).await.0, 0);
}
