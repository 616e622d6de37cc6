//! A slot taken and given back: the same cost is wanted at 3 and at 10,000 backends, whoever is sick or
//! has no slot left.

use std::time::Instant;

use criterion::Criterion;
use maitred::upstream::Balance;

use crate::fixtures::{apply, plain_queue, report, ruling, seated, upstream};

pub fn benchmarks(criterion: &mut Criterion) {
    for (name, balance) in Balance::ALL {
        for backends in [3, 100, 1_000, 10_000] {
            for percent in [0, 50, 90, 99] {
                out_of_service(criterion, (name, balance), backends, percent);
            }
        }
    }
}

/// One backend at least stays in service, and one is out of it if any is to be.
fn out_of_service(
    criterion: &mut Criterion,
    (name, balance): (&str, Balance),
    backends: usize,
    percent: usize,
) {
    let out = (backends * percent).div_ceil(100).min(backends - 1);
    let begun = Instant::now();
    let mut group = criterion.benchmark_group(format!("selection/{name}"));
    let upstream = upstream(balance, backends, plain_queue());
    apply(&upstream, &ruling(&report(backends, out)));
    group.bench_function(
        format!("{backends} backends, {percent} % sick"),
        |bencher| {
            bencher.iter(|| drop(seated(&upstream, begun)));
        },
    );
    apply(&upstream, &ruling(&report(backends, 0)));
    let _busy: Vec<_> = (0..out).map(|_| seated(&upstream, begun)).collect();
    group.bench_function(
        format!("{backends} backends, {percent} % full"),
        |bencher| {
            bencher.iter(|| drop(seated(&upstream, begun)));
        },
    );
    group.finish();
}
