//! Slots, queue and selection together: single facts, and a model that shares no code with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::fixtures::{balanced, first, queue_of, queued, report, rule, upstream, with_priority};
use super::queue::Place;
use super::slots::{Arrival as Answer, Call, Slots};
use super::*;
use queue_model::{AGING, QueueModel, Waiter, queues};

mod queue_model;

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
    let Arrival::Waiting(mut retry) = upstream.arrive(Ask::Again(ticket)) else {
        panic!("the retry was refused");
    };
    drop(lease);
    assert!(look(&mut newcomer).is_pending());
    assert!(look(&mut retry).is_ready());
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
    upstream.eject(BackendIndex(0), "connection_refused");
    assert_eq!(order(&upstream, 2), [1, 1]);
    report(&upstream, &[true, true]);
    assert_eq!(order(&upstream, 2), [1, 1], "the report says nothing new");
    report(&upstream, &[false, true]);
    report(&upstream, &[true, true]);
    assert_eq!(order(&upstream, 2), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn with_every_backend_ejected_requests_wait() {
    let upstream = upstream(&[1], 9);
    upstream.eject(BackendIndex(0), "connection_refused");
    let mut turn = waiting(&upstream);
    assert!(look(&mut turn).is_pending());
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
    lease.backend().count_served(Instant::now());
    report(&upstream, &[false, true]);
    assert!(!upstream.view().backends[0].disagrees, "that was before");
    std::thread::sleep(Duration::from_millis(1));
    lease.backend().count_served(Instant::now());
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

/// What happens to an upstream.
#[derive(Clone, Debug)]
enum Step {
    /// A request of this key and class.
    Arrive(u64, usize),
    Finish(usize),
    Retry(usize),
    Leave(usize),
    Report(Vec<bool>),
    /// The file gives every backend this many slots.
    Slots(Vec<u32>),
    Eject(usize),
    Reinstate(usize),
    /// So many milliseconds pass.
    Pass(u64),
}

const BACKENDS: usize = 4;
const KEYS: u64 = 5;

/// A way to balance, and weights. What they make of a round robin is told by its own tests.
fn ways_to_balance() -> impl Strategy<Value = (Balance, Vec<u32>)> {
    let weights = prop::collection::vec(1..4u32, BACKENDS);
    prop_oneof![
        Just((Balance::RoundRobin, vec![1; BACKENDS])),
        weights.prop_map(|weights| (Balance::LeastRequests, weights)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..KEYS, 0..Priority::ALL.len()).prop_map(|(key, class)| Step::Arrive(key, class)),
        5 => any::<usize>().prop_map(Step::Finish),
        2 => any::<usize>().prop_map(Step::Retry),
        2 => any::<usize>().prop_map(Step::Leave),
        1 => prop::collection::vec(prop::bool::weighted(0.8), BACKENDS).prop_map(Step::Report),
        1 => prop::collection::vec(1..4u32, BACKENDS).prop_map(Step::Slots),
        1 => (0..BACKENDS).prop_map(Step::Eject),
        1 => (0..BACKENDS).prop_map(Step::Reinstate),
        1 => (0..2 * AGING).prop_map(Step::Pass),
    ]
}

/// The reference: everything in plain lists, every rule written out.
struct Model {
    balance: Balance,
    weights: Vec<u32>,
    slots: Vec<u32>,
    healthy: Vec<bool>,
    ejected: Vec<bool>,
    /// The backend whose turn it is.
    turn: usize,
    queue: QueueModel,
    /// Requests in service: (ticket, backend).
    served: Vec<(u64, usize)>,
}

impl Model {
    fn is_eligible(&self, backend: usize) -> bool {
        self.healthy[backend] && !self.ejected[backend]
    }

    fn in_flight(&self, backend: usize) -> u32 {
        self.served.iter().filter(|(_, at)| *at == backend).count() as u32
    }

    fn has_room(&self, backend: usize) -> bool {
        self.in_flight(backend) < self.slots[backend]
    }

    /// The next eligible backend in order, from `from` on.
    fn eligible_from(&self, from: usize) -> Option<usize> {
        let around = (from..BACKENDS).chain(0..from);
        around
            .into_iter()
            .find(|backend| self.is_eligible(*backend))
    }

    fn select(&mut self) -> Option<usize> {
        let around: Vec<_> = (self.turn..BACKENDS).chain(0..self.turn).collect();
        let mut available = around
            .into_iter()
            .filter(|backend| self.is_eligible(*backend) && self.has_room(*backend));
        match self.balance {
            Balance::RoundRobin => {
                let chosen = available.next()?;
                self.turn = self.eligible_from((chosen + 1) % BACKENDS)?;
                Some(chosen)
            }
            Balance::LeastRequests => {
                // The weights have the common multiple 6; of equal ones this finds the first.
                let load = |backend: &usize| self.in_flight(*backend) * 6 / self.weights[*backend];
                let chosen = available.min_by_key(load)?;
                self.turn = (chosen + 1) % BACKENDS;
                Some(chosen)
            }
        }
    }

    /// `now` in milliseconds, as everywhere here.
    fn eligibility_changed(&mut self, now: u64) {
        if self.balance == Balance::RoundRobin {
            self.turn = self.eligible_from(self.turn).unwrap_or(0);
        }
        while !self.queue.tickets().is_empty()
            && let Some(backend) = self.select()
        {
            let next = self.queue.next(now);
            self.served.extend(next.map(|ticket| (ticket, backend)));
        }
        if !self.healthy.contains(&true) {
            self.queue.clear();
        }
    }

    /// A slot of `backend` is free: the first in line gets it, not whoever's turn it is.
    fn freed(&mut self, backend: usize, now: u64) {
        if self.is_eligible(backend) && self.has_room(backend) {
            self.served
                .extend(self.queue.next(now).map(|ticket| (ticket, backend)));
        }
    }

    /// `displaced`: who was seen to be turned away for it, which has to be right.
    fn arrive(&mut self, waiter: Waiter, displaced: Option<u64>) {
        let mut expected = Vec::new();
        if let Some(backend) = self.select() {
            self.served.push((waiter.ticket, backend));
        } else if self.healthy.contains(&true) {
            expected = self.queue.arrive(waiter, displaced);
        }
        assert_eq!(displaced.is_some(), !expected.is_empty());
        assert!(displaced.is_none_or(|ticket| expected.contains(&ticket)));
    }
}

/// A health file with what the model knows.
fn said(model: &Model) -> Vec<u8> {
    let entry = |index: usize| {
        let entry = serde_json::json!({
            "healthy": model.healthy[index],
            "max_in_flight": model.slots[index],
            "weight": model.weights[index],
        });
        (index.to_string(), entry)
    };
    let entries: serde_json::Map<_, _> = (0..BACKENDS).map(entry).collect();
    serde_json::to_vec(&entries).unwrap()
}

/// The real thing, driven without its async shell.
struct Real<'a> {
    slots: &'a mut Slots,
    waiting: BTreeMap<u64, Place>,
    served: Vec<(u64, usize)>,
}

impl Real<'_> {
    /// Returns its ticket, and who was turned away for it.
    fn arrive(&mut self, ask: Ask) -> (u64, Option<u64>) {
        let (ticket, answer) = self.slots.arrive(ask);
        match answer {
            Answer::Seated(index) => self.served.push((ticket.0, index.0)),
            Answer::Waiting(place, _) => drop(self.waiting.insert(ticket.0, place)),
            Answer::Refused(_) => {}
        }
        let refused = self.settle();
        assert!(refused.len() <= 1);
        (ticket.0, refused.first().copied())
    }

    /// Takes note of every call. Returns who was refused.
    fn settle(&mut self) -> Vec<u64> {
        let mut refused = Vec::new();
        for (ticket, place) in std::mem::take(&mut self.waiting) {
            let Some(call) = self.slots.look(place, Waker::noop()) else {
                self.waiting.insert(ticket, place);
                continue;
            };
            self.slots.settle(place);
            match call {
                Call::Seated(index) => self.served.push((ticket, index.0)),
                Call::Refused(_) => refused.push(ticket),
            }
        }
        refused
    }
}

