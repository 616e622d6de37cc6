//! Owns what became of the requests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::clients::Class;
use crate::fault::Fault;

/// So many failures are told of; more say nothing new.
const TOLD_MAX: usize = 20;

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 200, and its own answer.
    Answered,
    /// Its own answer broke off after its header, as its backend did with this fault.
    BrokenOff(Fault),
    /// The client went away, as it had planned.
    Left,
    /// There was no answer, or another status.
    Failed(String),
    /// What came is not this request's answer.
    Wrong(String),
}

/// All requests so far.
pub struct Tally {
    begun: Instant,
    classes: BTreeMap<Class, Counts>,
    latencies: Vec<Duration>,
    /// Answers that broke off, by what did it.
    pub broken_off: BTreeMap<Fault, u64>,
    /// The `POST` requests that were answered.
    pub posts: BTreeSet<String>,
    /// What may not be, told in a line each.
    pub failures: Vec<String>,
    pub failed: u64,
}

/// Those of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub sent: u64,
    pub answered: u64,
    pub broken_off: u64,
    pub left: u64,
    pub failed: u64,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
            classes: BTreeMap::new(),
            latencies: Vec::new(),
            broken_off: BTreeMap::new(),
            posts: BTreeSet::new(),
            failures: Vec::new(),
            failed: 0,
        }
    }

    /// Counts a request that is over. `true`: it may not end like this.
    pub fn count(&mut self, class: Class, id: &str, took: Duration, verdict: &Verdict) -> bool {
        let counts = self.classes.entry(class).or_default();
        counts.sent += 1;
        match verdict {
            Verdict::Answered => {
                counts.answered += 1;
                self.latencies.push(took);
                if class == Class::Post {
                    self.posts.insert(id.to_owned());
                }
                return false;
            }
            Verdict::BrokenOff(fault) => {
                counts.broken_off += 1;
                *self.broken_off.entry(*fault).or_default() += 1;
            }
            Verdict::Left => counts.left += 1,
            Verdict::Failed(_) | Verdict::Wrong(_) => counts.failed += 1,
        }
        match verdict {
            Verdict::Failed(_) => class != Class::Post,
            Verdict::Wrong(_) => true,
            _ => false,
        }
    }

    /// Notes what may not be; `why` says more.
    pub fn complain(&mut self, id: &str, took: Duration, verdict: &Verdict, why: &str) {
        self.failed += 1;
        if self.failures.len() < TOLD_MAX {
            let at = self.begun.elapsed().as_secs_f64();
            let told = format!("at {at:.3} s, after {took:.1?}: {id}: {verdict:?}\n{why}");
            self.failures.push(told);
        }
    }

    /// Whether another one would be told of.
    pub fn has_room(&self) -> bool {
        self.failures.len() < TOLD_MAX
    }

    pub fn classes(&self) -> &BTreeMap<Class, Counts> {
        &self.classes
    }

    /// How long those that were answered took, at this percentile.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let index = sorted.len() * percent / 100;
        sorted
            .get(index)
            .or(sorted.last())
            .copied()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_post_may_fail_and_nobody_may_have_the_answer_of_another() {
        let mut tally = Tally::new();
        let failed = Verdict::Failed("status 502".into());
        let wrong = Verdict::Wrong("the answer of x".into());
        let mut count = |class, verdict| tally.count(class, "a", Duration::ZERO, verdict);
        assert!(!count(Class::Post, &failed));
        assert!(count(Class::Get, &failed));
        assert!(count(Class::Post, &wrong));
        assert!(!count(Class::Get, &Verdict::BrokenOff(Fault::Kill)));
        assert!(!count(Class::Post, &Verdict::Answered));
        assert_eq!(tally.posts.len(), 1);
        assert_eq!(tally.classes()[&Class::Post].failed, 2);
    }

    #[test]
    fn percentiles_are_of_those_that_were_answered() {
        let mut tally = Tally::new();
        for millis in 0..200 {
            let took = Duration::from_millis(millis);
            tally.count(Class::Get, "a", took, &Verdict::Answered);
        }
        tally.count(
            Class::Get,
            "a",
            Duration::from_secs(9),
            &Verdict::BrokenOff(Fault::Kill),
        );
        assert_eq!(tally.percentile(50), Duration::from_millis(100));
        assert_eq!(tally.percentile(100), Duration::from_millis(199));
    }
}
