//! Busy is not dead: a backend that serves one request at a time answers no ping meanwhile. The poller asks
//! the proxies whether it is at work, and finds those that hang all the same.
//!
//! Whether a backend was ever called sick is read from the health file by the test itself, all the time.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::harness::{
    Backend, Client, Program, Proxy, ProxyBuilder, Server, Site, Units, Verdicts, backend,
    consecutive_ports, get, load, post, proxy, until,
};

/// One of our demo servers, in a process of its own: its pings wait behind the request being served.
pub struct Demo {
    name: &'static str,
    address: SocketAddr,
    pub program: Program,
    _folder: TempDir,
}

impl Server for Demo {
    fn name(&self) -> &str {
        self.name
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Three demo servers whose requests take this long.
pub async fn demos(delay: Duration) -> [Demo; 3] {
    let first = consecutive_ports(3);
    let servers = [("server1", 0), ("server2", 1), ("server3", 2)].map(|(name, offset)| {
        let folder = TempDir::new().unwrap();
        let (port, delay) = (first.to_string(), format!("{}ms", delay.as_millis()));
        let arguments = [name, "--base-port", &port, "--delay", &delay];
        let binary = env!("CARGO_BIN_EXE_backends");
        Demo {
            name,
            address: (Ipv4Addr::LOCALHOST, first + offset).into(),
            program: Program::start(name, binary, &arguments, folder.path()),
            _folder: folder,
        }
    });
    for server in &servers {
        until("a server listens", 10.secs(), async || {
            Client::connect(server.address).await.is_ok()
        })
        .await;
    }
    servers
}

/// Pings each second that must be answered within one, and details.
fn pinging<'a, S: Server + 'a>(group: impl IntoIterator<Item = &'a S>) -> ProxyBuilder {
    proxy()
        .upstream("web", group)
        .poll_every(1.secs())
        .poller_key("detail", true)
}

/// Twelve clients for this long, of three servers whose requests take three seconds; pings wait behind them and may
/// take one.
pub async fn none_is_called_sick<S: Server>(servers: &[S; 3], lasting: Duration) {
    let lb = pinging(servers).alone().start().await;
    let watch = Verdicts::of(lb.site());
    let poller = lb.site().start_poller();
    let tally = load(lb.address()).clients(12).lasting(lasting).await;
    let seen = watch.seen();
    println!(
        "{} ok, {} failed, {:?}; {seen:?}",
        tally.ok, tally.failed, tally.by_backend
    );
    tally.assert_none_failed();
    assert!(seen.sick.is_empty(), "{seen:?}\n{}", poller.log());
    assert_eq!(seen.busy.len(), 3, "no ping was inconclusive: {seen:?}");
}

#[tokio::test]
async fn servers_at_work_for_longer_than_a_ping_may_take_are_never_called_sick() {
    none_is_called_sick(&demos(3.secs()).await, 5.secs()).await;
}

#[tokio::test]
#[ignore = "takes a minute"]
async fn soak_a_minute_of_work_longer_than_a_ping_may_take() {
    none_is_called_sick(&demos(3.secs()).await, 60.secs()).await;
}

/// What a newcomer runs: the configuration as it is shipped, but for its ports.
#[tokio::test]
#[ignore = "takes half a minute: the shipped interval is 10 s"]
async fn as_shipped_nothing_is_lost_to_work_of_seven_seconds() {
    let servers = demos(7.secs()).await;
    let site = proxy().upstream("demo", &servers).site();
    let shipped = include_str!("../../conf/pingora.yaml");
    let mut config = shipped
        .replace("0.0.0.0:8080", &site.address().to_string())
        .replace("127.0.0.1:9900", &site.admin().to_string());
    for (server, port) in servers.iter().zip(8081..) {
        let shipped = format!("127.0.0.1:{port}");
        assert!(config.contains(&shipped), "{config}");
        config = config.replace(&shipped, &server.address().to_string());
    }
    fs::write(site.config_path(), config).unwrap();
    let lb = site.started().await;
    let watch = Verdicts::of(lb.site());
    let poller = lb.site().start_poller_with(&["-v"]);
    let tally = load(lb.address()).clients(6).lasting(22.secs()).await;
    println!("{} ok, {} failed", tally.ok, tally.failed);
    tally.assert_none_failed();
    assert!(watch.seen().sick.is_empty(), "{}", poller.log());
    let log = poller.log();
    assert!(log.contains("ping inconclusive"), "{log}");
}

/// A request that the backend has from now on.
async fn in_hand(lb: &Proxy, of: &Backend) -> Client {
    in_hand_through(lb.site(), of).await
}

async fn in_hand_through(site: &Site, of: &Backend) -> Client {
    let mut client = Client::connect(site.address()).await.unwrap();
    let current = of.current();
    client.send(&get("/home")).await.unwrap();
    of.working_on(current + 1).await;
    client
}

/// Waits until the file calls it sick; from `begun` to then.
async fn is_out(site: &Site, name: &str, begun: Instant, limit: Duration) -> Duration {
    let what = format!("{name} is called sick");
    until(&what, limit, async || !site.says_healthy(name)).await;
    begun.elapsed()
}

/// Whether the file calls it healthy all this time; `false` as soon as it does not.
async fn is_in(site: &Site, name: &str, time: Duration) -> bool {
    let out = async {
        while site.says_healthy(name) {
            tokio::time::sleep(10.millis()).await;
        }
    };
    tokio::time::timeout(time, out).await.is_err()
}

/// What the file says of it, in detail.
fn told(site: &Site, name: &str) -> (String, String) {
    let entry = &site.report()[name];
    let text = |key: &str| entry[key].as_str().unwrap_or("").to_owned();
    (text("verdict"), text("reason"))
}

async fn says(site: &Site, name: &str, verdict: &str, reason: &str) {
    let what = format!("{name} is {verdict}: {reason}");
    until(&what, 10.secs(), async || {
        let told = told(site, name);
        told.0 == verdict && told.1.starts_with(reason)
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_stopped_is_out_within_busy_limit_and_an_interval() {
    let servers = demos(100.millis()).await;
    let lb = pinging(&servers)
        .poller_key("timeout", "500ms")
        .poller_key("interval", "2s")
        .poller_key("fast_interval", "500ms")
        .busy_limit(3.secs())
        .alone()
        .start()
        .await;
    let site = lb.site();
    let _poller = site.start_poller();
    says(site, "server2", "up", "200").await;
    let clients = load(lb.address()).clients(12).spawn();
    until("server2 is at work", 5.secs(), async || {
        lb.backend_status("server2").await["in_flight"] == 1
    })
    .await;
    servers[1].program.freeze_family();
    let begun = Instant::now();
    says(site, "server2", "busy", "a request in hand").await;
    let took = is_out(site, "server2", begun, 10.secs()).await;
    println!("out after {took:?}");
    // It may have answered a request since, but it had been at work for less than a tenth of a second.
    assert!(took > 2500.millis(), "it was not believed: {took:?}");
    // Half a second for two processes and a file on a machine that is busy.
    assert!(took < 5500.millis(), "{took:?}");
    let (verdict, reason) = told(site, "server2");
    assert_eq!(verdict, "down");
    assert!(reason.contains("none to a request for"), "{reason}");
    assert!(site.says_healthy("server1") && site.says_healthy("server3"));
    servers[1].program.thaw_family();
    says(site, "server2", "up", "200").await;
    let tally = clients.stop().await;
    tally.assert_none_failed();
}

/// One request, held until it is released, and pings behind it.
async fn held(name: &str) -> Backend {
    backend(name).held().pings_wait().start().await
}

fn quick<'a, S: Server + 'a>(group: impl IntoIterator<Item = &'a S>) -> ProxyBuilder {
    pinging(group)
        .poll_every(300.millis())
        .poller_key("timeout", "200ms")
}

/// Long enough for two pings that fail to take a backend out, several times.
async fn a_while() {
    tokio::time::sleep(2.secs()).await;
}

#[tokio::test]
async fn a_request_in_hand_is_told_and_excuses() {
    let group = [held("a").await, backend("b").start().await];
    let lb = quick(&group).start().await;
    lb.health(&[("b", false)]).await;
    let mut client = in_hand(&lb, &group[0]).await;
    let watch = Verdicts::of(lb.site());
    let poller = lb.site().start_poller_with(&["-v"]);
    says(lb.site(), "a", "busy", "a request in hand for ").await;
    a_while().await;
    assert!(!watch.seen().sick.contains("a"), "{}", poller.log());
    assert!(
        poller.log().contains("ping inconclusive"),
        "{}",
        poller.log()
    );
    group[0].release(1);
    assert_eq!(client.receive("GET").await.unwrap().status, 200);
    says(lb.site(), "a", "up", "200 in ").await;
    // A refusal is one, whatever it was doing.
    let _client = in_hand(&lb, &group[0]).await;
    group[0].kill().await;
    says(lb.site(), "a", "down", "connection refused").await;
}

/// Whether the file calls a backend with a request in hand healthy all this time.
async fn is_believed(lb: Proxy, backend: Backend, time: Duration) -> bool {
    let mut client = in_hand(&lb, &backend).await;
    let _poller = lb.site().start_poller();
    let is_believed = is_in(lb.site(), "a", time).await;
    backend.release(1);
    assert_eq!(client.receive("GET").await.unwrap().status, 200);
    is_believed
}

#[tokio::test]
async fn without_evidence_every_ping_counts() {
    let case = async |evidence: Option<Value>, time: Duration| {
        let a = held("a").await;
        let lb = quick([&a]).start().await;
        if let Some(evidence) = evidence {
            let poller = |config: &mut Value| config["maitred"]["poller"]["evidence"] = evidence;
            lb.site().edit_config(poller);
        }
        is_believed(lb, a, time).await
    };
    let cases = tokio::join!(case(None, 2.secs()), case(Some(json!([])), 10.secs()));
    assert_eq!(cases, (true, false));
}

#[tokio::test]
async fn a_request_is_an_excuse_only_until_busy_limit() {
    let case = async |limit: Duration, time: Duration| {
        let a = held("a").await;
        let lb = quick([&a]).busy_limit(limit).start().await;
        is_believed(lb, a, time).await
    };
    let cases = tokio::join!(case(1.secs(), 10.secs()), case(60.secs(), 3.secs()));
    assert_eq!(cases, (false, true));
}

#[tokio::test]
async fn requests_that_run_into_their_timeouts_one_after_the_other_excuse_nothing() {
    let group = [held("a").await];
    let lb = quick(&group)
        .response_header_timeout(400.millis())
        .busy_limit(60.secs())
        .start()
        .await;
    let _poller = lb.site().start_poller();
    says(lb.site(), "a", "up", "200").await;
    let clients = load(lb.address()).clients(3).spawn();
    is_out(lb.site(), "a", Instant::now(), 5.secs()).await;
    let (_, reason) = told(lb.site(), "a");
    assert!(
        reason.contains("and a request there timed out "),
        "{reason}"
    );
    drop(clients);
}

#[tokio::test]
async fn one_request_of_several_is_no_excuse_and_all_of_them_are() {
    let group = [held("a").await];
    let lb = quick(&group)
        .backend_key("a", "max_in_flight", 3)
        .start()
        .await;
    let _first = in_hand(&lb, &group[0]).await;
    let _second = in_hand(&lb, &group[0]).await;
    let poller = lb.site().start_poller();
    is_out(lb.site(), "a", Instant::now(), 5.secs()).await;
    drop(poller);
    lb.health(&[("a", true)]).await;
    let _third = in_hand(&lb, &group[0]).await;
    let watch = Verdicts::of(lb.site());
    let _poller = lb.site().start_poller();
    says(
        lb.site(),
        "a",
        "busy",
        "3 requests in hand, the latest for ",
    )
    .await;
    a_while().await;
    assert!(watch.seen().sick.is_empty());
}

#[tokio::test]
async fn an_upload_that_takes_longer_than_busy_limit_is_work() {
    let a = backend("a").pings_wait().start().await;
    let lb = quick([&a]).busy_limit(2.secs()).start().await;
    let watch = Verdicts::of(lb.site());
    let poller = lb.site().start_poller();
    let mut client = lb.send(&post("/home").promises(250_000)).await;
    for _ in 0..25 {
        client.send_bytes(&[b'x'; 10_000]).await.unwrap();
        tokio::time::sleep(200.millis()).await;
    }
    assert_eq!(client.receive("POST").await.unwrap().status, 200);
    let seen = watch.seen();
    assert!(seen.sick.is_empty(), "{seen:?}\n{}", poller.log());
    assert!(seen.busy.contains("a"), "{seen:?}");
}

/// A server that takes one connection at a time and answers in pieces without end.
struct Stream {
    address: SocketAddr,
    pieces: Arc<AtomicUsize>,
    is_stopped: Arc<AtomicBool>,
}

impl Server for Stream {
    fn name(&self) -> &str {
        "a"
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Stream {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = Self {
            address: listener.local_addr().unwrap(),
            pieces: Arc::default(),
            is_stopped: Arc::default(),
        };
        let (pieces, is_stopped) = (stream.pieces.clone(), stream.is_stopped.clone());
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                // Fails when the other side has gone meanwhile.
                let _ = Self::serve(&mut connection, &pieces, &is_stopped).await;
            }
        });
        stream
    }

    async fn serve(
        connection: &mut TcpStream,
        pieces: &AtomicUsize,
        is_stopped: &AtomicBool,
    ) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await?);
        }
        if head.starts_with(b"GET /ping") {
            let pong = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            return connection.write_all(pong).await;
        }
        let header = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        connection.write_all(header).await?;
        loop {
            if !is_stopped.load(Ordering::Relaxed) {
                connection.write_all(b"5\r\npiece\r\n").await?;
                pieces.fetch_add(1, Ordering::Relaxed);
            }
            tokio::time::sleep(400.millis()).await;
        }
    }
}

