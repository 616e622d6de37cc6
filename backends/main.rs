//! The demo servers: `server1`, `server2` and `server3`, each of which serves one request at a
//! time, as a single-threaded Flask server does. This file owns the command line and the process;
//! what one server answers is in `server.rs`.

mod server;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use server::{Server, Work};

/// Demo servers that serve one request at a time.
///
/// `/` answers `Hello from server2` and names itself in `X-Backend`; `/ping` answers `pong`. A
/// ping waits its turn like any request. Stop them with Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "backends", version)]
struct Arguments {
    /// Which servers to run [default: all].
    #[arg(value_name = "SERVER")]
    servers: Vec<ServerName>,

    /// How long each `/` request takes, for example `50ms`.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    delay: Duration,

    /// Share of `/` requests that are answered 500, from 0 to 1, spread evenly.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    fail_rate: f64,

    /// Port of server1; server2 gets the next one, server3 the one after.
    #[arg(long, value_name = "PORT", default_value_t = 8081, value_parser = clap::value_parser!(u16).range(1..=65533))]
    base_port: u16,
}

/// The servers there are; the order is that of the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum ServerName {
    Server1,
    Server2,
    Server3,
}

impl ServerName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Server1 => "server1",
            Self::Server2 => "server2",
            Self::Server3 => "server3",
        }
    }

    fn address(self, base_port: u16) -> SocketAddr {
        let offset = match self {
            Self::Server1 => 0,
            Self::Server2 => 1,
            Self::Server3 => 2,
        };
        (Ipv4Addr::LOCALHOST, base_port + offset).into()
    }
}

impl Arguments {
    /// The servers asked for, each once, in port order.
    fn chosen(&self) -> Vec<ServerName> {
        if self.servers.is_empty() {
            return ServerName::value_variants().to_vec();
        }
        let mut chosen = self.servers.clone();
        chosen.sort();
        chosen.dedup();
        chosen
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "not in 0..=1".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until Ctrl-C or SIGTERM. Requests in hand are dropped with the runtime.
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // Installed before the ports open: who sees a server listen may signal it.
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    start(&arguments).await?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Binds every port before any server starts, so that a taken port leaves nothing half running.
async fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let work = Work {
        delay: arguments.delay,
        fail_rate: arguments.fail_rate,
    };
    let mut bound = Vec::new();
    for name in arguments.chosen() {
        let address = name.address(arguments.base_port);
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("{} cannot listen on {address}", name.as_str()))?;
        bound.push((name.as_str(), address, listener));
    }
    for (name, address, listener) in bound {
        tokio::spawn(Server::new(name, work).serve(listener));
        writeln!(std::io::stdout(), "{name} listens on http://{address}")
            .context("cannot write to stdout")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from([&["backends"], line].concat())
    }

    #[test]
    fn all_three_run_unless_some_are_named() {
        use ServerName::*;
        assert_eq!(
            arguments(&[]).unwrap().chosen(),
            [Server1, Server2, Server3]
        );
        assert_eq!(
            arguments(&["server3", "server1", "server3"])
                .unwrap()
                .chosen(),
            [Server1, Server3]
        );
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = arguments(&["server9"]).unwrap_err().to_string();
        assert!(error.contains("server1, server2, server3"), "{error}");
    }

    #[test]
    fn a_share_outside_of_0_to_1_is_refused() {
        for share in ["-0.1", "1.01", "NaN", "x"] {
            assert!(arguments(&["--fail-rate", share]).is_err(), "{share}");
        }
    }

    #[test]
    fn ports_follow_the_base() {
        assert_eq!(ServerName::Server3.address(9000).port(), 9002);
    }
}
