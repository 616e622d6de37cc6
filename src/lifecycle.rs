//! Logging, signals, and how the process ends: as soon as the last request has, and not before, but after the
//! grace at the latest.
//!
//! Pingora sleeps through the whole grace even when idle, then kills what still runs, and nobody
//! listens for a second Ctrl-C meanwhile. So Pingora is only told to close the listeners (through
//! [`Lifecycle::signal_watch`]), and this task ends the process itself.

mod parent;

use std::future::poll_fn;
use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::access_log::AccessLog;
use crate::control::{Current, Phase, PhaseSwitch, PhaseWatch};
use crate::door::Connections;
use crate::events::{Event, Events};

pub use parent::Parent;

/// For a connection that was accepted while the listener closed and is not counted yet.
const STRAGGLERS: Duration = Duration::from_millis(50);

/// The part of the grace that is kept for the last answers, once those who still waited were refused.
const LAST_WORDS: f64 = 0.1;

/// Between two tries to connect to our own listeners.
const LISTENING_STEP: Duration = Duration::from_millis(2);

/// As a shell reports a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Ends the process.
pub struct Lifecycle {
    phase: PhaseSwitch,
    current: Current,
    connections: Connections,
    access_log: AccessLog,
    grace: Duration,
    events: Events,
}

impl Lifecycle {
    /// A process that runs, and may take `grace` to stop.
    pub fn new(
        current: Current,
        connections: Connections,
        access_log: AccessLog,
        phase: PhaseSwitch,
        grace: Duration,
        events: Events,
    ) -> Self {
        Self {
            phase,
            current,
            connections,
            access_log,
            grace,
            events,
        }
    }

    /// What tells Pingora to close the listeners.
    pub fn signal_watch(&self) -> Box<dyn ShutdownSignalWatch> {
        Box::new(SignalWatch(self.phase.watch()))
    }

    /// Tells when every one of `listeners` takes connections, waits for a signal and ends the process.
    pub async fn run(self, listeners: Vec<SocketAddr>) {
        let signals = Signals::listen();
        // Not earlier: who hears of it may send one.
        let (phase, events) = (self.phase.clone(), self.events.clone());
        tokio::spawn(announce_listening(phase, listeners, events));
        let mut signals = match signals {
            Ok(signals) => signals,
            Err(error) => return warn!(%error, "no signals: this process can only be killed"),
        };
        signals.next().await;
        self.phase.advance(Phase::Stopping);
        self.events.publish(Event::Stopping {
            connections: self.connections.count(),
            grace_seconds: self.grace.as_secs(),
        });
        tokio::select! {
            () = self.drain() => {}
            () = signals.next() => {
                warn!("stopped at once by a second signal");
                self.exit(INTERRUPTED);
            }
        }
        info!("stopped");
        self.exit(0);
    }

    async fn drain(&self) {
        let last_words = self.grace.mul_f64(LAST_WORDS);
        let first_part = self.grace - last_words;
        if timeout(first_part, self.all_ended()).await.is_ok() {
            return;
        }
        self.events.publish(Event::GraceOver {
            connections: self.connections.count(),
        });
        for upstream in self.current.load_full().upstreams.values() {
            upstream.close();
        }
        let _ = timeout(last_words, self.all_ended()).await;
    }

    async fn all_ended(&self) {
        loop {
            self.connections.all_closed().await;
            sleep(STRAGGLERS).await;
            if self.connections.count() == 0 {
                return;
            }
        }
    }

    fn exit(&self, code: i32) -> ! {
        self.access_log.flush();
        process::exit(code)
    }
}

/// Logs to standard error what passes `default`, or what `RUST_LOG` says instead.
pub fn log_to_stderr(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}

/// Advances to [`Phase::Running`] once every listener takes connections: Pingora does not tell, so
/// each is connected to.
async fn announce_listening(phase: PhaseSwitch, listeners: Vec<SocketAddr>, events: Events) {
    // Who is told that the process is ready may send SIGUSR1 before `reopen_at_signal` listens; tokio never takes
    // back a handler that it was once asked for. Not earlier: Pingora's daemon tells its parent by that signal, and
    // tokio's signals before a fork would reach either of them.
    let survived = signal(SignalKind::user_defined1());
    if let Err(error) = survived {
        warn!(%error, "SIGUSR1 will end this process");
    }
    // Port 0 is the system's choice, which nobody is told.
    for listener in listeners
        .into_iter()
        .filter(|listener| listener.port() != 0)
    {
        let mut address = listener;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        while TcpStream::connect(address).await.is_err() {
            sleep(LISTENING_STEP).await;
        }
        events.publish(Event::Listening {
            address: listener.to_string(),
        });
    }
    phase.advance(Phase::Running);
}

/// Has the access log's file opened anew at each SIGUSR1, after who moves it away has done so. A log that is no file
/// takes no harm of it.
pub async fn reopen_at_signal(access_log: AccessLog) {
    match signal(SignalKind::user_defined1()) {
        Ok(mut signal) => {
            while signal.recv().await.is_some() {
                access_log.reopen().await;
            }
        }
        Err(error) => warn!(%error, "the access log is not opened anew at SIGUSR1"),
    }
}

struct SignalWatch(PhaseWatch);

#[async_trait]
impl ShutdownSignalWatch for SignalWatch {
    async fn recv(&self) -> ShutdownSignal {
        self.0.stopping().await;
        ShutdownSignal::GracefulTerminate
    }
}

/// The signals that mean stop. A hangup does, because nothing is reloaded yet, and dying of it loses what
/// is under way.
const STOPS: [SignalKind; 4] = [
    SignalKind::interrupt(),
    SignalKind::terminate(),
    SignalKind::quit(),
    SignalKind::hangup(),
];

struct Signals(Vec<Signal>);

impl Signals {
    fn listen() -> io::Result<Self> {
        STOPS
            .into_iter()
            .map(signal)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    async fn next(&mut self) {
        poll_fn(|task| {
            let mut signals = self.0.iter_mut();
            match signals.any(|signal| signal.poll_recv(task).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}
