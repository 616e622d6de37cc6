use proptest::prelude::*;

use super::*;
use crate::policy::backoff::STEP;

const BASE: Duration = Duration::from_secs(10);

fn params() -> OutlierParams {
    OutlierParams::default()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A circuit, and the clock that it goes by.
struct Case {
    params: OutlierParams,
    circuit: Circuit,
    now: Duration,
    is_other_well: bool,
}

impl Case {
    fn new() -> Self {
        let now = Duration::ZERO;
        Self {
            params: params(),
            circuit: Circuit::closed(now),
            now,
            is_other_well: true,
        }
    }

    fn eject(&mut self, cause: Cause) -> Option<Ejection> {
        self.eject_for(cause, Duration::ZERO)
    }

    fn eject_for(&mut self, cause: Cause, wanted_rest: Duration) -> Option<Ejection> {
        self.circuit
            .eject(&self.params, cause, wanted_rest, self.now)
    }

    fn tend(&mut self) -> Tending {
        let number = self
            .circuit
            .ejection()
            .map_or(0, |ejection| ejection.number);
        self.circuit
            .tend(&self.params, number, self.is_other_well, self.now)
    }

    /// Looks after it as often as it wants, until it is on probation; how long that took.
    fn rest(&mut self) -> Duration {
        let begun = self.now;
        while !self.circuit.is_on_probation() {
            let Tending::Look(pause) = self.tend() else {
                panic!("nobody looks after it");
            };
            if !self.circuit.is_on_probation() {
                self.now += pause;
            }
        }
        self.now - begun
    }

    fn fail_trial(&mut self) -> Option<Ejection> {
        let trial = self.circuit.begin_trial().unwrap();
        self.circuit
            .trial_failed(&self.params, trial, Duration::ZERO, self.now)
    }

    fn pass_trial(&mut self) -> bool {
        let trial = self.circuit.begin_trial().unwrap();
        self.circuit.trial_went_well(trial, self.now)
    }
}

#[test]
fn a_rest_is_followed_by_a_trial_that_brings_it_back() {
    let mut case = Case::new();
    let ejection = case.eject(Cause::ConsecutiveErrors).unwrap();
    assert_eq!(ejection.until, Some(case.now + BASE));
    assert!(!case.circuit.is_closed() && !case.circuit.wants_trial());
    assert_eq!(case.circuit.begin_trial(), None, "it rests");
    assert_eq!(case.rest(), BASE);
    assert!(case.circuit.wants_trial());
    assert!(case.pass_trial());
    assert!(case.circuit.is_closed());
    assert_eq!(case.tend(), Tending::Over);
}

#[test]
fn each_trial_that_fails_doubles_the_rest_up_to_the_longest() {
    let mut case = Case::new();
    case.eject(Cause::ErrorPercent);
    let mut rests = Vec::new();
    for _ in 0..7 {
        rests.push(case.rest().as_secs());
        case.fail_trial().unwrap();
    }
    assert_eq!(rests, [10, 20, 40, 80, 160, 300, 300]);
}

#[test]
fn each_rest_is_forgotten_after_as_long_in_good_health() {
    // Rests of 10, 20, 40 s before.
    for (well, expected) in [(39, 80), (40, 40), (59, 40), (60, 20), (69, 20), (70, 10)] {
        let mut case = Case::new();
        case.eject(Cause::ConsecutiveErrors);
        for _ in 0..2 {
            case.rest();
            case.fail_trial();
        }
        case.rest();
        case.pass_trial();
        case.now += seconds(well);
        case.eject(Cause::ConsecutiveErrors);
        assert_eq!(case.rest(), seconds(expected), "{well}");
    }
}

#[test]
fn of_the_longest_rests_one_is_remembered() {
    let mut case = Case::new();
    case.eject(Cause::ConsecutiveErrors);
    for _ in 0..20 {
        case.rest();
        case.fail_trial();
    }
    case.rest();
    case.pass_trial();
    case.now += seconds(300 + 160);
    case.eject(Cause::ConsecutiveErrors);
    assert_eq!(case.rest(), seconds(160));
}

#[test]
fn beside_a_trial_that_takes_longer_than_any_backend_may_there_is_another() {
    let mut case = Case::new();
    case.eject(Cause::ConsecutiveErrors);
    case.rest();
    let slow = case.circuit.begin_trial().unwrap();
    case.now += seconds(500);
    case.tend();
    assert!(!case.circuit.wants_trial(), "it was not seen before");
    case.now += case.params.longest_trial - seconds(1);
    case.tend();
    assert!(!case.circuit.wants_trial());
    case.now += seconds(1);
    case.tend();
    assert!(case.circuit.wants_trial());
    let second = case.circuit.begin_trial().unwrap();
    assert!(!case.circuit.trial_undecided(slow), "it is not the latest");
    assert!(!case.circuit.wants_trial());
    assert!(case.circuit.trial_went_well(slow, case.now), "the first");
    assert!(!case.circuit.trial_went_well(second, case.now));
}

#[test]
fn there_is_one_trial_at_a_time() {
    let mut case = Case::new();
    case.eject(Cause::Latency);
    case.rest();
    let first = case.circuit.begin_trial().unwrap();
    assert_eq!(case.circuit.begin_trial(), None);
    assert!(!case.circuit.wants_trial());
    assert!(case.circuit.trial_undecided(first));
    let second = case.circuit.begin_trial().unwrap();
    assert!(case.circuit.trial_went_well(second, case.now));
    case.eject(Cause::Latency);
    case.rest();
    assert!(!case.circuit.trial_went_well(second, case.now), "too late");
    assert!(case.circuit.is_on_probation());
}

#[test]
fn nobody_else_makes_every_step_a_trial_and_early_ones_cost_no_longer_rest() {
    let mut case = Case::new();
    case.is_other_well = false;
    case.eject(Cause::ConsecutiveErrors);
    let until = case.circuit.ejection().unwrap().until;
    for _ in 0..3 {
        assert_eq!(case.rest(), STEP);
        assert_eq!(case.fail_trial().unwrap().until, until);
    }
    // Once somebody is, they come less and less often.
    case.is_other_well = true;
    for steps in [1, 2, 4, 8] {
        assert_eq!(case.rest(), steps * STEP);
        assert_eq!(case.fail_trial().unwrap().until, until);
    }
    assert_eq!(case.rest(), BASE - 18 * STEP, "the end of its rest");
    case.fail_trial();
    assert_eq!(case.rest(), 2 * BASE, "it is the only one that fails");
}

#[test]
fn it_is_tried_at_once_where_that_is_wanted_but_less_and_less_often() {
    let mut case = Case::new();
    case.eject(Cause::ConsecutiveErrors);
    let until = case.circuit.ejection().unwrap().until;
    let moment = Duration::from_millis(1);
    for steps in [1, 2, 4] {
        case.now += steps * STEP - moment;
        assert!(!case.circuit.may_be_hurried(case.now));
        case.circuit.hurry(case.now);
        assert!(!case.circuit.is_on_probation());
        case.now += moment;
        assert!(case.circuit.may_be_hurried(case.now));
        case.circuit.hurry(case.now);
        assert_eq!(case.circuit.takers(), Takers::Retries);
        assert_eq!(case.fail_trial().unwrap().until, until);
    }
}

#[test]
fn who_was_to_be_tried_by_chance_rests_on_once_another_is_well() {
    for (is_other_well, is_under_way) in [(true, false), (true, true), (false, false)] {
        let mut case = Case::new();
        case.eject(Cause::ConsecutiveErrors);
        let ejection = case.circuit.ejection();
        case.now += STEP;
        case.circuit.hurry(case.now);
        if is_under_way {
            case.circuit.begin_trial();
        }
        case.tend();
        assert!(case.circuit.is_on_probation(), "for a step");
        case.is_other_well = is_other_well;
        case.now += STEP;
        case.tend();
        let goes_on = is_under_way || !is_other_well;
        assert_eq!(case.circuit.is_on_probation(), goes_on);
        assert_eq!(case.circuit.ejection(), ejection);
        if !is_other_well {
            assert_eq!(case.circuit.takers(), Takers::Anyone);
            // They may all come back together.
            case.is_other_well = true;
            case.tend();
            assert!(case.circuit.is_on_probation());
            assert_eq!(case.circuit.takers(), Takers::None);
        }
    }
}

#[test]
fn an_early_trial_that_fails_late_costs_no_longer_rest_either() {
    let mut case = Case::new();
    case.is_other_well = false;
    case.eject(Cause::ConsecutiveErrors);
    let until = case.circuit.ejection().unwrap().until;
    case.rest();
    let trial = case.circuit.begin_trial().unwrap();
    case.now += 6 * BASE;
    let failed = case
        .circuit
        .trial_failed(&case.params, trial, Duration::ZERO, case.now);
    assert_eq!(failed.unwrap().until, until);
}

#[test]
fn a_connection_that_is_not_answered_in_time_is_no_refusal_of_one_that_rests() {
    let mut case = Case::new();
    case.eject(Cause::ConsecutiveErrors).unwrap();
    assert_eq!(case.eject(Cause::ConnectTimeout), None);
    assert!(case.eject(Cause::ConnectionRefused).is_some());
}

#[test]
fn anybody_may_be_the_trial_after_another_base_ejection() {
    let mut case = Case::new();
    case.eject(Cause::ConsecutiveErrors);
    case.rest();
    let begun = case.now;
    while case.circuit.takers() != Takers::Anyone {
        let Tending::Look(pause) = case.tend() else {
            panic!("nobody looks after it");
        };
        case.now += pause.min(seconds(1));
        assert!(case.now - begun <= BASE + seconds(1));
    }
    assert!(case.now - begun >= BASE);
}

#[test]
fn the_backends_own_word_makes_the_rest_longer_but_not_than_the_longest() {
    for (wanted, expected) in [(3, 10), (42, 42), (3_600, 300)] {
        let mut case = Case::new();
        case.eject_for(Cause::ConsecutiveErrors, seconds(wanted));
        assert_eq!(case.rest(), seconds(expected));
    }
}

#[test]
fn a_refusal_is_no_matter_of_time() {
    let mut case = Case::new();
    let refused = case.eject(Cause::ConnectionRefused).unwrap();
    assert_eq!((refused.until, case.tend()), (None, Tending::Over));
    assert_eq!(case.eject(Cause::ConnectTimeout), None, "out already");
    assert!(case.circuit.reinstate(refused.number, case.now));
    let errors = case.eject(Cause::ConsecutiveErrors).unwrap();
    assert_eq!(
        errors.until,
        Some(case.now + BASE),
        "a refusal counts for none"
    );
    let refused = case.eject(Cause::ConnectionRefused).unwrap();
    assert!(!case.circuit.reinstate(errors.number, case.now));
    assert!(case.circuit.reinstate(refused.number, case.now));
}

#[test]
fn errors_that_were_its_end_are_a_refusal() {
    let mut case = Case::new();
    let errors = case.eject(Cause::ConsecutiveErrors).unwrap();
    assert!(
        case.circuit
            .refuses(errors.number, Cause::ConnectionRefused)
    );
    let ejection = case.circuit.ejection().unwrap();
    assert_eq!(
        (ejection.until, ejection.cause),
        (None, Cause::ConnectionRefused)
    );
    assert!(case.circuit.reinstate(errors.number, case.now));
    case.eject(Cause::ConsecutiveErrors);
    assert_eq!(case.rest(), BASE, "it was none of its errors");
    assert!(
        !case
            .circuit
            .refuses(errors.number, Cause::ConnectionRefused)
    );
}

#[test]
fn the_files_word_ends_an_ejection_but_not_the_memory_of_it() {
    let mut case = Case::new();
    case.eject(Cause::ConsecutiveErrors);
    case.circuit.close(case.now);
    assert!(case.circuit.is_closed());
    case.eject(Cause::ConsecutiveErrors);
    assert_eq!(case.rest(), 2 * BASE);
}

#[test]
fn so_many_may_be_out() {
    let most = |percent, admitted| {
        let params = OutlierParams {
            max_ejection_percent: percent,
            ..params()
        };
        let out = (0..=admitted).take_while(|out| params.may_eject(admitted, *out));
        out.count()
    };
    assert_eq!(
        [1, 2, 3, 4, 5, 100].map(|n| most(50, n)),
        [0, 1, 1, 2, 2, 50]
    );
    assert_eq!([1, 3].map(|n| most(0, n)), [0, 0]);
    assert_eq!([1, 3].map(|n| most(100, n)), [1, 3]);
}

#[test]
fn causes_have_their_words() {
    let words = [
        (Cause::ConnectionRefused, "connection_refused"),
        (Cause::ConnectFailure, "connect_failure"),
        (Cause::BrokenOff, "broken_off"),
        (Cause::Latency, "latency"),
    ];
    for (cause, word) in words {
        assert_eq!(cause.word(), word);
    }
    assert!(Cause::ConnectFailure.is_refusal() && !Cause::BrokenOff.is_refusal());
}

/// So many errors, after each of which so many go well; the causes told.
fn told(params: &OutlierParams, errors: &[u64]) -> Vec<Option<Cause>> {
    let (mut tally, now) = (Tally::default(), Duration::ZERO);
    let (mut well, mut run) = (0, 0);
    let mut told = Vec::new();
    for well_after in errors {
        run += 1;
        told.push(tally.note(params, Misstep::Reset, run, well, now));
        well += well_after;
        run = if *well_after > 0 { 0 } else { run };
    }
    told
}

#[test]
fn errors_in_a_row_are_counted() {
    let params = params();
    let fifth = Some(Cause::ConsecutiveErrors);
    assert_eq!(
        told(&params, &[0; 6]),
        [None, None, None, None, fifth, fifth]
    );
    assert_eq!(told(&params, &[0, 0, 0, 1, 0, 0]), [None; 6]);
    let off = OutlierParams {
        consecutive_errors: None,
        ..params
    };
    assert_eq!(told(&off, &[0; 19]), [None; 19]);
    assert_eq!(told(&off, &[0; 20])[19], Some(Cause::ErrorPercent));
}

#[test]
fn half_of_enough_requests_are_too_many() {
    let params = params();
    // One goes well after each.
    let causes = told(&params, &[1; 11]);
    assert_eq!(causes[..10], [None; 10], "19 requests are no evidence");
    assert_eq!(causes[10], Some(Cause::ErrorPercent), "11 of 21");
    assert_eq!(told(&params, &[2; 50]), [None; 50], "every third");
    let off = OutlierParams {
        error_percent: None,
        ..params
    };
    assert_eq!(told(&off, &[1; 50]), [None; 50]);
}

#[test]
fn a_window_that_is_over_counts_no_longer() {
    let (params, begun) = (params(), Duration::ZERO);
    let mut tally = Tally::default();
    for number in 0..9 {
        assert_eq!(tally.note(&params, Misstep::Reset, 1, number, begun), None);
    }
    // Six of seven in a new window, and no evidence in seven.
    let later = begun + params.error_window + Duration::from_millis(1);
    for number in 0..6 {
        let cause = tally.note(&params, Misstep::Reset, 1, 8 + number, later);
        assert_eq!(cause, None, "{number}");
    }
}

#[test]
fn the_last_of_a_run_that_asks_for_a_rest_has_it() {
    let (params, now) = (params(), Duration::ZERO);
    let mut tally = Tally::default();
    let mut note = |misstep, run| {
        tally.note(&params, misstep, run, 0, now);
        tally.wanted_rest()
    };
    assert_eq!(note(Misstep::Status(seconds(9)), 1), seconds(9));
    assert_eq!(note(Misstep::Status(seconds(7)), 2), seconds(7));
    assert_eq!(note(Misstep::Reset, 3), seconds(7));
    assert_eq!(note(Misstep::Status(Duration::ZERO), 1), Duration::ZERO);
}

#[test]
fn only_an_answer_asks_for_a_rest() {
    let asked = seconds(7);
    assert_eq!(Misstep::Status(asked).wanted_rest(), asked);
    for misstep in [Misstep::Reset, Misstep::Overdue, Misstep::Invalid] {
        assert_eq!(misstep.wanted_rest(), Duration::ZERO);
    }
}

#[test]
fn what_went_well_before_the_window_excuses_nothing_in_it() {
    let mut tally = Tally::default();
    let params = OutlierParams {
        consecutive_errors: None,
        ..params()
    };
    let mut err = |run| tally.note(&params, Misstep::Overdue, run, 1_000, Duration::ZERO);
    let told: Vec<_> = (1..=20).map(&mut err).collect();
    assert_eq!(told[18..], [None, Some(Cause::ErrorPercent)]);
}

#[test]
fn a_window_has_its_last_moment_too_and_what_is_settled_begins_anew() {
    let params = OutlierParams {
        consecutive_errors: None,
        min_requests: 2,
        ..params()
    };
    let mut tally = Tally::default();
    let err = |tally: &mut Tally, now| tally.note(&params, Misstep::Overdue, 1, 0, now);
    assert_eq!(err(&mut tally, Duration::ZERO), None);
    let last = err(&mut tally, params.error_window);
    assert_eq!(last, Some(Cause::ErrorPercent));
    tally.clear();
    assert_eq!(err(&mut tally, params.error_window), None);
}

#[test]
fn what_belongs_to_the_ejection_before_does_nothing_to_this_one() {
    let mut case = Case::new();
    let before = case.eject(Cause::ErrorPercent).unwrap().number;
    case.circuit.close(case.now);
    let ejection = case.eject(Cause::ErrorPercent);
    let tend = |case: &mut Case| case.circuit.tend(&case.params, before, true, case.now);
    case.now += BASE;
    assert_eq!(tend(&mut case), Tending::Over);
    assert!(!case.circuit.refuses(before, Cause::ConnectionRefused));
    assert!(!case.circuit.reinstate(before, case.now));
    assert_eq!(case.circuit.ejection(), ejection);
    case.rest();
    assert_eq!(tend(&mut case), Tending::Over);
    assert!(case.circuit.is_on_probation());
}

#[test]
fn who_is_far_slower_than_the_others_is_slow() {
    let of = |millis: &[u64], factor| {
        let means: Vec<_> = millis
            .iter()
            .map(|millis| (*millis > 0).then(|| Duration::from_millis(*millis)))
            .collect();
        slow(&means, factor)
    };
    assert_eq!(of(&[10, 10, 31], 3.0), [2]);
    assert_eq!(of(&[10, 10, 30], 3.0), [0usize; 0], "not more than that");
    assert_eq!(of(&[10, 50], 3.0), [1], "one peer is enough");
    assert_eq!(of(&[50], 3.0), [0usize; 0]);
    assert_eq!(
        of(&[0, 50, 0], 3.0),
        [0usize; 0],
        "of those nothing is known"
    );
    assert_eq!(of(&[10, 10, 80, 90, 10], 3.0), [3, 2]);
    assert_eq!(of(&[10, 90, 95], 3.0), [0usize; 0], "the upper middle");
}

/// What happens to a circuit.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Tend {
        is_other_well: bool,
    },
    Hurry,
    Eject {
        is_refusal: bool,
        wanted: u64,
    },
    Begin,
    /// The end of the trial that began so many before the last.
    End(usize, Option<bool>),
    Reinstate,
    Report,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..20_000u64).prop_map(Step::Pass),
        4 => prop::bool::weighted(0.8).prop_map(|is_other_well| Step::Tend { is_other_well }),
        2 => Just(Step::Hurry),
        2 => (prop::bool::weighted(0.2), 0..600u64)
            .prop_map(|(is_refusal, wanted)| Step::Eject { is_refusal, wanted }),
        3 => Just(Step::Begin),
        3 => (0..3usize, any::<Option<bool>>()).prop_map(|(which, end)| Step::End(which, end)),
        1 => Just(Step::Reinstate),
        1 => Just(Step::Report),
    ]
}

