//! The whole of it as shipped: the demo servers, the poller and the proxy, with the configuration in
//! `conf/`, started in any order.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use tempfile::TempDir;

use crate::harness::{
    Client, Program, Room, Units, consecutive_ports, free_port, get, run_to_end, until,
};

/// The programs of the demo.
#[derive(Clone, Copy)]
enum Start {
    Backends,
    Poller,
    Proxy,
}

/// A folder with the shipped files, moved to free ports and polling more often.
struct Mission {
    folder: TempDir,
    address: SocketAddr,
    base_port: u16,
    _room: Room,
}

impl Mission {
    async fn new() -> Self {
        let root = env!("CARGO_MANIFEST_DIR");
        let (port, admin_port, base_port) = (free_port(), free_port(), consecutive_ports(3));
        let mut config = fs::read_to_string(format!("{root}/conf/pingora.yaml")).unwrap();
        let changes = [
            ("0.0.0.0:8080", format!("127.0.0.1:{port}")),
            ("127.0.0.1:9900", format!("127.0.0.1:{admin_port}")),
            ("127.0.0.1:8081", format!("127.0.0.1:{base_port}")),
            ("127.0.0.1:8082", format!("127.0.0.1:{}", base_port + 1)),
            ("127.0.0.1:8083", format!("127.0.0.1:{}", base_port + 2)),
            ("interval: 10s", "interval: 300ms".to_owned()),
            ("fast_interval: 1s", "fast_interval: 300ms".to_owned()),
            ("timeout: 2s", "timeout: 300ms".to_owned()),
        ];
        for (shipped, ours) in changes {
            assert_eq!(
                config.matches(shipped).count(),
                1,
                "{shipped} stands once in conf/pingora.yaml"
            );
            config = config.replace(shipped, &ours);
        }
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("conf")).unwrap();
        fs::write(folder.path().join("conf/pingora.yaml"), config).unwrap();
        fs::copy(
            format!("{root}/health_status.json"),
            folder.path().join("health_status.json"),
        )
        .unwrap();
        Self {
            folder,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            base_port,
            _room: Room::shared().await,
        }
    }

    /// Starts one program as the README says: without arguments, as far as ports allow.
    fn start(&self, which: Start) -> Program {
        let base_port = self.base_port.to_string();
        let (name, binary, arguments) = match which {
            Start::Backends => (
                "backends",
                env!("CARGO_BIN_EXE_backends"),
                vec!["--base-port", &base_port],
            ),
            Start::Poller => ("poller", env!("CARGO_BIN_EXE_poller"), vec![]),
            Start::Proxy => ("proxy", env!("CARGO_BIN_EXE_proxy"), vec![]),
        };
        Program::start(name, binary, &arguments, self.folder.path())
    }

    /// The answers to this many requests, one after another; `None` as soon as one fails.
    async fn answers(&self, requests: usize) -> Option<Vec<String>> {
        let mut client = Client::connect(self.address).await.ok()?;
        let mut texts = Vec::new();
        for _ in 0..requests {
            let answer = client.ask(&get("/home")).await.ok()?;
            texts.extend((answer.status == 200).then(|| answer.text()));
        }
        (texts.len() == requests).then_some(texts)
    }
}

/// Starts all three in this order and asserts that soon every server gets its third.
async fn assert_works_when_started(order: [Start; 3]) {
    let mission = Mission::new().await;
    let _programs = order.map(|which| mission.start(which));
    let greetings: Vec<_> = (1..=3)
        .map(|number| format!("Hello from server{number}"))
        .collect();
    until("all three answer in turn", 30.secs(), async || {
        let Some(texts) = mission.answers(12).await else {
            return false;
        };
        greetings
            .iter()
            .all(|greeting| texts.iter().filter(|text| *text == greeting).count() == 4)
    })
    .await;
}

#[tokio::test]
async fn it_works_when_the_backends_start_first() {
    assert_works_when_started([Start::Backends, Start::Poller, Start::Proxy]).await;
    assert_works_when_started([Start::Backends, Start::Proxy, Start::Poller]).await;
}

#[tokio::test]
async fn it_works_when_the_poller_starts_first() {
    assert_works_when_started([Start::Poller, Start::Backends, Start::Proxy]).await;
    assert_works_when_started([Start::Poller, Start::Proxy, Start::Backends]).await;
}

#[tokio::test]
async fn it_works_when_the_proxy_starts_first() {
    assert_works_when_started([Start::Proxy, Start::Backends, Start::Poller]).await;
    assert_works_when_started([Start::Proxy, Start::Poller, Start::Backends]).await;
}

#[tokio::test]
async fn the_demo_servers_greet_ping_and_end_on_sigterm() {
    let mission = Mission::new().await;
    let mut backends = mission.start(Start::Backends);
    for number in 1..=3u16 {
        let address = (Ipv4Addr::LOCALHOST, mission.base_port + number - 1).into();
        let name = format!("server{number}");
        until("it listens", 10.secs(), async || {
            Client::connect(address).await.is_ok()
        })
        .await;
        let hello = get("/").send_to(address).await.unwrap();
        assert_eq!(
            (hello.text(), hello.backend()),
            (format!("Hello from {name}"), Some(name.as_str()))
        );
        assert_eq!(get("/ping").send_to(address).await.unwrap().text(), "pong");
    }
    backends.terminate();
    assert_eq!(backends.wait_exit(10.secs()).await.0, Some(0));
}

#[tokio::test]
async fn a_demo_server_whose_port_is_taken_says_so_and_exits_1() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = TempDir::new().unwrap();
    let arguments = ["server1", "--base-port", &port];
    let output = run_to_end(
        env!("CARGO_BIN_EXE_backends"),
        &arguments,
        folder.path(),
        5.secs(),
    )
    .await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("server1") && error.contains(&port),
        "{error}"
    );
}
