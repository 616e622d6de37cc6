//! Slots, queue and selection together: single facts. A [`model`] has the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::fixtures::{
    balanced, fair_queue_of, first, queue_of, queued, report, rule, upstream, with_priority,
};
use super::*;
use crate::policy::outlier::{Cause, OutlierParams};

mod answers;
mod changes;
mod looks;
mod model;
mod outliers;
mod queue_model;
mod trials;

fn seated(upstream: &Arc<Upstream>) -> Lease {
    match upstream.arrive(first()) {
        Arrival::Seated(lease) => lease,
        Arrival::Waiting(_) => panic!("has to wait"),
        Arrival::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

fn waiting(upstream: &Arc<Upstream>) -> Turn {
    match upstream.arrive(first()) {
        Arrival::Waiting(turn) => turn,
        Arrival::Seated(_) | Arrival::Refused(_) => panic!("need not wait"),
    }
}

fn refuse(upstream: &Arc<Upstream>, index: usize) {
    let (index, cause) = (BackendIndex(index), Cause::ConnectionRefused);
    upstream.eject(index, cause, Duration::ZERO, None);
}

fn look(turn: &mut Turn) -> Poll<Result<Lease, Refusal>> {
    std::pin::Pin::new(turn).poll(&mut Context::from_waker(Waker::noop()))
}

fn order(upstream: &Arc<Upstream>, requests: usize) -> Vec<usize> {
    (0..requests).map(|_| seated(upstream).index().0).collect()
}

#[test]
fn one_after_the_other_in_configuration_order() {
    let upstream = upstream(&[1, 1, 1], 0);
    assert_eq!(order(&upstream, 7), [0, 1, 2, 0, 1, 2, 0]);
    report(&upstream, &[true, false, true]);
    assert_eq!(order(&upstream, 4), [2, 0, 2, 0]);
    report(&upstream, &[true, true, true]);
    assert_eq!(order(&upstream, 4), [2, 0, 1, 2]);
}

#[test]
fn without_the_health_check_nobody_would_be_sick() {
    let upstream = upstream(&[1, 1], 0);
    report(&upstream, &[false, true]);
    assert_eq!(order(&upstream, 3), [1, 1, 1]);
    report(&upstream, &[false]);
    assert!(matches!(
        upstream.arrive(first()),
        Arrival::Refused(Refusal::NoneEligible)
    ));
}

#[test]
fn a_full_queue_refuses_newcomers_but_not_a_retry() {
    let upstream = upstream(&[1], 1);
    let lease = seated(&upstream);
    let ticket = lease.ticket();
    let mut newcomer = waiting(&upstream);
    assert!(matches!(
        upstream.arrive(first()),
        Arrival::Refused(Refusal::QueueFull)
    ));
    let Arrival::Waiting(mut retry) = upstream.arrive(Ask::Again(ticket, None)) else {
        panic!("the retry was refused");
    };
    drop(lease);
    assert!(look(&mut newcomer).is_pending());
    assert!(look(&mut retry).is_ready());
}

/// What is sent again is no request more, and what is refused is none.
#[test]
fn the_budget_goes_by_the_requests_that_had_a_slot() {
    let upstream = upstream(&[1], 1);
    let requests = || upstream.slots.lock().requests();
    let lease = seated(&upstream);
    let (ticket, mut turn) = (lease.ticket(), waiting(&upstream));
    assert!(matches!(upstream.arrive(first()), Arrival::Refused(_)));
    assert_eq!(requests(), 1);
    drop(lease);
    assert!(look(&mut turn).is_ready());
    assert_eq!(requests(), 2);
    let now = Instant::now();
    while upstream.take_retry(now) {}
    for _ in 0..4 {
        drop(upstream.arrive(Ask::Again(ticket, None)));
        assert!(!upstream.take_retry(now));
    }
    for _ in 0..5 {
        drop(seated(&upstream));
    }
    assert!(upstream.take_retry(now) && !upstream.take_retry(now));
}

#[test]
fn a_retry_leaves_the_backend_that_failed_it() {
    for (_, balance) in Balance::ALL {
        for failed in [0, 1, 2].map(BackendIndex) {
            let upstream = balanced(balance, &[2, 2, 2], 9);
            let ticket = seated(&upstream).ticket();
            let again = || upstream.arrive(Ask::Again(ticket, Some(failed)));
            let mut elsewhere = Vec::new();
            let mut turn = loop {
                match again() {
                    Arrival::Seated(lease) => elsewhere.push(lease),
                    Arrival::Waiting(turn) => break turn,
                    Arrival::Refused(refusal) => panic!("{refusal:?}"),
                }
            };
            assert_eq!(elsewhere.len(), 4);
            assert!(elsewhere.iter().all(|lease| lease.index() != failed));
            assert_eq!(seated(&upstream).index(), failed, "for others it is there");
            assert!(look(&mut turn).is_pending());
            upstream.slots.lock().check();
            elsewhere.pop();
            assert!(look(&mut turn).is_ready());
            drop((elsewhere, turn));
            upstream.slots.lock().check();
            let all: Vec<_> = (0..6).map(|_| seated(&upstream)).collect();
            upstream.slots.lock().check();
            let many = |index| all.iter().filter(|lease| lease.index() == index).count();
            assert_eq!([0, 1, 2].map(BackendIndex).map(many), [2, 2, 2]);
        }
    }
}

/// One that both backends' slots are taken from, and that the first one has failed.
fn failed_by_the_first() -> (Arc<Upstream>, Turn, Lease) {
    let upstream = upstream(&[1, 1], 9);
    let (bad, good) = (seated(&upstream), seated(&upstream));
    let again = Ask::Again(bad.ticket(), Some(bad.index()));
    drop(bad);
    let Arrival::Waiting(mut retry) = upstream.arrive(again) else {
        panic!("another has room");
    };
    assert!(look(&mut retry).is_pending());
    (upstream, retry, good)
}

#[test]
fn a_retry_waits_for_another_backend_while_one_is_eligible() {
    let (upstream, mut retry, good) = failed_by_the_first();
    drop(seated(&upstream));
    assert!(look(&mut retry).is_pending(), "that was a slot of the same");
    drop(good);
    let Poll::Ready(Ok(lease)) = look(&mut retry) else {
        panic!("not seated");
    };
    assert_eq!(lease.index(), BackendIndex(1));
}

#[test]
fn a_retry_goes_back_to_the_backend_that_failed_it_once_that_is_the_only_one_left() {
    let (upstream, mut retry, good) = failed_by_the_first();
    report(&upstream, &[true, false]);
    let Poll::Ready(Ok(lease)) = look(&mut retry) else {
        panic!("not seated");
    };
    assert_eq!(lease.index(), BackendIndex(0));
    drop((good, lease));
    let again = Ask::Again(seated(&upstream).ticket(), Some(BackendIndex(0)));
    assert!(matches!(upstream.arrive(again), Arrival::Seated(_)));
}

#[test]
fn a_retry_goes_back_when_the_other_one_is_ejected() {
    let (upstream, mut retry, _good) = failed_by_the_first();
    let (params, cause) = (OutlierParams::default(), Cause::ConnectionRefused);
    let ejected = upstream.slots.lock().eject(
        BackendIndex(1),
        &params,
        (cause, Duration::ZERO),
        Instant::now(),
    );
    assert!(ejected.is_some());
    upstream.slots.lock().check();
    assert!(look(&mut retry).is_ready());
}

/// What becomes of requests that fail and come again.
#[derive(Default)]
struct Comings {
    served: Vec<Lease>,
    waiting: Vec<Turn>,
}

impl Comings {
    fn arrive(&mut self, upstream: &Arc<Upstream>, ask: Ask) {
        match upstream.arrive(ask) {
            Arrival::Seated(lease) => self.served.push(lease),
            Arrival::Waiting(turn) => self.waiting.push(turn),
            Arrival::Refused(_) => {}
        }
    }

    /// Who was called is served.
    fn settle(&mut self) {
        let mut called = Vec::new();
        self.waiting.retain_mut(|turn| match look(turn) {
            Poll::Ready(call) => {
                called.extend(call);
                false
            }
            Poll::Pending => true,
        });
        self.served.extend(called);
    }
}

proptest! {
    /// Requests come, are served, fail and come again, while reports change: nobody waits for a slot that
    /// he would take, none is lost, and in the end everybody is served.
    #[test]
    fn whoever_avoids_a_backend_strands_nobody(
        (_, balance) in prop::sample::select(Balance::ALL.to_vec()),
        slots in prop::collection::vec(1..3u32, 3),
        steps in prop::collection::vec((0..4u8, 0..8usize), 0..150),
    ) {
        let upstream = balanced(balance, &slots, 50);
        let mut comings = Comings::default();
        let mut healthy = [true; 3];
        for (step, number) in steps {
            let some = number % comings.served.len().max(1);
            match step {
                0 => comings.arrive(&upstream, first()),
                1 if !comings.served.is_empty() => drop(comings.served.remove(some)),
                2 if !comings.served.is_empty() => {
                    let lease = comings.served.remove(some);
                    let ask = Ask::Again(lease.ticket(), Some(lease.index()));
                    drop(lease);
                    comings.arrive(&upstream, ask);
                }
                _ => {
                    healthy[number % 3] ^= true;
                    report(&upstream, &healthy);
                }
            }
            comings.settle();
            upstream.slots.lock().check();
        }
        report(&upstream, &[true; 3]);
        for _ in 0..200 {
            comings.settle();
            comings.served.clear();
        }
        upstream.slots.lock().check();
        prop_assert_eq!(comings.waiting.len(), 0);
    }
}

#[test]
fn a_report_that_opens_another_backend_seats_the_retry_there() {
    let upstream = upstream(&[2, 1, 1], 9);
    report(&upstream, &[true, true, false]);
    let (_bad, _good) = (seated(&upstream), seated(&upstream));
    let ticket = seated(&upstream).ticket();
    let Arrival::Waiting(mut retry) = upstream.arrive(Ask::Again(ticket, Some(BackendIndex(0))))
    else {
        panic!("another has room");
    };
    report(&upstream, &[true, true, true]);
    upstream.slots.lock().check();
    let Poll::Ready(Ok(lease)) = look(&mut retry) else {
        panic!("not seated");
    };
    assert_eq!(lease.index(), BackendIndex(2));
}

#[test]
fn a_slot_handed_to_one_who_left_goes_to_the_next() {
    let upstream = upstream(&[1], 9);
    let lease = seated(&upstream);
    let (first, mut second) = (waiting(&upstream), waiting(&upstream));
    drop(lease);
    drop(first);
    assert!(look(&mut second).is_ready());
}

#[test]
fn waiting_requests_move_on_when_a_backend_turns_healthy_and_are_refused_when_all_turn_sick() {
    let upstream = upstream(&[1, 1], 9);
    report(&upstream, &[true, false]);
    let _lease = seated(&upstream);
    let (mut first, mut second) = (waiting(&upstream), waiting(&upstream));
    report(&upstream, &[true, true]);
    let Poll::Ready(Ok(lease)) = look(&mut first) else {
        panic!("not seated");
    };
    assert_eq!(lease.index(), BackendIndex(1));
    report(&upstream, &[false, false]);
    assert!(matches!(
        look(&mut second),
        Poll::Ready(Err(Refusal::NoneEligible))
    ));
}

#[tokio::test(start_paused = true)]
async fn an_ejected_backend_is_skipped_until_the_report_calls_it_healthy_anew() {
    let upstream = upstream(&[1, 1], 9);
    refuse(&upstream, 0);
    assert_eq!(order(&upstream, 2), [1, 1]);
    report(&upstream, &[true, true]);
    assert_eq!(order(&upstream, 2), [1, 1], "the report says nothing new");
    report(&upstream, &[false, true]);
    report(&upstream, &[true, true]);
    assert_eq!(order(&upstream, 2), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn who_was_ejected_anew_is_not_reinstated_for_the_ejection_before() {
    let upstream = upstream(&[1, 1], 9);
    refuse(&upstream, 0);
    let ejection = || upstream.slots.lock().accounts()[0].circuit.ejection();
    let before = ejection().unwrap().number;
    report(&upstream, &[false, true]);
    report(&upstream, &[true, true]);
    refuse(&upstream, 0);
    let anew = ejection();
    let now = Instant::now();
    upstream
        .slots
        .lock()
        .reinstate(BackendIndex(0), before, now);
    assert_eq!(ejection(), anew);
}

#[test]
fn a_slot_that_is_abandoned_twice_counts_once() {
    let upstream = upstream(&[2], 0);
    let lease = seated(&upstream);
    let watch = lease.watch();
    let abandoned = || upstream.view().backends[0].abandoned;
    watch.abandon();
    assert_eq!(abandoned(), 1);
    lease.abandon();
    assert_eq!(abandoned(), 1);
    drop(lease);
    watch.abandon();
    assert_eq!(abandoned(), 0);
}

/// Counts how often somebody is woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn whoever_is_called_is_woken() {
    let upstream = queued(Balance::RoundRobin, &[1], fair_queue_of(3));
    let lease = seated(&upstream);
    let of_key = |key| Guest {
        key: Key(key),
        ..Guest::any(Instant::now())
    };
    let wait = |key| {
        let Arrival::Waiting(mut turn) = upstream.arrive(Ask::First(of_key(key))) else {
            panic!("does not wait");
        };
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        let pinned = std::pin::Pin::new(&mut turn);
        assert!(pinned.poll(&mut Context::from_waker(&waker)).is_pending());
        (turn, bell)
    };
    let ((first, first_bell), (_second, second_bell)) = (wait(1), wait(1));
    let (_newest, newest_bell) = wait(1);
    let (_other, other_bell) = wait(2);
    let rung = [&first_bell, &second_bell, &newest_bell].map(|bell| bell.0.load(Relaxed));
    assert_eq!(rung, [0, 0, 1], "the newest makes room");
    drop(lease);
    assert_eq!(first_bell.0.load(Relaxed), 1, "it is handed the slot");
    drop(first);
    let rung = [&second_bell, &other_bell].map(|bell| bell.0.load(Relaxed));
    assert_eq!(rung, [0, 1], "the next has it from one who left");
}

#[tokio::test(start_paused = true)]
async fn with_every_backend_ejected_requests_wait() {
    let upstream = upstream(&[1], 9);
    refuse(&upstream, 0);
    let mut turn = waiting(&upstream);
    assert!(look(&mut turn).is_pending());
    upstream.count_service(Duration::from_millis(100));
    let next = Guest::any(Instant::now());
    assert_eq!(upstream.expected_wait(&next), None);
    assert_eq!(upstream.least_wait(&next), Some(Duration::from_millis(100)));
    upstream.close();
    assert!(matches!(
        look(&mut turn),
        Poll::Ready(Err(Refusal::Stopping))
    ));
}

/// One with a slot of 100 ms for each of 200 urgent requests.
#[test]
fn what_is_not_urgent_need_not_wait_for_all_that_is() {
    let aging = Duration::from_secs(3);
    let upstream = queued(
        Balance::RoundRobin,
        &[1],
        with_priority(queue_of(999), aging),
    );
    upstream.count_service(Duration::from_millis(100));
    let _lease = seated(&upstream);
    let of = |priority| Guest {
        priority,
        ..Guest::any(Instant::now())
    };
    let turns = (0..200).map(|_| upstream.arrive(Ask::First(of(Priority::High))));
    let _turns: Vec<_> = turns.collect();
    let expected = |priority| upstream.expected_wait(&of(priority)).unwrap().as_secs_f64();
    assert_eq!(expected(Priority::High), 20.0);
    // Once it is due, it is called after one more.
    assert!((expected(Priority::Low) - 3.1).abs() < 1e-6);
    rule(
        &upstream,
        br#"{"0": {"healthy": true, "max_in_flight": 5}}"#,
    );
    assert!((expected(Priority::High) - 196.0 * 0.1 / 5.0).abs() < 1e-6);
}

#[test]
fn slots_raised_by_the_file_go_to_those_who_wait_and_lowered_ones_evict_nobody() {
    let upstream = upstream(&[1], 9);
    let first = seated(&upstream);
    let mut turn = waiting(&upstream);
    rule(
        &upstream,
        br#"{"0": {"healthy": true, "max_in_flight": 2}}"#,
    );
    let Poll::Ready(Ok(second)) = look(&mut turn) else {
        panic!("still waits");
    };
    report(&upstream, &[true]);
    let mut turn = waiting(&upstream);
    drop(first);
    assert!(look(&mut turn).is_pending(), "two were there, one may be");
    drop(second);
    assert!(look(&mut turn).is_ready());
}

#[test]
fn the_file_has_the_last_word_on_weight() {
    let upstream = upstream(&[9, 9], 0);
    rule(
        &upstream,
        br#"{"0": {"healthy": true, "weight": 3}, "1": true}"#,
    );
    assert_eq!(order(&upstream, 8), [0, 1, 0, 0, 0, 1, 0, 0]);
    report(&upstream, &[true, true]);
    assert_eq!(order(&upstream, 4), [0, 1, 0, 1]);
}

#[test]
fn the_least_loaded_gets_the_request_and_abandoned_slots_are_load() {
    let upstream = balanced(Balance::LeastRequests, &[9, 9], 0);
    let [first, second, third, fourth] = [(); 4].map(|()| seated(&upstream));
    let places = [&first, &second, &third, &fourth].map(|lease| lease.index().0);
    assert_eq!(places, [0, 1, 0, 1]);
    first.abandon();
    third.abandon();
    drop(second);
    assert_eq!(order(&upstream, 3), [1, 1, 1], "one request against two");
}

#[test]
fn who_is_drained_finishes_what_it_has_and_gets_nothing_new() {
    let upstream = upstream(&[2, 2], 0);
    let lease = seated(&upstream);
    for state in ["drain", "maint"] {
        let text = format!(r#"{{"0": {{"healthy": true, "state": "{state}"}}, "1": true}}"#);
        rule(&upstream, text.as_bytes());
        assert_eq!(order(&upstream, 3), [1, 1, 1]);
        let view = upstream.view();
        assert_eq!(view.backends[0].in_flight, 1);
        let why_not = view.backends[0].why_not.as_ref().unwrap().to_string();
        assert_eq!(why_not, format!("its state is {state}"));
    }
    drop(lease);
    report(&upstream, &[true, true]);
    assert_eq!(order(&upstream, 2).len(), 2);
}

#[test]
fn a_sick_backend_that_answers_disagrees_with_the_file() {
    let upstream = upstream(&[1, 1], 0);
    let lease = seated(&upstream);
    lease.backend().count_served(Instant::now(), false);
    report(&upstream, &[false, true]);
    assert!(!upstream.view().backends[0].disagrees, "that was before");
    std::thread::sleep(Duration::from_millis(1));
    lease.backend().count_served(Instant::now(), false);
    assert!(upstream.view().backends[0].disagrees);
    report(&upstream, &[true, true]);
    assert!(!upstream.view().backends[0].disagrees);
}

#[test]
fn sixteen_threads_always_find_one_of_ten_in_a_thousand() {
    let upstream = upstream(&[1000; 1000], 0);
    let healthy: Vec<_> = (0..1000).map(|index| index % 100 == 7).collect();
    report(&upstream, &healthy);
    let served: Vec<_> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..500 {
                    served[seated(&upstream).index().0].fetch_add(1, Relaxed);
                }
            });
        }
    });
    for (index, count) in served.iter().enumerate() {
        let expected = if healthy[index] { 800 } else { 0 };
        assert_eq!(count.load(Relaxed), expected, "backend {index}");
    }
}

