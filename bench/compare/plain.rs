//! Owns the plain path: small keep-alive requests through every contender, in interleaved rounds, so that
//! whatever else the machine does meets all of them alike.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::contenders::{Contender, Kind, Running, Setting};
use crate::http::{Client, request};
use crate::load;
use crate::ports;
use crate::process::{LOAD_CORE, Program};
use crate::quiet::{self, Moment};
use crate::stats::Spread;

/// How many clients are idle where memory is measured.
pub const IDLE_CLIENTS: usize = 1000;
/// Before the first round, for connections and caches.
const WARM_UP: u64 = 2000;
/// For allocators and collectors to come to rest before memory is read.
const SETTLE: Duration = Duration::from_millis(700);
/// Above this multiple of HAProxy bare Pingora was not built, or the machine did not behave, as it should.
pub const VOID_ABOVE: f64 = 1.7;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub rounds: usize,
    /// Per round and contender.
    pub requests: u64,
    /// How many clients send at once.
    pub connections: usize,
    /// How long to wait, in all, for other programs to be quiet.
    pub patience: Duration,
}

/// What one contender took, a value per round.
#[derive(Clone, Debug)]
pub struct Measured {
    pub contender: Contender,
    /// Microseconds of processor time per request.
    pub cpu: Vec<f64>,
    pub per_second: Vec<f64>,
    /// Microseconds.
    pub p50: Vec<f64>,
    pub p99: Vec<f64>,
    /// What other programs took meanwhile, as a share of a core.
    pub others: Vec<f64>,
    /// Bytes per idle client.
    pub idle: f64,
}

/// Measures all contenders that are given.
pub async fn measure(
    setting: &Setting,
    contenders: &[Contender],
    plan: Plan,
) -> Result<Vec<Measured>> {
    let (backend, ports) = start_backend(setting).await?;
    let mut measured = Vec::new();
    for contender in contenders {
        eprintln!("memory of idle clients: {}", contender.name);
        let idle = memory_per_idle_client(setting, contender, ports).await?;
        measured.push(Measured::nothing_yet(*contender, idle));
    }
    let mut running = Vec::new();
    for contender in contenders {
        let started = contender.start(setting, ports).await?;
        load::run(started.port, "/home", WARM_UP, plan.connections).await?;
        running.push(started);
    }
    let mut patience = plan.patience;
    for round in 1..=plan.rounds {
        quiet::wait(&mut patience).await?;
        eprintln!("plain path: round {round} of {}", plan.rounds);
        for (started, measured) in running.iter().zip(&mut measured) {
            measured.add_round(started, &backend, plan).await?;
        }
    }
    Ok(measured)
}

async fn start_backend(setting: &Setting) -> Result<(Program, [u16; 3])> {
    let ports: [u16; 3] = ports::free(3)?.try_into().ok().context("three ports")?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("backend")
        .args(ports.map(|port| port.to_string()));
    let core = setting.pinned.then_some(LOAD_CORE);
    let backend = Program::start(&command, core, &setting.folder, "backend")?;
    for port in ports {
        load::wait_for_listener(port).await?;
    }
    Ok((backend, ports))
}

impl Measured {
    fn nothing_yet(contender: Contender, idle: f64) -> Self {
        let none = Vec::new;
        Self {
            contender,
            cpu: none(),
            per_second: none(),
            p50: none(),
            p99: none(),
            others: none(),
            idle,
        }
    }

    async fn add_round(&mut self, running: &Running, backend: &Program, plan: Plan) -> Result<()> {
        let requests = plan.requests;
        let start = Moment::now(&[&running.balancer, backend])?;
        let before = running.balancer.cpu_time()?;
        let outcome = load::run(running.port, "/home", requests, plan.connections).await?;
        let used = running.balancer.cpu_time()?.saturating_sub(before);
        ensure!(
            outcome.failed == 0,
            "{}: {} of {requests} requests failed on the plain path",
            self.contender.name,
            outcome.failed
        );
        self.others
            .push(start.others_until(&Moment::now(&[&running.balancer, backend])?));
        self.cpu.push(micros(used) / requests as f64);
        self.per_second.push(outcome.per_second);
        self.p50.push(micros(outcome.p50));
        self.p99.push(micros(outcome.p99));
        Ok(())
    }

    /// Processor time as a multiple of another's, round by round: what disturbs a round disturbs both.
    pub fn cpu_relative_to(&self, other: &Self) -> Option<Spread> {
        let ratios: Vec<f64> = self
            .cpu
            .iter()
            .zip(&other.cpu)
            .map(|(own, base)| own / base)
            .collect();
        Spread::of(&ratios)
    }
}

/// How much more memory it has with many clients that have each made one request and stay connected.
/// In a process of its own: what a busy one has freed and kept would hide them.
async fn memory_per_idle_client(
    setting: &Setting,
    contender: &Contender,
    backends: [u16; 3],
) -> Result<f64> {
    let running = contender.start(setting, backends).await?;
    let request = request("/home");
    let mut clients = vec![Client::connect(running.port).await?];
    clients[0].get(&request).await?;
    tokio::time::sleep(SETTLE).await;
    let before = running.balancer.memory()?;
    for _ in 0..IDLE_CLIENTS {
        let mut client = Client::connect(running.port).await?;
        client.get(&request).await?;
        clients.push(client);
    }
    tokio::time::sleep(SETTLE).await;
    let after = running.balancer.memory()?;
    Ok(after.saturating_sub(before) as f64 / IDLE_CLIENTS as f64)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// What others took of a core while the plain path was measured.
pub fn others(measured: &[Measured]) -> Option<Spread> {
    let all: Vec<f64> = measured
        .iter()
        .flat_map(|each| &each.others)
        .copied()
        .collect();
    Spread::of(&all)
}

/// Why the run says nothing, if it does not.
pub fn void(measured: &[Measured]) -> Option<String> {
    let of = |kind| measured.iter().find(|each| each.contender.kind == kind);
    let ratio = of(Kind::Bare)?.cpu_relative_to(of(Kind::Haproxy)?)?.median;
    (ratio > VOID_ABOVE).then(|| {
        format!(
            "bare Pingora took {ratio:.2} times what HAProxy did, and where it does more than {VOID_ABOVE} \
             times, the machine was disturbed or the build is not what it should be"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contenders::PLAIN;

    fn measured(kind: Kind, cpu: &[f64]) -> Measured {
        let contender = *PLAIN.iter().find(|each| each.kind == kind).unwrap();
        Measured {
            cpu: cpu.into(),
            ..Measured::nothing_yet(contender, 0.0)
        }
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let bare = measured(Kind::Bare, &[15.0, 300.0, 30.0]);
        let haproxy = measured(Kind::Haproxy, &[10.0, 200.0, 10.0]);
        let ratio = bare.cpu_relative_to(&haproxy).unwrap();
        assert!((ratio.median - 1.5).abs() < 1e-9 && (ratio.max - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_run_is_void_when_bare_pingora_is_far_from_haproxy() {
        let haproxy = measured(Kind::Haproxy, &[10.0]);
        let with = |cpu| [measured(Kind::Bare, &[cpu]), haproxy.clone()];
        assert!(void(&with(16.9)).is_none());
        assert!(void(&with(17.1)).unwrap().contains("1.71"));
        assert!(void(std::slice::from_ref(&haproxy)).is_none());
    }
}
