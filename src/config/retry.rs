//! When a request is sent again.

use crate::policy::retry::{Reason, Reasons, RetryParams};

use super::scalar::{self, Reader};
use super::section::{Section, Value};

const ON: &str = "a list such as [connect_failure, 503]";

pub(super) fn read(mut section: Section<'_>) -> RetryParams {
    let attempts = section.value(
        "attempts",
        "3",
        scalar::integer(1..=100),
        "How often a request is sent, the first time included; 1: never again. Attempts in which not one byte \
         was sent, and those on a connection that the backend had closed before, do not count.",
    );
    let on = on(&mut section);
    let budget_percent = section.value(
        "budget_percent",
        "20",
        scalar::integer(0..=100),
        "How many requests in a hundred may be sent again, beside a floor: as many as the backends have \
         configured slots, 10 at the least, which are there anew after 10 s. What does not count in \
         `attempts` costs nothing.",
    );
    let non_idempotent = section.value(
        "non_idempotent",
        "false",
        scalar::flag(),
        "Whether a `POST`, `PATCH` or other method that is not idempotent may be sent again although the \
         backend may have seen some of it: it may then be done twice.",
    );
    section.finish();
    RetryParams {
        attempts,
        on,
        budget_percent,
        non_idempotent,
    }
}

fn on(section: &mut Section<'_>) -> Reasons {
    let value = section.described(
        "on",
        r#"`["connect_failure", "reset_before_response", "stale_connection", "invalid_response"]`"#,
        ON,
        "After what a request is sent again: these, an answer `502`, `503` or `504`, and `timeout` \
         (`timeouts.response_header`, or `timeouts.read` before anything was passed on).",
    );
    let values = value.and_then(|value| value.list(ON));
    match values {
        Some(values) => values.iter().filter_map(reason).collect(),
        None => Reasons::default(),
    }
}

fn reason(value: &Value<'_>) -> Option<Reason> {
    let reader: Reader<'_, Reason> = scalar::choice(&Reason::NAMED);
    value.read(&reader)
}
