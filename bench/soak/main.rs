//! The soak: the real proxy before backends with every kind of fault at once, and clients of every kind, for as long
//! as one likes. Nothing of what an idempotent request may ask for is lost, nothing is done twice or in two at once
//! where that may not be, and what the proxy holds does not grow. This file owns the arguments and the course; every
//! module below says what it owns. Nothing here comes from the crate `maitred`.

mod backend;
mod clients;
mod farm;
mod fault;
mod gate;
mod http;
mod leash;
mod ledger;
mod message;
mod mischief;
mod misbehaviour;
mod ports;
mod proxy;
mod report;
mod request;
mod rest;
mod tally;
mod trend;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum as _};
use fastrand::Rng;
use tokio::task::LocalSet;
use tokio::time::sleep;

use clients::Clients;
use farm::Farm;
use fault::Fault;
use gate::Gate;
use mischief::{HealthFile, Mischief};
use ports::Ports;
use proxy::Proxy;
use rest::Rest;

/// Rounds of load are about this long; between them the load rests.
const ROUND: Duration = Duration::from_secs(60);
/// Fewer would show no trend, more would be mostly rests.
const ROUNDS_MIN: u32 = 4;
const ROUNDS_MAX: u32 = 20;

/// Soaks the proxy. Exit status 1 if something is not as it should be.
#[derive(Parser)]
#[command(name = "soak", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    soak: Soak,
}

#[derive(Subcommand)]
enum Command {
    /// Is a backend, until its standard input ends.
    #[command(hide = true)]
    Backend(backend::Arguments),
    /// Becomes a program that ends with this one.
    #[command(hide = true)]
    Tied(leash::Arguments),
}

#[derive(clap::Args)]
struct Soak {
    /// How long there is load, rests not included.
    #[arg(long, default_value_t = 1200, value_parser = clap::value_parser!(u64).range(4..=86_400))]
    seconds: u64,
    /// Decides faults and requests; a run that failed says which it had.
    #[arg(long)]
    seed: Option<u64>,
    /// The program. Without: the one that was built beside this one.
    #[arg(long)]
    proxy: Option<PathBuf>,
    /// How many clients send all the time; a fifth of that come rarely.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(20..=2_000))]
    clients: u64,
    /// After what the proxy sends a request again.
    #[arg(
        long,
        value_name = "LIST",
        default_value = "[connect_failure, reset_before_response, stale_connection, 502, 503, 504, timeout, invalid_response]"
    )]
    retry_on: String,
    /// Only these faults.
    #[arg(long, value_name = "FAULTS", value_delimiter = ',')]
    only: Vec<Fault>,
    /// All but these faults.
    #[arg(long, value_name = "FAULTS", value_delimiter = ',')]
    without: Vec<Fault>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Everything is on one thread: clients share a core, so that the proxy has the other.
fn run(arguments: &Arguments) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        match &arguments.command {
            None => arguments.soak.run().await,
            Some(Command::Backend(arguments)) => backend::serve(arguments).await,
            Some(Command::Tied(arguments)) => leash::become_program(arguments),
        }
    })
}

