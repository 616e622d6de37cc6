//! The README, followed to the letter: every command in its `console` blocks is run as it stands there, on the
//! ports that stand there, and what is printed below it is what comes.
//!
//! In a `console` block `$ ` begins a command, the lines below it are what a terminal shows then, and `^C  #
//! PROGRAM` is Ctrl-C in that program's terminal. A `cargo run` in the text is tried, too. What serves until it is
//! stopped (`SERVERS`) has a terminal of its own: it is kept for the commands that follow once it has printed what
//! is shown. `SCREEN` gets a real terminal.
//!
//! So that the ports are free, and nobody else's, the test runs itself again as the first process of a network and
//! a process namespace of its own: when it ends, the kernel ends whatever it has started. It works in a folder with
//! a copy of what the commands need. `cargo run --bin NAME` runs what is built already, and curl is told (by its
//! `.curlrc`) to leave out the progress that it does not show in a terminal; nothing else is changed.
//!
//! What may differ from what is shown: times (see [`blurred`]), what `...` stands for (see [`is_shown`]), and the
//! order in which a server that is kept prints its lines.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{
    Program, PseudoTerminal, Room, is_in_own_network, run_in_own_network, run_to_end, soon, until,
};

/// Commands that are not run, and why.
const LEFT_OUT: [(&str, &str); 1] = [("tests/all.sh", "runs this test, too")];
/// What README's commands find in the working directory.
const NEEDED: [&str; 2] = ["conf/pingora.yaml", "health_status.json"];
/// Programs that serve until they are stopped, unless they are called as in `ENDING`.
const SERVERS: [&str; 3] = ["backends", "poller", "proxy"];
const ENDING: [&str; 2] = [" -t ", " --once"];
/// The program that draws on a terminal, what is seen on it, and the key that ends it.
const SCREEN: &str = "cargo run --bin demo";
const SCREEN_SHOWS: [&str; 4] = ["server1", "server2", "server3", "q quit"];
const SCREEN_QUITS: &str = "q";
/// How a command begins that stands in the text; it succeeds, and what it prints is not shown.
const IN_TEXT: &str = "cargo run ";
/// Longest wait for what is shown, and for the end of a command.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest walk through all of it.
const WHOLE: Duration = Duration::from_secs(240);
/// How long a reader takes to type the next command, at least.
const TYPING: Duration = Duration::from_millis(300);
/// How a command ends that writes the health file, and how long the proxy may take to see that.
const WRITES_HEALTH: &str = "> health_status.json";
const SEES_HEALTH: Duration = Duration::from_secs(1);

/// What a reader does.
#[derive(Debug)]
struct Step {
    /// Where it stands in README.md.
    line: usize,
    act: Act,
}

#[derive(Debug, PartialEq)]
enum Act {
    /// Enters a command and sees this.
    Enter { command: String, shown: Vec<String> },
    /// Tries a command that the text mentions.
    Try { command: String },
    /// Presses Ctrl-C in the terminal of this program.
    Interrupt { program: String },
}

fn readme() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// Every line, numbered from 1, and the kind of block that it stands in: none is the text.
fn lines_of(text: &str) -> Vec<(usize, Option<&str>, &str)> {
    let mut block = None;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        match (block, line.strip_prefix("```")) {
            (None, Some(kind)) => block = Some(kind),
            (Some(_), Some(_)) => block = None,
            (_, None) => lines.push((number, block, line)),
        }
    }
    lines
}

fn steps_of(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (line, block, content) in lines_of(text) {
        match block {
            Some("console") => {
                let shown = match steps.last_mut().map(|step| &mut step.act) {
                    Some(Act::Enter { shown, .. }) => Some(shown),
                    _ => None,
                };
                match act_of(content) {
                    Some(act) => steps.push(Step { line, act }),
                    None => shown
                        .unwrap_or_else(|| panic!("README.md:{line}: whose output is this?"))
                        .push(content.to_owned()),
                }
            }
            Some(_) => {}
            None => {
                let spans = content.split('`').skip(1).step_by(2);
                let commands = spans.filter(|span| span.starts_with(IN_TEXT));
                steps.extend(commands.map(|command| Step {
                    line,
                    act: Act::Try {
                        command: command.to_owned(),
                    },
                }));
            }
        }
    }
    steps
}

