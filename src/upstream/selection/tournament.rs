//! Who has the least number of all: a tournament tree. Each place has a leaf, each node above knows the
//! lesser of its two, so a change climbs no further than it makes a difference, and the tree is as high as
//! the number of places has bits.

/// Of a place that takes no part.
const OUT: u64 = u64::MAX;

/// Places, some of which have a number.
pub(super) struct Tournament {
    /// The root is the second; the children of node `n` are `2 * n` and `2 * n + 1`; the second half are
    /// the leaves.
    nodes: Box<[u64]>,
}

impl Tournament {
    /// Nobody of so many takes part yet.
    pub(super) fn of(places: usize) -> Self {
        Self {
            nodes: vec![OUT; 2 * places.next_power_of_two()].into(),
        }
    }

    /// Nobody takes part any longer.
    pub(super) fn clear(&mut self) {
        self.nodes.fill(OUT);
    }

    /// The place takes part with this number, whatever it had before. Below `u64::MAX`.
    pub(super) fn enter(&mut self, place: usize, number: u64) {
        let mut node = self.nodes.len() / 2 + place;
        self.nodes[node] = number;
        while node > 1 {
            let lesser = self.nodes[node].min(self.nodes[node ^ 1]);
            node /= 2;
            if self.nodes[node] == lesser {
                return;
            }
            self.nodes[node] = lesser;
        }
    }

    /// The place takes no part any longer.
    pub(super) fn leave(&mut self, place: usize) {
        self.enter(place, OUT);
    }

    /// The first place from `start` to the end that has the least number of all.
    pub(super) fn first_least_from(&self, start: usize) -> Option<usize> {
        let (least, leaves) = (self.nodes[1], self.nodes.len() / 2);
        if least == OUT || start >= leaves {
            return None;
        }
        let mut node = leaves + start;
        while self.nodes[node] != least {
            // On to what stands behind it, and up to the highest node that begins there. Behind the
            // last leaf that is the root.
            node += 1;
            node >>= node.trailing_zeros();
            if node == 1 {
                return None;
            }
        }
        while node < leaves {
            node *= 2;
            node += usize::from(self.nodes[node] != least);
        }
        Some(node - leaves)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The reference is a list.
        #[test]
        fn finds_the_least_from_anywhere(
            places in prop::sample::select(vec![1, 2, 3, 8, 9, 1000]),
            steps in prop::collection::vec((0..20u64, any::<prop::sample::Index>()), 0..100),
        ) {
            let mut tournament = Tournament::of(places);
            let mut numbers = vec![None; places];
            for (kind, place) in steps {
                let place = place.index(places);
                match kind {
                    0 => {
                        tournament.clear();
                        numbers.fill(None);
                    }
                    1..10 => {
                        tournament.enter(place, kind);
                        numbers[place] = Some(kind);
                    }
                    _ => {
                        tournament.leave(place);
                        numbers[place] = None;
                    }
                }
                let least = numbers.iter().flatten().min();
                for start in [0, place, place + 1, places, places + 1] {
                    let mut behind = start..places;
                    let expected = least.and_then(|_| behind.find(|at| numbers[*at].as_ref() == least));
                    prop_assert_eq!(tournament.first_least_from(start), expected, "from {}", start);
                }
            }
        }
    }
}
