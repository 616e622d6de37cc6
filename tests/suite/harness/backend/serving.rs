//! What a backend does with its connections: requests in, work, answers out, and death.
//!
//! Invariant: a request is counted as in work exactly as long as its [`Work`] lives.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::super::wire::{Framing, Head, Headers, Wire};
use super::{Fault, Manner, Params, Seen, Shared, Step};

/// Body bytes that are written at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Accepts until killed. The listener is closed before `kill` returns.
pub(super) async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    mut death: watch::Receiver<()>,
) {
    loop {
        let stream = tokio::select! {
            biased;
            _ = death.changed() => return,
            Ok((stream, _)) = listener.accept() => stream,
        };
        shared.counts().connections += 1;
        let life = live(Arc::clone(&shared), stream, death.clone());
        if shared.params.is_single_connection {
            life.await;
        } else {
            tokio::spawn(life);
        }
    }
}

/// Serves one connection until it ends or the backend is killed, which resets it.
async fn live(shared: Arc<Shared>, stream: TcpStream, mut death: watch::Receiver<()>) {
    let Ok(mut wire) = Wire::new(stream) else {
        return;
    };
    let fault = *shared.fault();
    let outcome = match shared.params.manner {
        _ if fault == Some(Fault::ResetOnAccept) => Ok(Ending::Reset),
        Manner::ResetsOnAccept => Ok(Ending::Reset),
        Manner::ClosesOnAccept => Ok(Ending::Close),
        _ => tokio::select! {
            biased;
            _ = death.changed() => Ok(Ending::Reset),
            outcome = shared.serve(&mut wire) => outcome,
        },
    };
    if matches!(outcome, Ok(Ending::Reset)) {
        // Closing with no time to linger sends RST. It fails if the client was faster.
        let _ = wire.stream().set_zero_linger();
    }
}

/// How a connection ends.
pub(super) enum Ending {
    Close,
    Reset,
}

/// What one request gets: the backend's ways, unless its query asks for something else.
struct Treatment {
    work: Duration,
    body_bytes: Option<u64>,
    status: u16,
    is_reset: bool,
}

impl Params {
    fn note(&self, step: Step, seen: &Seen) {
        if let Some(journal) = &self.journal {
            journal.note(step, seen.id());
        }
    }
}

impl Shared {
    async fn serve(&self, wire: &mut Wire) -> io::Result<Ending> {
        let mut exchanges = 0;
        loop {
            let Some(head) = wire.read_head().await? else {
                return Ok(Ending::Close);
            };
            if target_of(&head) == "/ping" {
                self.counts().pings += 1;
                drop(self.turn().await);
                wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npong")
                    .await?;
                continue;
            }
            exchanges += 1;
            if exchanges > 1 && self.params.manner == Manner::HangsUpLate {
                return Ok(Ending::Close);
            }
            if let Some(ending) = self.exchange(wire, &head).await? {
                return Ok(ending);
            }
        }
    }

    /// One request and its answer; says how the connection ends, if it does.
    async fn exchange(&self, wire: &mut Wire, head: &Head) -> io::Result<Option<Ending>> {
        let work = Work::begin(self, head);
        let _turn = self.turn().await;
        let bytes = wire
            .read_body(head.headers.framing(Framing::Length(0))?, |_| ())
            .await?;
        work.has_body(bytes);
        let treatment = self.treatment(target_of(head));
        self.toil(&treatment).await;
        let fault = *self.fault();
        if let Some(fault) = fault {
            return fault.answer(wire, head).await;
        }
        if treatment.is_reset {
            return Ok(Some(Ending::Reset));
        }
        if work.index < self.params.broken_off {
            return Ok(Some(Ending::Close));
        }
        if let Manner::Upgrades(lines) = &self.params.manner
            && head.headers.get("Upgrade").is_some()
        {
            self.tunnel(wire, lines).await?;
            work.finish();
            return Ok(Some(Ending::Close));
        }
        self.answer(wire, head, &treatment).await?;
        if self.params.works_on {
            self.released().await;
        }
        work.finish();
        Ok(self.closes_after_answer().then_some(Ending::Close))
    }

