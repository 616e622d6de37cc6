//! What was found out last of every target, and when that is to be written.
//!
//! It is due at once when a verdict changed, and each time that every target has reported: once an
//! interval, because the proxy counts freshness from the last write, but only as long as pings really
//! come to an end: a poller that is stuck must not look alive.

use std::collections::{HashMap, HashSet};

use super::record::Judgement;
use crate::id::BackendName;

/// News of one target.
#[derive(Debug)]
pub(super) struct Finding {
    pub name: BackendName,
    /// `None`: it is in maintenance and was not pinged.
    pub judgement: Option<Judgement>,
}

/// The last finding of every target of the plan.
#[derive(Default)]
pub(super) struct Ledger {
    findings: HashMap<BackendName, Option<Judgement>>,
    /// Who has not reported since all last had; not empty, unless there is no target.
    awaited: HashSet<BackendName>,
    is_due: bool,
    /// Rounds that are over and were not asked for.
    rounds: u32,
}

impl Ledger {
    /// Goes on with these targets: forgets others, and awaits the new ones.
    pub fn expect<'a>(&mut self, names: impl Iterator<Item = &'a BackendName>) {
        let mut before = std::mem::take(&mut self.findings);
        let awaited_before = std::mem::take(&mut self.awaited);
        for name in names {
            let known = before.remove(name);
            if known.is_none() || awaited_before.contains(name) {
                self.awaited.insert(name.clone());
            }
            self.findings.insert(name.clone(), known.flatten());
        }
        self.complete_round();
    }

    /// Takes in a finding; one of a target that was removed meanwhile says nothing.
    pub fn take(&mut self, finding: Finding) {
        let Some(last) = self.findings.get_mut(&finding.name) else {
            return;
        };
        self.is_due |= finding.judgement.as_ref().is_some_and(|one| one.is_news);
        *last = finding.judgement;
        self.awaited.remove(&finding.name);
        self.complete_round();
    }

    /// Whether it is to be written now; after a yes, no until there is another reason.
    pub fn take_due(&mut self) -> bool {
        std::mem::take(&mut self.is_due)
    }

    /// How many rounds are over since this was asked last.
    pub fn take_rounds(&mut self) -> u32 {
        std::mem::take(&mut self.rounds)
    }

    /// What was found out last; `None` of a target that has not reported or is in maintenance.
    pub fn judgement(&self, name: &BackendName) -> Option<&Judgement> {
        self.findings.get(name)?.as_ref()
    }

    fn complete_round(&mut self) {
        if self.awaited.is_empty() {
            self.awaited.extend(self.findings.keys().cloned());
            self.is_due = true;
            self.rounds += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Word;
    use super::*;

    fn expecting(names: &[&str]) -> Ledger {
        let mut ledger = Ledger::default();
        expect(&mut ledger, names);
        assert!(!ledger.take_due());
        ledger
    }

    fn expect(ledger: &mut Ledger, names: &[&str]) {
        let names: Vec<BackendName> = names.iter().map(|name| (*name).into()).collect();
        ledger.expect(names.iter());
    }

    /// Reports, and says whether a write is due.
    fn takes(ledger: &mut Ledger, name: &str, is_news: bool) -> bool {
        let judgement = Judgement {
            healthy: true,
            verdict: Word::Up,
            reason: "200 in 3 ms".into(),
            is_news,
        };
        ledger.take(Finding {
            name: name.into(),
            judgement: Some(judgement),
        });
        ledger.take_due()
    }

    #[test]
    fn a_change_is_due_at_once_and_the_rest_when_all_have_reported() {
        let mut ledger = expecting(&["a", "b"]);
        assert!(takes(&mut ledger, "a", true));
        assert!(!takes(&mut ledger, "a", false));
        assert_eq!(ledger.take_rounds(), 0);
        assert!(takes(&mut ledger, "b", false));
        assert_eq!((ledger.take_rounds(), ledger.take_rounds()), (1, 0));
        assert!(!takes(&mut ledger, "b", false));
        assert!(takes(&mut ledger, "a", false));
    }

    #[test]
    fn one_that_does_not_report_holds_up_the_rounds_but_not_the_changes() {
        let mut ledger = expecting(&["a", "b"]);
        assert!((0..10).all(|_| !takes(&mut ledger, "a", false)));
        assert!(takes(&mut ledger, "a", true));
    }

    #[test]
    fn maintenance_is_a_report_too_and_ends_the_judgement() {
        let mut ledger = expecting(&["a"]);
        takes(&mut ledger, "a", true);
        ledger.take(Finding {
            name: "a".into(),
            judgement: None,
        });
        assert!(ledger.take_due());
        assert_eq!(ledger.judgement(&"a".into()), None);
    }

    #[test]
    fn a_reload_keeps_forgets_and_awaits() {
        let mut ledger = expecting(&["a", "b"]);
        takes(&mut ledger, "a", true);
        expect(&mut ledger, &["a", "c"]);
        assert!(ledger.judgement(&"a".into()).is_some());
        assert!(!takes(&mut ledger, "b", true), "removed");
        assert!(takes(&mut ledger, "c", false), "a has reported before");
        // Whoever alone was awaited is removed.
        takes(&mut ledger, "a", false);
        expect(&mut ledger, &["a"]);
        assert!(ledger.take_due());
    }
}
