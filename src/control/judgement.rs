//! From what is known of the health file to what is in force: its age, how cautious to be, and what
//! the person who reads the log should know.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::caution::{Caution, CautionParams};
use super::snapshot::{InForce, ReportStatus, Snapshot};
use crate::config::HealthParams;
use crate::events::{Event, Events};
use crate::health::{FileEvent, Report, Ruling, WhenStale};
use crate::id::{BackendName, UpstreamName};
use crate::metrics::ProxyCounters;
use crate::upstream::Upstream;

/// How many names a warning names.
const NAMED_MAX: usize = 8;

/// What must be remembered from one event to the next.
pub(super) struct Judgement {
    health: HealthParams,
    /// Of every upstream; empty where nothing is ever doubted.
    cautions: BTreeMap<UpstreamName, Caution>,
    /// Every backend's name.
    known: HashSet<BackendName>,
    /// What the last report says that nobody understands, as a hash.
    ignored: u64,
    is_stale: bool,
    counters: Arc<ProxyCounters>,
    events: Events,
}

impl Judgement {
    pub fn new(snapshot: &Snapshot, counters: Arc<ProxyCounters>, events: Events) -> Self {
        let upstreams = &snapshot.config.upstreams;
        let backends = upstreams.iter().flat_map(|upstream| &upstream.backends);
        let health = snapshot.config.health.clone();
        let params = CautionParams {
            max_flip_percent: health.max_flip_percent,
            confirm_after: health.confirm_after,
        };
        let cautious = upstreams.iter().filter(|_| health.max_flip_percent < 100);
        Self {
            cautions: cautious
                .map(|upstream| (upstream.name.clone(), Caution::new(params)))
                .collect(),
            health,
            known: backends.map(|backend| backend.name.clone()).collect(),
            ignored: nothing_ignored(),
            is_stale: false,
            counters,
            events,
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
        let held = self.cautions.values().filter_map(Caution::due);
        held.chain(stale).min()
    }

    /// Puts in force what the file means now. What is in force already is not touched.
    pub async fn apply(&mut self, snapshot: &Snapshot, event: &FileEvent) -> ReportStatus {
        let now = Instant::now();
        let ruling = self.rule(event, now);
        let shared = Arc::new(ruling.clone());
        let mut has_changed = false;
        for upstream in snapshot.upstreams.values() {
            let doubted = self.doubts(upstream, event, now);
            let ruling = match doubted.is_empty() {
                true => shared.clone(),
                false => Arc::new(ruling.clone().doubting(doubted)),
            };
            if !upstream.ruling().is_same(&ruling) {
                upstream.apply(&ruling).await;
                has_changed = true;
            }
        }
        // What changes because time has passed says nothing of how long that takes.
        let is_news = event.noticed != snapshot.report.event.noticed;
        let in_force = match has_changed && is_news {
            true => Some(self.timed(event)),
            false => snapshot.report.in_force,
        };
        self.tell_of_ignored(event.report.as_deref());
        ReportStatus {
            event: event.clone(),
            is_stale: self.is_stale,
            held: self.held(),
            in_force,
        }
    }

    fn timed(&self, event: &FileEvent) -> InForce {
        let in_force = InForce::since(event, Instant::now(), SystemTime::now());
        let time = in_force.since_change.unwrap_or(in_force.since_notice);
        self.counters.report_in_force.observe(time);
        in_force
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
            self.tell_freshness(age);
        }
        match is_stale {
            true => Ruling::stale(report, self.health.when_stale),
            false => Ruling::fresh(report),
        }
    }

    fn tell_freshness(&self, age: Duration) {
        let path = self.path();
        self.events.publish(match self.is_stale {
            false => Event::ReportFresh { path },
            true => Event::ReportStale {
                path,
                age_seconds: age.as_secs(),
                effect: match self.health.when_stale {
                    WhenStale::Keep => "its report stays in force",
                    WhenStale::FailOpen => "every backend counts as healthy",
                    WhenStale::FailClosed => "no backend counts as healthy",
                },
            },
        });
    }

    fn path(&self) -> String {
        self.health.file.display().to_string()
    }

    /// Whom the report calls sick and this does not believe yet. Only what reports say counts here: what
    /// the policies for a stale or missing one do is meant.
    fn doubts(
        &mut self,
        upstream: &Upstream,
        event: &FileEvent,
        now: Instant,
    ) -> BTreeSet<BackendName> {
        let name = &upstream.params().name;
        let (Some(report), Some(caution)) = (&event.report, self.cautions.get_mut(name)) else {
            return BTreeSet::new();
        };
        let names = upstream.backends().iter().map(|one| one.name().clone());
        let (healthy, sick) = names.partition(|name| {
            let verdict = report.verdict(name.as_str());
            verdict.is_some_and(|verdict| verdict.healthy)
        });
        let was_held = caution.held_since().is_some();
        let doubted = caution.doubts(healthy, &sick, event.seen, now);
        let count = doubted.len();
        let upstream = name.clone();
        match (was_held, count > 0) {
            (false, true) => self
                .events
                .publish(Event::ReportDoubted { upstream, count }),
            (true, false) => self.events.publish(Event::ReportBelieved { upstream }),
            _ => {}
        }
        doubted
    }

    fn held(&self) -> BTreeMap<UpstreamName, Instant> {
        let held = self.cautions.iter();
        held.filter_map(|(name, caution)| Some((name.clone(), caution.held_since()?)))
            .collect()
    }

    /// One event per change of what is ignored.
    fn tell_of_ignored(&mut self, report: Option<&Report>) {
        let Some(report) = report else { return };
        let names = report.names().filter(|name| !self.known.contains(*name));
        let mut hasher = DefaultHasher::new();
        let (mut count, mut shown) = (0_usize, Vec::new());
        for ignored in names.chain(report.unknown_fields()) {
            ignored.hash(&mut hasher);
            count += 1;
            if shown.len() < NAMED_MAX {
                shown.push(format!("{ignored:?}"));
            }
        }
        let ignored = hasher.finish();
        if ignored != self.ignored && count > 0 {
            self.events.publish(Event::ReportIgnored {
                path: self.path(),
                count,
                names: shown.join(", "),
            });
        }
        self.ignored = ignored;
    }
}

fn nothing_ignored() -> u64 {
    DefaultHasher::new().finish()
}
