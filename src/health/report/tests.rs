//! What is a report and what is not, told as tables, and against a second parser.

use proptest::prelude::*;

use super::*;

fn error(text: &str) -> String {
    Report::parse(text.as_bytes()).unwrap_err().to_string()
}

const OBJECT: &str = r#"{
      "a": { "healthy": false, "reason": "no answer", "weight": 1000, "max_in_flight": 10000, "state": "drain" },
      "b": { "state": "maint", "healthy": true, "weight": 1, "max_in_flight": 1 }, "c": true }"#;

#[test]
fn reads_booleans_and_objects() {
    let report = Report::parse(OBJECT.as_bytes()).unwrap();
    assert_eq!(report.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    let a = Verdict {
        healthy: false,
        reason: Some("no answer".into()),
        state: State::Drain,
        weight: Some(1000),
        max_in_flight: Some(10_000),
    };
    assert_eq!(report.verdict("a"), Some(&a));
    let b = Verdict {
        healthy: true,
        reason: None,
        state: State::Maint,
        weight: Some(1),
        max_in_flight: Some(1),
    };
    assert_eq!(report.verdict("b"), Some(&b));
    let c = Verdict {
        healthy: true,
        ..Verdict::default()
    };
    assert_eq!(report.verdict("c"), Some(&c));
    assert_eq!(report.verdict("d"), None);
    assert_eq!(report.unknown_field_count(), 0);
}

#[test]
fn an_empty_object_is_the_empty_report() {
    assert_eq!(Report::parse(b"{}").unwrap(), Report::default());
}

#[test]
fn unknown_fields_are_remembered_up_to_a_limit() {
    let text = r#"{"a": {"colour": {"healthy": 1}, "healthy": true}, "b": {"healthy": true, "Weight": 0}}"#;
    let report = Report::parse(text.as_bytes()).unwrap();
    assert!(report.unknown_fields().eq(["a.colour", "b.Weight"]));
    assert_eq!(report.unknown_field_count(), 2);
    let many: String = (0..20).map(|number| format!(", \"{number}\": 0")).collect();
    let report = Report::parse(format!("{{\"a\": {{\"healthy\": true{many}}}}}").as_bytes());
    let report = report.unwrap();
    assert_eq!(report.unknown_fields().count(), UNKNOWN_FIELDS_MAX);
    assert_eq!(report.unknown_field_count(), 20);
}

#[test]
fn says_what_is_no_report_and_where() {
    let table = [
        ("", "1, column 0: not JSON: EOF while parsing a value"),
        (
            "{\"a\": true,\n \"b\": maybe}",
            "2, column 7: not JSON: expected value",
        ),
        (
            "{\"a\": true",
            "1, column 10: not JSON: EOF while parsing an object",
        ),
        (
            "{\"a\": true} x",
            "1, column 13: not JSON: trailing characters",
        ),
        (
            "[true]",
            "1, column 0: invalid type: sequence, expected an object with a key for each backend",
        ),
        (
            "true",
            "1, column 4: invalid type: boolean `true`, expected an object with a key for each backend",
        ),
        (
            "{\"a\": true,\n\"b\": true,\n\"a\": true}",
            "3, column 3: \"a\" is there twice",
        ),
        (
            "{\n\"a\": {\n\"healthy\": true,\n\"healthy\": true\n}}",
            "4, column 9: \"a.healthy\" is there twice",
        ),
        (
            r#"{"a": true, "\u0061": false}"#,
            r#"1, column 20: "a" is there twice"#,
        ),
        (
            "{\"a\": {\n}}",
            "2, column 1: \"a.healthy\": expected true or false, found nothing",
        ),
        (
            "{\"a at line 1 column 1\": 1}",
            "1, column 26: \"a at line 1 column 1\": expected true, false or an object, found 1",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(error(text), format!("line {expected}"), "{text}");
    }
}

#[test]
fn says_what_a_backend_may_be() {
    let long = format!("\"{}\"", "x".repeat(100));
    let table = [
        ("1", "1"),
        ("-1", "-1"),
        ("0.5", "0.5"),
        ("null", "null"),
        ("\"true\"", "\"true\""),
        (&long, "a long string"),
        ("[true]", "an array"),
    ];
    for (value, found) in table {
        let text = format!("{{\n  \"a\": {value}\n}}");
        let error = error(&text);
        let (position, problem) = error.split_once(": ").unwrap();
        assert!(position.starts_with("line 2, column "), "{position}");
        let expected = format!("\"a\": expected true, false or an object, found {found}");
        assert_eq!(problem, expected, "{text}");
    }
}

#[test]
fn says_what_each_field_may_be() {
    let table = [
        ("healthy", "1", "true or false, found 1"),
        ("healthy", "null", "true or false, found null"),
        ("reason", "3", "a string, found 3"),
        ("reason", "null", "a string, found null"),
        ("weight", "0", "a whole number in 1..=1000, found 0"),
        ("weight", "1001", "a whole number in 1..=1000, found 1001"),
        ("weight", "1.0", "a whole number in 1..=1000, found 1.0"),
        (
            "weight",
            "4294967297",
            "a whole number in 1..=1000, found 4294967297",
        ),
        ("weight", "true", "a whole number in 1..=1000, found true"),
        (
            "max_in_flight",
            "10001",
            "a whole number in 1..=10000, found 10001",
        ),
        (
            "max_in_flight",
            "-1",
            "a whole number in 1..=10000, found -1",
        ),
        (
            "max_in_flight",
            "{}",
            "a whole number in 1..=10000, found an object",
        ),
        (
            "state",
            "\"down\"",
            r#""ready", "drain" or "maint", found "down""#,
        ),
        (
            "state",
            "[]",
            r#""ready", "drain" or "maint", found an array"#,
        ),
    ];
    for (field, value, expected) in table {
        let healthy = if field == "healthy" {
            ""
        } else {
            "\"healthy\": true,\n"
        };
        let text = format!("{{\"a\": {{\n{healthy}\"{field}\": {value}\n}}}}");
        let line = if field == "healthy" { 2 } else { 3 };
        let error = error(&text);
        let (position, problem) = error.split_once(": ").unwrap();
        assert!(
            position.starts_with(&format!("line {line}, column ")),
            "{error}"
        );
        assert_eq!(
            problem,
            format!("\"a.{field}\": expected {expected}"),
            "{text}"
        );
    }
}

#[test]
fn a_reason_is_cut_and_kept_on_one_line() {
    let reason = |text: &str| {
        let text = serde_json::json!({ "a": { "healthy": true, "reason": text } }).to_string();
        let report = Report::parse(text.as_bytes()).unwrap();
        report.verdict("a").unwrap().reason.clone().unwrap()
    };
    assert_eq!(&*reason("x\r\nERROR \u{1b}[31m\u{9b}y"), "x  ERROR  [31m y");
    for (unit, length) in [("x", 1024), ("ä", 1023), ("\u{1f600}", 1023)] {
        let short = unit.repeat(1024 / unit.len());
        assert_eq!(*reason(&short), short);
        let cut = reason(&unit.repeat(2000));
        assert_eq!(cut.len(), length, "{cut}");
        assert!(cut.starts_with(unit) && cut.ends_with('…'));
    }
}

#[test]
fn a_message_quotes_little_and_nothing_that_a_terminal_obeys() {
    let long = "x".repeat(1 << 20);
    let nasty = "\\u001b\\n\\u009b".repeat(1 << 10);
    let just = "x".repeat(NAME_BYTES_MAX);
    for (name, problem) in [
        (just.as_str(), "expected"),
        (&long, "longer than 256 bytes"),
        (&nasty, "longer than 256 bytes"),
        ("\\u001b[2J\\n", "expected"),
    ] {
        for text in [
            format!("{{\"{name}\": 1}}"),
            format!("{{\"a\": {{\"healthy\": true, \"weight\": \"{name}\"}}}}"),
            format!("\"{name}\""),
        ] {
            let error = error(&text);
            assert!(error.len() < 500, "{} bytes", error.len());
            assert!(!error.contains(char::is_control), "{error:?}");
            assert!(!text.starts_with("{\"a") || error.contains("expected"));
        }
        let error = error(&format!("{{\"{name}\": 1}}"));
        assert!(error.contains(problem) && error.len() < 250, "{error}");
    }
    let text = format!("{{\"{just}\": {{\"healthy\": true, \"{long}\": 1}}}}");
    let report = Report::parse(text.as_bytes()).unwrap();
    assert_eq!(report.unknown_fields().next().unwrap().len(), 100);
}

#[test]
fn a_byte_order_mark_is_called_one() {
    assert_eq!(
        error("\u{feff}{}"),
        "line 1, column 1: begins with a byte order mark, which JSON does not have"
    );
}

#[test]
fn refuses_what_is_not_text_or_too_long() {
    let error = Report::parse(b"{\n\"\xff\": true}").unwrap_err();
    assert_eq!(error.to_string(), "line 2, column 2: not UTF-8");
    let mut long = b"{}".to_vec();
    long.resize(FILE_BYTES_MAX, b' ');
    assert_eq!(Report::parse(&long), Ok(Report::default()));
    long.push(b' ');
    assert_eq!(Report::parse(&long), Err(ReportError::TooLong));
}

#[test]
fn nesting_without_end_is_an_error_not_a_crash() {
    let deep = format!("{{\"a\": {{\"x\": {}", "[".repeat(1_000_000));
    assert!(error(&deep).contains("recursion limit"), "{}", error(&deep));
}

/// The same format, told in another way: what the parser is compared with.
mod reference {
    use serde::Deserialize;
    use serde::de::{Deserializer, MapAccess, Visitor};
    use serde_json::Value;

    use super::super::{State, Verdict};

    /// An object in which nothing is lost.
    struct Pairs<T>(Vec<(String, T)>);

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Entry {
        Healthy(bool),
        Fields(Pairs<Value>),
    }

    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct PairsVisitor<T>(std::marker::PhantomData<T>);
            impl<'de, T: Deserialize<'de>> Visitor<'de> for PairsVisitor<T> {
                type Value = Pairs<T>;
                fn expecting(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    Ok(())
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
                    let mut pairs = Vec::new();
                    while let Some(pair) = map.next_entry()? {
                        pairs.push(pair);
                    }
                    Ok(Pairs(pairs))
                }
            }
            deserializer.deserialize_map(PairsVisitor(std::marker::PhantomData))
        }
    }

    /// Every name and its verdict, sorted; `None` for a file that is no report.
    pub(super) fn parse(bytes: &[u8]) -> Option<Vec<(String, Verdict)>> {
        let Pairs(entries) = serde_json::from_slice::<Pairs<Entry>>(bytes).ok()?;
        let mut verdicts = entries
            .into_iter()
            .map(|(name, entry)| Some((name, verdict(entry)?)))
            .collect::<Option<Vec<_>>>()?;
        verdicts.sort_by(|left, right| left.0.cmp(&right.0));
        let unique = verdicts.windows(2).all(|pair| pair[0].0 != pair[1].0);
        unique.then_some(verdicts)
    }

    fn verdict(entry: Entry) -> Option<Verdict> {
        let fields = match entry {
            Entry::Healthy(healthy) => {
                return Some(Verdict {
                    healthy,
                    ..Verdict::default()
                });
            }
            Entry::Fields(Pairs(fields)) => fields,
        };
        let known = ["healthy", "reason", "weight", "max_in_flight", "state"];
        let times = |name: &str| fields.iter().filter(|(field, _)| field == name).count();
        if known.iter().any(|name| times(name) > 1) {
            return None;
        }
        let field = |name: &str| fields.iter().find(|(field, _)| field == name);
        let within = |name: &str, most: u64| match field(name) {
            None => Some(None),
            Some((_, value)) => {
                let number = value
                    .as_u64()
                    .filter(|number| (1..=most).contains(number))?;
                Some(Some(u32::try_from(number).ok()?))
            }
        };
        Some(Verdict {
            healthy: field("healthy")?.1.as_bool()?,
            reason: match field("reason") {
                None => None,
                Some((_, value)) => Some(value.as_str()?.replace(char::is_control, " ").into()),
            },
            weight: within("weight", 1000)?,
            max_in_flight: within("max_in_flight", 10_000)?,
            state: match field("state").map(|(_, value)| value.as_str()) {
                None | Some(Some("ready")) => State::Ready,
                Some(Some("drain")) => State::Drain,
                Some(Some("maint")) => State::Maint,
                Some(_) => return None,
            },
        })
    }
}

