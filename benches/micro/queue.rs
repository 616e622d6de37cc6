//! The queue: the same cost is wanted at 10 and at 5,000 waiting.

use std::collections::VecDeque;

use criterion::Criterion;
use maitred::upstream::Balance;

use crate::fixtures::{apply, look, report, ruling, seated, upstream, waiting};

pub fn benchmarks(criterion: &mut Criterion) {
    for length in [10, 5_000] {
        let mut group = criterion.benchmark_group("queue");
        let upstream = upstream(Balance::default(), 1);
        apply(&upstream, &ruling(&report(1, 0)));
        let mut lease = Some(seated(&upstream));
        let mut turns: VecDeque<_> = (0..length).map(|_| waiting(&upstream)).collect();
        group.bench_function(format!("join and leave, {length} waiting"), |bencher| {
            bencher.iter(|| drop(waiting(&upstream)));
        });
        group.bench_function(
            format!("leave from the middle and join, {length} waiting"),
            |bencher| {
                bencher.iter(|| {
                    drop(turns.swap_remove_back(length / 2));
                    turns.push_back(waiting(&upstream));
                });
            },
        );
        // The last bench left them in no order.
        turns.clear();
        turns.extend((0..length).map(|_| waiting(&upstream)));
        group.bench_function(format!("hand over and join, {length} waiting"), |bencher| {
            bencher.iter(|| {
                drop(lease.take());
                let head = turns.pop_front().expect("somebody waits");
                lease = Some(look(head).unwrap_or_else(|_| panic!("the head was not called")));
                turns.push_back(waiting(&upstream));
            });
        });
        group.finish();
    }
}
