//! Waiting for a condition, with a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until `condition` holds and says how long that took.
///
/// # Panics
/// When it does not hold within `limit`; `what` names it.
pub async fn until(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) -> Duration {
    let begun = Instant::now();
    loop {
        if condition().await {
            return begun.elapsed();
        }
        assert!(
            begun.elapsed() < limit,
            "waited {limit:?} in vain until {what}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// What `future` comes to, if that is within `limit`.
///
/// # Panics
/// When it is not; `what` names it.
pub async fn soon<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {limit:?} in vain for {what}"),
    }
}
