//! The queue: the same cost is wanted at 10 and at 5,000 waiting, whatever it goes by. Where there are keys,
//! each that waits has its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Wake, Waker};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use maitred::upstream::{Balance, Lease, QueueParams, Turn, Upstream};

use crate::fixtures::{
    anyone, apply, client, fair_queue, fair_queue_with_classes, look, plain_queue, report, ruling,
    seated, upstream, waiting,
};

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
    /// By place; a place is empty only while its turn is looked at.
    turns: Vec<Option<Turn>>,
    /// Of each place: says that its turn has come.
    wakers: Vec<Waker>,
    called: Arc<AtomicUsize>,
    /// How many clients have come so far.
    clients: usize,
}

/// Notes the place whose turn has come.
struct Call {
    place: usize,
    called: Arc<AtomicUsize>,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.called.store(self.place, Relaxed);
    }
}

impl Hall {
    fn new(queue: QueueParams, length: usize) -> Self {
        let upstream = upstream(Balance::default(), 1, queue);
        apply(&upstream, &ruling(&report(1, 0)));
        let called = Arc::new(AtomicUsize::new(0));
        let waker = |place| {
            let called = called.clone();
            Waker::from(Arc::new(Call { place, called }))
        };
        let mut hall = Self {
            lease: Some(seated(&upstream)),
            upstream,
            turns: Vec::new(),
            wakers: (0..length).map(waker).collect(),
            called,
            clients: 0,
        };
        for place in 0..length {
            let turn = hall.join(place);
            hall.turns.push(Some(turn));
        }
        hall
    }

    /// One more waits.
    fn join(&mut self, place: usize) -> Turn {
        self.clients += 1;
        let ask = match self.upstream.params().queue.fair_by {
            Some(_) => client(&self.upstream, self.clients),
            None => anyone(),
        };
        waiting(&self.upstream, ask, &self.wakers[place])
    }

    fn benchmarks(mut self, group: &mut BenchmarkGroup<'_, WallTime>) {
        let length = self.turns.len();
        group.bench_function(format!("join and leave, {length} waiting"), |bencher| {
            bencher.iter(|| drop(self.join(0)));
        });
        group.bench_function(
            format!("leave from the middle and join, {length} waiting"),
            |bencher| {
                let mut place = 0;
                bencher.iter(|| {
                    // Everywhere, in an order that says nothing.
                    place = (place + 7_919) % length;
                    self.turns[place] = None;
                    self.turns[place] = Some(self.join(place));
                });
            },
        );
        group.bench_function(format!("hand over and join, {length} waiting"), |bencher| {
            bencher.iter(|| self.hand_over());
        });
    }

    /// The slot changes hands, and one more joins.
    fn hand_over(&mut self) {
        self.lease = None;
        let place = self.called.load(Relaxed);
        let called = self.turns[place].take().expect("it was called");
        let lease = look(called, &self.wakers[place]).unwrap_or_else(|_| panic!("not called"));
        self.lease = Some(lease);
        self.turns[place] = Some(self.join(place));
    }
}
