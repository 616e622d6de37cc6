//! Owns the requests: what each is to be, how it is sent, and whether what came back is its answer.

use std::io;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use crate::clients::Class;
use crate::farm::UPSTREAMS;
use crate::fault::{Fault, some_millis};
use crate::http::{Head, LAST_CHUNK, Wire, chunks};
use crate::message::{ID, Wish, backend_of, body_of, fault_in_body, fault_in_head};
use crate::tally::Verdict;

/// As much of a body as the proxy keeps to send it again.
const BODY_BYTES_MAX: usize = 60 * 1024;

/// What a request is to be.
pub struct Plan {
    pub id: String,
    pub method: &'static str,
    pub upstream: &'static str,
    pub wish: Wish,
    pub body: Vec<u8>,
    is_chunked: bool,
    /// Between two pieces of the body.
    pace: Duration,
}

/// How far an answer came.
pub enum End {
    Whole(Head, Vec<u8>),
    BrokenOff(Head, io::Error),
    Nothing(io::Error),
}

impl Plan {
    /// At random, as a client of this class sends them.
    pub fn random(class: Class, id: String, rng: &mut Rng) -> Self {
        let takes = match rng.u8(..100) {
            _ if class == Class::Leaver => some_millis(rng, 50..300),
            0..80 => some_millis(rng, 1..10),
            80..98 => some_millis(rng, 10..60),
            _ => some_millis(rng, 100..400),
        };
        let bytes = match rng.u8(..10) {
            0 => rng.usize(10_000..150_000),
            _ => rng.usize(1..2_000),
        };
        let pause = match rng.u8(..20) {
            0 => some_millis(rng, 20..200),
            _ => Duration::ZERO,
        };
        let method = match class {
            Class::Put => "PUT",
            Class::Post => "POST",
            _ if rng.u8(..20) == 0 => "HEAD",
            _ => "GET",
        };
        let body = match method {
            "PUT" | "POST" if rng.u8(..5) == 0 => body_of(&id, rng.usize(..BODY_BYTES_MAX)),
            "PUT" | "POST" => body_of(&id, rng.usize(..1_000)),
            _ => Vec::new(),
        };
        Self {
            // A fifth goes where only one is served at a time, which is as much as those can do.
            upstream: UPSTREAMS[usize::from(rng.u8(..5) > 0)].0,
            method,
            wish: Wish {
                takes,
                bytes,
                is_chunked: rng.u8(..3) == 0,
                pause,
            },
            is_chunked: !body.is_empty() && rng.u8(..4) == 0,
            body,
            pace: some_millis(rng, 0..20) * u32::from(rng.u8(..10) == 0),
            id,
        }
    }

