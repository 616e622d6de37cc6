use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::time::SystemTime;

use http::HeaderValue;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::fields::{FIELDS, Field};
use super::*;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/access_log.md");
const HEADERS: [HeaderName; 2] = [header::USER_AGENT, header::REFERER];

fn event() -> AccessEvent {
    let mut texts = Texts::with_room_for(b"/");
    texts.put(Text::Id, b"018f-id");
    texts.put(Text::Client, b"10.0.0.1");
    texts.put(Text::Method, b"GET");
    texts.put(Text::Host, b"shop.example");
    texts.put(Text::Target, b"/home?q=1");
    texts.put(Text::Upstream, b"demo");
    texts.put(Text::Backend, b"server1");
    let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    texts.put(Text::Trace, parent);
    AccessEvent {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_007),
        protocol: "HTTP/1.1",
        status: 200,
        bytes_received: 0,
        bytes_sent: 5,
        attempts: 2,
        retries: 1,
        total: Duration::from_millis(12),
        queued: Duration::from_millis(2),
        first_byte: Some(Duration::from_micros(9_500)),
        served: Some(Duration::from_millis(10)),
        reason: None,
        retried: Some("connect_failure"),
        texts,
    }
}

/// One of which nothing is known that may be unknown.
fn bare_event() -> AccessEvent {
    AccessEvent {
        total: Duration::new(61, 20_300),
        first_byte: None,
        served: None,
        retried: None,
        texts: Texts::with_room_for(b""),
        ..event()
    }
}

fn written(format: Format, headers: &[HeaderName], event: &AccessEvent) -> String {
    let mut out = b"the line before\n".to_vec();
    Lines::new(format, headers.to_vec()).write(event, &mut out);
    let text = String::from_utf8(out).unwrap();
    let line = text.strip_prefix("the line before\n").unwrap();
    line.strip_suffix('\n').unwrap().to_owned()
}

/// What a text line says, by name; the first five have none. A value is its bytes, or nothing for a dash.
fn read_text(line: &str) -> Vec<(String, Option<Vec<u8>>)> {
    let mut is_quoted = false;
    let words = line.split(|char| {
        is_quoted ^= char == '"';
        char == ' ' && !is_quoted
    });
    let words = words
        .enumerate()
        .map(|(index, word)| match word.split_once('=') {
            Some((name, value)) if index >= 5 => (name.to_owned(), unescaped(value)),
            _ => (String::new(), unescaped(word)),
        });
    words.collect()
}

fn unescaped(word: &str) -> Option<Vec<u8>> {
    if word == "-" {
        return None;
    }
    let word = word
        .strip_prefix('"')
        .and_then(|word| word.strip_suffix('"'))
        .unwrap_or(word);
    let mut parts = word.split('\\');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.strip_prefix('x').unwrap().split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).unwrap());
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

#[test]
fn a_text_line_has_every_field() {
    assert_eq!(
        written(Format::Text, &[], &event()),
        "1970-01-02T00:00:00.007Z 10.0.0.1 GET /home?q=1 200 id=018f-id host=shop.example protocol=HTTP/1.1 \
         upstream=demo backend=server1 attempts=2 retries=1 total=0.012000 queue=0.002000 first_byte=0.009500 \
         backend_time=0.010000 received=0 sent=5 reason=- retried=connect_failure \
         trace=4bf92f3577b34da6a3ce929d0e0e4736"
    );
}

#[test]
fn a_json_line_has_every_field() {
    assert_eq!(
        written(Format::Json, &[], &event()),
        "{\"time\":\"1970-01-02T00:00:00.007Z\",\"client\":\"10.0.0.1\",\"method\":\"GET\",\"target\":\"/home?q=1\",\
         \"status\":200,\"request_id\":\"018f-id\",\"host\":\"shop.example\",\"protocol\":\"HTTP/1.1\",\
         \"upstream\":\"demo\",\"backend\":\"server1\",\"attempts\":2,\"retries\":1,\"total_seconds\":0.012000,\
         \"queue_seconds\":0.002000,\"first_byte_seconds\":0.009500,\"backend_seconds\":0.010000,\
         \"bytes_received\":0,\"bytes_sent\":5,\"reason\":null,\"retried\":\"connect_failure\",\
         \"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\"}"
    );
}

