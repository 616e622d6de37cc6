//! Owns the order of a whole run: who is there, the parts one after the other, the two files at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::cases;
use crate::contenders::{CASES, Contender, Kind, PLAIN, Setting};
use crate::machine;
use crate::plain::{self, Plan};
use crate::process::{Program, pin_self};
use crate::report::Findings;

/// What a script may take to count instructions.
const COUNTING_LIMIT: Duration = Duration::from_secs(300);

/// A void run, for scripts.
const VOID: u8 = 3;

#[derive(clap::Args)]
pub struct Arguments {
    /// A first look in a few minutes: fewer and shorter rounds, shorter cases.
    #[arg(long)]
    quick: bool,
    /// How many rounds of the plain path.
    #[arg(long)]
    rounds: Option<usize>,
    /// Over how many connections the plain path is measured.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Only these parts.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// Where the report goes: `bench`, or `target/bench` if it is a quick one or not a whole one.
    #[arg(long)]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Plain,
    Instructions,
    Cases,
}

impl Arguments {
    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn plan(&self) -> Plan {
        let (rounds, requests, patience) = if self.quick {
            (7, 5_000, 10)
        } else {
            (21, 10_000, 60)
        };
        Plan {
            rounds: self.rounds.unwrap_or(rounds),
            requests,
            connections: self.connections,
            patience: Duration::from_secs(patience),
        }
    }

    /// What is in the repository is a whole run.
    fn output(&self) -> PathBuf {
        let whole = !self.quick && self.only.is_empty();
        let folder = if whole { "bench" } else { "target/bench" };
        self.output.clone().unwrap_or_else(|| folder.into())
    }
}

/// Runs until it is done or told to stop; either way everything that it started ends.
pub async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = compare(arguments) => done,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("told to stop"),
    }
}

async fn compare(arguments: &Arguments) -> Result<ExitCode> {
    // Before anything is started, for threads and children inherit the core.
    let pinned = pin_self();
    let temporary = tempfile::tempdir()?;
    let setting = Rc::new(Setting {
        built: built()?,
        folder: temporary.path().to_owned(),
        pinned,
    });
    let findings = find_out(arguments, &setting).await?;
    let output = arguments.output();
    fs::create_dir_all(&output)?;
    write(&output.join("results.md"), &findings.markdown())?;
    if let Some(chart) = findings.chart() {
        write(&output.join("results.svg"), &chart)?;
    }
    match plain::void(&findings.plain) {
        Some(why) => {
            eprintln!("compare: this run is void: {why}");
            Ok(ExitCode::from(VOID))
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

async fn find_out(arguments: &Arguments, setting: &Rc<Setting>) -> Result<Findings> {
    let Presence { versions, missing } = look_around(setting)?;
    let there = |all: &[Contender]| -> Vec<Contender> {
        all.iter()
            .copied()
            .filter(|each| each.kind.program(setting).is_some())
            .collect()
    };
    let (plan, contenders) = (arguments.plan(), there(&CASES));
    let plain = match arguments.has(Part::Plain) {
        true => plain::measure(setting, &there(&PLAIN), plan).await?,
        false => Vec::new(),
    };
    let instructions = match arguments.has(Part::Instructions) {
        true => Some(count_instructions(setting).await?),
        false => None,
    };
    let cases = match arguments.has(Part::Cases) {
        true => cases::run(setting, &contenders, arguments.quick).await?,
        false => Vec::new(),
    };
    Ok(Findings {
        date: machine::today(),
        machine: machine::describe(),
        quick: arguments.quick,
        pinned: setting.pinned,
        versions,
        missing,
        plan,
        plain,
        cases,
        contenders,
        instructions,
    })
}

/// Who is there, with versions, and who is not, with what helps.
struct Presence {
    versions: Vec<(String, String)>,
    missing: Vec<String>,
}

/// Without our own build there is nothing to compare; everybody else may be missing.
fn look_around(setting: &Setting) -> Result<Presence> {
    let kinds = [
        ("maitred", Kind::Maitred),
        ("Pingora", Kind::Bare),
        ("nginx", Kind::Nginx),
        ("HAProxy", Kind::Haproxy),
        ("Caddy", Kind::Caddy),
    ];
    let mut presence = Presence {
        versions: Vec::new(),
        missing: Vec::new(),
    };
    for (name, kind) in kinds {
        let Some(program) = kind.program(setting) else {
            if matches!(kind, Kind::Maitred | Kind::Bare) {
                bail!("{name} is not built: {}", kind.remedy());
            }
            let missing = format!("{name}, which is not installed (`{}`)", kind.remedy());
            eprintln!("not compared: {missing}");
            presence.missing.push(missing);
            continue;
        };
        let version = kind
            .version(&program)
            .unwrap_or_else(|| "of unknown version".into());
        presence.versions.push((name.to_owned(), version));
    }
    Ok(presence)
}

/// By the script that also stands alone. What it says is the table, or why there is none.
async fn count_instructions(setting: &Setting) -> Result<String> {
    eprintln!("instructions: under callgrind");
    let mut command = Command::new("bench/instructions.sh");
    // Its files end with ours, and so do its programs, which are in its group.
    command.env("TMPDIR", &setting.folder);
    let mut script = Program::start(&command, None, &setting.folder, "instructions")?;
    let ended = async {
        while !script.has_ended() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(COUNTING_LIMIT, ended)
        .await
        .context("instructions.sh does not end")?;
    script.said()
}

/// Where this program was built, and the others with it: two folders up, `examples` is between.
fn built() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    own.ancestors()
        .nth(2)
        .map(Path::to_owned)
        .context("this program is not where cargo puts it")
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| file.display().to_string())?;
    eprintln!("wrote {}", file.display());
    Ok(())
}
