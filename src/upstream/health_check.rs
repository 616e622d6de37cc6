//! Pingora's `HealthCheck`, answered from the last report. No I/O: pinging is the poller's work,
//! in a process of its own.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::{Error, ErrorType, Result};
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::HealthCheck;

use crate::health::Report;
use crate::id::BackendName;

/// Says of each backend what one report says.
pub(super) struct ReportHealth {
    report: Arc<Report>,
}

impl ReportHealth {
    pub(super) fn new(report: Arc<Report>) -> Self {
        Self { report }
    }
}

#[async_trait]
impl HealthCheck for ReportHealth {
    async fn check(&self, target: &Backend) -> Result<()> {
        let verdict = target
            .ext
            .get::<BackendName>()
            .and_then(|name| self.report.verdict(name.as_str()));
        match verdict {
            Some(verdict) if verdict.healthy => Ok(()),
            Some(_) => Error::e_explain(ErrorType::ConnectError, "the report says sick"),
            None => Error::e_explain(ErrorType::ConnectError, "the report does not name it"),
        }
    }

    /// One report decides: counting pings is the poller's work.
    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}
