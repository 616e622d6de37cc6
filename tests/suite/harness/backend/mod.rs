//! A backend that tells on the proxy: it serves whatever comes, as much at once as comes, and counts.
//!
//! It behaves as a sync worker does: once a request's header is read, its work is going on until
//! the last byte of its answer is written, whether or not the client is still there. Unless told otherwise, it deliberately
//! does not make requests wait for each other: a proxy that sends two at once shows as
//! [`Backend::overlap`] 2. Pings (`/ping`) are answered beside and counted apart.
//!
//! A request can ask for its own treatment in its query: `takes=MILLISECONDS` of work,
//! `bytes=COUNT` of body, `status=CODE`, `reset` of the connection once it is read.

mod fault;
mod journal;
mod serving;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::duration::Units;
use super::patience::until;
use super::ports::free_port;
use super::wire::Headers;

pub use fault::Fault;
pub use journal::{Entry, Step, journal};

use journal::Journal;

/// How a backend is to behave; see [`backend`].
pub struct BackendBuilder {
    params: Params,
}

struct Params {
    name: String,
    work: Duration,
    /// Every request waits for [`Backend::release`].
    is_held: bool,
    /// At first; see [`Backend::turns`].
    status: u16,
    headers: Headers,
    body_bytes: Option<u64>,
    is_chunked: bool,
    /// Between an answer's header and its body.
    pause: Duration,
    /// How many requests at first get no answer.
    broken_off: usize,
    /// After its answer, every request waits for [`Backend::release`].
    works_on: bool,
    is_single_connection: bool,
    is_everywhere: bool,
    pings_wait: bool,
    manner: Manner,
    /// Any, if `None`.
    port: Option<u16>,
    journal: Option<Journal>,
}

/// How a backend treats its connections.
#[derive(Clone, Debug, PartialEq)]
enum Manner {
    KeepsAlive,
    /// Says `Connection: close` and closes.
    SaysClose,
    /// Closes after each answer without having said so.
    HangsUp,
    /// Closes when a second request comes on a connection.
    HangsUpLate,
    /// Resets each connection as soon as it stands.
    ResetsOnAccept,
    /// Closes each connection as soon as it stands.
    ClosesOnAccept,
    /// Ends each answer by closing, and in no other way.
    EndsByClosing,
    /// Grants an upgrade with these further header lines, then echoes.
    Upgrades(String),
    /// Answers with these bytes, whatever they are.
    Cans(Vec<u8>),
}

/// A running backend. It ends with the runtime of its test.
#[derive(Clone)]
pub struct Backend {
    shared: Arc<Shared>,
}

struct Shared {
    params: Params,
    address: SocketAddr,
    status: AtomicU16,
    /// How often [`Backend::release`] may still be waited for without waiting.
    permits: Semaphore,
    /// Whoever is being served, where pings wait.
    turn: tokio::sync::Mutex<()>,
    counts: Mutex<Counts>,
    fault: Mutex<Option<Fault>>,
    /// Dropped or used by [`Backend::kill`]; every task of the backend holds a receiver.
    life: Mutex<Option<watch::Sender<()>>>,
}

#[derive(Default)]
struct Counts {
    begun: Vec<Seen>,
    served: usize,
    pings: usize,
    current: usize,
    overlap: usize,
    connections: usize,
    busy: Duration,
}

/// What the backend saw of one request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Headers,
    /// `None` while it was not read to its end.
    pub body_bytes: Option<u64>,
    pub at: Instant,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// What [`super::Request::id`] put there.
    pub fn id(&self) -> &str {
        self.header("X-Id").unwrap_or("")
    }
}

/// A backend of this name that answers `Hello from NAME` at once, on a port of its own.
pub fn backend(name: &str) -> BackendBuilder {
    let params = Params {
        name: name.to_owned(),
        work: Duration::ZERO,
        is_held: false,
        status: 200,
        headers: Headers::default(),
        body_bytes: None,
        is_chunked: false,
        pause: Duration::ZERO,
        broken_off: 0,
        works_on: false,
        is_single_connection: false,
        is_everywhere: false,
        pings_wait: false,
        manner: Manner::KeepsAlive,
        port: None,
        journal: None,
    };
    BackendBuilder { params }
}

