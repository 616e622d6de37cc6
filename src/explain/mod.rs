//! Why a request went where it went: what was decided for the last requests, and by what.
//!
//! While a request is under way its [`Explanation`] is its own; when it is over, it takes the place of the oldest
//! one that is kept. Nothing is rendered before somebody asks.
//!
//! Invariants: each request is noted in a bounded number of bytes, whatever it says of itself and however many
//! backends there are; it holds no memory of its connection; keeping it takes the lock of one place, which nobody
//! else wants unless somebody asks.

mod json;
mod record;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

pub use json::FIELD_BYTES_MAX;
pub use record::{Attempt, End, Explanation, ReportSeen, Request};

/// The last explanations. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub struct Explanations(Arc<Kept>);

struct Kept {
    /// Not empty.
    places: Box<[Mutex<Option<Entry>>]>,
    next: AtomicU64,
}

struct Entry {
    /// Its place among all that were ever kept.
    number: u64,
    explanation: Box<Explanation>,
}

impl Explanations {
    /// Room for so many; `None` for none.
    pub fn new(capacity: usize) -> Option<Self> {
        let places = (0..capacity).map(|_| Mutex::default()).collect();
        (capacity > 0).then(|| {
            Self(Arc::new(Kept {
                places,
                next: AtomicU64::new(0),
            }))
        })
    }

    /// Keeps one, instead of the oldest.
    pub fn keep(&self, explanation: Box<Explanation>) {
        let number = self.0.next.fetch_add(1, Relaxed);
        let index = number % self.0.places.len() as u64;
        let entry = Entry {
            number,
            explanation,
        };
        let forgotten = self.0.places[index as usize].lock().replace(entry);
        // Outside the lock.
        drop(forgotten);
    }

    /// The newest one of this id (clients may use theirs more than once), as `show` makes it. Looks at all of
    /// them, one after the other.
    pub fn find<T>(&self, id: &str, show: impl FnOnce(&Explanation) -> T) -> Option<T> {
        let numbers = self
            .0
            .places
            .iter()
            .enumerate()
            .filter_map(|(index, place)| {
                let place = place.lock();
                let entry = place.as_ref()?;
                (entry.explanation.id() == id).then_some((entry.number, index))
            });
        let (number, index) = numbers.max()?;
        let place = self.0.places[index].lock();
        // It may have been forgotten meanwhile.
        let entry = place.as_ref().filter(|entry| entry.number == number)?;
        Some(show(&entry.explanation))
    }
}

#[cfg(test)]
mod tests {
    use super::record::fixtures::explanation;
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_the_newest_of_an_id_is_found() {
        let kept = Explanations::new(3).unwrap();
        for (id, target) in [("a", "/1"), ("b", "/2"), ("a", "/3"), ("c", "/4")] {
            kept.keep(explanation(id, target));
        }
        let target = |id| kept.find(id, |explanation| explanation.target().into_owned());
        assert_eq!(target("a").as_deref(), Some("/3"));
        assert_eq!(target("b").as_deref(), Some("/2"));
        assert_eq!(target("c").as_deref(), Some("/4"));
        kept.keep(explanation("d", "/5"));
        assert_eq!((target("b"), target("")), (None, None));
        assert!(Explanations::new(0).is_none());
    }
}
