//! Pure decisions: time and randomness are arguments.

pub mod backoff;
pub mod excuse;
pub mod jitter;
pub mod retry;
pub mod threshold;
