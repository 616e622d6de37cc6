//! `/api/v1/explain/ID`: why a request went where it went, as JSON or text. docs/explain.md has the schema.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use warp::http::StatusCode;
use warp::http::header::CONTENT_TYPE;
use warp::path::Tail;
use warp::{Filter, Rejection, Reply};

use super::plain;
use crate::explain::{Explanation, Explanations};

/// The page; an id may contain slashes.
pub(super) fn page(
    explanations: Option<Explanations>,
) -> impl Filter<Extract = (warp::reply::Response,), Error = Rejection> + Clone {
    warp::path!("api" / "v1" / "explain" / ..)
        .and(warp::path::tail())
        .and(warp::query::<BTreeMap<String, String>>())
        .map(move |tail: Tail, query: BTreeMap<String, String>| {
            let Some(explanations) = &explanations else {
                let off = "nothing is noted: maitred.explain.capacity is 0\n";
                return plain(StatusCode::NOT_FOUND, off);
            };
            let mut query = query.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let show = match query.next() {
                None | Some(("format", "json")) => as_json,
                Some(("format", "text")) => as_text,
                Some(_) => return plain(StatusCode::BAD_REQUEST, "format is json or text\n"),
            };
            let id = percent_decode_str(tail.as_str()).decode_utf8_lossy();
            explanations.find(&id, show).unwrap_or_else(|| {
                let unknown = "no request of this id is remembered (any more, or yet: it is noted when it is over)\n";
                plain(StatusCode::NOT_FOUND, unknown)
            })
        })
}

fn as_json(explanation: &Explanation) -> warp::reply::Response {
    warp::reply::json(&explanation.to_json()).into_response()
}

fn as_text(explanation: &Explanation) -> warp::reply::Response {
    let kind = "text/plain; charset=utf-8";
    warp::reply::with_header(explanation.to_text(), CONTENT_TYPE, kind).into_response()
}
