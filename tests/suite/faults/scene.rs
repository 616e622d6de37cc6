//! Three backends of which one can have something wrong with it, and the proxy before them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::control::Control;
use crate::harness::{
    Backend, BackendProcess, Fault, Proxy, Room, Server, Step, Units, backend, is_in_own_network,
    may_drop_packets, proxy, run_in_own_network,
};

/// What is wrong with one of three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// `kill -9`; at the end it is started again.
    Killed,
    /// SIGSTOP; at the end SIGCONT.
    Stopped,
    /// `kill -9` every two seconds, and started again half a second later.
    Restarted,
    /// The kernel drops all packets to it.
    Unreachable,
    /// It answers like this.
    Has(Fault),
}

/// How long a restart takes, and how long it is to the next.
const DOWN: Duration = Duration::from_millis(500);
const UP: Duration = Duration::from_millis(1500);

/// The backend that something is wrong with.
pub const SICK: &str = "sick";

/// Longest wait for an answer's header beside the work itself, and for a connection.
pub const HEADER_WITHIN: Duration = Duration::from_secs(1);
pub const CONNECTED_WITHIN: Duration = Duration::from_millis(300);

enum Sick {
    Inside(Backend),
    Process(BackendProcess),
}

/// A backend of any kind.
enum Member<'a> {
    Inside(&'a Backend),
    Process(&'a BackendProcess),
}

impl Server for Member<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Inside(backend) => backend.name(),
            Self::Process(process) => process.name(),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Inside(backend) => backend.address(),
            Self::Process(process) => process.address(),
        }
    }
}

pub struct Scene {
    sick: Sick,
    well: [Backend; 2],
    pub control: Control,
    /// How often the sick one was killed.
    pub kills: usize,
    // Last: it holds the room.
    pub lb: Proxy,
}

/// What the backends have seen of the requests, by id.
pub struct Seen {
    /// How often each was done.
    pub done: HashMap<String, usize>,
    /// How often each was begun by the sick one.
    pub begun_by_sick: HashMap<String, usize>,
    /// How often each was begun by another.
    pub begun_by_well: HashMap<String, usize>,
}

impl Scene {
    /// With so many slots for each backend, and requests that take this long.
    pub async fn of(trouble: Trouble, slots: u32, work: Duration) -> Self {
        let sick = match trouble {
            Trouble::Killed | Trouble::Stopped | Trouble::Restarted => {
                Sick::Process(BackendProcess::start(SICK, work).await)
            }
            Trouble::Unreachable | Trouble::Has(_) => {
                Sick::Inside(backend(SICK).takes(work).start().await)
            }
        };
        let well = [
            backend("well").takes(work).start().await,
            backend("fine").takes(work).start().await,
        ];
        let control = Control::of(work).await;
        let first = match &sick {
            Sick::Inside(backend) => Member::Inside(backend),
            Sick::Process(process) => Member::Process(process),
        };
        let members = [first, Member::Inside(&well[0]), Member::Inside(&well[1])];
        let on = json!([
            "connect_failure",
            "reset_before_response",
            "stale_connection",
            "invalid_response",
            "timeout"
        ]);
        let rest = json!({ "base_ejection": "1s", "max_ejection": "2s" });
        let mut builder = proxy()
            .upstream("web", &members)
            .upstream("control", [&control.backend])
            .key("maitred.upstreams.web.retry", json!({ "on": on }))
            .key("maitred.upstreams.web.outlier_detection", rest)
            .connect_timeout(CONNECTED_WITHIN)
            .response_header_timeout(work + HEADER_WITHIN);
        for member in &members {
            builder = builder.backend_key(member.name(), "max_in_flight", slots);
        }
        let lb = builder.alone().start().await;
        Self {
            sick,
            well,
            control,
            kills: 0,
            lb,
        }
    }

    /// Something is wrong for this long.
    pub async fn has(&mut self, trouble: Trouble, lasting: Duration) {
        self.begins(trouble).await;
        if trouble == Trouble::Restarted {
            let end = tokio::time::Instant::now() + lasting;
            while tokio::time::Instant::now() + DOWN + UP <= end {
                tokio::time::sleep(DOWN).await;
                self.ends(trouble).await;
                tokio::time::sleep(UP).await;
                self.begins(trouble).await;
            }
            tokio::time::sleep(DOWN).await;
        } else {
            tokio::time::sleep(lasting).await;
        }
        self.ends(trouble).await;
    }