#[test]
fn what_is_not_known_is_a_dash_or_null_and_times_keep_their_zeros() {
    assert_eq!(
        written(Format::Text, &HEADERS, &bare_event()),
        "1970-01-02T00:00:00.007Z - - - 200 id=- host=- protocol=HTTP/1.1 upstream=- backend=- attempts=2 retries=1 \
         total=61.000020 queue=0.002000 first_byte=- backend_time=- received=0 sent=5 reason=- retried=- trace=- \
         user-agent=- referer=-"
    );
    let json: Json = serde_json::from_str(&written(Format::Json, &HEADERS, &bare_event())).unwrap();
    let nulls = json
        .as_object()
        .unwrap()
        .values()
        .filter(|value| value.is_null());
    assert_eq!(nulls.count(), 12);
    let nothing = serde_json::json!({ "user-agent": null, "referer": null });
    assert_eq!(json["request_headers"], nothing);
}

proptest! {
    /// Whatever clients say, it is one line of ASCII, and the same can be read from it.
    #[test]
    fn a_line_is_a_line(
        said in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                any::<String>().prop_map(String::into_bytes),
                prop::sample::select(vec!["-", "\"", "\\", "a b=c", "\n", "\r\n", "\u{85}\u{2028}", "\u{9b}1m", "😀", "\\x2d"])
                    .prop_map(|text| text.as_bytes().to_vec()),
            ],
            5,
        ),
    ) {
        let [method, host, target, agent, referer] = &said[..] else { unreachable!() };
        let mut event = event();
        event.texts.put(Text::Method, method);
        event.texts.put(Text::Host, host);
        event.texts.put(Text::Target, target);
        event.texts.put_header(0, [&agent[..]]);
        event.texts.put_header(1, [&referer[..]]);

        let text = written(Format::Text, &HEADERS, &event);
        prop_assert!(text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{}", text);
        let read = read_text(&text);
        prop_assert_eq!(read.len(), FIELDS.len() + HEADERS.len());
        let named: BTreeMap<_, _> = read[5..].iter().cloned().collect();
        prop_assert_eq!(read[2].1.as_ref(), Some(method));
        prop_assert_eq!(read[3].1.as_ref(), Some(target));
        prop_assert_eq!(named["host"].as_ref(), Some(host));
        prop_assert_eq!(named["user-agent"].as_ref(), Some(agent));
        prop_assert_eq!(named["referer"].as_ref(), Some(referer));
        prop_assert_eq!(named["retried"].as_deref(), Some(&b"connect_failure"[..]));

        let json = written(Format::Json, &HEADERS, &event);
        prop_assert!(json.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{}", json);
        let read: Json = serde_json::from_str(&json).unwrap();
        for (value, said) in [
            (&read["method"], method),
            (&read["host"], host),
            (&read["target"], target),
            (&read["request_headers"]["user-agent"], agent),
            (&read["request_headers"]["referer"], referer),
        ] {
            prop_assert_eq!(value.as_str(), Some(&*String::from_utf8_lossy(said)));
        }
        prop_assert_eq!(&read["retried"], "connect_failure");
    }
}

fn name_in_json(field: &Field) -> &str {
    field.json.trim_matches(['"', ',', ':'])
}

/// The table of docs/access_log.md.
fn table() -> String {
    let mut table = "| JSON | text | |\n|---|---|---|\n".to_owned();
    for (number, field) in FIELDS.iter().enumerate() {
        let text = match field.text.trim() {
            "" => format!("{}.", number + 1),
            name => format!("`{name}`"),
        };
        table += &format!("| `{}` | {text} | {} |\n", name_in_json(field), field.about);
    }
    table
}

#[test]
fn the_access_log_is_documented() {
    const BEGIN: &str = "<!-- fields -->\n\n";
    const END: &str = "\n<!-- end of fields -->";
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = [before, BEGIN, &table(), END, after].concat();
    if std::env::var_os("MAITRED_UPDATE_DOCS").is_some() {
        return fs::write(DOCUMENT, expected).unwrap();
    }
    assert!(
        document == expected,
        "to write the table of fields anew: MAITRED_UPDATE_DOCS=1 cargo test --lib access_log_is_documented"
    );
}

/// What stands in the table is what is written, and nothing else is.
#[test]
fn every_field_that_is_written_is_documented_and_the_other_way_round() {
    let json: serde_json::Map<String, Json> =
        serde_json::from_str(&written(Format::Json, &[], &event())).unwrap();
    let mut documented: Vec<_> = FIELDS.iter().map(name_in_json).collect();
    documented.sort_unstable();
    assert_eq!(json.keys().collect::<Vec<_>>(), documented);
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let example = document.lines().find(|line| line.starts_with('{')).unwrap();
    let example: serde_json::Map<String, Json> = serde_json::from_str(example).unwrap();
    assert!(example.keys().eq(json.keys()), "{example:?}");

    let text = read_text(&written(Format::Text, &[], &event()));
    let example = document
        .lines()
        .find(|line| line.starts_with("2026-"))
        .unwrap();
    assert!(
        read_text(example)
            .iter()
            .map(|(name, _)| name)
            .eq(text.iter().map(|(name, _)| name)),
        "{example}"
    );
    let names: Vec<_> = text.iter().map(|(name, _)| name.as_str()).collect();
    let documented: Vec<_> = FIELDS
        .iter()
        .map(|field| field.text.trim().trim_end_matches('='))
        .collect();
    assert_eq!(names, documented);
}

fn params(destination: Destination) -> AccessLogParams {
    AccessLogParams {
        format: AccessLogFormat::Json,
        destination,
        sample: 1.0,
        query: QueryRule::Keep,
        request_headers: Vec::new(),
    }
}

fn run(params: AccessLogParams) -> (AccessLog, Arc<Count>) {
    let dropped = Arc::<Count>::default();
    let (log, writer) = AccessLog::open(params, dropped.clone()).unwrap();
    std::thread::spawn(|| writer.unwrap().run());
    (log, dropped)
}

#[test]
fn what_was_logged_is_written_once_flushed_and_redacted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    fs::write(&path, "what was there\n").unwrap();
    let (log, _) = run(AccessLogParams {
        query: QueryRule::Redact(vec!["q".into()]),
        request_headers: [header::REFERER, header::COOKIE, header::ACCEPT]
            .map(|name| LoggedHeader {
                is_redacted: name == header::COOKIE,
                name,
            })
            .into(),
        ..params(Destination::File(path.clone()))
    });
    let mut fields = HeaderMap::new();
    for (name, value) in [
        (header::REFERER, "http://a/?q=2"),
        (header::COOKIE, "secret"),
        (header::ACCEPT, "a"),
        (header::ACCEPT, "b"),
    ] {
        fields.append(name, HeaderValue::from_static(value));
    }
    let mut event = event();
    log.put_headers(&fields, &mut event.texts);
    log.log(event);
    log.flush();
    let text = fs::read_to_string(&path).unwrap();
    let line: Json = serde_json::from_str(text.strip_prefix("what was there\n").unwrap()).unwrap();
    assert_eq!(line["target"], "/home?q=redacted");
    let expected = serde_json::json!({ "referer": "http://a/?q=redacted", "cookie": "redacted", "accept": "a, b" });
    assert_eq!(line["request_headers"], expected);
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["missing/access.log", "."] {
        let path = folder.path().join(path);
        let error = AccessLog::open(params(Destination::File(path.clone())), Arc::default())
            .err()
            .unwrap();
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}

/// Nobody reads, so the buffer fills; what it does not hold is counted.
#[test]
fn with_a_reader_that_never_reads_lines_are_dropped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &path,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .unwrap();
    let mut reader = File::options().read(true).write(true).open(&path).unwrap();
    let (log, counted) = run(params(Destination::File(path)));
    let events = EVENTS_MAX as u64 + 10_000;
    (0..events).for_each(|_| log.log(event()));
    let dropped = counted.get();
    assert!((5_000..=10_000).contains(&dropped), "{dropped}");
    // Somebody reads at last: all others come, and one that is logged now.
    log.log(event());
    let dropped = counted.get();
    let mut lines = 0;
    let mut last = 0;
    let mut piece = [0; 4096];
    while lines < events + 1 - dropped {
        let bytes = reader.read(&mut piece).unwrap();
        lines += piece[..bytes].iter().filter(|byte| **byte == b'\n').count() as u64;
        last = piece[bytes - 1];
    }
    assert_eq!((lines, last), (events + 1 - dropped, b'\n'));
}
