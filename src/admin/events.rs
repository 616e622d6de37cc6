//! `/api/v1/events`: what changed and why, as JSON or live. docs/events.md has the schema.
//!
//! A reader costs what its connection costs: it holds no events, only how far it has read, and is served
//! from what is remembered. One that falls behind is told how many it has missed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures_util::stream;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warp::http::StatusCode;
use warp::sse;
use warp::{Filter, Rejection, Reply};

use super::plain;
use crate::events::{Events, Published, REMEMBERED_MAX};

/// How many may follow at a time.
const READERS_MAX: usize = 32;

const STREAM: &str = "text/event-stream";

/// The events that one request is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// Those with greater ids; else all that are remembered.
    after: Option<u64>,
    /// Those that name this upstream; else all.
    upstream: Option<String>,
}

/// The answer in JSON.
#[derive(Serialize)]
struct Answer {
    /// The id before the first event of this process.
    origin: u64,
    /// The id of the last event, or the origin.
    last: u64,
    /// How many there were after `after` and are forgotten.
    missed: u64,
    /// `after` is an id of another process: this one has begun since.
    restarted: bool,
    events: Vec<Value>,
}

/// The page.
pub(super) fn page(
    events: Events,
) -> impl Filter<Extract = (warp::reply::Response,), Error = Rejection> + Clone {
    let places = Arc::new(Semaphore::new(READERS_MAX));
    warp::path!("api" / "v1" / "events")
        .and(warp::query::<BTreeMap<String, String>>())
        .and(warp::header::optional::<String>("accept"))
        .and(warp::header::optional::<String>("last-event-id"))
        .map(
            move |mut query: BTreeMap<_, _>, accept: Option<String>, last_seen| {
                if let Some(id) = last_seen {
                    // Whoever comes back goes on from there, whatever the address said in the first place.
                    query.insert("after".to_owned(), id);
                }
                let wanted = match Wanted::of(query) {
                    Ok(wanted) => wanted,
                    Err(problem) => return plain(StatusCode::BAD_REQUEST, problem),
                };
                if accept.is_some_and(|accept| accept.contains(STREAM)) {
                    follow(&events, wanted, &places)
                } else {
                    warp::reply::json(&answer(&events, &wanted)).into_response()
                }
            },
        )
}

impl Wanted {
    fn of(query: BTreeMap<String, String>) -> Result<Self, &'static str> {
        let mut wanted = Self::default();
        for (key, value) in query {
            match key.as_str() {
                "after" => {
                    let id = value.parse().map_err(|_| "after is not an event's id\n")?;
                    wanted.after = Some(id);
                }
                "upstream" => wanted.upstream = Some(value),
                _ => return Err("only after and upstream can be asked for\n"),
            }
        }
        Ok(wanted)
    }

    /// The event as JSON, if it is wanted.
    fn shown(&self, published: &Published) -> Option<Value> {
        let value = serde_json::to_value(published).ok()?;
        let names = |upstream: &String| value["upstream"] == upstream.as_str();
        self.upstream.as_ref().is_none_or(names).then_some(value)
    }
}

fn answer(events: &Events, wanted: &Wanted) -> Answer {
    let origin = events.origin();
    let sequel = events.after(wanted.after.unwrap_or(origin), REMEMBERED_MAX);
    Answer {
        origin,
        last: sequel.last,
        missed: sequel.missed,
        restarted: sequel.is_other,
        events: sequel
            .events
            .iter()
            .filter_map(|published| wanted.shown(published))
            .collect(),
    }
}

fn follow(events: &Events, wanted: Wanted, places: &Arc<Semaphore>) -> warp::reply::Response {
    let Ok(place) = places.clone().try_acquire_owned() else {
        let problem = "as many follow the events as may\n";
        return plain(StatusCode::SERVICE_UNAVAILABLE, problem);
    };
    let reader = Reader {
        // Who asks for no beginning has missed nothing.
        seen: wanted.after.unwrap_or_else(|| events.before_oldest()),
        events: events.clone(),
        wanted,
        _place: place,
    };
    let stream = stream::unfold(reader, |mut reader| async {
        let event = reader.next().await;
        Some((Ok::<_, Infallible>(event), reader))
    });
    sse::reply(sse::keep_alive().stream(stream)).into_response()
}

/// One who follows.
struct Reader {
    events: Events,
    wanted: Wanted,
    /// The last id that it has seen.
    seen: u64,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    async fn next(&mut self) -> sse::Event {
        loop {
            let sequel = self.events.after(self.seen, 1);
            if sequel.missed > 0 || sequel.is_other {
                self.seen = sequel.before;
                let gap = json!({ "missed": sequel.missed, "restarted": sequel.is_other });
                return written("gap", self.seen, &gap);
            }
            let Some(published) = sequel.events.first() else {
                self.events.happened_after(self.seen).await;
                continue;
            };
            self.seen = published.id;
            if let Some(value) = self.wanted.shown(published) {
                let kind = value["kind"].as_str().unwrap_or_default();
                return written(kind, self.seen, &value);
            }
        }
    }
}

fn written(kind: &str, id: u64, data: &Value) -> sse::Event {
    let event = sse::Event::default().event(kind).id(id.to_string());
    event.data(data.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(query: &[(&str, &str)]) -> Result<Wanted, &'static str> {
        let query = query
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()));
        Wanted::of(query.collect())
    }

    #[test]
    fn what_nobody_can_ask_for_is_said_to_be_so() {
        let all = wanted(&[("after", "7"), ("upstream", "web")]).unwrap();
        assert_eq!((all.after, all.upstream.as_deref()), (Some(7), Some("web")));
        assert_eq!(wanted(&[]), Ok(Wanted::default()));
        for query in [("after", "-1"), ("after", ""), ("since", "7")] {
            assert!(wanted(&[query]).is_err(), "{query:?}");
        }
    }
}
