//! Owns a backend: a server on bare sockets in a process of its own, which works on every request to its end, whether
//! or not anybody still waits for it, and writes down in its ledger what it did. What it is to do wrong it is told on
//! its standard input, whose end is its own.
//!
//! Work begins when a request's head was read. It is over just before the last byte of the answer is written, because
//! whoever has that may send the next request at once; where no such byte comes, just before the connection is closed.

use std::cell::RefCell;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use fastrand::Rng;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::fault::{Fault, some_millis};
use crate::http::{Head, LAST_CHUNK, Wire};
use crate::leash;
use crate::ledger::Ledger;
use crate::message::{Answer, ID, Wish};
use crate::misbehaviour;

#[derive(clap::Args)]
pub struct Arguments {
    soak: i32,
    name: String,
    port: u16,
    /// More requests than this at once are written down.
    slots: usize,
    ledger: PathBuf,
    seed: u64,
}

/// What is wrong, and with how many requests in a hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub fault: Fault,
    pub percent: u8,
}

impl Order {
    /// A line of the standard input.
    pub fn line(order: Option<Self>) -> String {
        order.map_or("sound\n".into(), |Self { fault, percent }| {
            format!("{} {percent}\n", fault.name())
        })
    }

    fn read(line: &str) -> Option<Self> {
        let (name, percent) = line.split_once(' ')?;
        Some(Self {
            fault: Fault::from_str(name, false).ok()?,
            percent: percent.parse().ok()?,
        })
    }
}

/// The server, as its connections see it.
pub struct Server {
    name: String,
    slots: usize,
    ledger: RefCell<Ledger>,
    order: watch::Receiver<Option<Order>>,
    in_hand: RefCell<Vec<String>>,
    pub rng: RefCell<Rng>,
}

/// How a connection ends.
pub enum Ending {
    Close,
    Reset,
}

/// A request in hand, for as long as it lives.
pub struct Work {
    server: Rc<Server>,
    id: String,
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut in_hand = self.server.in_hand.borrow_mut();
        if let Some(place) = in_hand.iter().position(|id| *id == self.id) {
            in_hand.swap_remove(place);
        }
    }
}

/// Serves until the standard input ends. Prints a line once it listens.
pub async fn serve(arguments: &Arguments) -> Result<ExitCode> {
    leash::tie(arguments.soak)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port))
        .await
        .with_context(|| format!("port {}", arguments.port))?;
    let (orders, order) = watch::channel(None);
    let server = Server::new(arguments, order)?;
    println!("listening");
    std::thread::spawn(move || obey(&orders));
    accept(&server, &listener).await;
    Ok(ExitCode::SUCCESS)
}

/// Ends the process when nobody is left to obey.
fn obey(orders: &watch::Sender<Option<Order>>) {
    for line in io::stdin().lines().map_while(Result::ok) {
        orders.send_replace(Order::read(&line));
    }
    std::process::exit(0);
}

async fn accept(server: &Rc<Server>, listener: &TcpListener) {
    loop {
        // An error here is one client's.
        if let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(live(Rc::clone(server), stream));
        }
    }
}

async fn live(server: Rc<Server>, stream: TcpStream) {
    let Ok(mut wire) = Wire::new(stream) else {
        return;
    };
    if server.meets(Fault::ResetOnAccept) {
        return wire.reset();
    }
    if let Ok(Ending::Reset) = serve_all(&server, &mut wire).await {
        wire.reset();
    }
}

async fn serve_all(server: &Rc<Server>, wire: &mut Wire) -> io::Result<Ending> {
    loop {
        if !server.wait_for_request(wire).await? {
            return Ok(Ending::Close);
        }
        let Some(head) = wire.read_head().await? else {
            return Ok(Ending::Close);
        };
        let work = Server::begin(server, &head)?;
        let body = wire.read_body(&head).await?;
        let wish = Wish::read(&head.start);
        sleep(wish.takes).await;
        let answer = Answer::new(&server.name, &head, &body, &wish);
        let ending = match server.fault_of_answer() {
            Some(fault) => misbehaviour::answer(server, wire, fault, answer, work).await?,
            None => send(wire, &answer, wish.pause, work).await.map(|()| None)?,
        };
        if let Some(ending) = ending {
            return Ok(ending);
        }
    }
}

/// An answer as it should be, with a pause before the second half of its body.
pub async fn send(wire: &mut Wire, answer: &Answer, pause: Duration, work: Work) -> io::Result<()> {
    let mut bytes = [answer.head.as_bytes(), &answer.body].concat();
    if answer.is_chunked {
        bytes.extend_from_slice(LAST_CHUNK);
    }
    // An answer without a body is over with its header.
    if !pause.is_zero() && !answer.body.is_empty() {
        let rest = bytes.split_off(bytes.len() - answer.body.len().div_ceil(2));
        wire.write(&bytes).await?;
        sleep(pause).await;
        bytes = rest;
    }
    // With what does not fit into the socket's buffer a client could not go on yet.
    if let Some(last) = bytes.len().checked_sub(1) {
        wire.write(&bytes[..last]).await?;
        drop(work);
        wire.write(&bytes[last..]).await?;
    }
    Ok(())
}