/// The sentences of the documentation, in plain variables, times in milliseconds.
#[derive(Debug, Default)]
struct Naive {
    now: u64,
    is_out: bool,
    refuses: bool,
    is_on_probation: bool,
    tried_since: u64,
    takers: Takers,
    /// Before its rest was over.
    is_early: bool,
    trial: Option<u32>,
    /// When the trial was first seen.
    seen: Option<u64>,
    /// The latest trial, and the latest before this probation.
    begun: u32,
    before: u32,
    rests_since: u64,
    rests_until: u64,
    /// Those that are not forgotten.
    rests: Vec<u64>,
    well_since: u64,
    has_company: bool,
    early: u32,
}

impl Naive {
    fn rest(&mut self, wanted: u64) {
        let last = self.rests.last().copied();
        let rest = last.map_or(10_000, |last| (2 * last).min(300_000));
        if last != Some(300_000) {
            self.rests.push(rest);
        }
        let rest = rest.max((wanted * 1_000).min(300_000));
        self.open();
        self.rests_until = self.now + rest;
    }

    fn open(&mut self) {
        self.is_out = true;
        self.is_on_probation = false;
        self.trial = None;
        self.rests_since = self.now;
    }

    fn close(&mut self) {
        self.is_out = false;
        self.is_on_probation = false;
        self.refuses = false;
        self.trial = None;
        self.well_since = self.now;
        (self.has_company, self.early) = (false, 0);
    }

