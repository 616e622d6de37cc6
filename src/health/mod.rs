//! The health file (`health_status.json`): the contract between whoever judges health and the proxy.
//!
//! A [`Report`] is what one version of the file says; [`HealthFile`] knows what each look at the
//! file means; [`watch`] looks whenever the file may have changed; [`Writer`] is the good writer that
//! others may imitate. Who is healthy is decided elsewhere: by the poller, a script, a person.
//!
//! Invariants: a report is never changed once parsed, and whatever happens to the file, the last
//! good report stays in force.

mod file;
mod json;
mod report;
#[cfg(test)]
mod rerun;
mod ruling;
mod watch;
mod writer;

pub use file::{FileEvent, FileState, HealthFile};
pub use report::{FILE_BYTES_MAX, Report, ReportError, State, Verdict};
pub use ruling::{Ruling, Standing, WhenMissing, WhenStale};
pub use watch::watch;
pub use writer::{Judged, LockError, WriteError, Writer};
