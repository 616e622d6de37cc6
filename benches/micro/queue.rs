//! The queue: the same cost is wanted at 10 and at 5,000 waiting, whatever it goes by. Where there are keys,
//! each that waits has its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use maitred::upstream::{Ask, Balance, Guest, Lease, Priority, QueueParams, Turn, Upstream};

use crate::fixtures::{
    apply, fair_queue, fair_queue_with_classes, look, plain_queue, report, ruling, seated,
    upstream, waiting,
};

const CLASSES: usize = Priority::ALL.len();

pub fn benchmarks(criterion: &mut Criterion) {
    for (name, queue) in [
        ("queue", plain_queue()),
        ("queue, a key each", fair_queue()),
        ("queue, a key each and classes", fair_queue_with_classes()),
    ] {
        for length in [10, 5_000] {
            let mut group = criterion.benchmark_group(name);
            Hall::new(queue.clone(), length).benchmarks(&mut group);
            group.finish();
        }
    }
}

/// A backend with one slot, and who waits for it.
struct Hall {
    upstream: Arc<Upstream>,
    lease: Option<Lease>,
    length: usize,
    /// Of each class, in the order in which they came.
    turns: [VecDeque<Turn>; CLASSES],
    /// How many clients have come so far.
    clients: usize,
    begun: Instant,
}

impl Hall {
    fn new(queue: QueueParams, length: usize) -> Self {
        let upstream = upstream(Balance::default(), 1, queue);
        apply(&upstream, &ruling(&report(1, 0)));
        let mut hall = Self {
            lease: Some(seated(&upstream, Instant::now())),
            upstream,
            length,
            turns: Default::default(),
            clients: 0,
            begun: Instant::now(),
        };
        hall.fill();
        hall
    }

    fn fill(&mut self) {
        self.turns.iter_mut().for_each(VecDeque::clear);
        for _ in 0..self.length {
            let class = self.next_class();
            self.join(class);
        }
    }

    /// Every class in turn, where there are any.
    fn next_class(&self) -> usize {
        match self.upstream.params().queue.priority {
            Some(_) => self.clients % CLASSES,
            None => Priority::Normal as usize,
        }
    }

    /// One more waits.
    fn come(&mut self, class: usize) -> Turn {
        self.clients += 1;
        let mut guest = Guest::any(self.begun);
        guest.priority = Priority::ALL[class].1;
        if self.upstream.params().queue.fair_by.is_some() {
            guest.key = self.upstream.keys().of_header(&self.clients.to_ne_bytes());
        }
        waiting(&self.upstream, Ask::First(guest))
    }

    fn join(&mut self, class: usize) {
        let turn = self.come(class);
        self.turns[class].push_back(turn);
    }

    fn benchmarks(mut self, group: &mut BenchmarkGroup<'_, WallTime>) {
        let length = self.length;
        group.bench_function(format!("join and leave, {length} waiting"), |bencher| {
            bencher.iter(|| drop(self.come(self.next_class())));
        });
        group.bench_function(
            format!("leave from the middle and join, {length} waiting"),
            |bencher| {
                bencher.iter(|| {
                    let class = self.next_class();
                    let middle = self.turns[class].len() / 2;
                    drop(self.turns[class].swap_remove_back(middle));
                    self.join(class);
                });
            },
        );
        // The last bench left them in no order.
        self.fill();
        group.bench_function(format!("hand over and join, {length} waiting"), |bencher| {
            bencher.iter(|| self.hand_over());
        });
    }

    /// The slot changes hands, and another of the same class joins.
    fn hand_over(&mut self) {
        self.lease = None;
        for class in 0..CLASSES {
            let Some(eldest) = self.turns[class].pop_front() else {
                continue;
            };
            match look(eldest) {
                Err(eldest) => self.turns[class].push_front(eldest),
                Ok(lease) => {
                    self.lease = Some(lease);
                    self.join(class);
                    return;
                }
            }
        }
    }
}
