//! The process that has started a daemon and waits until it is told that it is ready (`daemon_wait_for_ready`).
//!
//! Pingora tells it by SIGUSR1, for which it begins to listen only after the fork: a daemon that is ready sooner would
//! end it, and whoever started it would take that for a failure.

use std::fs;
use std::process;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::ServiceReadyNotifier;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::SignalKind;
use tokio::time::{Instant, sleep};

/// How long a daemon waits for it at the most, and between two looks.
const PATIENCE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(2);

/// From a handler being there to its working.
const SETTLING: Duration = Duration::from_millis(20);

/// A service that is ready once that process listens: what tells it is to depend on it.
pub struct Parent(u32);

impl Parent {
    /// This process, before it forks.
    pub fn this() -> Self {
        Self(process::id())
    }
}

#[async_trait]
impl BackgroundService for Parent {
    async fn start_with_ready_notifier(&self, _: ShutdownWatch, ready: ServiceReadyNotifier) {
        let begun = Instant::now();
        while !listens(self.0) && begun.elapsed() < PATIENCE {
            sleep(STEP).await;
        }
        // The kernel knows of the handler a moment before it does anything.
        sleep(SETTLING).await;
        ready.notify_ready();
    }
}

/// Whether a process has a handler for SIGUSR1. Where nothing is known, there is nothing to wait for.
fn listens(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mut fields = status.lines();
    let caught = fields.find_map(|field| field.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = 1 << (SignalKind::user_defined1().as_raw_value() - 1);
    caught.is_none_or(|mask| mask & bit != 0)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use tokio::signal::unix::signal;

    use super::*;

    #[tokio::test]
    async fn who_has_a_handler_listens_and_who_is_gone_need_not() {
        let _handler = signal(SignalKind::user_defined1()).unwrap();
        assert!(listens(process::id()));
        let mut sleeper = Command::new("sleep");
        let mut sleeper = sleeper.arg("60").stdin(Stdio::null()).spawn().unwrap();
        assert!(!listens(sleeper.id()));
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert!(listens(sleeper.id()));
    }
}
