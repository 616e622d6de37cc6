//! What a request is called: by its client, or by us.

use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;

use super::headers::{self, Asked, REQUEST_ID};
use crate::config::RequestIdParams;
use crate::id::RequestId;

/// The id of a request that has just come. `None` if there is to be none.
pub(super) fn of(params: RequestIdParams, asked: Asked, fields: &HeaderMap) -> Option<RequestId> {
    match params {
        RequestIdParams::Off => None,
        RequestIdParams::Accept if asked.request_id => {
            let theirs = headers::only(fields, &REQUEST_ID).and_then(RequestId::accept);
            theirs.or_else(new)
        }
        RequestIdParams::Accept | RequestIdParams::Replace => new(),
    }
}

/// Each thread has a generator of its own, so this takes no lock and asks the system nothing. Its numbers can be
/// guessed by who has seen others: an id is a name, not a secret.
fn new() -> Option<RequestId> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // Before 1970 they are unique, too.
    let millis = now.map_or(0, |now| now.as_millis() as u64);
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    RequestId::new(millis, random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn of_fields(params: RequestIdParams, values: &[&'static str]) -> Option<RequestId> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(REQUEST_ID, HeaderValue::from_static(value));
        }
        of(params, Asked::of(&headers), &headers)
    }

    #[test]
    fn a_clients_id_is_accepted_where_it_may_be_and_says_one_thing() {
        for (params, values, accepted) in [
            (RequestIdParams::Accept, &["a"][..], true),
            (RequestIdParams::Accept, &["a", "a"], false),
            (RequestIdParams::Accept, &["a b"], false),
            (RequestIdParams::Accept, &[], false),
            (RequestIdParams::Replace, &["a"], false),
        ] {
            let id = of_fields(params, values).unwrap();
            assert_eq!(id.as_str() == "a", accepted, "{params:?} {values:?}");
            assert!(accepted || id.as_str().len() == 36, "{id:?}");
        }
        assert_eq!(of_fields(RequestIdParams::Off, &["a"]), None);
    }

    #[test]
    fn no_two_are_alike() {
        let ids: std::collections::HashSet<_> = (0..10_000)
            .map(|_| new().unwrap().as_str().to_owned())
            .collect();
        assert_eq!(ids.len(), 10_000);
    }
}
