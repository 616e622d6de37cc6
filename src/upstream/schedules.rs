//! The slots under a model checker: `shuttle` runs the same few threads under many schedules, chosen
//! at random around every lock, and finds what an unlucky one would break.
//!
//! `cargo test --features shuttle --lib shuttle_`

use std::sync::Arc;
use std::time::{Duration, Instant};

use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use shuttle::thread;

use super::fixtures::{balanced, fair_queue_of, first, queued, report, upstream};
use super::{
    Arrival, Ask, BackendIndex, Balance, Guest, Key, Lease, Refusal, Turn, Upstream, wake,
};
use crate::policy::outlier::{Cause, OutlierParams};

const SCHEDULES: usize = 20_000;

/// Counts who is in service where, as a backend would.
struct Counters {
    slots: Vec<usize>,
    in_service: Vec<AtomicUsize>,
}

impl Counters {
    fn new(slots: &[u32]) -> Arc<Self> {
        Arc::new(Self {
            slots: slots.iter().map(|slots| *slots as usize).collect(),
            in_service: slots.iter().map(|_| AtomicUsize::new(0)).collect(),
        })
    }

    fn serve(&self, lease: Lease) {
        let BackendIndex(index) = lease.index();
        let before = self.in_service[index].fetch_add(1, SeqCst);
        assert!(before < self.slots[index], "two at once");
        thread::yield_now();
        self.in_service[index].fetch_sub(1, SeqCst);
    }
}

