//! What clients notice of faults: one of three backends has each kind of it, or all three at once.
//!
//! Whether a request was done is counted in the backends, and what became of it in the clients; no word of the
//! proxy's is taken for it. Each test prints what it has seen.

mod control;
mod crowd;
mod lost;
mod matrix;
mod posts;
mod scene;
mod timing;