#[tokio::test]
async fn an_answer_in_pieces_that_takes_longer_than_busy_limit_is_work() {
    let a = Stream::start().await;
    let lb = quick([&a]).busy_limit(2.secs()).start().await;
    let watch = Verdicts::of(lb.site());
    let poller = lb.site().start_poller();
    let _client = lb.send(&get("/home")).await;
    until("thirteen pieces were sent", 20.secs(), async || {
        a.pieces.load(Ordering::Relaxed) >= 13
    })
    .await;
    let seen = watch.seen();
    assert!(seen.sick.is_empty(), "{seen:?}\n{}", poller.log());
    assert!(seen.busy.contains("a"), "{seen:?}");
    // When no more come, it hangs.
    a.is_stopped.store(true, Ordering::Relaxed);
    is_out(lb.site(), "a", Instant::now(), 10.secs()).await;
}

/// Whether a backend with a request in hand is pinged, whether the file calls it healthy all this time, and what it says
/// then.
async fn skipping(
    configured: impl FnOnce(ProxyBuilder) -> ProxyBuilder,
    time: Duration,
) -> (bool, bool, String) {
    let a = held("a").await;
    let lb = configured(quick([&a])).start().await;
    let mut client = in_hand(&lb, &a).await;
    let _poller = lb.site().start_poller();
    let is_in = is_in(lb.site(), "a", time).await;
    let found = (a.pings() > 0, is_in, told(lb.site(), "a").1);
    a.release(1);
    client.receive("GET").await.unwrap();
    says(lb.site(), "a", "up", "200").await;
    found
}

