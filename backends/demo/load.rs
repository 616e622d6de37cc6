//! The load: clients that ask the proxy one request after another, each on a connection that it keeps.
//!
//! All clients exist from the start and wait until as many are wanted, so nobody is interrupted when fewer are:
//! a client that is not wanted any more gets its answer first.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::http;

/// The most clients at once.
pub const CLIENTS_MAX: usize = 200;
/// Up to here one more at a time, then this many more.
const STEP: usize = 10;
/// Answers that the demo has not counted yet.
const UNCOUNTED_MAX: usize = 1024;
/// Longer than the proxy lets anything take.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Who was not served does not ask again at once, as a client that heeds `Retry-After`.
const PAUSE: Duration = Duration::from_millis(500);

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200.
    Served,
    /// 504: it was on a server that hangs.
    TimedOut,
    /// 503: nobody is eligible, or the wait was too long.
    Refused,
    /// Any other status, or no answer at all; in words.
    Failed(String),
}

/// A request that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// How it ended.
    pub answer: Answer,
    /// From asking to the last byte.
    pub took: Duration,
}

/// The clients. They end with their runtime.
pub struct Load {
    wanted: watch::Sender<usize>,
}

impl Load {
    /// Clients of this address, none of whom is wanted yet, and what becomes of their requests.
    pub fn start(address: SocketAddr) -> (Self, mpsc::Receiver<Answered>) {
        let (wanted, watch) = watch::channel(0);
        let (sender, answers) = mpsc::channel(UNCOUNTED_MAX);
        for number in 0..CLIENTS_MAX {
            tokio::spawn(client(number, address, watch.clone(), sender.clone()));
        }
        (Self { wanted }, answers)
    }

    /// How many ask from now on.
    pub fn want(&self, clients: usize) {
        self.wanted.send_replace(clients);
    }
}

/// The next higher number of clients.
pub fn more(clients: usize) -> usize {
    let more = if clients < STEP {
        clients + 1
    } else {
        clients + STEP
    };
    more.min(CLIENTS_MAX)
}

/// The next lower number of clients.
pub fn fewer(clients: usize) -> usize {
    if clients <= STEP {
        clients.saturating_sub(1)
    } else {
        (clients - STEP).max(STEP)
    }
}

async fn client(
    number: usize,
    address: SocketAddr,
    mut wanted: watch::Receiver<usize>,
    answers: mpsc::Sender<Answered>,
) {
    let mut client = http::Client::new(address);
    loop {
        if *wanted.borrow_and_update() <= number {
            client.close();
            if wanted.wait_for(|wanted| *wanted > number).await.is_err() {
                return;
            }
        }
        let answered = ask(&mut client).await;
        let is_served = answered.answer == Answer::Served;
        if answers.send(answered).await.is_err() {
            return;
        }
        if !is_served {
            sleep(PAUSE).await;
        }
    }
}

async fn ask(client: &mut http::Client) -> Answered {
    let begun = Instant::now();
    let answer = match timeout(ANSWER_WITHIN, client.get("/home")).await {
        Ok(Ok((200, _))) => Answer::Served,
        Ok(Ok((503, _))) => Answer::Refused,
        Ok(Ok((504, _))) => Answer::TimedOut,
        Ok(Ok((_, body))) => Answer::Failed(first_line(&body)),
        Ok(Err(error)) => Answer::Failed(format!("{error:#}")),
        Err(_) => Answer::Failed(format!("no answer for {} s", ANSWER_WITHIN.as_secs())),
    };
    Answered {
        answer,
        took: begun.elapsed(),
    }
}

/// The proxy begins its own answers with their status and reason.
fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_lead_from_none_to_the_most_and_back() {
        let mut up = vec![0];
        while *up.last().unwrap() < CLIENTS_MAX {
            up.push(more(*up.last().unwrap()));
        }
        assert_eq!(up[9..13], [9, 10, 20, 30]);
        let mut down = vec![CLIENTS_MAX];
        while *down.last().unwrap() > 0 {
            down.push(fewer(*down.last().unwrap()));
        }
        down.reverse();
        assert_eq!(up, down);
        assert_eq!((more(CLIENTS_MAX), fewer(0)), (CLIENTS_MAX, 0));
    }
}
