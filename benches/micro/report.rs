//! A new report with 10,000 names, from its text until requests obey it.

use criterion::Criterion;
use maitred::health::Report;
use maitred::upstream::Balance;

use crate::fixtures::{apply, plain_queue, report, ruling, upstream};

const NAMES: usize = 10_000;

pub fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("report");
    let text = report(NAMES, 1);
    group.bench_function(format!("parse, {NAMES} names"), |bencher| {
        bencher.iter(|| Report::parse(&text).unwrap());
    });
    let upstream = upstream(Balance::default(), NAMES, plain_queue());
    let rulings = [ruling(&report(NAMES, 0)), ruling(&text)];
    let mut next = rulings.iter().cycle();
    group.bench_function(format!("apply, one of {NAMES} changed"), |bencher| {
        bencher.iter(|| apply(&upstream, next.next().expect("it goes round")));
    });
    group.finish();
}