impl BackendBuilder {
    /// Each request takes this long.
    pub fn takes(mut self, work: Duration) -> Self {
        self.params.work = work;
        self
    }

    /// Each request waits until the test releases it.
    pub fn held(mut self) -> Self {
        self.params.is_held = true;
        self
    }

    pub fn status(mut self, status: u16) -> Self {
        self.params.status = status;
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.params.headers.push(name, value);
        self
    }

    pub fn response_body(mut self, bytes: u64) -> Self {
        self.params.body_bytes = Some(bytes);
        self
    }

    pub fn chunked(mut self) -> Self {
        self.params.is_chunked = true;
        self
    }

    /// Pauses between the header and the body of an answer, if it is chunked or has a given length.
    pub fn pauses_before_body(mut self, pause: Duration) -> Self {
        self.params.pause = pause;
        self
    }

    /// The first requests, this many, are worked on as all others, and then get no answer: the connection
    /// is closed in order.
    pub fn breaks_off_first(mut self, requests: usize) -> Self {
        self.params.broken_off = requests;
        self
    }

    /// Every request stays in work after its answer until the test releases it; then the connection
    /// is closed.
    pub fn works_on_after_answering(mut self) -> Self {
        self.params.works_on = true;
        self
    }

    /// Accepts a connection only when the one before has ended.
    pub fn one_connection_at_a_time(mut self) -> Self {
        self.params.is_single_connection = true;
        self
    }

    /// A ping waits behind the request being served, and requests behind each other.
    pub fn pings_wait(mut self) -> Self {
        self.params.pings_wait = true;
        self
    }

    /// Listens on every address of this machine, all of `127.0.0.0/8` among them.
    pub fn on_every_address(mut self) -> Self {
        self.params.is_everywhere = true;
        self
    }

    /// Says `Connection: close` and closes after each answer.
    pub fn says_close(self) -> Self {
        self.with_manner(Manner::SaysClose)
    }

    /// Closes after each answer without having said so.
    pub fn hangs_up(self) -> Self {
        self.with_manner(Manner::HangsUp)
    }

    /// Closes when a second request comes on a connection, which it never reads.
    pub fn hangs_up_late(self) -> Self {
        self.with_manner(Manner::HangsUpLate)
    }

    /// Resets each connection as soon as it stands.
    pub fn resets_on_accept(self) -> Self {
        self.with_manner(Manner::ResetsOnAccept)
    }

    /// Closes each connection, in order, as soon as it stands.
    pub fn closes_on_accept(self) -> Self {
        self.with_manner(Manner::ClosesOnAccept)
    }

    /// Answers without a length; the close ends the body.
    pub fn ends_by_closing(self) -> Self {
        self.with_manner(Manner::EndsByClosing)
    }

    /// Grants a request to upgrade, with these further header lines, then sends back what comes until
    /// the test releases it, whether or not the other side is still there. Then it closes.
    pub fn upgrades(self, lines: &str) -> Self {
        self.with_manner(Manner::Upgrades(lines.to_owned()))
    }

    /// Answers with these bytes and leaves the connection open.
    pub fn answers_raw(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.with_manner(Manner::Cans(bytes.into()))
    }

    /// Listens on this port.
    pub fn on_port(mut self, port: u16) -> Self {
        self.params.port = Some(port);
        self
    }

    /// Writes down in this file what it does, for whoever outlives it.
    pub fn with_journal(mut self, path: &Path) -> Self {
        self.params.journal = Some(Journal::open(path));
        self
    }

    fn with_manner(mut self, manner: Manner) -> Self {
        self.params.manner = manner;
        self
    }

