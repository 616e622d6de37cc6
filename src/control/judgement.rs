//! From what is known of the health file to what is in force: its age, how cautious to be, and what
//! the person who reads the log should know.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};

use super::caution::{Caution, CautionParams};
use super::snapshot::{InForce, ReportStatus, Snapshot};
use crate::config::HealthParams;
use crate::health::{FileEvent, Report, Ruling, WhenStale};
use crate::id::{BackendName, UpstreamName};
use crate::upstream::Upstream;

/// How many names a warning names.
const NAMED_MAX: usize = 8;

/// What must be remembered from one event to the next.
pub(super) struct Judgement {
    health: HealthParams,
    cautions: BTreeMap<UpstreamName, Caution>,
    /// Every backend's name.
    known: HashSet<BackendName>,
    /// What the last report says that nobody understands.
    ignored: BTreeSet<String>,
    is_stale: bool,
}

impl Judgement {
    pub fn new(snapshot: &Snapshot) -> Self {
        let upstreams = &snapshot.config.upstreams;
        let backends = upstreams.iter().flat_map(|upstream| &upstream.backends);
        Self {
            health: snapshot.config.health.clone(),
            cautions: upstreams
                .iter()
                .map(|upstream| (upstream.name.clone(), Caution::default()))
                .collect(),
            known: backends.map(|backend| backend.name.clone()).collect(),
            ignored: BTreeSet::new(),
            is_stale: false,
        }
    }

    /// When to look again though nothing was written: the report goes stale, or has been held back
    /// for long enough.
    pub fn due(&self, event: &FileEvent) -> Option<Instant> {
        let stale = self
            .health
            .stale_after
            .filter(|_| !self.is_stale && event.report.is_some());
        let stale = stale.and_then(|stale_after| {
            let left = stale_after.saturating_sub(event.age(event.seen));
            event.seen.checked_add(left)
        });
        let held = self.cautions.values().filter_map(Caution::held_since);
        let held = held.map(|since| since + self.health.confirm_after);
        held.chain(stale).min()
    }

    /// Puts in force what the file means now. What is in force already is not touched.
    pub async fn apply(&mut self, snapshot: &Snapshot, event: &FileEvent) -> ReportStatus {
        let now = Instant::now();
        let ruling = Arc::new(self.rule(event, now));
        let mut has_changed = false;
        for upstream in snapshot.upstreams.values() {
            let in_force = upstream.ruling();
            if in_force.is_same(&ruling) || self.is_held(upstream, &in_force, &ruling, event, now) {
                continue;
            }
            upstream.apply(&ruling).await;
            has_changed = true;
        }
        let in_force = match has_changed {
            true => Some(InForce::since(event, Instant::now(), SystemTime::now())),
            false => snapshot.report.in_force,
        };
        self.warn_of_ignored(event.report.as_deref());
        ReportStatus {
            event: event.clone(),
            is_stale: self.is_stale,
            held: self.held(),
            in_force,
        }
    }

    fn rule(&mut self, event: &FileEvent, now: Instant) -> Ruling {
        let Some(report) = event.report.clone() else {
            return Ruling::missing(self.health.when_missing);
        };
        let age = event.age(now);
        let is_stale = self
            .health
            .stale_after
            .is_some_and(|stale_after| age >= stale_after);
        if is_stale != self.is_stale {
            self.is_stale = is_stale;
            self.log_freshness(age);
        }
        match is_stale {
            true => Ruling::stale(report, self.health.when_stale),
            false => Ruling::fresh(report),
        }
    }

    fn log_freshness(&self, age: Duration) {
        let age_seconds = age.as_secs();
        let path = self.health.file.display();
        match self.health.when_stale {
            _ if !self.is_stale => info!(%path, "health file is fresh again"),
            WhenStale::Keep => {
                warn!(%path, age_seconds, "health file is stale, its report stays in force")
            }
            WhenStale::FailOpen => {
                warn!(%path, age_seconds, "health file is stale, every backend counts as healthy")
            }
            WhenStale::FailClosed => {
                warn!(%path, age_seconds, "health file is stale, no backend counts as healthy")
            }
        }
    }

    /// Whether a new report is not to be believed yet. Only a report is doubted: what the policies for
    /// a stale or missing one say is meant.
    fn is_held(
        &mut self,
        upstream: &Upstream,
        in_force: &Ruling,
        ruling: &Ruling,
        event: &FileEvent,
        now: Instant,
    ) -> bool {
        let name = &upstream.params().name;
        let Some(caution) = self.cautions.get_mut(name) else {
            return false;
        };
        let is_doubtful = self.health.max_flip_percent < 100 && ruling.differs_in_report(in_force);
        let turned = match is_doubtful {
            true => turned_sick(upstream, in_force, ruling),
            false => 0,
        };
        let params = CautionParams {
            max_flip_percent: self.health.max_flip_percent,
            confirm_after: self.health.confirm_after,
        };
        let was_held = caution.held_since().is_some();
        let is_held = caution.holds(params, (turned, upstream.backends().len()), event.seen, now);
        match (was_held, is_held) {
            (false, true) => {
                warn!(upstream = %name, turned, "health file turns too many backends sick at once, held back")
            }
            (true, false) => info!(upstream = %name, "health file is believed again"),
            _ => {}
        }
        is_held
    }

    fn held(&self) -> BTreeMap<UpstreamName, Instant> {
        let held = self.cautions.iter();
        held.filter_map(|(name, caution)| Some((name.clone(), caution.held_since()?)))
            .collect()
    }

    /// One warning per change of what is ignored.
    fn warn_of_ignored(&mut self, report: Option<&Report>) {
        let Some(report) = report else { return };
        let names = report.names().filter(|name| !self.known.contains(*name));
        let names = names.map(|name| format!("{name:?}"));
        let fields = report.unknown_fields().map(|field| format!("{field:?}"));
        let ignored: BTreeSet<_> = names.chain(fields).collect();
        if ignored != self.ignored && !ignored.is_empty() {
            let some: Vec<_> = ignored.iter().take(NAMED_MAX).map(String::as_str).collect();
            let (names, count) = (some.join(", "), ignored.len());
            warn!(path = %self.health.file.display(), count, names, "health file says what nobody asked for");
        }
        self.ignored = ignored;
    }
}

/// How many backends that are healthy by the one ruling are sick by the other.
fn turned_sick(upstream: &Upstream, old: &Ruling, new: &Ruling) -> usize {
    let is_turned = |name: &str| old.is_healthy(name) && !new.is_healthy(name);
    let names = upstream
        .backends()
        .iter()
        .map(|backend| backend.name().as_str());
    names.filter(|name| is_turned(name)).count()
}
