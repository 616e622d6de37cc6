//! The poller as a whole, against sockets of ours. What it makes of a real configuration, and of
//! signals, is in `tests/suite/poller*.rs`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, oneshot};
use tokio::time::{sleep, timeout};

use super::fixtures::{params, target};
use super::*;
use crate::config::PollerParams;
use crate::health::State;

const DEADLINE: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(20);

/// Polls often, and one ping decides.
fn plan(directory: &TempDir, addresses: &[SocketAddr]) -> Plan {
    let params = Arc::new(PollerParams {
        interval: INTERVAL,
        timeout: DEADLINE,
        ..params()
    });
    let targets = addresses.iter().enumerate().map(|(number, address)| {
        let name = format!("server{}", number + 1);
        target(&name, (*address).into(), &params)
    });
    Plan {
        configuration: "pingora.yaml".into(),
        fingerprint: 0,
        file: directory.path().join("health_status.json"),
        detail: false,
        metrics: None,
        targets: targets.collect(),
    }
}

fn process() -> Arc<Process> {
    Arc::new(Process::new(0))
}

/// Runs by this plan alone.
async fn run_plan(plan: Plan, stop: impl Future<Output = ()>) -> Result<(), LockError> {
    run(plan, mpsc::channel(1).1, process(), stop).await
}

async fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
}

/// A backend that is well while the flag says so, and counts its pings.
async fn backend() -> (SocketAddr, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let well = Arc::new(AtomicBool::new(true));
    let count = Arc::new(AtomicUsize::new(0));
    let (is_well, counter) = (well.clone(), count.clone());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            let status = match is_well.load(Ordering::SeqCst) {
                true => 200,
                false => 503,
            };
            tokio::spawn(async move {
                read_request(&mut stream).await;
                let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    (address, well, count)
}

async fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

async fn until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < DEADLINE, "waited too long");
        sleep(Duration::from_millis(2)).await;
    }
}

fn says(plan: &Plan, text: &str) -> bool {
    std::fs::read_to_string(&plan.file).is_ok_and(|found| found == text)
}

#[tokio::test]
async fn once_writes_and_tells_in_the_order_of_the_targets() {
    let directory = tempdir().unwrap();
    let (well, _, _) = backend().await;
    let mut plan = plan(&directory, &[refusing().await, well, well]);
    plan.targets[2].state = State::Maint;
    let table = once(&plan).await.unwrap();
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["NAME", "ADDRESS", "STATE", "DETAIL"]);
    assert_eq!(lines[1][0..1], ["server1"]);
    assert_eq!(lines[1][2..], ["down", "connection", "refused"]);
    assert_eq!(lines[2][2..5], ["up", "200", "in"]);
    assert_eq!(lines[3][2..], ["maint", "not", "pinged"]);
    let column = |line: &str, text: &str| line.find(text).unwrap();
    let head = table.lines().next().unwrap();
    let second = table.lines().nth(2).unwrap();
    assert_eq!(column(head, "STATE"), column(second, "up"));
    assert!(says(
        &plan,
        "{\n  \"server1\": false,\n  \"server2\": true\n}\n"
    ));
}

#[tokio::test]
async fn pings_go_out_at_the_same_time() {
    const COUNT: usize = 50;
    let directory = tempdir().unwrap();
    // Nobody is answered before all have asked.
    let barrier = Arc::new(Barrier::new(COUNT));
    let mut addresses = Vec::new();
    for _ in 0..COUNT {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        let barrier = barrier.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                barrier.wait().await;
                read_request(&mut stream).await;
                stream.write_all(b"HTTP/1.1 204 x\r\n\r\n").await.unwrap();
            }
        });
    }
    let plan = plan(&directory, &addresses);
    let all = |plan: &Plan| {
        let text = std::fs::read_to_string(&plan.file).unwrap_or_default();
        text.matches("true").count() == COUNT
    };
    assert!(!once(&plan).await.unwrap().contains("down"));
    assert!(all(&plan));
    std::fs::remove_file(&plan.file).unwrap();
    let stop = until(|| all(&plan));
    run_plan(plan.clone(), stop).await.unwrap();
}

#[tokio::test]
async fn more_targets_than_turns_are_all_pinged() {
    let directory = tempdir().unwrap();
    let (well, _, count) = backend().await;
    let plan = plan(&directory, &vec![well; PINGS_MAX + 50]);
    let table = once(&plan).await.unwrap();
    assert!(!table.contains("down"));
    assert_eq!(count.load(Ordering::SeqCst), PINGS_MAX + 50);
}

