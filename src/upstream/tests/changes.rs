//! What a change of health is told as.

use super::super::fixtures::{report, rule, upstream};
use super::super::{NAMED_MAX, Upstream};

/// What was told since the event of this number, in a few words each.
pub fn told_after(upstream: &Upstream, count: usize) -> Vec<String> {
    let events = upstream.events.after(upstream.events.origin(), usize::MAX);
    let events = events.events.iter().skip(count);
    let told = events.map(|published| {
        let event = serde_json::to_value(&published.event).unwrap();
        let fields = [
            "kind",
            "backend",
            "cause",
            "rest_seconds",
            "from",
            "to",
            "more",
        ];
        let fields = fields.map(|field| event.get(field).map(ToString::to_string));
        let words: Vec<_> = fields.into_iter().flatten().collect();
        words.join(" ").replace('"', "")
    });
    told.collect()
}

#[test]
fn a_change_is_told_once_of_those_whom_it_concerns() {
    let upstream = upstream(&[1, 1], 0);
    let admitted = ["backend_admitted 0", "backend_admitted 1"];
    assert_eq!(told_after(&upstream, 0), admitted);
    let mut count = 2;
    for (text, told) in [
        (
            r#"{"0": false, "1": true}"#,
            &["backend_kept_out 0 sick"][..],
        ),
        // It is sick for another reason, which is no other cause.
        (
            r#"{"0": {"healthy": false, "reason": "late"}, "1": true}"#,
            &[],
        ),
        (r#"{"1": true}"#, &["backend_kept_out 0 unnamed"]),
        (
            r#"{"1": {"healthy": true, "state": "drain"}}"#,
            &["backend_kept_out 1 drain"],
        ),
        (
            r#"{"1": {"healthy": true, "max_in_flight": 3, "weight": 7}}"#,
            &[
                "backend_admitted 1",
                "slots_changed 1 1 3",
                "weight_changed 1 1 7",
            ],
        ),
        (
            r#"{"0": {"healthy": false, "weight": 2}, "1": {"healthy": true, "weight": 7}}"#,
            &[
                "backend_kept_out 0 sick",
                "weight_changed 0 1 2",
                "slots_changed 1 3 1",
            ],
        ),
    ] {
        rule(&upstream, text.as_bytes());
        assert_eq!(told_after(&upstream, count), told, "{text}");
        count += told.len();
    }
}

#[test]
fn those_beyond_the_first_twenty_are_counted() {
    for more in [0, 1, 7] {
        let upstream = upstream(&vec![1; NAMED_MAX + more], 0);
        let before = told_after(&upstream, 0).len();
        report(&upstream, &vec![false; NAMED_MAX + more]);
        let told = told_after(&upstream, before);
        let named = told.iter().filter(|event| event.contains("sick"));
        assert_eq!(named.count(), NAMED_MAX);
        let rest = told.get(NAMED_MAX).map_or("", String::as_str);
        let expected = match more {
            0 => String::new(),
            _ => format!("backends_changed {more}"),
        };
        assert_eq!(rest, expected);
    }
}
