//! What a look at an upstream shows, and what is noted for an explanation.

use std::collections::BTreeSet;

use super::super::fixtures::{
    decree, fair_queue_of, first, queue_of, queued, report, rule, upstream, with_priority,
};
use super::*;
use crate::health::{Report, Ruling, WhenMissing, WhenStale};
use crate::policy::outlier::Cause;

/// It is taken out, and nobody looks after it.
fn eject(upstream: &Upstream, index: BackendIndex, cause: Cause) {
    let now = Instant::now();
    let params = &upstream.params.outlier;
    let ejected = upstream
        .slots
        .lock()
        .eject(index, params, (cause, Duration::ZERO), now);
    assert!(ejected.is_some());
}

/// Backend by backend: why it is out, in a word.
fn why_not(upstream: &Upstream) -> Vec<&'static str> {
    let word = |backend: &BackendView<'_>| {
        assert_eq!(backend.is_eligible(), backend.why_not.is_none());
        backend.why_not.as_ref().map_or("", Ineligible::name)
    };
    upstream.view().backends.iter().map(word).collect()
}

/// The same of the first backend, for people.
fn told(upstream: &Upstream) -> String {
    let view = upstream.view();
    let why_not = view.backends[0].why_not.as_ref();
    why_not.map_or(String::new(), ToString::to_string)
}

/// An upstream of one backend, which is a host name's.
fn named() -> Arc<Upstream> {
    let like = upstream(&[1], 9);
    let mut params = like.params().clone();
    params.backends[0].address = "app.test:80".parse().unwrap();
    let upstream = Upstream::new(params, Events::default());
    report(&upstream, &[true]);
    upstream
}