#[tokio::test]
async fn run_writes_until_stopped() {
    let directory = tempdir().unwrap();
    let (address, well, count) = backend().await;
    let plan = plan(&directory, &[address]);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = run_plan(plan.clone(), async { drop(stopped.await) });
    let task = tokio::spawn(running);
    let (healthy, sick) = (
        "{\n  \"server1\": true\n}\n",
        "{\n  \"server1\": false\n}\n",
    );
    until(|| says(&plan, healthy)).await;
    well.store(false, Ordering::SeqCst);
    until(|| says(&plan, sick)).await;
    well.store(true, Ordering::SeqCst);
    until(|| says(&plan, healthy)).await;
    // Written also when nothing changed: a file that is gone comes back.
    std::fs::remove_file(&plan.file).unwrap();
    until(|| says(&plan, healthy)).await;
    stop.send(()).unwrap();
    timeout(DEADLINE, task).await.unwrap().unwrap().unwrap();
    // The last one may have been under way.
    sleep(INTERVAL).await;
    let after = count.load(Ordering::SeqCst);
    sleep(INTERVAL * 5).await;
    assert_eq!(count.load(Ordering::SeqCst), after, "pinged after the stop");
}

#[tokio::test]
async fn a_target_that_hangs_stops_the_rounds_but_not_the_changes() {
    let directory = tempdir().unwrap();
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, well, count) = backend().await;
    let plan = plan(&directory, &[address, deaf.local_addr().unwrap()]);
    let stop = async {
        until(|| says(&plan, "{\n  \"server1\": true\n}\n")).await;
        // What writes now would write a round.
        std::fs::remove_file(&plan.file).unwrap();
        let pinged = count.load(Ordering::SeqCst);
        until(|| count.load(Ordering::SeqCst) > pinged + 5).await;
        assert!(!plan.file.exists());
        well.store(false, Ordering::SeqCst);
        until(|| says(&plan, "{\n  \"server1\": false\n}\n")).await;
    };
    let running = run_plan(plan.clone(), stop);
    timeout(DEADLINE, running).await.unwrap().unwrap();
}

#[tokio::test]
async fn maintenance_of_all_is_written_too_and_names_nobody() {
    let directory = tempdir().unwrap();
    let (address, _, count) = backend().await;
    let mut plan = plan(&directory, &[address]);
    plan.targets[0].state = State::Maint;
    let stop = async {
        for _ in 0..3 {
            until(|| says(&plan, "{}\n")).await;
            std::fs::remove_file(&plan.file).unwrap();
        }
    };
    let running = run_plan(plan.clone(), stop);
    timeout(DEADLINE, running).await.unwrap().unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_write_that_fails_does_not_end_the_run() {
    let directory = tempdir().unwrap();
    let (address, _, count) = backend().await;
    let mut plan = plan(&directory, &[address]);
    let below = directory.path().join("below");
    plan.file = below.join("health_status.json");
    let stop = async {
        until(|| count.load(Ordering::SeqCst) >= 3).await;
        std::fs::create_dir(&below).unwrap();
        until(|| plan.file.exists()).await;
    };
    let running = run_plan(plan.clone(), stop);
    timeout(DEADLINE, running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_ping() {
    let directory = tempdir().unwrap();
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plan = plan(&directory, &[deaf.local_addr().unwrap()]);
    let stop = async { drop(deaf.accept().await.unwrap()) };
    let running = run_plan(plan.clone(), stop);
    timeout(DEADLINE, running).await.unwrap().unwrap();
    assert!(!plan.file.exists());
}

#[tokio::test]
async fn another_plan_ends_tasks_starts_tasks_and_moves_the_file() {
    let directory = tempdir().unwrap();
    let ((kept, _, _), (removed, _, count), (added, _, _)) =
        (backend().await, backend().await, backend().await);
    let first = plan(&directory, &[kept, removed]);
    let mut second = plan(&directory, &[kept, added]);
    second.targets[1].name = "server3".into();
    second.file = directory.path().join("elsewhere.json");
    let (sender, plans) = mpsc::channel(1);
    let stop = async {
        let text = "{\n  \"server1\": true,\n  \"server2\": true\n}\n";
        until(|| says(&first, text)).await;
        sender.send(second.clone()).await.unwrap();
        let text = "{\n  \"server1\": true,\n  \"server3\": true\n}\n";
        until(|| says(&second, text)).await;
        let after = count.load(Ordering::SeqCst);
        sleep(INTERVAL * 5).await;
        assert_eq!(count.load(Ordering::SeqCst), after, "pinged though removed");
    };
    let running = run(first.clone(), plans, process(), stop);
    timeout(DEADLINE, running).await.unwrap().unwrap();
}
