//! What one step costs inside the proxy, without a socket: selection, the queue, a report.
//! `cargo bench` runs all of them, `cargo bench -- 'queue/'` those of that name.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark may panic, and this whole binary is one"
)]

mod fixtures;
mod queue;
mod report;
mod selection;

use std::time::Duration;

use criterion::Criterion;

// As the proxy itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // There are many, and they scatter less than one run does from the next.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    selection::benchmarks(&mut criterion);
    queue::benchmarks(&mut criterion);
    report::benchmarks(&mut criterion);
    criterion.final_summary();
}
