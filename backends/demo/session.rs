//! One run of the demo: everything started, commands obeyed, what happens shown, everything ended.
//!
//! All that a person, a signal or the clock can want comes as a [`Command`] through one channel, so that a run
//! has one way to end. The main thread runs the session, because the parts must be started by it (`children`).

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::arguments::{Arguments, Script};
use crate::children::{Condition, Parts};
use crate::commands::Command;
use crate::drain;
use crate::folder::Folder;
use crate::lines::{self, Lines};
use crate::load::{self, Answered, Load};
use crate::model::Model;
use crate::ports::{Ports, SERVERS};
use crate::screen::{self, Screen};
use crate::status::{self, Status};
use crate::svg;
use crate::view::DRAINED;

/// Between two pictures.
const FRAME: Duration = Duration::from_millis(100);
/// Commands that were not obeyed yet.
const COMMANDS_MAX: usize = 16;
/// How long the end may take after a signal: a terminal or a pipe that nobody reads would hold it up for ever.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Where it is shown.
enum Stage {
    Screen(Screen),
    Lines(Lines),
}

/// What comes in while the demo runs.
struct Inbox {
    commands: mpsc::Receiver<Command>,
    answers: mpsc::Receiver<Answered>,
    statuses: watch::Receiver<Option<Status>>,
}

struct Session {
    begun: Instant,
    model: Model,
    stage: Stage,
    load: Load,
    // Dropped in this order: the parts before their folder.
    parts: Parts,
    folder: Folder,
}

/// Runs the demo until it is told to end. In a terminal that is a success; elsewhere only if every request was
/// answered 200.
///
/// # Errors
/// When it cannot start, or a part without which there is no demo ends.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let ports = Ports::from_base(arguments.base_port);
    ports.check()?;
    // One thread besides the main thread, so that signals are heard while a picture is being written.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(run_on(arguments, ports));
    runtime.shutdown_background();
    outcome
}

async fn run_on(arguments: Arguments, ports: Ports) -> Result<ExitCode> {
    let (sender, mut commands) = mpsc::channel(COMMANDS_MAX);
    quit_on_signal(sender.clone())?;
    let folder = Folder::create()?;
    let mut parts = Parts::start(ports, &folder)?;
    tokio::select! {
        ready = parts.ready() => ready.context("the demo could not start")?,
        _ = commands.recv() => return Ok(ExitCode::SUCCESS),
    }
    let (load, answers) = Load::start(Ports::address(ports.proxy));
    let (publish, statuses) = watch::channel(None);
    tokio::spawn(status::watch(Ports::address(ports.admin), publish));
    tokio::spawn(press(arguments.script, arguments.duration, sender.clone()));
    let stage = if !arguments.plain && screen::is_there() {
        let screen = Screen::open().context("cannot use the terminal")?;
        screen::read_keys(sender)?;
        Stage::Screen(screen)
    } else {
        Stage::Lines(Lines::default())
    };
    let mut session = Session {
        begun: Instant::now(),
        model: Model::new(ports, folder.health_file()),
        stage,
        load,
        parts,
        folder,
    };
    session.begin(arguments.clients);
    let inbox = Inbox {
        commands,
        answers,
        statuses,
    };
    session.go_on(inbox).await?;
    if let Some(file) = &arguments.svg {
        fs::write(file, svg::picture(&session.model, session.now()))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(session.end())
}

/// Ctrl-C, SIGTERM, a terminal that is closed.
fn quit_on_signal(commands: mpsc::Sender<Command>) -> Result<()> {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ];
    for kind in kinds {
        let mut signal = signal(kind).context("cannot listen for signals")?;
        let commands = commands.clone();
        tokio::spawn(async move {
            if signal.recv().await.is_some() {
                // A full or closed channel is one whose session ends late, or already.
                let _ = commands.try_send(Command::Quit);
                sleep(END_WITHIN).await;
                screen::give_back_mode();
                std::process::exit(1);
            }
        });
    }
    Ok(())
}

/// Presses the script's keys, one a second, and quits when the time is up.
async fn press(script: Script, duration: Option<Duration>, commands: mpsc::Sender<Command>) {
    let pressing = async {
        for command in script.0 {
            sleep(Duration::from_secs(1)).await;
            if let Some(command) = command {
                let _ = commands.send(command).await;
            }
        }
    };
    let ending = async {
        if let Some(duration) = duration {
            sleep(duration).await;
            let _ = commands.send(Command::Quit).await;
        }
    };
    tokio::join!(pressing, ending);
}

impl Session {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn note(&mut self, what: impl Into<String>) {
        let now = self.now();
        self.model.note(now, what);
    }

    fn begin(&mut self, clients: usize) {
        self.note("three servers, the poller and the proxy are up");
        self.want(clients);
    }

