//! The health file and who writes it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::health::{WhenMissing, WhenStale};
use crate::id::UpstreamName;

use super::listeners::Binds;
use super::scalar::{self, Reader, duration};
use super::section::{Section, Value};

/// What the proxy reads of its backends' health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthParams {
    /// Relative to the working directory; not empty. Default `health_status.json`.
    pub file: PathBuf,
    /// How old a report may be; `None`: as old as it likes. At least a round of the poller. Default
    /// 30 s, or three intervals of the poller with their jitter if those are longer.
    pub stale_after: Option<Duration>,
    /// What holds while the report is older. Default `keep`.
    pub when_stale: WhenStale,
    /// What holds until the first report was read. Default `fail_closed`.
    pub when_missing: WhenMissing,
    /// Where more than this share of an upstream's backends have turned from healthy to sick since it
    /// was last believed, those turns are held back, in `1..=100`. Default 100: none are.
    pub max_flip_percent: u8,
    /// For how long they are held back, unless another writing agrees earlier. Default 30 s.
    pub confirm_after: Duration,
}

/// How the poller asks backends for their health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollerParams {
    /// From one ping of a backend to the next. Default 10 s.
    pub interval: Duration,
    /// The same while its verdict is about to change; at most `interval`. Default 1 s.
    pub fast_interval: Duration,
    /// How long a backend may take to answer, at most `interval`. Default 2 s.
    pub timeout: Duration,
    /// By how much every wait is randomly longer or shorter, in `0..=50`. Default 0.
    pub jitter_percent: u8,
    /// How many good pings in a row make a sick backend healthy, in `1..=100`. Default 2.
    pub rise: u32,
    /// How many bad pings in a row make a healthy backend sick, in `1..=100`. Default 2.
    pub fall: u32,
    /// Whether verdicts are written as objects with reasons. Default false.
    pub detail: bool,
    /// The admin addresses of proxies that are asked what they know of a backend which answers no ping. Default:
    /// that of this configuration, unless the system chooses its port.
    pub evidence: Arc<[Address]>,
    /// Whether a backend is left unpinged while all its slots are in use. Default false.
    pub skip_when_busy: bool,
    /// Where the poller tells what it counts; none of the proxy's addresses. Default: nowhere.
    pub metrics: Option<SocketAddr>,
    /// How each upstream's backends are asked: what it says itself, else what holds for all.
    pub probes: BTreeMap<UpstreamName, ProbeParams>,
}

/// One ping: what is asked, and what is a good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeParams {
    /// Path and query of the request; starts with `/`. Default `/ping`.
    pub path: String,
    /// The `Host` field; `None`: the backend's address, `localhost` for a Unix socket.
    pub host: Option<String>,
    /// Which statuses are good. Default 200-299.
    pub expect_status: StatusRanges,
}

/// A set of HTTP statuses, as ranges in the order written. Not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRanges(pub(super) Vec<RangeInclusive<u16>>);

impl StatusRanges {
    /// Whether a status is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl From<RangeInclusive<u16>> for StatusRanges {
    fn from(range: RangeInclusive<u16>) -> Self {
        Self(vec![range])
    }
}

impl Default for ProbeParams {
    fn default() -> Self {
        Self {
            path: "/ping".into(),
            host: None,
            expect_status: StatusRanges::from(200..=299),
        }
    }
}

const WHEN_STALE: &[(&str, WhenStale)] = &[
    ("keep", WhenStale::Keep),
    ("fail_open", WhenStale::FailOpen),
    ("fail_closed", WhenStale::FailClosed),
];

const WHEN_MISSING: &[(&str, WhenMissing)] = &[
    ("fail_closed", WhenMissing::FailClosed),
    ("fail_open", WhenMissing::FailOpen),
];

/// What the default of `stale_after` is with the default poller, and at least.
const STALE_AFTER_MIN: Duration = Duration::from_secs(30);
/// So many waits of the poller fit into that default.
const WAITS_UNTIL_STALE: u32 = 3;
/// What a round may take beside wait and ping: to ask proxies, to write the file and to notice that; as much
/// again where they are asked before a ping, too.
const ROUND_SPARE: Duration = Duration::from_secs(1);

