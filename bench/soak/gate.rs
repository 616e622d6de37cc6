//! Owns the rhythm: rounds of load and faults, with rests between them in which all must come to an end.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Rest,
    Load,
    Over,
}

/// Says when.
#[derive(Clone)]
pub struct Gate {
    phase: watch::Sender<Phase>,
    busy: Rc<Cell<usize>>,
}

/// A client that has a request under way.
pub struct Busy(Rc<Cell<usize>>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Gate {
    /// At rest.
    pub fn new() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Rest),
            busy: Rc::default(),
        }
    }

    pub fn open(&self) {
        self.phase.send_replace(Phase::Load);
    }

    pub fn close(&self) {
        self.phase.send_replace(Phase::Rest);
    }

    /// For good.
    pub fn end(&self) {
        self.phase.send_replace(Phase::Over);
    }

    /// How many requests are under way.
    pub fn busy(&self) -> usize {
        self.busy.get()
    }

    /// A request may begin, once this time and any rest are over. `None`: no more.
    pub async fn pass(&self, pause: Duration) -> Option<Busy> {
        sleep(pause).await;
        let mut phase = self.phase.subscribe();
        let phase = *phase.wait_for(|it| *it != Phase::Rest).await.ok()?;
        (phase == Phase::Load).then(|| {
            self.busy.set(self.busy.get() + 1);
            Busy(Rc::clone(&self.busy))
        })
    }

    /// Returns after this time, or when the load ends, if that is sooner; says whether it goes on.
    pub async fn wait(&self, time: Duration) -> bool {
        let mut phase = self.phase.subscribe();
        timeout(time, phase.wait_for(|it| *it != Phase::Load))
            .await
            .is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_passes_at_rest() {
        let gate = Gate::new();
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, gate.pass(Duration::ZERO)).await.is_err());
        gate.open();
        let busy = gate.pass(hour).await;
        assert!(busy.is_some() && gate.busy() == 1);
        drop(busy);
        assert_eq!(gate.busy(), 0);
        assert!(gate.wait(hour).await);
        gate.close();
        assert!(!gate.wait(hour).await);
        gate.end();
        assert!(gate.pass(hour).await.is_none());
    }
}
