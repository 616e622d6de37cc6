//! Pings every backend and writes the health file: arguments, configuration, poll until signalled.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use maitred::address::Endpoint;
use maitred::config::Config;
use maitred::lifecycle;
use maitred::poller::{self, Plan, Target};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Pings every backend of the configuration and writes the health file, until it is stopped.
#[derive(Parser)]
#[command(name = "poller", version)]
struct Arguments {
    /// The configuration file.
    #[arg(short, long, default_value = "conf/pingora.yaml")]
    conf: PathBuf,
    /// One round: ping, write, print a table and exit.
    #[arg(long)]
    once: bool,
    /// Log every ping.
    #[arg(short, long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    lifecycle::log_to_stderr(if arguments.verbose {
        "warn,maitred=debug"
    } else {
        "warn,maitred=info"
    });
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("poller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(arguments: &Arguments) -> Result<()> {
    let plan = plan(&Config::load(&arguments.conf)?);
    if !arguments.once {
        return Ok(poller::run(&plan, stopped()?).await?);
    }
    let pings = poller::round(&plan).await;
    poller::write(&plan, &pings)
        .await
        .with_context(|| format!("writing {}", plan.file.display()))?;
    print!("{}", poller::table(&pings));
    Ok(())
}

fn plan(config: &Config) -> Plan {
    let backends = config
        .upstreams
        .iter()
        .flat_map(|upstream| &upstream.backends);
    Plan {
        file: config.health.file.clone(),
        path: config
            .poller
            .probes
            .values()
            .next()
            .map_or_else(|| "/ping".into(), |probe| probe.path.clone()),
        interval: config.poller.interval,
        timeout: config.poller.timeout,
        targets: backends
            .filter_map(|backend| match backend.address.endpoint() {
                Some(Endpoint::Ip(address)) => Some(Target {
                    name: backend.name.clone(),
                    address,
                }),
                _ => None,
            })
            .collect(),
    }
}

/// Ends with the first Ctrl-C or SIGTERM.
fn stopped() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
