//! The side-by-side benchmark: maitred, bare Pingora, nginx, HAProxy and Caddy in front of the same backends.
//! This file owns the arguments; every module below says what it owns. Nothing here comes from the crate
//! `maitred`: the programs are started and measured from outside, all in the same way.

mod backend;
mod cases;
mod chart;
mod clients;
mod comparison;
mod contenders;
mod http;
mod load;
mod machine;
mod plain;
mod ports;
mod process;
mod quiet;
mod report;
mod serial;
mod stats;
mod table;
mod template;
mod verdicts;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::task::LocalSet;

/// Compares load balancers side by side. Without a command: all of it, which takes five to six minutes.
#[derive(Parser)]
#[command(name = "compare", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    comparison: comparison::Arguments,
}

#[derive(Subcommand)]
enum Command {
    /// Serves a small fixed answer on each of these ports, until it is killed.
    Backend {
        #[arg(required = true)]
        ports: Vec<u16>,
    },
    /// Sends requests to a port, reports how fast they were, and fails if an answer was not 200.
    Load(load::Arguments),
    /// Prints this many ports that are free at the moment.
    Ports { count: usize },
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Everything runs on one thread, so that one core is all that load and backends ever take.
fn run(arguments: &Arguments) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        match &arguments.command {
            None => comparison::run(&arguments.comparison).await,
            Some(Command::Backend { ports }) => backend::serve(ports).await,
            Some(Command::Load(arguments)) => load::report(arguments).await,
            Some(Command::Ports { count }) => ports::print(*count),
        }
    })
}
