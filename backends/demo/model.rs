//! All that is shown, as plain data: counted and remembered here, drawn elsewhere.
//!
//! It knows no clock. Moments are handed in as the time since the demo began.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use crate::children::Condition;
use crate::load::{Answer, Answered};
use crate::news;
use crate::ports::{Ports, SERVERS};
use crate::status::{Backend, Status};

/// Rates, latencies and shares are those of this long.
pub const RECENT: Duration = Duration::from_secs(5);
/// Far more than three servers can answer in that time.
const RECENT_ANSWERS_MAX: usize = 10_000;
/// More than a screen shows.
const EVENTS_MAX: usize = 200;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Duration,
    /// What.
    pub what: String,
}

/// What became of all requests of the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answered 200.
    pub served: u64,
    /// Answered 504.
    pub timed_out: u64,
    /// Answered 503.
    pub refused: u64,
    /// Answered otherwise, or not at all.
    pub failed: u64,
}

/// The state of the demo.
pub struct Model {
    /// Who listens where.
    pub ports: Ports,
    /// The file to edit.
    pub health_file: PathBuf,
    /// How many ask at once.
    pub clients: usize,
    /// How the servers' processes are, in the order of [`SERVERS`].
    pub servers: [Condition; 3],
    /// How the poller's process is.
    pub poller: Condition,
    /// What the proxy said last, if it answers.
    pub status: Option<Status>,
    /// Of all requests so far.
    pub tally: Tally,
    /// The oldest first; how many came before them.
    events: VecDeque<Event>,
    events_dropped: usize,
    /// The 200s of the last seconds: when they came, and how long they took.
    recent: VecDeque<(Duration, Duration)>,
    /// What each server had served, at the looks of the last seconds.
    served: VecDeque<(Duration, [u64; 3])>,
}

impl Model {
    /// The beginning.
    pub fn new(ports: Ports, health_file: PathBuf) -> Self {
        Self {
            ports,
            health_file,
            clients: 0,
            servers: [Condition::Ended; 3],
            poller: Condition::Ended,
            status: None,
            tally: Tally::default(),
            events: VecDeque::new(),
            events_dropped: 0,
            recent: VecDeque::new(),
            served: VecDeque::new(),
        }
    }

    /// Counts a request that is over.
    pub fn count(&mut self, now: Duration, answered: Answered) {
        match answered.answer {
            Answer::Served => {
                self.tally.served += 1;
                self.recent.push_back((now, answered.took));
                if self.recent.len() > RECENT_ANSWERS_MAX {
                    self.recent.pop_front();
                }
            }
            Answer::TimedOut => self.tally.timed_out += 1,
            Answer::Refused => self.tally.refused += 1,
            Answer::Failed(why) => {
                self.tally.failed += 1;
                self.note(now, format!("a request failed: {why}"));
            }
        }
    }

    /// Takes note of a look at the proxy.
    pub fn observe(&mut self, now: Duration, status: Option<Status>) {
        for what in news::between(self.status.as_ref(), status.as_ref()) {
            self.note(now, what);
        }
        if let Some(status) = &status {
            let served = SERVERS.map(|name| {
                status
                    .upstream
                    .backends
                    .get(name)
                    .map_or(0, |one| one.served)
            });
            self.served.push_back((now, served));
        }
        self.status = status;
        self.forget(now);
    }

    /// Adds an event.
    pub fn note(&mut self, now: Duration, what: impl Into<String>) {
        self.events.push_back(Event {
            at: now,
            what: what.into(),
        });
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
            self.events_dropped += 1;
        }
    }

    /// Drops what is older than [`RECENT`].
    pub fn forget(&mut self, now: Duration) {
        let begin = now.saturating_sub(RECENT);
        while self.recent.front().is_some_and(|(at, _)| *at < begin) {
            self.recent.pop_front();
        }
        while self.served.front().is_some_and(|(at, _)| *at < begin) {
            self.served.pop_front();
        }
    }

    /// The events, the newest first.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.events.iter().rev()
    }

    /// The events from this number on, the oldest first, and the number of the next one.
    pub fn events_since(&self, number: usize) -> (impl Iterator<Item = &Event>, usize) {
        let seen = number.saturating_sub(self.events_dropped);
        let next = self.events_dropped + self.events.len();
        (self.events.iter().skip(seen), next)
    }

    /// What the proxy says of the server of this index.
    pub fn backend(&self, index: usize) -> Option<&Backend> {
        self.status.as_ref()?.upstream.backends.get(SERVERS[index])
    }

    /// Requests answered per second.
    pub fn rate(&self, now: Duration) -> f64 {
        // One that has just begun has not seen a second yet.
        let time = now.min(RECENT).max(Duration::from_secs(1));
        self.recent.len() as f64 / time.as_secs_f64()
    }

    /// The latencies that half of the recent requests and 99 of 100 did not exceed; `None` if there were none.
    pub fn quantiles(&self) -> Option<(Duration, Duration)> {
        let mut times: Vec<_> = self.recent.iter().map(|(_, took)| *took).collect();
        times.sort_unstable();
        let at =
            |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len() - 1));
        times.first()?;
        Some((*at(0.5)?, *at(0.99)?))
    }

    /// Each server's part of what was served of late, 0 to 1; `None` if nothing was.
    pub fn recent_shares(&self) -> Option<[f64; 3]> {
        let (_, first) = self.served.front()?;
        let (_, last) = self.served.back()?;
        // A proxy that began anew counts from 0.
        shares([0, 1, 2].map(|index| last[index].saturating_sub(first[index])))
    }

    /// The same for all that was served.
    pub fn shares(&self) -> Option<[f64; 3]> {
        shares([0, 1, 2].map(|index| self.backend(index).map_or(0, |backend| backend.served)))
    }

    /// The server that hangs, or else the one that would: the last one that runs.
    pub fn hangs_or_would(&self) -> Option<usize> {
        let hangs = |condition: &Condition| *condition == Condition::Hangs;
        let runs = |condition: &Condition| matches!(condition, Condition::Runs(_));
        let hanging = self.servers.iter().position(hangs);
        hanging.or_else(|| self.servers.iter().rposition(runs))
    }

    /// Whether the proxy says that the server of this index is drained.
    pub fn is_drained(&self, index: usize) -> bool {
        let why_not = self.backend(index).and_then(|one| one.why_not.as_deref());
        why_not.is_some_and(|why_not| why_not.contains("drain"))
    }
}

