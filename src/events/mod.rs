//! What changed and why: one stream of it for the whole process, of which the last are remembered.
//!
//! Whoever decides a change publishes it here, and nowhere else: its line in the log is written here, too.
//! Requests publish nothing, unless what happens to one takes a backend out.
//!
//! Invariants: ids increase by one, in the order in which the events are remembered; publishing waits for
//! nobody who reads; what is remembered is bounded, and a reader keeps nothing here.

mod kinds;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use tokio::sync::watch;

pub use kinds::{Event, Kind};

/// How many are remembered.
pub const REMEMBERED_MAX: usize = 1_000;

/// The stream. Cheap to clone; every clone is the same stream.
#[derive(Clone)]
pub struct Events(Arc<Stream>);

struct Stream {
    remembered: Mutex<Remembered>,
    /// The id of the last event.
    last: watch::Sender<u64>,
}

struct Remembered {
    /// Their ids follow each other; the last has the last id.
    events: VecDeque<Arc<Published>>,
    /// The id before the first event of this process.
    origin: u64,
    last: u64,
}

/// An event that happened.
#[derive(Debug)]
pub struct Published {
    /// Greater than those of all that happened before, in this process and in those before it.
    pub id: u64,
    /// When.
    pub time: SystemTime,
    /// What.
    pub event: Event,
}

/// Some of what happened after an id.
#[derive(Debug, Default)]
pub struct Sequel {
    /// The oldest first, without a gap between them.
    pub events: Vec<Arc<Published>>,
    /// The id before the first of them.
    pub before: u64,
    /// The id of the last event that there is, or the origin.
    pub last: u64,
    /// How many there were between the id and the first of them, and are forgotten.
    pub missed: u64,
    /// The id is another process's: this one has begun since.
    pub is_other: bool,
}

impl Events {
    /// A stream of which nothing has happened. Ids begin with the microseconds since 1970, so that those of a
    /// process are greater than those of the one before, if the clock was not set back meanwhile.
    pub fn new(now: SystemTime) -> Self {
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let micros = since.map_or(0, |since| since.as_micros());
        let origin = u64::try_from(micros).unwrap_or(0);
        Self(Arc::new(Stream {
            remembered: Mutex::new(Remembered {
                events: VecDeque::new(),
                origin,
                last: origin,
            }),
            last: watch::Sender::new(origin),
        }))
    }

    /// Remembers what happened, tells those who follow, and logs it.
    pub fn publish(&self, event: Event) {
        let published = {
            let mut remembered = self.0.remembered.lock();
            remembered.last += 1;
            let published = Arc::new(Published {
                id: remembered.last,
                // Under the lock, so that times are in the order of ids.
                time: SystemTime::now(),
                event,
            });
            if remembered.events.len() == REMEMBERED_MAX {
                remembered.events.pop_front();
            }
            remembered.events.push_back(published.clone());
            published
        };
        // Another one may have come first with a greater id.
        self.0.last.send_if_modified(|last| {
            let is_later = published.id > *last;
            *last = published.id.max(*last);
            is_later
        });
        published.event.log();
    }

    /// The first events after this id, at most `most` of them. An id that is not of this process counts as
    /// the one before its first.
    pub fn after(&self, id: u64, most: usize) -> Sequel {
        let remembered = self.0.remembered.lock();
        let is_other = !(remembered.origin..=remembered.last).contains(&id);
        let id = if is_other { remembered.origin } else { id };
        let before = remembered.before_oldest().max(id);
        // At most as many as are remembered.
        let known = (before - remembered.before_oldest()) as usize;
        Sequel {
            events: remembered
                .events
                .iter()
                .skip(known)
                .take(most)
                .cloned()
                .collect(),
            before,
            last: remembered.last,
            missed: before - id,
            is_other,
        }
    }

    /// The id before the first event of this process.
    pub fn origin(&self) -> u64 {
        self.0.remembered.lock().origin
    }

    /// The id before the oldest that is remembered.
    pub fn before_oldest(&self) -> u64 {
        self.0.remembered.lock().before_oldest()
    }

    /// Waits until something has happened after this id.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn happened_after(&self, id: u64) {
        let mut last = self.0.last.subscribe();
        // Fails only without a sender, which is here.
        let _ = last.wait_for(|last| *last > id).await;
    }
}

