//! The queue alone: who is next, and who makes room.

use super::*;
use crate::upstream::{Key, Priority};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn plain() -> Rules {
    Rules {
        size: 9,
        size_per_key: 9,
        is_fair: false,
        aging: None,
    }
}

#[test]
fn a_lower_ticket_goes_ahead_of_those_who_came_after_it() {
    let mut queue = Queue::new(plain());
    let late = queue.join(&Guest::any(Instant::now()));
    let retried = queue.rejoin(Ticket(3), None);
    queue.call_next("first", None);
    assert_eq!(queue.leave(late), None);
    assert_eq!(queue.leave(retried), Some("first"));
}

#[test]
fn whom_a_backend_failed_leaves_its_slot_to_others() {
    let mut queue = Queue::new(plain());
    let (bad, good) = (BackendIndex(0), BackendIndex(1));
    let failed = queue.rejoin(Ticket(1), Some(bad));
    assert!(!queue.has_taker_for(bad) && queue.has_taker_for(good));
    assert_eq!(queue.call_next_for(bad, "bad", None).map(drop), None);
    let other = queue.rejoin(Ticket(2), None);
    queue.call_next_for(bad, "bad", None);
    assert_eq!(queue.leave(other), Some("bad"));
    let newcomer = queue.join(&Guest::any(Instant::now()));
    assert!(queue.has_taker_for(bad));
    queue.call_next_for(bad, "bad", None);
    assert_eq!(queue.leave(newcomer), Some("bad"));
    let behind = queue.join(&Guest::any(Instant::now()));
    queue.call_next_for(good, "good", None);
    assert_eq!(queue.leave(failed), Some("good"));
    assert_eq!(queue.leave(behind), None);
}

#[test]
fn a_newcomer_has_those_before_it_who_wait_once_more_too() {
    let mut queue = Queue::new(plain());
    let guest = Guest::any(Instant::now());
    queue.join(&guest);
    let ahead = |queue: &Queue<()>| queue.ahead_of(&guest, guest.since).by_urgency;
    assert_eq!(ahead(&queue), 1);
    queue.rejoin(Ticket(1), None);
    queue.rejoin(Ticket(2), None);
    assert_eq!(ahead(&queue), 3);
}

/// A queue and the places in it, with a name each.
struct Hall {
    queue: Queue<()>,
    places: Vec<(&'static str, Place)>,
    begun: Instant,
}

impl Hall {
    fn new(rules: Rules) -> Self {
        Self {
            queue: Queue::new(rules),
            places: Vec::new(),
            begun: Instant::now(),
        }
    }

    fn join(&mut self, names: &[&'static str], key: u64, priority: Priority) {
        for name in names {
            let key = Key(key);
            let since = self.begun;
            let guest = Guest {
                key,
                priority,
                ..Guest::any(since)
            };
            self.places.push((name, self.queue.join(&guest)));
        }
    }

    fn leave(&mut self, name: &str) {
        let place = self.places.iter().position(|(other, _)| *other == name);
        let (_, place) = self.places.remove(place.unwrap());
        self.queue.leave(place);
    }

    /// Calls the next `count` after so many seconds; who they were.
    fn call(&mut self, count: usize, seconds: u64) -> Vec<&'static str> {
        let now = self.begun + Duration::from_secs(seconds);
        (0..count).map(|_| self.call_one(now)).collect()
    }

    fn call_one(&mut self, now: Instant) -> &'static str {
        self.queue.call_next((), Some(now));
        let (queue, mut places) = (&mut self.queue, self.places.iter());
        let called = places.position(|(_, place)| queue.look(*place, Waker::noop()).is_some());
        let (name, place) = self.places.remove(called.unwrap());
        self.queue.leave(place);
        name
    }
}

fn fair() -> Rules {
    Rules {
        is_fair: true,
        ..plain()
    }
}

fn aging() -> Rules {
    Rules {
        aging: Some(Duration::from_secs(10)),
        ..plain()
    }
}

#[test]
fn leaving_and_coming_back_gains_nothing() {
    let mut hall = Hall::new(fair());
    hall.join(&["a1", "a2"], 1, Priority::Normal);
    hall.join(&["b1"], 2, Priority::Normal);
    hall.join(&["c1"], 3, Priority::Normal);
    hall.leave("b1");
    hall.join(&["b2"], 2, Priority::Normal);
    assert_eq!(hall.call(1, 0), ["a1"]);
    // Its line has another, which does not keep it in front.
    assert_eq!(hall.call(3, 0), ["c1", "b2", "a2"]);
}

