//! Texts that nobody would write: whatever they are, the answer is problems in their places, soon.

use proptest::prelude::*;

use super::*;

/// Every message is one line about a line of the text, and there is always one.
fn check_any(text: &str) -> Result<(), TestCaseError> {
    // The end of the text is a place, too.
    let lines = 1 + text.matches(['\n', '\r']).count();
    if let Err(error) = Config::parse(text, "c") {
        let ConfigError::Invalid(problems) = error else {
            panic!("nothing was read")
        };
        prop_assert!(!problems.is_empty());
        for problem in problems {
            let line = problem.to_string();
            prop_assert!(!line.contains('\n'), "{line:?}");
            prop_assert!((1..=lines).contains(&problem.line), "{line:?}");
            prop_assert!(problem.column >= 1, "{line:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        check_any(&text)?;
    }

    #[test]
    fn no_yaml_like_text_panics(text in "([-?:,\\[\\]{}#&*!|>'\"%@` \n\t~]|a|1|maitred: |routes:|upstreams: |\\$\\{|:-){0,60}") {
        check_any(&text)?;
    }

    #[test]
    fn no_damaged_file_panics(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..12usize, "(?s)[-?:,\\[\\]{}#&*!|>'\" \n\ta0\u{0}é]{0,4}"), 1..6),
    ) {
        let mut text: Vec<char> = SHIPPED.chars().collect();
        for (at, length, insert) in cuts {
            let start = at.index(text.len());
            let end = (start + length).min(text.len() - 1).max(start);
            text.splice(start..end, insert.chars());
        }
        check_any(&text.into_iter().collect::<String>())?;
    }

    #[test]
    fn no_variable_changes_the_structure(value in "(?s)([-?:,\\[\\]{}#&*!|>'\" \n\ta]|.){0,20}", is_quoted: bool) {
        let quote = if is_quoted { "'" } else { "" };
        let text = format!("{LEAST}pid_file: {quote}${{VALUE}}{quote}\n");
        match Config::parse_with(&text, "c", &|_| Ok(value.clone())) {
            Ok(config) => prop_assert_eq!(config.server.pid_file, value),
            Err(ConfigError::Invalid(problems)) => {
                prop_assert_eq!(problems.len(), 1);
                prop_assert_eq!(&problems[0].path, "pid_file");
                prop_assert!(!problems[0].to_string().contains('\n'));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The processor time of this thread: others may have the processor, too.
fn own_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().unwrap()
}

#[test]
fn hostile_texts_are_refused_soon() {
    const MIB: usize = 1024 * 1024;
    let bomb = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, level| {
        let below = level - 1;
        text + &format!("a{level}: &a{level} [*a{below}, *a{below}]\n")
    });
    let wide = format!("maitred:\n{}", "  a: 1\n".repeat(MIB / 7));
    for text in [
        "[".repeat(MIB),
        "{".repeat(MIB),
        "{a: ".repeat(MIB / 4),
        "- ".repeat(MIB / 2),
        "? ".repeat(MIB / 2),
        "\"".repeat(MIB),
        "&a ".repeat(MIB / 3),
        "a".repeat(MIB),
        "\n".repeat(MIB),
        format!("[{}]", "[],".repeat(MIB / 3)),
        format!("maitred: \"{}\"", "${A:-".repeat(MIB / 5)),
        format!("{LEAST}pid_file: {}", "${A:-b}".repeat(MIB / 7)),
        bomb,
        wide,
    ] {
        let start = own_time();
        check_any(&text).unwrap();
        let (taken, head) = (own_time() - start, &text[..text.len().min(20)]);
        assert!(taken < Duration::from_secs(10), "{taken:?} for {head:?}");
    }
}