fn arrive(upstream: &Arc<Upstream>) -> Result<Lease, Turn> {
    match upstream.arrive(first()) {
        Arrival::Seated(lease) => Ok(lease),
        Arrival::Waiting(turn) => Err(turn),
        Arrival::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

/// Waits for its turn if need be.
fn seat(upstream: &Arc<Upstream>, ask: Ask) -> Result<Lease, Refusal> {
    match upstream.arrive(ask) {
        Arrival::Seated(lease) => Ok(lease),
        Arrival::Waiting(turn) => block_on(turn),
        Arrival::Refused(refusal) => Err(refusal),
    }
}

fn all_free(upstream: &Upstream) {
    upstream.slots.lock().check();
    assert_eq!(upstream.waiting(), 0);
    assert!(
        upstream
            .view()
            .backends
            .iter()
            .all(|backend| backend.in_flight == 0)
    );
}

/// Some wait to the end, some give up at any moment: nobody is stranded, no slot is lost.
#[test]
fn shuttle_everyone_who_stays_is_served() {
    shuttle::check_random(
        || {
            let (upstream, counters) = (upstream(&[1], 9), Counters::new(&[1]));
            let threads: Vec<_> = (0..4)
                .map(|number| {
                    let (upstream, counters) = (upstream.clone(), counters.clone());
                    thread::spawn(move || match arrive(&upstream) {
                        Ok(lease) => counters.serve(lease),
                        Err(turn) if number % 2 == 0 => match block_on(turn) {
                            Ok(lease) => counters.serve(lease),
                            Err(refusal) => panic!("refused: {refusal:?}"),
                        },
                        Err(turn) => drop(turn),
                    })
                })
                .collect();
            threads
                .into_iter()
                .for_each(|thread| thread.join().expect("no thread panics"));
            all_free(&upstream);
        },
        SCHEDULES,
    );
}

/// A backend turns sick and healthy again while requests come and go.
#[test]
fn shuttle_health_changes_strand_nobody() {
    for (_, balance) in Balance::ALL {
        health_changes_strand_nobody(balance);
    }
}

fn health_changes_strand_nobody(balance: Balance) {
    shuttle::check_random(
        move || {
            let slots = [1, 2];
            let (upstream, counters) = (balanced(balance, &slots, 9), Counters::new(&slots));
            let mut threads: Vec<_> = (0..3)
                .map(|_| {
                    let (upstream, counters) = (upstream.clone(), counters.clone());
                    thread::spawn(move || match arrive(&upstream).or_else(block_on) {
                        Ok(lease) => counters.serve(lease),
                        Err(refusal) => panic!("refused: {refusal:?}"),
                    })
                })
                .collect();
            let flipped = upstream.clone();
            threads.push(thread::spawn(move || {
                report(&flipped, &[false, true]);
                report(&flipped, &[true, true]);
            }));
            threads
                .into_iter()
                .for_each(|thread| thread.join().expect("no thread panics"));
            all_free(&upstream);
        },
        SCHEDULES,
    );
}

/// The process stops while requests come: each is served or told so.
#[test]
fn shuttle_stopping_tells_everyone() {
    shuttle::check_random(
        || {
            let (upstream, counters) = (upstream(&[1], 9), Counters::new(&[1]));
            let mut threads: Vec<_> = (0..3)
                .map(|_| {
                    let (upstream, counters) = (upstream.clone(), counters.clone());
                    thread::spawn(move || match seat(&upstream, first()) {
                        Ok(lease) => counters.serve(lease),
                        Err(refusal) => assert_eq!(refusal, Refusal::Stopping),
                    })
                })
                .collect();
            let closing = upstream.clone();
            threads.push(thread::spawn(move || closing.close()));
            threads
                .into_iter()
                .for_each(|thread| thread.join().expect("no thread panics"));
            all_free(&upstream);
        },
        SCHEDULES,
    );
}

/// In a full hall one client's requests make room for another's, while slots change hands: each is served
/// or told so.
#[test]
fn shuttle_who_makes_room_is_told() {
    shuttle::check_random(
        || {
            let upstream = queued(Balance::RoundRobin, &[1], fair_queue_of(2));
            let counters = Counters::new(&[1]);
            let threads = [1, 1, 1, 2].map(|key| {
                let (upstream, counters) = (upstream.clone(), counters.clone());
                let mut guest = Guest::any(Instant::now());
                guest.key = Key(key);
                thread::spawn(move || match seat(&upstream, Ask::First(guest)) {
                    Ok(lease) => counters.serve(lease),
                    Err(refusal) => assert_eq!(refusal, Refusal::QueueFull),
                })
            });
            threads
                .into_iter()
                .for_each(|thread| thread.join().expect("no thread panics"));
            all_free(&upstream);
        },
        SCHEDULES,
    );
}

/// One of two is taken out for its errors, and on probation at once; whoever is its trial brings it back or not.
/// Nobody is stranded, and there is one trial at a time.
#[test]
fn shuttle_trials_strand_nobody() {
    let params = OutlierParams {
        base_ejection: Duration::ZERO,
        max_ejection: Duration::ZERO,
        ..OutlierParams::default()
    };
    shuttle::check_random(
        move || {
            let slots = [2, 1];
            let (upstream, counters) = (upstream(&slots, 9), Counters::new(&slots));
            let mut threads: Vec<_> = (0..4)
                .map(|number| {
                    let (upstream, counters) = (upstream.clone(), counters.clone());
                    let guest = Guest {
                        is_repeatable: number != 0,
                        ..Guest::any(Instant::now())
                    };
                    thread::spawn(move || {
                        let lease = seat(&upstream, Ask::First(guest)).expect("nobody is refused");
                        if number % 2 == 0 {
                            lease.went_well();
                        }
                        counters.serve(lease);
                    })
                })
                .collect();
            let (sick, params) = (upstream.clone(), params.clone());
            threads.push(thread::spawn(move || {
                let (index, now) = (BackendIndex(0), Instant::now());
                let cause = (Cause::ConsecutiveErrors, Duration::ZERO);
                let ejected = sick.slots.lock().eject(index, &params, cause, now);
                let (ejection, wakers) = ejected.expect("one of two may be out");
                wake(wakers);
                let number = ejection.number;
                let tended = sick
                    .slots
                    .lock()
                    .tend(index, &params, number, |_, _| false, now);
                wake(tended.1);
            }));
            threads
                .into_iter()
                .for_each(|thread| thread.join().expect("no thread panics"));
            all_free(&upstream);
        },
        SCHEDULES,
    );
}