impl Server {
    fn new(arguments: &Arguments, order: watch::Receiver<Option<Order>>) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            name: arguments.name.clone(),
            slots: arguments.slots,
            ledger: RefCell::new(Ledger::open(&arguments.ledger)?),
            order,
            in_hand: RefCell::default(),
            rng: RefCell::new(Rng::with_seed(arguments.seed)),
        }))
    }

    /// Counts a request, and says so if there are too many.
    fn begin(server: &Rc<Self>, head: &Head) -> io::Result<Work> {
        let id = head.get(ID).unwrap_or("nameless").to_owned();
        let mut ledger = server.ledger.borrow_mut();
        ledger.begun(&id, head.start.starts_with("POST "))?;
        let mut in_hand = server.in_hand.borrow_mut();
        if in_hand.len() >= server.slots {
            ledger.overlap(&id, &in_hand)?;
        }
        in_hand.push(id.clone());
        Ok(Work {
            server: Rc::clone(server),
            id,
        })
    }

    /// Returns when a request begins and is to be read. `false`: none will.
    async fn wait_for_request(&self, wire: &mut Wire) -> io::Result<bool> {
        let has_more = match self.is_ordered(Fault::IdleClose) {
            true => {
                let patience = some_millis(&mut self.rng.borrow_mut(), 0..20);
                let Ok(has_more) = timeout(patience, wire.has_more()).await else {
                    self.note(Fault::IdleClose);
                    return Ok(false);
                };
                has_more?
            }
            false => wire.has_more().await?,
        };
        if has_more && self.meets(Fault::Deaf) {
            self.until_it_is_over(Fault::Deaf).await;
        }
        Ok(has_more)
    }

    /// What is to be wrong with the next answer.
    fn fault_of_answer(&self) -> Option<Fault> {
        let fault = self.order.borrow().as_ref()?.fault;
        let is_of_answer = !matches!(fault, Fault::ResetOnAccept | Fault::IdleClose | Fault::Deaf);
        (is_of_answer && self.meets(fault)).then_some(fault)
    }

    fn is_ordered(&self, fault: Fault) -> bool {
        self.order
            .borrow()
            .is_some_and(|order| order.fault == fault)
    }

    /// Whether this fault is ordered, and its turn has come.
    fn meets(&self, fault: Fault) -> bool {
        let percent = match &*self.order.borrow() {
            Some(order) if order.fault == fault => order.percent,
            _ => return false,
        };
        let is_met = self.rng.borrow_mut().u8(..100) < percent;
        if is_met {
            self.note(fault);
        }
        is_met
    }

    fn note(&self, fault: Fault) {
        if let Err(error) = self.ledger.borrow_mut().hit(fault) {
            eprintln!("{}: the ledger: {error}", self.name);
        }
    }

    /// Returns when something else is ordered.
    pub async fn until_it_is_over(&self, fault: Fault) {
        let mut order = self.order.clone();
        // Who orders is gone with the process.
        let _ = order
            .wait_for(|order| order.is_none_or(|order| order.fault != fault))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Records;
    use tokio::task::LocalSet;

    #[test]
    fn an_order_is_understood() {
        let order = Order {
            fault: Fault::ResetOnAccept,
            percent: 40,
        };
        assert_eq!(
            Order::read(Order::line(Some(order)).trim_end()),
            Some(order)
        );
        assert_eq!(Order::read(Order::line(None).trim_end()), None);
    }

    /// What a backend with one slot has written down after this was done to it.
    async fn records_after(order: Option<Order>, test: impl AsyncFnOnce(u16)) -> Records {
        let folder = tempfile::tempdir().unwrap();
        let arguments = Arguments {
            soak: 0,
            name: "a".into(),
            port: 0,
            slots: 1,
            ledger: folder.path().join("ledger"),
            seed: 1,
        };
        let (_orders, order) = watch::channel(order);
        let server = Server::new(&arguments, order).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = async {
            tokio::select! {
                () = accept(&server, &listener) => {}
                () = test(port) => {}
            }
        };
        LocalSet::new().run_until(serving).await;
        let mut records = Records::default();
        records.read(&arguments.ledger).unwrap();
        records
    }

    async fn ask(port: u16, request: &str) -> Wire {
        let mut wire = Wire::connect(port).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\n\r\n");
        wire.write(request.as_bytes()).await.unwrap();
        wire
    }

    #[tokio::test]
    async fn work_is_over_when_the_answer_is() {
        let requests = [
            "HEAD /?bytes=9&pause=1000",
            "GET /?bytes=1&pause=20",
            "GET /?bytes=0&pause=1000",
            "GET /?bytes=100000&chunked=1&pause=20",
            "GET /?bytes=1&chunked=1&pause=20",
            "GET /?bytes=9",
            "POST /",
        ];
        for fault in [
            None,
            Some(Fault::Surplus),
            Some(Fault::AfterHeader),
            Some(Fault::Refusal),
        ] {
            let order = fault.map(|fault| Order {
                fault,
                percent: 100,
            });
            let records = records_after(order, async |port| {
                let mut wires = Vec::new();
                for request in requests {
                    let mut wire = ask(port, request).await;
                    let head = wire.read_head().await.unwrap().unwrap();
                    if !request.starts_with("HEAD") {
                        // Or as soon as it is broken off.
                        let _ = wire.read_body(&head).await;
                    }
                    wires.push(wire);
                }
            });
            let records = records.await;
            assert_eq!((records.begun, records.overlaps), (7, vec![]), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn two_at_once_are_an_overlap_though_the_first_has_half_its_answer_or_has_left() {
        let records = records_after(None, async |port| {
            let mut first = ask(port, "GET /?bytes=100&pause=100").await;
            first.read_head().await.unwrap();
            let mut second = ask(port, "GET /?takes=100").await;
            assert!(second.has_more().await.unwrap());
            drop(ask(port, "GET /?takes=100").await);
            sleep(Duration::from_millis(20)).await;
            let mut last = ask(port, "GET /").await;
            assert!(last.has_more().await.unwrap());
        });
        assert_eq!(records.await.overlaps.len(), 2);
    }
}