    fn want(&mut self, clients: usize) {
        if clients != self.model.clients {
            self.model.clients = clients;
            self.load.want(clients);
        }
    }

    /// Until told to quit, or until nobody reads what is printed.
    async fn go_on(&mut self, mut inbox: Inbox) -> Result<()> {
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = inbox.commands.recv() => match command {
                    Some(Command::Quit) | None => return Ok(()),
                    Some(command) => self.obey(command)?,
                },
                Some(answered) = inbox.answers.recv() => {
                    let now = self.now();
                    self.model.count(now, answered);
                }
                Ok(()) = inbox.statuses.changed() => {
                    let status = inbox.statuses.borrow_and_update().clone();
                    let now = self.now();
                    self.model.observe(now, status);
                }
                _ = frames.tick() => match self.show() {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                    shown => {
                        shown.context("cannot show anything")?;
                        self.look_after_parts()?;
                    }
                },
            }
        }
    }

    fn show(&mut self) -> io::Result<()> {
        let now = self.now();
        match &mut self.stage {
            Stage::Screen(screen) => screen.draw(&self.model, now),
            Stage::Lines(lines) => lines.show(&self.model, now, &mut io::stdout().lock()),
        }
    }

    fn obey(&mut self, command: Command) -> Result<()> {
        match command {
            Command::KillOrRevive(index) => self.kill_or_revive(index)?,
            Command::HangOrGoOn => self.hang_or_go_on(),
            Command::PauseOrContinuePoller => self.pause_or_continue_poller()?,
            Command::DrainOrReady => self.drain_or_ready(),
            Command::MoreClients => self.want(load::more(self.model.clients)),
            Command::FewerClients => self.want(load::fewer(self.model.clients)),
            Command::Quit => {}
        }
        self.take_conditions();
        Ok(())
    }

    fn kill_or_revive(&mut self, index: usize) -> Result<()> {
        let server = &mut self.parts.servers[index];
        let name = SERVERS[index];
        if server.condition() == Condition::Ended {
            server.revive()?;
            self.note(format!("{name} started again"));
        } else {
            server.kill();
            self.note(format!("{name} killed (kill -9)"));
        }
        Ok(())
    }

    fn hang_or_go_on(&mut self) {
        let Some(index) = self.model.hangs_or_would() else {
            return;
        };
        let server = &mut self.parts.servers[index];
        let name = SERVERS[index];
        if server.condition() == Condition::Hangs {
            server.go_on();
            self.note(format!("{name} goes on (SIGCONT)"));
        } else {
            server.stop();
            self.note(format!("{name} hangs (SIGSTOP)"));
        }
    }

    fn pause_or_continue_poller(&mut self) -> Result<()> {
        let poller = &mut self.parts.poller;
        let what = match poller.condition() {
            Condition::Runs(_) => {
                poller.stop();
                "poller paused (SIGSTOP)"
            }
            Condition::Hangs => {
                poller.go_on();
                "poller goes on (SIGCONT)"
            }
            Condition::Ended => {
                poller.revive()?;
                "poller started again"
            }
        };
        self.note(what);
        Ok(())
    }

    fn drain_or_ready(&mut self) {
        let name = SERVERS[DRAINED];
        let what = match drain::toggle(&self.folder.health_file(), name) {
            Ok(true) => format!("health file: {name} shall drain"),
            Ok(false) => format!("health file: {name} may serve again"),
            // The file is anyone's to break.
            Err(error) => format!("{name} cannot be drained: {error:#}"),
        };
        self.note(what);
    }

    /// Parts may end without us: a person's `kill`, or the system short of memory.
    fn look_after_parts(&mut self) -> Result<()> {
        self.parts.proxy.must_run()?;
        for (index, name) in SERVERS.iter().enumerate() {
            if let Some(status) = self.parts.servers[index].noticed_end() {
                self.note(format!("{name} has ended: {status}"));
            }
        }
        if let Some(status) = self.parts.poller.noticed_end() {
            self.note(format!("the poller has ended: {status}"));
        }
        self.take_conditions();
        Ok(())
    }

    fn take_conditions(&mut self) {
        self.model.servers = [0, 1, 2].map(|index| self.parts.servers[index].condition());
        self.model.poller = self.parts.poller.condition();
    }

    /// Gives the terminal back, ends all parts and says what was.
    fn end(self) -> ExitCode {
        let is_screen = matches!(self.stage, Stage::Screen(_));
        drop(self.stage);
        drop((self.parts, self.folder));
        // Nobody may be there to read it.
        let _ = writeln!(io::stdout(), "{}", lines::end(&self.model));
        let tally = self.model.tally;
        if is_screen || tally.served == tally.requests() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
