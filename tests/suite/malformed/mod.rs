//! Answers that are not as they should be: whatever a backend sends, no client ever sees a piece of an answer to
//! another one's request, what is no answer is 502, and the proxy and all its slots are as good as before.

mod kinds;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::json;
use tokio::time::sleep;

use crate::harness::{
    Client, Framing, Proxy, ProxyBuilder, RawServer, Response, Server, Units, Wire, backend, get,
    load, post, proxy, raw_server, request, scrape, soon, until,
};

use kinds::{KINDS, Kind, Seen, fine};

/// Clients at once, and how many odd answers each of them asks for, each time followed by one that is as it should be.
const CLIENTS: usize = 4;
const ROUNDS: usize = 3;

/// Serves what the request asks for: the kind of the number in its `X-Kind`, else what is as it should be.
async fn odd(mut wire: Wire) {
    while let Ok(Some(head)) = wire.read_head().await {
        let Ok(framing) = head.headers.framing(Framing::Length(0)) else {
            return;
        };
        if wire.read_body(framing, |_| ()).await.is_err() {
            return;
        }
        let tag = head.headers.get("X-Id").unwrap_or_default();
        let kind = head
            .headers
            .get("X-Kind")
            .and_then(|text| text.parse::<usize>().ok());
        let goes_on = match kind {
            Some(number) => KINDS[number].answer(&mut wire, tag).await,
            None => wire.write(&fine(tag)).await.is_ok(),
        };
        if !goes_on {
            return;
        }
    }
}

/// What becomes of one request for this kind of answer, or for one as it should be.
async fn ask(
    lb: &Proxy,
    connection: &mut Option<Client>,
    kind: Option<(usize, &Kind)>,
    tag: &str,
) -> io::Result<Response> {
    let mut asked = request(kind.map_or("GET", |(_, kind)| kind.method), "/home");
    if let Some((number, _)) = kind {
        asked = asked.header("X-Kind", &number.to_string());
    }
    let asked = asked.id(tag).accepts_json();
    let mut client = match connection.take() {
        Some(client) => client,
        None => lb.connect().await,
    };
    let answer = soon("an end of the request", 5.secs(), client.ask(&asked)).await?;
    if !answer.headers.lists("Connection", "close") {
        *connection = Some(client);
    }
    Ok(answer)
}

/// Whether what a client saw is its own, and what is to be seen of this kind.
fn is_as_expected(kind: &Kind, tag: &str, answer: &io::Result<Response>) -> bool {
    let Ok(answer) = answer else {
        return kind.seen == Seen::BrokenOff;
    };
    let all = format!("{:?} {}", answer.headers, answer.text());
    let is_refused = |why| answer.status == 502 && answer.text().contains(why);
    let is_seen = match kind.seen {
        Seen::Invalid => is_refused("invalid_response"),
        Seen::Nothing => is_refused("bad_gateway"),
        Seen::BrokenOff => false,
        Seen::Whole(status) => {
            let has_body = kind.method == "GET" && status == 200;
            answer.status == status && answer.text() == if has_body { tag } else { "" }
        }
    };
    is_seen && !all.replace(tag, "").contains("tag-")
}

/// One client, whose odd requests take turns with others. Ends when something is not as it should be, and says what.
async fn client(lb: Arc<Proxy>, number: usize, client: usize) -> Result<(), String> {
    let mut connection = None;
    let kind = &KINDS[number];
    for round in 0..ROUNDS {
        let tag = format!("tag-{number}-{client}-{round}-odd-");
        let answer = ask(&lb, &mut connection, Some((number, kind)), &tag).await;
        if !is_as_expected(kind, &tag, &answer) {
            return Err(format!(
                "{}, expected {:?}: {answer:?}",
                kind.name, kind.seen
            ));
        }
        let tag = format!("tag-{number}-{client}-{round}-fine-");
        let answer = ask(&lb, &mut connection, None, &tag).await;
        if !answer
            .as_ref()
            .is_ok_and(|answer| answer.status == 200 && answer.text() == tag)
        {
            return Err(format!("{}, the next: {answer:?}", kind.name));
        }
    }
    Ok(())
}

/// One proxy with the server of all kinds; what is invalid is not sent again, so that it is seen.
fn odd_proxy(server: &RawServer) -> ProxyBuilder {
    let on = json!({ "on": ["connect_failure", "stale_connection"] });
    proxy()
        .upstream("web", [server])
        .backend_key("odd", "max_in_flight", CLIENTS)
        .key("maitred.upstreams.web.retry", on)
}

/// What went wrong with this kind, if anything.
async fn trouble(lb: &Arc<Proxy>, number: usize) -> Option<String> {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|one| tokio::spawn(client(lb.clone(), number, one)))
        .collect();
    let mut trouble = None;
    for client in clients {
        trouble = client.await.unwrap().err().or(trouble);
    }
    lb.has_freed_all().await;
    trouble
}

