//! Owns the clients: each sends a request, looks at its answer, takes a breath, and sends the next one over the same
//! connection, if it has one.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::farm::Farm;
use crate::fault::some_millis;
use crate::gate::Gate;
use crate::http::Wire;
use crate::proxy::{Admin, Proxy};
use crate::request::{End, Plan, judge};
use crate::tally::{Tally, Verdict};

/// Longer than the proxy may take for the longest request; who waits for that long waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// `GET`, and now and then `HEAD`.
    Get,
    /// With a body, which may come slowly.
    Put,
    /// The same, but may not be done twice.
    Post,
    /// `GET`, and goes away before it has the answer.
    Leaver,
    /// `GET`, once in a while over a connection that is idle in between.
    Rare,
}

/// All clients.
pub struct Clients {
    tasks: JoinSet<()>,
    shared: Rc<Shared>,
}

struct Shared {
    port: u16,
    admin: Admin,
    gate: Gate,
    farm: Rc<Farm>,
    tally: RefCell<Tally>,
    connections: Cell<u64>,
}

impl Clients {
    /// So many, and a fifth of that who come rarely. They wait for the gate to open.
    pub fn start(count: usize, proxy: &Proxy, gate: &Gate, farm: &Rc<Farm>, rng: &mut Rng) -> Self {
        let shared = Rc::new(Shared {
            port: proxy.port,
            admin: proxy.admin,
            gate: gate.clone(),
            farm: Rc::clone(farm),
            tally: RefCell::new(Tally::new()),
            connections: Cell::new(0),
        });
        let mut tasks = JoinSet::new();
        for number in 0..count + count / 5 {
            let class = class_of(number, count);
            let client = Client::new(number, class, rng.fork(), Rc::clone(&shared));
            tasks.spawn_local(client.live());
        }
        Self { tasks, shared }
    }

    pub fn tally(&self) -> std::cell::Ref<'_, Tally> {
        self.shared.tally.borrow()
    }

    /// How many connections they have open.
    pub fn connections(&self) -> u64 {
        self.shared.connections.get()
    }

    /// Once the gate has ended.
    pub async fn finish(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

fn class_of(number: usize, count: usize) -> Class {
    match number * 20 / count {
        0..11 => Class::Get,
        11..15 => Class::Put,
        15..18 => Class::Post,
        18..20 => Class::Leaver,
        _ => Class::Rare,
    }
}

struct Client {
    class: Class,
    number: usize,
    sent: u64,
    rng: Rng,
    connection: Option<Connection>,
    shared: Rc<Shared>,
}

/// A connection, counted as long as it lives.
struct Connection {
    wire: Wire,
    _counted: Counted,
}

struct Counted(Rc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

impl Client {
    fn new(number: usize, class: Class, rng: Rng, shared: Rc<Shared>) -> Self {
        Self {
            class,
            number,
            sent: 0,
            rng,
            connection: None,
            shared,
        }
    }

    async fn live(mut self) {
        loop {
            let pause = match self.class {
                Class::Rare => some_millis(&mut self.rng, 2_000..15_000),
                _ => some_millis(&mut self.rng, 0..500),
            };
            let Some(_busy) = self.shared.gate.clone().pass(pause).await else {
                return;
            };
            let plan = self.next();
            let begun = Instant::now();
            let verdict = match self.class {
                Class::Leaver => self.leave(&plan).await,
                _ => self.ask(&plan, begun).await,
            };
            self.note(&plan.id, begun.elapsed(), &verdict).await;
        }
    }

    /// Counts a request that is over. What may not be, the proxy is asked about while it remembers.
    async fn note(&self, id: &str, took: Duration, verdict: &Verdict) {
        let tally = || self.shared.tally.borrow_mut();
        if tally().count(self.class, id, took, verdict) {
            let is_told = tally().has_room();
            let why = match is_told {
                true => self.shared.admin.explain(id).await,
                false => String::new(),
            };
            tally().complain(id, took, verdict, &why);
        }
    }

    fn next(&mut self) -> Plan {
        self.sent += 1;
        let id = format!("{:?}-{}-{}", self.class, self.number, self.sent).to_lowercase();
        Plan::random(self.class, id, &mut self.rng)
    }

    async fn ask(&mut self, plan: &Plan, begun: Instant) -> Verdict {
        let end = match timeout(PATIENCE, self.exchange(plan)).await {
            Ok(end) => end,
            Err(_) => End::Nothing(io::ErrorKind::TimedOut.into()),
        };
        if let End::Whole(head, _) = &end {
            if head.says_close() {
                self.connection = None;
            }
        } else {
            self.connection = None;
        }
        judge(plan, end, |backend| {
            let farm = &self.shared.farm;
            farm.who_broke_off(backend, begun, Instant::now())
        })
    }

    /// Asks, and goes away within the time that the backend takes.
    async fn leave(&mut self, plan: &Plan) -> Verdict {
        let patience = plan.wish.takes.mul_f64(self.rng.f64());
        let is_reset = self.rng.bool();
        // If it is not answered sooner, which may only be a refusal.
        let _ = timeout(patience, self.exchange(plan)).await;
        if let Some(connection) = self.connection.take()
            && is_reset
        {
            connection.wire.reset();
        }
        Verdict::Left
    }

    async fn exchange(&mut self, plan: &Plan) -> End {
        let wire = match self.wire().await {
            Ok(wire) => wire,
            Err(error) => return End::Nothing(error),
        };
        // A proxy that has answered need not read on.
        let sent = plan.send(wire).await;
        let head = match wire.read_head().await {
            Ok(Some(head)) => head,
            Ok(None) => {
                return End::Nothing(sent.err().unwrap_or(io::ErrorKind::UnexpectedEof.into()));
            }
            Err(error) => return End::Nothing(error),
        };
        if plan.method == "HEAD" {
            return End::Whole(head, Vec::new());
        }
        match wire.read_body(&head).await {
            Ok(body) => End::Whole(head, body),
            Err(error) => End::BrokenOff(head, error),
        }
    }

    /// The connection that is there, or a new one.
    async fn wire(&mut self) -> io::Result<&mut Wire> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let wire = Wire::connect(self.shared.port).await?;
                let connections = &self.shared.connections;
                connections.set(connections.get() + 1);
                let _counted = Counted(Rc::clone(&self.shared));
                Connection { wire, _counted }
            }
        };
        Ok(&mut self.connection.insert(connection).wire)
    }
}
