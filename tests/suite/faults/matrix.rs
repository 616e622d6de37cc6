//! One of three backends has something wrong with it while 200 clients ask: nobody sees anything of it that
//! could have been hidden, and it costs time only while it is found out.
//!
//! Each kind of fault is tried with one slot for each backend, where everybody waits in the queue, and with
//! 100, where nobody does. What is compared:
//! - *before*: the 99th percentile before the fault;
//! - *during*: the longest that began or ended while the fault lasted. It may take what the fault may cost (the
//!   timeout that finds it out, or what the work takes that was for nothing, and that twice: what breaks off on a
//!   connection that was kept says nothing against its backend) beside what it took before;
//! - *settled*: the 99th percentile of those that began when the fault had lasted for that timeout and [`FOUND_OUT`].
//!   It is as before. (A backend that restarts all the time is found out anew each time.)
//!
//! With one slot each, two backends instead of three make everybody wait half as long again: [`TWO_OF_THREE`]. What
//! the machine does is judged by a [control](super::control).

use std::time::{Duration, Instant};

use super::control::{Machine, NOISE, TRIES};
use super::crowd::{Crowd, End, Outcome, Times};
use super::scene::{
    CONNECTED_WITHIN, HEADER_WITHIN, SICK, Scene, Trouble, where_packets_are_dropped,
};
use crate::harness::{Fault, Units, get, scrape, until};

const CLIENTS: usize = 200;
/// Longer than any request takes: all of them begin at once.
const WARM_UP: Duration = Duration::from_millis(1200);
const BEFORE: Duration = Duration::from_secs(1);
const LASTS: Duration = Duration::from_secs(4);
const AFTER: Duration = Duration::from_millis(200);

/// What two backends take where three took one, and a bit.
const TWO_OF_THREE: f64 = 1.6;
/// Time for failures to add up to an ejection.
const FOUND_OUT: Duration = Duration::from_secs(1);
/// Answers cut short beside those under way: five errors in a row, and trials.
const CUT_MAX: usize = 25;
/// Longest until a backend that is well again has requests again.
const BACK_WITHIN: Duration = Duration::from_secs(30);

struct Row {
    trouble: Trouble,
    /// What it takes to find out that an attempt has failed, beside what the work takes.
    costs: Duration,
    lasts: Duration,
    /// A client may see its answer break off after the header.
    cuts_answers: bool,
    settles: bool,
}

const fn row(trouble: Trouble) -> Row {
    Row {
        trouble,
        costs: Duration::ZERO,
        lasts: LASTS,
        cuts_answers: false,
        settles: true,
    }
}

impl Row {
    const fn costs(mut self, time: Duration) -> Self {
        self.costs = time;
        self
    }

    const fn lasts(mut self, time: Duration) -> Self {
        self.lasts = time;
        self
    }

    const fn never_settles(mut self) -> Self {
        self.settles = false;
        self
    }

    const fn cuts_answers(mut self) -> Self {
        self.cuts_answers = true;
        self
    }

    async fn holds(self) {
        // A slot's work is such that 200 clients keep the slots busy and the processors not.
        self.holds_with(1, 15.millis()).await;
        self.holds_with(100, 500.millis()).await;
    }

    async fn holds_with(&self, slots: u32, work: Duration) {
        for _ in 0..TRIES {
            let (seen, machine) = self.seen_with(slots, work).await;
            if machine.is_quiet() {
                return self.assert_in_time(&seen, slots, work, machine.slower());
            }
        }
        println!("{:?}, {slots} slots: times were not judged", self.trouble);
    }

    /// What the 200 saw, and how the machine was; asserts all but times.
    async fn seen_with(&self, slots: u32, work: Duration) -> (Seen, Machine) {
        let mut scene = Scene::of(self.trouble, slots, work).await;
        let crowd = Crowd::of(CLIENTS, scene.lb.address(), || get("/home"));
        let control = scene.control.client(scene.lb.address());
        tokio::time::sleep(WARM_UP).await;
        let warm = Instant::now();
        tokio::time::sleep(BEFORE).await;
        let begun = Instant::now();
        scene.has(self.trouble, self.lasts).await;
        let ended = Instant::now();
        let is_by_sick =
            |one: &Outcome| one.begun >= ended && one.end == End::Served(SICK.to_owned());
        let back = until("the sick one serves again", BACK_WITHIN, async || {
            let is_late = ended.elapsed() + 1.secs() > BACK_WITHIN;
            assert!(!is_late, "{}", scene.lb.backend_status(SICK).await);
            crowd.has_since(ended, is_by_sick)
        })
        .await;
        tokio::time::sleep(AFTER).await;
        let outcomes = crowd.ends().await;
        let moments = [warm, begun, ended];
        let seen = Seen::of(&outcomes, moments, self.costs + work + FOUND_OUT);
        let page = scrape(scene.lb.site().admin()).await;
        let retries = page.sum("maitred_retries_total", &[]);
        let denied = page.sum("maitred_retries_denied_total", &[]);
        println!(
            "{:?}, {slots} slots: {}; {retries} sent again, {denied} not; it serves again after {back:.1?}",
            self.trouble,
            seen.said()
        );
        self.assert_nothing_shows(&outcomes, slots);
        scene.assert_no_more_at_once_than(slots as usize);
        let machine = scene.control.judged(control, warm..begun, begun..ended);
        (seen, machine.await)
    }