    fn eject(&mut self, is_refusal: bool, wanted: u64) {
        if self.is_out && (self.refuses || !is_refusal) {
            return;
        }
        if is_refusal {
            self.refuses = true;
            return self.open();
        }
        let mut well = self.now - self.well_since;
        while self.rests.last().is_some_and(|last| *last <= well) {
            well -= self.rests.pop().unwrap();
        }
        self.rest(wanted);
    }

    fn tend(&mut self, is_other_well: bool) {
        if self.is_on_probation && self.trial.is_some() {
            let seen = *self.seen.get_or_insert(self.now);
            self.trial = self.trial.filter(|_| self.now - seen < 120_000);
        }
        if self.is_on_probation && !is_other_well {
            (self.has_company, self.early) = (true, 0);
        }
        if self.is_on_probation {
            let may_wait = is_other_well && self.now - self.tried_since < 10_000;
            self.takers = if may_wait {
                Takers::None
            } else {
                Takers::Anyone
            };
            let is_over = self.now - self.tried_since >= 500 && self.begun == self.before;
            if self.is_early && is_over && !self.has_company {
                self.early = self.early.saturating_sub(1);
                self.is_on_probation = false;
                return;
            }
        }
        if !self.is_out || self.refuses || self.is_on_probation {
            return;
        }
        let takers = if is_other_well {
            Takers::None
        } else {
            Takers::Anyone
        };
        if self.now >= self.rests_until {
            return self.try_it(takers);
        }
        if !is_other_well {
            (self.has_company, self.early) = (true, 0);
        }
        let steps = match is_other_well {
            true => 2u64.pow(self.early).min(20),
            false => 1,
        };
        if self.has_company && self.now - self.rests_since >= 500 * steps {
            self.early += u32::from(is_other_well);
            self.try_it(takers);
        }
    }