/// What a line of a `console` block says to do; none where it is output.
fn act_of(line: &str) -> Option<Act> {
    let interrupt = |program: &str| Act::Interrupt {
        program: program.to_owned(),
    };
    let enter = |command: &str| Act::Enter {
        command: command.to_owned(),
        shown: Vec::new(),
    };
    let command = line.strip_prefix("$ ").map(enter);
    command.or_else(|| line.strip_prefix("^C  # ").map(interrupt))
}

/// The command without a comment at its end.
fn bare(command: &str) -> &str {
    command.split("  #").next().unwrap_or(command).trim_end()
}

fn is_left_out(command: &str) -> bool {
    LEFT_OUT
        .iter()
        .any(|(left_out, _)| bare(command) == *left_out)
}

/// The program that serves until it is stopped, if the command starts one.
fn server_of(command: &str) -> Option<&'static str> {
    let words: Vec<_> = bare(command).split(' ').collect();
    let serves = |server: &&&str| words.starts_with(&["cargo", "run", "--bin", server]);
    let ends = ENDING
        .iter()
        .any(|part| format!("{} ", bare(command)).contains(part));
    SERVERS.iter().find(serves).filter(|_| !ends).copied()
}

/// The line without what differs from run to run: a point in time, the value of a field `total=0.003956`, a number
/// of seconds or milliseconds (and so the length of a text that has some), a request's id, our version.
fn blurred(line: &str) -> String {
    for field in ["Date: ", "Content-Length: "] {
        if line.starts_with(field) {
            return field.to_owned();
        }
    }
    let line = line.replace(concat!("\"", env!("CARGO_PKG_VERSION"), "\""), "\"#\"");
    let words: Vec<_> = line.split(' ').collect();
    let is_number = |word: &str| word.parse::<f64>().is_ok();
    let blurred = words.iter().enumerate().map(|(index, word)| {
        let next = words.get(index + 1).copied().unwrap_or_default();
        let is_time = word.ends_with('Z') && word.contains('T') && word.contains(':');
        let is_id = |word: &str| word.len() == 36 && word.matches('-').count() == 4;
        let is_duration = ["s", "s,", "ms", "ms,"].contains(&next) && is_number(word);
        match word.split_once('=') {
            _ if is_time || is_duration || is_id(word) => "#".to_owned(),
            Some((field, value)) if is_id(value) || value.contains('.') && is_number(value) => {
                format!("{field}=#")
            }
            _ => (*word).to_owned(),
        }
    });
    blurred.collect::<Vec<_>>().join(" ")
}

/// Whether these lines are what is shown. A line `...` stands for any lines, one that ends so for any that begins
/// like it.
fn is_shown(shown: &[String], lines: &[&str]) -> bool {
    let Some((first, rest)) = shown.split_first() else {
        return lines.is_empty();
    };
    if first == "..." {
        return (0..=lines.len()).any(|skipped| is_shown(rest, &lines[skipped..]));
    }
    let Some((line, further)) = lines.split_first() else {
        return false;
    };
    is_line(first, line) && is_shown(rest, further)
}

fn is_line(shown: &str, line: &str) -> bool {
    match shown.strip_suffix("...") {
        Some(beginning) => blurred(line).starts_with(&blurred(beginning)),
        None => blurred(shown) == blurred(line),
    }
}

/// A server that is kept.
struct Kept {
    server: &'static str,
    program: Program,
}

impl Kept {
    /// What its terminal shows.
    fn said(&self) -> String {
        [self.program.output(), self.program.log()].concat()
    }
}

/// Somebody at several terminals, in the folder of the repository.
struct Reader {
    folder: TempDir,
    kept: Vec<Kept>,
    /// What servers had said that were stopped.
    said: String,
}

