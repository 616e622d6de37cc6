//! Waits that differ a little, so that pollers or targets that began together do not stay together.

use std::time::Duration;

/// `wait` times a factor between `1 - percent / 100` and `1 + percent / 100`, evenly by `draw`,
/// of which every value is equally likely. More than 100 per cent count as 100.
pub fn jittered(wait: Duration, percent: u8, draw: u64) -> Duration {
    if percent == 0 {
        return wait;
    }
    let span = f64::from(percent.min(100)) / 100.0;
    let evenly = draw as f64 / u64::MAX as f64;
    let factor = 1.0 + span * (2.0 * evenly - 1.0);
    // Too long for a `Duration` is no wait that anyone configures.
    Duration::try_from_secs_f64(wait.as_secs_f64() * factor).unwrap_or(wait)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    #[test]
    fn none_is_none_and_the_ends_are_reached() {
        assert_eq!(jittered(Duration::MAX, 0, 7), Duration::MAX);
        assert_eq!(jittered(WAIT, 20, 0), Duration::from_secs(8));
        assert_eq!(jittered(WAIT, 20, u64::MAX), Duration::from_secs(12));
        assert_eq!(jittered(WAIT, u8::MAX, 0), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn stays_within_its_span(percent in 0u8..=100, draw in any::<u64>()) {
            let span = WAIT * u32::from(percent) / 100;
            let slack = Duration::from_micros(1);
            let wait = jittered(WAIT, percent, draw);
            prop_assert!(wait + slack >= WAIT - span && wait <= WAIT + span + slack);
        }
    }

    #[test]
    fn is_even() {
        let waits = (0..1000).map(|step| jittered(WAIT, 50, u64::MAX / 999 * step));
        let mean = waits.sum::<Duration>() / 1000;
        assert!(mean.abs_diff(WAIT) < Duration::from_millis(10), "{mean:?}");
    }
}
