//! The promises kept with real servers from PyPI that serve one request at a time: gunicorn with one
//! sync worker, and Flask's own.
//!
//! Such a server cannot overlap: a request that is sent to it too early waits unseen in its
//! listener's queue. So each server looks there when it ends a request's work, and from outside the
//! access log tells how long a backend had each request. Without `MAITRED_PYTHON` these tests are
//! left out, and say so.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use crate::busy::none_is_called_sick;
use crate::harness::{
    Client, Proxy, Server, Tally, Units, Verdicts, Wsgi, WsgiServer, get, load, proxy, python,
    soon, until,
};

const WORK: Duration = Duration::from_millis(10);
/// A request behind another would have its own work and the other's: twice [`WORK`], and more behind
/// a server that stands still. The rest is what a busy machine may add.
const BACKEND_TIME_MAX: Duration = Duration::from_millis(3 * 10 + 20);
/// Longest until a Python that was killed serves again.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// Three servers of one kind behind a proxy, and the machine for themselves.
struct Scene {
    // The proxy last: it holds the room.
    servers: [WsgiServer; 3],
    python: String,
    lb: Proxy,
}

/// Starts them, and waits until all answer.
async fn start(servers: &mut [WsgiServer], python: &str) {
    for server in &mut *servers {
        server.start(python);
    }
    for server in servers {
        server.is_up().await;
    }
}

impl Scene {
    /// `None` without a Python to run the servers with.
    async fn of(kind: Wsgi) -> Option<Self> {
        Self::with_response_header_timeout(kind, 60.secs()).await
    }

    async fn with_response_header_timeout(kind: Wsgi, timeout: Duration) -> Option<Self> {
        let python = python()?;
        let mut servers = ["a", "b", "c"].map(|name| WsgiServer::new(kind, name, WORK));
        let lb = proxy()
            .upstream("web", &servers)
            .response_header_timeout(timeout)
            .json_access_log()
            .alone()
            .start()
            .await;
        start(&mut servers, &python).await;
        Some(Self {
            servers,
            python,
            lb,
        })
    }

    /// Waits until every server has served more than ten requests.
    async fn all_serve(&self) {
        until("all serve", 5.secs(), async || {
            self.servers.iter().all(|server| server.served().len() > 10)
        })
        .await;
    }

    /// Sends a request that takes this long on a connection of its own. Returns that and the server
    /// which has just begun to serve it.
    async fn in_service(&self, id: &str, takes: Duration) -> (Client, usize) {
        let mut client = self.lb.connect().await;
        let target = format!("/home?takes={}", takes.as_millis());
        client.send(&get(&target).id(id)).await.unwrap();
        let mut server = None;
        until("the request is in service", 5.secs(), async || {
            server = self.servers.iter().position(|one| one.has_begun(id));
            server.is_some()
        })
        .await;
        (client, server.unwrap())
    }

    /// Asserts that the servers are what they are said to be and that no request waited at one.
    fn assert_nobody_waited_at_a_backend(&self) {
        for server in &self.servers {
            let mut served = server.served();
            served.sort_by_key(|one| one.begun);
            for pair in served.windows(2) {
                assert!(
                    pair[0].ended <= pair[1].begun,
                    "not one at a time: {pair:?}"
                );
            }
            let most = served.iter().max_by_key(|one| one.waiting);
            assert!(
                most.is_none_or(|one| one.waiting == 0),
                "{}: a request waited behind {most:?}",
                server.name()
            );
        }
    }

    /// How many requests were served more than once.
    fn served_twice(&self) -> usize {
        let mut times: HashMap<String, usize> = HashMap::new();
        for served in self.servers.iter().flat_map(WsgiServer::served) {
            *times.entry(served.id).or_default() += 1;
        }
        times.values().filter(|&&times| times > 1).count()
    }

    /// How long the backends had each request of the load: sorted, from the access log. Requests that
    /// ask for work of their own are not the load's.
    async fn backend_times(&self, answered: usize) -> Vec<Duration> {
        let times = || {
            let log = self.lb.access_log();
            let answered = log
                .into_iter()
                .filter(|event| event["status"] == 200 && event["target"] == "/home");
            answered
                .map(|event| backend_time(&event))
                .collect::<Vec<_>>()
        };
        until("every answer is in the access log", 5.secs(), async || {
            times().len() >= answered
        })
        .await;
        let mut times = times();
        times.sort();
        times
    }

