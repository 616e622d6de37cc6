//! The demo: that it shows what maitred does without a failed request, and that nothing of it is left however
//! it ends.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::harness::{
    Program, PseudoTerminal, Room, Units, consecutive_ports, get, run_to_end, soon, until,
};

const DEMO: &str = env!("CARGO_BIN_EXE_demo");
const PORTS: u16 = 5;
/// Longest start, longest run of those that end by themselves, and longest end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// Where a demo runs: ports and a folder for temporary files of its own.
struct Place {
    base: u16,
    folder: TempDir,
    _room: Room,
}

impl Place {
    async fn new() -> Self {
        let place = Self {
            base: consecutive_ports(PORTS),
            folder: TempDir::new().unwrap(),
            _room: Room::shared().await,
        };
        fs::create_dir(place.temporary()).unwrap();
        place
    }

    fn temporary(&self) -> std::path::PathBuf {
        self.folder.path().join("tmp")
    }

    /// The command line, after `env`.
    fn command(&self, arguments: &str) -> Vec<String> {
        let temporary = format!("TMPDIR={}", self.temporary().display());
        let base = format!("--base-port={}", self.base);
        let fixed = [temporary, DEMO.to_owned(), base];
        let further = arguments.split_whitespace().map(str::to_owned);
        fixed.into_iter().chain(further).collect()
    }

    /// Starts it; its standard output is a file.
    fn start(&self, arguments: &str) -> Program {
        let command = self.command(arguments);
        let command: Vec<_> = command.iter().map(String::as_str).collect();
        Program::start("demo", "env", &command, self.folder.path())
    }

    /// Starts it in a terminal.
    fn start_in_terminal(&self, arguments: &str) -> PseudoTerminal {
        let command = self.command(arguments);
        let mut words = vec!["env"];
        words.extend(command.iter().map(String::as_str));
        PseudoTerminal::start(&words, self.folder.path())
    }

    async fn is_up(&self, demo: &Program) {
        until("the demo serves", PATIENCE, async || {
            demo.output().contains("requests/s")
        })
        .await;
    }

    fn are_ports_free(&self) -> bool {
        (self.base..self.base + PORTS)
            .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
    }

    fn is_folder_empty(&self) -> bool {
        fs::read_dir(self.temporary()).unwrap().next().is_none()
    }

    /// Waits until no process, port or file is left of the demo that had this process id.
    async fn leaves_nothing(&self, demo: u32) {
        until("nothing of the demo is left", PATIENCE, async || {
            parts(demo).is_empty() && self.are_ports_free() && self.is_folder_empty()
        })
        .await;
    }
}

/// The processes of the demo that has this process id: what they are, and their own ids.
fn parts(demo: u32) -> Vec<(String, i32)> {
    let parent = demo.to_string();
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let id: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        // Empty when it has ended and nobody has asked how.
        let line = fs::read_to_string(format!("/proc/{id}/cmdline")).ok()?;
        let mut words = line.split('\0').skip(1);
        let role = words.next()?.strip_prefix('@')?.to_owned();
        (words.next()? == parent).then_some((role, id))
    });
    processes.collect()
}

fn part(demo: u32, role: &str) -> Pid {
    let parts = parts(demo);
    let found = parts.iter().find(|(name, _)| name == role);
    let (_, id) = found.unwrap_or_else(|| panic!("no {role} in {parts:?}"));
    Pid::from_raw(*id).unwrap()
}

#[tokio::test]
async fn it_serves_for_its_duration_without_a_failure_and_leaves_nothing() {
    let place = Place::new().await;
    let mut demo = place.start("--duration 8s --clients 6");
    place.is_up(&demo).await;
    let mut roles: Vec<_> = parts(demo.id()).into_iter().map(|(role, _)| role).collect();
    roles.sort();
    assert_eq!(
        roles,
        [
            "poller", "proxy", "server1", "server2", "server3", "sweeper"
        ]
    );
    assert!(!place.is_folder_empty());
    assert_eq!(demo.wait_exit(PATIENCE).await.0, Some(0));
    let output = demo.output();
    assert!(output.contains("0 failed; server1 3"), "{output}");
    assert_eq!(demo.log(), "");
    place.leaves_nothing(demo.id()).await;
}

#[tokio::test]
#[ignore = "takes about 9 s"]
async fn a_server_that_is_killed_and_revived_costs_no_request() {
    let place = Place::new().await;
    let mut demo = place.start("--script ..2..2.. --duration 9s");
    assert_eq!(demo.wait_exit(PATIENCE).await.0, Some(0));
    let output = demo.output();
    for said in [
        "server2 killed",
        "server2 is out: it refuses connections",
        "server2 started again",
        "server2 is back",
    ] {
        assert!(output.contains(said), "{output}");
    }
    place.leaves_nothing(demo.id()).await;
}

