//! Owns who is compared: which programs there are, their files in `bench/peers`, and how each is started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::http::Client;
use crate::machine;
use crate::ports;
use crate::process::{BALANCER_CORE, Program};
use crate::template::fill;

/// How long a program may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Everybody is healthy: what maitred starts with, and what holds where no poller runs.
const ALL_HEALTHY: &str = r#"{ "server1": true, "server2": true, "server3": true }"#;

/// Within a contender's folder.
pub const HEALTH_FILE: &str = "health/status.json";

/// The programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Maitred,
    Bare,
    Nginx,
    Haproxy,
    Caddy,
}

/// A program with a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    pub name: &'static str,
    pub kind: Kind,
    /// Its file below `bench/peers`, and what is in it.
    pub file: &'static str,
    template: &'static str,
    /// maitred's access log; the others have none.
    access_log: &'static str,
    /// Whether maitred's poller runs beside it.
    poller: bool,
}

macro_rules! contender {
    ($name:literal, $kind:ident, $file:literal) => {
        Contender {
            name: $name,
            kind: Kind::$kind,
            file: $file,
            template: include_str!(concat!("../peers/", $file)),
            access_log: "off",
            poller: false,
        }
    };
}

/// Without a file: `bench/bare.rs` is all there is.
const BARE: Contender = Contender {
    name: "bare Pingora",
    kind: Kind::Bare,
    file: "",
    template: "",
    access_log: "off",
    poller: false,
};

/// On the plain path: everybody without a log, and maitred with one as well.
pub const PLAIN: [Contender; 6] = [
    contender!("maitred", Maitred, "plain/maitred.yaml"),
    Contender {
        access_log: "text",
        ..contender!("maitred, access log", Maitred, "plain/maitred.yaml")
    },
    BARE,
    contender!("nginx", Nginx, "plain/nginx.conf"),
    contender!("HAProxy", Haproxy, "plain/haproxy.cfg"),
    contender!("Caddy", Caddy, "plain/Caddyfile"),
];

/// For backends that serve one request at a time.
pub const CASES: [Contender; 6] = [
    Contender {
        poller: true,
        ..contender!("maitred", Maitred, "cases/maitred.yaml")
    },
    BARE,
    contender!("nginx", Nginx, "cases/nginx.conf"),
    contender!("HAProxy, checks", Haproxy, "cases/haproxy.cfg"),
    contender!(
        "HAProxy, checks and observe",
        Haproxy,
        "cases/haproxy-observe.cfg"
    ),
    contender!("Caddy", Caddy, "cases/Caddyfile"),
];

/// Where programs are found and where they run.
pub struct Setting {
    /// The folder with our own release build.
    pub built: PathBuf,
    /// Where files of this run go.
    pub folder: PathBuf,
    /// Whether programs can be given a core of their own.
    pub pinned: bool,
}

/// Where one contender listens, whom it sends to, and where its files are.
struct Place {
    port: u16,
    admin: u16,
    backends: [u16; 3],
    folder: PathBuf,
}

impl Place {
    fn new(setting: &Setting, backends: [u16; 3]) -> Result<Self> {
        let free = ports::free(2)?;
        let folder = setting.folder.join(format!("at-{}", free[0]));
        // A folder of its own, for the proxy watches it.
        fs::create_dir_all(folder.join("health"))?;
        fs::write(folder.join(HEALTH_FILE), ALL_HEALTHY)?;
        Ok(Self {
            port: free[0],
            admin: free[1],
            backends,
            folder,
        })
    }

    fn file(&self) -> PathBuf {
        self.folder.join("configuration")
    }
}

/// A contender at work. Dropping it ends its programs.
pub struct Running {
    pub port: u16,
    pub balancer: Program,
    /// Where its files are.
    pub folder: PathBuf,
    _poller: Option<Program>,
}

impl Kind {
    /// Its program; `None` if it is not installed.
    pub fn program(self, setting: &Setting) -> Option<PathBuf> {
        match self {
            Self::Maitred => existing(setting.built.join("proxy")),
            Self::Bare => existing(setting.built.join("examples/bare")),
            Self::Nginx => installed("nginx"),
            Self::Haproxy => installed("haproxy"),
            Self::Caddy => installed("caddy"),
        }
    }

    /// What to do where it is missing.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Maitred | Self::Bare => "bench/run.sh builds it",
            Self::Nginx => "apt-get install nginx",
            Self::Haproxy => "apt-get install haproxy",
            Self::Caddy => "apt-get install caddy",
        }
    }

    /// Its version; bare Pingora's is the one that the lock file names.
    pub fn version(self, program: &Path) -> Option<String> {
        let program = program.to_str()?;
        let said = match self {
            Self::Bare => {
                return machine::locked_version(include_str!("../../Cargo.lock"), "pingora-proxy");
            }
            Self::Maitred => machine::first_line(program, "--version"),
            Self::Nginx | Self::Haproxy => machine::first_line(program, "-v"),
            Self::Caddy => machine::first_line(program, "version"),
        };
        machine::version_in(&said?)
    }
}

