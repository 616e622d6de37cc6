//! Everything is counted once: what clients saw, what backends got, the access log, the counters and the
//! histograms agree exactly, over a mixed run with a backend that dies again and again.
//!
//! Every way of ending has an upstream of its own, so that each column can be told apart by its labels,
//! and every request carries its number in its query, so that its line in the log is found.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::{
    Backend, Proxy, Response, Scraped, Units, ask_on, backend, get, post, proxy, request, until,
};
use crate::metrics::scrape_after;

/// How a request ended, for its client: its status and, where the proxy answered by itself, its reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    upstream: &'static str,
    status: u16,
    reason: String,
}

/// What each request's client saw, by the request's number.
type Seen = HashMap<String, End>;

/// How often a class of ends was counted, by each of those who count.
#[derive(Debug, Default, PartialEq)]
struct Row {
    clients: usize,
    backends: usize,
    log: usize,
    counter: usize,
    histogram: usize,
}

#[tokio::test]
async fn whoever_counts_a_request_counts_it_alike() {
    Run::of(3_000).await.agrees();
}

#[tokio::test]
#[ignore = "takes a minute: tests/figures.sh"]
async fn soak_a_hundred_thousand_mixed_requests_are_counted_alike() {
    Run::of(100_000).await.agrees();
}

/// The backends of one run, and the proxy before them.
struct Hall {
    lb: Proxy,
    web: [Backend; 3],
    full: Backend,
    impatient: Backend,
    broken: Backend,
    odd: Backend,
    left: Backend,
}

impl Hall {
    async fn open() -> Self {
        let [a, b, c] = ["a", "b", "c"].map(|name| backend(name).takes(1.millis()).start());
        let web = [a.await, b.await, c.await];
        let full = backend("full").takes(5.millis()).start().await;
        let impatient = backend("impatient").takes(20.millis()).start().await;
        let broken = backend("broken").start().await;
        let odd = backend("odd").status(404).start().await;
        let left = backend("left").held().start().await;
        let lb = proxy()
            .upstream("web", &web)
            .upstream("full", [&full])
            .upstream("impatient", [&impatient])
            .upstream("broken", [&broken])
            .upstream("odd", [&odd])
            .upstream("left", [&left])
            .key("maitred.upstreams.full.queue.size", 1)
            .key("maitred.upstreams.impatient.queue.timeout", "50ms")
            .json_access_log()
            .start()
            .await;
        Self {
            lb,
            web,
            full,
            impatient,
            broken,
            odd,
            left,
        }
    }

    fn backends(&self) -> impl Iterator<Item = &Backend> {
        let others = [
            &self.full,
            &self.impatient,
            &self.broken,
            &self.odd,
            &self.left,
        ];
        self.web.iter().chain(others)
    }

    /// Eight of ten go where one of three backends dies again and again; the others end in all the ways in
    /// which the proxy answers by itself, or not at all.
    async fn mixed(&self, requests: usize) -> Seen {
        let part = |percent: usize| requests * percent / 100;
        let is_over = AtomicBool::new(false);
        let load = async {
            let parts = tokio::join!(
                self.ask("web", 16, part(80), "GET"),
                self.ask("full", 4, part(6), "GET"),
                self.ask("impatient", 6, part(2), "GET"),
                self.ask("broken", 2, part(2), "POST"),
                self.ask("odd", 2, part(4), "HEAD"),
                self.ask("nowhere", 1, part(4), "GET"),
                self.leave(part(2)),
            );
            is_over.store(true, Ordering::Relaxed);
            let (web, full, impatient, broken, odd, nowhere, left) = parts;
            [web, full, impatient, broken, odd, nowhere, left]
        };
        let (parts, ()) = tokio::join!(load, self.kill_again_and_again(&is_over));
        parts.into_iter().flatten().collect()
    }

    async fn kill_again_and_again(&self, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            self.web[2].kill().await;
            tokio::time::sleep(100.millis()).await;
            self.web[2].revive().await;
            tokio::time::sleep(300.millis()).await;
        }
    }

    /// Asks on so many connections at once until all are answered.
    async fn ask(
        &self,
        upstream: &'static str,
        clients: usize,
        requests: usize,
        method: &'static str,
    ) -> Seen {
        let address = self.lb.address();
        let one = |client| async move {
            let mut seen = Seen::new();
            let mut connection = None;
            for index in (client..requests).step_by(clients) {
                let id = format!("{upstream}-{index}");
                let request = request(method, &target(upstream, &id)).accepts_json();
                let response = ask_on(&mut connection, address, &request).await;
                seen.insert(id, End::of(upstream, &response.unwrap()));
            }
            seen
        };
        let all: JoinSet<_> = (0..clients).map(one).collect();
        all.join_all().await.into_iter().flatten().collect()
    }

    /// Clients that leave, ten at a time: in the middle of their body, in service and in the queue. Only
    /// when the proxy knows it does the backend go on, so that none of them can be answered.
    async fn leave(&self, requests: usize) -> Seen {
        let ids: Vec<_> = (0..requests).map(|index| format!("left-{index}")).collect();
        for ten in ids.chunks(10) {
            let mut clients = Vec::new();
            for (place, id) in ten.iter().enumerate() {
                let request = match place % 3 {
                    2 => post(&target("left", id)).promises(10),
                    _ => get(&target("left", id)),
                };
                let client = self.lb.send(&request).await;
                clients.push(client);
            }
            let complete = ten.len() - ten.len() / 3;
            self.holds(complete).await;
            drop(clients);
            self.holds(0).await;
            self.left.release(1);
            self.left.working_on(0).await;
        }
        let end = End {
            upstream: "left",
            status: 499,
            reason: "client_gone".to_owned(),
        };
        ids.into_iter().map(|id| (id, end.clone())).collect()
    }

    /// Waits until this many requests to `left` are wanted by a client, one of them in service.
    async fn holds(&self, requests: usize) {
        let what = format!("{requests} requests are waited for");
        until(&what, 20.secs(), async || {
            let status = self.lb.status().await;
            let left = &status["upstreams"]["left"];
            let backend = &left["backends"]["left"];
            let count = |value: &Value| value.as_u64().unwrap() as usize;
            let wanted = count(&backend["in_flight"]) - count(&backend["abandoned"]);
            let is_at_backend = wanted == requests.min(1) && wanted <= self.left.current();
            is_at_backend && count(&left["waiting"]) + wanted == requests
        })
        .await;
    }
}