/// The `health` section, whose file `poller` keeps fresh.
pub(super) fn read(mut section: Section<'_>, poller: &PollerParams) -> HealthParams {
    let stale_after = STALE_AFTER_MIN.max(longest_wait(poller) * WAITS_UNTIL_STALE);
    let params = HealthParams {
        file: section.value(
            "file",
            "health_status.json",
            scalar::file(),
            "Who is healthy.",
        ),
        stale_after: section.value_or(
            "stale_after",
            (
                "`30s`, or three intervals of the poller if that is longer",
                Some(stale_after),
            ),
            scalar::or_off(stale_after_reader(poller)),
            "How long after its last change the file is stale; `off` suits files edited by hand.",
        ),
        when_stale: section.value(
            "when_stale",
            "keep",
            scalar::choice(WHEN_STALE),
            "What holds then: what the file says, everybody is healthy, or nobody.",
        ),
        when_missing: section.value(
            "when_missing",
            "fail_closed",
            scalar::choice(WHEN_MISSING),
            "What holds until the file has been read once: nobody is healthy, or everybody.",
        ),
        max_flip_percent: section.value(
            "max_flip_percent",
            "100",
            scalar::integer(1..=100),
            "Where more than this share of an upstream's backends turn from healthy to sick within \
             `confirm_after`, the last of those turns are held back; with 100 none are.",
        ),
        confirm_after: section.value(
            "confirm_after",
            "30s",
            duration(),
            "For how long they are held back, unless another writing, a second later or more, still \
             calls all of them sick.",
        ),
    };
    section.finish();
    params
}

/// A report that went stale between two rounds of the poller would leave it to `when_stale` what holds
/// most of the time.
fn stale_after_reader(poller: &PollerParams) -> Reader<'static, Duration> {
    let inner = duration();
    let form = format!("{}, at least a round of the poller", inner.form());
    let spare = ROUND_SPARE * (1 + u32::from(poller.skip_when_busy));
    let round = longest_wait(poller) + poller.timeout + spare;
    let shown = humantime::format_duration;
    let expected = format!(
        "at least {}, a round of the poller (interval {}, jitter {}%, timeout {}) and {}: raise it or \
         shorten those",
        shown(round),
        shown(poller.interval),
        poller.jitter_percent,
        shown(poller.timeout),
        shown(spare),
    );
    // An interval that is wrong is reported there, and is zero here.
    let is_known = !poller.interval.is_zero();
    Reader::telling(form, move |node| {
        let duration = inner.read(node)?;
        match is_known && duration < round {
            true => Err(expected.clone()),
            false => Ok(duration),
        }
    })
}

fn longest_wait(poller: &PollerParams) -> Duration {
    poller.interval * (100 + u32::from(poller.jitter_percent)) / 100
}

/// The `poller` section, and the defaults of every upstream's probe. `admin`: where the proxy of this
/// configuration tells of itself; `binds`: where it listens.
pub(super) fn read_poller(
    mut section: Section<'_>,
    admin: SocketAddr,
    binds: &Binds,
) -> (PollerParams, ProbeParams) {
    let probe = read_global_probe(&mut section);
    let (interval, fast_interval, timeout) = read_times(&mut section);
    let params = PollerParams {
        interval,
        fast_interval,
        timeout,
        jitter_percent: section.value(
            "jitter",
            "0%",
            scalar::percent(0..=50),
            "By how much every wait is randomly longer or shorter.",
        ),
        rise: section.value(
            "rise",
            "2",
            scalar::integer(1..=100),
            "How many good pings in a row make a sick backend healthy.",
        ),
        fall: section.value(
            "fall",
            "2",
            scalar::integer(1..=100),
            "How many bad pings in a row make a healthy backend sick.",
        ),
        detail: section.value(
            "detail",
            "false",
            scalar::flag(),
            "Whether verdicts are written as objects with their reasons.",
        ),
        evidence: read_evidence(&mut section, admin),
        skip_when_busy: section.value(
            "skip_when_busy",
            "false",
            scalar::flag(),
            "Whether a backend is not pinged while a proxy has all its slots in use.",
        ),
        metrics: read_metrics(&mut section, binds),
        probes: BTreeMap::new(),
    };
    section.finish();
    (params, probe)
}

