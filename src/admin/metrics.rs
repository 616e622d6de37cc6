//! The page for Prometheus: the samples of every metric, read from what counts them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::Admin;
use crate::id::UpstreamName;
use crate::metrics::{
    self as declared, Family, Histogram, Metric, NO_LABELS, Page, RequestCounts, RequestTimes,
};
use crate::upstream::{BackendView, Guest, Ineligible, Upstream, UpstreamView};

/// The health file's states.
const REPORT_STATES: [&str; 4] = ["ok", "stale", "missing", "corrupt"];

/// Which histogram of a request's times.
type Time = fn(&RequestTimes) -> &Histogram;

/// Which number of a backend.
type Fact = fn(&BackendView<'_>) -> u32;

impl Admin {
    /// Every metric, as it is now.
    pub(super) fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        self.write_requests(page)?;
        self.write_times(page)?;
        self.write_attempts(page)?;
        self.write_upstreams(page)?;
        self.write_report(page)?;
        self.write_connections(page)?;
        self.process.write(page)
    }

    fn write_requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let mut family = page.metric(&declared::REQUESTS)?;
        count_requests(&mut family, ["", ""], &self.counters.unrouted)?;
        for (name, upstream) in self.current.load_full().upstreams.iter() {
            count_requests(&mut family, [name.as_str(), ""], &upstream.unassigned)?;
            for backend in upstream.backends() {
                let names = [name.as_str(), backend.name().as_str()];
                count_requests(&mut family, names, &backend.requests)?;
            }
        }
        let words = [
            (&declared::REFUSALS, &self.counters.refusals),
            (&declared::RETRIES, &self.counters.retries),
            (&declared::RETRIES_DENIED, &self.counters.retries_denied),
        ];
        for (metric, words) in words {
            let mut family = page.metric(metric)?;
            for (word, count) in words.each() {
                family.count(&[("reason", word)], count)?;
            }
        }
        Ok(())
    }

    fn write_times(&self, page: &mut Page<'_>) -> fmt::Result {
        let times: [(&Metric, Time); 4] = [
            (&declared::REQUEST_DURATION, |times| &times.total),
            (&declared::QUEUE_DURATION, |times| &times.queue),
            (&declared::FIRST_BYTE_DURATION, |times| &times.first_byte),
            (&declared::LAST_BYTE_DURATION, |times| &times.last_byte),
        ];
        for (metric, time) in times {
            let mut family = page.metric(metric)?;
            let labels = [("upstream", ""), ("backend", "")];
            family.histogram(&labels, time(&self.counters.unrouted_times))?;
            for (name, upstream) in self.current.load_full().upstreams.iter() {
                let labels = [("upstream", name.as_str()), ("backend", "")];
                family.histogram(&labels, time(&upstream.times))?;
                for backend in upstream.backends() {
                    let labels = [
                        ("upstream", name.as_str()),
                        ("backend", backend.name().as_str()),
                    ];
                    family.histogram(&labels, time(&backend.times))?;
                }
            }
        }
        Ok(())
    }

    fn write_attempts(&self, page: &mut Page<'_>) -> fmt::Result {
        let mut family = page.metric(&declared::ATTEMPTS)?;
        for (name, upstream) in self.current.load_full().upstreams.iter() {
            for backend in upstream.backends() {
                let outcomes = [("answered", backend.served()), ("failed", backend.failed())];
                for (outcome, count) in outcomes {
                    let labels = [
                        ("upstream", name.as_str()),
                        ("backend", backend.name().as_str()),
                        ("outcome", outcome),
                    ];
                    family.count(&labels, count)?;
                }
            }
        }
        Ok(())
    }

    fn write_upstreams(&self, page: &mut Page<'_>) -> fmt::Result {
        let snapshot = self.current.load_full();
        let upstreams = snapshot.upstreams.iter();
        let views: Vec<_> = upstreams
            .map(|(name, upstream)| (name.as_str(), upstream.view()))
            .collect();
        write_queues(page, &snapshot.upstreams, &views)?;
        let mut family = page.metric(&declared::INELIGIBLE)?;
        for_each_backend(&views, |[upstream, backend], view| {
            let reason = view.why_not.as_ref().map(Ineligible::name);
            reason.map_or(Ok(()), |reason| {
                family.gauge(&[*upstream, *backend, ("reason", reason)], 1_u64)
            })
        })?;
        let mut family = page.metric(&declared::EJECTIONS)?;
        for_each_backend(&views, |[upstream, backend], view| {
            for (cause, count) in view.backend.ejections.each() {
                family.count(&[*upstream, *backend, ("cause", cause)], count)?;
            }
            Ok(())
        })?;
        let gauges: [(&Metric, Fact); 5] = [
            (&declared::SLOTS, |view| view.max_in_flight),
            (&declared::IN_FLIGHT, |view| view.in_flight),
            (&declared::ABANDONED, |view| view.abandoned),
            (&declared::WEIGHT, |view| view.weight),
            (&declared::ELIGIBLE, |view| u32::from(view.is_eligible())),
        ];
        for (metric, value) in gauges {
            let mut family = page.metric(metric)?;
            for_each_backend(&views, |labels, view| family.gauge(labels, value(view)))?;
        }
        Ok(())
    }

    fn write_report(&self, page: &mut Page<'_>) -> fmt::Result {
        let report = &self.current.load_full().report;
        let mut family = page.metric(&declared::REPORT_STATE)?;
        for state in REPORT_STATES {
            family.gauge(&[("state", state)], u64::from(state == report.name()))?;
        }
        let mut family = page.metric(&declared::REPORT_AGE)?;
        if let Some(age) = report.age() {
            family.gauge(&NO_LABELS, age.as_secs_f64())?;
        }
        let mut family = page.metric(&declared::REPORT_READINGS)?;
        for (state, count) in self.counters.report_readings.each() {
            family.count(&[("state", state)], count)?;
        }
        page.metric(&declared::REPORT_IN_FORCE)?
            .histogram(&NO_LABELS, &self.counters.report_in_force)
    }

    fn write_connections(&self, page: &mut Page<'_>) -> fmt::Result {
        let counters = &self.counters;
        // In this order: a connection that comes and goes meanwhile must not leave fewer than none.
        let closed = counters.connections_closed.get();
        let accepted = counters.connections.get();
        page.metric(&declared::CONNECTIONS)?
            .count(&NO_LABELS, accepted)?;
        page.metric(&declared::CONNECTIONS_OPEN)?
            .gauge(&NO_LABELS, accepted - closed)?;
        page.metric(&declared::TASKS)?
            .gauge(&NO_LABELS, counters.runtimes.tasks())?;
        page.metric(&declared::LOG_DROPPED)?
            .count(&NO_LABELS, counters.log_dropped.get())
    }
}