#[test]
fn a_class_that_is_due_gets_every_second_slot_and_two_take_turns() {
    let mut hall = Hall::new(aging());
    hall.join(&["low1", "low2"], 0, Priority::Low);
    hall.join(&["normal1", "normal2"], 0, Priority::Normal);
    hall.join(
        &["high1", "high2", "high3", "high4", "high5"],
        0,
        Priority::High,
    );
    assert_eq!(hall.call(2, 9), ["high1", "high2"]);
    assert_eq!(
        hall.call(5, 10),
        ["low1", "high3", "normal1", "high4", "low2"]
    );
    assert_eq!(hall.call(2, 10), ["high5", "normal2"]);
}

#[test]
fn nobody_gives_way_to_one_that_is_refused() {
    let mut hall = Hall::new(aging());
    hall.join(&["refused"], 0, Priority::Low);
    hall.queue.call_next((), None);
    hall.leave("refused");
    hall.join(&["low"], 0, Priority::Low);
    hall.join(&["high"], 0, Priority::High);
    assert_eq!(hall.call(2, 10), ["low", "high"]);
}

#[test]
fn the_least_urgent_class_and_in_it_the_longest_line_makes_room() {
    let mut hall = Hall::new(Rules {
        size: 4,
        aging: Some(Duration::from_secs(10)),
        ..fair()
    });
    hall.join(&["a1", "a2", "a3"], 1, Priority::Low);
    hall.join(&["b1"], 2, Priority::Low);
    let room = |hall: &Hall, key, priority| {
        let (key, since) = (Key(key), hall.begun);
        hall.queue.room_for(&Guest {
            key,
            priority,
            ..Guest::any(since)
        })
    };
    let (_, newest) = hall.places[2];
    assert_eq!(room(&hall, 9, Priority::High), Room::Of(newest));
    assert_eq!(room(&hall, 9, Priority::Low), Room::Of(newest));
    assert_eq!(room(&hall, 2, Priority::Low), Room::Of(newest));
    assert_eq!(room(&hall, 1, Priority::Low), Room::Full);
    hall.queue.call(newest, ());
    hall.join(&["b2"], 2, Priority::Low);
    assert_eq!(room(&hall, 2, Priority::Low), Room::Full);
    assert_eq!(room(&hall, 1, Priority::Low), Room::Full);
}

#[derive(Clone, Debug)]
enum Step {
    Join,
    Rejoin(usize),
    Leave(usize),
    Call,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Join),
        1 => any::<usize>().prop_map(Step::Rejoin),
        2 => any::<usize>().prop_map(Step::Leave),
        2 => Just(Step::Call),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// The reference is a sorted map from ticket to (place, called).
    #[test]
    fn behaves_as_a_sorted_map(steps in steps()) {
        let mut queue = Queue::new(plain());
        let guest = Guest::any(Instant::now());
        let mut model: BTreeMap<u64, (Place, bool)> = BTreeMap::new();
        let mut retired: Vec<u64> = Vec::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Join => {
                    model.insert(next, (queue.join(&guest), false));
                    next += 1;
                }
                Step::Rejoin(pick) if !retired.is_empty() => {
                    let ticket = retired.swap_remove(pick % retired.len());
                    model.insert(ticket, (queue.rejoin(Ticket(ticket), None), false));
                }
                Step::Leave(pick) if !model.is_empty() => {
                    let ticket = *model.keys().nth(pick % model.len()).unwrap();
                    let (place, called) = model.remove(&ticket).unwrap();
                    prop_assert_eq!(queue.leave(place), called.then_some(ticket));
                    // Who was never called has nothing to come again with.
                    retired.extend(called.then_some(ticket));
                }
                Step::Call => {
                    let head = model.iter_mut().find(|(_, (_, called))| !called);
                    match head {
                        Some((ticket, (_, called))) => {
                            *called = true;
                            queue.call_next(*ticket, None);
                        }
                        None => prop_assert_eq!(queue.waiting(), 0),
                    }
                }
                Step::Rejoin(_) | Step::Leave(_) => {}
            }
            let waiting = model.values().filter(|(_, called)| !called).count();
            prop_assert_eq!(queue.waiting(), waiting);
        }
    }
}

/// What happens to a queue with priorities.
#[derive(Clone, Copy, Debug)]
enum Event {
    Join(usize),
    Call,
    /// So many seconds pass.
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        5 => (0..3usize).prop_map(Event::Join),
        6 => Just(Event::Call),
        1 => (0..20u64).prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 0..300)
}

