//! Pings every backend and writes the health file.
//!
//! A process of its own, with nothing in common with the proxy but the file and the configuration. It asks
//! proxies what they know of a backend that is silent, and does without where it gets no answer.
//! [`run`] is the one that owns what the others need: it starts a task for each target (`polling`),
//! takes their findings (`ledger`), writes them (`file`), and follows the configuration (`reload`).
//! One ping is `probe`'s, what it says beside the `evidence` of proxies is `look`'s, what a run of them means
//! is `policy::threshold`'s. `counts` counts all that, and `page` serves it.
//!
//! Invariants: there is never more than one ping of a target under way; a verdict that changes is
//! written at once, or as soon as nobody else is at the file; the file is also written when nothing
//! changed, once an interval, but only if every target has reported since, because the proxy counts
//! freshness from the last write; a target in maintenance is neither pinged nor written; nothing that a
//! backend, the disk or a new configuration does ends [`run`].

mod counts;
mod evidence;
mod file;
#[cfg(test)]
mod fixtures;
mod ledger;
mod look;
mod once;
mod page;
mod plan;
mod polling;
mod probe;
mod record;
mod reload;
mod task;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::info;

use crate::health::LockError;
use crate::id::BackendName;
use crate::metrics::Process;

use counts::Counts;
use file::PolledFile;
use ledger::{Finding, Ledger};
use look::Turns;
use page::Served;
use polling::{Orders, Polling};
use task::Task;

pub use once::once;
pub use plan::{Plan, Target};
pub use reload::Reloader;

/// Pings under way at once: below the usual limit of 1,024 open files. Further ones wait, so with
/// more than 256 targets that hang, pings come later than planned.
const PINGS_MAX: usize = 256;

/// Findings that wait for a write to end; more, and their targets wait.
const FINDINGS_MAX: usize = 1024;

/// Polls by `plan`, then by each further plan, until `stop` is done. Pings under way are then
/// abandoned; a write under way is completed by the runtime.
///
/// # Errors
///
/// At once, when another poller writes the plan's file.
///
/// # Cancel safety
///
/// May be dropped at any time; so it is stopped.
pub async fn run(
    plan: Plan,
    plans: mpsc::Receiver<Plan>,
    process: Arc<Process>,
    stop: impl Future<Output = ()>,
) -> Result<(), LockError> {
    let mut poller = Poller::start(plan, process)?;
    let (file, backends) = (poller.plan.file.display(), poller.plan.targets.len());
    info!(%file, backends, "polling");
    tokio::select! {
        biased;
        () = stop => Ok(()),
        never = poller.repeat(plans) => match never {},
    }
}

/// A running poller.
struct Poller {
    plan: Plan,
    file: PolledFile,
    /// A plan that is followed as soon as its file can be written.
    next: Option<(Plan, Opening)>,
    /// When to write although nothing new is due: the last write has found somebody else at the file.
    retry: Option<Instant>,
    ledger: Ledger,
    tasks: HashMap<BackendName, Polled>,
    findings: mpsc::Receiver<Finding>,
    reporter: mpsc::Sender<Finding>,
    turns: Arc<Turns>,
    counts: Arc<Counts>,
    page: Option<Served>,
}

/// A health file that is being opened.
type Opening = Pin<Box<dyn Future<Output = PolledFile> + Send>>;

/// The task of one target.
struct Polled {
    orders: watch::Sender<Orders>,
    _task: Task<()>,
}

impl Poller {
    fn start(plan: Plan, process: Arc<Process>) -> Result<Self, LockError> {
        let (reporter, findings) = mpsc::channel(FINDINGS_MAX);
        let counts = Arc::new(Counts::new(process));
        let mut poller = Self {
            file: PolledFile::open(plan.file.clone())?,
            plan,
            next: None,
            retry: None,
            ledger: Ledger::default(),
            tasks: HashMap::new(),
            findings,
            reporter,
            turns: Arc::new(Turns::new(PINGS_MAX, counts.evidence().clone())),
            counts,
            page: None,
        };
        poller.follow_plan();
        Ok(poller)
    }

