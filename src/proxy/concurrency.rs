//! How many requests are under way, waiting ones included: in the whole proxy, and of each route.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::config::Config;

/// The limits of a proxy. Live: it counts.
pub struct Concurrency {
    all: Limit,
    /// By route index; `None`: as many as the proxy takes.
    routes: Vec<Option<Limit>>,
}

struct Limit {
    most: usize,
    under_way: Arc<AtomicUsize>,
}

/// A place among the requests under way, given back on `Drop`.
struct Place(Arc<AtomicUsize>);

/// Leave to be under way.
pub struct Permit {
    _all: Place,
    _route: Option<Place>,
}

impl Concurrency {
    /// Nothing is under way yet.
    pub fn new(config: &Config) -> Self {
        let routes = config.routes.iter();
        Self {
            all: Limit::new(config.limits.max_concurrent_requests),
            routes: routes
                .map(|route| route.max_concurrent_requests.map(Limit::new))
                .collect(),
        }
    }

    /// Lets a request of this route in, unless that would be one too many.
    pub fn enter(&self, route: usize) -> Option<Permit> {
        let limit = self.routes.get(route).and_then(Option::as_ref);
        Some(Permit {
            _all: self.all.enter()?,
            _route: match limit {
                Some(limit) => Some(limit.enter()?),
                None => None,
            },
        })
    }
}

impl Limit {
    fn new(most: usize) -> Self {
        Self {
            most,
            under_way: Arc::default(),
        }
    }

    fn enter(&self) -> Option<Place> {
        let place = Place(self.under_way.clone());
        // Counted before it is compared, so that two who come at once are never both let in.
        let before = self.under_way.fetch_add(1, Relaxed);
        (before < self.most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concurrency(all: usize, routes: &[Option<usize>]) -> Concurrency {
        Concurrency {
            all: Limit::new(all),
            routes: routes.iter().map(|most| most.map(Limit::new)).collect(),
        }
    }

    #[test]
    fn one_too_many_is_let_in_when_another_is_over() {
        let limits = concurrency(2, &[None]);
        let (first, _second) = (limits.enter(0), limits.enter(0));
        assert!(first.is_some() && limits.enter(0).is_none());
        drop(first);
        assert!(limits.enter(0).is_some());
    }

    #[test]
    fn a_route_that_is_full_leaves_room_to_the_others() {
        let limits = concurrency(3, &[Some(1), None]);
        let _first = limits.enter(0).unwrap();
        for _ in 0..10 {
            assert!(limits.enter(0).is_none());
        }
        let _others = [limits.enter(1).unwrap(), limits.enter(1).unwrap()];
        assert!(limits.enter(1).is_none());
    }
}
