//! Backends that are taken out for errors, tried and brought back, by those who hold leases.

use super::super::fixtures::detecting;
use super::*;
use crate::policy::outlier::{Misstep, Tending};

const SICK: BackendIndex = BackendIndex(0);

/// A rest is over when it begins.
fn without_rest() -> OutlierParams {
    OutlierParams {
        base_ejection: Duration::ZERO,
        max_ejection: Duration::ZERO,
        ..OutlierParams::default()
    }
}

fn is_eligible(upstream: &Upstream) -> bool {
    upstream.slots.lock().accounts()[0].is_eligible()
}

/// A request of the one that is to be sick.
fn at_the_sick_one(upstream: &Arc<Upstream>) -> Lease {
    let mut others = Vec::new();
    loop {
        let lease = seated(upstream);
        if lease.index() == SICK {
            return lease;
        }
        others.push(lease);
    }
}

fn fail(upstream: &Arc<Upstream>, errors: usize) {
    let lease = at_the_sick_one(upstream);
    for _ in 0..errors {
        upstream.erred(&lease, Misstep::Overdue);
    }
}

/// Its rest is over.
fn tend(upstream: &Upstream) {
    let mut slots = upstream.slots.lock();
    let ejection = slots.accounts()[0].circuit.ejection().unwrap().number;
    let params = &upstream.params.outlier;
    let (tending, waker) = slots.tend(SICK, params, ejection, |_, _| false, Instant::now());
    drop(slots);
    wake(waker);
    assert!(matches!(tending, Tending::Look(_)));
}

fn repeatable() -> Ask {
    Ask::First(Guest {
        is_repeatable: true,
        ..Guest::any(Instant::now())
    })
}

fn trial(upstream: &Arc<Upstream>) -> Lease {
    match upstream.arrive(repeatable()) {
        Arrival::Seated(lease) => {
            assert_eq!(lease.index(), SICK);
            lease
        }
        Arrival::Waiting(_) | Arrival::Refused(_) => panic!("no trial"),
    }
}

#[tokio::test]
async fn the_fifth_error_in_a_row_is_one_too_many() {
    let upstream = detecting(OutlierParams::default(), &[9, 9]);
    fail(&upstream, 4);
    at_the_sick_one(&upstream)
        .backend()
        .count_served(Instant::now(), false);
    fail(&upstream, 4);
    assert!(is_eligible(&upstream));
    at_the_sick_one(&upstream)
        .backend()
        .count_served(Instant::now(), true);
    fail(&upstream, 1);
    assert!(!is_eligible(&upstream), "an error does not end the run");
}

#[tokio::test]
async fn what_was_under_way_when_it_was_taken_out_is_not_held_against_it_afterwards() {
    let upstream = detecting(without_rest(), &[9, 9]);
    let late = at_the_sick_one(&upstream);
    fail(&upstream, 5);
    for _ in 0..30 {
        upstream.erred(&late, Misstep::Reset);
    }
    tend(&upstream);
    trial(&upstream).went_well();
    assert!(is_eligible(&upstream));
    fail(&upstream, 4);
    assert!(is_eligible(&upstream));
    report(&upstream, &[false, true]);
    report(&upstream, &[true, true]);
    fail(&upstream, 4);
    assert!(is_eligible(&upstream), "the file says that it is well anew");
}

#[tokio::test]
async fn a_trial_decides_once() {
    let upstream = detecting(without_rest(), &[9, 9]);
    fail(&upstream, 5);
    assert_eq!(seated(&upstream).index(), BackendIndex(1), "it rests");
    tend(&upstream);
    let lease = trial(&upstream);
    assert_eq!(seated(&upstream).index(), BackendIndex(1), "one at a time");
    upstream.erred(&lease, Misstep::Invalid);
    lease.went_well();
    assert!(!is_eligible(&upstream));
    tend(&upstream);
    drop(trial(&upstream));
    let second = trial(&upstream);
    drop(lease);
    assert_eq!(seated(&upstream).index(), BackendIndex(1));
    second.went_well();
    assert!(is_eligible(&upstream));
    upstream.slots.lock().check();
}

#[tokio::test]
async fn a_trial_that_is_handed_to_one_who_left_goes_to_the_next_who_may() {
    let upstream = detecting(without_rest(), &[1, 1]);
    fail(&upstream, 5);
    let _other = seated(&upstream);
    let wait = |ask| match upstream.arrive(ask) {
        Arrival::Waiting(turn) => turn,
        Arrival::Seated(_) | Arrival::Refused(_) => panic!("does not wait"),
    };
    let mut unfit = wait(first());
    let (leaves, mut stays) = (wait(repeatable()), wait(repeatable()));
    tend(&upstream);
    drop(leaves);
    upstream.slots.lock().check();
    let Poll::Ready(Ok(lease)) = look(&mut stays) else {
        panic!("not called");
    };
    assert_eq!(lease.index(), SICK);
    lease.went_well();
    drop(lease);
    assert!(look(&mut unfit).is_ready());
}
