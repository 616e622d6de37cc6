//! One target for as long as it is configured: ping, judge, report, wait.
//!
//! A task for each, so that there are never two pings of one target at a time, and a target that
//! hangs delays nobody else.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::counts::TargetCounts;
use super::ledger::Finding;
use super::look::{Look, Reading, Turns, begin, finish};
use super::plan::Target;
use super::record::{Judgement, Pace, Record};
use crate::health::FileEvent;
use crate::id::BackendName;
use crate::policy::jitter::jittered;

/// What to do, as it stands now; a reload sends it anew.
#[derive(Clone)]
pub(super) struct Orders {
    pub target: Target,
    /// What the health file says.
    pub file: watch::Receiver<FileEvent>,
}

impl Orders {
    /// Whether the file calls it healthy; `None`: it does not name it.
    fn known(&self) -> Option<bool> {
        let event = self.file.borrow();
        let verdict = event.report.as_ref()?.verdict(self.target.name.as_str())?;
        Some(verdict.healthy)
    }

    fn is_in_maintenance(&self) -> bool {
        let event = self.file.borrow();
        self.target.is_in_maintenance(event.report.as_deref())
    }
}

/// The task of one target.
pub(super) struct Polling {
    orders: watch::Receiver<Orders>,
    findings: mpsc::Sender<Finding>,
    turns: Arc<Turns>,
    counts: Arc<TargetCounts>,
    /// When the last ping was due.
    due: Instant,
}

impl Polling {
    pub fn new(
        orders: watch::Receiver<Orders>,
        findings: mpsc::Sender<Finding>,
        turns: Arc<Turns>,
        counts: Arc<TargetCounts>,
    ) -> Self {
        Self {
            orders,
            findings,
            turns,
            counts,
            due: Instant::now(),
        }
    }

    /// Never ends by itself.
    pub async fn run(mut self) {
        loop {
            self.in_service().await;
            self.in_maintenance().await;
        }
    }

    /// Begins with what the file says, so that a poller that is restarted needs as many pings for a
    /// change as one that was there all the time.
    async fn in_service(&mut self) {
        let mut orders = self.latest_orders();
        let mut record = Record::new(&orders.target.params, orders.known());
        while !orders.is_in_maintenance() {
            let look = begin(&orders.target, &self.turns, record.memory());
            let look = finish(&orders.target.name, look).await;
            let judgement = record.judge(&orders.target.params, &look);
            log(&orders.target.name, &look, &judgement);
            self.counts.looked(&look, &judgement);
            self.report(Some(judgement)).await;
            self.pause(record.pace()).await;
            orders = self.latest_orders();
        }
    }

    /// Ends at once when maintenance does: the verdict that is in force then may be an old one.
    async fn in_maintenance(&mut self) {
        let name = self.latest_orders().target.name;
        info!(backend = %name, "in maintenance, not pinged");
        self.counts.maintained();
        while self.latest_orders().is_in_maintenance() {
            self.report(None).await;
            let over = out_of_maintenance(self.orders.clone());
            tokio::select! {
                () = self.pause(Pace::Usual) => {}
                () = over => {}
            }
        }
        self.due = Instant::now();
        info!(backend = %name, "out of maintenance");
    }

    fn latest_orders(&mut self) -> Orders {
        self.orders.borrow_and_update().clone()
    }

    async fn report(&self, judgement: Option<Judgement>) {
        let name = self.orders.borrow().target.name.clone();
        // Nobody listens when the poller ends.
        let _ = self.findings.send(Finding { name, judgement }).await;
    }

    /// Until the next ping is due: counted from when this one was, so that targets that began
    /// together stay together. After a ping that took longer, not at all.
    async fn pause(&mut self, pace: Pace) {
        let (last, random) = (self.due, random());
        loop {
            let params = self.latest_orders().target.params;
            let after = |wait| last + jittered(wait, params.jitter_percent, random);
            let (usual, soon) = (after(params.interval), after(params.fast_interval));
            let due = match pace {
                Pace::Usual => usual,
                Pace::Fast => soon,
                // The look at its end is the one that counts.
                Pace::Until(end) => end
                    .checked_sub(params.timeout)
                    .unwrap_or(soon)
                    .max(soon)
                    .min(usual),
            };
            self.due = due.max(Instant::now());
            tokio::select! {
                () = sleep_until(self.due) => return,
                // Perhaps other intervals.
                Ok(()) = self.orders.changed() => {}
            }
        }
    }
}

