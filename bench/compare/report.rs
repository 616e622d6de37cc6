//! Owns the words and tables of `results.md`, and what goes into the chart.

use std::fmt::Write as _;

use crate::cases::Case;
use crate::chart::{self, Bar};
use crate::contenders::{Contender, Kind};
use crate::plain::{IDLE_CLIENTS, Measured, Plan, others, void};
use crate::table::{Table, spread, whole};

/// All that a run found out. A part that was not run is empty.
pub struct Findings {
    pub date: String,
    pub machine: String,
    pub quick: bool,
    pub pinned: bool,
    /// Names and versions.
    pub versions: Vec<(String, String)>,
    /// What was not there, and what helps.
    pub missing: Vec<String>,
    pub plan: Plan,
    pub plain: Vec<Measured>,
    pub cases: Vec<Case>,
    pub contenders: Vec<Contender>,
    /// A table, or why there is none.
    pub instructions: Option<String>,
}

impl Findings {
    /// The whole report.
    pub fn markdown(&self) -> String {
        let mut text = self.head();
        if !self.plain.is_empty() {
            text += &self.plain_path();
        }
        if let Some(instructions) = &self.instructions {
            text += INSTRUCTIONS;
            text += instructions.trim_end();
            text += "\n";
        }
        if !self.cases.is_empty() {
            text += &self.three_cases();
        }
        text + REPRODUCE
    }

    /// The chart, if the plain path was measured with HAProxy.
    pub fn chart(&self) -> Option<String> {
        let base = self.base()?;
        let bars: Vec<Bar> = self
            .plain
            .iter()
            .filter_map(|each| bar(each, base))
            .collect();
        let note = format!(
            "Median of {} interleaved rounds, line: lowest to highest round. One thread each, small keep-alive GET.",
            self.plan.rounds
        );
        let title = format!("CPU time per proxied request ({} = 1)", base.contender.name);
        Some(chart::svg(&title, &note, &bars))
    }

    fn head(&self) -> String {
        let mut text = String::from("# Side by side\n\n");
        if let Some(why) = void(&self.plain) {
            let _ = writeln!(text, "> **This run is void:** {why}.\n");
        }
        let length = if self.quick {
            " A quick run, for a first look."
        } else {
            ""
        };
        let _ = writeln!(text, "{}, {}.{length}", self.date, self.machine);
        let versions: Vec<String> = self
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        let _ = writeln!(text, "{}.", versions.join(", "));
        for missing in &self.missing {
            let _ = writeln!(text, "Not compared: {missing}.");
        }
        text
    }

    fn plain_path(&self) -> String {
        let cores = if self.pinned {
            "Each balancer has one thread and core 0, load and backends share core 1"
        } else {
            "Each balancer has one thread; cores could not be chosen here"
        };
        let mut text = format!(
            "\n## Small requests\n\n{cores}: {} clients with keep-alive, three fast backends with \
             keep-alive, no log but where it says so. {} interleaved rounds of {} requests each; medians, and the \
             lowest and highest round in parentheses. *CPU* is all that the processes used, kernel \
             included, and where the machine was quiet its inverse is the most requests per second. *Memory* is what {} idle clients add, each after \
             one request. maitred and Caddy add `X-Forwarded` fields, the others were not asked to.\n\n",
            self.plan.connections,
            self.plan.rounds,
            whole(self.plan.requests as f64),
            whole(IDLE_CLIENTS as f64),
        );
        if let Some(others) = others(&self.plain) {
            let percent = |share: f64| format!("{:.0} %", share * 100.0);
            let share = spread(Some(others), percent);
            let _ = writeln!(text, "Other programs took {share} of a core meanwhile.\n");
        }
        if self.base().is_some() {
            text += "![CPU time per request, relative to HAProxy](results.svg)\n\n";
        }
        text += &self.plain_table().markdown();
        text + "\n" + &files(self.plain.iter().map(|each| &each.contender))
    }

    fn plain_table(&self) -> Table {
        let mut table = Table::new(&[
            "",
            "CPU per request, µs",
            "to HAProxy",
            "to bare Pingora",
            "requests/s",
            "p50, ms",
            "p99, ms",
            "memory per idle client, KB",
        ]);
        for each in &self.plain {
            let ratio = |kind| {
                let ratio = self.of(kind).and_then(|base| each.cpu_relative_to(base));
                spread(ratio, |v| format!("{v:.2}"))
            };
            table.row(vec![
                each.contender.name.into(),
                spread(crate::stats::Spread::of(&each.cpu), |v| format!("{v:.1}")),
                ratio(Kind::Haproxy),
                ratio(Kind::Bare),
                median(&each.per_second, whole),
                median(&each.p50, millis),
                median(&each.p99, millis),
                format!("{:.1}", each.idle / 1000.0),
            ]);
        }
        table
    }

    fn three_cases(&self) -> String {
        let mut text = String::from(
            "\n## Three cases\n\nThree backends that serve one request at a time, as a sync worker does. \
             nginx (in its free edition) and bare Pingora have no slots: what they send to a busy backend waits there.\n",
        );
        for case in &self.cases {
            let _ = write!(
                text,
                "\n### {}\n\n{}\n\n{}",
                case.title,
                case.text,
                case.table.markdown()
            );
        }
        text + "\n" + &files(self.contenders.iter())
    }

    /// Whom all are compared with.
    fn base(&self) -> Option<&Measured> {
        self.of(Kind::Haproxy)
    }

    fn of(&self, kind: Kind) -> Option<&Measured> {
        self.plain.iter().find(|each| each.contender.kind == kind)
    }
}

const INSTRUCTIONS: &str = "\n## Instructions\n\nUser-space instructions per request, counted by callgrind over \
    eight connections. They repeat to a few in a thousand where times scatter, and say nothing of the kernel.\n\n";

const REPRODUCE: &str = "\n## Again\n\n`bench/run.sh` builds what is needed, takes five to six minutes and \
    writes this file; `bench/run.sh --quick` takes two to three and writes below `target/`. Missing peers: \
    `apt-get install nginx haproxy caddy valgrind`. A run in which bare Pingora takes more than 1.7 times what \
    HAProxy does is void.\n";

/// The peers' files, so that everybody can see what was compared.
fn files<'a>(contenders: impl Iterator<Item = &'a Contender>) -> String {
    let mut links: Vec<String> = contenders
        .map(|each| match each.file {
            "" => "[bare.rs](bare.rs)".to_owned(),
            file => format!("[{file}](peers/{file})"),
        })
        .collect();
    links.dedup();
    format!("Configurations: {}.\n", links.join(", "))
}

fn bar(measured: &Measured, base: &Measured) -> Option<Bar> {
    let ratio = measured.cpu_relative_to(base)?;
    Some(Bar {
        label: measured.contender.name.into(),
        value: ratio.median,
        min: ratio.min,
        max: ratio.max,
        ours: measured.contender.kind == Kind::Maitred,
    })
}

fn median(values: &[f64], write: impl Fn(f64) -> String) -> String {
    crate::stats::Spread::of(values).map_or_else(|| "–".into(), |spread| write(spread.median))
}

fn millis(micros: f64) -> String {
    format!("{:.1}", micros / 1000.0)
}