#[tokio::test]
async fn skip_when_busy_pings_nobody_who_is_at_work() {
    let set = |lb: ProxyBuilder, skips: bool| lb.poller_key("skip_when_busy", skips);
    // Alone: a ping is only skipped where the proxy says within 0.4 s that it may be.
    let skipped = skipping(|lb| set(lb, true).alone(), 2.secs()).await;
    let pinged = skipping(|lb| set(lb, false), 2.secs()).await;
    let hangs = skipping(|lb| set(lb, true).busy_limit(1.secs()), 10.secs()).await;
    assert!(
        !skipped.0 && skipped.1 && skipped.2.ends_with(", not pinged"),
        "{skipped:?}"
    );
    assert!(pinged.0 && pinged.1, "{pinged:?}");
    assert!(
        hangs.0 && !hangs.1,
        "one that hangs is pinged, and found: {hangs:?}"
    );
}

#[tokio::test]
async fn either_of_two_proxies_may_know_why_nobody_answers() {
    let group = [held("a").await, held("b").await];
    let first = quick(&group[..1]).start().await;
    // Not a `Proxy`: it would ask for a second room.
    let second = quick(&group[1..]).site();
    let mut program = second.start_proxy();
    assert!(second.is_ready_or_clashed(&mut program).await);
    let sites = [first.site(), &second];
    let poll = quick(&group).site();
    poll.edit_config(|config| {
        let sources = sites.map(|site| format!("http://{}", site.admin()));
        config["maitred"]["poller"]["evidence"] = json!(sources);
    });
    let _clients = [
        in_hand_through(sites[0], &group[0]).await,
        in_hand_through(sites[1], &group[1]).await,
    ];
    let watch = Verdicts::of(&poll);
    let _poller = poll.start_poller();
    says(&poll, "a", "busy", "a request").await;
    says(&poll, "b", "busy", "a request").await;
    a_while().await;
    assert!(watch.seen().sick.is_empty());
    // What only the second proxy knows is unknown without it.
    poll.edit_config(|config| {
        let sources = &mut config["maitred"]["poller"]["evidence"];
        *sources = json!([sources[0]]);
    });
    is_out(&poll, "b", Instant::now(), 5.secs()).await;
    assert!(poll.says_healthy("a"));
}