    /// Of what could have been hidden. An answer that breaks off is seen by those who have it then, and some more
    /// until the backend is taken out.
    fn assert_nothing_shows(&self, outcomes: &[Outcome], slots: u32) {
        let is_hidden = |one: &&Outcome| match one.end {
            End::Served(_) => true,
            End::CutShort => self.cuts_answers,
            End::Refused { .. } | End::Unanswered(_) => false,
        };
        let shown: Vec<_> = outcomes.iter().filter(|one| !is_hidden(one)).collect();
        let first = shown.first();
        assert!(shown.is_empty(), "{} see it: {first:?}", shown.len());
        let cut = outcomes
            .iter()
            .filter(|one| one.end == End::CutShort)
            .count();
        assert!(cut <= slots as usize + CUT_MAX, "{cut} were cut short");
    }

    fn assert_in_time(&self, seen: &Seen, slots: u32, work: Duration, slower: f64) {
        let share = if slots == 1 { TWO_OF_THREE } else { 1.0 };
        let usual = seen.before.p99().mul_f64(share * slower) + NOISE;
        let longest = seen.during.longest();
        let in_vain = self.costs + work.mul_f64(2.0 * slower);
        assert!(
            longest <= usual + in_vain,
            "{longest:?} with {usual:?} as usual"
        );
        let settled = seen.settled.p99();
        assert!(
            !self.settles || settled <= usual,
            "settled {settled:?} with {usual:?} as usual"
        );
    }
}

/// What the clients have seen.
struct Seen {
    before: Times,
    during: Times,
    settled: Times,
    count: usize,
    cut: usize,
    failed: usize,
}

impl Seen {
    fn of(outcomes: &[Outcome], [warm, begun, ended]: [Instant; 3], settles: Duration) -> Self {
        let times =
            |is_in: &dyn Fn(&Outcome) -> bool| Times::of(outcomes.iter().filter(|one| is_in(one)));
        let cut = outcomes.iter().filter(|one| one.end == End::CutShort);
        let failed = outcomes.iter().filter(|one| !one.is_served());
        let (cut, failed) = (cut.count(), failed.count());
        Self {
            before: times(&|one| one.ended >= warm && one.ended < begun),
            during: times(&|one| one.ended >= begun && one.begun < ended),
            settled: times(&|one| one.begun >= begun + settles && one.begun < ended),
            count: outcomes.len(),
            cut,
            failed: failed - cut,
        }
    }

    fn said(&self) -> String {
        let Self {
            before,
            during,
            settled,
            count,
            cut,
            failed,
        } = self;
        let [before, during, settled] = [before, during, settled].map(Times::said);
        format!(
            "{failed} of {count} failed, {cut} cut short; p50/p99/max in ms before {before}, during {during}, settled {settled}"
        )
    }
}

const ANSWERS_LATE: Duration = HEADER_WITHIN;
const RESTARTED: Row = row(Trouble::Restarted).never_settles();

#[tokio::test]
#[ignore = "takes 20 s"]
async fn nobody_sees_that_a_backend_is_killed() {
    row(Trouble::Killed).holds().await;
}

#[tokio::test]
#[ignore = "takes 20 s"]
async fn nobody_sees_that_a_backend_is_stopped() {
    row(Trouble::Stopped).costs(ANSWERS_LATE).holds().await;
}

#[tokio::test]
#[ignore = "takes 30 s"]
async fn nobody_sees_that_a_backend_restarts_every_two_seconds() {
    RESTARTED.lasts(8.secs()).holds().await;
}

#[tokio::test]
#[ignore = "takes 70 s: tests/figures.sh"]
async fn soak_nobody_sees_that_a_backend_restarts_for_30_s() {
    RESTARTED.lasts(30.secs()).holds().await;
}

#[tokio::test]
#[ignore = "takes 20 s"]
async fn nobody_sees_that_a_backend_resets_what_it_has_accepted() {
    row(Trouble::Has(Fault::ResetOnAccept)).holds().await;
}

#[tokio::test]
#[ignore = "takes 20 s"]
async fn nobody_sees_that_a_backend_resets_in_the_header() {
    row(Trouble::Has(Fault::ResetInHeader)).holds().await;
}

#[tokio::test]
#[ignore = "takes 20 s"]
async fn who_has_the_header_sees_that_a_backend_resets_then() {
    row(Trouble::Has(Fault::ResetAfterHeader))
        .cuts_answers()
        .holds()
        .await;
}

#[tokio::test]
#[ignore = "takes 20 s"]
async fn nobody_sees_that_a_backend_answers_garbage() {
    row(Trouble::Has(Fault::Garbage)).holds().await;
}

#[tokio::test]
#[ignore = "takes 20 s"]
async fn who_has_the_header_sees_that_a_backend_sends_less_than_it_said() {
    row(Trouble::Has(Fault::ShortBody))
        .cuts_answers()
        .holds()
        .await;
}

#[tokio::test]
#[ignore = "takes 20 s"]
async fn who_has_the_header_sees_that_a_backend_ends_in_a_chunk() {
    row(Trouble::Has(Fault::TruncatedChunk))
        .cuts_answers()
        .holds()
        .await;
}

#[tokio::test]
#[ignore = "takes 20 s; needs iptables, and leave to make namespaces (unshare)"]
async fn nobody_sees_that_packets_to_a_backend_are_dropped() {
    let costs = CONNECTED_WITHIN.max(ANSWERS_LATE);
    let holds = row(Trouble::Unreachable).costs(costs).holds();
    let name = "faults::matrix::nobody_sees_that_packets_to_a_backend_are_dropped";
    where_packets_are_dropped(name, holds).await;
}
