//! Slots, queue and selection against a model that shares no code with them: plain lists, every rule written
//! out. Random things happen to both, and after each they have to agree on who waits and who is served where.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::fixtures::{queued, rule};
use super::super::queue::Place;
use super::super::slots::{Arrival as Answer, Call, Seat, Slots};
use super::super::{
    Ask, BackendIndex, Balance, Guest, Key, Priority, QueueParams, Ticket, Upstream,
};
use super::queue_model::{AGING, QueueModel, Waiter, queues};
use crate::policy::outlier::{Cause, OutlierParams};

/// What happens to an upstream.
#[derive(Clone, Debug)]
enum Step {
    /// A request of this key and class, which may be sent again or not.
    Arrive(u64, usize, bool),
    Finish(usize),
    Retry(usize),
    Leave(usize),
    Report(Vec<bool>),
    /// The file gives every backend this many slots.
    Slots(Vec<u32>),
    Eject(usize),
    /// It has failed too many requests.
    Fail(usize),
    /// Its rest is over, or then the time in which only some requests may be its trial.
    Rest(usize),
    /// Its trial went well, or failed.
    Decide(usize, bool),
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
        8 => (0..KEYS, 0..Priority::ALL.len(), any::<bool>())
            .prop_map(|(key, class, is_repeatable)| Step::Arrive(key, class, is_repeatable)),
        5 => any::<usize>().prop_map(Step::Finish),
        2 => any::<usize>().prop_map(Step::Retry),
        2 => any::<usize>().prop_map(Step::Leave),
        1 => prop::collection::vec(prop::bool::weighted(0.8), BACKENDS).prop_map(Step::Report),
        1 => prop::collection::vec(1..4u32, BACKENDS).prop_map(Step::Slots),
        1 => (0..BACKENDS).prop_map(Step::Eject),
        1 => (0..BACKENDS).prop_map(Step::Fail),
        3 => (0..BACKENDS).prop_map(Step::Rest),
        1 => (0..BACKENDS, any::<bool>()).prop_map(|(backend, well)| Step::Decide(backend, well)),
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
    /// It is out because it refuses: it is not tried with requests.
    refuses: Vec<bool>,
    /// Whose rest is over, and whether anybody's request may be its trial.
    probation: Vec<Option<bool>>,
    /// The ticket of the trial under way.
    trial: Vec<Option<u64>>,
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

    fn put_back(&mut self, backend: usize) {
        self.ejected[backend] = false;
        self.refuses[backend] = false;
        self.end_probation(backend);
    }

    fn end_probation(&mut self, backend: usize) {
        self.probation[backend] = None;
        self.trial[backend] = None;
    }

    /// Who is to have one request, that of somebody whom `may` lets have it, if anybody's will not do.
    fn wanting(&self, may: bool) -> Option<usize> {
        let is_alone = !(0..BACKENDS).any(|backend| self.is_eligible(backend));
        (0..BACKENDS).find(|backend| {
            let takes = self.probation[*backend].is_some_and(|any| any || may || is_alone);
            let is_idle = self.trial[*backend].is_none() && self.has_room(*backend);
            takes && is_idle && self.healthy[*backend]
        })
    }

    fn begin_trial(&mut self, ticket: u64, backend: usize) {
        self.trial[backend] = Some(ticket);
        self.served.push((ticket, backend));
    }