#[tokio::test]
async fn a_proxy_that_is_killed_and_started_again_under_load_costs_no_verdict() {
    let servers = demos(1.secs()).await;
    let mut lb = pinging(&servers)
        .poller_key("timeout", "400ms")
        .alone()
        .start()
        .await;
    let watch = Verdicts::of(lb.site());
    let _poller = lb.site().start_poller();
    let clients = load(lb.address()).clients(12).spawn();
    for _ in 0..2 {
        tokio::time::sleep(1500.millis()).await;
        lb.restart().await;
    }
    tokio::time::sleep(1.secs()).await;
    let seen = watch.seen();
    assert!(seen.sick.is_empty(), "{seen:?}");
    assert_eq!(seen.busy.len(), 3, "no ping was inconclusive: {seen:?}");
    // The killed proxy's requests are lost.
    assert!(clients.stop().await.ok > 0);
}

/// Kills the proxy with a request of its client in hand, and starts another one.
async fn orphaned(limit: Duration) -> (Proxy, Backend, Verdicts, Program) {
    let a = held("a").await;
    let mut lb = quick([&a]).busy_limit(limit).start().await;
    let _client = in_hand(&lb, &a).await;
    let watch = Verdicts::of(lb.site());
    let poller = lb.site().start_poller();
    says(lb.site(), "a", "busy", "a request in hand for ").await;
    lb.program().kill();
    let gone = async || told(lb.site(), "a").1.contains(", as known ");
    until("it is excused by what was known", 5.secs(), gone).await;
    lb.restart().await;
    (lb, a, watch, poller)
}

