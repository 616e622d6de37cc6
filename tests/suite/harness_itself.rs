//! The harness is seen to fail: its counters count, its backend dies and comes back, its client
//! reads what was sent. A proof by a broken instrument is none.

use crate::harness::{
    BackendProcess, Client, Ending, Fault, Server, Step, Units, backend, get, head, load, post,
    until,
};

#[tokio::test]
async fn the_overlap_counter_counts_what_overlaps() {
    let a = backend("a").held().start().await;
    let clients = load(a.address()).clients(3).spawn();
    a.working_on(3).await;
    a.release(100);
    clients.stop().await.assert_none_failed();
    assert_eq!(a.overlap(), 3);
    assert_eq!(a.current(), 0);
}

#[tokio::test]
async fn requests_one_after_another_do_not_overlap() {
    let a = backend("a").start().await;
    load(a.address())
        .requests_each(20)
        .run()
        .await
        .assert_none_failed();
    assert_eq!((a.served(), a.overlap(), a.connections()), (20, 1, 1));
}

#[tokio::test]
async fn work_goes_on_when_the_client_has_left() {
    let a = backend("a").held().start().await;
    let mut client = Client::connect(a.address()).await.unwrap();
    client.send(&get("/")).await.unwrap();
    a.working_on(1).await;
    drop(client);
    // A second request makes sure that the backend had time to notice the first one's end.
    let other = load(a.address()).clients(1).spawn();
    a.working_on(2).await;
    a.release(100);
    other.stop().await.assert_none_failed();
    until("the work ended", 10.secs(), async || a.current() == 0).await;
}

#[tokio::test]
async fn a_killed_backend_resets_and_refuses_until_it_is_revived() {
    let a = backend("a").held().start().await;
    let mut client = Client::connect(a.address()).await.unwrap();
    client.send(&get("/")).await.unwrap();
    a.working_on(1).await;
    a.kill().await;
    assert_eq!(a.current(), 0);
    let cut = client.receive("GET").await.unwrap_err();
    assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionReset);
    let refused = get("/").send_to(a.address()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    a.revive().await;
    a.release(1);
    assert_eq!(get("/").send_to(a.address()).await.unwrap().status, 200);
}

#[tokio::test]
async fn bodies_arrive_whole_however_they_are_framed() {
    let a = backend("a").chunked().response_body(200_000).start().await;
    let body = vec![b'b'; 12_345];
    let sized = post("/x?y=1")
        .id(7)
        .body(body.clone())
        .send_to(a.address())
        .await
        .unwrap();
    let chunked = post("/")
        .chunked_body(body)
        .send_to(a.address())
        .await
        .unwrap();
    assert_eq!((sized.body.len(), chunked.body.len()), (200_000, 200_000));
    let seen = a.requests();
    assert_eq!(
        (seen[0].body_bytes, seen[1].body_bytes),
        (Some(12_345), Some(12_345))
    );
    assert_eq!(
        (
            seen[0].method.as_str(),
            seen[0].target.as_str(),
            seen[0].id()
        ),
        ("POST", "/x?y=1", "7")
    );
    assert_eq!(sized.header("x-id"), Some("7"));
}

#[tokio::test]
async fn a_head_request_gets_no_body() {
    let a = backend("a").start().await;
    let mut client = Client::connect(a.address()).await.unwrap();
    let answer = client.ask(&head("/")).await.unwrap();
    assert_eq!(
        (answer.header("Content-Length"), answer.body.len()),
        (Some("12"), 0)
    );
    assert_eq!(client.ask(&get("/")).await.unwrap().text(), "Hello from a");
}

#[tokio::test]
async fn a_request_can_ask_for_its_own_treatment() {
    let a = backend("a").start().await;
    let answer = get("/?takes=30&bytes=70000")
        .send_to(a.address())
        .await
        .unwrap();
    assert_eq!(answer.body.len(), 70_000);
    assert!(answer.took >= 30.millis(), "{:?}", answer.took);
    let reset = get("/?reset").send_to(a.address()).await.unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!((a.begun(), a.served()), (2, 1));
}

#[tokio::test]
async fn pings_are_counted_apart() {
    let a = backend("a").held().start().await;
    assert_eq!(
        get("/ping").send_to(a.address()).await.unwrap().text(),
        "pong"
    );
    assert_eq!((a.pings(), a.begun(), a.overlap()), (1, 0, 0));
}

#[tokio::test]
async fn manners_are_kept() {
    let polite = backend("a").says_close().start().await;
    assert_eq!(
        get("/")
            .send_to(polite.address())
            .await
            .unwrap()
            .header("Connection"),
        Some("close")
    );
    let rude = backend("b").hangs_up().start().await;
    let mut client = Client::connect(rude.address()).await.unwrap();
    assert_eq!(
        client.ask(&get("/")).await.unwrap().header("Connection"),
        None
    );
    assert_eq!(client.read_until_closed().await, b"");
    let deaf = backend("c").resets_on_accept().start().await;
    assert!(get("/").send_to(deaf.address()).await.is_err());
    let canned = backend("d")
        .answers_raw("HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204 No\r\n\r\n")
        .start()
        .await;
    assert_eq!(
        get("/").send_to(canned.address()).await.unwrap().status,
        204
    );
}

