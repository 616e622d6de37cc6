//! When to try an ejected backend again.
//!
//! A refused connection costs the backend nothing, so the first trial comes early; a backend that
//! stays away is asked less and less often, while others carry the traffic. While nobody else does,
//! clients wait for exactly this answer, and every step is a short one.

use std::time::Duration;

/// Between two trials at the least.
pub const STEP: Duration = Duration::from_millis(500);

/// Between two trials at the most, while other backends are eligible.
pub const LONGEST: Duration = Duration::from_secs(10);

/// How many steps lie between the trial number `trial` (counted from 0) and the one before it, or
/// the ejection: 1, 2, 4, … until `LONGEST`.
pub fn steps_before(trial: u32) -> u32 {
    let most = (LONGEST.as_millis() / STEP.as_millis()) as u32;
    1u32.checked_shl(trial).unwrap_or(most).min(most)
}

/// Whether a trial is due after `steps` steps without one.
pub fn is_due(trial: u32, steps: u32, is_other_well: bool) -> bool {
    !is_other_well || steps >= steps_before(trial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_double_up_to_the_longest() {
        let steps: Vec<_> = (0..7).map(steps_before).collect();
        assert_eq!(steps, [1, 2, 4, 8, 16, 20, 20]);
        assert_eq!(steps_before(u32::MAX), 20);
    }

    #[test]
    fn nobody_else_eligible_makes_every_step_a_trial() {
        assert!(is_due(6, 1, false));
        assert!(!is_due(6, 19, true));
        assert!(is_due(6, 20, true));
    }
}
