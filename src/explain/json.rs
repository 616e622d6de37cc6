//! An explanation as JSON: for the admin page, and small enough for a field of the answer.

use std::time::Instant;

use serde_json::{Value, json};

use super::record::{Attempt, Explanation};
use crate::policy::outlier::Cause;
use crate::upstream::{Balance, Finding};

/// How long a field of an answer is at the most.
pub const FIELD_BYTES_MAX: usize = 4096;

impl Explanation {
    /// Everything that is known.
    pub fn to_json(&self) -> Value {
        let mut shown = self.summary();
        let attempts = self.attempts.iter();
        let attempts: Vec<_> = attempts
            .map(|attempt| self.attempt_json(attempt, true))
            .collect();
        shown["method"] = self.method().into();
        shown["target"] = self.target().into();
        shown["why"] = self.why().into();
        shown["attempts"] = attempts.into();
        shown
    }

    /// The same for a field's value: one line of ASCII, without what the client knows itself; without single backends
    /// where it would be too long.
    pub fn to_field(&self) -> String {
        let with = |lists_backends: bool| {
            let mut shown = self.summary();
            let attempts = self.attempts.iter();
            let attempts: Vec<_> = attempts
                .map(|attempt| self.attempt_json(attempt, lists_backends))
                .collect();
            shown["attempts"] = attempts.into();
            ascii(&shown.to_string())
        };
        let fits = |field: &String| field.len() <= FIELD_BYTES_MAX;
        Some(with(true))
            .filter(fits)
            .or_else(|| Some(with(false)).filter(fits))
            .unwrap_or_else(|| r#"{"error":"longer than a field may be"}"#.to_owned())
    }

    fn summary(&self) -> Value {
        let upstream = self.upstream.as_ref().map(|place| place.0.params());
        let end = self.end.as_ref();
        json!({
            "id": self.id(),
            "time": humantime::format_rfc3339_millis(self.time).to_string(),
            "report": {
                "state": self.report.state,
                "age_seconds": self.report.age.map(|age| age.as_secs_f64()),
            },
            "upstream": upstream.map(|params| &params.name),
            "balance": upstream.map(|params| name_of(params.balance)),
            "ready_seconds": self.seconds(self.ready),
            "attempts_made": self.attempts_made,
            "end_seconds": self.seconds(end.map(|end| end.at)),
            "status": end.map(|end| end.status),
            "reason": end.and_then(|end| end.fault).map(|(code, _)| code),
        })
    }

    fn attempt_json(&self, attempt: &Attempt, lists_backends: bool) -> Value {
        let survey = &attempt.survey;
        let chosen = attempt.seated.map(|(_, index)| index);
        let backend = chosen.and_then(|index| self.backend(index));
        let mut shown = json!({
            "asked_seconds": self.seconds(Some(attempt.asked)),
            "waiting": survey.waiting,
            "free": survey.counts.free,
            "full": survey.counts.full,
            "ejected": survey.counts.ejected,
            "kept_out": survey.counts.kept_out,
            "backend": backend.map(|backend| backend.name()),
            "handed_over": chosen.is_some() && survey.chosen().is_none(),
            "trial": attempt.is_trial,
            "seated_seconds": self.seconds(attempt.seated.map(|(at, _)| at)),
            "sent_seconds": self.seconds(attempt.sent),
            "answered_seconds": self.seconds(attempt.answered),
            "served_seconds": self.seconds(attempt.served),
            "failed": attempt.failed,
            "retry_denied": attempt.denied,
        });
        if lists_backends {
            let candidates: Vec<_> = self
                .candidates(attempt)
                .map(|(name, is_chosen, finding)| candidate(attempt, name, is_chosen, finding))
                .collect();
            shown["candidates"] = candidates.into();
        }
        shown
    }

    /// Those that were looked at one by one, and the one that was chosen: its name, whether it is that one, and how
    /// it was.
    pub(super) fn candidates<'a>(
        &'a self,
        attempt: &'a Attempt,
    ) -> impl Iterator<Item = (&'a str, bool, &'a Finding)> {
        let backends = self.upstream.iter().flat_map(|place| place.0.backends());
        let survey = &attempt.survey;
        // Who was handed a slot later was not chosen then.
        let seated = attempt.seated.map(|(_, index)| index);
        let chosen = seated.filter(|_| survey.chosen().is_some());
        let chosen = chosen.and_then(|index| self.backend(index));
        let is_chosen = move |name: &str| chosen.is_some_and(|one| one.name().as_str() == name);
        let listed = backends
            .zip(survey.listed())
            .map(move |(backend, finding)| {
                let name = backend.name().as_str();
                (name, is_chosen(name), finding)
            });
        let listed_names = self.upstream.iter().flat_map(|place| place.0.backends());
        let is_listed = chosen.is_some_and(|chosen| {
            let mut names = listed_names.zip(survey.listed());
            names.any(|(backend, _)| backend.name() == chosen.name())
        });
        let other = chosen.filter(|_| !is_listed).zip(survey.chosen());
        listed.chain(other.map(|(backend, finding)| (backend.name().as_str(), true, finding)))
    }

    fn seconds(&self, at: Option<Instant>) -> Option<f64> {
        at.map(|at| at.saturating_duration_since(self.arrived).as_secs_f64())
    }
}

fn candidate(attempt: &Attempt, name: &str, is_chosen: bool, finding: &Finding) -> Value {
    let since = finding
        .since
        .map(|since| attempt.asked.saturating_duration_since(since));
    json!({
        "backend": name,
        "chosen": is_chosen,
        "condition": finding.condition,
        "in_flight": finding.in_flight,
        "max_in_flight": finding.max_in_flight,
        "since_seconds": since.map(|since| since.as_secs_f64()),
        "ejected_for": finding.ejected_for.map(Cause::word),
        "rest_seconds": f64::from(finding.rest_millis) / 1000.0,
    })
}

pub(super) fn name_of(balance: Balance) -> &'static str {
    let mut all = Balance::ALL.iter();
    all.find(|(_, known)| *known == balance)
        .map_or("", |(name, _)| name)
}

/// JSON whose other characters are escaped.
fn ascii(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            escaped.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                escaped += &format!("\\u{unit:04x}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::record::fixtures::explanation;
    use super::*;

    #[test]
    fn a_field_is_ascii_whatever_is_in_it() {
        let text = json!({ "a": "\u{e4}\u{1f600}\r\n\u{7f}\"" }).to_string();
        let escaped = ascii(&text);
        assert!(
            escaped.is_ascii() && !escaped.contains(['\r', '\n']),
            "{escaped}"
        );
        let read: Value = serde_json::from_str(&escaped).unwrap();
        assert_eq!(read["a"], "\u{e4}\u{1f600}\r\n\u{7f}\"");
    }

    #[test]
    fn what_nobody_knows_yet_is_null() {
        let shown = explanation("a", "/\"\\\u{1}").to_json();
        assert_eq!(shown["target"], "/\"\\\u{1}");
        assert_eq!(
            (&shown["status"], &shown["upstream"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(shown["attempts"], json!([]));
        assert_eq!(
            shown["report"],
            json!({ "state": "ok", "age_seconds": 1.5 })
        );
    }
}
