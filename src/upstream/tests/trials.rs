//! What brings a backend back that was taken out: connections where it refused them, else a request.

use std::net::{SocketAddr, TcpListener};

use pingora::ErrorType;

use super::super::fixtures::{detecting, upstream};
use super::changes::told_after;
use super::*;
use crate::address::Endpoint;
use crate::policy::backoff;
use crate::policy::outlier::Misstep;

/// The first backend is at an address of its own, where nobody listens.
fn moved(upstream: &Upstream) -> SocketAddr {
    let address = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = address.local_addr().unwrap();
    upstream.backends()[0].locate(Ok(Endpoint::Ip(address)));
    address
}

fn is_in(upstream: &Upstream) -> bool {
    upstream.view().backends[0].is_eligible()
}

/// Waits until the first backend is back, for a minute at the most; how long that took.
async fn until_back(upstream: &Upstream) -> Duration {
    let begun = tokio::time::Instant::now();
    while !is_in(upstream) && begun.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

/// A paused clock goes on while a connection is being made, by a little.
fn is_about(time: Duration, seconds: f64) -> bool {
    (seconds..seconds + 0.4).contains(&time.as_secs_f64())
}

#[tokio::test(start_paused = true)]
async fn one_that_refuses_is_tried_less_and_less_often_until_it_accepts() {
    let upstream = upstream(&[1, 1], 9);
    let address = moved(&upstream);
    let before = told_after(&upstream, 0).len();
    refuse(&upstream, 0);
    assert!(!is_in(&upstream));
    // Trials at 0.5, 1.5 and 3.5 s; the next is at 7.5 s.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let _listener = TcpListener::bind(address).unwrap();
    assert!(is_about(until_back(&upstream).await, 3.5));
    let told = told_after(&upstream, before);
    let expected = [
        "backend_ejected 0 connection_refused 0.0",
        "backend_reinstated 0",
    ];
    assert_eq!(told, expected);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(told_after(&upstream, before), expected, "it is left alone");
}

#[tokio::test(start_paused = true)]
async fn one_that_refuses_is_tried_each_half_second_while_nobody_else_is_well() {
    for slots in [&[1][..], &[1, 1]] {
        let upstream = upstream(slots, 9);
        let address = moved(&upstream);
        refuse(&upstream, 0);
        // One that hangs.
        let held = (slots.len() > 1).then(|| seated(&upstream));
        if let Some(lease) = &held {
            lease.abandon();
            errs(&upstream, 1, 1);
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        let _listener = TcpListener::bind(address).unwrap();
        assert!(until_back(&upstream).await < Duration::from_millis(900));
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_back_by_the_reports_word_is_not_tried() {
    let upstream = upstream(&[1, 1], 9);
    let address = moved(&upstream);
    refuse(&upstream, 0);
    report(&upstream, &[false, true]);
    report(&upstream, &[true, true]);
    let before = told_after(&upstream, 0).len();
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(listener.accept().is_err());
    assert_eq!(told_after(&upstream, before), [""; 0]);
}

/// Ejected for errors, of which the last was this one, while it listened for so long; what it is out for a moment later.
async fn out_for(misstep: Misstep, listened: Duration) -> &'static str {
    let upstream = upstream(&[1, 1], 9);
    let address = moved(&upstream);
    let listener = (!listened.is_zero()).then(|| TcpListener::bind(address).unwrap());
    let (index, cause) = (BackendIndex(0), Cause::ConsecutiveErrors);
    upstream.eject(index, cause, Duration::ZERO, Some(misstep));
    tokio::time::sleep(listened).await;
    drop(listener);
    tokio::time::sleep(Duration::from_millis(700)).await;
    let view = upstream.view();
    let why_not = view.backends[0].why_not.as_ref();
    let word = why_not.map_or("", Ineligible::name);
    if word == "refuses" {
        let told = told_after(&upstream, 0);
        let told = told.last().map(String::as_str);
        assert_eq!(told, Some("backend_ejected 0 connection_refused 0.0"));
    }
    word
}

#[tokio::test(start_paused = true)]
async fn connections_that_break_off_may_have_been_its_end() {
    assert_eq!(out_for(Misstep::Reset, Duration::ZERO).await, "refuses");
    assert_eq!(out_for(Misstep::Overdue, Duration::ZERO).await, "ejected");
    let long = Duration::from_secs(5);
    assert_eq!(out_for(Misstep::Reset, long).await, "ejected");
}

#[tokio::test(start_paused = true)]
async fn who_listens_a_moment_longer_than_its_connections_last_may_be_gone_as_well() {
    let moment = Duration::from_millis(100);
    assert_eq!(out_for(Misstep::Reset, moment).await, "refuses");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_for_the_backends_fault_takes_it_out() {
    let upstream = upstream(&[1, 1], 9);
    let Arrival::Seated(lease) = upstream.arrive(first()) else {
        panic!("no slot");
    };
    assert_eq!(lease.index(), BackendIndex(0));
    let failed = |error| upstream.connect_failed(&lease, &pingora::Error::new(error));
    assert!(!failed(ErrorType::InternalError));
    assert!(is_in(&upstream));
    assert!(failed(ErrorType::ConnectNoRoute));
    assert!(!is_in(&upstream));
}

#[tokio::test(start_paused = true)]
async fn who_breaks_fresh_connections_off_twice_in_a_row_is_out_unless_it_is_the_only_one() {
    let two = upstream(&[1, 1], 9);
    let (backend, lease) = (&two.backends()[0], seated(&two));
    two.broke_off(&lease);
    backend.count_served(Instant::now(), false);
    two.broke_off(&lease);
    assert!(is_in(&two), "it has answered in between");
    two.broke_off(&lease);
    assert!(!is_in(&two));
    report(&two, &[false, true]);
    report(&two, &[true, true]);
    two.broke_off(&lease);
    two.broke_off(&lease);
    assert!(is_in(&two), "it was sent before that");
    let one = upstream(&[1], 9);
    let lease = seated(&one);
    for _ in 0..5 {
        one.broke_off(&lease);
    }
    assert!(is_in(&one));
}

/// One whose rests are short, which has failed too many requests in a row.
fn resting() -> Arc<Upstream> {
    let like = upstream(&[1, 1], 9);
    let mut params = like.params().clone();
    params.outlier.base_ejection = Duration::from_millis(30);
    let upstream = Upstream::new(params, Events::default());
    report(&upstream, &[true, true]);
    eject(&upstream);
    upstream
}

/// The request by which the first backend is tried, once it has rested.
async fn trial(upstream: &Arc<Upstream>) -> Lease {
    let begun = Instant::now();
    loop {
        if let Arrival::Seated(lease) = upstream.arrive(repeatable())
            && lease.index() == BackendIndex(0)
        {
            return lease;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "never tried");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn repeatable() -> Ask {
    Ask::First(Guest {
        is_repeatable: true,
        ..Guest::any(Instant::now())
    })
}

#[tokio::test]
async fn after_its_rest_one_request_decides() {
    let upstream = resting();
    let before = told_after(&upstream, 0).len();
    let lease = trial(&upstream).await;
    assert!(!is_in(&upstream));
    lease.went_well();
    assert!(is_in(&upstream));
    lease.went_well();
    assert_eq!(told_after(&upstream, before), ["backend_reinstated 0"]);
}

#[tokio::test]
async fn a_trial_that_finds_no_connection_is_followed_by_another_rest() {
    let upstream = resting();
    let before = told_after(&upstream, 0).len();
    let lease = trial(&upstream).await;
    let late = pingora::Error::new(ErrorType::ConnectTimedout);
    assert!(upstream.connect_failed(&lease, &late));
    let told = told_after(&upstream, before);
    assert!(told[0].starts_with("backend_ejected 0 consecutive_errors"));
    drop(lease);
    trial(&upstream).await.went_well();
    assert!(is_in(&upstream));
}

#[tokio::test]
async fn what_was_sent_before_it_was_out_does_not_count_when_it_is_back() {
    let upstream = upstream(&[9, 9], 9);
    let leases: Vec<_> = (0..12)
        .filter_map(|_| match upstream.arrive(repeatable()) {
            Arrival::Seated(lease) => Some(lease),
            _ => None,
        })
        .collect();
    let of_first = || {
        leases
            .iter()
            .filter(|lease| lease.index() == BackendIndex(0))
    };
    assert_eq!(of_first().count(), 6);
    eject(&upstream);
    upstream.reinstate(BackendIndex(0), 1);
    assert!(is_in(&upstream));
    of_first().for_each(|lease| upstream.erred(lease, Misstep::Overdue));
    assert!(is_in(&upstream));
}

#[tokio::test]
async fn an_answer_that_has_begun_ends_a_run_of_connections_that_break_off() {
    let upstream = upstream(&[9], 9);
    let seated = || match upstream.arrive(repeatable()) {
        Arrival::Seated(lease) => lease,
        _ => panic!("no slot"),
    };
    let backend = &upstream.backends()[0];
    assert!(!backend.errors().count_broken_off());
    Work::new(seated()).begin_endless();
    assert!(
        !backend.errors().count_broken_off(),
        "the first in a row again"
    );
    assert!(backend.errors().count_broken_off());
}

#[tokio::test]
async fn a_trial_that_fails_is_followed_by_another_rest() {
    let upstream = resting();
    let before = told_after(&upstream, 0).len();
    let lease = trial(&upstream).await;
    upstream.erred(&lease, Misstep::Overdue);
    lease.went_well();
    assert!(!is_in(&upstream), "it has decided already");
    let told = told_after(&upstream, before);
    assert!(told[0].starts_with("backend_ejected 0 consecutive_errors 0.0"));
    drop(lease);
    trial(&upstream).await.went_well();
    assert!(is_in(&upstream));
}

/// Tends a backend that was taken out for errors, so long after that.
fn tend(upstream: &Upstream, after: Duration) {
    let mut slots = upstream.slots.lock();
    let ejection = slots.accounts()[0].circuit.ejection().unwrap();
    let now = upstream.made + ejection.since + after;
    let params = &upstream.params.outlier;
    slots.tend(
        BackendIndex(0),
        params,
        ejection.number,
        |other, is_held| upstream.backends[other].errors().are_lasting(is_held, now),
        now,
    );
}

/// Any number of backends may be out.
fn all_may_be_out(rest: Duration, slots: &[u32]) -> Arc<Upstream> {
    let params = OutlierParams {
        max_ejection_percent: 100,
        base_ejection: rest,
        ..OutlierParams::default()
    };
    detecting(params, slots)
}

fn eject(upstream: &Arc<Upstream>) {
    let (index, cause) = (BackendIndex(0), Cause::ConsecutiveErrors);
    upstream.eject(index, cause, Duration::ZERO, Some(Misstep::Overdue));
}

#[tokio::test]
async fn only_while_nobody_else_is_well_is_its_rest_cut_short() {
    for (slots, errors_of_other, is_cut_short) in [
        (&[1][..], 0, true),
        (&[1, 1], 0, false),
        (&[1, 1], 1, false),
        (&[1, 1], 2, true),
    ] {
        let upstream = all_may_be_out(Duration::from_secs(10), slots);
        let params = OutlierParams::default();
        for _ in 0..errors_of_other {
            upstream.backends[1].count_error(&params, Misstep::Reset, Instant::now());
        }
        eject(&upstream);
        tend(&upstream, Duration::from_secs(1));
        let outage = upstream.view().backends[0].outage.unwrap();
        assert_eq!(outage.is_on_probation, is_cut_short);
    }
}

fn errs(upstream: &Upstream, index: usize, errors: usize) {
    let params = OutlierParams::default();
    for _ in 0..errors {
        upstream.backends[index].count_error(&params, Misstep::Overdue, Instant::now());
    }
}

/// One that serves a request whose client has left does so, too.
#[tokio::test]
async fn who_has_all_its_slots_at_requests_that_were_given_up_on_after_an_error_is_not_well() {
    for (slots, errors, is_cut_short) in [(1, 1, true), (1, 0, false), (2, 1, false)] {
        let upstream = all_may_be_out(Duration::from_secs(10), &[1, slots]);
        eject(&upstream);
        let lease = seated(&upstream);
        lease.abandon();
        errs(&upstream, 1, errors);
        tend(&upstream, Duration::from_secs(1));
        let outage = upstream.view().backends[0].outage.unwrap();
        assert_eq!(outage.is_on_probation, is_cut_short);
    }
}

/// The last one errs, a second after the others were taken out.
fn hurry(upstream: &Upstream) {
    let mut slots = upstream.slots.lock();
    let since = slots.accounts()[0].circuit.ejection().unwrap().since;
    let later = upstream.made + since + Duration::from_secs(1);
    let waker = slots.hurry(
        |other| upstream.backends[other].errors().are_repeated(),
        later,
    );
    slots.check();
    drop(slots);
    wake(waker);
}

#[tokio::test]
async fn the_second_error_in_a_row_is_told_to_those_that_rest() {
    let upstream = all_may_be_out(Duration::from_secs(10), &[1, 1]);
    eject(&upstream);
    std::thread::sleep(backoff::STEP);
    let lease = seated(&upstream);
    for (error, is_tried) in [(1, false), (2, true)] {
        upstream.erred(&lease, Misstep::Overdue);
        let slots = upstream.slots.lock();
        let circuit = slots.accounts()[0].circuit;
        assert_eq!(circuit.is_on_probation(), is_tried, "{error}");
    }
}

/// Its retry would have nowhere else to go but to the one that has just failed it.
#[tokio::test]
async fn who_rests_is_tried_at_once_when_all_others_err() {
    for (errors, is_tried) in [(0, false), (1, false), (2, true)] {
        let upstream = all_may_be_out(Duration::from_secs(10), &[1, 1]);
        eject(&upstream);
        let failed = seated(&upstream);
        errs(&upstream, 1, errors);
        hurry(&upstream);
        assert_eq!(upstream.has_another(failed.index()), is_tried);
        let again = Ask::Again(failed.ticket(), Some(failed.index()));
        drop(failed);
        let Arrival::Seated(lease) = upstream.arrive(again) else {
            panic!("has to wait");
        };
        assert_eq!(lease.index() == BackendIndex(0), is_tried);
    }
}

#[tokio::test]
async fn who_waits_after_a_failure_may_be_that_trial_and_who_may_not_be_sent_again_is_none() {
    let upstream = all_may_be_out(Duration::from_secs(10), &[1, 1]);
    eject(&upstream);
    let failed = seated(&upstream);
    let again = Ask::Again(failed.ticket(), Some(failed.index()));
    let mut fresh = waiting(&upstream);
    let Arrival::Waiting(mut retry) = upstream.arrive(again) else {
        panic!("does not wait");
    };
    errs(&upstream, 1, 2);
    hurry(&upstream);
    let Poll::Ready(Ok(lease)) = look(&mut retry) else {
        panic!("not called");
    };
    assert_eq!(lease.index(), BackendIndex(0));
    assert!(look(&mut fresh).is_pending());
}

/// It would be sent to the one that has just failed it, at once and again and again.
#[tokio::test]
async fn a_trial_that_a_retry_may_not_have_is_no_other_backend() {
    let upstream = all_may_be_out(Duration::ZERO, &[1, 1]);
    eject(&upstream);
    let failed = seated(&upstream);
    tend(&upstream, Duration::ZERO);
    assert!(!upstream.has_another(failed.index()));
    errs(&upstream, 1, 2);
    hurry(&upstream);
    assert!(upstream.has_another(failed.index()), "its rest was over");
    let alone = all_may_be_out(Duration::ZERO, &[1]);
    eject(&alone);
    tend(&alone, Duration::ZERO);
    assert!(!alone.has_another(BackendIndex(0)), "its own");
}

/// By one that hangs and has all its slots still, nobody could be served.
#[tokio::test]
async fn of_those_that_rest_one_is_tried_that_has_room() {
    let upstream = all_may_be_out(Duration::from_secs(10), &[1, 1, 1]);
    let _held = seated(&upstream);
    eject(&upstream);
    let cause = (Cause::ConsecutiveErrors, Duration::ZERO);
    let (params, now) = (&upstream.params.outlier, Instant::now());
    drop((upstream.slots.lock()).eject(BackendIndex(1), params, cause, now));
    errs(&upstream, 2, 2);
    hurry(&upstream);
    let slots = upstream.slots.lock();
    assert!(slots.accounts()[1].circuit.is_on_probation());
}

#[tokio::test]
async fn of_those_that_rest_the_one_is_tried_that_has_rested_longest() {
    let upstream = all_may_be_out(Duration::from_secs(10), &[1, 1, 1]);
    let out = |index, seconds| {
        let cause = (Cause::ConsecutiveErrors, Duration::ZERO);
        let (params, at) = (&upstream.params.outlier, Duration::from_secs(seconds));
        let index = BackendIndex(index);
        let mut slots = upstream.slots.lock();
        drop(slots.eject(index, params, cause, upstream.made + at));
    };
    out(0, 2);
    out(1, 1);
    errs(&upstream, 2, 2);
    for tried in [[false, true], [true, true]] {
        hurry(&upstream);
        let slots = upstream.slots.lock();
        let is_tried = |index: usize| slots.accounts()[index].circuit.is_on_probation();
        assert_eq!([is_tried(0), is_tried(1)], tried);
    }
}

/// The same failure, seen half a second later.
#[tokio::test]
async fn an_early_trial_that_fails_is_no_news() {
    for (after, is_news) in [(1, false), (11, true)] {
        let upstream = all_may_be_out(Duration::from_secs(10), &[1]);
        eject(&upstream);
        let before = told_after(&upstream, 0).len();
        tend(&upstream, Duration::from_secs(after));
        let Arrival::Seated(lease) = upstream.arrive(repeatable()) else {
            panic!("no trial");
        };
        upstream.erred(&lease, Misstep::Overdue);
        assert!(
            !upstream.slots.lock().accounts()[0]
                .circuit
                .is_on_probation()
        );
        assert_eq!(told_after(&upstream, before).len(), usize::from(is_news));
    }
}

/// The first that is back leaves it the only one that fails, and it is taken out for that only now.
#[tokio::test]
async fn who_failed_with_all_others_is_tried_early_though_one_of_them_is_back() {
    for has_company in [true, false] {
        let upstream = all_may_be_out(Duration::from_secs(10), &[1, 1, 1]);
        let slots = || upstream.slots.lock();
        let now = upstream.made + Duration::from_secs(1);
        let params = &upstream.params.outlier;
        let out = |index| {
            let cause = (Cause::ConsecutiveErrors, Duration::ZERO);
            let ejected = slots().eject(BackendIndex(index), params, cause, now);
            ejected.unwrap().0.number
        };
        let tends = |index, number, fails: bool, now| {
            drop(slots().tend(BackendIndex(index), params, number, |_, _| fails, now));
            slots().accounts()[index].circuit.is_on_probation()
        };
        let first = out(0);
        assert!(!tends(0, first, has_company, now));
        let last = out(1);
        let later = now + Duration::from_millis(500);
        assert_eq!(tends(1, last, false, later), has_company);
    }
}

#[tokio::test]
async fn a_request_that_is_a_trial_is_one_for_the_budget_too() {
    let upstream = all_may_be_out(Duration::ZERO, &[1, 1]);
    eject(&upstream);
    tend(&upstream, Duration::ZERO);
    let requests = || upstream.slots.lock().requests();
    let before = requests();
    let lease = trial(&upstream).await;
    assert_eq!(requests(), before + 1);
    drop(lease);
}

#[tokio::test]
async fn whom_it_failed_may_be_the_trial_of_the_only_one_there_is() {
    let upstream = all_may_be_out(Duration::ZERO, &[1]);
    let lease = seated(&upstream);
    eject(&upstream);
    let again = Ask::Again(lease.ticket(), Some(lease.index()));
    drop(lease);
    let Arrival::Waiting(mut turn) = upstream.arrive(again) else {
        panic!("does not wait");
    };
    tend(&upstream, Duration::ZERO);
    let Poll::Ready(Ok(lease)) = look(&mut turn) else {
        panic!("not called");
    };
    lease.went_well();
    assert!(is_in(&upstream));
}

#[tokio::test]
async fn one_that_is_far_slower_than_the_others_is_taken_out_where_that_is_wanted() {
    for factor in [Some(2.0), None] {
        let params = OutlierParams {
            latency_factor: factor,
            min_requests: 1,
            ..OutlierParams::default()
        };
        let upstream = detecting(params, &[1, 1, 1]);
        let window = upstream.params.outlier.error_window;
        for (index, millis) in [(0, 90), (1, 10), (2, 10), (2, 10)] {
            let took = Duration::from_millis(millis);
            upstream.count_first_byte(BackendIndex(index), took, upstream.made + window / 2);
        }
        assert!(is_in(&upstream));
        let later = upstream.made + window * 2;
        upstream.count_first_byte(BackendIndex(1), Duration::from_millis(10), later);
        assert_eq!(is_in(&upstream), factor.is_none());
    }
}

#[tokio::test]
async fn a_report_that_says_nothing_new_of_a_backend_settles_none_of_its_errors() {
    let upstream = upstream(&[9, 9], 9);
    let errors_max = upstream.params.outlier.consecutive_errors.unwrap();
    let lease = seated(&upstream);
    for errors in 0..errors_max {
        assert!(is_in(&upstream), "after {errors}");
        upstream.erred(&lease, Misstep::Overdue);
        report(&upstream, &[true, true]);
    }
    assert!(!is_in(&upstream));
}
