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
