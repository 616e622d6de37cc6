//! What is new between two looks at the proxy, in words.

use crate::status::{Backend, Status};

/// One sentence for each difference that a person would want to know of.
pub fn between(before: Option<&Status>, after: Option<&Status>) -> Vec<String> {
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) => (before, after),
        (Some(_), None) => return vec!["the proxy does not answer".to_owned()],
        (None, Some(_)) | (None, None) => return Vec::new(),
    };
    let mut news = Vec::new();
    for (name, now) in &after.upstream.backends {
        if let Some(was) = before.upstream.backends.get(name) {
            news.extend(of_eligibility(name, was, now));
            news.extend(of_abandoned(name, was, now));
        }
    }
    if before.report.state != after.report.state {
        news.push(match after.report.state.as_str() {
            "stale" => "the health file is stale: obeyed all the same".to_owned(),
            "ok" => "the health file is fresh again".to_owned(),
            other => format!("the health file is {other}: the last good report holds"),
        });
    }
    news
}

fn of_eligibility(name: &str, was: &Backend, now: &Backend) -> Option<String> {
    match (&was.why_not, &now.why_not) {
        (None, Some(why)) => Some(format!("{name} is out: {why}")),
        (Some(_), None) => Some(format!("{name} is back")),
        (Some(was), Some(now)) if was != now => Some(format!("{name} stays out: {now}")),
        _ => None,
    }
}

fn of_abandoned(name: &str, was: &Backend, now: &Backend) -> Option<String> {
    if now.abandoned > was.abandoned {
        return Some(format!(
            "{name} has a request given up; its slot stays taken"
        ));
    }
    (now.abandoned < was.abandoned).then(|| format!("{name} let go of a request given up"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Report, Upstream};

    fn status(change: impl FnOnce(&mut Backend)) -> Status {
        let mut backend = Backend::default();
        change(&mut backend);
        Status {
            report: Report {
                state: "ok".to_owned(),
                ..Report::default()
            },
            upstream: Upstream {
                waiting: 0,
                backends: [("a".to_owned(), backend)].into(),
            },
        }
    }

    #[test]
    fn a_change_of_eligibility_is_news_with_its_reason() {
        let well = status(|_| {});
        let refuses = status(|backend| backend.why_not = Some("it refuses".to_owned()));
        let sick = status(|backend| backend.why_not = Some("it is sick".to_owned()));
        assert_eq!(
            between(Some(&well), Some(&refuses)),
            ["a is out: it refuses"]
        );
        assert_eq!(
            between(Some(&refuses), Some(&sick)),
            ["a stays out: it is sick"]
        );
        assert_eq!(between(Some(&sick), Some(&well)), ["a is back"]);
    }

    #[test]
    fn counting_on_is_no_news() {
        let later = status(|backend| (backend.served, backend.in_flight) = (7, 1));
        assert!(between(Some(&status(|_| {})), Some(&later)).is_empty());
        assert!(between(None, Some(&later)).is_empty());
    }

    #[test]
    fn a_stale_file_and_a_silent_proxy_are_news() {
        let well = status(|_| {});
        let mut stale = well.clone();
        stale.report.state = "stale".to_owned();
        assert_eq!(between(Some(&well), Some(&stale)).len(), 1);
        assert_eq!(between(Some(&well), None), ["the proxy does not answer"]);
    }

    #[test]
    fn an_abandoned_request_is_news_when_it_comes_and_goes() {
        let (none, one) = (status(|_| {}), status(|backend| backend.abandoned = 1));
        assert!(between(Some(&none), Some(&one))[0].contains("stays taken"));
        assert!(between(Some(&one), Some(&none))[0].contains("let go"));
    }
}
