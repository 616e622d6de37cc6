//! A timer that is looked at far more often than it fires.
//!
//! To poll one of tokio's costs some 150 instructions, whether anything has changed or not, and a connection is
//! polled several times a request. So this one is polled only if it has fired, or does not know whom to wake.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

/// Wakes one task at a moment that moves.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom `sleep` wakes as it is set now.
    wakes: Option<Waker>,
}

impl Timer {
    /// Ready once `at` has passed; else the task is woken then. A moment later than the last one is set when the
    /// timer fires too early, and not for every call.
    pub(super) fn poll_until(&mut self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            // It wakes the same task as before.
            sleep.as_mut().reset(at);
        }
        let is_known = |waker: &Waker| waker.will_wake(context.waker());
        if self.wakes.as_ref().is_some_and(is_known) && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        // Without budget it is not told whom to wake; the task is woken for another look at once.
        self.wakes = coop::has_budget_remaining().then(|| context.waker().clone());
        ready!(sleep.as_mut().poll(context));
        while sleep.deadline() < at {
            sleep.as_mut().reset(at);
            ready!(sleep.as_mut().poll(context));
        }
        *self = Self::default();
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn until(timer: &mut Timer, at: Instant) {
        poll_fn(|context| timer.poll_until(at, context)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_moment_that_was_asked_for_holds() {
        let (mut timer, begun) = (Timer::default(), Instant::now());
        for seconds in [5, 9, 3, 4] {
            let waits = until(&mut timer, begun + seconds * SECOND);
            assert!(timeout(SECOND / 10, waits).await.is_err());
        }
        until(&mut timer, begun + 4 * SECOND).await;
        assert_eq!(begun.elapsed().as_secs(), 4);
        until(&mut timer, begun + 6 * SECOND).await;
        assert_eq!(begun.elapsed().as_secs(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_last_is_woken() {
        let (mut timer, begun) = (Timer::default(), Instant::now());
        let at = begun + SECOND;
        assert!(timeout(SECOND / 2, until(&mut timer, at)).await.is_err());
        let other: JoinHandle<()> = tokio::spawn(async move { until(&mut timer, at).await });
        timeout(SECOND, other).await.expect("in time").unwrap();
        assert_eq!(begun.elapsed(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_when_its_budget_is_spent_is_woken_all_the_same() {
        let (mut timer, begun) = (Timer::default(), Instant::now());
        let mut looks = 0;
        poll_fn(|context| {
            looks += 1;
            while looks == 1 && coop::has_budget_remaining() {
                // Each takes a unit.
                let _ = std::pin::pin!(coop::consume_budget()).poll(context);
            }
            timer.poll_until(begun + SECOND, context)
        })
        .await;
        assert_eq!(begun.elapsed(), SECOND);
    }
}
