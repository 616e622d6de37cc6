//! Doubly linked lists through one array: whoever stands in some is known by an index, and joins, leaves
//! from anywhere and goes to the back in a few assignments.
//!
//! All that is known of one index lies together, in however many lists it stands: thousands are gone through
//! in no order, and what counts then is how many lines of a cache each of them takes.
//!
//! Invariant: an index stands in one list of each kind at the most. The owner knows in which.

/// Who stands in line, from one end to the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct List {
    head: Link,
    tail: Link,
    length: u32,
}

impl List {
    pub(super) fn head(&self) -> Option<usize> {
        self.head.index()
    }

    pub(super) fn tail(&self) -> Option<usize> {
        self.tail.index()
    }

    /// How many stand in it.
    pub(super) fn len(&self) -> usize {
        self.length as usize
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// An index or the end, in half the room. The configuration lets a million wait, far below the limit.
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

/// The links of many lists of `KINDS` kinds, by index, and something that is noted beside them.
#[derive(Debug)]
pub(super) struct Chains<const KINDS: usize, Note = ()> {
    nodes: Vec<Node<KINDS, Note>>,
}

#[derive(Clone, Copy, Debug)]
struct Node<const KINDS: usize, Note> {
    links: [Links; KINDS],
    note: Note,
}

#[derive(Clone, Copy, Debug, Default)]
struct Links {
    previous: Link,
    next: Link,
}

impl<const KINDS: usize, Note: Copy + Default> Chains<KINDS, Note> {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new() }
    }

    /// What was noted of one that stands in a list.
    pub(super) fn note(&self, index: usize) -> Note {
        self.nodes[index].note
    }

    /// Notes something of one that stands in a list.
    pub(super) fn set_note(&mut self, index: usize, note: Note) {
        self.nodes[index].note = note;
    }

    /// Who stands behind `index`.
    pub(super) fn next<const KIND: usize>(&self, index: usize) -> Option<usize> {
        self.nodes[index].links[KIND].next.index()
    }

    pub(super) fn push_back<const KIND: usize>(&mut self, list: &mut List, index: usize) {
        self.insert_after::<KIND>(list, list.tail(), index);
    }

    /// Behind `before`, or in front of all.
    pub(super) fn insert_after<const KIND: usize>(
        &mut self,
        list: &mut List,
        before: Option<usize>,
        index: usize,
    ) {
        let after = match before {
            Some(before) => self.next::<KIND>(before),
            None => list.head(),
        };
        if index >= self.nodes.len() {
            let nothing = Node {
                links: [Links::default(); KINDS],
                note: Note::default(),
            };
            self.nodes.resize(index + 1, nothing);
        }
        list.length += 1;
        self.link::<KIND>(list, before, Some(index));
        self.link::<KIND>(list, Some(index), after);
    }

    pub(super) fn remove<const KIND: usize>(&mut self, list: &mut List, index: usize) {
        let Links { previous, next } = self.nodes[index].links[KIND];
        list.length -= 1;
        self.link::<KIND>(list, previous.index(), next.index());
    }

    pub(super) fn move_to_back<const KIND: usize>(&mut self, list: &mut List, index: usize) {
        if list.tail() != Some(index) {
            self.remove::<KIND>(list, index);
            self.push_back::<KIND>(list, index);
        }
    }

    /// Makes `left` and `right` neighbours; `None` is the end of the list.
    fn link<const KIND: usize>(
        &mut self,
        list: &mut List,
        left: Option<usize>,
        right: Option<usize>,
    ) {
        match left {
            Some(index) => self.nodes[index].links[KIND].next = Link::to(right),
            None => list.head = Link::to(right),
        }
        match right {
            Some(index) => self.nodes[index].links[KIND].previous = Link::to(left),
            None => list.tail = Link::to(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INDICES: usize = 8;

    fn listed<const KIND: usize>(chains: &Chains<2>, list: &List) -> Vec<usize> {
        std::iter::successors(list.head(), |index| chains.next::<KIND>(*index)).collect()
    }

    /// Two lists of one kind, and what a vector for each says.
    #[derive(Default)]
    struct Pair {
        lists: [List; 2],
        model: [Vec<usize>; 2],
    }

    impl Pair {
        fn step<const KIND: usize>(
            &mut self,
            chains: &mut Chains<2>,
            (step, index, number): (u8, usize, usize),
        ) {
            let (lists, model) = (&mut self.lists, &mut self.model);
            let place = model.iter().position(|one| one.contains(&index));
            match (step, place) {
                (0, None) => {
                    chains.push_back::<KIND>(&mut lists[number % 2], index);
                    model[number % 2].push(index);
                }
                (1, None) => {
                    let (list, model) = (&mut lists[number % 2], &mut model[number % 2]);
                    let at = number % (model.len() + 1);
                    let before = at.checked_sub(1).map(|at| model[at]);
                    chains.insert_after::<KIND>(list, before, index);
                    model.insert(at, index);
                }
                (2, Some(place)) => {
                    chains.remove::<KIND>(&mut lists[place], index);
                    model[place].retain(|other| *other != index);
                }
                (3, Some(place)) => {
                    chains.move_to_back::<KIND>(&mut lists[place], index);
                    model[place].retain(|other| *other != index);
                    model[place].push(index);
                }
                _ => {}
            }
        }

        fn check<const KIND: usize>(&self, chains: &Chains<2>) {
            for (list, model) in self.lists.iter().zip(&self.model) {
                assert_eq!(&listed::<KIND>(chains, list), model);
                assert_eq!(list.tail(), model.last().copied());
                assert_eq!(list.len(), model.len());
                assert_eq!(list.is_empty(), model.is_empty());
            }
        }
    }

    proptest! {
        /// Of two kinds, which know nothing of each other.
        #[test]
        fn lists_behave_as_vectors(
            steps in prop::collection::vec((any::<bool>(), (0..4u8, 0..INDICES, any::<usize>())), 0..200),
        ) {
            let mut chains = Chains::new();
            let (mut one, mut other) = (Pair::default(), Pair::default());
            for (is_one, step) in steps {
                if is_one {
                    one.step::<0>(&mut chains, step);
                } else {
                    other.step::<1>(&mut chains, step);
                }
                one.check::<0>(&chains);
                other.check::<1>(&chains);
            }
        }
    }
}