    /// The turn, where there is one to wait for.
    async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        match self.params.pings_wait {
            true => Some(self.turn.lock().await),
            false => None,
        }
    }

    fn closes_after_answer(&self) -> bool {
        let Params {
            works_on, manner, ..
        } = &self.params;
        *works_on
            || matches!(
                manner,
                Manner::SaysClose | Manner::HangsUp | Manner::EndsByClosing
            )
    }

    /// Switches protocols and echoes until released.
    async fn tunnel(&self, wire: &mut Wire, lines: &str) -> io::Result<()> {
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
        wire.write(format!("{head}{lines}\r\n").as_bytes()).await?;
        tokio::select! {
            () = self.released() => {}
            // It works on without the other side, whichever way that has gone.
            _ = wire.echo() => self.released().await,
        }
        Ok(())
    }

    /// Waits for [`super::Backend::release`].
    async fn released(&self) {
        self.permits
            .acquire()
            .await
            .expect("the permits are never closed")
            .forget();
    }

    async fn toil(&self, treatment: &Treatment) {
        if self.params.is_held {
            self.released().await;
        }
        if !treatment.work.is_zero() {
            tokio::time::sleep(treatment.work).await;
        }
    }

    fn treatment(&self, target: &str) -> Treatment {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let number = |key: &str| {
            let value = query
                .split('&')
                .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))?;
            Some(value.parse().expect("a test writes a number"))
        };
        Treatment {
            work: number("takes").map_or(self.params.work, Duration::from_millis),
            body_bytes: number("bytes").or(self.params.body_bytes),
            status: match number("status") {
                Some(status) => u16::try_from(status).expect("a test writes a status"),
                None => self.status.load(Relaxed),
            },
            is_reset: query.split('&').any(|pair| pair == "reset"),
        }
    }

    async fn answer(&self, wire: &mut Wire, head: &Head, treatment: &Treatment) -> io::Result<()> {
        if let Manner::Cans(bytes) = &self.params.manner {
            return wire.write(bytes).await;
        }
        let greeting = format!("Hello from {}", self.params.name);
        let length = treatment.body_bytes.unwrap_or(greeting.len() as u64);
        let mut message = self
            .answer_head(head, length, treatment.status)
            .into_bytes();
        if head.start.starts_with("HEAD ") {
            return wire.write(&message).await;
        }
        if treatment.body_bytes.is_none() && !self.params.is_chunked {
            message.extend_from_slice(greeting.as_bytes());
            return wire.write(&message).await;
        }
        wire.write(&message).await?;
        if !self.params.pause.is_zero() {
            tokio::time::sleep(self.params.pause).await;
        }
        self.write_filler(wire, length).await
    }

    fn answer_head(&self, request: &Head, length: u64, status: u16) -> String {
        let Params {
            name,
            headers,
            is_chunked,
            manner,
            ..
        } = &self.params;
        let mut own = Headers::default();
        own.push("X-Backend", name);
        if let Some(id) = request.headers.get("X-Id") {
            own.push("X-Id", id);
        }
        if matches!(manner, Manner::SaysClose | Manner::EndsByClosing) {
            own.push("Connection", "close");
        }
        if *is_chunked {
            own.push("Transfer-Encoding", "chunked");
        } else if *manner != Manner::EndsByClosing {
            own.push("Content-Length", &length.to_string());
        }
        format!(
            "HTTP/1.1 {status} Reason\r\n{}{}\r\n",
            own.encode(),
            headers.encode()
        )
    }

    async fn write_filler(&self, wire: &mut Wire, length: u64) -> io::Result<()> {
        let filler = vec![b'x'; PIECE_BYTES];
        let mut left = length;
        while left > 0 {
            let bytes = left.min(PIECE_BYTES as u64) as usize;
            left -= bytes as u64;
            if self.params.is_chunked {
                wire.write(format!("{bytes:x}\r\n").as_bytes()).await?;
                wire.write(&filler[..bytes]).await?;
                wire.write(b"\r\n").await?;
            } else {
                wire.write(&filler[..bytes]).await?;
            }
        }
        if self.params.is_chunked {
            wire.write(b"0\r\n\r\n").await?;
        }
        Ok(())
    }
}

/// Path and query of a request.
fn target_of(head: &Head) -> &str {
    head.start.split(' ').nth(1).unwrap_or("")
}

/// One request in work; the work ends when this is dropped.
struct Work<'a> {
    shared: &'a Shared,
    /// Its place in the record.
    index: usize,
    begun: Instant,
}

impl<'a> Work<'a> {
    fn begin(shared: &'a Shared, head: &Head) -> Self {
        let begun = Instant::now();
        let seen = Seen {
            method: head.start.split(' ').next().unwrap_or("").to_owned(),
            target: target_of(head).to_owned(),
            headers: head.headers.clone(),
            body_bytes: None,
            at: begun,
        };
        shared.params.note(Step::Begun, &seen);
        let mut counts = shared.counts();
        counts.begun.push(seen);
        counts.current += 1;
        counts.overlap = counts.overlap.max(counts.current);
        Self {
            shared,
            index: counts.begun.len() - 1,
            begun,
        }
    }

    fn has_body(&self, bytes: u64) {
        let mut counts = self.shared.counts();
        let seen = &mut counts.begun[self.index];
        seen.body_bytes = Some(bytes);
        self.shared.params.note(Step::Read, seen);
    }

    fn finish(self) {
        self.shared.counts().served += 1;
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let mut counts = self.shared.counts();
        counts.current -= 1;
        counts.busy += self.begun.elapsed();
    }
}
