//! When a backend is taken out for what it does, and for how long.

use std::time::Duration;

use crate::policy::outlier::OutlierParams;

use super::scalar::{self, Reader, duration};
use super::section::Section;

/// The longest rest, unless the first one is longer.
const LONGEST: Duration = Duration::from_secs(300);

/// `response_header`: how long a backend may take to answer.
pub(super) fn read(mut section: Section<'_>, response_header: Duration) -> OutlierParams {
    let consecutive_errors = section.value(
        "consecutive_errors",
        "5",
        scalar::or_off(scalar::integer(1..=10_000)),
        "So many errors in a row take a backend out. An error is an answer `502`, `503` or `504`, one that is not \
         HTTP, a connection that breaks off, `timeouts.write`, `.response_header` and `.read`.",
    );
    let error_percent = section.value(
        "error_percent",
        "50",
        scalar::or_off(scalar::integer(1..=100)),
        "So many errors in a hundred requests take it out, too.",
    );
    let error_window = section.value(
        "error_window",
        "10s",
        duration(),
        "For how long requests are counted for `error_percent`, and how often times are compared for `latency_factor`.",
    );
    let min_requests = section.value(
        "min_requests",
        "20",
        scalar::integer(1..=1_000_000),
        "How many requests there have to be in that time; for `latency_factor` they are added up until there are.",
    );
    let latency_factor = section.value(
        "latency_factor",
        "off",
        scalar::or_off(factor()),
        "How many times the median of the others a backend's mean time to the answer's header may be; beyond, it is \
         taken out.",
    );
    let (base_ejection, max_ejection) = rests(&mut section);
    let max_ejection_percent = section.value(
        "max_ejection_percent",
        "50",
        scalar::integer(0..=100),
        "Of 100 backends that the health file admits, how many may be out; rounded down: below 100 one alone never is. \
         It is no limit for backends that refuse connections or, while another is eligible, break fresh ones off.",
    );
    section.finish();
    OutlierParams {
        consecutive_errors,
        error_percent,
        error_window,
        min_requests,
        latency_factor,
        base_ejection,
        max_ejection,
        max_ejection_percent,
        // A backend that hangs has half of that time, so that its trial decides and has none beside it.
        longest_trial: response_header.saturating_mul(2),
    }
}

/// The first and the longest.
fn rests(section: &mut Section<'_>) -> (Duration, Duration) {
    let base_ejection = section.value(
        "base_ejection",
        "10s",
        duration(),
        "How long a backend rests before it is tried with one request; twice as long each time in a row.",
    );
    let max_ejection = section.value_or(
        "max_ejection",
        ("5m, at least `base_ejection`", LONGEST.max(base_ejection)),
        duration(),
        "The longest rest. Each is forgotten after as long in good health.",
    );
    if max_ejection < base_ejection {
        section.fail("max_ejection", "shorter than base_ejection");
    }
    (base_ejection, max_ejection)
}

/// More than once, for half of all backends are slower than the others.
fn factor() -> Reader<'static, f64> {
    Reader::new("a factor such as 3, in 1.1..=1000", |node| {
        let is_decimal = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        let text = node.plain().filter(|text| text.bytes().all(is_decimal));
        let factor: f64 = text?.parse().ok()?;
        (1.1..=1000.0).contains(&factor).then_some(factor)
    })
}
