//! The answer to whoever scrapes: OpenMetrics if it asks for that, as Prometheus does, else the text format that
//! was there before, which everybody reads (`curl`, `promtool check metrics`).
//!
//! They differ in little: in the older one a counter's name ends in `_total` in its head, too, and there is
//! neither a unit nor an end.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::Process;
use super::page::{Page, page};

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The answer to a request with this header: the page that `write` makes. `process` remembers its size.
pub fn scrape(
    header: &HeaderMap,
    process: &Process,
    write: impl Fn(&mut Page<'_>) -> fmt::Result + Send + Sync + 'static,
) -> Response<String> {
    let mut response = Response::default();
    let Ok(page) = page(process.page_bytes.load(Relaxed), write) else {
        // Only by a defect: it is written into a string.
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return response;
    };
    process.page_bytes.store(page.len(), Relaxed);
    let (kind, page) = match wants_open_metrics(header) {
        true => (OPEN_METRICS, page),
        false => (TEXT, as_text(&page)),
    };
    response.headers_mut().insert(CONTENT_TYPE, kind);
    *response.body_mut() = page;
    response
}

fn wants_open_metrics(header: &HeaderMap) -> bool {
    let mut wanted = header.get_all(ACCEPT).iter();
    wanted.any(|value| {
        let value = value.to_str().unwrap_or_default();
        value.contains("application/openmetrics-text")
    })
}

/// The same in the text format 0.0.4.
fn as_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        let head = line
            .strip_prefix("# ")
            .and_then(|head| head.split_once(' '));
        match head {
            None if line == "# EOF" => {}
            Some(("UNIT", _)) => {}
            Some((word @ ("HELP" | "TYPE"), rest)) => {
                // What is said of a metric begins with its help; the type follows.
                let kind = if word == "HELP" {
                    lines.peek()
                } else {
                    Some(&line)
                };
                let is_counter = kind.is_some_and(|kind| kind.ends_with(" counter"));
                let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                let end = if is_counter { "_total" } else { "" };
                text.extend(["# ", word, " ", name, end, " ", rest, "\n"]);
            }
            _ => text.extend([line, "\n"]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{NO_LABELS, REPORT_AGE, RETRIES};
    use super::*;

    fn scraped(accept: Option<&'static str>) -> (HeaderValue, String) {
        let accept = accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept)));
        let header = accept.into_iter().collect();
        let response = scrape(&header, &Process::new(0), |page| {
            let hostile = [("reason", "a\\b\"c\nd")];
            page.metric(&RETRIES)?.count(&hostile, 3_u64)?;
            page.metric(&REPORT_AGE)?.gauge(&NO_LABELS, 0.5)
        });
        (
            response.headers()[CONTENT_TYPE].clone(),
            response.into_body(),
        )
    }

    #[test]
    fn who_asks_for_open_metrics_gets_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        let (kind, page) = scraped(Some(prometheus));
        assert_eq!(kind, OPEN_METRICS);
        let expected = "\
            # HELP maitred_retries Attempts that were made because the one before had failed.\n\
            # TYPE maitred_retries counter\n\
            maitred_retries_total{reason=\"a\\\\b\\\"c\\nd\"} 3\n\
            # HELP maitred_report_age_seconds Since the health file was last seen to be written.\n\
            # TYPE maitred_report_age_seconds gauge\n\
            # UNIT maitred_report_age_seconds seconds\n\
            maitred_report_age_seconds{} 0.5\n\
            # EOF\n";
        assert_eq!(page, expected);
    }

    #[test]
    fn everybody_else_gets_the_text_format() {
        for accept in [None, Some("*/*"), Some("text/plain;version=0.0.4")] {
            let (kind, page) = scraped(accept);
            assert_eq!(kind, TEXT);
            let expected = "\
                # HELP maitred_retries_total Attempts that were made because the one before had failed.\n\
                # TYPE maitred_retries_total counter\n\
                maitred_retries_total{reason=\"a\\\\b\\\"c\\nd\"} 3\n\
                # HELP maitred_report_age_seconds Since the health file was last seen to be written.\n\
                # TYPE maitred_report_age_seconds gauge\n\
                maitred_report_age_seconds{} 0.5\n";
            assert_eq!(page, expected, "{accept:?}");
        }
    }
}