    async fn repeat(&mut self, mut plans: mpsc::Receiver<Plan>) -> Infallible {
        let mut findings = Vec::with_capacity(FINDINGS_MAX);
        loop {
            // The findings last: there may always be more of them.
            tokio::select! {
                biased;
                Some(plan) = plans.recv() => self.reload(plan),
                (plan, file) = opened(&mut self.next) => {
                    self.file = file;
                    self.follow(plan);
                }
                () = due(self.retry) => self.write().await,
                () = self.file.changed() => self.file.look().await,
                _ = self.findings.recv_many(&mut findings, FINDINGS_MAX) => {}
            }
            for finding in findings.drain(..) {
                self.ledger.take(finding);
            }
            for _ in 0..self.ledger.take_rounds() {
                self.counts.round_over();
            }
            // A retry writes what is due by then.
            if self.ledger.take_due() && self.retry.is_none() {
                self.write().await;
            }
        }
    }

    /// Goes over to another plan; when it has another file, as soon as that is ours.
    fn reload(&mut self, plan: Plan) {
        self.next = None;
        if plan.file == self.file.path() {
            return self.follow(plan);
        }
        let opening = PolledFile::reach(plan.file.clone(), plan.configuration.clone());
        self.next = Some((plan, Box::pin(opening)));
    }

    fn follow(&mut self, plan: Plan) {
        self.plan = plan;
        self.counts.process().reloaded(self.plan.fingerprint);
        let [added, removed] = self.follow_plan();
        let [added, removed] = [added, removed].map(|names| names.join(", "));
        info!(added, removed, "configuration reloaded");
    }

    /// Starts, ends and instructs tasks; says whose were started and ended.
    fn follow_plan(&mut self) -> [Vec<String>; 2] {
        self.serve();
        let [mut added, mut removed] = [Vec::new(), Vec::new()];
        let mut before = std::mem::take(&mut self.tasks);
        for target in &self.plan.targets {
            let name = target.name.clone();
            let orders = Orders {
                target: target.clone(),
                file: self.file.events().clone(),
            };
            let task = match before.remove(&name) {
                Some(task) => {
                    task.orders.send_replace(orders);
                    task
                }
                None => {
                    added.push(name.to_string());
                    self.start_polling(orders)
                }
            };
            self.tasks.insert(name, task);
        }
        for name in before.into_keys() {
            self.counts.forget(&name);
            removed.push(name.to_string());
        }
        removed.sort();
        self.ledger
            .expect(self.plan.targets.iter().map(|target| &target.name));
        [added, removed]
    }

    fn serve(&mut self) {
        let serves = self.page.as_ref().map(|page| page.address);
        if serves != self.plan.metrics {
            let at = |address| Served::at(address, self.counts.clone());
            self.page = self.plan.metrics.map(at);
        }
    }

    fn start_polling(&self, orders: Orders) -> Polled {
        let counts = self.counts.target(&orders.target.name);
        let (orders, receiver) = watch::channel(orders);
        let polling = Polling::new(receiver, self.reporter.clone(), self.turns.clone(), counts);
        Polled {
            orders,
            _task: Task::spawn(polling.run()),
        }
    }

    /// Writes what was found out last.
    async fn write(&mut self) {
        let targets = self.plan.targets.iter();
        let entries = targets.filter_map(|target| {
            let judgement = self.ledger.judgement(&target.name)?;
            Some((target.name.clone(), judgement.clone()))
        });
        let entries = entries.collect();
        let written = self.file.write(entries, self.plan.detail).await;
        self.counts.wrote(written);
        self.retry = written.wait().map(|wait| Instant::now() + wait);
    }
}

/// The next plan with its file, when that is open.
async fn opened(next: &mut Option<(Plan, Opening)>) -> (Plan, PolledFile) {
    let Some((_, opening)) = next else {
        return std::future::pending().await;
    };
    let file = opening.await;
    let (plan, _) = next.take().expect("it was there before");
    (plan, file)
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
