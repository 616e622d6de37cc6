//! Pingora's own keys, at the top level of the file.
//!
//! Pingora ignores a key that it does not know, its own typos included, and some values make it
//! panic (`threads: 0`, an address that is none). So each key stands here once, with its type and
//! range; the struct, the reading, the documentation and the way back to a `ServerConf` come from
//! that one line, and a key that a new Pingora adds breaks the build. Keys that do nothing here are
//! known as well, and refused: whoever writes one would rely on it.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use pingora::server::configuration::ServerConf;

use crate::upstream::Sources;

use super::scalar::{self, Reader};
use super::section::{Section, code};

/// A service's runtime starts this many threads at once.
const THREADS_MAX: usize = 1024;
const COUNT_MAX: usize = u32::MAX as usize;
/// Pingora allocates room for all of them, per thread, when it starts. (And with no room at all it
/// would keep every connection: it throws out the new one before it is in the pool.)
const POOL_MAX: usize = 65_536;
const SECONDS: RangeInclusive<u64> = 0..=u32::MAX as u64;
/// Where Pingora has no default of its own.
const NULL: &str = "`null`";

macro_rules! server_keys {
    (
        $($(#[doc = $doc:literal])* $key:ident: $type:ty = $reader:ident($($argument:expr),*);)*
        @without_effect $($useless:ident = $default:literal, $why:ident;)*
    ) => {
        /// Pingora's own keys, checked, but for those that do nothing here. Absent ones are Pingora's
        /// defaults, but for `grace_period_seconds` and `max_retries`.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct ServerKeys {
            $($(#[doc = $doc])* pub $key: $type,)*
        }

        impl ServerKeys {
            pub(super) fn read(section: &mut Section<'_>) -> Self {
                let default = defaults();
                let keys = Self {
                    $($key: {
                        let key = (stringify!($key), concat!($($doc),*));
                        $reader(section, key, default.$key $(, $argument)*)
                    },)*
                };
                $(refuse(section, stringify!($useless), $default, $why);)*
                keys.check_pools(section);
                keys
            }

            /// What Pingora's `Server` starts from.
            pub fn server_conf(&self) -> ServerConf {
                let default = ServerConf::default();
                ServerConf {
                    $($key: self.$key.clone(),)*
                    $($useless: default.$useless,)*
                }
            }
        }

        /// The keys that may say nothing but Pingora's default.
        #[cfg(test)]
        pub(super) const WITHOUT_EFFECT: &[&str] = &[$(stringify!($useless)),*];
    };
}

server_keys! {
    /// Of the file's format. Nobody looks at it.
    version: usize = count(0..=COUNT_MAX);
    /// Whether to run in the background.
    daemon: bool = flag();
    /// Where a daemon's standard error goes; its standard output, the access log, then goes nowhere.
    /// Default: both stay where they are.
    error_log: Option<String> = optional_text();
    /// Where a daemon writes its process id, relative to where it runs.
    pid_file: String = text();
    /// The user that a daemon becomes. Default: stays who it is.
    user: Option<String> = optional_text();
    /// The group that a daemon becomes. Default: stays what it is.
    group: Option<String> = optional_text();
    /// Where a daemon runs. Default: `/`.
    working_directory: Option<PathBuf> = optional_file();
    /// Threads that carry traffic.
    threads: usize = count(1..=THREADS_MAX);
    /// Tasks that accept on each listener.
    listener_tasks_per_fd: usize = count(1..=THREADS_MAX);
    /// Whether a service's threads take work from each other.
    work_stealing: bool = flag();
    /// How long a stopping server goes on serving, in seconds. Pingora's default is 300. Who
    /// still waits when nine tenths are over is answered 503.
    grace_period_seconds: Option<u64> = optional_integer(SECONDS);
    /// IPv4 addresses from which to connect to backends. Default: the system chooses.
    client_bind_to_ipv4: Vec<String> = ip_addresses(scalar::ip_address::<Ipv4Addr>("an ipv4 address"));
    /// IPv6 addresses from which to connect to backends. Default: the system chooses.
    client_bind_to_ipv6: Vec<String> = ip_addresses(scalar::ip_address::<Ipv6Addr>("an ipv6 address"));
    /// How many idle connections to backends are kept, per thread.
    upstream_keepalive_pool_size: usize = count(1..=POOL_MAX);
    /// Thread pools that only connect to backends. Default: none.
    upstream_connect_offload_threadpools: Option<usize> = optional_integer(0..=THREADS_MAX);
    /// Threads in each of those. Default: none.
    upstream_connect_offload_thread_per_pool: Option<usize> = optional_integer(0..=THREADS_MAX);
    /// The most attempts of one request, a guard behind our own limits. Pingora's default is 16, but
    /// an attempt that found nobody listening is repeated for as long as the request may wait.
    max_retries: usize = count(1..=COUNT_MAX);
    /// Threads for blocking work in each runtime. Default: Tokio's 512.
    max_blocking_threads: Option<usize> = optional_integer(1..=COUNT_MAX);
    /// How long an idle one of those stays, in seconds. Default: Tokio's 10.
    blocking_threads_ttl_seconds: Option<u64> = optional_integer(SECONDS);
    /// From how many seconds on a timeout uses Tokio's timer; null: never.
    fast_timeout_to_tokio_threshold_seconds: Option<u64> = optional_integer(SECONDS);
    /// Whether the process that starts a daemon waits until it has started its services.
    daemon_wait_for_ready: bool = flag();
    /// For how many seconds it waits. Default: Pingora's 600.
    daemon_ready_timeout_seconds: Option<NonZeroU64> = optional_seconds();
    /// For how many seconds a daemon tries to say that it is ready. Default: Pingora's 60.
    daemon_notify_timeout_seconds: Option<NonZeroU64> = optional_seconds();

    @without_effect
    // `Server` gets no `Opt`, so it never takes listeners over, and `Lifecycle` never tells it to
    // hand its own on.
    upgrade_sock = "/tmp/pingora_upgrade.sock", NO_UPGRADE;
    upgrade_sock_connect_accept_max_retries = "null", NO_UPGRADE;
    // `Lifecycle` ends the process before Pingora comes to that step.
    graceful_shutdown_timeout_seconds = "null", OWN_END;
    // Read by the TLS libraries' connectors and acceptors alone, and none of them is built in.
    ca_file = "null", NO_TLS;
    upstream_debug_ssl_keylog = "false", NO_TLS;
    downstream_tls_offload_threadpools = "null", NO_TLS;
    downstream_tls_offload_thread_per_pool = "null", NO_TLS;
    // pingora-runtime leaves them out without `--cfg tokio_unstable`, and says nothing.
    runtime_enable_alt_timer = "false", STABLE_TOKIO;
    runtime_metrics_poll_time_histogram = "false", STABLE_TOKIO;
    runtime_metrics_poll_time_histogram_scale = "null", STABLE_TOKIO;
    runtime_metrics_poll_time_histogram_resolution_micros = "null", STABLE_TOKIO;
    runtime_metrics_poll_time_histogram_buckets = "null", STABLE_TOKIO;
}

const NO_TLS: &str = "it does not do TLS yet";
const NO_UPGRADE: &str = "it does not hand its listeners on to a new process";
const OWN_END: &str =
    "it ends with its last request, and when grace_period_seconds are over at the latest";
const STABLE_TOKIO: &str = "it is not built with --cfg tokio_unstable";

/// A key that may be written as Pingora has it by default, for a file that lists everything.
fn refuse(section: &mut Section<'_>, key: &'static str, default: &str, why: &str) {
    if let Some(value) = section.find(key)
        && !value.says(default)
    {
        value.fail(format!("has no effect in maitred: {why}"));
    }
}

impl ServerKeys {
    /// Pingora makes no pools when one of the numbers is missing.
    fn check_pools(&self, section: &Section<'_>) {
        const POOLS: &str = "upstream_connect_offload_threadpools";
        const THREADS: &str = "upstream_connect_offload_thread_per_pool";
        let is_some = |number: Option<usize>| number.is_some_and(|number| number > 0);
        let pools = is_some(self.upstream_connect_offload_threadpools);
        let threads = is_some(self.upstream_connect_offload_thread_per_pool);
        match (pools, threads) {
            (true, false) => section.fail(POOLS, format!("has no effect without {THREADS}")),
            (false, true) => section.fail(THREADS, format!("has no effect without {POOLS}")),
            _ => {}
        }
    }

    /// Where connections to backends come from. We make them, so Pingora's own keys are ours to obey.
    pub(super) fn sources(&self) -> Sources {
        // What is no address was refused when it was read.
        Sources {
            v4: self
                .client_bind_to_ipv4
                .iter()
                .flat_map(|text| text.parse())
                .collect(),
            v6: self
                .client_bind_to_ipv6
                .iter()
                .flat_map(|text| text.parse())
                .collect(),
        }
    }
}

fn defaults() -> ServerConf {
    // Pingora waits five minutes even if no request is left; a queue of ours is empty sooner.
    ServerConf {
        grace_period_seconds: Some(10),
        max_retries: 1_000,
        ..ServerConf::default()
    }
}

/// A key and what it is for.
type Key = (&'static str, &'static str);

fn count(
    section: &mut Section<'_>,
    key: Key,
    default: usize,
    range: RangeInclusive<usize>,
) -> usize {
    value(section, key, default, scalar::integer(range))
}

fn flag(section: &mut Section<'_>, key: Key, default: bool) -> bool {
    value(section, key, default, scalar::flag())
}

fn text(section: &mut Section<'_>, key: Key, default: String) -> String {
    value(section, key, default, scalar::text())
}

fn value<T: Display>(
    section: &mut Section<'_>,
    (key, about): Key,
    default: T,
    reader: Reader<'_, T>,
) -> T {
    section.value_or(key, (&code(&default), default), reader, about)
}

fn optional_text(section: &mut Section<'_>, key: Key, default: Option<String>) -> Option<String> {
    optional(section, key, default, scalar::text())
}

fn optional_file(
    section: &mut Section<'_>,
    (key, about): Key,
    default: Option<PathBuf>,
) -> Option<PathBuf> {
    section.nullable(key, (NULL, default), scalar::file(), about)
}

fn optional_integer<T>(
    section: &mut Section<'_>,
    key: Key,
    default: Option<T>,
    range: RangeInclusive<T>,
) -> Option<T>
where
    T: TryFrom<u64> + PartialOrd + Display + 'static,
{
    optional(section, key, default, scalar::integer(range))
}

fn optional_seconds(
    section: &mut Section<'_>,
    key: Key,
    default: Option<NonZeroU64>,
) -> Option<NonZeroU64> {
    let default = default.map(NonZeroU64::get);
    optional_integer(section, key, default, 1..=*SECONDS.end()).and_then(NonZeroU64::new)
}

fn optional<T: Display>(
    section: &mut Section<'_>,
    (key, about): Key,
    default: Option<T>,
    reader: Reader<'_, T>,
) -> Option<T> {
    let shown = default.as_ref().map_or(NULL.into(), code);
    section.nullable(key, (&shown, default), reader, about)
}

fn ip_addresses(
    section: &mut Section<'_>,
    (key, about): Key,
    default: Vec<String>,
    reader: Reader<'_, String>,
) -> Vec<String> {
    const FORM: &str = "a list of ip addresses";
    let values = section
        .described(key, "`[]`", FORM, about)
        .and_then(|value| value.list(FORM));
    match values {
        None => default,
        Some(values) => values
            .iter()
            .filter_map(|value| value.read(&reader))
            .collect(),
    }
}
