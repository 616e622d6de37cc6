//! Pure decisions: time and randomness are arguments.

pub mod backoff;
pub mod budget;
pub mod excuse;
pub mod jitter;
pub mod outlier;
pub mod retry;
pub mod threshold;