#[tokio::test]
async fn what_a_killed_proxy_has_left_there_excuses_until_an_answer() {
    let (lb, a, watch, poller) = orphaned(60.secs()).await;
    a_while().await;
    assert!(watch.seen().sick.is_empty(), "{}", poller.log());
    assert!(told(lb.site(), "a").1.contains(", as known "));
    a.release(1);
    says(lb.site(), "a", "up", "200").await;
    // It has done with that: now nothing excuses it.
    let mut client = Client::connect(a.address()).await.unwrap();
    client.send(&get("/")).await.unwrap();
    is_out(lb.site(), "a", Instant::now(), 5.secs()).await;
}

#[tokio::test]
async fn what_a_killed_proxy_has_left_there_excuses_until_busy_limit() {
    let (lb, _a, _watch, _poller) = orphaned(5.secs()).await;
    is_out(lb.site(), "a", Instant::now(), 15.secs()).await;
    assert!(told(lb.site(), "a").1.contains("none to a request for"));
}

/// Takes connections and says nothing, or an answer without end, a byte now and then.
async fn never_done(trickles: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            held.spawn(async move {
                let mut answer = b"HTTP/1.1 200 OK\r\n\r\n"
                    .iter()
                    .chain(std::iter::repeat(&b' '));
                while trickles && stream.write_all(&[*answer.next().unwrap()]).await.is_ok() {
                    tokio::time::sleep(10.millis()).await;
                }
                // The other side is the one who gives up.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    address
}

/// A server that answers so, whatever it is asked.
async fn saying(body: &str) -> Backend {
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
    backend("proxy").answers_raw(answer).start().await
}

#[tokio::test]
async fn evidence_that_is_not_to_be_had_changes_nothing() {
    let garbage = saying("{\"backends\": 7}").await;
    let lies = saying(
        r#"{"backends":{"b":{"in_flight":1,"max_in_flight":1,"given_seconds":-1e300,"silent_seconds":1e300}}}"#,
    )
    .await;
    let gone = saying("").await;
    gone.kill().await;
    let mut sources = [&garbage, &lies, &gone].map(Backend::address).to_vec();
    sources.extend([never_done(false).await, never_done(true).await]);
    let group = [backend("a").start().await, held("b").await];
    let lb = quick(&group).alone().start().await;
    lb.site().edit_config(|config| {
        let sources = sources.iter().map(|source| format!("http://{source}"));
        config["maitred"]["poller"]["evidence"] = sources.collect();
    });
    lb.health(&[("a", false)]).await;
    let _client = in_hand(&lb, &group[1]).await;
    let poller = lb.site().start_poller();
    let took = is_out(lb.site(), "b", Instant::now(), 5.secs()).await;
    // Two pings, and half a second for each to ask.
    assert!(took < 3.secs(), "{took:?}");
    for source in &sources {
        let told = format!("no evidence proxy={source}");
        let is_told = *source != lies.address();
        assert_eq!(poller.log().contains(&told), is_told, "{}", poller.log());
    }
    // And who answers is pinged in time all the while.
    let (pings, begun) = (group[0].pings(), Instant::now());
    until("a was pinged five times", 5.secs(), async || {
        group[0].pings() >= pings + 5
    })
    .await;
    assert!(begun.elapsed() < 2500.millis(), "{:?}", begun.elapsed());
}

/// The JSON of the documentation.
fn documented() -> Value {
    let text = include_str!("../../docs/evidence.md");
    let json = text.split_once("```js\n").unwrap().1;
    serde_json::from_str(json.split_once("```").unwrap().0).unwrap()
}

fn fields(entry: &Value) -> BTreeSet<String> {
    entry.as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn the_evidence_is_as_documented() {
    let group = [held("server1").await, backend("server2").start().await];
    let lb = quick(&group).start().await;
    let _client = in_hand(&lb, &group[0]).await;
    lb.health(&[("server1", false)]).await;
    assert_eq!(lb.ask(get("/home")).await.status, 200);
    let (said, documented) = (lb.admin("/api/v1/evidence").await.json(), documented());
    assert_eq!(fields(&said), fields(&documented));
    assert!(said["watching_seconds"].is_number(), "{said}");
    let text = include_str!("../../docs/evidence.md");
    let table = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let table: BTreeSet<_> = table
        .map(|line| line.split('`').next().unwrap().to_owned())
        .collect();
    for name in ["server1", "server2"] {
        let said = &said["backends"][name];
        let documented = &documented["backends"][name];
        assert_eq!(fields(said), fields(documented));
        assert_eq!(fields(said), table);
        for (field, value) in documented.as_object().unwrap() {
            assert_eq!(
                said[field].is_null(),
                value.is_null(),
                "{name}.{field}: {said}"
            );
        }
    }
    assert_eq!(said["backends"]["server1"]["in_flight"], 1);
}

#[tokio::test]
async fn the_documented_example_is_understood_and_one_question_is_for_all() {
    let mut backends = serde_json::Map::new();
    let example = &documented()["backends"]["server1"];
    let mut group = Vec::new();
    for number in 0..20 {
        let name = format!("b{number}");
        group.push(held(&name).await);
        backends.insert(name, example.clone());
    }
    let witness = saying(&json!({ "backends": backends }).to_string()).await;
    let site = quick(&group).poller_key("interval", "1s").site();
    let source = json!([format!("http://{}", witness.address())]);
    site.edit_config(|config| config["maitred"]["poller"]["evidence"] = source);
    // Something that nobody answers: each of them is at work, for somebody else.
    let mut others = Vec::new();
    for one in &group {
        let mut client = Client::connect(one.address()).await.unwrap();
        client.send(&get("/")).await.unwrap();
        one.working_on(1).await;
        others.push(client);
    }
    let watch = Verdicts::of(&site);
    let _poller = site.start_poller();
    tokio::time::sleep(3500.millis()).await;
    let seen = watch.seen();
    assert!(seen.sick.is_empty(), "{seen:?}");
    assert_eq!(seen.busy.len(), 20);
    let rounds = group[0].pings();
    assert!(rounds >= 3, "{rounds}");
    assert!(
        witness.begun() <= 3 * rounds,
        "{} in {rounds}",
        witness.begun()
    );
    // A refusal is one, whatever a proxy says.
    group[3].kill().await;
    is_out(&site, "b3", Instant::now(), 5.secs()).await;
    // From now on nobody is asked.
    site.edit_config(|config| config["maitred"]["poller"]["evidence"] = json!([]));
    is_out(&site, "b7", Instant::now(), 5.secs()).await;
}

#[tokio::test]
async fn a_single_round_that_learns_nothing_keeps_what_the_file_says() {
    let group = [held("a").await, held("b").await];
    let lb = quick(&group).alone().start().await;
    let _clients = [in_hand(&lb, &group[0]).await, in_hand(&lb, &group[1]).await];
    lb.health(&[("b", false)]).await;
    let output = lb.site().poll_once().await;
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(
        lb.site().says_healthy("a") && !lb.site().says_healthy("b"),
        "{table}"
    );
    let line = |name: &str| {
        let mut lines = table.lines();
        lines
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned()
    };
    assert!(
        line("a").contains(" busy ") && line("a").contains("a request in hand"),
        "{table}"
    );
    assert!(
        line("b").contains(" down ") && line("b").contains("sick before; now a request in hand"),
        "{table}"
    );
}