#[tokio::test]
#[ignore = "takes about 15 s"]
async fn a_server_that_hangs_costs_the_one_request_that_it_has() {
    let place = Place::new().await;
    let mut demo = place.start("--script .s.....s --duration 15s");
    assert_eq!(demo.wait_exit(PATIENCE).await.0, Some(1));
    let output = demo.output();
    for said in [
        "server3 hangs",
        "a request given up; its slot stays taken",
        "server3 is out: the health file says false",
        "server3 let go",
        "server3 is back",
        " 0 failed, 1 timed out; ",
    ] {
        assert!(output.contains(said), "{output}");
    }
    place.leaves_nothing(demo.id()).await;
}

#[tokio::test]
#[ignore = "takes about 16 s"]
async fn a_drained_server_and_a_paused_poller_cost_nothing() {
    let place = Place::new().await;
    let mut demo = place.start("--script .d.dp --duration 16s");
    assert_eq!(demo.wait_exit(PATIENCE).await.0, Some(0));
    let output = demo.output();
    for said in [
        "server2 is out: its state is drain",
        "server2 is back",
        "poller paused",
        "the health file is stale",
    ] {
        assert!(output.contains(said), "{output}");
    }
    place.leaves_nothing(demo.id()).await;
}

#[tokio::test]
async fn without_clients_it_serves_whoever_asks() {
    let place = Place::new().await;
    let mut demo = place.start("--clients 0");
    place.is_up(&demo).await;
    let address = (Ipv4Addr::LOCALHOST, place.base).into();
    let answer = get("/home").send_to(address).await.unwrap();
    assert_eq!(answer.text(), "Hello from server1");
    demo.interrupt();
    assert_eq!(demo.wait_exit(PATIENCE).await.0, Some(0));
    assert!(
        demo.output().contains("\n0 requests: "),
        "{}",
        demo.output()
    );
}

#[tokio::test]
async fn what_others_do_to_its_parts_is_told() {
    let place = Place::new().await;
    let mut demo = place.start("");
    place.is_up(&demo).await;
    kill_process(part(demo.id(), "server1"), Signal::KILL).unwrap();
    until("the end of server1 is told", PATIENCE, async || {
        demo.output().contains("server1 has ended: signal: 9")
    })
    .await;
    kill_process(part(demo.id(), "proxy"), Signal::KILL).unwrap();
    assert_eq!(demo.wait_exit(PATIENCE).await.0, Some(1));
    assert!(demo.log().contains("proxy has ended"), "{}", demo.log());
    place.leaves_nothing(demo.id()).await;
}

#[tokio::test]
async fn every_port_that_is_taken_is_named_before_anything_starts() {
    let place = Place::new().await;
    let [first, last] = [place.base, place.base + 4];
    let _held = [first, last].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
    let command = place.command("--duration 10s");
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    let output = run_to_end("env", &command, place.folder.path(), 5.secs()).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    for named in [
        first.to_string(),
        last.to_string(),
        "--base-port".to_owned(),
    ] {
        assert!(said.contains(&named), "{said}");
    }
    assert!(!said.contains(&(first + 1).to_string()), "{said}");
    assert_eq!(output.stdout, b"");
    assert!(place.is_folder_empty());
}

#[tokio::test]
async fn signals_end_it_and_leave_nothing() {
    for stop in [Program::terminate, Program::interrupt, Program::hang_up] {
        let place = Place::new().await;
        let mut demo = place.start("");
        place.is_up(&demo).await;
        stop(&demo);
        let (code, took) = demo.wait_exit(PATIENCE).await;
        assert_eq!(code, Some(0), "{}", demo.output());
        assert!(took < 2.secs(), "{took:?}");
        place.leaves_nothing(demo.id()).await;
    }
}

