//! Every kind of event, declared once: its name, how loud its log line is, what the line says and what is
//! known of it. To add one, add it here and to docs/events.md (a test shows the line), and publish it.

use serde::Serialize;

use crate::id::{BackendName, UpstreamName};

/// What is told of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// For machines.
    pub name: &'static str,
    /// Of its log line: `info` or `warn`.
    pub level: &'static str,
    /// What is told of each, in the words of the JSON.
    pub fields: &'static [&'static str],
    /// For people.
    pub about: &'static str,
}

macro_rules! events {
    ($(
        $(#[doc = $about:literal])+
        $variant:ident: $name:literal, $level:ident, $message:literal { $($field:ident: $type:ty),* }
    )+) => {
        /// Something that changed, and why. What a field is called says what it is, the same in every kind
        /// (docs/events.md).
        #[allow(missing_docs)]
        #[derive(Clone, Debug, Serialize)]
        #[serde(tag = "kind")]
        pub enum Event {
            $($(#[doc = $about])+ #[serde(rename = $name)] $variant { $($field: $type),* },)+
        }

        impl Event {
            /// Every kind, in the order of the documentation.
            pub const KINDS: &[Kind] = &[$(Kind {
                name: $name,
                level: stringify!($level),
                fields: &[$(stringify!($field)),*],
                about: concat!($($about),+),
            }),+];

            /// Writes its line to the log of the process.
            pub(super) fn log(&self) {
                match self {
                    $(Self::$variant { $($field),* } => tracing::$level!(target: "maitred::events", $(%$field,)* $message),)+
                }
            }
        }
    };
}

events! {
    /// The report lets it have requests: it is healthy and its state is `ready`, or a policy says so.
    BackendAdmitted: "backend_admitted", info, "admitted by the report" {
        upstream: UpstreamName, backend: BackendName
    }
    /// It gets no new requests, or still none for another cause.
    BackendKeptOut: "backend_kept_out", warn, "kept out by the report" {
        upstream: UpstreamName, backend: BackendName, cause: &'static str, why: String
    }
    /// So many further changes of backends by the same report have no event of their own.
    BackendsChanged: "backends_changed", warn, "and so on for others" {
        upstream: UpstreamName, more: usize
    }
    /// It refuses connections, and gets no requests until it accepts one; or it has failed too many requests, and is
    /// tried with one of them after a rest.
    BackendEjected: "backend_ejected", warn, "ejected" {
        upstream: UpstreamName, backend: BackendName, cause: &'static str, rest_seconds: f64
    }
    /// It accepts connections again, or has answered the request with which it was tried.
    BackendReinstated: "backend_reinstated", info, "reinstated" {
        upstream: UpstreamName, backend: BackendName
    }
    /// By the health file it may have another number of requests at once.
    SlotsChanged: "slots_changed", info, "its slots are other ones" {
        upstream: UpstreamName, backend: BackendName, from: u32, to: u32
    }
    /// By the health file it has another weight.
    WeightChanged: "weight_changed", info, "its weight is another one" {
        upstream: UpstreamName, backend: BackendName, from: u32, to: u32
    }
    /// Its host name stands for another address, or for one again.
    NameResolved: "name_resolved", info, "name resolved" {
        backend: BackendName, address: String, endpoint: String
    }
    /// Its host name stands for no server now; the last good address stays.
    NameNotResolved: "name_not_resolved", warn, "name not resolved" {
        backend: BackendName, problem: String
    }
    /// The health file is good, after it was missing or corrupt.
    ReportGood: "report_good", info, "health file is good" { path: String }
    /// There is no health file; the last report stays in force.
    ReportMissing: "report_missing", warn, "health file is missing" { path: String }
    /// It is no report, or none that can be read; the last one stays in force.
    ReportCorrupt: "report_corrupt", warn, "health file is corrupt" { path: String, problem: String }
    /// It was not written for `health.stale_after`.
    ReportStale: "report_stale", warn, "health file is stale" {
        path: String, age_seconds: u64, effect: &'static str
    }
    /// It was written again.
    ReportFresh: "report_fresh", info, "health file is fresh again" { path: String }
    /// It turns more backends sick than `health.max_flip_percent` allows, and is not believed yet.
    ReportDoubted: "report_doubted", warn, "health file turns too many backends sick, not believed yet" {
        upstream: UpstreamName, count: usize
    }
    /// What was doubted is believed, or was taken back.
    ReportBelieved: "report_believed", info, "health file is believed again" { upstream: UpstreamName }
    /// It names backends that nobody knows, or has fields that mean nothing.
    ReportIgnored: "report_ignored", warn, "health file says what nobody asked for" {
        path: String, count: usize, names: String
    }
    /// A listener takes connections.
    Listening: "listening", info, "listening" { address: String }
    /// The process was told to stop: nobody new is let in, what is here is finished.
    Stopping: "stopping", info, "stopping" { connections: usize, grace_seconds: u64 }
    /// It took too long: who still waits is refused.
    GraceOver: "grace_over", warn, "the grace is over" { connections: usize }
}
