//! An explanation for people: a sentence, what there was to choose from, and a picture of the time.

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use super::json::name_of;
use super::record::{Attempt, Explanation};
use crate::policy::outlier::Cause;
use crate::upstream::{Balance, Finding};

/// How wide the picture is.
const COLUMNS: usize = 48;

impl Explanation {
    /// Some lines of text. What clients and operators wrote is escaped where it would break one.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // A string takes everything.
        let _ = self.write(&mut text);
        text
    }

    /// What came of it, in a sentence.
    pub(super) fn why(&self) -> String {
        let last = self.attempts.last();
        let seated = last.and_then(|attempt| attempt.seated);
        let backend = seated.and_then(|(_, index)| self.backend(index));
        let name = backend.map(|backend| backend.name().as_str());
        match (&self.end, name) {
            (None, _) => "it is not over yet".to_owned(),
            (Some(end), at) => match (end.fault, at) {
                (Some((_, message)), Some(name)) => {
                    format!("{message}; its last backend was {name}")
                }
                (Some((_, message)), None) => message.to_owned(),
                (None, Some(name)) => {
                    let choice = last.map_or(String::new(), |attempt| self.choice(attempt));
                    format!("answered by {name}: {choice}")
                }
                (None, None) => "answered without a backend".to_owned(),
            },
        }
    }

    /// Why this backend, in words.
    fn choice(&self, attempt: &Attempt) -> String {
        let Some((seated, _)) = attempt.seated else {
            return "it got no slot".to_owned();
        };
        let counts = attempt.survey.counts;
        let all = counts.free + counts.full + counts.ejected + counts.kept_out;
        if attempt.is_trial {
            return "it had been ejected, and this request was to tell whether it is well again"
                .to_owned();
        }
        if attempt.survey.chosen().is_none() {
            let waited = shown(seated.saturating_duration_since(attempt.asked));
            let before = attempt.survey.waiting;
            return format!(
                "none of {all} had a free slot, so it waited for {waited} with {before} before it, and was handed the one that became free"
            );
        }
        let free = counts.free;
        let balance = self.upstream.as_ref().map(|place| place.0.params().balance);
        match (free, balance) {
            (1, _) => format!("of {all} it alone had a free slot"),
            (_, Some(Balance::LeastRequests)) => {
                format!("{free} of {all} had a free slot, and of those it had the fewest requests")
            }
            _ => format!("{free} of {all} had a free slot, and it was its turn"),
        }
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        let target = self.target();
        let (method, target) = (self.method(), target.escape_debug());
        writeln!(text, "{} {target}", method.escape_debug())?;
        match &self.end {
            Some(end) if end.status > 0 => write!(text, "{}: ", end.status)?,
            _ => write!(text, "-: ")?,
        }
        writeln!(text, "{}", self.why().escape_debug())?;
        writeln!(text, "request {}, {}", self.id().escape_debug(), time(self))?;
        if let Some(place) = &self.upstream {
            let params = place.0.params();
            let name = params.name.as_str().escape_debug();
            writeln!(text, "upstream {name}, {}", name_of(params.balance))?;
        }
        match self.report.age {
            Some(age) => writeln!(
                text,
                "health file {}, {} old",
                self.report.state,
                shown(age)
            )?,
            None => writeln!(text, "health file {}", self.report.state)?,
        }
        let first = self
            .attempts_made
            .saturating_sub(self.attempts.len() as u32);
        for (index, attempt) in self.attempts.iter().enumerate() {
            let is_last = index + 1 == self.attempts.len();
            let skipped = if is_last { first } else { 0 };
            self.write_attempt(text, index as u32 + 1 + skipped, attempt)?;
        }
        self.write_picture(text)
    }

    fn write_attempt(&self, text: &mut String, number: u32, attempt: &Attempt) -> fmt::Result {
        writeln!(text, "\nattempt {number}: {}", self.choice(attempt))?;
        let counts = attempt.survey.counts;
        let candidates: Vec<_> = self.candidates(attempt).collect();
        for (name, is_chosen, finding) in &candidates {
            let mark = if *is_chosen { '>' } else { ' ' };
            let Finding {
                condition,
                in_flight,
                max_in_flight,
                since,
                ..
            } = finding;
            let since = since.map(|since| attempt.asked.saturating_duration_since(since));
            let since = since.filter(|_| !["free", "full"].contains(condition));
            let since = since.map_or(String::new(), |since| format!(", for {}", shown(since)));
            let name = name.escape_debug().to_string();
            writeln!(
                text,
                "  {mark} {name:<16} {condition}{}{since}, {in_flight} of {max_in_flight} slots in use",
                ejection(finding)
            )?;
        }
        let all = counts.free + counts.full + counts.ejected + counts.kept_out;
        let more = all as usize - candidates.len().min(all as usize);
        if more > 0 {
            writeln!(
                text,
                "    and {more} more; of all {all}, {} free, {} full, {} ejected, {} kept out",
                counts.free, counts.full, counts.ejected, counts.kept_out
            )?;
        }
        if let Some(why) = attempt.failed {
            writeln!(text, "    failed: {why}")?;
        }
        if let Some(why) = attempt.denied {
            writeln!(text, "    not tried again: {why}")?;
        }
        Ok(())
    }

    /// Who had the request when, as bars.
    fn write_picture(&self, text: &mut String) -> fmt::Result {
        let last = self.attempts.iter().flat_map(Attempt::moments).max();
        let end = self.end.map(|end| end.at).or(last).or(self.ready);
        let Some(end) = end else { return Ok(()) };
        let whole = end.saturating_duration_since(self.arrived);
        writeln!(text, "\n{:<24} 0{:>COLUMNS$}", "", shown(whole))?;
        let mut bar = |what: &str, from: Instant, to: Option<Instant>| {
            let to = to.unwrap_or(end);
            let [from, to] = [from, to].map(|at| at.saturating_duration_since(self.arrived));
            let column = |at: Duration| match whole.as_nanos() {
                0 => 0,
                whole => (at.as_nanos() * COLUMNS as u128 / whole) as usize,
            };
            let (left, right) = (column(from).min(COLUMNS - 1), column(to).min(COLUMNS));
            let drawn = "#".repeat(right.saturating_sub(left).max(1));
            let took = shown(to.saturating_sub(from));
            let blank = " ".repeat(left);
            writeln!(
                text,
                "{what:<24} |{blank}{drawn:<width$}| {took}",
                width = COLUMNS - left
            )
        };
        let begun = self.attempts.first().map(|attempt| attempt.asked);
        bar("header and body read", self.arrived, self.ready.or(begun))?;
        for attempt in &self.attempts {
            let seated = attempt.seated.map(|(at, _)| at);
            bar("waited for a slot", attempt.asked, seated)?;
            if let Some(sent) = attempt.sent {
                let index = attempt.seated.map(|(_, index)| index);
                let name = index
                    .and_then(|index| self.backend(index))
                    .map(|one| one.name().as_str());
                let name: String = name.unwrap_or("?").escape_debug().take(16).collect();
                bar(&format!("{name} worked"), sent, attempt.answered)?;
                if let Some(answered) = attempt.answered {
                    bar("its answer came", answered, attempt.served)?;
                }
            }
        }
        if let Some(served) = self.attempts.last().and_then(|attempt| attempt.served) {
            bar("sent to the client", served, None)?;
        }
        Ok(())
    }
}