#[test]
fn a_look_says_in_a_word_and_in_a_sentence_why_each_is_out() {
    let upstream = upstream(&[1], 9);
    assert_eq!((why_not(&upstream), told(&upstream)), (vec![""], "".into()));
    let report = |text: &str| Arc::new(Report::parse(text.as_bytes()).unwrap());
    let fresh = |text| Ruling::fresh(report(text));
    for (ruling, word, sentence) in [
        (
            Ruling::missing(WhenMissing::FailClosed),
            "no_report",
            "no health file was read yet",
        ),
        (
            Ruling::stale(report(r#"{"0": true}"#), WhenStale::FailClosed),
            "stale",
            "the health file is too old",
        ),
        (fresh("{}"), "unnamed", "the health file does not name it"),
        (
            fresh(r#"{"0": false}"#),
            "sick",
            "the health file says false",
        ),
        (
            fresh(r#"{"0": {"healthy": false, "reason": "503"}}"#),
            "sick",
            "the health file says false: 503",
        ),
        (
            fresh(r#"{"0": {"healthy": true, "state": "maint"}}"#),
            "maint",
            "its state is maint",
        ),
    ] {
        decree(&upstream, ruling);
        assert_eq!(why_not(&upstream), [word]);
        assert_eq!(told(&upstream), sentence);
    }
}

#[test]
fn who_is_ejected_refuses_or_has_no_address_and_disagrees_with_the_report() {
    let refuses = upstream(&[1, 1], 9);
    eject(&refuses, BackendIndex(0), Cause::ConnectionRefused);
    assert_eq!(why_not(&refuses), ["refuses", ""]);
    assert_eq!(told(&refuses), "it refuses connections");
    let disagrees = |upstream: &Upstream| {
        let view = upstream.view();
        let disagree = view.backends.iter().map(|backend| backend.disagrees);
        disagree.collect::<Vec<_>>()
    };
    assert_eq!(disagrees(&refuses), [true, false]);
    report(&refuses, &[false, true]);
    assert_eq!(why_not(&refuses), ["sick", ""], "the report goes first");
    assert_eq!(disagrees(&refuses), [false, false]);

    let unresolved = named();
    unresolved.backends()[0].locate(Err("app.test does not resolve".into()));
    assert_eq!(why_not(&unresolved), [""], "it was not tried yet");
    eject(&unresolved, BackendIndex(0), Cause::ConnectionRefused);
    assert_eq!(why_not(&unresolved), ["unresolved"]);
    assert_eq!(told(&unresolved), "app.test does not resolve");
    assert_eq!(disagrees(&unresolved), [true]);
}

/// Ejected for this a moment ago, out of three.
fn out_for(cause: Cause) -> Arc<Upstream> {
    let upstream = upstream(&[1, 1, 1], 9);
    eject(&upstream, BackendIndex(0), cause);
    upstream
}

#[test]
fn who_is_ejected_for_errors_is_shown_with_its_cause_and_its_rest() {
    for (cause, why) in [
        (
            Cause::BrokenOff,
            "it closed fresh connections without an answer",
        ),
        (
            Cause::ConsecutiveErrors,
            "it failed too many requests in a row",
        ),
        (Cause::ErrorPercent, "it failed too many of its requests"),
        (Cause::Latency, "it was far slower than the others"),
    ] {
        let upstream = out_for(cause);
        assert_eq!(why_not(&upstream), ["ejected", "", ""]);
        let told = told(&upstream);
        let expected = format!("{why}; it is tried again within ");
        let seconds = told.strip_prefix(&expected).unwrap();
        let seconds: f64 = seconds.strip_suffix(" s").unwrap().parse().unwrap();
        assert!((9.0..=10.0).contains(&seconds), "{seconds}");
        let outage = upstream.view().backends[0].outage.unwrap();
        assert_eq!((outage.cause, outage.state()), (cause, "open"));
        let now = Instant::now();
        let rests = |now| outage.rest(now).unwrap().as_secs();
        assert_eq!([rests(now), rests(now + Duration::from_secs(5))], [9, 4]);
        assert_eq!(rests(now + Duration::from_secs(99)), 0);
    }
}

#[test]
fn who_is_on_probation_is_shown_as_that() {
    let upstream = out_for(Cause::ErrorPercent);
    let params = &upstream.params.outlier;
    let later = Instant::now() + params.base_ejection;
    upstream
        .slots
        .lock()
        .tend(BackendIndex(0), params, 1, |_, _| false, later);
    let outage = upstream.view().backends[0].outage.unwrap();
    assert_eq!(outage.state(), "probation");
    let expected = "it failed too many of its requests; the next request tries it";
    assert_eq!(told(&upstream), expected);
    let mut survey = Survey::default();
    drop(upstream.arrive_noting(first(), &mut survey));
    let conditions: Vec<_> = survey.listed().map(|one| one.condition).collect();
    assert_eq!(conditions, ["probation", "free", "free"]);
    let refuses = out_for(Cause::NoRoute);
    let outage = refuses.view().backends[0].outage.unwrap();
    let now = Instant::now();
    assert_eq!((outage.state(), outage.rest(now)), ("open", None));
}

#[test]
fn whom_nobody_believes_to_be_sick_yet_is_marked() {
    let upstream = upstream(&[1, 1], 9);
    let sick = Report::parse(br#"{"0": false, "1": true}"#).unwrap();
    let doubted = BTreeSet::from(["0".into()]);
    decree(&upstream, Ruling::fresh(Arc::new(sick)).doubting(doubted));
    let view = upstream.view();
    let marked: Vec<_> = view.backends.iter().map(|one| one.is_doubted).collect();
    assert_eq!(marked, [true, false]);
    assert_eq!(why_not(&upstream), ["", ""]);
}

#[test]
fn the_first_that_are_out_are_named_and_no_more_of_them_than_asked_for() {
    let upstream = upstream(&[1; 5], 9);
    let first = |most| {
        let out = upstream.first_ineligible(most);
        let name = |one: &BackendView<'_>| one.backend.name().to_string();
        out.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(first(9), [""; 0]);
    report(&upstream, &[true, false, true, false, false]);
    assert_eq!(first(9), ["1", "3", "4"]);
    assert_eq!(first(2), ["1", "3"]);
}

#[test]
fn a_look_shows_who_waits_where_they_are_told_apart() {
    let guest = |key, priority| {
        Ask::First(Guest {
            key: Key(key),
            priority,
            ..Guest::any(Instant::now())
        })
    };
    let crowd = |queue| {
        let upstream = queued(Balance::RoundRobin, &[1], queue);
        let lease = seated(&upstream);
        let again = Ask::Again(lease.ticket(), None);
        let asks = [
            guest(1, Priority::Low),
            guest(1, Priority::Low),
            guest(2, Priority::Low),
            guest(2, Priority::High),
            again,
        ];
        let turns: Vec<_> = asks.map(|ask| upstream.arrive(ask)).into();
        let queue = upstream.view().queue;
        drop(turns);
        (queue.waiting, queue.by_priority, queue.clients)
    };
    let aging = Duration::from_secs(1);
    assert_eq!(crowd(queue_of(9)), (5, None, None));
    let by_priority = Some([1, 0, 3]);
    let urgent = with_priority(queue_of(9), aging);
    assert_eq!(crowd(urgent), (5, by_priority, None));
    let fair = with_priority(fair_queue_of(9), aging);
    assert_eq!(crowd(fair), (5, by_priority, Some((3, 2))));
}

#[test]
fn what_there_was_to_choose_from_is_noted_before_the_choice() {
    let mut slots = [1; 20];
    slots[3] = 2;
    let upstream = upstream(&slots, 9);
    let mut health = [true; 20];
    health[0] = false;
    report(&upstream, &health);
    eject(&upstream, BackendIndex(1), Cause::ConnectionRefused);
    let leases = [seated(&upstream), seated(&upstream)];
    assert_eq!(leases.each_ref().map(|lease| lease.index().0), [2, 3]);

    let mut survey = Survey::default();
    assert!(survey.listed().next().is_none() && survey.chosen().is_none());
    let arrival = upstream.arrive_noting(first(), &mut survey);
    assert!(matches!(arrival, Arrival::Seated(lease) if lease.index().0 == 4));
    let counts = Counts {
        free: 17,
        full: 1,
        ejected: 1,
        kept_out: 1,
    };
    assert_eq!((survey.counts, survey.waiting), (counts, 0));
    let listed: Vec<_> = survey.listed().collect();
    assert_eq!(listed.len(), LISTED_MAX);
    let conditions: Vec<_> = listed.iter().map(|one| one.condition).collect();
    assert_eq!(conditions[..5], ["sick", "ejected", "full", "free", "free"]);
    let numbers = |one: &Finding| (one.in_flight, one.max_in_flight);
    assert_eq!(numbers(listed[3]), (1, 2));
    let chosen = survey.chosen().unwrap();
    assert_eq!((chosen.condition, numbers(chosen)), ("free", (0, 1)));

    // All are taken: nobody was chosen, and one waits already when the next comes.
    let _all: Vec<_> = (0..17).map(|_| seated(&upstream)).collect();
    let _turn = waiting(&upstream);
    let arrival = upstream.arrive_noting(first(), &mut survey);
    assert!(matches!(arrival, Arrival::Waiting(_)));
    assert!(survey.chosen().is_none());
    assert_eq!((survey.counts.free, survey.counts.full), (0, 18));
    assert_eq!(survey.waiting, 1);
}

#[test]
fn a_backend_that_had_more_than_one_slot_is_shown_as_it_was() {
    let upstream = upstream(&[3], 9);
    let (_lease, mut survey) = (seated(&upstream), Survey::default());
    let _second = upstream.arrive_noting(first(), &mut survey);
    let chosen = survey.chosen().unwrap();
    assert_eq!((chosen.in_flight, chosen.max_in_flight), (1, 3));
}

/// The file's word on slots and weight goes before the configuration's, and what is abandoned is in flight.
#[test]
fn a_look_shows_what_each_may_have_and_has() {
    let upstream = upstream(&[2, 1], 9);
    rule(
        &upstream,
        br#"{"0": {"healthy": true, "max_in_flight": 3, "weight": 5}, "1": true}"#,
    );
    let leases = [(); 3].map(|()| seated(&upstream));
    leases[0].abandon();
    let view = upstream.view();
    let numbers =
        |one: &BackendView<'_>| [one.max_in_flight, one.weight, one.in_flight, one.abandoned];
    let of_each: Vec<_> = view.backends.iter().map(numbers).collect();
    assert_eq!(of_each, [[3, 5, 2, 1], [1, 1, 1, 0]]);
    assert_eq!(view.queue.waiting, 0);
}

#[test]
fn what_is_in_force_is_what_was_put_in_force_last() {
    let upstream = upstream(&[1], 9);
    let ruling = Ruling::stale(Arc::default(), WhenStale::FailOpen);
    assert!(!upstream.ruling().is_same(&ruling));
    decree(&upstream, ruling.clone());
    assert!(upstream.ruling().is_same(&ruling));
}

#[test]
fn a_client_keeps_its_key_for_as_long_as_the_upstream_lives() {
    let upstream = upstream(&[1], 9);
    let key = upstream.keys().of_header(b"a");
    report(&upstream, &[false]);
    assert_eq!(upstream.keys().of_header(b"a"), key);
}