impl Reader {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for needed in NEEDED {
            let copy = folder.path().join(needed);
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(needed), copy).unwrap();
        }
        fs::write(folder.path().join(".curlrc"), "no-progress-meter\n").unwrap();
        write_cargo(&folder.path().join("cargo"));
        Self {
            folder,
            kept: Vec::new(),
            said: String::new(),
        }
    }

    /// What runs the command as it stands.
    fn words(&self, command: &str) -> Vec<String> {
        let folder = self.folder.path().display();
        let path = std::env::var("PATH").unwrap_or_default();
        let settings = [
            format!("PATH={folder}:{path}"),
            format!("CURL_HOME={folder}"),
        ];
        let words = ["bash", "-o", "pipefail", "-c", command].map(str::to_owned);
        settings.into_iter().chain(words).collect()
    }

    async fn takes(&mut self, step: &Step) {
        tokio::time::sleep(TYPING).await;
        println!("README.md:{}: {:?}", step.line, step.act);
        match &step.act {
            Act::Interrupt { program } => self.interrupts(program).await,
            Act::Try { command } => {
                let (succeeds, text) = self.runs(command).await;
                assert!(succeeds, "{command} prints\n{text}");
            }
            Act::Enter { command, shown } => match server_of(command) {
                _ if is_left_out(command) => {}
                _ if bare(command) == SCREEN => self.looks_at_the_screen(command).await,
                Some(server) => self.starts(server, command, shown).await,
                None => self.sees(command, shown).await,
            },
        }
    }

    async fn looks_at_the_screen(&self, command: &str) {
        let words = self.words(command);
        let words = words.iter().map(String::as_str);
        let words: Vec<_> = ["env"].into_iter().chain(words).collect();
        let mut terminal = PseudoTerminal::start(&words, self.folder.path());
        terminal.shows(&SCREEN_SHOWS, PATIENCE).await;
        terminal.types(SCREEN_QUITS);
        assert_eq!(terminal.wait_exit(PATIENCE).await.code(), Some(0));
    }

    async fn starts(&mut self, server: &'static str, command: &str, shown: &[String]) {
        assert!(
            !shown.is_empty(),
            "README shows how one sees that {server} is up"
        );
        // Each start has a log of its own: what the one before has said is not waited for.
        let name = format!("{server}-{}", self.said.len());
        let words = self.words(command);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let program = Program::start(&name, "env", &words, self.folder.path());
        let mut kept = Kept { server, program };
        until("it prints what is shown", PATIENCE, async || {
            let exit = kept.program.exit();
            assert!(exit.is_none(), "{server} has ended: {exit:?}");
            let said = kept.said();
            let is_there =
                |shown: &String| shown == "..." || said.lines().any(|line| is_line(shown, line));
            shown.iter().all(is_there)
        })
        .await;
        println!("{}", kept.said());
        self.kept.push(kept);
    }

    async fn interrupts(&mut self, server: &str) {
        let index = self.kept.iter().position(|kept| kept.server == server);
        let mut kept = self
            .kept
            .remove(index.unwrap_or_else(|| panic!("no {server} runs")));
        kept.program.interrupt();
        let (code, _) = kept.program.wait_exit(PATIENCE).await;
        assert_eq!(code, Some(0), "{server} ends well");
        self.said += &kept.said();
    }

    async fn sees(&self, command: &str, shown: &[String]) {
        let (_, text) = self.runs(command).await;
        if bare(command).ends_with(WRITES_HEALTH) {
            tokio::time::sleep(SEES_HEALTH).await;
        }
        let lines: Vec<_> = text.lines().collect();
        assert!(
            is_shown(shown, &lines),
            "README shows\n{}\nand that is not what comes",
            shown.join("\n")
        );
    }

    /// Whether the command succeeds, each part of a pipe, and what it prints.
    async fn runs(&self, command: &str) -> (bool, String) {
        let words = self.words(command);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let output = run_to_end("env", &words, self.folder.path(), PATIENCE).await;
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        println!("{text}");
        (output.status.success(), text)
    }
}

