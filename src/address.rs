//! Where a backend listens: what the configuration may say, and what a connection is made to.
//!
//! An [`Address`] is as written, and its text is stable; an [`Endpoint`] is what it stands for at the
//! moment. Only a host name's can change. One address is one server, because slots are counted per
//! backend: a name with several servers behind it would be served several times too little.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// The longest path that fits into the kernel's `sockaddr_un`, with its final zero.
const UNIX_PATH_BYTES_MAX: usize = 107;
/// Lookups at once.
const LOOKUPS_MAX: usize = 32;
/// RFC 1035, section 2.3.4.
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Where a backend listens, as written: `127.0.0.1:8081`, `[::1]:8081`, `app.internal:8081` or
/// `unix:/run/app.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address other than `0.0.0.0` and `::`, and a port other than 0.
    Ip(SocketAddr),
    /// A host name, in lower case, and a port other than 0.
    Host {
        /// A name that the system's resolver is asked for.
        name: Arc<str>,
        /// Where it listens.
        port: u16,
    },
    /// The absolute path of a Unix socket.
    Unix(Arc<Path>),
}

/// What a connection is made to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(Arc<Path>),
}

/// Why a text is no address. The texts go on from "is not".
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// None of the forms.
    #[error(
        "an address such as 127.0.0.1:8081, [::1]:8081, app.internal:8081 or unix:/run/app.sock"
    )]
    Form,
    /// The port is missing, 0 or too large.
    #[error("an address with a port in 1..=65535")]
    Port,
    /// An IP address that no server has.
    #[error("an address of a server: it is one to listen on")]
    Unspecified,
    /// The path of a socket is not absolute, or too long for the kernel.
    #[error("an absolute path of a socket, at most {UNIX_PATH_BYTES_MAX} bytes after unix:")]
    UnixPath,
}

/// Why an address stands for no server at the moment.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// The system's resolver knows no such name, or cannot be asked.
    #[error("{name} does not resolve")]
    Unknown {
        /// The host name.
        name: Arc<str>,
        /// What the resolver says.
        #[source]
        source: io::Error,
    },
    /// More than one server.
    #[error("{name} resolves to {addresses}: one address per backend, please")]
    Ambiguous {
        /// The host name.
        name: Arc<str>,
        /// All of them, sorted, separated by commas.
        addresses: String,
    },
}

/// Asks the system's resolver. Cheap to clone; all clones together ask for a few names at once.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// The system's resolver blocks a thread for as long as it likes, and cannot be called off. Those
    /// threads are of the same pool in which files are read: what hangs must not fill it.
    turns: Arc<Semaphore>,
}