#[tokio::test]
#[ignore = "takes about 6 s"]
async fn kill_9_leaves_nothing_at_any_moment() {
    for wait in [0, 5, 20, 50, 100, 200, 400, 2500] {
        let place = Place::new().await;
        let mut demo = place.start("--script s");
        tokio::time::sleep(wait.millis()).await;
        demo.kill();
        place.leaves_nothing(demo.id()).await;
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_it() {
    let place = Place::new().await;
    let mut demo = tokio::process::Command::new("env")
        .args(place.command(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let id = demo.id().unwrap();
    let mut output = BufReader::new(demo.stdout.take().unwrap()).lines();
    let line = soon("a line", PATIENCE, output.next_line()).await.unwrap();
    assert!(line.unwrap().starts_with("maitred"));
    drop(output);
    let status = soon("the end", PATIENCE, demo.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let mut said = String::new();
    let mut errors = demo.stderr.take().unwrap();
    errors.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "");
    place.leaves_nothing(id).await;
}

#[tokio::test]
async fn a_reader_that_stands_still_does_not_keep_it_from_ending() {
    let place = Place::new().await;
    let mut terminal = place.start_in_terminal("");
    terminal.shows(&["server1", "eligible"], PATIENCE).await;
    terminal.stand_still();
    tokio::time::sleep(1.secs()).await;
    kill_process(
        Pid::from_raw(terminal.id().cast_signed()).unwrap(),
        Signal::TERM,
    )
    .unwrap();
    assert_eq!(terminal.wait_exit(PATIENCE).await.code(), Some(1));
    place.leaves_nothing(terminal.id()).await;
}

#[tokio::test]
async fn the_terminal_is_given_back_by_every_way_out() {
    for way in ["q", "\u{3}", "TERM", "HUP"] {
        let place = Place::new().await;
        let mut terminal = place.start_in_terminal("");
        terminal
            .shows(&["server1", "server2", "server3", "0 failed"], PATIENCE)
            .await;
        assert!(!terminal.is_given_back());
        let id = Pid::from_raw(terminal.id().cast_signed()).unwrap();
        match way {
            "TERM" => kill_process(id, Signal::TERM).unwrap(),
            "HUP" => kill_process(id, Signal::HUP).unwrap(),
            keys => terminal.types(keys),
        }
        let status = terminal.wait_exit(PATIENCE).await;
        assert_eq!(status.code(), Some(0), "{way:?}");
        terminal.shows(&[" requests: "], PATIENCE).await;
        assert!(terminal.is_given_back(), "{way:?}");
        place.leaves_nothing(terminal.id()).await;
    }
}

#[tokio::test]
#[ignore = "takes about 10 s"]
async fn keys_do_what_the_screen_says() {
    let place = Place::new().await;
    let mut terminal = place.start_in_terminal("");
    terminal.shows(&["eligible", "6 clients"], PATIENCE).await;
    for (key, words) in [
        ("2", &["server2 killed", "it refuses connections"][..]),
        ("2", &["server2 is back"]),
        ("+", &["7 clients"]),
        ("-", &["6 clients"]),
        ("p", &["poller is paused", "p continues the poller"]),
        ("p", &["poller runs"]),
        ("s", &["s wakes server3", "1 timed out", "server3 is out"]),
        ("s", &["server3 goes on", "server3 is back"]),
        (
            "d",
            &["server2 is out: its state is drain", "d undrains server2"],
        ),
        ("d", &["d drains server2"]),
    ] {
        terminal.types(key);
        terminal.shows(words, PATIENCE).await;
    }
    terminal.resize(40, 15);
    terminal
        .shows(&["server3 eligible", "q quit"], PATIENCE)
        .await;
    assert!(terminal.text().contains("0 failed"), "{}", terminal.text());
    terminal.types("Q");
    assert_eq!(terminal.wait_exit(PATIENCE).await.code(), Some(0));
    place.leaves_nothing(terminal.id()).await;
}

#[tokio::test]
#[ignore = "takes about 12 s"]
async fn keys_and_sizes_in_any_order_do_no_harm() {
    play(10.secs()).await;
}

#[tokio::test]
#[ignore = "takes a minute"]
async fn soak_keys_and_sizes_in_any_order() {
    play(60.secs()).await;
}

/// Keys, some of which are none, and sizes, in random order for so long.
async fn play(time: Duration) {
    const KEYS: [&str; 16] = [
        "1", "2", "3", "s", "s", "p", "p", "d", "+", "+", "-", "x", "\u{1b}[A", "é", "\r", "\t",
    ];
    let place = Place::new().await;
    let mut terminal = place.start_in_terminal("");
    terminal.shows(&["server1", "eligible"], PATIENCE).await;
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = Random(seed);
    let begun = Instant::now();
    while begun.elapsed() < time {
        match random.below(5) {
            0 => {
                let (columns, rows) = (1 + random.below(200), 1 + random.below(60));
                terminal.resize(columns as u16, rows as u16);
            }
            _ => terminal.types(KEYS[random.below(KEYS.len())]),
        }
        tokio::time::sleep((random.below(120) as u64).millis()).await;
    }
    terminal.resize(80, 24);
    let words = ["server1", "server2", "server3", " failed", "q quits"];
    terminal.shows(&words, PATIENCE).await;
    terminal.resize(120, 60);
    terminal.shows(&["of the last 5 s"], PATIENCE).await;
    let text = terminal.text();
    // A request that three servers in a row were killed under is not sent to a fourth.
    let mut failures = text
        .lines()
        .filter(|line| line.contains("a request failed"));
    assert!(
        failures.all(|line| line.contains("502 bad_gateway")),
        "{text}"
    );
    println!("{text}");
    terminal.types("q");
    assert_eq!(terminal.wait_exit(PATIENCE).await.code(), Some(0));
    terminal.shows(&["requests: "], PATIENCE).await;
    assert!(terminal.is_given_back());
    place.leaves_nothing(terminal.id()).await;
}

/// Marsaglia's xorshift: enough to shuffle keys with, and the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % end
    }
}