    /// Prints and asserts what holds in every case. Returns for how long, but for one request in a
    /// hundred, a backend had one at most.
    async fn assert_kept(&self, tally: &Tally) -> Duration {
        let times = self.backend_times(tally.ok).await;
        let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!(
            "{} ok, {} failed, {:?}; at the backend p50 {half:?}, p99 {most:?}; {} served twice",
            tally.ok,
            tally.failed,
            tally.by_backend,
            self.served_twice()
        );
        self.assert_nobody_waited_at_a_backend();
        assert_eq!(self.served_twice(), 0);
        most
    }
}

/// Says how long the backends had a request. What they must never do (serve two at once, let one wait
/// behind another) the case itself asserts; how fast they did it is a figure of an optimised build on a
/// quiet machine, and asserted there.
async fn assert_prompt(case: impl AsyncFn() -> Option<Duration>) {
    let Some(most) = case().await else { return };
    println!("p99 at the backend {most:?} (limit {BACKEND_TIME_MAX:?})");
    if !cfg!(debug_assertions) {
        assert!(most <= BACKEND_TIME_MAX, "p99 at the backend {most:?}");
    }
}

fn backend_time(event: &Value) -> Duration {
    let seconds = event["backend_seconds"].as_f64();
    Duration::from_secs_f64(seconds.unwrap_or_else(|| panic!("a backend answered: {event}")))
}

/// Each of the three has its third, in an optimised build to a twentieth.
fn assert_shared_fairly(tally: &Tally) {
    let share = tally.ok / 3;
    let tolerance = share / if cfg!(debug_assertions) { 2 } else { 20 };
    assert_eq!(tally.by_backend.len(), 3, "{:?}", tally.by_backend);
    for (name, &count) in &tally.by_backend {
        assert!(
            count.abs_diff(share) <= tolerance,
            "{name}: {count} of {}",
            tally.ok
        );
    }
}

async fn two_hundred_clients(kind: Wsgi) -> Option<Duration> {
    let scene = Scene::of(kind).await?;
    let tally = load(scene.lb.address())
        .clients(200)
        .lasting(3.secs())
        .await;
    let most = scene.assert_kept(&tally).await;
    tally.assert_none_failed();
    assert_shared_fairly(&tally);
    Some(most)
}

#[tokio::test]
async fn two_hundred_clients_share_three_gunicorns_and_none_waits_at_one() {
    assert_prompt(async || two_hundred_clients(Wsgi::Gunicorn).await).await;
}

#[tokio::test]
async fn two_hundred_clients_share_three_flask_servers_and_none_waits_at_one() {
    assert_prompt(async || two_hundred_clients(Wsgi::Flask).await).await;
}

async fn killed_and_started_again(kind: Wsgi) {
    let Some(mut scene) = Scene::of(kind).await else {
        return;
    };
    let clients = load(scene.lb.address()).clients(200).spawn();
    scene.all_serve().await;
    let (mut client, killed) = scene.in_service("at work when killed", 500.millis()).await;
    scene.servers[killed].kill();
    let before = scene.servers[killed].served().len();
    tokio::time::sleep(2.secs()).await;
    let python = scene.python.clone();
    scene.servers[killed].start(&python);
    let back = until("the killed one serves again", BACK_WITHIN, async || {
        scene.servers[killed].served().len() > before + 10
    })
    .await;
    let tally = clients.stop().await;
    println!(
        "served again {back:?} after its start; {} ok, {} failed, {:?}; {} served twice",
        tally.ok,
        tally.failed,
        tally.by_backend,
        scene.served_twice()
    );
    tally.assert_none_failed();
    let answer = soon("the killed one's request", 5.secs(), client.receive("GET")).await;
    assert_eq!(answer.unwrap().status, 200);
    assert_eq!(scene.served_twice(), 0);
    scene.assert_nobody_waited_at_a_backend();
}

#[tokio::test]
async fn no_request_is_lost_when_a_gunicorn_is_killed_and_started_again() {
    killed_and_started_again(Wsgi::Gunicorn).await;
}

#[tokio::test]
async fn no_request_is_lost_when_a_flask_server_is_killed_and_started_again() {
    killed_and_started_again(Wsgi::Flask).await;
}

async fn fifty_leave_in_mid_service(kind: Wsgi) -> Option<Duration> {
    let scene = Scene::of(kind).await?;
    let others = load(scene.lb.address()).clients(6).spawn();
    for leaver in 0..50 {
        // Long enough that whoever is sent behind it is seen to wait.
        let (client, _) = scene
            .in_service(&format!("leaver {leaver}"), 100.millis())
            .await;
        drop(client);
    }
    let tally = others.stop().await;
    let most = scene.assert_kept(&tally).await;
    tally.assert_none_failed();
    Some(most)
}

