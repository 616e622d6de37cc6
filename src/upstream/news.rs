//! What a change of health is told as: an event for each backend that it concerns, of a bounded number.

use super::account::Terms;
use super::health_check::Identity;
use super::slots::Edition;
use super::{Backend, Ineligible, NAMED_MAX, Upstream};
use crate::events::Event;
use crate::health::Ruling;

impl Upstream {
    /// Tells of every backend that may have requests now and might not, or the other way round, or not for
    /// another cause than before; and whose slots or weight are others. `replaced` was in force until now.
    pub(super) fn tell_changes(&self, replaced: &Edition, ruling: &Ruling, terms: &[Terms]) {
        let mut count = 0;
        let mut tell = |event: &dyn Fn() -> Event| {
            count += 1;
            if count <= NAMED_MAX {
                self.events.publish(event());
            }
        };
        for ((backend, was), is) in self.backends.iter().zip(&replaced.terms).zip(terms) {
            if has_turned(was, is) {
                tell(&|| self.turned(backend, ruling));
            }
            let (upstream, name) = (&self.params.name, backend.name());
            if was.max_in_flight != is.max_in_flight {
                tell(&|| Event::SlotsChanged {
                    upstream: upstream.clone(),
                    backend: name.clone(),
                    from: was.max_in_flight,
                    to: is.max_in_flight,
                });
            }
            if was.weight != is.weight {
                tell(&|| Event::WeightChanged {
                    upstream: upstream.clone(),
                    backend: name.clone(),
                    from: was.weight,
                    to: is.weight,
                });
            }
        }
        if let Some(more) = count.checked_sub(NAMED_MAX).filter(|more| *more > 0) {
            let upstream = self.params.name.clone();
            self.events
                .publish(Event::BackendsChanged { upstream, more });
        }
    }

    fn turned(&self, backend: &Backend, ruling: &Ruling) -> Event {
        let standing = Identity::of(backend.params()).standing(ruling);
        let (upstream, name) = (self.params.name.clone(), backend.name().clone());
        match Ineligible::by(standing) {
            None => Event::BackendAdmitted {
                upstream,
                backend: name,
            },
            Some(why) => Event::BackendKeptOut {
                upstream,
                backend: name,
                cause: standing.name(),
                why: why.to_string(),
            },
        }
    }
}

/// A reason in other words is no other cause: pollers write how long a ping took.
fn has_turned(was: &Terms, is: &Terms) -> bool {
    was.admitted != is.admitted || !is.admitted && was.standing != is.standing
}