fn write_queues(
    page: &mut Page<'_>,
    upstreams: &BTreeMap<UpstreamName, Arc<Upstream>>,
    views: &[(&str, UpstreamView<'_>)],
) -> fmt::Result {
    let mut family = page.metric(&declared::WAITING)?;
    for (name, view) in views {
        family.gauge(&[("upstream", *name)], view.queue.waiting as u64)?;
    }
    let mut family = page.metric(&declared::WAITING_MAX)?;
    for (name, upstream) in upstreams {
        let size = upstream.params().queue.size;
        family.gauge(&[("upstream", name.as_str())], size as u64)?;
    }
    let mut family = page.metric(&declared::EXPECTED_WAIT)?;
    let newcomer = Guest::any(Instant::now());
    for (name, upstream) in upstreams {
        if let Some(wait) = upstream.expected_wait(&newcomer) {
            family.gauge(&[("upstream", name.as_str())], wait.as_secs_f64())?;
        }
    }
    Ok(())
}

fn count_requests(
    family: &mut Family<'_>,
    [upstream, backend]: [&str; 2],
    counts: &RequestCounts,
) -> fmt::Result {
    for (method, code, count) in counts.each() {
        let labels = [
            ("upstream", upstream),
            ("backend", backend),
            ("method", method),
            ("code", code),
        ];
        family.count(&labels, count)?;
    }
    Ok(())
}

fn for_each_backend(
    views: &[(&str, UpstreamView<'_>)],
    mut sample: impl FnMut(&[(&str, &str); 2], &BackendView<'_>) -> fmt::Result,
) -> fmt::Result {
    for (name, view) in views {
        for backend in &view.backends {
            let labels = [
                ("upstream", *name),
                ("backend", backend.backend.name().as_str()),
            ];
            sample(&labels, backend)?;
        }
    }
    Ok(())
}
