//! Durations that read as they are said: `5.secs()`.

use std::time::Duration;

/// Numbers with a unit of time.
pub trait Units {
    fn secs(self) -> Duration;
    fn millis(self) -> Duration;
}

impl Units for u64 {
    fn secs(self) -> Duration {
        Duration::from_secs(self)
    }

    fn millis(self) -> Duration {
        Duration::from_millis(self)
    }
}
