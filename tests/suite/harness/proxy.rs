//! The proxy under test: the real binary in a folder of its own, on ports of its own.
//!
//! A [`Proxy`] is a [`Site`] with the proxy running in it; [`proxy`] builds both from the values that
//! a test sets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::backend::Backend;
use super::client::{Client, Request, Response, get};
use super::duration::Units;
use super::patience::{soon, until};
use super::program::Program;
use super::room::Room;
use super::site::{HEALTH_FILE, Site};

/// Starts tried when a port was taken between its choice and its use.
const STARTS_MAX: usize = 3;

/// How to configure a proxy; see [`proxy`].
pub struct ProxyBuilder {
    upstreams: Vec<(String, Vec<Member>)>,
    access_log: &'static str,
    grace: Duration,
    clients: Value,
    poller: Value,
    queue: Value,
    timeouts: Value,
    busy_limit: Duration,
    health: Value,
    /// Further keys of single backends: name, key, value.
    backend_keys: Vec<(String, String, Value)>,
    /// Any other keys, by path: `maitred.routes.0.rewrite`.
    keys: Vec<(&'static str, Value)>,
    run_by: Vec<String>,
    down: Vec<String>,
    has_health_file: bool,
    is_alone: bool,
}

/// A server that a proxy can have as a backend.
pub trait Server {
    fn name(&self) -> &str;
    fn address(&self) -> SocketAddr;
}

impl Server for Backend {
    fn name(&self) -> &str {
        self.name()
    }

    fn address(&self) -> SocketAddr {
        self.address()
    }
}

/// A backend as the configuration names it.
struct Member {
    name: String,
    address: SocketAddr,
}

/// A running proxy. Dropping it kills the process and removes its folder.
pub struct Proxy {
    // Dropped in this order: the process before its folder, and the room last.
    program: Program,
    site: Site,
    _room: Room,
}

/// A proxy with the defaults of the project and no backends.
pub fn proxy() -> ProxyBuilder {
    ProxyBuilder {
        upstreams: Vec::new(),
        access_log: "text",
        grace: 10.secs(),
        clients: json!({ "header_timeout": "10s", "idle_timeout": "60s", "read_timeout": "30s", "write_timeout": "30s" }),
        poller: json!({ "path": "/ping", "interval": "10s", "timeout": "2s" }),
        queue: json!({ "size": 10000, "timeout": "30s" }),
        timeouts: json!({
            "connect": "1s", "response_header": "60s", "read": "60s", "write": "30s", "idle": "1s", "request": "90s"
        }),
        busy_limit: 60.secs(),
        health: json!({ "file": HEALTH_FILE }),
        backend_keys: Vec::new(),
        keys: Vec::new(),
        run_by: Vec::new(),
        down: Vec::new(),
        has_health_file: true,
        is_alone: false,
    }
}

impl ProxyBuilder {
    /// Adds a group of backends with one slot each. The first group is reached by `/home`, any
    /// other by its name.
    pub fn upstream<'a, S: Server + 'a>(
        mut self,
        name: &str,
        backends: impl IntoIterator<Item = &'a S>,
    ) -> Self {
        let members = backends.into_iter().map(|backend| Member {
            name: backend.name().to_owned(),
            address: backend.address(),
        });
        self.upstreams.push((name.to_owned(), members.collect()));
        self
    }

    /// The access log is JSON, for [`Proxy::access_log`].
    pub fn json_access_log(mut self) -> Self {
        self.access_log = "json";
        self
    }

    /// How many requests may wait.
    pub fn queue(mut self, size: usize) -> Self {
        self.queue["size"] = size.into();
        self
    }

    /// How long a request may wait.
    pub fn queue_timeout(mut self, time: Duration) -> Self {
        self.queue["timeout"] = written(time);
        self
    }

    /// A key of the section `queue`.
    pub fn queue_key(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.queue[key] = value.into();
        self
    }

    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.timeouts["connect"] = written(time);
        self
    }

    /// For one write to a backend.
    pub fn write_timeout(mut self, time: Duration) -> Self {
        self.timeouts["write"] = written(time);
        self
    }

    pub fn response_header_timeout(mut self, time: Duration) -> Self {
        self.timeouts["response_header"] = written(time);
        self
    }

    /// Longest time between two pieces of an answer's body.
    pub fn read_timeout(mut self, time: Duration) -> Self {
        self.timeouts["read"] = written(time);
        self
    }

    /// Longest from the request complete to the answer's header, queue and attempts included.
    pub fn request_timeout(mut self, time: Duration) -> Self {
        self.timeouts["request"] = written(time);
        self
    }