impl Contender {
    /// Starts it in front of these backends, and returns when it accepts connections.
    pub async fn start(&self, setting: &Setting, backends: [u16; 3]) -> Result<Running> {
        let program = self.kind.program(setting);
        let program = program.with_context(|| format!("{} is missing", self.name))?;
        let place = Place::new(setting, backends)?;
        if self.kind != Kind::Bare {
            fs::write(place.file(), self.configuration(&place)?)?;
        }
        let core = setting.pinned.then_some(BALANCER_CORE);
        let command = self.command(&program, &place);
        let mut balancer = Program::start(&command, core, &place.folder, "balancer")?;
        wait_until_it_listens(&mut balancer, place.port)
            .await
            .with_context(|| format!("{} ({})", self.name, self.file))?;
        let poller = match self.poller {
            true => Some(start_poller(setting, &place)?),
            false => None,
        };
        Ok(Running {
            port: place.port,
            balancer,
            folder: place.folder,
            _poller: poller,
        })
    }

    /// The template knows which of these it wants; the rest is left out.
    fn configuration(&self, place: &Place) -> Result<String> {
        let mut values = vec![
            ("PORT", place.port.to_string()),
            ("ADMIN", place.admin.to_string()),
            ("FOLDER", place.folder.display().to_string()),
            ("LOG", self.access_log.to_owned()),
            ("BACKEND1", place.backends[0].to_string()),
            ("BACKEND2", place.backends[1].to_string()),
            ("BACKEND3", place.backends[2].to_string()),
        ];
        values.retain(|(name, _)| self.template.contains(&format!("@{name}@")));
        fill(self.template, &values).with_context(|| self.file.to_owned())
    }

    fn command(&self, program: &Path, place: &Place) -> Command {
        let folder = &place.folder;
        let mut command = Command::new(program);
        match self.kind {
            Kind::Maitred => command.arg("-c").arg(place.file()),
            Kind::Bare => command
                .arg(place.port.to_string())
                .args(place.backends.map(|backend| format!("127.0.0.1:{backend}"))),
            // Until it has read its file, nginx would write errors to a file of the system.
            Kind::Nginx => command
                .arg("-p")
                .arg(folder)
                .arg("-e")
                .arg("stderr")
                .arg("-c")
                .arg(place.file()),
            Kind::Haproxy => command.arg("-db").arg("-f").arg(place.file()),
            Kind::Caddy => command
                .args(["run", "--adapter", "caddyfile", "--config"])
                .arg(place.file())
                // One thread, as everybody has; and its files in our folder.
                .env("GOMAXPROCS", "1")
                .env("HOME", folder)
                .env("XDG_DATA_HOME", folder)
                .env("XDG_CONFIG_HOME", folder),
        };
        command
    }
}

/// The poller judges from the other core, as it would from another process of the same machine.
fn start_poller(setting: &Setting, place: &Place) -> Result<Program> {
    let mut command = Command::new(setting.built.join("poller"));
    command.arg("-c").arg(place.file());
    Program::start(&command, None, &place.folder, "poller")
}

async fn wait_until_it_listens(program: &mut Program, port: u16) -> Result<()> {
    let start = Instant::now();
    while Client::connect(port).await.is_err() {
        if program.has_ended() || start.elapsed() > START_LIMIT {
            bail!("does not listen; it said:\n{}", program.last_words());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A program of this system. Servers may be where ordinary users' `PATH` does not lead.
fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let servers = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(servers)
        .find_map(|folder| existing(folder.join(name)))
}

fn existing(file: PathBuf) -> Option<PathBuf> {
    file.is_file().then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_can_be_filled() {
        let place = Place {
            port: 8080,
            admin: 9900,
            backends: [1, 2, 3],
            folder: "/folder".into(),
        };
        for contender in PLAIN
            .iter()
            .chain(&CASES)
            .filter(|each| each.kind != Kind::Bare)
        {
            let text = contender.configuration(&place).unwrap();
            assert!(text.contains("8080"), "{}", contender.file);
        }
    }

    #[test]
    fn observe_is_all_that_the_two_files_of_haproxy_differ_in() {
        let without_comments = |text: &str| {
            let lines: Vec<String> = text
                .lines()
                .filter(|line| !line.trim_start().starts_with('#'))
                .map(|line| line.replace(" observe layer4 error-limit 1 on-error mark-down", ""))
                .collect();
            lines.join("\n")
        };
        assert_ne!(CASES[3].template, CASES[4].template);
        assert_eq!(
            without_comments(CASES[3].template),
            without_comments(CASES[4].template)
        );
    }
}
