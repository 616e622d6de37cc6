//! What the poller counts, and the page that shows it. Live: it goes on through reloads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::file::Written;
use super::look::{Look, Reading};
use super::probe::PingFailure;
use super::record::{Judgement, Word};
use crate::address::Address;
use crate::id::BackendName;
use crate::metrics::poller as declared;
use crate::metrics::{Count, Histogram, NO_LABELS, Page, Process, Words};

/// What is counted for the whole poller.
pub(super) struct Counts {
    process: Arc<Process>,
    rounds: Count,
    last_round: Mutex<Option<Instant>>,
    writes: Words,
    evidence: Arc<EvidenceCounts>,
    targets: Mutex<BTreeMap<BackendName, Arc<TargetCounts>>>,
}

/// What is counted of one target.
pub(super) struct TargetCounts {
    pings: Words,
    ping_times: Histogram,
    transitions: Words,
    /// One of [`STATES`].
    state: Mutex<Option<&'static str>>,
}

/// What came of asking proxies.
#[derive(Default)]
pub(super) struct EvidenceCounts(Mutex<BTreeMap<Address, Words>>);

/// What a target is in when it is not pinged.
const MAINTENANCE: &str = "maint";
const STATES: [&str; 4] = [
    Word::Up.name(),
    Word::Busy.name(),
    Word::Down.name(),
    MAINTENANCE,
];

/// Results of pings that are no failures of one.
const GOOD: &str = "good";
const INCONCLUSIVE: &str = "inconclusive";
const SKIPPED: &str = "skipped";
const HUNG: &str = "hung";

impl Counts {
    pub fn new(process: Arc<Process>) -> Self {
        Self {
            process,
            rounds: Count::default(),
            last_round: Mutex::default(),
            writes: Words::new(Written::NAMES),
            evidence: Arc::default(),
            targets: Mutex::default(),
        }
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn evidence(&self) -> &Arc<EvidenceCounts> {
        &self.evidence
    }

    pub fn round_over(&self) {
        self.rounds.add();
        *self.last_round.lock() = Some(Instant::now());
    }

    pub fn wrote(&self, outcome: Written) {
        self.writes.add(outcome.name());
    }

    /// The counts of a target; new ones if there were none.
    pub fn target(&self, name: &BackendName) -> Arc<TargetCounts> {
        let mut targets = self.targets.lock();
        let counts = targets.entry(name.clone());
        counts.or_default().clone()
    }

    /// Forgets those of a target that is there no more.
    pub fn forget(&self, name: &BackendName) {
        self.targets.lock().remove(name);
    }

    /// Every metric, as it is now.
    ///
    /// # Errors
    /// When the page can't be written to.
    pub fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        page.metric(&declared::ROUNDS)?
            .count(&NO_LABELS, self.rounds.get())?;
        let mut family = page.metric(&declared::ROUND_AGE)?;
        if let Some(last) = *self.last_round.lock() {
            family.gauge(&NO_LABELS, last.elapsed().as_secs_f64())?;
        }
        let mut family = page.metric(&declared::WRITES)?;
        for (result, count) in self.writes.each() {
            family.count(&[("result", result)], count)?;
        }
        self.evidence.write(page)?;
        let targets = self.targets.lock().clone();
        write_pings(page, &targets)?;
        write_verdicts(page, &targets)?;
        self.process.write(page)
    }
}

impl Default for TargetCounts {
    fn default() -> Self {
        let others = [GOOD, INCONCLUSIVE, SKIPPED, HUNG];
        Self {
            pings: Words::new(others.into_iter().chain(PingFailure::NAMES)),
            ping_times: Histogram::default(),
            transitions: Words::new([Word::Up.name(), Word::Down.name()]),
            state: Mutex::default(),
        }
    }
}

impl TargetCounts {
    /// Counts a look and what it has come to.
    pub fn looked(&self, look: &Look, judgement: &Judgement) {
        self.pings.add(match &look.reading {
            Reading::Well(_) => GOOD,
            Reading::Bad(failure) => failure.name(),
            Reading::Hung(..) => HUNG,
            Reading::Inconclusive(_) if look.was_pinged => INCONCLUSIVE,
            Reading::Inconclusive(_) => SKIPPED,
        });
        if look.was_pinged {
            self.ping_times.observe(look.ended - look.begun);
        }
        if judgement.is_news {
            self.transitions.add(judgement.verdict.name());
        }
        *self.state.lock() = Some(judgement.verdict.name());
    }

    /// It is not pinged.
    pub fn maintained(&self) {
        *self.state.lock() = Some(MAINTENANCE);
    }
}

impl EvidenceCounts {
    /// Counts an answer, or that there was none.
    pub fn asked(&self, proxy: &Address, was_read: bool) {
        let mut sources = self.0.lock();
        let counts = sources.entry(proxy.clone());
        let counts = counts.or_insert_with(|| Words::new(["read", "failed"]));
        counts.add(if was_read { "read" } else { "failed" });
    }

    /// Forgets those that are not asked any more.
    pub fn retain(&self, proxies: &[Address]) {
        self.0.lock().retain(|proxy, _| proxies.contains(proxy));
    }

    fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        let mut family = page.metric(&declared::EVIDENCE)?;
        for (proxy, counts) in self.0.lock().iter() {
            let proxy = proxy.to_string();
            for (result, count) in counts.each() {
                family.count(&[("proxy", proxy.as_str()), ("result", result)], count)?;
            }
        }
        Ok(())
    }
}

type Targets = BTreeMap<BackendName, Arc<TargetCounts>>;

fn write_pings(page: &mut Page<'_>, targets: &Targets) -> fmt::Result {
    let mut family = page.metric(&declared::PINGS)?;
    for (name, counts) in targets {
        for (result, count) in counts.pings.each().filter(|(_, count)| *count > 0) {
            family.count(&[("backend", name.as_str()), ("result", result)], count)?;
        }
    }
    let mut family = page.metric(&declared::PING_DURATION)?;
    for (name, counts) in targets {
        family.histogram(&[("backend", name.as_str())], &counts.ping_times)?;
    }
    Ok(())
}

fn write_verdicts(page: &mut Page<'_>, targets: &Targets) -> fmt::Result {
    let mut family = page.metric(&declared::STATE)?;
    for (name, counts) in targets {
        let Some(current) = *counts.state.lock() else {
            continue;
        };
        for state in STATES {
            let labels = [("backend", name.as_str()), ("state", state)];
            family.gauge(&labels, u64::from(state == current))?;
        }
    }
    let mut family = page.metric(&declared::TRANSITIONS)?;
    for (name, counts) in targets {
        for (to, count) in counts.transitions.each() {
            family.count(&[("backend", name.as_str()), ("to", to)], count)?;
        }
    }
    Ok(())
}