async fn out_of_maintenance(mut orders: watch::Receiver<Orders>) {
    loop {
        let Orders { target, mut file } = orders.borrow_and_update().clone();
        let is_over = |event: &FileEvent| !target.is_in_maintenance(event.report.as_deref());
        tokio::select! {
            true = async { file.wait_for(is_over).await.is_ok() } => return,
            Ok(()) = orders.changed() => {}
            // Neither can change any more.
            else => std::future::pending().await,
        }
    }
}

fn log(backend: &BackendName, look: &Look, judgement: &Judgement) {
    match &look.reading {
        Reading::Well(answer) => debug!(%backend, %answer, "ping answered"),
        Reading::Inconclusive(excuse) => debug!(%backend, excuse.why, "ping inconclusive"),
        reason => debug!(%backend, %reason, "ping failed"),
    }
    let Judgement {
        healthy, reason, ..
    } = judgement;
    match (judgement.is_news, healthy) {
        (false, _) => {}
        (true, true) => info!(%backend, "healthy"),
        (true, false) => warn!(%backend, %reason, "unhealthy"),
    }
}

/// Different at each call; that nobody can guess it is not needed.
fn random() -> u64 {
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fixtures::{params, target};
    use super::*;
    use crate::config::PollerParams;
    use crate::health::HealthFile;

    const SECOND: Duration = Duration::from_secs(1);

    fn orders(params: PollerParams) -> Orders {
        let file = HealthFile::open("nowhere/health_status.json".into());
        let address = "127.0.0.1:1".parse().unwrap();
        Orders {
            target: target("a", address, &Arc::new(params)),
            file: watch::channel(file.latest().clone()).1,
        }
    }

    fn polling(params: PollerParams) -> (Polling, watch::Sender<Orders>) {
        let (sender, orders) = watch::channel(orders(params));
        let turns = Arc::new(Turns::new(1, Arc::default()));
        let polling = Polling::new(orders, mpsc::channel(1).0, turns, Arc::default());
        (polling, sender)
    }

    /// How long a pause takes, in milliseconds.
    async fn paused(polling: &mut Polling, pace: Pace) -> u128 {
        let begun = Instant::now();
        polling.pause(pace).await;
        begun.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn waits_the_interval_and_less_while_changing() {
        let (mut polling, _sender) = polling(params());
        assert_eq!(paused(&mut polling, Pace::Usual).await, 10_000);
        assert_eq!(paused(&mut polling, Pace::Fast).await, 1_000);
        assert_eq!(paused(&mut polling, Pace::Usual).await, 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_is_part_of_the_interval() {
        let (mut polling, _sender) = polling(params());
        tokio::time::sleep(3 * SECOND).await;
        assert_eq!(paused(&mut polling, Pace::Usual).await, 7_000);
        tokio::time::sleep(13 * SECOND).await;
        assert_eq!(paused(&mut polling, Pace::Usual).await, 0);
        assert_eq!(
            paused(&mut polling, Pace::Usual).await,
            10_000,
            "no catching up"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_excuse_that_ends_is_looked_at_in_time() {
        let (mut polling, _sender) = polling(params());
        // A look takes up to two seconds.
        for (left, wait) in [(9, 7_000), (11, 9_000), (60, 10_000), (2, 1_000)] {
            let until = Pace::Until(Instant::now() + left * SECOND);
            assert_eq!(paused(&mut polling, until).await, wait, "{left}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn jitter_makes_every_wait_another_one_within_its_bounds() {
        let params = PollerParams {
            jitter_percent: 20,
            ..params()
        };
        let (mut polling, _sender) = polling(params);
        let mut waits = Vec::new();
        for _ in 0..50 {
            waits.push(paused(&mut polling, Pace::Usual).await);
        }
        assert!(
            waits.iter().all(|wait| (7_990..=12_010).contains(wait)),
            "{waits:?}"
        );
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(most - least > 1_000, "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn another_interval_applies_to_the_wait_under_way() {
        let (mut polling, sender) = polling(params());
        let reload = async {
            tokio::time::sleep(3 * SECOND).await;
            let interval = 4 * SECOND;
            sender.send_replace(orders(PollerParams {
                interval,
                ..params()
            }));
        };
        let (waited, ()) = tokio::join!(paused(&mut polling, Pace::Usual), reload);
        assert_eq!(waited, 4_000);
    }
}