    fn offer_trials(&mut self, now: u64) {
        while !self.queue.tickets().is_empty()
            && let Some(backend) = self.wanting(self.queue.has_repeatable())
        {
            let repeatable = self.queue.next_repeatable();
            let ticket = repeatable.or_else(|| self.queue.next(now));
            self.begin_trial(ticket.expect("somebody waits"), backend);
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
        self.offer_trials(now);
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
        self.offer_trials(now);
    }

    /// `displaced`: who was seen to be turned away for it, which has to be right.
    fn arrive(&mut self, waiter: Waiter, displaced: Option<u64>) {
        let mut expected = Vec::new();
        if let Some(backend) = self.wanting(waiter.is_repeatable) {
            self.begin_trial(waiter.ticket, backend);
        } else if let Some(backend) = self.select() {
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

/// The real thing, driven without its async shell, and the model beside it.
struct Play {
    upstream: Arc<Upstream>,
    model: Model,
    is_fair: bool,
    has_classes: bool,
    begun: Instant,
    /// Since then, in milliseconds.
    passed: u64,
    waiting: BTreeMap<u64, Place>,
    /// (ticket, backend).
    served: Vec<(u64, usize)>,
    /// The numbers of trials, by ticket.
    trials: BTreeMap<u64, u32>,
}

/// A rest is over at once, and anybody's request will do right after.
fn without_rest() -> OutlierParams {
    OutlierParams {
        base_ejection: Duration::ZERO,
        max_ejection: Duration::ZERO,
        max_ejection_percent: 100,
        ..OutlierParams::default()
    }
}

impl Play {
    fn new(balance: Balance, weights: Vec<u32>, slots: Vec<u32>, queue: QueueParams) -> Self {
        let play = Self {
            upstream: queued(balance, &slots, queue.clone()),
            is_fair: queue.fair_by.is_some(),
            has_classes: queue.priority.is_some(),
            model: Model {
                balance,
                weights,
                slots,
                healthy: vec![true; BACKENDS],
                ejected: vec![false; BACKENDS],
                refuses: vec![false; BACKENDS],
                probation: vec![None; BACKENDS],
                trial: vec![None; BACKENDS],
                turn: 0,
                queue: QueueModel::new(queue),
                served: vec![],
            },
            begun: Instant::now(),
            passed: 0,
            waiting: BTreeMap::new(),
            served: vec![],
            trials: BTreeMap::new(),
        };
        rule(&play.upstream, &said(&play.model));
        play
    }

    fn now(&self) -> Instant {
        self.begun + Duration::from_millis(self.passed)
    }

    fn slots<T>(&self, act: impl FnOnce(&mut Slots) -> T) -> T {
        act(&mut self.upstream.slots.lock())
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Arrive(key, class, is_repeatable) => self.arrive_first(key, class, is_repeatable),
            Step::Finish(number) => drop(self.finish(number)),
            Step::Retry(number) => self.retry(number),
            Step::Leave(number) => self.leave(number),
            Step::Report(healthy) => self.report(healthy),
            Step::Slots(slots) => {
                self.model.slots = slots;
                self.rule();
            }
            Step::Eject(backend) => {
                let (params, refused) = (OutlierParams::default(), Cause::ConnectionRefused);
                let (index, cause) = (BackendIndex(backend), (refused, Duration::ZERO));
                self.slots(|slots| slots.eject(index, &params, cause, self.now()));
                if !self.model.refuses[backend] {
                    self.model.end_probation(backend);
                }
                self.model.refuses[backend] = true;
                self.model.ejected[backend] = true;
                self.model.eligibility_changed(self.passed);
            }
            Step::Fail(backend) => self.fail(backend),
            Step::Rest(backend) => self.rest(backend),
            Step::Decide(backend, well) => self.decide(backend, well),
            Step::Reinstate(backend) => self.reinstate(backend),
            Step::Pass(time) => self.passed += time,
        }
        self.settle();
    }

    fn arrive_first(&mut self, key: u64, class: usize, is_repeatable: bool) {
        let normal = Priority::Normal as usize;
        let class = if self.has_classes { class } else { normal };
        let guest = Guest {
            key: Key(key),
            priority: Priority::ALL[class].1,
            is_repeatable,
            since: self.now(),
        };
        let key = if self.is_fair { key } else { 0 };
        self.arrive(Ask::First(guest), |ticket, since| Waiter {
            ticket,
            key,
            class,
            since,
            comes_again: false,
            is_repeatable,
        });
    }

    fn retry(&mut self, number: usize) {
        let Some(ticket) = self.finish(number) else {
            return;
        };
        self.settle();
        self.arrive(Ask::Again(Ticket(ticket), None), |ticket, since| Waiter {
            ticket,
            key: 0,
            class: 0,
            since,
            comes_again: true,
            is_repeatable: false,
        });
    }

    fn arrive(&mut self, ask: Ask, waiter: impl FnOnce(u64, u64) -> Waiter) {
        let (Ticket(ticket), answer) = self.slots(|slots| slots.arrive(ask));
        match answer {
            Answer::Seated(seat) => self.seated(ticket, seat),
            Answer::Waiting(place, _) => drop(self.waiting.insert(ticket, place)),
            Answer::Refused(_) => {}
        }
        let refused = self.settle();
        assert!(refused.len() <= 1);
        let waiter = waiter(ticket, self.passed);
        self.model.arrive(waiter, refused.first().copied());
    }

    fn seated(&mut self, ticket: u64, seat: Seat) {
        self.served.push((ticket, seat.index.0));
        self.trials.extend(seat.trial.map(|trial| (ticket, trial)));
    }

    fn fail(&mut self, backend: usize) {
        let (index, cause) = (
            BackendIndex(backend),
            (Cause::ConsecutiveErrors, Duration::ZERO),
        );
        let now = self.now();
        let ejected = self.slots(|slots| slots.eject(index, &without_rest(), cause, now));
        assert_eq!(ejected.is_some(), self.model.is_eligible(backend));
        if ejected.is_some() {
            self.model.ejected[backend] = true;
            self.model.eligibility_changed(self.passed);
        }
    }

    fn rest(&mut self, backend: usize) {
        let (index, now) = (BackendIndex(backend), self.now());
        self.slots(|slots| {
            let ejection = slots.accounts()[backend].circuit.ejection();
            let ejection = ejection.map_or(0, |ejection| ejection.number);
            slots.tend(index, &without_rest(), ejection, |_, _| false, now)
        });
        if self.model.ejected[backend] && !self.model.refuses[backend] {
            let is_other_well =
                (0..self.model.ejected.len()).any(|one| self.model.is_eligible(one));
            let takes_any = self.model.probation[backend].is_some() || !is_other_well;
            self.model.probation[backend] = Some(takes_any);
        }
        self.model.offer_trials(self.passed);
    }

    fn decide(&mut self, backend: usize, well: bool) {
        let Some(ticket) = self.model.trial[backend] else {
            return;
        };
        let (index, now) = (BackendIndex(backend), self.now());
        let trial = self.trials[&ticket];
        self.slots(|slots| match well {
            true => assert!(slots.trial_went_well(index, trial, now).is_some()),
            false => {
                let trial = (trial, Duration::ZERO);
                let ejection = slots.trial_failed(index, &without_rest(), trial, now);
                assert!(ejection.is_some());
            }
        });
        match well {
            true => self.model.put_back(backend),
            false => self.model.end_probation(backend),
        }
        self.model.eligibility_changed(self.passed);
    }

    /// One of those in service ends; its ticket.
    fn finish(&mut self, number: usize) -> Option<u64> {
        let (ticket, backend) = pick(&mut self.model.served, number)?;
        self.served.retain(|(other, _)| *other != ticket);
        let (index, now) = (BackendIndex(backend), Some(self.now()));
        let trial = self.trials.remove(&ticket);
        self.slots(|slots| {
            if let Some(trial) = trial {
                slots.trial_undecided(index, trial);
            }
            slots.release(index, now)
        });
        if self.model.trial[backend] == Some(ticket) {
            self.model.trial[backend] = None;
        }
        self.model.freed(backend, self.passed);
        Some(ticket)
    }

    fn leave(&mut self, number: usize) {
        if let Some(ticket) = pick(&mut self.model.queue.tickets(), number) {
            self.model.queue.leave(ticket);
            let place = self.waiting.remove(&ticket).expect("it waits in both");
            self.slots(|slots| slots.leave(place, Some(self.now())));
        }
    }

    fn report(&mut self, healthy: Vec<bool>) {
        let model = &mut self.model;
        for (backend, healthy) in healthy.iter().enumerate() {
            if *healthy && !model.healthy[backend] {
                model.put_back(backend);
            }
        }
        model.healthy = healthy;
        self.rule();
    }

    fn rule(&mut self) {
        rule(&self.upstream, &said(&self.model));
        // It looks at the clock itself, for which nothing has passed.
        self.model.eligibility_changed(0);
    }

    fn reinstate(&mut self, backend: usize) {
        let (index, now) = (BackendIndex(backend), self.now());
        self.slots(|slots| {
            let ejection = slots.accounts()[backend].circuit.ejection();
            slots.reinstate(index, ejection.map_or(0, |ejection| ejection.number), now)
        });
        self.model.put_back(backend);
        self.model.eligibility_changed(self.passed);
    }

    /// Takes note of every call. Returns who was refused.
    fn settle(&mut self) -> Vec<u64> {
        let mut slots = self.upstream.slots.lock();
        let mut refused = Vec::new();
        self.waiting.retain(|ticket, place| {
            let Some(call) = slots.look(*place, Waker::noop()) else {
                return true;
            };
            slots.settle(*place);
            match call {
                Call::Seated(seat) => {
                    self.served.push((*ticket, seat.index.0));
                    self.trials.extend(seat.trial.map(|trial| (*ticket, trial)));
                }
                Call::Refused(_) => refused.push(*ticket),
            }
            false
        });
        refused
    }

    fn check(&self) {
        self.slots(|slots| slots.check());
        let tickets: Vec<_> = self.waiting.keys().copied().collect();
        assert_eq!(tickets, self.model.queue.tickets(), "who waits");
        let served = [&self.served, &self.model.served].map(|served| {
            let mut served = served.clone();
            served.sort_unstable();
            served
        });
        assert_eq!(served[0], served[1], "who is served where");
    }
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
        let mut play = Play::new(balance, weights, slots, queue);
        for step in steps {
            play.step(step);
            play.check();
        }
    }
}
