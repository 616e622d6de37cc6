//! The model as lines, for pipes and logs: what is up and where, each event, and a summary every few seconds.

use std::io::{self, Write};
use std::time::Duration;

use crate::model::Model;
use crate::ports::SERVERS;
use crate::view::clock;

/// Between two summaries.
const STEP: Duration = Duration::from_secs(2);

/// What was printed so far.
#[derive(Default)]
pub struct Lines {
    events_shown: usize,
    next_summary: Duration,
}

impl Lines {
    /// Prints what is new.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub fn show(&mut self, model: &Model, now: Duration, out: &mut impl Write) -> io::Result<()> {
        if self.next_summary.is_zero() {
            introduce(model, out)?;
            self.next_summary = STEP;
        }
        let (events, next) = model.events_since(self.events_shown);
        for event in events {
            writeln!(out, "{:>6}  {}", clock(event.at), event.what)?;
        }
        self.events_shown = next;
        if now >= self.next_summary {
            summarise(model, now, out)?;
            self.next_summary = now + STEP;
        }
        out.flush()
    }
}

fn introduce(model: &Model, out: &mut impl Write) -> io::Result<()> {
    let ports = model.ports;
    writeln!(
        out,
        "maitred and three servers that serve one request at a time"
    )?;
    writeln!(out, "  proxy    http://localhost:{}/home", ports.proxy)?;
    writeln!(
        out,
        "  status   http://localhost:{}/api/v1/status",
        ports.admin
    )?;
    for (name, port) in SERVERS.iter().zip(ports.servers) {
        writeln!(out, "  {name:8} http://localhost:{port}/")?;
    }
    writeln!(out, "  health   {}", model.health_file.display())
}

fn summarise(model: &Model, now: Duration, out: &mut impl Write) -> io::Result<()> {
    let (half, most) = model.quantiles().unwrap_or_default();
    let waiting = model.status.as_ref().map_or(0, |one| one.upstream.waiting);
    writeln!(
        out,
        "{:>6}  {} clients, {waiting} waiting, {:.1} requests/s, p50 {} ms, p99 {} ms; {}",
        clock(now),
        model.clients,
        model.rate(now),
        half.as_millis(),
        most.as_millis(),
        answers(model)
    )
}

/// What became of all requests, and who served how much of them.
pub fn end(model: &Model) -> String {
    let mut text = format!("{} requests: {}", model.tally.requests(), answers(model));
    for (name, share) in SERVERS.iter().zip(model.shares().unwrap_or_default()) {
        text += &format!("; {name} {:.1} %", share * 100.0);
    }
    text
}

fn answers(model: &Model) -> String {
    let tally = model.tally;
    let mut text = format!("{} ok, {} failed", tally.served, tally.failed);
    for (count, what) in [(tally.timed_out, "timed out"), (tally.refused, "refused")] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Answer, Answered};
    use crate::model::tests::{look, model};

    fn shown(lines: &mut Lines, model: &Model, seconds: u64) -> String {
        let mut out = Vec::new();
        lines
            .show(model, Duration::from_secs(seconds), &mut out)
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_thing_is_said_once() {
        let (mut lines, mut model) = (Lines::default(), model());
        assert!(shown(&mut lines, &model, 0).contains("http://localhost:8080/home"));
        assert_eq!(shown(&mut lines, &model, 1), "");
        model.note(Duration::from_secs(61), "server2 killed");
        assert!(shown(&mut lines, &model, 61).starts_with("  1:01  server2 killed\n"));
        assert_eq!(shown(&mut lines, &model, 62), "");
        assert!(shown(&mut lines, &model, 63).contains("6 clients, 0 waiting"));
    }

    #[test]
    fn the_end_tells_answers_and_shares() {
        let mut model = model();
        model.observe(Duration::ZERO, Some(look([2, 1, 1])));
        for answer in [Answer::Served, Answer::TimedOut] {
            let took = Duration::from_secs(1);
            model.count(Duration::ZERO, Answered { answer, took });
        }
        assert_eq!(
            end(&model),
            "2 requests: 1 ok, 0 failed, 1 timed out; server1 50.0 %; server2 25.0 %; server3 25.0 %"
        );
    }
}