    /// How long an idle connection to a backend is kept.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.timeouts["idle"] = written(time);
        self
    }

    pub fn busy_limit(mut self, time: Duration) -> Self {
        self.busy_limit = time;
        self
    }

    /// `header_timeout` of the clients.
    pub fn client_header_timeout(self, time: Duration) -> Self {
        self.clients("header_timeout", time)
    }

    pub fn client_idle_timeout(self, time: Duration) -> Self {
        self.clients("idle_timeout", time)
    }

    pub fn client_read_timeout(self, time: Duration) -> Self {
        self.clients("read_timeout", time)
    }

    pub fn client_write_timeout(self, time: Duration) -> Self {
        self.clients("write_timeout", time)
    }

    fn clients(mut self, key: &str, time: Duration) -> Self {
        self.clients[key] = written(time);
        self
    }

    pub fn poll_every(mut self, interval: Duration) -> Self {
        for key in ["interval", "fast_interval", "timeout"] {
            self.poller[key] = written(interval);
        }
        self
    }

    /// A key of the section `health`.
    pub fn health_key(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.health[key] = value.into();
        self
    }

    /// A key of the section `poller`.
    pub fn poller_key(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.poller[key] = value.into();
        self
    }

    /// A key of one backend, its address among them.
    pub fn backend_key(mut self, backend: &str, key: &str, value: impl Into<Value>) -> Self {
        self.backend_keys
            .push((backend.to_owned(), key.to_owned(), value.into()));
        self
    }

    /// Any other key, by its path: `maitred.routes.0.max_concurrent_requests`.
    pub fn key(mut self, path: &'static str, value: impl Into<Value>) -> Self {
        self.keys.push((path, value.into()));
        self
    }

    /// The proxy is started by this command, such as `["setpriv", "--reuid=65534"]`.
    pub fn run_by(mut self, command: &[&str]) -> Self {
        self.run_by = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// How long running requests may take after SIGTERM; whole seconds.
    pub fn grace(mut self, time: Duration) -> Self {
        self.grace = time;
        self
    }

    /// The health file says at the start that this backend is down.
    pub fn with_down(mut self, backend: &str) -> Self {
        self.down.push(backend.to_owned());
        self
    }

    /// There is no health file at the start.
    pub fn without_health_file(mut self) -> Self {
        self.has_health_file = false;
        self
    }

    /// No other test's proxy runs meanwhile: for tests that measure time.
    pub fn alone(mut self) -> Self {
        self.is_alone = true;
        self
    }

    /// Starts the proxy and waits until it is ready.
    pub async fn start(self) -> Proxy {
        let room = if self.is_alone {
            Room::alone().await
        } else {
            Room::shared().await
        };
        for _ in 0..STARTS_MAX {
            let site = self.site();
            let mut program = site.start_proxy();
            if site.is_ready_or_clashed(&mut program).await {
                return Proxy {
                    program,
                    site,
                    _room: room,
                };
            }
        }
        panic!("a port was taken {STARTS_MAX} times in a row");
    }

    /// Writes the files and starts nothing.
    pub fn site(&self) -> Site {
        let groups = self.upstreams.iter().flat_map(|(_, group)| group);
        let site = Site::new(groups.map(|one| one.name.clone()).collect());
        let site = site.run_by(self.run_by.clone());
        site.write_config(&self.config(&site));
        if self.has_health_file {
            let down: Vec<_> = self
                .down
                .iter()
                .map(|name| (name.as_str(), false))
                .collect();
            site.health(&down);
        }
        site
    }

    fn config(&self, site: &Site) -> Value {
        let routes: Vec<_> = self
            .upstreams
            .iter()
            .enumerate()
            .map(|(index, (name, _))| route(index, name))
            .collect();
        let upstreams: Map<_, _> = self
            .upstreams
            .iter()
            .map(|(name, group)| (name.clone(), self.group(group)))
            .collect();
        let mut config = json!({
            "version": 1,
            "threads": 2,
            "grace_period_seconds": self.grace.as_secs(),
            "maitred": {
                "listeners": [{ "bind": site.address() }],
                "clients": self.clients,
                "health": self.health,
                "poller": self.poller,
                "admin": { "bind": site.admin() },
                "access_log": { "format": self.access_log },
                "routes": routes,
                "upstreams": upstreams,
            }
        });
        for (path, value) in &self.keys {
            let steps = path.split('.');
            let place = steps.fold(&mut config, |place, step| match step.parse::<usize>() {
                Ok(index) => &mut place[index],
                Err(_) => &mut place[step],
            });
            *place = value.clone();
        }
        config
    }

    fn backend(&self, Member { name, address }: &Member) -> Value {
        let mut backend = json!({ "name": name, "address": address, "max_in_flight": 1 });
        for (of, key, value) in &self.backend_keys {
            if of == name {
                backend[key] = value.clone();
            }
        }
        backend
    }

    fn group(&self, backends: &[Member]) -> Value {
        let backends: Vec<_> = backends.iter().map(|member| self.backend(member)).collect();
        json!({
            "queue": self.queue,
            "timeouts": self.timeouts,
            "busy_limit": written(self.busy_limit),
            "backends": backends,
        })
    }
}

fn route(index: usize, upstream: &str) -> Value {
    let path = if index == 0 {
        "/home".to_owned()
    } else {
        format!("/{upstream}")
    };
    json!({ "match": { "path": path, "methods": ["GET", "HEAD", "POST"] }, "rewrite": "/", "upstream": upstream })
}