/// A `cargo` that runs what is built already.
fn write_cargo(path: &Path) {
    let built = Path::new(env!("CARGO_BIN_EXE_proxy")).parent().unwrap();
    let script = format!(
        "#!/bin/sh\n\
         [ \"$1 $2\" = 'run --bin' ] || {{ echo \"not in this test: cargo $*\" >&2; exit 64; }}\n\
         program=$3; shift 3\n\
         [ \"$1\" != -- ] || shift\n\
         exec '{}'/\"$program\" \"$@\"\n",
        built.display()
    );
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
#[ignore = "takes about 40 s; needs curl, ip, and leave to make namespaces (unshare)"]
async fn every_command_does_what_is_shown() {
    if is_in_own_network() {
        return soon("the whole README", WHOLE, follow()).await;
    }
    let _room = Room::shared().await;
    let name = "readme::every_command_does_what_is_shown";
    run_in_own_network(name, WHOLE + PATIENCE).await;
}

/// From the first line of the README to the last.
async fn follow() {
    let text = readme();
    let mut reader = Reader::new();
    for step in steps_of(&text) {
        reader.takes(&step).await;
    }
    for kept in &reader.kept {
        reader.said += &kept.said();
    }
    // Lines of a log that stand for themselves.
    for (number, block, line) in lines_of(&text) {
        if block == Some("text") && line.starts_with("20") {
            let is_there = reader.said.lines().any(|said| is_line(line, said));
            assert!(is_there, "README.md:{number}: nobody has said {line}");
        }
    }
}

#[test]
fn every_command_is_run_or_left_out_for_a_reason() {
    let steps = steps_of(&readme());
    let commands = steps.iter().filter_map(|step| match &step.act {
        Act::Enter { command, shown } => Some((step.line, bare(command), shown)),
        Act::Try { .. } | Act::Interrupt { .. } => None,
    });
    let commands: Vec<_> = commands.collect();
    for (left_out, reason) in LEFT_OUT {
        assert!(!reason.is_empty());
        let is_there = commands.iter().any(|(_, command, _)| *command == left_out);
        assert!(is_there, "{left_out} does not stand in README.md any more");
    }
    assert!(commands.iter().any(|(_, command, _)| *command == SCREEN));
    for (line, command, shown) in &commands {
        assert!(
            shown.is_empty() || !is_left_out(command),
            "README.md:{line}: what is shown for {command} is not tested"
        );
    }
}

#[test]
fn a_transcript_is_read_as_a_reader_does() {
    let text = "a `cargo run x | y` or `b`\n```console\n$ a b  # c\nd\n^C  # proxy\n```\n```text\n$ e\n```\n";
    let acts: Vec<_> = steps_of(text).into_iter().map(|step| step.act).collect();
    let mention = Act::Try {
        command: "cargo run x | y".to_owned(),
    };
    let enter = Act::Enter {
        command: "a b  # c".to_owned(),
        shown: vec!["d".to_owned()],
    };
    let interrupt = Act::Interrupt {
        program: "proxy".to_owned(),
    };
    assert_eq!(acts, [mention, enter, interrupt]);
    assert_eq!(lines_of(text).last(), Some(&(8, Some("text"), "$ e")));
}

#[test]
fn only_times_and_what_is_left_out_may_differ() {
    let is_shown = |shown: &str, text: &str| {
        let shown: Vec<_> = shown.lines().map(str::to_owned).collect();
        is_shown(&shown, &text.lines().collect::<Vec<_>>())
    };
    for (shown, text) in [
        ("pong", "pong"),
        (
            "2026-11-22T13:55:47.585Z GET",
            "2027-01-01T00:00:00.000Z GET",
        ),
        ("says false, for 2 s", "says false, for 13 s"),
        ("total=0.003956 bytes=18", "total=1.5 bytes=18"),
        ("a\n...\nd", "a\nb\nc\nd"),
        ("a\n...\nd", "a\nd"),
        ("{\"a\":...", "{\"a\":{}}"),
    ] {
        assert!(is_shown(shown, text), "{shown} is {text}");
    }
    for (shown, text) in [
        ("pong", "ping"),
        ("pong", "pong\npong"),
        ("pong", ""),
        ("", "pong"),
        ("says false, for 2 s", "says true, for 2 s"),
        ("bytes=18", "bytes=19"),
        ("a\n...\nd", "a\nb"),
        ("503 2", "503 3"),
    ] {
        assert!(!is_shown(shown, text), "{shown} is not {text}");
    }
}
