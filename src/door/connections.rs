//! How many client connections are open, and when the last one ends.

use std::sync::Arc;

use tokio::sync::watch;

/// A count of open connections that can be waited on.
#[derive(Clone)]
pub struct Connections(Arc<watch::Sender<usize>>);

impl Connections {
    /// None are open.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// Counts one until the guard is dropped.
    pub(super) fn open(&self) -> Open {
        self.0.send_modify(|open| *open += 1);
        Open(self.clone())
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until none is open.
    pub async fn all_closed(&self) {
        // Fails only without a sender, and `self` holds it.
        let _ = self.0.subscribe().wait_for(|open| *open == 0).await;
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self::new()
    }
}

/// One open connection.
pub(super) struct Open(Connections);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.send_modify(|open| *open -= 1);
    }
}