/// A duration as the configuration has it.
fn written(time: Duration) -> Value {
    format!("{}ms", time.as_millis()).into()
}

impl Site {
    /// Starts the proxy in this folder and waits until it is ready. Where a port must be chosen anew,
    /// the test has to start over: [`ProxyBuilder::start`] does.
    pub async fn started(self) -> Proxy {
        let room = Room::shared().await;
        let mut program = self.start_proxy();
        assert!(
            self.is_ready_or_clashed(&mut program).await,
            "a port was taken"
        );
        Proxy {
            program,
            site: self,
            _room: room,
        }
    }
}

impl Proxy {
    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.site.address()
    }

    pub fn site(&self) -> &Site {
        &self.site
    }

    /// All that it said on standard error.
    pub fn log(&self) -> String {
        self.program.log()
    }

    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Kills the process and starts another on the same ports; waits until it is ready.
    pub async fn restart(&mut self) {
        self.program.kill();
        self.program = self.site.start_proxy();
        assert!(
            self.site.is_ready_or_clashed(&mut self.program).await,
            "a port was taken"
        );
    }

    /// The access log so far, which has to be [JSON](ProxyBuilder::json_access_log).
    pub fn access_log(&self) -> Vec<Value> {
        let output = self.program.output();
        let whole_lines = output
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        whole_lines
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
            })
            .collect()
    }

    /// Sends one request on a connection of its own.
    ///
    /// # Panics
    /// When there is no answer within 20 s.
    pub async fn ask(&self, request: Request) -> Response {
        let answer = soon(
            "an answer of the proxy",
            20.secs(),
            request.send_to(self.address()),
        )
        .await;
        answer.unwrap_or_else(|error| panic!("{request:?}: {error}"))
    }

    /// A new connection to the proxy.
    pub async fn connect(&self) -> Client {
        Client::connect(self.address())
            .await
            .expect("the proxy accepts connections")
    }

    /// A new connection on which this request is on its way.
    pub async fn send(&self, request: &Request) -> Client {
        let mut client = self.connect().await;
        client.send(request).await.expect("the proxy reads");
        client
    }

    /// A new connection from this address of our own.
    pub async fn connect_from(&self, source: Ipv4Addr) -> Client {
        Client::connect_from(source, self.address())
            .await
            .expect("the proxy accepts connections")
    }

    pub async fn try_connect(&self) -> io::Result<Client> {
        Client::connect(self.address()).await
    }

    /// A page of the admin server.
    pub async fn admin(&self, path: &str) -> Response {
        let answer = soon(
            "an admin page",
            5.secs(),
            get(path).send_to(self.site.admin()),
        )
        .await;
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub async fn status(&self) -> Value {
        self.admin("/api/v1/status").await.json()
    }

    /// Requests that wait in the upstream `web`.
    pub async fn waiting(&self) -> u64 {
        self.status().await["upstreams"]["web"]["waiting"]
            .as_u64()
            .expect("the status counts who waits")
    }

    /// What the status says of a backend of the upstream `web`.
    pub async fn backend_status(&self, backend: &str) -> Value {
        self.status().await["upstreams"]["web"]["backends"][backend].clone()
    }

    pub async fn is_eligible(&self, backend: &str) -> bool {
        self.backend_status(backend).await["eligible"] == true
    }

    /// Waits until this backend of the upstream `web` has a slot taken.
    pub async fn has_taken(&self, backend: &str) {
        let what = format!("a slot of {backend} is taken");
        until(&what, 10.secs(), async || {
            self.backend_status(backend).await["in_flight"] == 1
        })
        .await;
    }

    /// Waits until no slot of the upstream `web` is taken, by a client or for nobody.
    pub async fn has_freed_all(&self) {
        until("every slot is free", 10.secs(), async || {
            let status = self.status().await;
            let backends = status["upstreams"]["web"]["backends"].as_object();
            let mut backends = backends.expect("the status shows backends").values();
            backends.all(|one| one["in_flight"] == 0 && one["abandoned"] == 0)
        })
        .await;
    }

    /// Waits until this many requests wait in the upstream `web`.
    pub async fn has_waiting(&self, requests: u64) {
        until(
            &format!("{requests} requests wait"),
            10.secs(),
            async || self.waiting().await == requests,
        )
        .await;
    }

    /// Waits until `/readyz` says that the proxy is stopping.
    pub async fn is_stopping(&self) {
        until("readyz says 503", 10.secs(), async || {
            self.site.answers_readyz(503).await
        })
        .await;
    }

    /// Says by the health file which backends are down, and waits until the proxy obeys.
    pub async fn health(&self, said: &[(&str, bool)]) {
        self.site.health(said);
        for &(backend, healthy) in said {
            let what = format!("eligible: {healthy} for {backend}");
            until(&what, 10.secs(), async || {
                self.is_eligible(backend).await == healthy
            })
            .await;
        }
    }
}
