//! Clients that leave while they wait: the backend never hears of them, and the queue shrinks. Or
//! at the very moment when answers come: no slot is lost.

use tokio::task::JoinSet;

use crate::harness::{Backend, Client, Request, Units, backend, get, post, proxy, soon, until};

const CLIENTS: usize = 1_002;

/// A third each: without a body, with one that was sent whole, with one of which half is missing.
fn of_kind(id: usize) -> (Request, Vec<u8>) {
    match id % 3 {
        0 => (get("/home").id(id), Vec::new()),
        1 => (post("/home").id(id).body(vec![b'x'; 10_000]), Vec::new()),
        // More than the proxy reads before a slot is taken, so that what is unread hides the end.
        _ => (post("/home").id(id).promises(200_000), vec![b'x'; 100_000]),
    }
}

#[tokio::test]
async fn who_leaves_while_waiting_never_reaches_the_backend() {
    let a = backend("a").held().start().await;
    let lb = proxy().upstream("web", [&a]).alone().start().await;
    let mut first = lb.send(&get("/home").id("first")).await;
    a.working_on(1).await;

    let mut waiting: Vec<(usize, Client)> = Vec::new();
    for id in 0..CLIENTS {
        let (request, part) = of_kind(id);
        let mut client = lb.send(&request).await;
        client.send_bytes(&part).await.unwrap();
        waiting.push((id, client));
    }
    lb.has_waiting(CLIENTS as u64).await;

    // Of each kind every other one leaves.
    let (staying, leaving): (Vec<_>, Vec<_>) =
        waiting.into_iter().partition(|(id, _)| id / 3 % 2 == 0);
    let stayed = staying.len() as u64;
    drop(leaving);
    let took = until("half have left", 20.secs(), async || {
        lb.waiting().await == stayed
    })
    .await;
    println!("the queue of {CLIENTS} knew that half had left after {took:?}");

    a.release(CLIENTS + 1);
    assert_eq!(first.receive("GET").await.unwrap().status, 200);
    let mut ids: Vec<_> = staying.iter().map(|(id, _)| id.to_string()).collect();
    // All at once: a slot may wait for the rest of one's body while another waits for that slot.
    let finishing: JoinSet<()> = staying
        .into_iter()
        .map(|(id, client)| finish(id, client))
        .collect();
    soon("every turn", 20.secs(), finishing.join_all()).await;
    let mut seen: Vec<_> = a
        .requests()
        .iter()
        .map(|seen| seen.id().to_owned())
        .collect();
    assert_eq!(seen.remove(0), "first");
    seen.sort();
    ids.sort();
    assert_eq!(seen, ids, "those who stayed, and nobody else");
    assert_eq!(a.overlap(), 1);
    assert!(took <= 300.millis(), "{took:?}");
}

/// Sends what is missing of the request and reads its answer.
async fn finish(id: usize, mut client: Client) {
    if id % 3 == 2 {
        client.send_bytes(&[b'x'; 100_000]).await.unwrap();
    }
    let answer = client.receive("GET").await.unwrap();
    assert_eq!(
        (answer.status, answer.header("X-Id")),
        (200, Some(id.to_string().as_str()))
    );
}

/// Starts 200 clients, lets them all leave as `leaves` has it, five times over, and asserts that
/// no slot was lost or taken twice.
async fn assert_waves_leave_nothing_behind(leaves: impl AsyncFn(&[Backend], Vec<Client>)) {
    let start = async |name| backend(name).takes(5.millis()).start().await;
    let group = [start("a").await, start("b").await, start("c").await];
    let lb = proxy().upstream("web", &group).start().await;
    for _ in 0..5 {
        let mut clients = Vec::new();
        for _ in 0..200 {
            let client = lb.send(&get("/home")).await;
            clients.push(client);
        }
        leaves(&group, clients).await;
    }
    lb.has_freed_all().await;
    for backend in &group {
        assert_eq!(backend.overlap(), 1, "{}", backend.name());
    }
    assert_eq!(lb.ask(get("/home")).await.status, 200);
}

fn served(group: &[Backend]) -> usize {
    group.iter().map(Backend::served).sum()
}

#[tokio::test]
async fn all_may_leave_while_answers_come() {
    assert_waves_leave_nothing_behind(async |group, clients| {
        let before = served(group);
        until("answers come", 20.secs(), async || {
            served(group) > before + 10
        })
        .await;
        drop(clients);
    })
    .await;
}

#[tokio::test]
async fn each_may_leave_at_the_first_byte_of_its_answer() {
    assert_waves_leave_nothing_behind(async |_, clients| {
        let leaving: JoinSet<()> = clients
            .into_iter()
            .map(async |client| client.is_answered().await.unwrap())
            .collect();
        soon("every answer", 20.secs(), leaving.join_all()).await;
    })
    .await;
}