    fn head(&self) -> String {
        let framing = match self.body.len() {
            _ if self.is_chunked => "Transfer-Encoding: chunked\r\n".into(),
            0 if self.method == "GET" || self.method == "HEAD" => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        format!(
            "{} /{}?{} HTTP/1.1\r\nHost: soak\r\n{ID}: {}\r\n{framing}\r\n",
            self.method,
            self.upstream,
            self.wish.query(),
            self.id,
        )
    }

    pub async fn send(&self, wire: &mut Wire) -> io::Result<()> {
        let body = match self.is_chunked {
            true => [&chunks(&self.body, 4096), LAST_CHUNK].concat(),
            false => self.body.clone(),
        };
        if self.pace.is_zero() {
            return wire.write(&[self.head().as_bytes(), &body].concat()).await;
        }
        wire.write(self.head().as_bytes()).await?;
        for piece in body.chunks(8 * 1024) {
            sleep(self.pace).await;
            wire.write(piece).await?;
        }
        Ok(())
    }
}

/// `who_broke_off`: what may have broken off an answer of this backend while the request was under way.
pub fn judge(plan: &Plan, end: End, who_broke_off: impl FnOnce(&str) -> Option<Fault>) -> Verdict {
    let (head, body) = match end {
        End::Nothing(error) => return Verdict::Failed(format!("no answer: {error}")),
        End::BrokenOff(head, error) => (head, Err(error)),
        End::Whole(head, body) => (head, Ok(body)),
    };
    if head.status() != 200 {
        let body = String::from_utf8_lossy(body.as_deref().unwrap_or_default()).into_owned();
        return Verdict::Failed(format!("status {}: {}", head.status(), body.trim_end()));
    }
    if let Some(fault) = fault_in_head(&head, &plan.id, &plan.body) {
        return Verdict::Wrong(fault);
    }
    let bytes = if plan.method == "HEAD" {
        0
    } else {
        plan.wish.bytes
    };
    match body {
        Ok(body) => match fault_in_body(&body, &plan.id, bytes) {
            Some(fault) => Verdict::Wrong(fault),
            None => Verdict::Answered,
        },
        Err(error) => {
            let backend = backend_of(&head).unwrap_or("nobody");
            let sound = || format!("{backend} was sound, and its answer broken off: {error}");
            who_broke_off(backend).map_or_else(|| Verdict::Failed(sound()), Verdict::BrokenOff)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Answer;

    fn plan(id: &str) -> Plan {
        Plan::random(Class::Rare, id.into(), &mut Rng::with_seed(7))
    }

    /// What is made of an answer to the first request, where the second one was meant.
    async fn verdict(asked: &Plan, meant: &Plan, cut: usize) -> Verdict {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (client, server) = tokio::join!(Wire::connect(port), listener.accept());
        let (mut client, mut server) = (client.unwrap(), Wire::new(server.unwrap().0).unwrap());
        meant.send(&mut client).await.unwrap();
        let head = server.read_head().await.unwrap().unwrap();
        let wish = Wish {
            is_chunked: false,
            ..Wish::read(&head.start)
        };
        let answer = Answer::new("a", &head, &[], &wish);
        let bytes = [answer.head.as_bytes(), &answer.body].concat();
        server.write(&bytes[..bytes.len() - cut]).await.unwrap();
        drop(server);
        let head = client.read_head().await.unwrap().unwrap();
        let end = match client.read_body(&head).await {
            Ok(body) => End::Whole(head, body),
            Err(error) => End::BrokenOff(head, error),
        };
        judge(asked, end, |backend| {
            (backend == "b").then_some(Fault::Kill)
        })
    }

    #[tokio::test]
    async fn an_answer_must_be_this_requests_and_whole() {
        let (own, other) = (plan("a-1"), plan("a-2"));
        assert_eq!(own.method, "GET");
        assert_eq!(verdict(&own, &own, 0).await, Verdict::Answered);
        let of_other = Verdict::Wrong("the answer of a-2".into());
        assert_eq!(verdict(&own, &other, 0).await, of_other);
        let Verdict::Failed(why) = verdict(&own, &own, 1).await else {
            panic!("a broken answer of a sound backend");
        };
        assert!(why.contains("a was sound"), "{why}");
    }

    #[test]
    fn an_answer_that_its_backend_broke_off_is_no_loss() {
        let answer = |status| {
            let mut head = Head::default();
            head.start = format!("HTTP/1.1 {status} X");
            head
        };
        let broken = || io::ErrorKind::UnexpectedEof.into();
        let own = plan("a-1");
        for end in [
            End::Nothing(broken()),
            End::Whole(answer(502), Vec::new()),
            End::BrokenOff(answer(502), broken()),
        ] {
            let verdict = judge(&own, end, |_| Some(Fault::Kill));
            assert!(matches!(verdict, Verdict::Failed(_)), "{verdict:?}");
        }
        let end = End::BrokenOff(answer(200), broken());
        let verdict = judge(&own, end, |_| Some(Fault::Kill));
        assert_eq!(verdict, Verdict::Wrong("an answer of nobody's".into()));
    }
}