proptest! {
    /// While one of `high` waits, at most one slot in a row is for others; while one of another class has
    /// waited for long, at most three are.
    #[test]
    fn no_class_starves_and_what_is_urgent_waits_for_one_other(events in events()) {
        let mut queue = Queue::new(aging());
        let begun = Instant::now();
        let mut now = begun;
        // Of each class: since when they wait, and how many slots in a row were for others.
        let mut waiting: [Vec<(Instant, Place)>; 3] = Default::default();
        let mut passed_over = [0; 3];
        for event in events {
            match event {
                Event::Pass(seconds) => now += Duration::from_secs(seconds),
                Event::Join(class) => {
                    let (_, priority) = Priority::ALL[class];
                    let (key, since) = (Key::default(), now);
                    let place = queue.join(&Guest { key, priority, ..Guest::any(since) });
                    waiting[class].push((now, place));
                }
                Event::Call => {
                    queue.call_next((), Some(now));
                    let mut called = |line: &Vec<(Instant, Place)>| {
                        line.first().is_some_and(|(_, place)| queue.look(*place, Waker::noop()).is_some())
                    };
                    let Some(class) = waiting.iter().position(&mut called) else { continue };
                    for (other, line) in waiting.iter().enumerate() {
                        let since = line.first().map(|(since, _)| *since);
                        let counts = since.is_some_and(|since| {
                            other == 0 || now >= since + Duration::from_secs(10)
                        });
                        let more = passed_over[other] + 1;
                        passed_over[other] = if counts && other != class { more } else { 0 };
                    }
                    let (_, place) = waiting[class].remove(0);
                    queue.leave(place);
                    prop_assert!(passed_over[0] <= 1, "high");
                    prop_assert!(passed_over[1] <= 3 && passed_over[2] <= 3, "{passed_over:?}");
                }
            }
        }
    }
}

/// Who waits when one more comes.
#[derive(Clone, Debug)]
struct Crowd {
    rules: Rules,
    /// Key and class of each.
    waiting: Vec<(u64, usize)>,
    /// How many seconds ago they came, and how many slots were handed over since.
    age: u64,
    handed_over: usize,
    newcomer: (u64, usize),
}

/// The key 6 is a newcomer's only.
fn crowds(is_fair: bool, has_classes: bool) -> impl Strategy<Value = Crowd> {
    let rules = Rules {
        is_fair,
        aging: aging().aging.filter(|_| has_classes),
        ..plain()
    };
    let class = || if has_classes { 0..3usize } else { 1..2 };
    let waiting = prop::collection::vec((0..6u64, class()), 0..60);
    (waiting, 0..20u64, 0..30usize, (0..7u64, class())).prop_map(
        move |(waiting, age, handed_over, newcomer)| Crowd {
            rules,
            waiting,
            age,
            handed_over,
            newcomer,
        },
    )
}

/// How many are said to go before the newcomer, and how many do.
fn said_and_seen(crowd: &Crowd) -> (usize, usize) {
    let begun = Instant::now();
    let now = begun + Duration::from_secs(crowd.age);
    let mut queue = Queue::new(crowd.rules);
    let guest = |(key, class): (u64, usize), since| Guest {
        key: Key(key),
        priority: Priority::ALL[class].1,
        ..Guest::any(since)
    };
    for one in &crowd.waiting {
        queue.join(&guest(*one, begun));
    }
    for _ in 0..crowd.handed_over {
        queue.call_next((), Some(now));
    }
    let newcomer = guest(crowd.newcomer, now);
    let said = queue.ahead_of(&newcomer, now).by_urgency;
    let place = queue.join(&newcomer);
    let called = (0..).find(|_| {
        queue.call_next((), Some(now));
        queue.look(place, Waker::noop()).is_some()
    });
    (said, called.unwrap())
}

proptest! {
    /// Those who go before one of a client that has nobody waiting are known.
    #[test]
    fn a_newcomer_is_told_exactly_how_many_go_before(
        (is_fair, mut crowd) in any::<bool>().prop_flat_map(|is_fair| (Just(is_fair), crowds(is_fair, false))),
    ) {
        if is_fair {
            crowd.newcomer.0 = 6;
        }
        let (said, seen) = said_and_seen(&crowd);
        prop_assert_eq!(said, seen);
    }
}

/// It has one waiting already, and of four lines that are longer half are taken to be ahead of its own.
#[test]
fn half_of_the_longer_lines_are_expected_to_come_first() {
    let mut hall = Hall::new(Rules { size: 99, ..fair() });
    hall.join(&["own"], 1, Priority::Normal);
    for key in 2..6 {
        hall.join(&["one", "another"], key, Priority::Normal);
    }
    let guest = Guest {
        key: Key(1),
        ..Guest::any(hall.begun)
    };
    let ahead = hall.queue.ahead_of(&guest, hall.begun);
    assert_eq!(ahead.by_urgency, 5 + 2);
}

/// A guess, where the order depends on who else becomes due, or on which lines have their turn first.
#[test]
fn most_are_told_within_a_half_how_many_go_before() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    for (is_fair, has_classes) in [(false, true), (true, false), (true, true)] {
        let crowds = crowds(is_fair, has_classes);
        let mut right = 0;
        for _ in 0..2_000 {
            let crowd = crowds.new_tree(&mut runner).unwrap().current();
            let (said, seen) = said_and_seen(&crowd);
            right += usize::from(2 * said.abs_diff(seen) <= seen.max(2));
        }
        assert!(right >= 1_990, "{right} of 2000");
    }
}