fn sorted(mut served: Vec<(u64, usize)>) -> Vec<(u64, usize)> {
    served.sort_unstable();
    served
}

fn pick<T>(list: &mut Vec<T>, number: usize) -> Option<T> {
    (!list.is_empty()).then(|| list.swap_remove(number % list.len()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Slots are never exceeded, order is kept, nobody is lost and nobody served twice.
    #[test]
    fn slots_and_queue_do_as_the_model_does(
        (balance, weights) in ways_to_balance(),
        slots in prop::collection::vec(1..3u32, BACKENDS),
        queue in queues(),
        steps in prop::collection::vec(step(), 0..150),
    ) {
        let is_fair = queue.fair_by.is_some();
        let has_classes = queue.priority.is_some();
        let upstream = queued(balance, &slots, queue.clone());
        let mut model = Model {
            balance,
            weights,
            slots,
            healthy: vec![true; BACKENDS],
            ejected: vec![false; BACKENDS],
            turn: 0,
            queue: QueueModel::new(queue),
            served: vec![],
        };
        rule(&upstream, &said(&model));
        let (begun, mut passed) = (Instant::now(), 0);
        let (mut waiting, mut served) = (BTreeMap::new(), vec![]);
        for step in steps {
            if let Step::Slots(slots) = &step {
                model.slots.clone_from(slots);
                rule(&upstream, &said(&model));
                // It looks at the clock itself, for which nothing has passed.
                model.eligibility_changed(0);
            }
            if let Step::Report(healthy) = &step {
                for (backend, healthy) in healthy.iter().enumerate() {
                    model.ejected[backend] &= model.healthy[backend] || !healthy;
                }
                model.healthy.clone_from(healthy);
                rule(&upstream, &said(&model));
                model.eligibility_changed(0);
            }
            let now = begun + Duration::from_millis(passed);
            let mut guard = upstream.slots.lock();
            let mut real = Real { slots: &mut guard, waiting, served };
            match step {
                Step::Arrive(key, class) => {
                    let class = if has_classes { class } else { Priority::Normal as usize };
                    let (_, priority) = Priority::ALL[class];
                    let guest = Guest { key: Key(key), priority, since: now };
                    let (ticket, displaced) = real.arrive(Ask::First(guest));
                    let key = if is_fair { key } else { 0 };
                    let waiter = Waiter { ticket, key, class, since: passed, comes_again: false };
                    model.arrive(waiter, displaced);
                }
                Step::Finish(number) | Step::Retry(number) if !model.served.is_empty() => {
                    let (ticket, backend) = model.served.swap_remove(number % model.served.len());
                    real.served.retain(|(other, _)| *other != ticket);
                    real.slots.release(BackendIndex(backend), Some(now));
                    model.freed(backend, passed);
                    if matches!(step, Step::Retry(_)) {
                        real.settle();
                        let (_, displaced) = real.arrive(Ask::Again(Ticket(ticket)));
                        let (class, key) = (0, 0);
                        let waiter = Waiter { ticket, key, class, since: passed, comes_again: true };
                        model.arrive(waiter, displaced);
                    }
                }
                Step::Leave(number) => {
                    if let Some(ticket) = pick(&mut model.queue.tickets(), number) {
                        model.queue.leave(ticket);
                        let place = real.waiting.remove(&ticket).expect("it waits in both");
                        real.slots.leave(place, Some(now));
                    }
                }
                Step::Eject(backend) => {
                    real.slots.eject(BackendIndex(backend), now);
                    model.ejected[backend] = true;
                    model.eligibility_changed(passed);
                }
                Step::Reinstate(backend) => {
                    let ejected_at = real.slots.accounts()[backend].ejected;
                    let index = BackendIndex(backend);
                    real.slots.reinstate(index, ejected_at.unwrap_or(now), now);
                    model.ejected[backend] = false;
                    model.eligibility_changed(passed);
                }
                Step::Pass(time) => passed += time,
                Step::Report(_) | Step::Slots(_) | Step::Finish(_) | Step::Retry(_) => {}
            }
            real.settle();
            real.slots.check();
            (waiting, served) = (real.waiting, real.served);
            drop(guard);
            let tickets: Vec<_> = waiting.keys().copied().collect();
            prop_assert_eq!(tickets, model.queue.tickets());
            prop_assert_eq!(sorted(served.clone()), sorted(model.served.clone()));
        }
    }

    /// While nobody waits, any sequence of requests is spread over the eligible backends to within
    /// one, whoever they are.
    #[test]
    fn the_shares_are_exact(healthy in prop::collection::vec(any::<bool>(), BACKENDS), rounds in 1..50usize) {
        let upstream = upstream(&[1000; BACKENDS], 0);
        report(&upstream, &healthy);
        let eligible: Vec<_> = (0..BACKENDS).filter(|backend| healthy[*backend]).collect();
        prop_assume!(!eligible.is_empty());
        let expected: Vec<_> = eligible.iter().copied().cycle().take(rounds).collect();
        prop_assert_eq!(order(&upstream, rounds), expected);
    }
}
