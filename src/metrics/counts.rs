//! What requests are counted in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::Method;

use super::{Histogram, Runtimes};

/// Something that is counted.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// So many more.
    pub fn add_many(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// So many until now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The methods that have a name in the metrics; there is no end to what clients send.
const METHODS: [Method; 8] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::CONNECT,
];

/// Classes of statuses. The first is for clients that were not answered.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Requests by method and class of status.
#[derive(Debug, Default)]
pub struct RequestCounts([[Count; CLASSES.len()]; METHODS.len() + 1]);

impl RequestCounts {
    /// Counts a request that was answered with this status; 0: not at all.
    pub fn add(&self, method: &Method, status: u16) {
        let methods = METHODS.iter();
        let method = methods.take_while(|known| *known != method).count();
        // 499 is what the log says of a client that left; it was not answered.
        let class = match status {
            499 => 0,
            _ => usize::from(status / 100),
        };
        self.0[method][class.min(CLASSES.len() - 1)].add();
    }

    /// Those that are not 0: method, class and how many.
    pub fn each(&self) -> impl Iterator<Item = (&str, &'static str, u64)> {
        let names = METHODS.iter().map(Method::as_str).chain(["other"]);
        names.zip(&self.0).flat_map(|(method, classes)| {
            let classes = CLASSES.iter().zip(classes);
            let counts = classes.map(move |(class, count)| (method, *class, count.get()));
            counts.filter(|(_, _, count)| *count > 0)
        })
    }
}

/// How long requests took, and where.
#[derive(Debug, Default)]
pub struct RequestTimes {
    /// From the header complete to the end.
    pub total: Histogram,
    /// Waiting for a slot.
    pub queue: Histogram,
    /// From being sent to a backend to its header.
    pub first_byte: Histogram,
    /// From being sent to a backend to its last byte.
    pub last_byte: Histogram,
}

/// Counts by word, of words that are known beforehand.
#[derive(Debug, Default)]
pub struct Words(Box<[(&'static str, Count)]>);

impl Words {
    /// None of these was counted yet.
    pub fn new(words: impl IntoIterator<Item = &'static str>) -> Self {
        Self(
            words
                .into_iter()
                .map(|word| (word, Count::default()))
                .collect(),
        )
    }

    /// Counts a word; one that is not known is not counted.
    pub fn add(&self, word: &str) {
        if let Some((_, count)) = self.0.iter().find(|(known, _)| *known == word) {
            count.add();
        }
    }

    /// Every word and how often it came.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(word, count)| (*word, count.get()))
    }
}

/// What is counted for the whole process.
#[derive(Debug, Default)]
pub struct ProxyCounters {
    /// Requests that belong to no upstream.
    pub unrouted: RequestCounts,
    /// Theirs too; they never wait.
    pub unrouted_times: RequestTimes,
    /// By why the proxy answered by itself.
    pub refusals: Words,
    /// By why an attempt was made again.
    pub retries: Words,
    /// By why none was made where one was wanted.
    pub retries_denied: Words,
    /// Client connections accepted.
    pub connections: Count,
    /// Those of them that are over.
    pub connections_closed: Count,
    /// Where clients are served.
    pub runtimes: Runtimes,
    /// Access log lines dropped.
    pub log_dropped: Arc<Count>,
    /// By what the health file was found to be when it had changed.
    pub report_readings: Words,
    /// From a change of the health file until it was in force.
    pub report_in_force: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_method_and_class() {
        let counts = RequestCounts::default();
        counts.add(&Method::GET, 200);
        counts.add(&Method::GET, 204);
        counts.add(&Method::from_bytes(b"BREW").unwrap(), 418);
        counts.add(&Method::CONNECT, 0);
        counts.add(&Method::POST, 499);
        counts.add(&Method::POST, 999);
        let each: Vec<_> = counts.each().collect();
        let expected = [
            ("GET", "2xx", 2),
            ("POST", "none", 1),
            ("POST", "5xx", 1),
            ("CONNECT", "none", 1),
            ("other", "4xx", 1),
        ];
        assert_eq!(each, expected);
    }

    #[test]
    fn words_that_nobody_knows_are_not_counted() {
        let words = Words::new(["queue_full", "stopping"]);
        words.add("queue_full");
        words.add("nonsense");
        assert_eq!(
            words.each().collect::<Vec<_>>(),
            [("queue_full", 1), ("stopping", 0)]
        );
    }
}
