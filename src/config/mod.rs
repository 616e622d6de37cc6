//! YAML text to checked parameters; the only module that knows YAML.
//!
//! `tree` makes nodes with places, `environment` fills in variables, `section` and `scalar` read the
//! nodes as types, and each of the other modules owns one section of the file: its keys, their
//! defaults, ranges and descriptions, each in one place. `reference` lists them, and a test keeps
//! docs/configuration.md equal to that list.
//! Every problem is reported, in the order of the text; there is a `Config` only if there is none.

use std::env;
use std::fmt;
use std::fs::OpenOptions;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::access_log::AccessLogParams;
use crate::routing::Route;
use crate::upstream::UpstreamParams;

use rustix::fs::OFlags;

use notes::{Notes, Place};
use section::{Section, Value};

mod access_log;
mod clients;
#[cfg(test)]
mod documentation;
mod environment;
mod explain;
mod health;
mod limits;
mod listeners;
mod notes;
mod outlier_detection;
mod queue;
mod reference;
mod request_id;
mod retry;
mod routes;
mod scalar;
mod section;
mod server;
#[cfg(test)]
mod tests;
mod tree;
mod upstreams;

pub use clients::ClientParams;
pub use explain::{ExplainParams, Secret};
pub use health::{HealthParams, PollerParams, ProbeParams, StatusRanges};
pub use limits::LimitParams;
pub use listeners::{AdminParams, ListenerParams};
pub use reference::{KeyReference, keys};
pub use request_id::RequestIdParams;
pub use server::ServerKeys;

/// Room for 100,000 backends; a wrong path must not fill the memory.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// All parameters, checked one by one and against each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Pingora's own keys.
    pub server: ServerKeys,
    /// Where clients connect. Not empty, no address twice.
    pub listeners: Vec<ListenerParams>,
    /// How long clients may take.
    pub clients: ClientParams,
    /// How much is taken on at once.
    pub limits: LimitParams,
    /// What is read of the backends' health.
    pub health: HealthParams,
    /// How the poller finds it out.
    pub poller: PollerParams,
    /// Where the proxy tells of itself; no listener's address.
    pub admin: AdminParams,
    /// How requests are logged.
    pub access_log: AccessLogParams,
    /// Whether it is noted why requests went where they went.
    pub explain: ExplainParams,
    /// Where a request's id comes from.
    pub request_id: RequestIdParams,
    /// Whether answers tell how long they took, and where. Default no.
    pub server_timing: bool,
    /// As written, not empty. Each upstream exists; no two take the same requests.
    pub routes: Vec<Route>,
    /// As written, not empty. Names are unique; so are names and addresses of all backends.
    pub upstreams: Vec<UpstreamParams>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no text.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        #[source]
        source: io::Error,
    },
    /// The text is wrong: every problem, in its order, a line each. Not empty.
    #[error("{}", one_per_line(.0))]
    Invalid(Vec<Problem>),
}

/// One thing that is wrong. Displays as `conf/pingora.yaml:12:9: maitred.routes[0].rewrite: ..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The key, such as `maitred.upstreams.web.backends[2].max_in_flight`; empty for the whole.
    pub path: String,
    /// Value and expectation, on one line.
    pub message: String,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// `Read`, also for what is larger than 16 MiB or no regular file; `Invalid` with every problem,
    /// also for what is not UTF-8.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = read_file(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let name = path.display().to_string();
        match str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text, &name),
            Err(error) => {
                let notes = Notes::new(&name);
                notes.fault(tree::Fault::not_utf8(&bytes, error.valid_up_to()));
                Err(ConfigError::Invalid(notes.into_problems()))
            }
        }
    }

    /// The same for configurations that say the same, in programs of one version.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        // Everything that is read is shown; comments, order of keys and defaults that are written out are not.
        format!("{self:?}").hash(&mut hasher);
        hasher.finish()
    }

    /// Checks a text. Messages call it `source_name`; `${NAME}` is looked up in this process's
    /// environment.
    ///
    /// # Errors
    ///
    /// `Invalid` with every problem.
    pub fn parse(text: &str, source_name: &str) -> Result<Self, ConfigError> {
        Self::parse_with(text, source_name, &|name| env::var(name))
    }

    fn parse_with(
        text: &str,
        source_name: &str,
        environment: environment::Lookup<'_>,
    ) -> Result<Self, ConfigError> {
        let notes = Notes::new(source_name);
        let config = match tree::parse(text) {
            Ok(mut root) => {
                let place = Place::root(&root);
                environment::substitute(&mut root, &place, environment, &notes);
                let root = Value::root(&root, &notes);
                root.section("a mapping with maitred").and_then(read)
            }
            Err(fault) => {
                notes.fault(fault);
                None
            }
        };
        let problems = notes.into_problems();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError::Invalid(problems)),
        }
    }
}