impl Remembered {
    fn before_oldest(&self) -> u64 {
        self.last - self.events.len() as u64
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new(SystemTime::now())
    }
}

impl Serialize for Published {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            id: u64,
            time: String,
            #[serde(flatten)]
            event: &'a Event,
        }
        Shown {
            id: self.id,
            time: humantime::format_rfc3339_millis(self.time).to_string(),
            event: &self.event,
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn listening(events: &Events, count: usize) {
        for _ in 0..count {
            events.publish(Event::Listening {
                address: "here".to_owned(),
            });
        }
    }

    fn ids(sequel: &Sequel) -> Vec<u64> {
        sequel.events.iter().map(|published| published.id).collect()
    }

    #[test]
    fn ids_follow_each_other_and_begin_after_those_of_the_process_before() {
        let begun = SystemTime::UNIX_EPOCH + Duration::from_micros(1000);
        let events = Events::new(begun);
        let (others, last) = (events.after(7, 9), events.after(1000, 9));
        assert!(others.is_other && !last.is_other && last.events.is_empty());
        listening(&events, 3);
        assert_eq!(ids(&events.after(1000, 9)), [1001, 1002, 1003]);
        assert_eq!(ids(&events.after(1001, 1)), [1002]);
        assert_eq!(ids(&events.after(7, 9)), [1001, 1002, 1003]);
        assert_eq!(ids(&events.after(2000, 9)), [1001, 1002, 1003]);
        assert!(events.after(2000, 9).is_other, "a clock that was set back");
        assert_eq!(events.after(1003, 9).missed, 0);
    }

    #[test]
    fn what_is_forgotten_is_counted() {
        let events = Events::new(SystemTime::UNIX_EPOCH);
        listening(&events, REMEMBERED_MAX + 5);
        let sequel = events.after(2, 1);
        assert_eq!(
            (sequel.missed, sequel.before, ids(&sequel)),
            (3, 5, vec![6])
        );
        let sequel = events.after(5, usize::MAX);
        assert_eq!((sequel.missed, sequel.events.len()), (0, REMEMBERED_MAX));
        assert_eq!(sequel.last, 1005);
    }

    #[tokio::test]
    async fn who_waits_for_the_next_one_is_told() {
        let events = Events::default();
        let origin = events.origin();
        let waiting = events.clone();
        let waiting = tokio::spawn(async move { waiting.happened_after(origin + 1).await });
        listening(&events, 1);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        listening(&events, 1);
        waiting.await.unwrap();
    }

    /// What the documentation says of each kind, and the fields that it explains.
    #[test]
    fn every_kind_is_documented() {
        let docs = include_str!("../../docs/events.md");
        let kinds: Vec<_> = Event::KINDS.iter().map(row).collect();
        assert!(
            docs.contains(&kinds.concat()),
            "docs/events.md is to have these lines:\n{}",
            kinds.concat()
        );
        let documented = docs.lines().filter(|line| line.starts_with("| `")).count();
        let fields = Event::KINDS.iter().flat_map(|kind| kind.fields);
        let mut fields: Vec<_> = fields.collect();
        fields.sort();
        fields.dedup();
        for field in &fields {
            assert!(docs.contains(&format!("\n| `{field}` |")), "{field}");
        }
        // And of every event: `id`, `time` and `kind`.
        assert_eq!(documented, kinds.len() + fields.len() + 3);
    }

    fn row(kind: &Kind) -> String {
        let fields: Vec<_> = kind
            .fields
            .iter()
            .map(|field| format!("`{field}`"))
            .collect();
        format!(
            "| `{}` | {} | {} |{} |\n",
            kind.name,
            kind.level,
            fields.join(", "),
            kind.about
        )
    }

    #[test]
    fn an_event_is_one_flat_object_with_its_kind_and_fields() {
        let published = Published {
            id: 7,
            time: SystemTime::UNIX_EPOCH,
            event: Event::BackendKeptOut {
                upstream: "web".into(),
                backend: "a".into(),
                cause: "sick",
                why: "\"quoted\"\r\n".to_owned(),
            },
        };
        let expected = serde_json::json!({
            "id": 7, "time": "1970-01-01T00:00:00.000Z", "kind": "backend_kept_out",
            "upstream": "web", "backend": "a", "cause": "sick", "why": "\"quoted\"\r\n",
        });
        assert_eq!(serde_json::to_value(&published).unwrap(), expected);
    }
}
