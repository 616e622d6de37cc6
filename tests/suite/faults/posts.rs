//! 10,000 times `POST`, each with an id of its own, while one of three backends has each kind of fault: nothing is
//! done twice, and nobody is told of a failure whose request the faulty one had not got.

use std::collections::BTreeMap;
use std::time::Duration;

use super::crowd::{Crowd, End, Outcome};
use super::scene::{HEADER_WITHIN, SICK, Scene, Seen, Trouble, where_packets_are_dropped};
use crate::harness::{Fault, Units, post, until};

const REQUESTS: usize = 10_000;
const CLIENTS: usize = 50;
const SLOTS: u32 = 4;
const WORK: Duration = Duration::from_millis(5);
/// The least that a fault lasts: longer than an answer is waited for.
const LASTS: Duration = Duration::from_millis(1500);

/// What is wrong, for an equal part of the requests each.
const TROUBLES: [Trouble; 9] = [
    Trouble::Killed,
    Trouble::Stopped,
    Trouble::Restarted,
    Trouble::Has(Fault::ResetOnAccept),
    Trouble::Has(Fault::ResetInHeader),
    Trouble::Has(Fault::ResetAfterHeader),
    Trouble::Has(Fault::Garbage),
    Trouble::Has(Fault::ShortBody),
    Trouble::Has(Fault::TruncatedChunk),
];

#[tokio::test]
#[ignore = "takes half a minute"]
async fn ten_thousand_posts_are_done_once_whatever_is_wrong() {
    let mut requests = 0;
    for trouble in TROUBLES {
        requests += posts_are_done_once(trouble, REQUESTS.div_ceil(TROUBLES.len())).await;
    }
    assert!(requests >= REQUESTS, "{requests}");
}

#[tokio::test]
#[ignore = "takes some seconds; needs iptables, and leave to make namespaces (unshare)"]
async fn a_thousand_posts_are_done_once_though_packets_are_dropped() {
    let name = "faults::posts::a_thousand_posts_are_done_once_though_packets_are_dropped";
    where_packets_are_dropped(name, async {
        posts_are_done_once(Trouble::Unreachable, 1_000).await;
    })
    .await;
}

/// Sends at least this many: a quarter before something is wrong, a quarter after it, and what comes meanwhile.
/// Returns how many it were.
async fn posts_are_done_once(trouble: Trouble, requests: usize) -> usize {
    let mut scene = Scene::of(trouble, SLOTS, WORK).await;
    let make = || post("/home").body(b"pay 5".to_vec());
    let crowd = Crowd::of(CLIENTS, scene.lb.address(), make);
    let over = async |count: usize| {
        until("a part is over", 60.secs(), async || crowd.over() >= count).await
    };
    over(requests / 4).await;
    scene.has(trouble, LASTS).await;
    if trouble == Trouble::Restarted {
        scene.has(trouble, LASTS).await;
    }
    over(requests.max(crowd.over() + requests / 4)).await;
    let outcomes = crowd.ends().await;
    settles(&scene).await;
    let seen = scene.seen();
    let unread = unread(&scene, trouble);
    println!("{trouble:?}: {}", said(&outcomes, &seen, unread));
    assert_done_once(&outcomes, &seen);
    assert_failures_are_the_sick_ones(&outcomes, &seen, unread);
    scene.assert_no_more_at_once_than(SLOTS as usize);
    outcomes.len()
}

/// What was stopped may have requests to do that nobody waits for any more.
async fn settles(scene: &Scene) {
    let done = || scene.seen().done.values().sum::<usize>();
    let mut last = done();
    until("nothing more is done", 10.secs(), async || {
        tokio::time::sleep(100.millis()).await;
        let before = std::mem::replace(&mut last, done());
        before == last
    })
    .await;
}

/// How many requests may have been sent to the sick one that it could not note: to a connection that it had reset
/// before it read it; when it was killed, one for each slot; and where packets are dropped, one for each slot and each time
/// that the answer was waited for in vain.
fn unread(scene: &Scene, trouble: Trouble) -> usize {
    match trouble {
        Trouble::Killed | Trouble::Restarted => scene.kills * SLOTS as usize,
        Trouble::Has(Fault::ResetOnAccept) => scene
            .connections_of_sick()
            .expect("it is inside, and counts them"),
        Trouble::Unreachable => {
            let waits = LASTS.as_secs_f64() / HEADER_WITHIN.as_secs_f64();
            SLOTS as usize * (1 + waits.ceil() as usize)
        }
        Trouble::Stopped | Trouble::Has(_) => 0,
    }
}

fn assert_done_once(outcomes: &[Outcome], seen: &Seen) {
    let twice: Vec<_> = seen.done.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "done more than once: {twice:?}");
    for one in outcomes.iter().filter(|one| one.is_served()) {
        assert!(
            seen.done.contains_key(&one.id),
            "answered and not done: {one:?}"
        );
    }
}

/// Each failure is of a request that only the sick one had got, but for so many that it could not note.
fn assert_failures_are_the_sick_ones(outcomes: &[Outcome], seen: &Seen, unread: usize) {
    let failed = || outcomes.iter().filter(|one| !one.is_served());
    let strange: Vec<_> = failed()
        .filter(|one| seen.begun_by_well.contains_key(&one.id))
        .collect();
    assert!(
        strange.is_empty(),
        "failed, and not for {SICK}: {strange:?}"
    );
    let unknown: Vec<_> = failed()
        .filter(|one| !seen.begun_by_sick.contains_key(&one.id))
        .collect();
    assert!(
        unknown.len() <= unread,
        "{} that nobody had got: {:?}",
        unknown.len(),
        unknown.first()
    );
}

fn said(outcomes: &[Outcome], seen: &Seen, unread: usize) -> String {
    let mut ends = BTreeMap::<String, usize>::new();
    for one in outcomes.iter().filter(|one| !one.is_served()) {
        let end = match &one.end {
            End::Refused { status, error, .. } => format!("{status} {error}"),
            other => format!("{other:?}"),
        };
        *ends.entry(end).or_default() += 1;
    }
    let most = seen.done.values().max().copied().unwrap_or_default();
    let begun = seen.begun_by_sick.len();
    format!(
        "{} requests, none done more than {most} times; {begun} begun by {SICK}, {unread} it may not have noted; failed: {ends:?}",
        outcomes.len()
    )
}
