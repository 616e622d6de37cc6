//! Which backend gets this request.

mod params;

pub use params::{BackendParams, QueueParams, Timeouts, UpstreamParams};
