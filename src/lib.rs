//! `maitred`: a load balancer on Pingora for backends that can take only so much at once.
//!
//! The modules stand in layer order, lowest first: each names only those above it in this list
//! (`tests` reads every path and fails on another). `ARCHITECTURE.md` says why.

/// Status, health and readiness of the proxy itself.
pub mod admin;
/// YAML text to checked parameters; the only module that knows YAML.
pub mod config;
/// The single writer: events in, one immutable snapshot out.
pub mod control;
/// What reaches the proxy at all: connections, deadlines, clients that leave.
pub mod door;
/// The health file: its format, writing it, watching it.
pub mod health;
/// What upstreams and backends are called.
pub mod id;
/// Signals, and how the process ends.
pub mod lifecycle;
/// Decisions without a clock, a random source or I/O.
pub mod policy;
/// Pings every backend and writes the health file.
pub mod poller;
/// The Pingora callbacks.
pub mod proxy;
/// Method, host and path to a route.
pub mod routing;
/// Which backend gets this request: slots, the queue, selection.
pub mod upstream;