impl Attempt {
    fn moments(&self) -> impl Iterator<Item = Instant> {
        let seated = self.seated.map(|(at, _)| at);
        let all = [
            Some(self.asked),
            seated,
            self.sent,
            self.answered,
            self.served,
        ];
        all.into_iter().flatten()
    }
}

/// What it was ejected for, and how long it was to rest still.
fn ejection(finding: &Finding) -> String {
    let rest = match finding.rest_millis {
        0 => String::new(),
        millis => format!(
            ", to rest for {}",
            shown(Duration::from_millis(millis.into()))
        ),
    };
    let cause = finding.ejected_for.map(Cause::word);
    cause.map_or(String::new(), |cause| format!(" ({cause}{rest})"))
}

fn time(explanation: &Explanation) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_millis(explanation.time)
}

fn shown(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{:.3} ms", duration.as_secs_f64() * 1000.0),
        _ => format!("{:.3} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::fixtures::explanation;

    #[test]
    fn nothing_that_a_client_says_breaks_a_line() {
        let text = explanation("a", "/\r\nSet: 1\u{1b}[2J\u{2028}").to_text();
        assert!(
            text.starts_with("GET /\\r\\nSet: 1\\u{1b}[2J\\u{2028}\n"),
            "{text}"
        );
        let odd = |one: char| one.is_control() && one != '\n';
        assert!(!text.contains(odd), "{text:?}");
    }
}
