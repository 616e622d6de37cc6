//! What an upstream, its backends and their leases say when they are asked.

use pingora::upstreams::peer::Peer as _;

use super::super::fixtures::{first, queue_of, queued, report, upstream, with_priority};
use super::*;
use crate::address::Endpoint;
use crate::policy::outlier::Misstep;

#[test]
fn whether_another_backend_is_eligible() {
    let upstream = upstream(&[1, 1, 1], 9);
    let is_other = |index| upstream.has_another(BackendIndex(index));
    assert!(is_other(0) && is_other(1) && is_other(2));
    report(&upstream, &[true, false, false]);
    assert!(!is_other(0) && is_other(1) && is_other(2));
    report(&upstream, &[true, false, true]);
    assert!(is_other(0) && is_other(1) && is_other(2));
    report(&upstream, &[false, false, false]);
    assert!(!is_other(0) && !is_other(1));
}

#[test]
fn how_many_wait_and_how_long_a_request_takes() {
    let upstream = upstream(&[1], 9);
    assert_eq!((upstream.waiting(), upstream.service_time()), (0, None));
    let _lease = seated(&upstream);
    let turns = [waiting(&upstream), waiting(&upstream)];
    assert_eq!(upstream.waiting(), 2);
    drop(turns);
    assert_eq!(upstream.waiting(), 0);
    let took = Duration::from_millis(7);
    upstream.count_service(took);
    assert_eq!(upstream.service_time(), Some(took));
}

/// A backend that dies fails as many requests as it has slots, at one blow.
#[test]
fn there_is_one_retry_for_each_slot_that_is_configured() {
    let upstream = upstream(&[10, 20], 9);
    let now = upstream.made;
    let retries = (0..99).take_while(|_| upstream.take_retry(now));
    assert_eq!(retries.count(), 30);
}

#[test]
fn what_a_backend_has_answered_and_what_failed_on_it_is_counted() {
    let upstream = upstream(&[1], 9);
    let backend = &upstream.backends()[0];
    let now = Instant::now();
    for _ in 0..3 {
        backend.count_served(now, false);
    }
    for is_overdue in [false, true] {
        backend.count_failed(now, is_overdue);
    }
    assert_eq!((backend.served(), backend.failed()), (3, 2));
    assert!(backend.last_served().is_some());
    let [(_, evidence)] = upstream.evidence(now)[..] else {
        panic!("one backend");
    };
    assert!(evidence.failed.is_some() && evidence.overdue.is_some());
}

#[test]
fn a_backend_that_moved_is_connected_to_where_it_is_now() {
    let upstream = upstream(&[1], 9);
    let backend = &upstream.backends()[0];
    let address = || backend.peer().address().to_string();
    assert_eq!(address(), "127.0.0.1:1000");
    let there = "127.0.0.9:99".parse().unwrap();
    backend.locate(Ok(Endpoint::Ip(there)));
    assert_eq!(address(), "127.0.0.9:99");
    backend.locate(Err("does not resolve".into()));
    assert_eq!(address(), "127.0.0.9:99", "the last good one");
    assert_eq!(backend.location().endpoint, Some(Endpoint::Ip(there)));
    assert!(backend.location().problem.is_some());
}

#[test]
fn backends_whose_names_were_not_resolved_yet_are_told_apart() {
    let like = upstream(&[1, 1, 1], 9);
    let mut params = like.params().clone();
    for (index, backend) in params.backends.iter_mut().enumerate() {
        backend.address = format!("app{index}.test:80").parse().unwrap();
    }
    let upstream = Upstream::new(params, Events::default());
    report(&upstream, &[true, false, true]);
    assert_eq!(order(&upstream, 3), [0, 2, 0]);
}

#[test]
fn tickets_are_in_the_order_of_arrival() {
    let upstream = upstream(&[3], 9);
    let [first, second, third] = [(); 3].map(|()| seated(&upstream).ticket());
    assert!(first < second && second < third);
}

/// The low one has waited long enough at once, so the slot that is given back is its own.
#[test]
fn the_time_is_looked_at_when_a_slot_is_given_back_or_left() {
    let of = |priority| {
        Ask::First(Guest {
            priority,
            ..Guest::any(Instant::now())
        })
    };
    let queue = with_priority(queue_of(9), Duration::ZERO);
    let upstream = queued(Balance::RoundRobin, &[1], queue);
    let lease = seated(&upstream);
    let [mut low, mut high, mut lower] =
        [Priority::Low, Priority::High, Priority::Low].map(|one| {
            let Arrival::Waiting(turn) = upstream.arrive(of(one)) else {
                panic!("does not wait");
            };
            turn
        });
    drop(lease);
    assert!(look(&mut high).is_pending());
    // It leaves without having looked; its class has had its turn.
    let called = look(&mut low);
    assert!(matches!(&called, Poll::Ready(Ok(_))));
    drop(called);
    assert!(look(&mut lower).is_pending());
    assert!(look(&mut high).is_ready());
}

#[test]
fn who_is_called_or_leaves_takes_up_no_room() {
    let upstream = upstream(&[1], 9);
    let places = || upstream.slots.lock().places();
    for _ in 0..3 {
        let lease = seated(&upstream);
        let (mut called, left) = (waiting(&upstream), waiting(&upstream));
        assert_eq!(places(), 2);
        drop(lease);
        assert!(look(&mut called).is_ready());
        assert_eq!(places(), 1);
        drop(left);
        assert_eq!(places(), 0);
    }
    let _lease = seated(&upstream);
    assert!(matches!(upstream.arrive(first()), Arrival::Waiting(_)));
    assert_eq!(places(), 0, "dropped at once");
}

#[test]
fn how_far_a_request_has_come() {
    let upstream = upstream(&[2], 9);
    for is_fresh in [true, false] {
        let mut work = Work::new(seated(&upstream));
        assert!(work.connected(None, is_fresh, Instant::now()));
        // Sent; gave no answer on a connection of its own; on one that had served others.
        let seen = |work: &Work| {
            [
                work.is_sent(),
                work.is_fresh_and_unanswered(),
                work.is_stale(),
            ]
        };
        assert_eq!(seen(&work), [false; 3]);
        let mut other = Work::new(seated(&upstream));
        assert!(other.connected(None, is_fresh, Instant::now()));
        other.sending();
        other.interim();
        assert_eq!(seen(&other), [true, false, false], "it has spoken");
        drop(other);
        work.sending();
        assert_eq!(seen(&work), [true, is_fresh, !is_fresh]);
        work.sent();
        assert_eq!(seen(&work), [true, is_fresh, !is_fresh]);
        work.answering();
        assert_eq!(seen(&work), [true, false, false]);
        work.sent();
        assert_eq!(seen(&work), [true, false, false], "an early answer");
        assert_eq!(work.lease().map(Lease::index), Some(BackendIndex(0)));
        work.done();
        assert!(work.lease().is_none());
        assert_eq!(upstream.view().backends[0].in_flight, 0);
    }
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_request_speaks_against_the_backend_once() {
    let upstream = upstream(&[9, 9], 9);
    let errors_max = upstream.params.outlier.consecutive_errors.unwrap();
    let is_in = || upstream.view().backends[0].is_eligible();
    let mut errors = 0;
    while is_in() {
        let mut work = Work::new(seated(&upstream));
        if work.lease().map(Lease::index) != Some(BackendIndex(0)) {
            continue;
        }
        assert!(!work.has_erred());
        for _ in 0..errors_max {
            work.erred(Misstep::Invalid);
            assert!(work.has_erred());
        }
        errors += 1;
    }
    assert_eq!(errors, errors_max);
}