impl ConfigError {
    /// How a program that is given no configuration ends (`EX_CONFIG` of sysexits.h).
    pub const EXIT_CODE: u8 = 78;

    /// What such a program prints: each problem as it is, on its own line, or what the program called
    /// `program` could not read and why.
    pub fn report(&self, program: &str) -> String {
        match self {
            Self::Read { source, .. } => format!("{program}: {self}: {source}"),
            Self::Invalid(_) => self.to_string(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            path,
            message,
        } = self;
        write!(formatter, "{file}:{line}:{column}: ")?;
        if !path.is_empty() {
            write!(formatter, "{path}: ")?;
        }
        formatter.write_str(message)
    }
}

fn one_per_line(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true);
    if !is_handed_over(path) {
        // To open a FIFO waits for a writer, unless we say no.
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
    }
    let file = options.open(path)?;
    if !is_handed_over(path) && !file.metadata()?.is_file() {
        let what = "not a regular file; a pipe is read as /dev/stdin";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "larger than 16 MiB",
        ));
    }
    Ok(bytes)
}

/// Whether a path is one of the process's own descriptors, which may be a pipe: standard input, or what
/// `<(..)` of a shell stands for. Whoever handed it over also writes to it.
fn is_handed_over(path: &Path) -> bool {
    path == Path::new("/dev/stdin") || path.starts_with("/dev/fd")
}

/// The whole file. `None` and every problem is recorded, or the problems are.
fn read(mut top: Section<'_>) -> Option<Config> {
    const EXPECTED: &str = "a mapping with routes and upstreams";
    let server = ServerKeys::read(&mut top);
    let ours = top.required_value("maitred", EXPECTED);
    top.finish();
    let mut ours = ours?.section(EXPECTED)?;
    let (listeners, admin, binds) = listeners::read(&mut ours);
    let clients = clients::read(ours.section("clients"));
    let limits = limits::read(ours.section("limits"));
    let (mut poller, probe) = health::read_poller(ours.section("poller"), admin.bind, &binds);
    let health = health::read(ours.section("health"), &poller);
    let access_log = access_log::read(ours.section("access_log"));
    let explain = explain::read(ours.section("explain"));
    let request_id = request_id::read(&mut ours);
    let server_timing = ours.value(
        "server_timing",
        "false",
        scalar::flag(),
        "Whether answers say, as `Server-Timing`, how long the request waited and its backend took.",
    );
    let (mut upstreams, names) = upstreams::read(&mut ours, &binds, &probe);
    let sources = Arc::new(server.sources());
    for (upstream, _) in &mut upstreams {
        upstream.sources = sources.clone();
    }
    let (upstreams, probes) = upstreams
        .into_iter()
        .map(|(upstream, probe)| {
            let name = upstream.name.clone();
            (upstream, (name, probe))
        })
        .unzip();
    poller.probes = probes;
    let routes = routes::read(&mut ours, &names);
    ours.finish();
    Some(Config {
        server,
        listeners,
        clients,
        limits,
        health,
        poller,
        admin,
        access_log,
        explain,
        request_id,
        server_timing,
        routes,
        upstreams,
    })
}
