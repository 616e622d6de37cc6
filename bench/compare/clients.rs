//! Owns the clients of the cases: each sends its next request as soon as it has the answer to the last one, or
//! after a pause if that was a refusal.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;

use crate::http::{Answer, Client, request};

/// A client that is refused even a connection takes a breath, or it would spin.
const BREATH: Duration = Duration::from_millis(5);

/// Clients at work.
pub struct Clients {
    tasks: JoinSet<()>,
    tally: Rc<Tally>,
}

#[derive(Default)]
struct Tally {
    stop: Cell<bool>,
    answered: Cell<u64>,
    failed: Cell<u64>,
}

/// What became of their requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// With 200.
    pub answered: u64,
    /// With something else, or not at all.
    pub failed: u64,
}

impl Clients {
    /// `pause`: how long a client waits after a request that failed.
    pub fn start(port: u16, count: usize, pause: Duration) -> Self {
        let tally = Rc::new(Tally::default());
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            tasks.spawn_local(ask_until_stopped(port, pause, Rc::clone(&tally)));
        }
        Self { tasks, tally }
    }

    /// No more requests; those under way have `patience` to be answered, or have failed.
    pub async fn finish(mut self, patience: Duration) -> Outcome {
        self.tally.stop.set(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(patience, all).await;
        let unanswered = self.tasks.len() as u64;
        let Outcome { answered, failed } = self.so_far();
        Outcome {
            answered,
            failed: failed + unanswered,
        }
    }

    /// What came back up to now; whatever is under way is not counted.
    pub fn so_far(&self) -> Outcome {
        Outcome {
            answered: self.tally.answered.get(),
            failed: self.tally.failed.get(),
        }
    }
}

async fn ask_until_stopped(port: u16, pause: Duration, tally: Rc<Tally>) {
    let request = request("/home");
    let mut connection = None;
    while !tally.stop.get() {
        let answer = ask(port, &request, &mut connection).await;
        if matches!(&answer, Ok(answer) if answer.status == 200) {
            tally.answered.set(tally.answered.get() + 1);
            continue;
        }
        tally.failed.set(tally.failed.get() + 1);
        let pause = if answer.is_ok() {
            pause
        } else {
            pause.max(BREATH)
        };
        tokio::time::sleep(pause).await;
    }
}

/// One request, on the connection that is there or on a new one.
async fn ask(port: u16, request: &[u8], connection: &mut Option<Client>) -> Result<Answer> {
    let mut client = match connection.take() {
        Some(client) => client,
        None => Client::connect(port).await?,
    };
    let answer = client.get(request).await?;
    if answer.keep {
        *connection = Some(client);
    }
    Ok(answer)
}