    /// From now on something is wrong.
    pub async fn begins(&mut self, trouble: Trouble) {
        match (trouble, &mut self.sick) {
            (Trouble::Killed | Trouble::Restarted, Sick::Process(process)) => {
                process.kill();
                self.kills += 1;
            }
            (Trouble::Stopped, Sick::Process(process)) => process.freeze(),
            (Trouble::Unreachable, Sick::Inside(backend)) => drop_packets("-A", backend.address()),
            (Trouble::Has(fault), Sick::Inside(backend)) => backend.falls_ill(fault).await,
            _ => unreachable!("the scene is made for its trouble"),
        }
    }

    /// From now on nothing is wrong.
    pub async fn ends(&mut self, trouble: Trouble) {
        match (trouble, &mut self.sick) {
            (Trouble::Stopped, Sick::Process(process)) => process.thaw(),
            (_, Sick::Process(process)) => process.revive().await,
            (Trouble::Unreachable, Sick::Inside(backend)) => drop_packets("-D", backend.address()),
            (_, Sick::Inside(backend)) => backend.recovers(),
        }
    }

    /// Asserts that nobody had more at once than its slots. A process that was killed has taken what it
    /// knew of that with it.
    pub fn assert_no_more_at_once_than(&self, slots: usize) {
        let inside = match &self.sick {
            Sick::Inside(backend) => Some(backend),
            Sick::Process(_) => None,
        };
        for backend in self.well.iter().chain(inside) {
            let overlap = backend.overlap();
            assert!(overlap <= slots, "{} had {overlap} at once", backend.name());
        }
    }

    /// Connections that the sick one has ever accepted, if that is known.
    pub fn connections_of_sick(&self) -> Option<usize> {
        match &self.sick {
            Sick::Inside(backend) => Some(backend.connections()),
            Sick::Process(_) => None,
        }
    }

    pub fn seen(&self) -> Seen {
        let mut seen = Seen {
            done: HashMap::new(),
            begun_by_sick: HashMap::new(),
            begun_by_well: HashMap::new(),
        };
        match &self.sick {
            Sick::Inside(backend) => seen.add(backend, true),
            Sick::Process(process) => {
                for entry in process.journal() {
                    let count = match entry.step {
                        Step::Begun => &mut seen.begun_by_sick,
                        Step::Read => &mut seen.done,
                    };
                    *count.entry(entry.id).or_default() += 1;
                }
            }
        }
        for backend in &self.well {
            seen.add(backend, false);
        }
        seen
    }
}

impl Seen {
    fn add(&mut self, backend: &Backend, is_sick: bool) {
        for request in backend.requests() {
            let begun = match is_sick {
                true => &mut self.begun_by_sick,
                false => &mut self.begun_by_well,
            };
            *begun.entry(request.id().to_owned()).or_default() += 1;
            if request.body_bytes.is_some() {
                *self.done.entry(request.id().to_owned()).or_default() += 1;
            }
        }
    }
}

/// Runs the test of this name, which drops packets, in a network of its own, and passes on what it says.
pub async fn where_packets_are_dropped(name: &str, test: impl Future<Output = ()>) {
    if is_in_own_network() {
        return test.await;
    }
    if !may_drop_packets() {
        return;
    }
    let _room = Room::alone().await;
    let said = run_in_own_network(name, 150.secs()).await;
    let is_told = |line: &&str| line.contains("Unreachable") || line.contains("busy");
    for line in said.lines().filter(is_told) {
        println!("{line}");
    }
}

/// Adds (`-A`) or deletes (`-D`) the rule by which the kernel drops what is sent to this address.
fn drop_packets(change: &str, address: SocketAddr) {
    let port = address.port().to_string();
    let rule = ["INPUT", "-p", "tcp", "--dport", &port, "-j", "DROP"];
    let status = Command::new("iptables").arg(change).args(rule).status();
    assert!(status.unwrap().success(), "iptables {change} {rule:?}");
}
