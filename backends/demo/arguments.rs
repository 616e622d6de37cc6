//! The command line of the demo itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::commands::Command;
use crate::load::CLIENTS_MAX;

/// Three servers that serve one request at a time, a poller, maitred in front of them, and a little load.
///
/// In a terminal it shows what happens and takes keys: kill a server, make one hang, watch that no request
/// fails. Elsewhere it prints lines. Everything runs in a temporary folder and is gone when the demo ends.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
pub struct Arguments {
    /// Port of the proxy; the servers get the next three, the status page the one after
    /// [default: 8080, 8081 to 8083 and 9900].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65531))]
    pub base_port: Option<u16>,

    /// How many clients ask at once at the start.
    #[arg(long, value_name = "NUMBER", default_value_t = 6, value_parser = parse_clients)]
    pub clients: usize,

    /// Print lines even in a terminal.
    #[arg(long)]
    pub plain: bool,

    /// End after this time, for example `10s` [default: when told to].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,

    /// Press these keys, one per second; a dot is a second without one.
    #[arg(long, value_name = "KEYS", default_value = "", hide = true, value_parser = parse_script)]
    pub script: Script,

    /// At the end write a picture of the terminal view to this file.
    #[arg(long, value_name = "FILE", hide = true)]
    pub svg: Option<PathBuf>,
}

/// What is pressed in each second from the first on.
#[derive(Clone, Debug, Default)]
pub struct Script(pub Vec<Option<Command>>);

fn parse_clients(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|clients| *clients <= CLIENTS_MAX)
        .ok_or_else(|| format!("not in 0..={CLIENTS_MAX}"))
}

fn parse_script(text: &str) -> Result<Script, String> {
    let press = |key| match (key, Command::of(key)) {
        ('.', _) => Ok(None),
        (_, Some(command)) => Ok(Some(command)),
        (_, None) => Err(format!("{key:?} is not a key of the demo")),
    };
    text.chars()
        .map(press)
        .collect::<Result<_, _>>()
        .map(Script)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from([&["demo"], line].concat())
    }

    #[test]
    fn a_script_is_a_key_or_nothing_for_each_second() {
        let script = arguments(&["--script", "..2q"]).unwrap().script;
        assert_eq!(
            script.0,
            [
                None,
                None,
                Some(Command::KillOrRevive(1)),
                Some(Command::Quit)
            ]
        );
        assert!(arguments(&["--script", "x"]).is_err());
    }

    #[test]
    fn ports_and_clients_have_limits() {
        for wrong in [
            ["--base-port", "65532"],
            ["--base-port", "0"],
            ["--clients", "-1"],
            ["--clients", "201"],
        ] {
            assert!(arguments(&wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(arguments(&["--clients", "0"]).unwrap().clients, 0);
    }
}
