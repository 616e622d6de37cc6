//! Doubly linked lists through arrays: whoever stands in one is known by an index, and joins, leaves
//! from anywhere and goes to the back in a few assignments.
//!
//! Invariant: an index stands in one list of a [`Chains`] at the most. The owner knows in which.

/// Who stands in line, from one end to the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct List {
    head: Link,
    tail: Link,
}

impl List {
    pub(super) fn head(&self) -> Option<usize> {
        self.head.index()
    }

    pub(super) fn tail(&self) -> Option<usize> {
        self.tail.index()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head().is_none()
    }
}

/// An index or the end, in half the room: thousands are gone through in no order, and what counts then is
/// how many of them a cache holds. The configuration lets a million wait, far below the limit.
#[derive(Clone, Copy, Debug)]
struct Link(u32);

const END: u32 = u32::MAX;

impl Link {
    fn to(index: Option<usize>) -> Self {
        Self(index.map_or(END, |index| index as u32))
    }

    fn index(self) -> Option<usize> {
        (self.0 != END).then_some(self.0 as usize)
    }
}

impl Default for Link {
    fn default() -> Self {
        Self(END)
    }
}

/// The links of many lists, by index.
#[derive(Debug, Default)]
pub(super) struct Chains {
    links: Vec<Links>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Links {
    previous: Link,
    next: Link,
}

impl Chains {
    /// Who stands behind `index`.
    pub(super) fn next(&self, index: usize) -> Option<usize> {
        self.links[index].next.index()
    }

    pub(super) fn push_back(&mut self, list: &mut List, index: usize) {
        let before = list.tail;
        let links = Links {
            previous: before,
            next: Link::default(),
        };
        match self.links.get_mut(index) {
            Some(place) => *place = links,
            None => {
                self.links.resize(index, Links::default());
                self.links.push(links);
            }
        }
        list.tail = Link::to(Some(index));
        match before.index() {
            Some(before) => self.links[before].next = list.tail,
            None => list.head = list.tail,
        }
    }

    /// Behind `before`, or in front of all.
    pub(super) fn insert_after(&mut self, list: &mut List, before: Option<usize>, index: usize) {
        let after = match before {
            Some(before) => self.next(before),
            None => list.head(),
        };
        if index >= self.links.len() {
            self.links.resize(index + 1, Links::default());
        }
        self.link(list, before, Some(index));
        self.link(list, Some(index), after);
    }

    pub(super) fn remove(&mut self, list: &mut List, index: usize) {
        let Links { previous, next } = self.links[index];
        self.link(list, previous.index(), next.index());
    }

    pub(super) fn move_to_back(&mut self, list: &mut List, index: usize) {
        if list.tail() != Some(index) {
            self.remove(list, index);
            self.push_back(list, index);
        }
    }

    /// Makes `left` and `right` neighbours; `None` is the end of the list.
    fn link(&mut self, list: &mut List, left: Option<usize>, right: Option<usize>) {
        match left {
            Some(index) => self.links[index].next = Link::to(right),
            None => list.head = Link::to(right),
        }
        match right {
            Some(index) => self.links[index].previous = Link::to(left),
            None => list.tail = Link::to(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INDICES: usize = 8;

    fn listed(chains: &Chains, list: &List) -> Vec<usize> {
        std::iter::successors(list.head(), |index| chains.next(*index)).collect()
    }

    proptest! {
        /// The reference is a vector per list.
        #[test]
        fn two_lists_behave_as_vectors(steps in prop::collection::vec((0..4u8, 0..INDICES, any::<usize>()), 0..100)) {
            let mut chains = Chains::default();
            let mut lists = [List::default(); 2];
            let mut model: [Vec<usize>; 2] = Default::default();
            for (step, index, number) in steps {
                let place = model.iter().position(|one| one.contains(&index));
                match (step, place) {
                    (0, None) => {
                        chains.push_back(&mut lists[number % 2], index);
                        model[number % 2].push(index);
                    }
                    (1, None) => {
                        let (list, model) = (&mut lists[number % 2], &mut model[number % 2]);
                        let at = number % (model.len() + 1);
                        let before = at.checked_sub(1).map(|at| model[at]);
                        chains.insert_after(list, before, index);
                        model.insert(at, index);
                    }
                    (2, Some(place)) => {
                        chains.remove(&mut lists[place], index);
                        model[place].retain(|other| *other != index);
                    }
                    (3, Some(place)) => {
                        chains.move_to_back(&mut lists[place], index);
                        model[place].retain(|other| *other != index);
                        model[place].push(index);
                    }
                    _ => {}
                }
                for (list, model) in lists.iter().zip(&model) {
                    prop_assert_eq!(&listed(&chains, list), model);
                    prop_assert_eq!(list.tail(), model.last().copied());
                    prop_assert_eq!(list.is_empty(), model.is_empty());
                }
            }
        }
    }
}
