//! Where the process stands between its start and its end.

use tokio::sync::watch;

/// A phase of the process; only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The listeners are not open yet.
    Starting,
    /// Requests are taken.
    Running,
    /// Nobody new is let in; what is here is finished.
    Stopping,
}

impl Phase {
    /// Its name in the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
        }
    }
}

/// Where to look for the phase. Cheap to look at, can be waited on.
#[derive(Clone)]
pub struct PhaseWatch(watch::Receiver<Phase>);

/// What moves the process on.
#[derive(Clone)]
pub struct PhaseSwitch(watch::Sender<Phase>);

impl PhaseSwitch {
    /// A process that starts.
    pub fn new() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }

    /// Goes forward to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }

    /// For those who only look.
    pub fn watch(&self) -> PhaseWatch {
        PhaseWatch(self.0.subscribe())
    }
}

impl Default for PhaseSwitch {
    fn default() -> Self {
        Self::new()
    }
}

impl PhaseWatch {
    /// The phase now.
    pub fn now(&self) -> Phase {
        *self.0.borrow()
    }

    /// Whether the process is stopping.
    pub fn is_stopping(&self) -> bool {
        self.now() == Phase::Stopping
    }

    /// Waits until the process is stopping.
    pub async fn stopping(&self) {
        // Fails only without a switch: then the process is ending anyway.
        let _ = self
            .0
            .clone()
            .wait_for(|phase| *phase == Phase::Stopping)
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_stops_does_not_run_again() {
        let switch = PhaseSwitch::new();
        let watch = switch.watch();
        assert_eq!(watch.now(), Phase::Starting);
        switch.advance(Phase::Stopping);
        switch.advance(Phase::Running);
        assert!(watch.is_stopping());
    }
}