/// Time per request that is seated and leaves, among so many backends.
fn cost(upstream: &Arc<Upstream>) -> f64 {
    const REQUESTS: u32 = if cfg!(debug_assertions) {
        5_000
    } else {
        200_000
    };
    let begun = Instant::now();
    for _ in 0..REQUESTS {
        drop(seated(upstream));
    }
    begun.elapsed().as_nanos() as f64 / f64::from(REQUESTS)
}

#[test]
#[ignore = "prints a figure; a busy machine or a debug build proves nothing"]
fn selection_costs_the_same_among_ten_thousand() {
    let (few, many) = (upstream(&[1; 3], 0), upstream(&[1; 10_000], 0));
    let mut costs: Vec<_> = (0..9).map(|_| (cost(&few), cost(&many))).collect();
    costs.sort_by(|left, right| (left.1 / left.0).total_cmp(&(right.1 / right.0)));
    let (few, many) = costs[4];
    println!(
        "a slot taken and given back: {few:.0} ns among 3, {many:.0} ns among 10,000 backends, ratio {:.2}",
        many / few
    );
    if cfg!(not(debug_assertions)) {
        assert!(many <= 1.5 * few);
    }
}

proptest! {
    /// While nobody waits, any sequence of requests is spread over the eligible backends to within
    /// one, whoever they are.
    #[test]
    fn the_shares_are_exact(healthy in prop::collection::vec(any::<bool>(), 4), rounds in 1..50usize) {
        let upstream = upstream(&[1000; 4], 0);
        report(&upstream, &healthy);
        let eligible: Vec<_> = (0..4).filter(|backend| healthy[*backend]).collect();
        prop_assume!(!eligible.is_empty());
        let expected: Vec<_> = eligible.iter().copied().cycle().take(rounds).collect();
        prop_assert_eq!(order(&upstream, rounds), expected);
    }
}
