//! Pure decisions: time and randomness are arguments.

pub mod backoff;
pub mod retry;
