//! Whether a ping that was not answered in time says anything: a backend that serves one request at a time
//! answers none while it is at work, and proxies know what they have given it.
//!
//! Such a ping has an **excuse** when
//! - a proxy has heard from the backend since the ping began: it answers, if not pings; or
//! - when the ping timed out, all the slots that a proxy has there were in use. With one slot that is "a
//!   request in hand". With several, one request in hand explains nothing: another slot was free for the ping.
//!
//! A request that ended within the ping ended with an answer, which is the first case, or failed, which excuses
//! nothing; one that began after the ping timed out cannot have been in its way.
//!
//! A backend that hangs has requests in hand, too. So the second excuse ends, until the backend gives a sign
//! of life (a byte of an answer, or a good ping),
//! - when a request there ran into its own timeout;
//! - when it has been silent, with something in hand, for the limit;
//! - when pings have been excused for the limit: one request after the other that fails makes no silence that
//!   is long enough.
//!
//! A proxy that is gone has left its requests at the backend. What it said last stands in for it, until the
//! backend gives a sign of life: that it is still at them nobody knows then.
//!
//! Everything is an age, counted back from one moment: the clocks of two processes cannot be compared.

use std::time::Duration;

/// A ping that timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostPing {
    /// Since it began.
    pub begun: Duration,
    /// Since it timed out; at most `begun`.
    pub ended: Duration,
    /// Since the begin of the first of the excused pings up to this one, with no other between them; this
    /// one's own if it is the first.
    pub excused: Duration,
    /// Since the last ping that was answered well, if there was any.
    pub well: Option<Duration>,
}

/// What one proxy says of the backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Testimony {
    /// Slots taken.
    pub in_flight: u32,
    /// Slots that there are.
    pub max_in_flight: u32,
    /// Since it was given its latest request.
    pub given: Option<Duration>,
    /// For how long it has had something in hand and not sent a byte of an answer.
    pub silent: Option<Duration>,
    /// Since its latest byte of an answer.
    pub heard: Option<Duration>,
    /// Since it last let a request run into its timeout.
    pub overdue: Option<Duration>,
    /// Since the proxy said so, if it cannot be asked any more; zero: it has just been asked.
    pub known: Duration,
}

/// What a lost ping comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It says nothing: the backend has answered a request since it began.
    Alive {
        /// How long ago that was.
        heard: Duration,
    },
    /// It says nothing: the backend is at work.
    Busy {
        /// How many requests it has.
        in_hand: u32,
        /// For how long it has had the latest of them.
        given: Duration,
        /// Since when nobody knows more: [`Testimony::known`].
        known: Duration,
        /// For how long this goes on being an excuse, if nothing is heard.
        left: Duration,
    },
    /// It counts: the backend has something in hand, but has not given a sign of life for too long.
    Hung {
        /// For how long.
        silent: Duration,
    },
    /// It counts: a request there ran into its timeout, and the backend has not given a sign of life since.
    Overdue {
        /// How long ago that was.
        ago: Duration,
    },
    /// It counts: nobody knows of anything that kept the backend from answering.
    Idle,
}

impl Testimony {
    fn is_full(&self) -> bool {
        self.in_flight > 0 && self.in_flight >= self.max_in_flight
    }

    /// Whether all its slots were taken when the ping timed out.
    fn was_full(&self, ping: &LostPing) -> bool {
        self.is_full() && self.given.is_some_and(|given| given >= ping.ended)
    }
}

