//! How many go before one who comes now: what its wait is estimated by. Pure arithmetic over the classes.

use super::lines::CLASSES;

/// What there is to know of a class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlook {
    pub(super) waiting: usize,
    pub(super) is_due: bool,
    /// A less urgent class has had a slot since its own last.
    pub(super) gave_way: bool,
}

/// How many go before one of class `own` that has `within` of its own class before it.
pub(super) fn ahead(own: usize, within: usize, classes: &[Outlook; CLASSES]) -> usize {
    let (above, rest) = classes.split_at(own);
    let above = more_urgent(within + 1, rest[0].is_due, above);
    let below = rest[1..].iter().filter(|class| class.is_due);
    let below: usize = below.map(|class| class.waiting).sum();
    within + above + below.min(slots_given_way(within, above, &rest[0]))
}

/// Those of more urgent classes: all of them, unless its own class is due. Then each class above has a slot
/// for each that it gives away.
fn more_urgent(slots: usize, is_due: bool, above: &[Outlook]) -> usize {
    let mut taken = 0;
    for class in above.iter().rev() {
        let share = if is_due { slots + taken } else { usize::MAX };
        taken += class.waiting.min(share);
    }
    taken
}

/// How many slots less urgent classes may have meanwhile: a class gives way once before each slot of its own.
/// A class that is due shares what others give away, and has as many as it gives.
fn slots_given_way(within: usize, above: usize, own: &Outlook) -> usize {
    let given = if own.is_due { within } else { within + above };
    given + usize::from(!own.gave_way)
}
