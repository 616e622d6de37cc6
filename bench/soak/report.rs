//! Owns what is printed at the end.

use anyhow::Result;
use clap::ValueEnum as _;

use crate::Course;
use crate::clients::Clients;
use crate::fault::Fault;
use crate::rest;

/// Of each kind of failure so many are printed as there is use for.
const FAILURES_MAX: usize = 40;

pub fn print(course: &Course, clients: &Clients, seed: u64) -> Result<()> {
    let records = course.farm.records()?;
    let tally = clients.tally();
    println!(
        "seed {seed}, {:.0} s with rests",
        course.begun.elapsed().as_secs_f64()
    );
    println!("\nrequests   sent  answered  broken off after the header  left  failed");
    for (class, counts) in tally.classes() {
        println!(
            "{:<8} {:>6} {:>9} {:>28} {:>5} {:>7}",
            format!("{class:?}").to_lowercase(),
            counts.sent,
            counts.answered,
            counts.broken_off,
            counts.left,
            counts.failed
        );
    }
    println!(
        "p50 {:.1?}, p99 {:.1?}, longest {:.1?}; {} requests reached a backend, {} of them POST, as many different: {}",
        tally.percentile(50),
        tally.percentile(99),
        tally.percentile(100),
        records.begun,
        records.executed.values().sum::<u32>(),
        records.executed.len(),
    );
    println!("\nfaults             times  requests or connections met");
    for fault in Fault::value_variants() {
        let hits = records.hits.get(&fault.name());
        println!(
            "{:<18} {:>5}  {}",
            fault.name(),
            course.farm.episodes(*fault),
            match fault.is_of_process() {
                true => "all of its".into(),
                false => hits.copied().unwrap_or(0).to_string(),
            },
        );
    }
    println!("\nheld at {} rests", course.rests.len());
    for line in rest::table(&course.rests) {
        println!("{line}");
    }
    let slowest = course.rests.iter().map(|rest| rest.free_after).max();
    println!(
        "all slots free after {:.1?} at the longest",
        slowest.unwrap_or_default()
    );
    for failure in course.failures.iter().take(FAILURES_MAX) {
        println!("\nFAILED: {failure}");
    }
    if course.failures.is_empty() {
        println!("\nall as it should be");
    }
    Ok(())
}