/// What the parser makes of `bytes`; fails unless the reference makes the same of it.
fn agreed(bytes: &[u8]) -> Option<Report> {
    let report = Report::parse(bytes).ok();
    let verdicts = report.as_ref().map(|report| {
        let verdicts = report.verdicts.iter();
        verdicts
            .map(|(name, verdict)| (name.to_string(), verdict.clone()))
            .collect()
    });
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(verdicts, reference::parse(bytes), "{text}");
    report
}

#[test]
fn a_cut_or_damaged_file_is_read_as_the_reference_reads_it_or_not_at_all() {
    let tracked = include_str!("../../../health_status.json");
    for text in [OBJECT, tracked] {
        assert!(agreed(text.as_bytes()).is_some());
        let whole = text.trim_end().len();
        for end in 0..text.len() {
            assert_eq!(agreed(&text.as_bytes()[..end]).is_some(), end >= whole);
        }
        let mut read = 0;
        for place in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.as_bytes().to_vec();
                bytes[place] ^= 1 << bit;
                read += usize::from(agreed(&bytes).is_some());
            }
        }
        assert!(read > 0, "no damage that can be read: names and reasons");
    }
}

proptest! {
    #[test]
    fn the_reference_agrees_about_anything_that_looks_like_a_report(
        text in r#"\{("a":|"b":)?(true|\{("healthy":(true|false),?|"(weight|max_in_flight)":(0|1|1000|1001|10000|10001|1.0),?|"state":("ready"|"drain"|"down"),?|"reason":("x"|null),?|"x":\[\],?){0,4}\}),?("a":false)?\}"#,
    ) {
        agreed(text.as_bytes());
    }

    #[test]
    fn no_bytes_panic_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Report::parse(&bytes);
    }

    #[test]
    fn nothing_that_looks_like_json_panics_the_parser(
        text in r#"([{}\[\]:, \n]|"a"|"healthy"|"reason"|true|false|null|1|-|e9|\\u00){0,30}"#,
    ) {
        let _ = Report::parse(text.as_bytes());
    }

    #[test]
    fn a_cut_file_is_never_half_a_report(
        entries in proptest::collection::btree_map("[a-z\u{e4}\"\\\\]{0,6}", any::<bool>(), 0..6),
        pretty in any::<bool>(),
    ) {
        let text = if pretty {
            serde_json::to_string_pretty(&entries).unwrap() + "\n"
        } else {
            serde_json::to_string(&entries).unwrap()
        };
        let full = Report::parse(text.as_bytes()).unwrap();
        for (name, healthy) in &entries {
            prop_assert_eq!(full.verdict(name).unwrap().healthy, *healthy);
        }
        for end in 0..text.len() {
            if let Ok(report) = Report::parse(&text.as_bytes()[..end]) {
                prop_assert_eq!(&report, &full);
            }
        }
    }
}