    pub async fn start(self) -> Backend {
        let port = self.params.port.unwrap_or_else(free_port);
        let shared = Shared {
            status: AtomicU16::new(self.params.status),
            params: self.params,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            permits: Semaphore::new(0),
            turn: tokio::sync::Mutex::default(),
            counts: Mutex::default(),
            fault: Mutex::default(),
            life: Mutex::default(),
        };
        let backend = Backend {
            shared: Arc::new(shared),
        };
        backend.revive().await;
        backend
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("no holder of this lock panics")
    }

    fn fault(&self) -> MutexGuard<'_, Option<Fault>> {
        self.fault.lock().expect("no holder of this lock panics")
    }
}

impl Backend {
    pub fn name(&self) -> &str {
        &self.shared.params.name
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Answers with this status from now on.
    pub fn turns(&self, status: u16) {
        self.shared.status.store(status, Relaxed);
    }

    /// Requests whose header was read, in that order.
    pub fn requests(&self) -> Vec<Seen> {
        self.counts().begun.clone()
    }

    /// How many requests began.
    pub fn begun(&self) -> usize {
        self.counts().begun.len()
    }

    /// How many requests were answered to the last byte.
    pub fn served(&self) -> usize {
        self.counts().served
    }

    pub fn pings(&self) -> usize {
        self.counts().pings
    }

    /// Requests in work now.
    pub fn current(&self) -> usize {
        self.counts().current
    }

    /// The most requests that were ever in work at once.
    pub fn overlap(&self) -> usize {
        self.counts().overlap
    }

    /// Connections ever accepted.
    pub fn connections(&self) -> usize {
        self.counts().connections
    }

    /// For how long requests were in work, all together.
    pub fn busy(&self) -> Duration {
        self.counts().busy
    }

    /// Lets a backend that is held, works on or upgrades finish this many requests more.
    pub fn release(&self, requests: usize) {
        self.shared.permits.add_permits(requests);
    }

    /// From now on this is wrong with it. Connections that stand are reset where the fault is with connections.
    pub async fn falls_ill(&self, fault: Fault) {
        *self.shared.fault() = Some(fault);
        if fault == Fault::ResetOnAccept {
            self.kill().await;
            self.revive().await;
        }
    }

    /// Nothing is wrong with it any more.
    pub fn recovers(&self) {
        *self.shared.fault() = None;
    }

    /// Dies as `kill -9` does: the port closes, every connection is reset, and all work ends. A program that is being
    /// started at this moment has copies of all our descriptors until its own code runs, that of the listener among
    /// them: so the port may close a moment later.
    pub async fn kill(&self) {
        let life = self.life().take();
        if let Some(life) = life {
            // Fails only when no task is left to tell.
            let _ = life.send(());
            life.closed().await;
        }
        until("its port refuses", 5.secs(), async || !self.accepts().await).await;
    }

    async fn accepts(&self) -> bool {
        let connection = TcpStream::connect(self.address());
        // Nobody answers where packets are dropped.
        matches!(timeout(1.secs(), connection).await, Ok(Ok(_)))
    }

    /// Listens again on the same port; nothing happens if it already does.
    pub async fn revive(&self) {
        if self.life().is_some() {
            return;
        }
        let listener = self.listen().await;
        let (life, death) = watch::channel(());
        *self.life() = Some(life);
        tokio::spawn(serving::accept(Arc::clone(&self.shared), listener, death));
    }

    async fn listen(&self) -> TcpListener {
        let host = match self.shared.params.is_everywhere {
            true => Ipv4Addr::UNSPECIFIED,
            false => Ipv4Addr::LOCALHOST,
        };
        let mut listener = None;
        until("its port is free", 5.secs(), async || {
            listener = TcpListener::bind((host, self.address().port())).await.ok();
            listener.is_some()
        })
        .await;
        listener.expect("waited for")
    }

    /// Waits until this many requests are in work.
    pub async fn working_on(&self, requests: usize) {
        let what = format!("{} works on {requests} requests", self.name());
        until(&what, 5.secs(), async || self.current() == requests).await;
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.shared.counts()
    }

    fn life(&self) -> MutexGuard<'_, Option<watch::Sender<()>>> {
        self.shared
            .life
            .lock()
            .expect("no holder of this lock panics")
    }
}