/// What a ping that timed out comes to by what each proxy that knows the backend says. `limit`: for how long
/// a silent backend is believed to be at work.
pub fn judge(ping: &LostPing, testimonies: &[Testimony], limit: Duration) -> Finding {
    let heard = testimonies.iter().filter_map(|one| one.heard).min();
    if let Some(heard) = heard.filter(|heard| *heard <= ping.begun) {
        return Finding::Alive { heard };
    }
    let life = heard.into_iter().chain(ping.well).min();
    let since_life = life.unwrap_or(Duration::MAX);
    let standing = testimonies.iter().filter(|one| one.known <= since_life);
    let full = standing.filter(|one| one.was_full(ping));
    // Any one will do; the one that knows of the latest request excuses for longest.
    let Some(witness) = full.min_by_key(|one| one.silent) else {
        return Finding::Idle;
    };
    let silent = witness.silent.unwrap_or_default();
    let unexplained = silent.max(ping.excused).min(since_life);
    let overdue = testimonies.iter().filter_map(|one| one.overdue).min();
    if let Some(ago) = overdue.filter(|ago| *ago < since_life) {
        return Finding::Overdue { ago };
    }
    if unexplained >= limit {
        return Finding::Hung {
            silent: unexplained,
        };
    }
    Finding::Busy {
        in_hand: witness.in_flight,
        given: witness.given.unwrap_or_default(),
        known: witness.known,
        left: limit - unexplained,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// One that took a second, and has just timed out.
    fn ping() -> LostPing {
        LostPing {
            begun: seconds(1.0),
            ended: seconds(0.0),
            excused: seconds(1.0),
            well: None,
        }
    }

    /// One slot, taken this long ago, and nothing heard since before.
    fn in_hand(given: f64) -> Testimony {
        Testimony {
            in_flight: 1,
            max_in_flight: 1,
            given: Some(seconds(given)),
            silent: Some(seconds(given)),
            heard: Some(seconds(given + 0.5)),
            ..Testimony::default()
        }
    }

    fn is_excused(finding: Finding) -> bool {
        matches!(finding, Finding::Alive { .. } | Finding::Busy { .. })
    }

    #[test]
    fn without_testimony_it_counts() {
        assert_eq!(judge(&ping(), &[], LIMIT), Finding::Idle);
        let idle = Testimony {
            max_in_flight: 1,
            heard: Some(seconds(7.0)),
            ..Testimony::default()
        };
        assert_eq!(judge(&ping(), &[idle], LIMIT), Finding::Idle);
        let without_slots = Testimony {
            max_in_flight: 0,
            given: Some(seconds(7.0)),
            ..idle
        };
        assert_eq!(judge(&ping(), &[without_slots], LIMIT), Finding::Idle);
    }

    #[test]
    fn a_request_in_hand_is_an_excuse_until_it_is_too_old() {
        let busy = Finding::Busy {
            in_hand: 1,
            given: seconds(2.5),
            known: Duration::ZERO,
            left: seconds(57.5),
        };
        assert_eq!(judge(&ping(), &[in_hand(2.5)], LIMIT), busy);
        assert!(is_excused(judge(&ping(), &[in_hand(59.9)], LIMIT)));
        let hung = Finding::Hung {
            silent: seconds(60.0),
        };
        assert_eq!(judge(&ping(), &[in_hand(60.0)], LIMIT), hung);
    }

    #[test]
    fn one_that_came_after_the_ping_is_none() {
        let ping = LostPing {
            begun: seconds(1.2),
            ended: seconds(0.2),
            ..ping()
        };
        let given = |given| Testimony {
            heard: None,
            ..in_hand(given)
        };
        assert_eq!(judge(&ping, &[given(0.1)], LIMIT), Finding::Idle);
        assert!(is_excused(judge(&ping, &[given(0.3)], LIMIT)));
    }

    #[test]
    fn one_that_ended_within_the_ping_is_one_if_it_was_answered() {
        let heard = |heard| Testimony {
            max_in_flight: 1,
            given: Some(seconds(3.0)),
            heard: Some(seconds(heard)),
            ..Testimony::default()
        };
        let alive = Finding::Alive {
            heard: seconds(0.4),
        };
        assert_eq!(judge(&ping(), &[heard(0.4)], LIMIT), alive);
        assert_eq!(judge(&ping(), &[heard(1.1)], LIMIT), Finding::Idle);
    }

    #[test]
    fn with_several_slots_all_of_them_must_be_taken() {
        let several = |in_flight| Testimony {
            in_flight,
            max_in_flight: 4,
            ..in_hand(2.0)
        };
        assert_eq!(judge(&ping(), &[several(1)], LIMIT), Finding::Idle);
        assert_eq!(judge(&ping(), &[several(3)], LIMIT), Finding::Idle);
        assert!(is_excused(judge(&ping(), &[several(4)], LIMIT)));
        assert!(is_excused(judge(&ping(), &[several(5)], LIMIT)), "lowered");
    }

    #[test]
    fn an_answer_that_comes_in_pieces_is_life() {
        let streaming = Testimony {
            given: Some(seconds(300.0)),
            silent: Some(seconds(1.5)),
            heard: Some(seconds(1.5)),
            ..in_hand(0.0)
        };
        assert!(is_excused(judge(&ping(), &[streaming], LIMIT)));
    }

    #[test]
    fn any_proxy_may_excuse_and_what_one_hears_ends_the_silence_of_all() {
        let stranger = Testimony::default();
        let (idle, old) = (
            Testimony {
                in_flight: 0,
                silent: None,
                ..in_hand(9.0)
            },
            Testimony {
                heard: None,
                ..in_hand(70.0)
            },
        );
        let recent = Testimony {
            heard: None,
            ..in_hand(2.0)
        };
        assert!(is_excused(judge(&ping(), &[stranger, in_hand(2.0)], LIMIT)));
        assert!(is_excused(judge(&ping(), &[old, recent], LIMIT)));
        assert!(is_excused(judge(&ping(), &[in_hand(2.0), old], LIMIT)));
        assert!(!is_excused(judge(&ping(), &[stranger, old], LIMIT)));
        // It waits at the backend behind the requests of the other proxy, which are answered.
        assert!(is_excused(judge(&ping(), &[idle, old], LIMIT)));
    }

    #[test]
    fn what_a_proxy_that_is_gone_had_there_excuses_until_there_is_life() {
        let left = |known: f64| Testimony {
            known: seconds(known),
            ..in_hand(20.0)
        };
        let finding = judge(&ping(), &[left(9.0)], LIMIT);
        assert!(
            matches!(finding, Finding::Busy { known, .. } if known == seconds(9.0)),
            "{finding:?}"
        );
        let too_long = Testimony {
            known: seconds(9.0),
            ..in_hand(60.0)
        };
        assert!(!is_excused(judge(&ping(), &[too_long], LIMIT)));
        let pinged = LostPing {
            well: Some(seconds(8.0)),
            ..ping()
        };
        assert_eq!(judge(&pinged, &[left(9.0)], LIMIT), Finding::Idle);
        let heard = Testimony {
            max_in_flight: 1,
            heard: Some(seconds(8.0)),
            ..Testimony::default()
        };
        assert_eq!(judge(&ping(), &[left(9.0), heard], LIMIT), Finding::Idle);
        // Before it said so, or somebody who has been asked just now: that says nothing.
        assert!(is_excused(judge(&ping(), &[left(7.0), heard], LIMIT)));
        assert!(is_excused(judge(&ping(), &[in_hand(20.0), heard], LIMIT)));
    }

    #[test]
    fn a_request_that_ran_into_its_timeout_ends_the_excuse_until_there_is_life() {
        let overdue = Testimony {
            overdue: Some(seconds(5.0)),
            heard: Some(seconds(8.0)),
            ..in_hand(2.0)
        };
        let finding = Finding::Overdue { ago: seconds(5.0) };
        assert_eq!(judge(&ping(), &[overdue], LIMIT), finding);
        let another = Testimony {
            overdue: Some(seconds(50.0)),
            ..Testimony::default()
        };
        assert!(!is_excused(judge(&ping(), &[overdue, another], LIMIT)));
        let heard = Testimony {
            heard: Some(seconds(4.0)),
            ..overdue
        };
        assert!(is_excused(judge(&ping(), &[heard], LIMIT)));
        let at_once = Testimony {
            heard: Some(seconds(5.0)),
            ..overdue
        };
        assert!(is_excused(judge(&ping(), &[at_once], LIMIT)));
        let pinged = LostPing {
            well: Some(seconds(3.0)),
            ..ping()
        };
        assert!(is_excused(judge(&pinged, &[overdue], LIMIT)));
    }

    #[test]
    fn a_chain_of_requests_that_all_fail_is_no_excuse_for_ever() {
        let excused_for = |excused: f64, heard: f64| {
            let ping = LostPing {
                excused: seconds(excused),
                ..ping()
            };
            let chain = Testimony {
                heard: Some(seconds(heard)),
                ..in_hand(0.9)
            };
            is_excused(judge(&ping, &[chain], LIMIT))
        };
        assert!(excused_for(59.0, 100.0));
        assert!(!excused_for(60.0, 100.0));
        assert!(excused_for(600.0, 3.0), "answered between the pings");
    }

    fn age() -> impl Strategy<Value = Option<Duration>> {
        proptest::option::of((0u64..100_000).prop_map(Duration::from_millis))
    }

    prop_compose! {
        fn testimony()(
            in_flight in 0u32..4, max_in_flight in 1u32..4,
            given in age(), silent in age(), heard in age(), overdue in age(), known in age(),
        ) -> Testimony {
            let known = known.unwrap_or_default();
            Testimony { in_flight, max_in_flight, given, silent, heard, overdue, known }
        }
    }

    proptest! {
        /// What must hold whatever proxies say: they may lie, and be of another version.
        #[test]
        fn silence_of_the_limit_is_never_excused(
            testimonies in proptest::collection::vec(testimony(), 0..4),
            begun in 0u64..10_000,
            took in 0u64..10_000,
            excused in 0u64..100_000,
            well in age(),
        ) {
            let [begun, ended] = [begun, begun.saturating_sub(took)].map(Duration::from_millis);
            let excused = Duration::from_millis(excused).max(begun);
            let ping = LostPing { begun, ended, excused, well };
            let heard = testimonies.iter().filter_map(|one| one.heard).min();
            let life = heard.into_iter().chain(well).min().unwrap_or(Duration::MAX);
            match judge(&ping, &testimonies, LIMIT) {
                Finding::Alive { heard: ago } => prop_assert!(heard == Some(ago) && ago <= begun),
                Finding::Busy { left, known, .. } => {
                    prop_assert!(known <= life);
                    prop_assert!(left <= LIMIT && left > Duration::ZERO);
                    prop_assert!(excused.min(life) < LIMIT);
                }
                Finding::Hung { .. } | Finding::Overdue { .. } => prop_assert!(heard.is_none_or(|heard| heard > begun)),
                Finding::Idle => {}
            }
        }
    }
}
