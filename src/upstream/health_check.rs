//! Pingora's `HealthCheck`, answered from the last ruling. No I/O: pinging is the poller's work, in a
//! process of its own.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::{Error, ErrorType, Result};
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::HealthCheck;

use super::BackendParams;
use crate::health::{Ruling, Standing, State};
use crate::id::BackendName;

/// What the check must know of a backend; it rides along in the backend's extensions.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    name: BackendName,
    state: State,
}

impl Identity {
    pub(super) fn of(params: &BackendParams) -> Self {
        Self {
            name: params.name.clone(),
            state: params.state,
        }
    }

    /// Where the backend stands: of the states that configuration and file want, the more
    /// restrictive one holds.
    pub(super) fn standing<'a>(&self, ruling: &'a Ruling) -> Standing<'a> {
        match (ruling.standing(self.name.as_str()), self.state) {
            (standing, State::Ready) => standing,
            (Standing::Kept(state), own) => Standing::Kept(state.max(own)),
            (_, own) => Standing::Kept(own),
        }
    }
}

/// Says of each backend what one ruling says.
pub(super) struct RulingHealth {
    ruling: Arc<Ruling>,
}

impl RulingHealth {
    pub(super) fn new(ruling: Arc<Ruling>) -> Self {
        Self { ruling }
    }
}

#[async_trait]
impl HealthCheck for RulingHealth {
    async fn check(&self, target: &Backend) -> Result<()> {
        let identity = target.ext.get::<Identity>();
        match identity.map(|identity| identity.standing(&self.ruling)) {
            Some(Standing::Ready) => Ok(()),
            _ => Error::e_explain(ErrorType::ConnectError, "the ruling keeps requests from it"),
        }
    }

    /// One ruling decides: counting pings is the poller's work.
    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}
