//! Tasks that have an owner.

use std::future::Future;

use tokio::task::{JoinError, JoinHandle};

/// A task that ends when this is dropped, at its next `.await`.
pub(super) struct Task<T>(JoinHandle<T>);

impl<T: Send + 'static> Task<T> {
    pub fn spawn(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When it panicked.
    pub async fn join(mut self) -> Result<T, JoinError> {
        (&mut self.0).await
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
