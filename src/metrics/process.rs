//! What every process of ours tells of itself: what it uses, how long it has been there, its version, and
//! which configuration is in force.
//!
//! The names `process_..` are what Prometheus's own libraries call these.

use std::fmt;
use std::fs;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::{Metric, NO_LABELS, Page, gauge, metric, seconds};

static CPU: Metric = seconds(
    "process_cpu",
    MetricType::Counter,
    "Processor time that the process has used, its own and the system's for it.",
);
static MEMORY: Metric = bytes(
    "process_resident_memory",
    "Memory of the process that is not swapped out.",
);
static VIRTUAL_MEMORY: Metric = bytes(
    "process_virtual_memory",
    "Memory that the process has addresses for.",
);
static DESCRIPTORS: Metric = gauge("process_open_fds", "Open descriptors.");
static DESCRIPTORS_MAX: Metric = gauge("process_max_fds", "How many descriptors may be open.");
static START_TIME: Metric = seconds(
    "process_start_time",
    MetricType::Gauge,
    "When the process began, in seconds since 1970.",
);
/// Labels: `version`.
static BUILD: Metric = gauge("maitred_build_info", "1, for the version that runs.");
static CONFIG_GENERATION: Metric = gauge(
    "maitred_config_generation",
    "How many configurations have been in force since the start, this one included.",
);
static CONFIG_HASH: Metric = gauge(
    "maitred_config_hash",
    "Equal for programs of one version that have the same configuration in force.",
);
static CONFIG_TIME: Metric = seconds(
    "maitred_config_last_reload_success_timestamp",
    MetricType::Gauge,
    "When the configuration in force was read, in seconds since 1970.",
);
static CONFIG_RELOADED: Metric = gauge(
    "maitred_config_last_reload_successful",
    "1 if the configuration was right when it was read last, else 0: then an earlier one is in force.",
);

const fn bytes(name: &'static str, help: &'static str) -> Metric {
    metric(name, MetricType::Gauge, Some(Unit::Bytes), help)
}

/// So many bits of a hash are exact as a sample's value.
const HASH_BITS: u32 = 48;

/// This process. Live: it knows which configuration was read when.
#[derive(Debug)]
pub struct Process {
    started: SystemTime,
    loads: Mutex<Loads>,
    /// How long its last page of metrics was: of a thousand backends, megabytes.
    pub(super) page_bytes: AtomicUsize,
}

/// What became of the configuration.
#[derive(Debug)]
struct Loads {
    generation: u64,
    hash: u64,
    at: SystemTime,
    was_last_right: bool,
}

impl Process {
    /// Begins now, with a configuration that has this hash.
    pub fn new(hash: u64) -> Self {
        let started = SystemTime::now();
        Self {
            started,
            loads: Mutex::new(Loads {
                generation: 1,
                hash,
                at: started,
                was_last_right: true,
            }),
            page_bytes: AtomicUsize::new(0),
        }
    }

    /// Another configuration is in force from now on, or the same once more.
    pub fn reloaded(&self, hash: u64) {
        let mut loads = self.loads.lock();
        *loads = Loads {
            generation: loads.generation + 1,
            hash,
            at: SystemTime::now(),
            was_last_right: true,
        };
    }

    /// What is written as a configuration now is wrong (`false`), or right again.
    pub fn found(&self, is_right: bool) {
        self.loads.lock().was_last_right = is_right;
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// When the page can't be written to.
    pub fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        write_usage(page)?;
        page.metric(&START_TIME)?
            .gauge(&NO_LABELS, timestamp(self.started))?;
        self.write_configuration(page)?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.metric(&BUILD)?.gauge(&version, 1_u64)
    }

    fn write_configuration(&self, page: &mut Page<'_>) -> fmt::Result {
        let loads = self.loads.lock();
        page.metric(&CONFIG_GENERATION)?
            .gauge(&NO_LABELS, loads.generation)?;
        page.metric(&CONFIG_HASH)?
            .gauge(&NO_LABELS, loads.hash >> (u64::BITS - HASH_BITS))?;
        page.metric(&CONFIG_TIME)?
            .gauge(&NO_LABELS, timestamp(loads.at))?;
        page.metric(&CONFIG_RELOADED)?
            .gauge(&NO_LABELS, u64::from(loads.was_last_right))
    }
}

fn write_usage(page: &mut Page<'_>) -> fmt::Result {
    page.metric(&CPU)?
        .count(&NO_LABELS, cpu_time().as_secs_f64())?;
    if let Some([all, resident]) = memory_bytes() {
        page.metric(&MEMORY)?.gauge(&NO_LABELS, resident)?;
        page.metric(&VIRTUAL_MEMORY)?.gauge(&NO_LABELS, all)?;
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        page.metric(&DESCRIPTORS)?
            .gauge(&NO_LABELS, open.count() as u64)?;
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        page.metric(&DESCRIPTORS_MAX)?.gauge(&NO_LABELS, most)?;
    }
    Ok(())
}

fn timestamp(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// All and what is resident: the first two numbers of `statm`, which counts pages.
fn memory_bytes() -> Option<[u64; 2]> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split(' ').map(str::parse::<u64>);
    let mut bytes = || Some(pages.next()?.ok()? * rustix::param::page_size() as u64);
    Some([bytes()?, bytes()?])
}
