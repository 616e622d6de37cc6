//! Owns the backends: their processes, what is done to them, and who of them is spared.
//!
//! Invariant: of an upstream's backends at most [`IMPAIRED_MAX`] have a fault, or are called sick, at a time.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::backend::Order;
use crate::fault::{Fault, some_millis};
use crate::ledger::Records;
use crate::ports::Ports;

/// Of each upstream's [`BACKENDS_EACH`]: so two are sound at any time, one of which may still be coming back.
const IMPAIRED_MAX: usize = 3;
pub const BACKENDS_EACH: usize = 5;

/// The upstreams, with the slots of their backends.
pub const UPSTREAMS: [(&str, usize); 2] = [("single", 1), ("many", 100)];

/// How long a process may take to start, on a machine that does other things.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How much later than a fault its last effect may reach a client: a timeout of the proxy's, and its queues.
const AFTERMATH: Duration = Duration::from_secs(4);

/// All backends.
pub struct Farm {
    folder: PathBuf,
    seed: u64,
    backends: Vec<Backend>,
}

/// One of them.
pub struct Backend {
    pub name: String,
    pub upstream: usize,
    pub port: u16,
    process: RefCell<Option<Child>>,
    starts: Cell<u64>,
    is_impaired: Cell<bool>,
    history: RefCell<Vec<Episode>>,
}

/// A fault as it was.
#[derive(Clone, Copy, Debug)]
struct Episode {
    fault: Fault,
    begun: Instant,
    over: Option<Instant>,
}

impl Farm {
    /// Starts them all.
    pub async fn start(folder: &Path, ports: &mut Ports, seed: u64) -> Result<Self> {
        let mut backends = Vec::new();
        for (upstream, (name, _)) in UPSTREAMS.iter().enumerate() {
            for number in 1..=BACKENDS_EACH {
                backends.push(Backend {
                    name: format!("{name}{number}"),
                    upstream,
                    port: ports.take()?,
                    process: RefCell::default(),
                    starts: Cell::default(),
                    is_impaired: Cell::default(),
                    history: RefCell::default(),
                });
            }
        }
        let farm = Self {
            folder: folder.to_owned(),
            seed,
            backends,
        };
        for backend in &farm.backends {
            farm.revive(backend).await?;
        }
        Ok(farm)
    }

    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// Takes a backend that nothing is wrong with, for something to be wrong with it, if one can be spared.
    pub fn claim(&self, upstream: usize, rng: &mut Rng) -> Option<&Backend> {
        let of_upstream = self.backends.iter().filter(|it| it.upstream == upstream);
        let (impaired, sound): (Vec<_>, Vec<_>) = of_upstream.partition(|it| it.is_impaired.get());
        if impaired.len() >= IMPAIRED_MAX || sound.is_empty() {
            return None;
        }
        let backend = sound[rng.usize(..sound.len())];
        backend.is_impaired.set(true);
        Some(backend)
    }

    /// It has a fault for this long, or until it is told to end.
    pub async fn strike(
        &self,
        backend: &Backend,
        fault: Fault,
        rng: &mut Rng,
        until: impl Future<Output = ()>,
    ) -> Result<()> {
        let episode = backend.note(fault);
        let outcome = self.strike_unnoted(backend, fault, rng, until).await;
        backend.note_end(episode);
        outcome
    }

    async fn strike_unnoted(
        &self,
        backend: &Backend,
        fault: Fault,
        rng: &mut Rng,
        until: impl Future<Output = ()>,
    ) -> Result<()> {
        match fault {
            Fault::Kill => {
                backend.kill().await?;
                until.await;
                self.revive(backend).await
            }
            Fault::Restarts => {
                let mut until = std::pin::pin!(until);
                loop {
                    backend.kill().await?;
                    sleep(some_millis(rng, 0..30)).await;
                    self.revive(backend).await?;
                    let pause = some_millis(rng, 50..500);
                    if timeout(pause, &mut until).await.is_ok() {
                        return Ok(());
                    }
                }
            }
            Fault::Stop => {
                backend.signal(Signal::STOP)?;
                until.await;
                backend.signal(Signal::CONT)
            }
            _ => {
                let percent = [30, 70, 100][rng.usize(..3)];
                backend.order(Some(Order { fault, percent })).await?;
                until.await;
                backend.order(None).await
            }
        }
    }

    async fn revive(&self, backend: &Backend) -> Result<()> {
        backend.starts.set(backend.starts.get() + 1);
        let seed = self.seed ^ (backend.starts.get() << 32) ^ u64::from(backend.port);
        let mut child = Command::new(std::env::current_exe()?)
            .args(["backend", &std::process::id().to_string()])
            .args([&backend.name, &backend.port.to_string()])
            .arg(UPSTREAMS[backend.upstream].1.to_string())
            .arg(self.ledger(backend))
            .arg(seed.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let said = child.stdout.take().context("standard output is ours")?;
        let mut line = String::new();
        let mut said = BufReader::new(said);
        timeout(START_LIMIT, said.read_line(&mut line)).await??;
        ensure!(line == "listening\n", "{} does not start", backend.name);
        backend.process.replace(Some(child));
        Ok(())
    }

    /// What they have written down so far.
    pub fn records(&self) -> io::Result<Records> {
        let mut records = Records::default();
        for backend in &self.backends {
            records.read(&self.ledger(backend))?;
        }
        Ok(records)
    }

    fn ledger(&self, backend: &Backend) -> PathBuf {
        self.folder.join(format!("{}.ledger", backend.name))
    }

    /// How often each kind of fault was there.
    pub fn episodes(&self, fault: Fault) -> usize {
        let of_backend = |backend: &Backend| {
            let history = backend.history.borrow();
            history.iter().filter(|it| it.fault == fault).count()
        };
        self.backends.iter().map(of_backend).sum()
    }

    /// What may have broken off an answer of this backend between these times.
    pub fn who_broke_off(&self, name: &str, from: Instant, to: Instant) -> Option<Fault> {
        let backend = self.backends.iter().find(|it| it.name == name)?;
        let history = backend.history.borrow();
        let found = history.iter().rev().find(|episode| {
            episode.fault.breaks_bodies()
                && episode.begun <= to
                && episode.over.is_none_or(|over| over + AFTERMATH >= from)
        });
        found.map(|episode| episode.fault)
    }
}

impl Backend {
    /// It is sound again.
    pub fn release(&self) {
        self.is_impaired.set(false);
    }

    fn note(&self, fault: Fault) -> usize {
        let mut history = self.history.borrow_mut();
        history.push(Episode {
            fault,
            begun: Instant::now(),
            over: None,
        });
        history.len() - 1
    }

    fn note_end(&self, episode: usize) {
        self.history.borrow_mut()[episode].over = Some(Instant::now());
    }

    async fn order(&self, order: Option<Order>) -> Result<()> {
        // Not borrowed while it is written to.
        let input = self.process.borrow_mut().as_mut().map(|it| it.stdin.take());
        let mut input = input.flatten().context("standard input is ours")?;
        input.write_all(Order::line(order).as_bytes()).await?;
        if let Some(child) = self.process.borrow_mut().as_mut() {
            child.stdin = Some(input);
        }
        Ok(())
    }

    async fn kill(&self) -> Result<()> {
        let process = self.process.take();
        let mut process = process.with_context(|| format!("{} does not run", self.name))?;
        Ok(process.kill().await?)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.process.borrow().as_ref().and_then(Child::id);
        let id = id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let id = id.with_context(|| format!("{} does not run", self.name))?;
        Ok(kill_process(id, signal)?)
    }
}
