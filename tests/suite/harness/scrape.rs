//! A page of metrics, scraped as Prometheus does.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tokio::task::spawn_blocking;

use super::client::get;
use super::duration::Units;
use super::needs::python;
use super::patience::soon;

/// The parser of the format's own authors, which takes nothing that the format does not allow.
const STRICT: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
print(sum(len(family.samples) for family in text_string_to_metric_families(sys.stdin.read())))
";

/// A page: every sample by its name and labels, as they are written.
pub struct Scraped {
    text: String,
    samples: BTreeMap<String, f64>,
}

/// The page of whoever serves metrics at this address.
///
/// # Panics
/// When that is no OpenMetrics.
pub async fn scrape(address: SocketAddr) -> Scraped {
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let request = get("/metrics").header("Accept", accept);
    let answer = soon("a page of metrics", 5.secs(), request.send_to(address)).await;
    let answer = answer.unwrap_or_else(|error| panic!("{address}: {error}"));
    assert_eq!(answer.status, 200);
    let kind = answer.header("Content-Type").unwrap_or_default();
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
        (name.to_owned(), value.parse().expect("a value is a number"))
    });
    Scraped {
        samples: samples.collect(),
        text,
    }
}

impl Scraped {
    /// The sum of a metric's samples that have all of these labels, as they are written.
    pub fn sum(&self, metric: &str, labels: &[&str]) -> f64 {
        self.each(metric, labels).sum()
    }

    /// [`Self::sum`] of what is counted in whole numbers.
    pub fn count(&self, metric: &str, labels: &[&str]) -> usize {
        self.sum(metric, labels) as usize
    }

    /// Whether there is such a sample.
    pub fn has(&self, metric: &str, labels: &[&str]) -> bool {
        self.each(metric, labels).next().is_some()
    }

    fn each(&self, metric: &str, labels: &[&str]) -> impl Iterator<Item = f64> {
        let chosen = self.samples.iter().filter(move |(name, _)| {
            let rest = name.strip_prefix(metric);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                && labels.iter().all(|label| name.contains(label))
        });
        chosen.map(|(_, value)| *value)
    }

    /// No sample is there twice, and a strict parser reads them all. Without a Python that has one, the second
    /// is left out.
    ///
    /// # Panics
    /// When that is not so.
    pub async fn assert_strict(&self) {
        let lines = self.text.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(lines.count(), self.samples.len(), "{}", self.text);
        let Some(python) = python() else { return };
        let text = self.text.clone();
        // The test's own backends are to go on meanwhile.
        let parsing = spawn_blocking(move || parsed_strictly(&python, &text));
        let samples = parsing.await.expect("the parser runs");
        assert_eq!(samples, Some(self.samples.len()), "{}", self.text);
    }
}

/// How many samples a strict parser finds; `None` if it takes something for wrong.
fn parsed_strictly(python: &str, text: &str) -> Option<usize> {
    let mut parser = Command::new(python)
        .args(["-c", STRICT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tests' Python runs");
    let mut input = parser.stdin.take().expect("it is piped");
    // It fails when the parser has given up, which shows in its status.
    let _ = input.write_all(text.as_bytes());
    drop(input);
    let output = parser.wait_with_output().expect("our own child ends");
    let samples = String::from_utf8_lossy(&output.stdout);
    output
        .status
        .success()
        .then(|| samples.trim().parse().ok())?
}
