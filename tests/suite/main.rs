//! Black-box tests: the real binaries over real sockets, judged by a server and a client of our own.
//! `harness` is the words that they are written in; every other module proves one promise.
//!
//! Tests of more than about five seconds are ignored by default: `cargo test -- --include-ignored`
//! runs them all.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and this whole binary is one"
)]

mod harness;

mod access_log;
mod addresses;
mod admin;
mod agreement;
mod answers;
mod balance;
mod bodies;
mod busy;
mod clocks;
mod connections;
mod contributing;
mod demo;
mod early_bytes;
mod events;
mod explain;
mod failover;
mod fairness;
mod faults;
mod flips;
mod freshness;
mod harness_itself;
mod health_file;
mod health_states;
mod http_10;
mod keys;
mod layering;
mod limits;
mod leaving;
mod malformed;
mod many_backends;
mod memory;
mod metrics;
mod mission;
mod odd_files;
mod outlier;
mod ops;
mod poller;
mod poller_edits;
mod poller_file;
mod poller_metrics;
mod poller_probe;
mod poller_reload;
mod poller_schedule;
mod pools;
mod pypi;
mod queue;
mod readme;
mod request_ids;
mod requests;
mod retries;
mod retry_rules;
mod slots;
mod slow_clients;
mod stalls;
mod stopping;
mod timeouts;
mod upgrade;
mod watchers;
mod zlib;
