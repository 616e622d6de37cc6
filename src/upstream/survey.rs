//! What a request found when it asked for a slot: what a decision can be explained by afterwards.
//!
//! Of a fixed size, whatever the number of backends, and taken without a walk over all of them: it is taken under
//! the lock under which the decision is made, so that it shows what was decided by and nothing else.

use std::time::{Duration, Instant};

use super::account::Account;
use crate::policy::outlier::Cause;

/// How many backends are looked at one by one, the first in configuration order; the others are counted.
pub const LISTED_MAX: usize = 16;

/// All backends of an upstream at the moment before one of them is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Survey {
    /// How many requests waited.
    pub waiting: u32,
    /// How many backends were in each condition, listed ones included.
    pub counts: Counts,
    /// The first ones, in configuration order.
    listed: [Finding; LISTED_MAX],
    /// The one that was chosen.
    pub(super) chosen: Finding,
}

/// How many backends were in which condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Eligible, with a free slot.
    pub free: u32,
    /// Eligible, with all slots in use.
    pub full: u32,
    /// Admitted by the report, and ejected.
    pub ejected: u32,
    /// Not admitted by the report.
    pub kept_out: u32,
}

/// One backend at that moment.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// `free`, `full`, `ejected`, `probation` (it may have one request), or what keeps it out: a [standing](crate::health::Standing::name).
    pub condition: &'static str,
    /// Slots taken.
    pub in_flight: u32,
    /// Slots that it had.
    pub max_in_flight: u32,
    /// When its eligibility had changed last.
    pub since: Option<Instant>,
    /// What it was ejected for, if it was.
    pub ejected_for: Option<Cause>,
    /// How many milliseconds it was to rest still; 0 where it does not rest.
    pub rest_millis: u32,
}

impl Finding {
    const NOTHING: Self = Self {
        condition: "",
        in_flight: 0,
        max_in_flight: 0,
        since: None,
        ejected_for: None,
        rest_millis: 0,
    };

    /// `age`: what time it is, as the account's circuit counts it.
    pub(super) fn of(account: &Account, age: Duration) -> Self {
        let ejection = account.circuit.ejection();
        let until = ejection.and_then(|ejection| ejection.until);
        let rest = until.map_or(Duration::ZERO, |until| until.saturating_sub(age));
        let condition = match account {
            account if !account.terms.admitted => account.terms.standing,
            account if account.circuit.is_on_probation() => "probation",
            account if !account.circuit.is_closed() => "ejected",
            account if account.is_full() => "full",
            _ => "free",
        };
        Self {
            condition,
            in_flight: account.in_flight,
            max_in_flight: account.terms.max_in_flight,
            since: Some(account.since),
            ejected_for: ejection.map(|ejection| ejection.cause),
            rest_millis: u32::try_from(rest.as_millis()).unwrap_or(u32::MAX),
        }
    }
}

impl Survey {
    pub(super) fn of(accounts: &[Account], counts: Counts, waiting: usize, age: Duration) -> Self {
        let mut listed = [Finding::NOTHING; LISTED_MAX];
        for (finding, account) in listed.iter_mut().zip(accounts) {
            *finding = Finding::of(account, age);
        }
        Self {
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
            counts,
            listed,
            chosen: Finding::NOTHING,
        }
    }

    /// What was found of the first backends, in configuration order.
    pub fn listed(&self) -> impl Iterator<Item = &Finding> {
        self.listed
            .iter()
            .take_while(|finding| finding.since.is_some())
    }

    /// What was found of the one that was chosen, listed or not; `None` when nobody was, then.
    pub fn chosen(&self) -> Option<&Finding> {
        self.chosen.since.map(|_| &self.chosen)
    }
}

impl Default for Survey {
    fn default() -> Self {
        Self::of(&[], Counts::default(), 0, Duration::ZERO)
    }
}