    fn hurry(&mut self) {
        let rests = self.is_out && !self.refuses && !self.is_on_probation;
        if rests && self.now - self.rests_since >= 500 * 2u64.pow(self.early).min(20) {
            self.early += 1;
            self.try_it(Takers::Retries);
        }
        let waits = self.is_on_probation && self.trial.is_none();
        if waits && self.takers == Takers::None {
            self.takers = Takers::Retries;
        }
    }

    fn try_it(&mut self, takers: Takers) {
        (self.tried_since, self.takers) = (self.now, takers);
        self.before = self.begun;
        self.is_early = self.now < self.rests_until;
        self.is_on_probation = true;
    }

    fn end(&mut self, trial: u32, end: Option<bool>) {
        if !self.is_on_probation || trial <= self.before {
            return;
        }
        match end {
            None => self.trial = self.trial.filter(|latest| *latest != trial),
            Some(true) => self.close(),
            Some(false) if self.is_early => self.open(),
            Some(false) => {
                self.has_company = false;
                self.rest(0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_circuit_does_what_the_sentences_say(steps in prop::collection::vec(step(), 0..80)) {
        let mut case = Case::new();
        let (begun, mut naive, mut begins) = (case.now, Naive::default(), Vec::new());
        for step in steps {
            match step {
                Step::Pass(millis) => {
                    naive.now += millis;
                    case.now += Duration::from_millis(millis);
                }
                Step::Tend { is_other_well } => {
                    case.is_other_well = is_other_well;
                    case.tend();
                    naive.tend(is_other_well);
                }
                Step::Hurry => {
                    case.circuit.hurry(case.now);
                    naive.hurry();
                }
                Step::Eject { is_refusal, wanted } => {
                    let cause = match is_refusal {
                        true => Cause::ConnectionRefused,
                        false => Cause::ConsecutiveErrors,
                    };
                    case.eject_for(cause, seconds(wanted));
                    naive.eject(is_refusal, wanted);
                }
                Step::Begin => {
                    let trial = case.circuit.begin_trial();
                    prop_assert_eq!(trial.is_some(), naive.is_on_probation && naive.trial.is_none());
                    if let Some(trial) = trial {
                        (naive.trial, naive.begun, naive.seen) = (Some(trial), trial, None);
                    }
                    begins.extend(trial);
                }
                Step::End(which, end) => if let Some(trial) = begins.iter().rev().nth(which) {
                    let (now, circuit) = (case.now, &mut case.circuit);
                    match end {
                        None => drop(circuit.trial_undecided(*trial)),
                        Some(true) => drop(circuit.trial_went_well(*trial, now)),
                        Some(false) => {
                            circuit.trial_failed(&case.params, *trial, Duration::ZERO, now);
                        }
                    }
                    naive.end(*trial, end);
                },
                Step::Reinstate => {
                    let number = case.circuit.ejection().map(|ejection| ejection.number);
                    // One that belongs to an ejection before changes nothing.
                    if let Some(number) = number {
                        prop_assert!(!case.circuit.reinstate(number - 1, case.now));
                        prop_assert!(case.circuit.reinstate(number, case.now));
                        naive.close();
                    }
                }
                Step::Report => {
                    case.circuit.close(case.now);
                    naive.close();
                }
            }
            let until = case.circuit.ejection().and_then(|ejection| ejection.until);
            let until = until.map(|until| (until - begun).as_millis() as u64);
            prop_assert_eq!(case.circuit.is_closed(), !naive.is_out);
            prop_assert_eq!(case.circuit.is_on_probation(), naive.is_on_probation);
            let takers = if naive.is_on_probation { naive.takers } else { Takers::None };
            prop_assert_eq!(case.circuit.takers(), takers);
            prop_assert_eq!(until, (naive.is_out && !naive.refuses).then_some(naive.rests_until));
        }
    }
}
