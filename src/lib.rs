//! `maitred`: a load balancer on Pingora for backends that can take only so much at once.
//!
//! The modules stand in layer order, lowest first: each names only those above it in this list, and
//! `poller`, `door` and `admin` never name each other (a test reads every path and fails on another).
//! `ARCHITECTURE.md` says why.

/// What upstreams and backends are called.
pub mod id;
/// Where a backend listens.
pub mod address;
/// Decisions without a clock, a random source or I/O.
pub mod policy;
/// Every metric, declared once, and what it is counted by.
pub mod metrics;
/// What changed and why: one stream of it, which the log is written from.
pub mod events;
/// The health file: its format, writing it, watching it.
pub mod health;
/// Which backend gets this request: slots, the queue, selection.
pub mod upstream;
/// Why a request went where it went, for those who ask.
pub mod explain;
/// Method, host and path to a route.
pub mod routing;
/// A line per request: what it says, and getting it written.
pub mod access_log;
/// YAML text to checked parameters; the only module that knows YAML.
pub mod config;
/// The single writer: events in, one immutable snapshot out.
pub mod control;
/// Pings every backend and writes the health file.
pub mod poller;
/// What reaches the proxy at all: connections, deadlines, clients that leave.
pub mod door;
/// Status, health and readiness of the proxy itself.
pub mod admin;
/// The Pingora callbacks.
pub mod proxy;
/// Logging, signals, and how the process ends.
pub mod lifecycle;
/// What the binaries run.
pub mod programs;

#[cfg(test)]
#[path = "../fuzz/seeds.rs"]
mod seeds;
