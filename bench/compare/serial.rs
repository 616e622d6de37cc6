//! Owns the backends of the three cases: servers that serve one request at a time, as a sync worker does, and
//! count how often they were given another one meanwhile. A request that has begun is worked on to its end,
//! whether anybody still waits for it or not.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use crate::http::find_header_end;
use crate::ports;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nserved";

/// One server. Dropping it closes its port and its connections.
pub struct Backend {
    pub port: u16,
    tally: Rc<Tally>,
    life: JoinHandle<()>,
}

/// What it saw; it outlives the server's deaths.
struct Tally {
    work: Duration,
    served: Cell<u64>,
    overlaps: Cell<u64>,
    in_hand: Cell<u64>,
}

/// A request that has arrived and is not answered. Pings are not counted: they are nobody's work.
struct InHand(Rc<Tally>);

impl InHand {
    fn take(tally: &Rc<Tally>) -> Self {
        if tally.in_hand.get() > 0 {
            tally.overlaps.set(tally.overlaps.get() + 1);
        }
        tally.in_hand.set(tally.in_hand.get() + 1);
        Self(Rc::clone(tally))
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.in_hand.set(self.0.in_hand.get() - 1);
    }
}

/// Three of them, each of which takes `work` per request.
pub async fn three(work: Duration) -> Result<[Backend; 3]> {
    Ok([
        Backend::start(work).await?,
        Backend::start(work).await?,
        Backend::start(work).await?,
    ])
}

/// Where they listen.
pub fn ports(backends: &[Backend; 3]) -> [u16; 3] {
    [backends[0].port, backends[1].port, backends[2].port]
}

/// How many requests were given to a backend that had one in hand, in all.
pub fn overlaps(backends: &[Backend]) -> u64 {
    backends
        .iter()
        .map(|backend| backend.tally.overlaps.get())
        .sum()
}

/// How many requests were worked on to their end, in all.
pub fn served(backends: &[Backend]) -> u64 {
    backends
        .iter()
        .map(|backend| backend.tally.served.get())
        .sum()
}

/// Whether nobody has anything in hand.
pub fn are_idle(backends: &[Backend]) -> bool {
    backends
        .iter()
        .all(|backend| backend.tally.in_hand.get() == 0)
}

impl Backend {
    async fn start(work: Duration) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports::one()?)).await?;
        let port = listener.local_addr()?.port();
        let zero = || Cell::new(0);
        let tally = Rc::new(Tally {
            work,
            served: zero(),
            overlaps: zero(),
            in_hand: zero(),
        });
        let life = tokio::task::spawn_local(accept(listener, Rc::clone(&tally)));
        Ok(Self { port, tally, life })
    }

    /// As a process that was killed: connections break, and new ones are refused.
    pub async fn die(&mut self) {
        self.life.abort();
        // The port is closed when the task is gone.
        let _ = (&mut self.life).await;
    }

    /// The same server, started again.
    pub async fn revive(&mut self) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))
            .await
            .with_context(|| format!("port {} was taken meanwhile", self.port))?;
        self.life = tokio::task::spawn_local(accept(listener, Rc::clone(&self.tally)));
        Ok(())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.life.abort();
    }
}

/// Whoever drops this task drops its connections with it.
async fn accept(listener: TcpListener, tally: Rc<Tally>) {
    let turn = Rc::new(Mutex::new(()));
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn_local(serve(stream, Rc::clone(&tally), Rc::clone(&turn)));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One connection. The lock is the one worker: first come, first served, pings included.
async fn serve(mut stream: TcpStream, tally: Rc<Tally>, turn: Rc<Mutex<()>>) {
    let mut pending = Vec::with_capacity(1024);
    let _ = stream.set_nodelay(true);
    while stream
        .read_buf(&mut pending)
        .await
        .is_ok_and(|read| read > 0)
    {
        while let Some(end) = find_header_end(&pending) {
            let is_ping = pending.starts_with(b"GET /ping ");
            pending.drain(..end);
            let in_hand = (!is_ping).then(|| InHand::take(&tally));
            let worker = turn.lock().await;
            if in_hand.is_some() {
                tokio::time::sleep(tally.work).await;
                tally.served.set(tally.served.get() + 1);
            }
            // Before the answer: whoever has it may send the next request at once.
            drop(in_hand);
            drop(worker);
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Client, request};
    use tokio::task::LocalSet;

    const WORK: Duration = Duration::from_millis(20);

    async fn ask(port: u16, path: &str) -> Result<u16> {
        Ok(Client::connect(port)
            .await?
            .get(&request(path))
            .await?
            .status)
    }

    #[tokio::test]
    async fn a_second_request_is_an_overlap_and_a_ping_is_not() {
        let test = async {
            let backends = [Backend::start(WORK).await.unwrap()];
            let port = backends[0].port;
            let (first, ping) = tokio::join!(ask(port, "/home"), ask(port, "/ping"));
            assert_eq!((first.unwrap(), ping.unwrap()), (200, 200));
            assert_eq!((served(&backends), overlaps(&backends)), (1, 0));
            let _ = tokio::join!(ask(port, "/home"), ask(port, "/home"));
            assert_eq!((served(&backends), overlaps(&backends)), (3, 1));
            assert!(are_idle(&backends));
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_dead_backend_refuses_connections_until_it_is_back() {
        let test = async {
            let mut backend = Backend::start(WORK).await.unwrap();
            backend.die().await;
            assert!(Client::connect(backend.port).await.is_err());
            backend.revive().await.unwrap();
            assert_eq!(ask(backend.port, "/home").await.unwrap(), 200);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn work_goes_on_for_a_client_that_has_left() {
        let test = async {
            let backends = [Backend::start(WORK).await.unwrap()];
            let mut client = Client::connect(backends[0].port).await.unwrap();
            client.send(&request("/home")).await.unwrap();
            tokio::time::sleep(WORK / 2).await;
            drop(client);
            assert!(!are_idle(&backends));
            tokio::time::sleep(WORK * 2).await;
            assert_eq!(served(&backends), 1);
        };
        LocalSet::new().run_until(test).await;
    }
}
