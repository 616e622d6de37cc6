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
}