fn read_metrics(section: &mut Section<'_>, binds: &Binds) -> Option<SocketAddr> {
    let bind = section.value(
        "metrics",
        "off",
        scalar::or_off(scalar::bind()),
        "Where the poller tells at `/metrics` what it counts ([metrics](metrics.md)), such as `127.0.0.1:9901`.",
    );
    if let Some(bind) = bind {
        binds.check(bind, section, "metrics");
    }
    bind
}

fn read_evidence(section: &mut Section<'_>, admin: SocketAddr) -> Arc<[Address]> {
    const LIST: &str = "a list such as [\"http://127.0.0.1:9900\"], or [] for none";
    let source = scalar::evidence_source();
    let value = section.described(
        "evidence",
        "that of `admin.bind`",
        "a list of admin addresses such as http://127.0.0.1:9900",
        "The proxies that are asked what they know of a backend which does not answer a ping in time \
         ([busy and dead](#busy-and-dead)); `[]`: none, and every ping counts.",
    );
    let Some(value) = value else {
        return reached(admin).into_iter().collect();
    };
    let values = value.list(LIST).unwrap_or_default();
    values
        .iter()
        .filter_map(|value| value.read(&source))
        .collect()
}

/// How a process on the same machine reaches what is bound there.
fn reached(bind: SocketAddr) -> Option<Address> {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (bind.port() != 0).then(|| SocketAddr::new(ip, bind.port()).into())
}

fn read_times(section: &mut Section<'_>) -> (Duration, Duration, Duration) {
    let limit = section.valid(
        "interval",
        "10s",
        &duration(),
        "From one ping of a backend to the next.",
    );
    // If it is wrong, there is no configuration in the end.
    let interval = limit.unwrap_or_default();
    let fast_interval = section.value_or(
        "fast_interval",
        (
            "`1s`, at most the interval",
            interval.min(Duration::from_secs(1)),
        ),
        scalar::duration_within(limit, "interval"),
        "The same while its verdict is about to change.",
    );
    let timeout = section.value_or(
        "timeout",
        (
            "`2s`, at most the interval",
            interval.min(Duration::from_secs(2)),
        ),
        scalar::duration_within(limit, "interval"),
        "How long a backend may take to answer a ping. Where `evidence` is to be had, it may be shorter than a \
         request, behind which a ping waits.",
    );
    (interval, fast_interval, timeout)
}

fn read_global_probe(section: &mut Section<'_>) -> ProbeParams {
    let shown = ["`/ping`", "the backend's address", "`200-299`"];
    read_probe(section, shown, &ProbeParams::default())
}

/// An upstream's own `poller` section. `global`: what holds where it says nothing.
pub(super) fn read_own_probe(mut section: Section<'_>, global: &ProbeParams) -> ProbeParams {
    let shown = ["`poller.path`", "`poller.host`", "`poller.expect_status`"];
    let probe = read_probe(&mut section, shown, global);
    section.finish();
    probe
}

fn read_probe(
    section: &mut Section<'_>,
    [path, host, expect_status]: [&str; 3],
    default: &ProbeParams,
) -> ProbeParams {
    const HOST: &str = "The `Host` field of a ping.";
    const STATUSES: &str = "What a good answer's status is, or a list of statuses and ranges.";
    let statuses = scalar::statuses();
    ProbeParams {
        path: section.value_or(
            "path",
            (path, default.path.clone()),
            scalar::uri_path_and_query(),
            "What a ping asks for.",
        ),
        host: section
            .optional("host", host, scalar::host_field(), HOST)
            .or_else(|| default.host.clone()),
        expect_status: section
            .described("expect_status", expect_status, statuses.form(), STATUSES)
            .and_then(|value| status_ranges(&value, &statuses))
            .unwrap_or_else(|| default.expect_status.clone()),
    }
}

fn status_ranges(
    value: &Value<'_>,
    statuses: &Reader<'_, RangeInclusive<u16>>,
) -> Option<StatusRanges> {
    let values = value.one_or_list("a list such as [200, 300-399]")?;
    let ranges = values.iter().filter_map(|value| value.read(statuses));
    Some(StatusRanges(ranges.collect()))
}