impl Resolver {
    /// One that has asked nothing yet. Needs a tokio runtime only when it is asked.
    pub fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    /// What an address stands for now. Waits for as long as the system does.
    ///
    /// A name with one IPv4 and one IPv6 address is one server with two families, as `localhost` is:
    /// IPv4 is used.
    ///
    /// # Errors
    ///
    /// When a name stands for no server or for several.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time; a lookup that is under way then keeps its turn to its end.
    pub async fn resolve(&self, address: &Address) -> Result<Endpoint, ResolveError> {
        let (name, port) = match address {
            Address::Ip(address) => return Ok(Endpoint::Ip(*address)),
            Address::Unix(path) => return Ok(Endpoint::Unix(path.clone())),
            Address::Host { name, port } => (name, *port),
        };
        let unknown = |source| ResolveError::Unknown {
            name: name.clone(),
            source,
        };
        // Closed never.
        let turn = self.turns.clone().acquire_owned().await;
        let asked = name.clone();
        let looked_up = spawn_blocking(move || {
            let _turn = turn;
            (asked.as_ref(), port).to_socket_addrs()
        });
        let records = looked_up
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        choose(name, records.map_err(unknown)?).map(Endpoint::Ip)
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Address {
    /// What it stands for, if that never changes; `None` for a host name.
    pub fn endpoint(&self) -> Option<Endpoint> {
        match self {
            Self::Ip(address) => Some(Endpoint::Ip(*address)),
            Self::Unix(path) => Some(Endpoint::Unix(path.clone())),
            Self::Host { .. } => None,
        }
    }

    /// The form in which two spellings of the same server are equal: `::ffff:127.0.0.1` is
    /// 127.0.0.1.
    pub fn canonical(&self) -> Self {
        match self {
            Self::Ip(address) => {
                Self::Ip(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }
            other => other.clone(),
        }
    }
}

fn choose(
    name: &Arc<str>,
    records: impl Iterator<Item = SocketAddr>,
) -> Result<SocketAddr, ResolveError> {
    let (v4, v6): (BTreeSet<_>, BTreeSet<_>) = records.partition(SocketAddr::is_ipv4);
    match (v4.len(), v6.len()) {
        (1, 0 | 1) => Ok(v4.into_iter().next()),
        (0, 1) => Ok(v6.into_iter().next()),
        (0, 0) => Ok(None),
        _ => Err(v4.into_iter().chain(v6)),
    }
    .map_err(|several| ResolveError::Ambiguous {
        name: name.clone(),
        addresses: several
            .map(|address| address.ip().to_string())
            .collect::<Vec<_>>()
            .join(", "),
    })?
    .ok_or_else(|| ResolveError::Unknown {
        name: name.clone(),
        source: io::Error::new(io::ErrorKind::NotFound, "no address"),
    })
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let is_right =
                path.starts_with('/') && path.len() <= UNIX_PATH_BYTES_MAX && !path.contains('\0');
            return match is_right {
                true => Ok(Self::Unix(Path::new(path).into())),
                false => Err(AddressError::UnixPath),
            };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            // Linux would connect to this host, which has other addresses by which to tell that two
            // backends are one.
            return match address.port() {
                _ if address.ip().to_canonical().is_unspecified() => Err(AddressError::Unspecified),
                0 => Err(AddressError::Port),
                _ => Ok(Self::Ip(address)),
            };
        }
        let (name, port) = text.rsplit_once(':').unwrap_or((text, ""));
        if !is_host_name(name) {
            return Err(AddressError::Form);
        }
        // `parse` would take a plus sign.
        let port = port.parse().ok().filter(|_| !port.starts_with('+'));
        Ok(Self::Host {
            name: name.to_ascii_lowercase().into(),
            port: port.filter(|port| *port != 0).ok_or(AddressError::Port)?,
        })
    }
}

/// RFC 1123, section 2.1, and underscores, which are common inside of networks. A last label of
/// digits alone would be a mistyped IP address.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let last = name.rsplit('.').next().unwrap_or(name);
    name.len() <= HOST_BYTES_MAX
        && name.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(formatter),
            Self::Host { name, port } => write!(formatter, "{name}:{port}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_shown_as_written() {
        for text in [
            "127.0.0.1:8081",
            "[::1]:8081",
            "localhost:80",
            "my_app-1.internal:65535",
            "1app.2b:1",
            "unix:/run/app.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let host: Address = "App.Internal:80".parse().unwrap();
        assert_eq!(host.to_string(), "app.internal:80");
    }

    #[test]
    fn what_is_no_address_says_why() {
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX));
        let table = [
            ("", AddressError::Form),
            (":80", AddressError::Form),
            ("8081", AddressError::Form),
            ("1.2.3:80", AddressError::Form),
            ("127.0.0.1", AddressError::Form),
            ("::1:80", AddressError::Form),
            ("http://a:80", AddressError::Form),
            ("a..b:80", AddressError::Form),
            ("-a:80", AddressError::Form),
            ("a b:80", AddressError::Form),
            ("localhost", AddressError::Port),
            ("localhost:", AddressError::Port),
            ("localhost:0", AddressError::Port),
            ("localhost:65536", AddressError::Port),
            ("localhost:+80", AddressError::Port),
            ("127.0.0.1:0", AddressError::Port),
            ("0.0.0.0:80", AddressError::Unspecified),
            ("[::]:80", AddressError::Unspecified),
            ("[::ffff:0.0.0.0]:80", AddressError::Unspecified),
            ("unix:", AddressError::UnixPath),
            ("unix:run/app.sock", AddressError::UnixPath),
            (long.as_str(), AddressError::UnixPath),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Address>(), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn one_server_of_two_families_is_one_server() {
        let choose = |records: &[&str]| {
            let records = records.iter().map(|text| text.parse().unwrap());
            choose(&"app".into(), records).map_err(|error| error.to_string())
        };
        let v4 = || "10.0.0.1:80".parse().unwrap();
        assert_eq!(choose(&["10.0.0.1:80", "10.0.0.1:80"]), Ok(v4()));
        assert_eq!(choose(&["[::1]:80", "10.0.0.1:80"]), Ok(v4()));
        assert_eq!(choose(&["[::1]:80"]), Ok("[::1]:80".parse().unwrap()));
        assert_eq!(
            choose(&["10.0.0.2:80", "10.0.0.1:80", "[::1]:80"]),
            Err("app resolves to 10.0.0.1, 10.0.0.2, ::1: one address per backend, please".into())
        );
        assert_eq!(choose(&[]), Err("app does not resolve".into()));
    }

    #[tokio::test]
    async fn localhost_resolves_and_nonsense_does_not() {
        let localhost: Address = "localhost:80".parse().unwrap();
        let endpoint = Resolver::new().resolve(&localhost).await.unwrap();
        assert_eq!(endpoint, Endpoint::Ip("127.0.0.1:80".parse().unwrap()));
        let nobody: Address = "nobody.invalid:80".parse().unwrap();
        let error = Resolver::new().resolve(&nobody).await.unwrap_err();
        assert_eq!(error.to_string(), "nobody.invalid does not resolve");
    }
}
