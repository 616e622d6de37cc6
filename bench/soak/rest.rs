//! Owns what is looked at while the load rests: that all comes to an end, and what the proxy holds then.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use crate::clients::Clients;
use crate::gate::Gate;
use crate::ledger::Records;
use crate::proxy::{Holdings, Proxy};
use crate::trend;

/// For the last requests to be answered: the longest that the proxy gives one, and some more.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// For the slots to be free after that: the longest that a backend takes, and some more. Less than `busy_limit`, for
/// no slot may be free only because it was given up.
const FREE_LIMIT: Duration = Duration::from_secs(6);

/// For idle connections to backends to be closed, and tasks to end.
const SETTLE: Duration = Duration::from_secs(2);

/// So many rests come before everything has warmed up: of a minute's soak each round is only 15 s.
const WARM_UP: usize = 1;

/// What may be between a rest and the first one that counts: allocators and thread pools breathe.
const MEMORY_MARGIN: f64 = 0.15;
const MEMORY_MARGIN_KIB: f64 = 8.0 * 1024.0;
const DESCRIPTORS_MARGIN: f64 = 4.0;
const THREADS_MARGIN: f64 = 4.0;
/// Each backend that is out has a task that tries it.
const TASKS_MARGIN: f64 = 12.0;

/// Something that is held, and by how much it may grow.
struct Held {
    name: &'static str,
    value: fn(&Rest) -> f64,
    margin: fn(f64) -> f64,
}

const HELD: [Held; 4] = [
    Held {
        name: "memory (KiB)",
        value: |rest| rest.holdings.memory_kib,
        margin: |first| first * MEMORY_MARGIN + MEMORY_MARGIN_KIB,
    },
    Held {
        name: "descriptors but for clients",
        value: |rest| rest.holdings.descriptors - rest.connections,
        margin: |_| DESCRIPTORS_MARGIN,
    },
    Held {
        name: "threads",
        value: |rest| rest.holdings.threads,
        margin: |_| THREADS_MARGIN,
    },
    Held {
        name: "tasks but for clients",
        value: |rest| rest.holdings.tasks - rest.connections,
        margin: |_| TASKS_MARGIN,
    },
];

/// What was seen at a rest.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// How long it took until the last request was answered.
    pub answered_after: Duration,
    /// And from then until every slot was free.
    pub free_after: Duration,
    pub holdings: Holdings,
    /// Of the clients.
    pub connections: f64,
}

/// Waits until all is still. What is not in time is added to `failures`.
pub async fn rest(
    proxy: &Proxy,
    clients: &Clients,
    gate: &Gate,
    failures: &mut Vec<String>,
) -> Result<Rest> {
    let begun = Instant::now();
    while gate.busy() > 0 {
        if begun.elapsed() > ANSWER_LIMIT {
            failures.push(format!("{} requests have no end", gate.busy()));
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    let answered = Instant::now();
    loop {
        let taken = proxy.admin.not_free().await?;
        if taken.is_empty() {
            break;
        }
        if answered.elapsed() > FREE_LIMIT {
            failures.extend(taken);
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    let free_after = answered.elapsed();
    sleep(SETTLE).await;
    Ok(Rest {
        answered_after: answered - begun,
        free_after,
        holdings: proxy.holdings().await?,
        connections: clients.connections() as f64,
    })
}

/// What grows.
pub fn growth(rests: &[Rest]) -> Vec<String> {
    let mut found = Vec::new();
    for held in HELD {
        let Some((first, last, rise)) = held.course(rests) else {
            continue;
        };
        let margin = (held.margin)(first);
        if last - first > margin {
            let by = last - first;
            found.push(format!("{} grew by {by}, may be {margin}", held.name));
        }
        if rise > margin {
            found.push(format!("{} rise by {rise:.1}, may be {margin}", held.name));
        }
    }
    found
}

/// A line for each thing that is held.
pub fn table(rests: &[Rest]) -> Vec<String> {
    let line = |held: &Held| {
        let (first, last, rise) = held.course(rests)?;
        let margin = (held.margin)(first);
        Some(format!(
            "{:<28} first {first:>9.0}, last {last:>9.0}, trend {rise:>+9.1} over the run, margin {margin:.0}",
            held.name
        ))
    };
    HELD.iter().filter_map(line).collect()
}

impl Held {
    fn course(&self, rests: &[Rest]) -> Option<(f64, f64, f64)> {
        let values: Vec<f64> = rests.iter().skip(WARM_UP).map(self.value).collect();
        Some((*values.first()?, *values.last()?, trend::rise(&values)))
    }
}

/// What the backends saw that may not be.
pub fn misdeeds(records: &Records, answered_posts: &BTreeSet<String>) -> Vec<String> {
    let met = records.overlaps.iter();
    let mut found: Vec<String> = met.map(|it| format!("overlap: {it}")).collect();
    let twice = records.executed.iter().filter(|(_, times)| **times > 1);
    found.extend(twice.map(|(id, times)| format!("{id} was executed {times} times")));
    let never = answered_posts.iter();
    let never = never.filter(|id| !records.executed.contains_key(*id));
    found.extend(never.map(|id| format!("{id} was answered and never executed")));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_rest(memory_kib: f64, descriptors: f64) -> Rest {
        Rest {
            answered_after: Duration::ZERO,
            free_after: Duration::ZERO,
            connections: 10.0,
            holdings: Holdings {
                memory_kib,
                descriptors,
                threads: 5.0,
                tasks: 12.0,
            },
        }
    }

    #[test]
    fn what_warms_up_or_breathes_does_not_grow() {
        let rests = [9e3, 20e3, 22e3, 19e3, 21e3].map(|memory| at_rest(memory, 40.0));
        assert_eq!(growth(&rests), Vec::<String>::new());
    }

    #[test]
    fn a_leak_is_found_by_its_end_and_by_its_trend() {
        let rests = [40.0, 40.0, 42.0, 44.0, 46.0].map(|descriptors| at_rest(20e3, descriptors));
        assert_eq!(growth(&rests).len(), 2);
        // The last one had luck.
        let rests = [20e3, 20e3, 40e3, 60e3, 80e3, 30e3].map(|memory| at_rest(memory, 40.0));
        assert_eq!(growth(&rests).len(), 1);
    }

    #[test]
    fn what_may_not_be_is_named() {
        let mut records = Records::default();
        records.executed.insert("a".into(), 2);
        records.executed.insert("b".into(), 1);
        records.overlaps.push("c came to d".into());
        let posts = ["b".to_owned(), "e".to_owned()].into();
        assert_eq!(
            misdeeds(&records, &posts),
            [
                "overlap: c came to d",
                "a was executed 2 times",
                "e was answered and never executed"
            ]
        );
    }
}
