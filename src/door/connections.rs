//! How many client connections are open, and when the last one ends.

use std::sync::Arc;

use tokio::sync::watch;

use crate::metrics::ProxyCounters;

/// A count of open connections that can be waited on.
#[derive(Clone)]
pub struct Connections {
    open: Arc<watch::Sender<usize>>,
    counters: Arc<ProxyCounters>,
}

impl Connections {
    /// None are open.
    pub fn new(counters: Arc<ProxyCounters>) -> Self {
        Self {
            open: Arc::new(watch::Sender::new(0)),
            counters,
        }
    }

    /// Counts one until the guard is dropped.
    pub(super) fn open(&self) -> Open {
        self.counters.connections.add();
        self.counters.runtimes.note();
        self.open.send_modify(|open| *open += 1);
        Open(self.clone())
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        *self.open.borrow()
    }

    /// Waits until none is open.
    pub async fn all_closed(&self) {
        // Fails only without a sender, and `self` holds it.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}

/// One open connection.
pub(super) struct Open(Connections);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.connections_closed.add();
        self.0.open.send_modify(|open| *open -= 1);
    }
}