impl Tally {
    /// All of them.
    pub fn requests(&self) -> u64 {
        self.served + self.timed_out + self.refused + self.failed
    }
}

fn shares(served: [u64; 3]) -> Option<[f64; 3]> {
    let all: u64 = served.iter().sum();
    (all > 0).then(|| served.map(|one| one as f64 / all as f64))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::status::{Report, Upstream};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A look at which the servers had served this much.
    pub fn look(served: [u64; 3]) -> Status {
        let backend = |served| Backend {
            served,
            in_flight: 1,
            max_in_flight: 1,
            ..Backend::default()
        };
        let names = SERVERS.map(str::to_owned);
        Status {
            report: Report {
                state: "ok".to_owned(),
                age_seconds: Some(0.4),
                problem: None,
            },
            upstream: Upstream {
                waiting: 3,
                backends: names.into_iter().zip(served.map(backend)).collect(),
            },
        }
    }

    /// Nothing has happened yet.
    pub fn model() -> Model {
        let file = "/tmp/maitred-AbCdEf/health_status.json";
        let mut model = Model::new(Ports::from_base(None), file.into());
        model.servers = [11, 12, 13].map(Condition::Runs);
        model.poller = Condition::Runs(14);
        model.clients = 6;
        model
    }

    fn served(took: Duration) -> Answered {
        Answered {
            answer: Answer::Served,
            took,
        }
    }

    #[test]
    fn rate_and_latencies_are_those_of_the_last_seconds() {
        let mut model = model();
        for at in 0..10 {
            model.count(seconds(at), served(seconds(at)));
        }
        model.forget(seconds(9));
        assert_eq!(model.rate(seconds(9)), 6.0 / 5.0);
        assert_eq!(model.quantiles(), Some((seconds(7), seconds(9))));
        assert_eq!(model.tally.requests(), 10);
        model.forget(seconds(60));
        assert_eq!((model.rate(seconds(60)), model.quantiles()), (0.0, None));
    }

    #[test]
    fn each_kind_of_answer_is_counted_apart() {
        let mut model = model();
        for answer in [
            Answer::TimedOut,
            Answer::Refused,
            Answer::Failed("502 reset".to_owned()),
        ] {
            let took = seconds(1);
            model.count(seconds(1), Answered { answer, took });
        }
        let tally = model.tally;
        let counted = (tally.served, tally.timed_out, tally.refused, tally.failed);
        assert_eq!(counted, (0, 1, 1, 1));
        let newest = model.events().next().unwrap();
        assert_eq!(newest.what, "a request failed: 502 reset");
        assert_eq!(model.quantiles(), None);
    }

    #[test]
    fn shares_follow_the_last_seconds() {
        let mut model = model();
        assert_eq!(model.recent_shares(), None);
        model.observe(seconds(0), Some(look([100, 0, 0])));
        model.observe(seconds(4), Some(look([110, 10, 20])));
        assert_eq!(model.recent_shares(), Some([0.25, 0.25, 0.5]));
        model.observe(seconds(8), Some(look([110, 20, 20])));
        assert_eq!(model.recent_shares(), Some([0.0, 1.0, 0.0]));
        assert_eq!(model.shares().map(|shares| shares[0] > 0.7), Some(true));
    }

    #[test]
    fn the_oldest_events_are_dropped_and_none_is_told_twice() {
        let mut model = model();
        for number in 0..EVENTS_MAX + 5 {
            model.note(seconds(0), number.to_string());
        }
        let (events, next) = model.events_since(0);
        assert_eq!(events.count(), EVENTS_MAX);
        model.note(seconds(1), "new");
        let (mut events, _) = model.events_since(next);
        assert_eq!(events.next().map(|event| event.what.as_str()), Some("new"));
        assert_eq!(events.next(), None);
        assert_eq!(model.events().next().unwrap().what, "new");
    }

    #[test]
    fn the_last_server_that_runs_is_the_one_to_hang() {
        let mut model = model();
        assert_eq!(model.hangs_or_would(), Some(2));
        model.servers[2] = Condition::Ended;
        assert_eq!(model.hangs_or_would(), Some(1));
        model.servers[0] = Condition::Hangs;
        assert_eq!(model.hangs_or_would(), Some(0));
        model.servers = [Condition::Ended; 3];
        assert_eq!(model.hangs_or_would(), None);
    }
}