#[tokio::test]
async fn nobody_waits_at_a_gunicorn_behind_work_of_clients_that_left() {
    assert_prompt(async || fifty_leave_in_mid_service(Wsgi::Gunicorn).await).await;
}

#[tokio::test]
async fn nobody_waits_at_a_flask_server_behind_work_of_clients_that_left() {
    assert_prompt(async || fifty_leave_in_mid_service(Wsgi::Flask).await).await;
}

/// The request that the frozen server has is answered 504; no other is sent there until that one's
/// work is over.
async fn frozen_for_a_while(kind: Wsgi) -> Option<Duration> {
    let mut scene = Scene::with_response_header_timeout(kind, 1500.millis()).await?;
    let clients = load(scene.lb.address()).clients(20).spawn();
    scene.all_serve().await;
    let (mut client, frozen) = scene.in_service("at work when frozen", 1.secs()).await;
    scene.servers[frozen].program().freeze_family();
    let before = scene.servers.each_ref().map(|one| one.served().len());
    tokio::time::sleep(3.secs()).await;
    let meanwhile = scene.servers.each_ref().map(|one| one.served().len());
    scene.servers[frozen].program().thaw_family();
    until("the frozen one serves again", 10.secs(), async || {
        scene.servers[frozen].served().len() > before[frozen] + 10
    })
    .await;
    let tally = clients.stop().await;
    println!("{before:?} served when number {frozen} froze, {meanwhile:?} at its thaw");
    let most = scene.assert_kept(&tally).await;
    tally.assert_none_failed();
    let answer = soon("an answer", 5.secs(), client.receive("GET")).await;
    assert_eq!(answer.unwrap().status, 504);
    for (index, (before, meanwhile)) in before.into_iter().zip(meanwhile).enumerate() {
        if index == frozen {
            assert_eq!(meanwhile, before, "it stood still");
        } else {
            assert!(meanwhile > before + 20, "{index}: {before} to {meanwhile}");
        }
    }
    Some(most)
}

#[tokio::test]
async fn a_frozen_gunicorn_costs_one_504_and_nobody_waits_behind_what_it_left() {
    assert_prompt(async || frozen_for_a_while(Wsgi::Gunicorn).await).await;
}

#[tokio::test]
async fn a_frozen_flask_server_costs_one_504_and_nobody_waits_behind_what_it_left() {
    assert_prompt(async || frozen_for_a_while(Wsgi::Flask).await).await;
}

/// Three gunicorns whose requests take three seconds.
async fn slow_gunicorns() -> Option<[WsgiServer; 3]> {
    let python = python()?;
    let mut servers = ["a", "b", "c"].map(|name| WsgiServer::new(Wsgi::Gunicorn, name, 3.secs()));
    start(&mut servers, &python).await;
    Some(servers)
}

#[tokio::test]
async fn gunicorns_at_work_for_longer_than_a_ping_may_take_are_never_called_sick() {
    let Some(servers) = slow_gunicorns().await else {
        return;
    };
    none_is_called_sick(&servers, 5.secs()).await;
}

#[tokio::test]
#[ignore = "takes a minute"]
async fn soak_a_minute_of_gunicorns_at_work_for_longer_than_a_ping_may_take() {
    let Some(servers) = slow_gunicorns().await else {
        return;
    };
    none_is_called_sick(&servers, 60.secs()).await;
}

#[tokio::test]
async fn a_gunicorn_that_is_stopped_at_work_is_out_within_busy_limit_and_an_interval() {
    let Some(python) = python() else { return };
    let mut servers = ["a", "b"].map(|name| WsgiServer::new(Wsgi::Gunicorn, name, WORK));
    start(&mut servers, &python).await;
    let lb = proxy()
        .upstream("web", &servers)
        .busy_limit(2.secs())
        .poll_every(2.secs())
        .poller_key("timeout", "500ms")
        .poller_key("fast_interval", "500ms")
        .alone()
        .start()
        .await;
    let clients = load(lb.address()).clients(6).spawn();
    let verdicts = Verdicts::of(lb.site());
    let _poller = lb.site().start_poller();
    until("a serves", 5.secs(), async || {
        servers[0].served().len() > 10
    })
    .await;
    servers[0].program().freeze_family();
    let took = until("a is out", 10.secs(), async || !lb.site().says_healthy("a")).await;
    println!("out after {took:?}");
    assert!(took > 1500.millis() && took < 6.secs(), "{took:?}");
    servers[0].program().thaw_family();
    until("a is in", 10.secs(), async || lb.site().says_healthy("a")).await;
    clients.stop().await.assert_none_failed();
    assert!(!verdicts.seen().sick.contains("b"));
}
