//! Pings every backend and writes the health file: arguments, configuration, poll until signalled.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::ConfigError;
use crate::lifecycle;
use crate::poller::{self, Reloader};
use anyhow::Result;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What runs longer is a resolver or a disk that hangs.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Pings every backend of the configuration and writes the health file, until it is stopped.
///
/// Follows its configuration: when the file changes, and at once on SIGHUP.
#[derive(Parser)]
#[command(name = "poller", version)]
struct Arguments {
    /// The configuration file.
    #[arg(short, long, default_value = "conf/pingora.yaml")]
    conf: PathBuf,
    /// One ping of each backend: write, print a table and exit. There is no history, so this single
    /// ping decides, whatever `rise` and `fall` say.
    #[arg(long)]
    once: bool,
    /// Log every ping.
    #[arg(short, long)]
    verbose: bool,
}

/// The program: runs until it is told to stop, and says how it ended.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = Arguments::parse_from(arguments);
    lifecycle::log_to_stderr(if arguments.verbose {
        "warn,maitred=debug"
    } else {
        "warn,maitred=info"
    });
    let reloader = match Reloader::open(arguments.conf) {
        Ok(reloader) => reloader,
        Err(error) => return refuse(&error),
    };
    let outcome = match arguments.once {
        true => complete(once(&reloader)),
        false => complete(poll(reloader)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("poller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    eprintln!("{}", error.report("poller"));
    ExitCode::from(ConfigError::EXIT_CODE)
}

/// Runs to the end, and gives a write that is under way the time to end, too.
fn complete(program: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(program);
    runtime.shutdown_timeout(END_WITHIN);
    outcome
}

async fn once(reloader: &Reloader) -> Result<()> {
    print!("{}", poller::once(&reloader.plan()).await?);
    Ok(())
}

async fn poll(reloader: Reloader) -> Result<()> {
    let hangup = signal(SignalKind::hangup())?;
    let stopped = stopped()?;
    let (plan, process) = (reloader.plan(), reloader.process());
    let (sender, plans) = mpsc::channel(1);
    tokio::spawn(reloader.run(hangup, sender));
    poller::run(plan, plans, process, stopped).await?;
    tracing::info!("stopped");
    Ok(())
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
