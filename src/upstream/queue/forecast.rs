//! How many go before one who comes now: what its wait is estimated by. Pure arithmetic over the classes.

use super::lines::CLASSES;

/// How many are likely to be called before one who comes now, if nobody came after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct Ahead {
    /// As urgency has it.
    pub(in crate::upstream) by_urgency: usize,
    /// From the moment on at which its own class is due for its sake, at the most; where that may help.
    pub(in crate::upstream) once_due: Option<usize>,
}

/// What there is to know of a class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlook {
    pub(super) waiting: usize,
    pub(super) is_due: bool,
    /// A less urgent class has had a slot since its own last.
    pub(super) gave_way: bool,
}

/// How many go before one of class `own` that has `within` of its own class before it.
pub(super) fn ahead(own: usize, within: usize, classes: &[Outlook; CLASSES]) -> Ahead {
    let (above, rest) = classes.split_at(own);
    let shared = share_of_above(within + 1, above);
    // Others that it has overtaken, as each client has its turn, may keep its class due.
    let above = if rest[0].is_due && rest[0].waiting > within {
        shared
    } else {
        above.iter().map(|class| class.waiting).sum()
    };
    let below = rest[1..].iter().filter(|class| class.is_due);
    let below: usize = below.map(|class| class.waiting).sum();
    // A class gives way once before each slot of its own.
    let given_way = within + above + usize::from(!rest[0].gave_way);
    Ahead {
        by_urgency: within + above + below.min(given_way),
        once_due: (own > 0).then_some(within + shared),
    }
}

/// How many of more urgent classes go before a class that is due has had so many slots: each class has one for
/// each that it gives away.
fn share_of_above(slots: usize, above: &[Outlook]) -> usize {
    let nearest_first = above.iter().rev();
    nearest_first.fold(0, |taken, class| taken + class.waiting.min(slots + taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Outlook = Outlook {
        waiting: 0,
        is_due: false,
        gave_way: false,
    };

    fn waiting(waiting: usize) -> Outlook {
        Outlook { waiting, ..NOBODY }
    }

    fn due(waiting: usize) -> Outlook {
        Outlook {
            waiting,
            is_due: true,
            ..NOBODY
        }
    }

    #[test]
    fn all_that_is_more_urgent_goes_before_until_the_own_class_is_due() {
        let hall = [waiting(5), waiting(3), waiting(4)];
        let ahead_of_last = ahead(2, 4, &hall);
        assert_eq!(ahead_of_last.by_urgency, 5 + 3 + 4);
        // Five slots for its own class, before each one of `normal`, and before each of these one of `high`.
        assert_eq!(ahead_of_last.once_due, Some(4 + 3 + 5));
        assert_eq!(ahead(2, 0, &hall).once_due, Some(1 + 2));
        assert_eq!(ahead(1, 1, &hall).by_urgency, 5 + 1);
        assert_eq!(ahead(1, 1, &hall).once_due, Some(1 + 2));
        assert_eq!(ahead(0, 5, &hall).once_due, None, "nothing is more urgent");
    }

    #[test]
    fn who_has_overtaken_others_of_a_due_class_waits_for_its_share_only() {
        let hall = [waiting(9), waiting(9), due(4)];
        // Two slots of its class, two of `normal`, four of `high`.
        assert_eq!(ahead(2, 1, &hall).by_urgency, 1 + 2 + 4);
        assert_eq!(ahead(2, 4, &hall).by_urgency, 4 + 9 + 9, "the last of all");
    }

    #[test]
    fn a_due_class_has_a_slot_before_each_of_a_more_urgent_one() {
        let by_urgency = |own, low| ahead(0, 2, &[own, NOBODY, low]).by_urgency;
        let gave_way = Outlook {
            gave_way: true,
            ..waiting(2)
        };
        assert_eq!(by_urgency(waiting(2), waiting(9)), 2);
        assert_eq!(by_urgency(waiting(2), due(9)), 2 + 3);
        assert_eq!(by_urgency(gave_way, due(9)), 2 + 2, "it gave way already");
        assert_eq!(by_urgency(waiting(2), due(1)), 2 + 1);
        let both = [waiting(2), due(1), due(1)];
        assert_eq!(ahead(0, 2, &both).by_urgency, 2 + 2);
    }
}