#[tokio::test]
async fn no_piece_of_an_odd_answer_reaches_another_client() {
    assert!(KINDS.len() >= 27);
    let server = raw_server("odd", odd).await;
    let lb = Arc::new(odd_proxy(&server).start().await);
    let mut troubles = Vec::new();
    for number in 0..KINDS.len() {
        troubles.extend(trouble(&lb, number).await);
    }
    assert!(troubles.is_empty(), "{}", troubles.join("\n"));
    println!(
        "{} kinds, {} connections",
        KINDS.len(),
        server.connections()
    );
}

/// A server that sends an answer to nobody 20 ms after each request's own.
async fn chatty(mut wire: Wire) {
    while let Ok(Some(head)) = wire.read_head().await {
        let tag = head.headers.get("X-Id").unwrap_or_default();
        if wire.write(&fine(tag)).await.is_err() {
            return;
        }
        sleep(20.millis()).await;
        if wire.write(&fine("tag-stray-")).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn an_answer_on_an_idle_connection_reaches_nobody() {
    let server = raw_server("odd", chatty).await;
    let lb = odd_proxy(&server).idle_timeout(60.secs()).start().await;
    for round in 1..=10 {
        let answer = lb.ask(get("/home").id(format!("tag-{round}-"))).await;
        assert_eq!(answer.text(), format!("tag-{round}-"));
        until("the connection is closed", 2.secs(), async || {
            server.open() == 0
        })
        .await;
        assert_eq!(server.connections(), round);
    }
}

/// Answers when it has the header, and then takes whatever comes for the next request.
async fn hasty(mut wire: Wire) {
    while let Ok(Some(head)) = wire.read_head().await {
        let tag = head.headers.get("X-Id").unwrap_or_default();
        if tag == "tag-stray-" {
            // Late enough for the connection to be in use again.
            sleep(20.millis()).await;
        }
        if wire.write(&fine(tag)).await.is_err() {
            return;
        }
    }
}

/// The rest of the body is never taken for a request: it says that it is one, and where that was answered the answer
/// would be somebody else's.
#[tokio::test]
async fn what_was_answered_before_it_was_whole_is_sent_no_further() {
    let server = raw_server("odd", hasty).await;
    let lb = odd_proxy(&server).start().await;
    const BYTES: usize = 200_000;
    let mut stray = b"GET / HTTP/1.1\r\nHost: a\r\nX-Id: tag-stray-\r\n\r\n".to_vec();
    stray.resize(BYTES, b'x');
    for round in 0..5 {
        let mut client = lb.connect().await;
        let begun = post("/home")
            .id(format!("tag-{round}-"))
            .promises(BYTES as u64);
        client.send(&begun).await.unwrap();
        let answer = soon("the answer", 2.secs(), client.receive("POST"))
            .await
            .unwrap();
        assert_eq!(
            (answer.status, answer.text()),
            (200, format!("tag-{round}-"))
        );
        // The proxy may have closed by now.
        let _ = client.send_bytes(&stray).await;
        for next in 0..5 {
            let tag = format!("tag-{round}-{next}-");
            assert_eq!(lb.ask(get("/home").id(&tag)).await.text(), tag);
        }
        lb.has_freed_all().await;
    }
}

/// Counts what it reads, and answers with noise.
fn noise(
    seen: &Arc<AtomicUsize>,
) -> impl Fn(Wire) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + use<> {
    let seen = seen.clone();
    move |mut wire| {
        let seen = seen.clone();
        Box::pin(async move {
            while let Ok(Some(_)) = wire.read_head().await {
                seen.fetch_add(1, SeqCst);
                if wire
                    .write(b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n")
                    .await
                    .is_err()
                {
                    return;
                }
            }
        })
    }
}

#[tokio::test]
async fn after_an_invalid_answer_a_get_is_served_elsewhere_and_a_post_is_not_sent_again() {
    let seen = Arc::default();
    let bad = raw_server("bad", noise(&seen)).await;
    let good = backend("good").start().await;
    let (name, address) = (bad.name(), bad.address().to_string());
    let lb = proxy()
        .upstream("web", [&good, &backend(name).start().await])
        .backend_key(name, "address", address)
        // Of the half that meets it each is sent again.
        .key(
            "maitred.upstreams.web.retry",
            json!({ "budget_percent": 100 }),
        )
        // Here it is wanted.
        .key(
            "maitred.upstreams.web.outlier_detection.max_ejection_percent",
            0,
        )
        .json_access_log();
    let lb = lb.start().await;
    let tally = load(lb.address()).clients(4).requests_each(250).run().await;
    tally.assert_none_failed();
    let again = seen.load(SeqCst);
    assert!(again > 0);
    let page = scrape(lb.site().admin()).await;
    let counted = page.sum("maitred_retries_total", &["reason=\"invalid_response\""]);
    assert_eq!(counted as usize, again);
    println!("1000 requests, {again} met the noise");
    let mut sent = 0;
    until("a POST meets it", 5.secs(), async || {
        sent += 1;
        let answer = lb
            .ask(post("/home").body(b"pay 5".to_vec()).accepts_json())
            .await;
        if answer.status == 502 {
            answer.assert_refusal(502, "invalid_response");
        }
        answer.status == 502
    })
    .await;
    assert_eq!(seen.load(SeqCst), again + 1);
    assert_eq!(good.begun(), 1000 + sent - 1, "each was done once");
}