fn target(upstream: &str, id: &str) -> String {
    let path = match upstream {
        "web" => "home",
        other => other,
    };
    let treatment = if upstream == "broken" { "&reset" } else { "" };
    format!("/{path}?id={id}{treatment}")
}

/// A run that is over, as everyone saw it.
struct Run {
    clients: Seen,
    log: Vec<Value>,
    page: Scraped,
    /// The numbers of all that reached a backend.
    reached: HashSet<String>,
}

impl Run {
    async fn of(requests: usize) -> Self {
        let hall = Hall::open().await;
        let clients = hall.mixed(requests).await;
        let page = scrape_after(&hall.lb, clients.len()).await;
        until("every line is written", 5.secs(), async || {
            hall.lb.access_log().len() >= clients.len()
        })
        .await;
        let requests = hall.backends().flat_map(Backend::requests);
        let reached = requests.map(|seen| id_of(&seen.target)).collect();
        Self {
            clients,
            log: hall.lb.access_log(),
            page,
            reached,
        }
    }

    /// Prints the columns and compares them; each request's line is compared with what its client saw.
    fn agrees(&self) {
        assert_eq!(self.log.len(), self.clients.len(), "lines in the log");
        let mut rows: BTreeMap<End, Row> = BTreeMap::new();
        for (id, end) in &self.clients {
            let row = rows.entry(end.clone()).or_default();
            row.clients += 1;
            row.backends += usize::from(self.reached.contains(id));
        }
        for line in &self.log {
            let id = id_of(line["target"].as_str().unwrap());
            let seen = &self.clients[&id];
            let reason = line["reason"].as_str().unwrap_or("");
            assert_eq!(line["status"], seen.status, "{line}");
            assert_eq!(reason, seen.reason, "{line}");
            rows.entry(seen.clone()).or_default().log += 1;
        }
        for (end, row) in &mut rows {
            row.counter = self.counted(end);
            row.histogram = self.observed(end);
        }
        print(&rows);
        for (end, row) in &rows {
            row.agrees(end);
            // Each reason has an upstream of its own.
            if !end.reason.is_empty() {
                let reason = format!("reason=\"{}\"", end.reason);
                let refusals = self.page.count("maitred_refusals_total", &[&reason]);
                assert_eq!(refusals, row.clients, "{end}");
            }
        }
    }
}

impl Run {
    fn counted(&self, end: &End) -> usize {
        let code = match end.status {
            499 => "none".to_owned(),
            status => format!("{}xx", status / 100),
        };
        let code = format!("code=\"{code}\"");
        self.page
            .count("maitred_requests_total", &[&end.label(), &code])
    }

    /// A histogram does not tell statuses apart, but who was refused had no backend.
    fn observed(&self, end: &End) -> usize {
        let histogram = "maitred_request_duration_seconds_count";
        let nobody = "backend=\"\"";
        let refused = self.page.count(histogram, &[&end.label(), nobody]);
        match end.status {
            503 => refused,
            499 => self.page.count(histogram, &[&end.label()]),
            _ if end.upstream == "nowhere" => refused,
            _ => self.page.count(histogram, &[&end.label()]) - refused,
        }
    }
}

impl End {
    fn of(upstream: &'static str, response: &Response) -> Self {
        let reason = match response.backend() {
            Some(_) => String::new(),
            None => response.json()["error"].as_str().unwrap().to_owned(),
        };
        Self {
            upstream,
            status: response.status,
            reason,
        }
    }

    /// The label of its upstream; what has no route has an empty one.
    fn label(&self) -> String {
        let upstream = if self.upstream == "nowhere" {
            ""
        } else {
            self.upstream
        };
        format!("upstream=\"{upstream}\"")
    }

    /// How many of so many reached a backend.
    fn reaching(&self, requests: usize) -> usize {
        match self.reason.as_str() {
            "" | "bad_gateway" => requests,
            // The first of each ten.
            "client_gone" => requests.div_ceil(10),
            _ => 0,
        }
    }
}

impl Row {
    fn agrees(&self, end: &End) {
        let clients = self.clients;
        let expected = Row {
            clients,
            backends: end.reaching(clients),
            log: clients,
            counter: clients,
            histogram: clients,
        };
        assert_eq!(*self, expected, "{end}");
    }
}

fn id_of(target: &str) -> String {
    let (_, query) = target.split_once("?id=").unwrap();
    query.split('&').next().unwrap().to_owned()
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            upstream,
            status,
            reason,
        } = self;
        out.pad(&format!("{upstream} {status} {reason}"))
    }
}

fn print(rows: &BTreeMap<End, Row>) {
    println!(
        "{:30} {:>8} {:>8} {:>8} {:>8} {:>9}",
        "", "clients", "backends", "log", "counter", "histogram"
    );
    for (end, row) in rows {
        let Row {
            clients,
            backends,
            log,
            counter,
            histogram,
        } = row;
        println!("{end:30} {clients:>8} {backends:>8} {log:>8} {counter:>8} {histogram:>9}");
    }
}
