//! Owns what a backend does wrong with an answer.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use crate::backend::{Ending, Server, Work, send};
use crate::fault::{Fault, some_millis};
use crate::http::Wire;
use crate::message::Answer;

/// Between garbage and the close: to somebody who takes garbage for the end of the work, it is none.
const AFTERMATH: Duration = Duration::from_millis(3);

/// What no proxy should take for an answer. Where one does, no client takes it for its own.
const GARBAGE: [&[u8]; 10] = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"SSH-2.0-OpenSSH_9.9\r\n",
    b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nno",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 1\r\n\r\nno",
    b"HTTP/1.1 200 OK\r\nno field\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n \0x: y\r\n\r\nno",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: soak\r\nConnection: upgrade\r\n\r\nno",
    b"\r\n\r\n\r\n\0\0\0\0",
    b"{\"error\":\"this is not HTTP\"}\n",
];

/// Does to this answer what the fault is. `None`: the connection goes on.
pub async fn answer(
    server: &Rc<Server>,
    wire: &mut Wire,
    fault: Fault,
    answer: Answer,
    work: Work,
) -> io::Result<Option<Ending>> {
    let mut rng = server.rng.borrow_mut().fork();
    if answer.body.is_empty() && needs_a_body(fault) {
        return send(wire, &answer, Duration::ZERO, work)
            .await
            .map(|()| None);
    }
    match fault {
        Fault::Hang => server.until_it_is_over(fault).await,
        Fault::HalfHeader => {
            let half = rng.usize(1..answer.head.len());
            wire.write(&answer.head.as_bytes()[..half]).await?;
        }
        Fault::AfterHeader => break_off(wire, &mut rng, &answer).await?,
        Fault::Garbage => garbage(wire, &mut rng, &answer).await?,
        Fault::TooShort => {
            let more = "\r\nContent-Length: 9";
            let head = answer.head.replace("\r\nContent-Length: ", more);
            wire.write(&[head.as_bytes(), &answer.body].concat())
                .await?;
        }
        Fault::TruncatedChunks => truncate(wire, &mut rng, &answer).await?,
        Fault::Surplus => return surplus(wire, &answer, work).await,
        Fault::SlowHeader => return slow_header(wire, &mut rng, answer, work).await,
        Fault::Refusal => return refuse(wire, &mut rng, work).await,
        // Of these no answer knows.
        Fault::Kill
        | Fault::Restarts
        | Fault::Stop
        | Fault::ResetOnAccept
        | Fault::IdleClose
        | Fault::Deaf => {
            return send(wire, &answer, Duration::ZERO, work)
                .await
                .map(|()| None);
        }
    }
    drop(work);
    Ok(Some(match rng.bool() {
        true => Ending::Close,
        false => Ending::Reset,
    }))
}

/// Of an answer that is over with its header there is nothing to break off.
fn needs_a_body(fault: Fault) -> bool {
    use Fault::{AfterHeader, Refusal, TooShort, TruncatedChunks};
    matches!(fault, AfterHeader | TooShort | TruncatedChunks | Refusal)
}

/// The header, and some of the body, but not all of the answer.
async fn break_off(wire: &mut Wire, rng: &mut Rng, answer: &Answer) -> io::Result<()> {
    wire.write(answer.head.as_bytes()).await?;
    let some = rng.usize(..=answer.body.len() / 2);
    wire.write(&answer.body[..some]).await?;
    sleep(some_millis(rng, 0..10)).await;
    Ok(())
}

/// Once in a while after a proper header.
async fn garbage(wire: &mut Wire, rng: &mut Rng, answer: &Answer) -> io::Result<()> {
    match rng.usize(..GARBAGE.len() + 2) {
        0 => {
            let endless = format!("HTTP/1.1 200 OK\r\nX: {}\r\n", "x".repeat(200_000));
            wire.write(endless.as_bytes()).await?;
        }
        1 if answer.is_chunked => {
            wire.write(answer.head.as_bytes()).await?;
            wire.write(b"no length\r\n").await?;
        }
        more => wire.write(GARBAGE[more.saturating_sub(2)]).await?,
    }
    sleep(AFTERMATH).await;
    Ok(())
}

/// Chunked, whatever was asked for, and without an end.
async fn truncate(wire: &mut Wire, rng: &mut Rng, answer: &Answer) -> io::Result<()> {
    if answer.is_chunked {
        return break_off(wire, rng, answer).await;
    }
    let lines = answer.head.lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("Content-Length"));
    let mut head: String = lines.flat_map(|line| [line, "\r\n"]).collect();
    head.push_str("Transfer-Encoding: chunked\r\n\r\n");
    wire.write(head.as_bytes()).await?;
    let chunk = format!("{:x}\r\n", answer.body.len() + 1);
    wire.write(chunk.as_bytes()).await?;
    wire.write(&answer.body).await
}

/// A right answer with another one behind it that nobody asked for. The connection goes on.
async fn surplus(wire: &mut Wire, answer: &Answer, work: Work) -> io::Result<Option<Ending>> {
    const POISON: &[u8] =
        b"HTTP/1.1 200 OK\r\nX-Soak-Id: poison\r\nContent-Length: 6\r\n\r\npoison";
    let mut bytes = [answer.head.as_bytes(), &answer.body].concat();
    if answer.is_chunked {
        bytes.extend_from_slice(crate::http::LAST_CHUNK);
    }
    bytes.extend_from_slice(POISON);
    drop(work);
    wire.write(&bytes).await?;
    Ok(None)
}

/// Some bytes at a time; some are within what a proxy waits, some are not.
async fn slow_header(
    wire: &mut Wire,
    rng: &mut Rng,
    answer: Answer,
    work: Work,
) -> io::Result<Option<Ending>> {
    let pause = some_millis(rng, 5..200);
    for piece in answer.head.as_bytes().chunks(12) {
        sleep(pause).await;
        wire.write(piece).await?;
    }
    let rest = Answer {
        head: String::new(),
        ..answer
    };
    send(wire, &rest, Duration::ZERO, work).await?;
    Ok(None)
}

/// With a body that takes a while: the work is not over with the header.
async fn refuse(wire: &mut Wire, rng: &mut Rng, work: Work) -> io::Result<Option<Ending>> {
    let status = ["502 No", "503 No", "503 No\r\nRetry-After: 1", "504 No"];
    let status = status[rng.usize(..status.len())];
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nno");
    wire.write(head.as_bytes()).await?;
    sleep(some_millis(rng, 0..30)).await;
    drop(work);
    wire.write(b"no").await?;
    Ok(None)
}
