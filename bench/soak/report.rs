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
    println!("\nfaults             times  met by  broke off after the header");
    for fault in Fault::value_variants() {
        let met = records.hits.get(&fault.name()).map(u64::to_string);
        println!(
            "{:<18} {:>5} {:>7} {:>28}",
            fault.name(),
            course.farm.episodes(*fault),
            // Who meets these is not written down by anybody.
            met.unwrap_or_else(|| if fault.is_of_process() { "" } else { "0" }.into()),
            tally.broken_off.get(fault).copied().unwrap_or(0),
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