#[tokio::test]
async fn a_backend_can_break_off_at_first() {
    let a = backend("a").breaks_off_first(1).start().await;
    let broken = get("/").send_to(a.address()).await.unwrap_err();
    assert_eq!(broken.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(get("/").send_to(a.address()).await.unwrap().status, 200);
    assert_eq!((a.begun(), a.served()), (2, 1));
    let deaf = backend("b").closes_on_accept().start().await;
    assert!(get("/").send_to(deaf.address()).await.is_err());
    assert_eq!((deaf.connections(), deaf.begun()), (1, 0));
}

#[tokio::test]
async fn an_answer_can_be_ended_by_the_close_alone() {
    let a = backend("a").ends_by_closing().response_body(70_000);
    let a = a.start().await;
    let answer = get("/").send_to(a.address()).await.unwrap();
    assert_eq!(answer.header("Content-Length"), None);
    assert_eq!(answer.header("Transfer-Encoding"), None);
    assert_eq!(answer.body.len(), 70_000);
}

#[tokio::test]
async fn work_can_outlast_the_answer() {
    let a = backend("a").works_on_after_answering().start().await;
    let mut client = Client::connect(a.address()).await.unwrap();
    assert_eq!(client.ask(&get("/")).await.unwrap().status, 200);
    assert_eq!((a.current(), a.served()), (1, 0));
    a.release(1);
    assert_eq!(client.read_until_closed().await, b"");
    assert_eq!((a.current(), a.served()), (0, 1));
}

#[tokio::test]
async fn an_upgraded_connection_echoes_and_works_on_without_its_client() {
    let a = backend("a").upgrades("X-Line: 1\r\n").start().await;
    let mut client = Client::connect(a.address()).await.unwrap();
    let granted = client
        .ask(&get("/").header("Upgrade", "websocket"))
        .await
        .unwrap();
    assert_eq!((granted.status, granted.header("X-Line")), (101, Some("1")));
    client.send_bytes(b"hello").await.unwrap();
    assert_eq!(client.read_bytes(5).await.unwrap(), b"hello");
    drop(client);
    // A second request makes sure that the backend had time to notice the first one's end.
    assert_eq!(get("/").send_to(a.address()).await.unwrap().status, 200);
    assert_eq!(a.current(), 1);
    a.release(1);
    until("the work ended", 10.secs(), async || a.current() == 0).await;
}

#[tokio::test]
async fn one_connection_at_a_time_is_one_connection_at_a_time() {
    let a = backend("a").one_connection_at_a_time().start().await;
    let mut first = Client::connect(a.address()).await.unwrap();
    assert_eq!(first.ask(&get("/")).await.unwrap().status, 200);
    let address = a.address();
    let second = tokio::spawn(async move { get("/").send_to(address).await });
    assert_eq!(first.ask(&get("/")).await.unwrap().status, 200);
    assert_eq!((a.connections(), a.begun()), (1, 2));
    drop(first);
    assert_eq!(second.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_tally_counts_by_status_backend_and_latency() {
    let sick = backend("sick").status(503).start().await;
    let tally = load(sick.address()).clients(2).requests_each(3).run().await;
    assert_eq!((tally.ok, tally.failed, tally.by_status[&503]), (0, 6, 6));
    sick.kill().await;
    let tally = load(sick.address()).run().await;
    assert_eq!((tally.failed, tally.errors.len()), (1, 1));
    let well = backend("well").takes(5.millis()).start().await;
    let tally = load(well.address()).clients(2).requests_each(3).run().await;
    assert_eq!(
        (tally.ok, tally.by_backend["well"], tally.latencies.len()),
        (6, 6, 4)
    );
    assert!(tally.quantile(0.5) >= 5.millis());
}

#[tokio::test]
#[should_panic(expected = "in vain until pigs fly")]
async fn a_wait_in_vain_ends_at_its_deadline() {
    until("pigs fly", 20.millis(), async || false).await;
}

#[tokio::test]
async fn a_backend_is_ill_as_it_is_told_and_recovers() {
    let a = backend("a").start().await;
    let ask = async || {
        let mut client = Client::connect(a.address()).await.unwrap();
        client.ask_to_the_end(&get("/")).await
    };
    for fault in [
        Fault::ResetOnAccept,
        Fault::Reset,
        Fault::ResetInHeader,
        Fault::Garbage,
    ] {
        a.falls_ill(fault).await;
        assert!(matches!(ask().await, Ending::Unanswered(_)), "{fault:?}");
    }
    for fault in [
        Fault::ResetAfterHeader,
        Fault::ShortBody,
        Fault::TruncatedChunk,
    ] {
        a.falls_ill(fault).await;
        assert!(matches!(ask().await, Ending::CutShort), "{fault:?}");
    }
    for (fault, expected) in [(Some(Fault::Unavailable), 503), (None, 200)] {
        a.recovers();
        if let Some(fault) = fault {
            a.falls_ill(fault).await;
        }
        let ending = ask().await;
        let Ending::Answered(response) = &ending else {
            panic!("{ending:?}");
        };
        assert_eq!(response.status, expected);
    }
}

#[tokio::test]
async fn a_backend_of_its_own_stops_dies_and_leaves_its_journal() {
    let mut a = BackendProcess::start("a", 0.millis()).await;
    let address = Server::address(&a);
    let done = |a: &BackendProcess| {
        let read = a
            .journal()
            .into_iter()
            .filter(|entry| entry.step == Step::Read);
        read.map(|entry| entry.id).collect::<Vec<_>>()
    };
    let ask = async |id| get("/").id(id).send_to(address).await;
    assert_eq!(ask("first").await.unwrap().backend(), Some("a"));
    a.freeze();
    let waits = tokio::time::timeout(100.millis(), ask("second")).await;
    assert!(waits.is_err(), "it stands still");
    assert_eq!(done(&a), ["first"]);
    a.thaw();
    until("it does what was sent", 5.secs(), async || {
        done(&a).len() == 2
    })
    .await;
    a.kill();
    let refused = ask("third").await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    a.revive().await;
    assert_eq!(ask("fourth").await.unwrap().status, 200);
    assert_eq!(done(&a), ["first", "second", "fourth"]);
}
