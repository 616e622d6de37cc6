//! Real servers from PyPI that serve one request at a time: gunicorn with one sync worker, and
//! Flask's own. What they serve, and what they log of it, is in `wsgi_app.py`.
//!
//! They need a Python that has both: `MAITRED_PYTHON` names it, and `tests/all.sh` sets it up.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::client::get;
use super::duration::Units;
use super::patience::until;
use super::ports::free_port;
use super::program::Program;
use super::proxy::Server;

/// Longest start of a Python on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Which server.
#[derive(Clone, Copy, Debug)]
pub enum Wsgi {
    /// `gunicorn -w 1 -k sync`: a master and one worker.
    Gunicorn,
    /// `app.run(threaded=False)`.
    Flask,
}

/// A server of this kind, in a folder and on a port of its own. Killed when dropped.
pub struct WsgiServer {
    kind: Wsgi,
    name: String,
    address: SocketAddr,
    // Dropped before the folder.
    program: Option<Program>,
    folder: TempDir,
}

/// One request that a server has served, from its log.
#[derive(Clone, Debug)]
pub struct Served {
    pub id: String,
    /// Of the system's monotonic clock.
    pub begun: Duration,
    pub ended: Duration,
    /// Connections that the server had not accepted when this request's work ended.
    pub waiting: usize,
}

impl WsgiServer {
    /// A server of which each request takes this long. It does not run yet.
    pub fn new(kind: Wsgi, name: &str, work: Duration) -> Self {
        let server = Self {
            kind,
            name: name.to_owned(),
            address: (Ipv4Addr::LOCALHOST, free_port()).into(),
            program: None,
            folder: TempDir::new().expect("the system has a temporary folder"),
        };
        let settings = json!({
            "name": name, "port": server.address.port(), "work_milliseconds": work.as_millis() as u64
        });
        server.write("settings.json", &settings.to_string());
        server.write("app.py", include_str!("wsgi_app.py"));
        server.write("served.log", "");
        server
    }

    /// Starts it; [`WsgiServer::is_up`] waits until it serves.
    pub fn start(&mut self, python: &str) {
        let address = self.address.to_string();
        let arguments = match self.kind {
            Wsgi::Gunicorn => {
                let mut arguments = vec!["-m", "gunicorn", "-w", "1", "-k", "sync", "-b", &address];
                // Its control socket would be one file in the home folder for all of them.
                arguments.extend(["--no-control-socket", "app:app"]);
                arguments
            }
            Wsgi::Flask => vec!["app.py"],
        };
        self.program = Some(Program::start(
            &self.name,
            python,
            &arguments,
            self.folder.path(),
        ));
    }

    /// Waits until it answers a ping.
    pub async fn is_up(&mut self) {
        until("a Python server answers", READY_WITHIN, async || {
            if let Some(status) = self.program().exit() {
                panic!("{} ended: {status}", self.name);
            }
            let ping = tokio::time::timeout(2.secs(), get("/ping").send_to(self.address)).await;
            matches!(ping, Ok(Ok(answer)) if answer.status == 200)
        })
        .await;
    }

    /// The process; gunicorn's worker is its child.
    ///
    /// # Panics
    /// When it was not started, or was killed.
    pub fn program(&mut self) -> &mut Program {
        self.program.as_mut().expect("it was started")
    }

    /// `kill -9` of the master and its worker.
    pub fn kill(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.kill_family();
        }
    }

    /// The requests that it has served, in the order in which they ended.
    pub fn served(&self) -> Vec<Served> {
        self.log().lines().filter_map(served).collect()
    }

    /// Whether a request of this id has come to it, served or not.
    pub fn has_begun(&self, id: &str) -> bool {
        let begun = format!("begun {id}");
        self.log().lines().any(|line| line == begun)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("served.log")).expect("it was written at first")
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).expect("the folder can be written");
    }
}

/// What an `ended` line says.
fn served(line: &str) -> Option<Served> {
    let fields: Vec<_> = line.strip_prefix("ended ")?.splitn(4, ' ').collect();
    let [begun, ended, waiting, id] = fields[..] else {
        panic!("{line:?} has four fields");
    };
    let time = |field: &str| Duration::from_nanos(field.parse().expect("a time is a number"));
    Some(Served {
        id: id.to_owned(),
        begun: time(begun),
        ended: time(ended),
        waiting: waiting.parse().expect("a count is a number"),
    })
}

impl Server for WsgiServer {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for WsgiServer {
    fn drop(&mut self) {
        self.kill();
    }
}