impl Soak {
    async fn run(&self) -> Result<ExitCode> {
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
        let folder = tempfile::Builder::new().prefix("soak-").tempdir()?;
        eprintln!("soak: seed {seed}, in {}", folder.path().display());
        let outcome = self.run_in(folder.path(), seed).await;
        if !matches!(outcome, Ok(true)) {
            println!("what there is to look at: {}", folder.keep().display());
        }
        outcome.map(|is_right| match is_right {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    /// Says whether all was as it should be.
    async fn run_in(&self, folder: &Path, seed: u64) -> Result<bool> {
        let mut rng = Rng::with_seed(seed);
        let mut ports = Ports::new()?;
        let farm = Rc::new(Farm::start(folder, &mut ports, seed).await?);
        fs::create_dir(folder.join("health"))?;
        let file = HealthFile::new(&folder.join("health/status.json"), &farm)?;
        let program = self.program()?;
        let proxy = Proxy::start(&program, folder, &mut ports, &farm, &self.retry_on).await?;
        let mut course = Course {
            proxy,
            mischief: Mischief::new(&mut rng, &self.kinds()?),
            gate: Gate::new(),
            farm,
            file,
            begun: Instant::now(),
            rests: Vec::new(),
            failures: Vec::new(),
        };
        let mut clients = Clients::start(
            self.clients.try_into()?,
            &course.proxy,
            &course.gate,
            &course.farm,
            &mut rng,
        );
        course.run(self.seconds, &mut clients).await?;
        course.gate.end();
        clients.finish().await;
        report::print(&course, &clients, seed)?;
        Ok(course.failures.is_empty())
    }

    fn program(&self) -> Result<PathBuf> {
        if let Some(program) = &self.proxy {
            return Ok(program.clone());
        }
        // This is `target/PROFILE/examples/soak`.
        let own = std::env::current_exe()?;
        let folder = own.ancestors().nth(2).context("this program is nowhere")?;
        Ok(folder.join("proxy"))
    }

    fn kinds(&self) -> Result<Vec<Fault>> {
        let is_wanted = |fault: &&Fault| {
            (self.only.is_empty() || self.only.contains(fault)) && !self.without.contains(fault)
        };
        let kinds: Vec<Fault> = Fault::value_variants()
            .iter()
            .filter(is_wanted)
            .copied()
            .collect();
        ensure!(!kinds.is_empty(), "no fault is left");
        Ok(kinds)
    }
}

/// A soak under way.
struct Course {
    proxy: Proxy,
    mischief: Mischief,
    gate: Gate,
    farm: Rc<Farm>,
    file: HealthFile,
    begun: Instant,
    rests: Vec<Rest>,
    failures: Vec<String>,
}

impl Course {
    /// Rounds of load and rests, until the time is over or something is wrong.
    async fn run(&mut self, seconds: u64, clients: &mut Clients) -> Result<()> {
        let load = Duration::from_secs(seconds);
        let rounds = load.as_secs().div_ceil(ROUND.as_secs());
        let rounds = u32::try_from(rounds)?.clamp(ROUNDS_MIN, ROUNDS_MAX);
        for round in 1..=rounds {
            self.round(load / rounds).await?;
            let rest = rest::rest(&self.proxy, clients, &self.gate, &mut self.failures).await?;
            self.rests.push(rest);
            self.look(clients)?;
            eprintln!(
                "soak: round {round} of {rounds} over, at {:.0} s, all answered after {:.1?}, free after {:.1?}, {:?}",
                self.begun.elapsed().as_secs_f64(),
                rest.answered_after,
                rest.free_after,
                rest.holdings,
            );
            if !self.failures.is_empty() {
                break;
            }
        }
        self.failures.extend(rest::growth(&self.rests));
        Ok(())
    }

    async fn round(&mut self, length: Duration) -> Result<()> {
        self.gate.open();
        let end = async {
            sleep(length).await;
            self.gate.close();
            Ok(())
        };
        let mischief = self.mischief.make(&self.farm, &self.gate, &self.file);
        tokio::try_join!(mischief, end)?;
        Ok(())
    }

    /// What has happened so far that may not.
    fn look(&mut self, clients: &Clients) -> Result<()> {
        if self.proxy.has_ended() {
            self.failures.push("the proxy has ended".into());
        }
        let tally = clients.tally();
        self.failures.extend(tally.failures.iter().cloned());
        if tally.failed > 0 {
            self.failures
                .push(format!("{} failed in all", tally.failed));
        }
        self.failures.extend(self.proxy.alarms()?);
        let records = self.farm.records()?;
        self.failures.extend(rest::misdeeds(&records, &tally.posts));
        Ok(())
    }
}
