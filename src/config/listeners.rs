//! The addresses that the proxy itself listens on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::address::Address;

use super::notes::Place;
use super::scalar;
use super::section::Section;

const LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
/// Not 9090, which is Prometheus's own.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerParams {
    /// Port 0: one that the system chooses. Default `0.0.0.0:8080`.
    pub bind: SocketAddr,
}

/// Where status and health of the proxy itself are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminParams {
    /// Port 0: one that the system chooses. Default `127.0.0.1:9900`.
    pub bind: SocketAddr,
}

/// Where the proxy listens, each with its place.
#[derive(Default)]
pub(super) struct Binds(Vec<(SocketAddr, Place)>);

impl Binds {
    fn claim(&mut self, bind: SocketAddr, section: &Section<'_>) {
        self.check(bind, section, "bind");
        self.0.push((bind, section.place_of("bind")));
    }

    /// Records a problem with a key's value if the proxy listens there.
    pub fn check(&self, bind: SocketAddr, section: &Section<'_>, key: &str) {
        let mut earlier = self.0.iter();
        if let Some((other, first)) = earlier.find(|(other, _)| clash(bind, *other)) {
            let by = format!("{} on line {}", first.path, first.line);
            section.fail(key, format!("{bind} is taken by {other} of {by}"));
        }
    }

    /// The place of the bind that a connection to a backend would end at: a request sent there would
    /// come back for ever.
    pub fn reached_by(&self, backend: &Address) -> Option<&Place> {
        let backend = match backend.canonical() {
            Address::Ip(address) => address,
            // RFC 6761, section 6.3.
            Address::Host { name, port } if &*name == "localhost" => {
                (Ipv4Addr::LOCALHOST, port).into()
            }
            Address::Host { .. } | Address::Unix(_) => return None,
        };
        let mut binds = self.0.iter();
        let (_, place) = binds.find(|(bind, _)| reaches(backend, *bind))?;
        Some(place)
    }
}

/// All listeners, at least one, and the admin address; no two of them get in each other's way.
pub(super) fn read(section: &mut Section<'_>) -> (Vec<ListenerParams>, AdminParams, Binds) {
    let mut binds = Binds::default();
    let mut listeners = vec![ListenerParams { bind: LISTENER }];
    match section.find("listeners") {
        None => binds.0.push((LISTENER, section.place_of("listeners"))),
        Some(value) => {
            let values = value.filled_list("a list such as [{ bind: 0.0.0.0:8080 }]");
            let sections = values
                .iter()
                .flatten()
                .filter_map(|value| value.section("a mapping"));
            listeners = sections
                .filter_map(|section| listener(section, &mut binds))
                .collect();
        }
    }
    let admin = admin(section.section("admin"), &mut binds);
    (listeners, admin, binds)
}

fn listener(mut section: Section<'_>, binds: &mut Binds) -> Option<ListenerParams> {
    let about = format!("Where clients connect. Without `listeners` it is `{LISTENER}`.");
    let bind = section.required("bind", scalar::bind(), &about);
    if let Some(bind) = bind {
        binds.claim(bind, &section);
    }
    section.finish();
    Some(ListenerParams { bind: bind? })
}

fn admin(mut section: Section<'_>, binds: &mut Binds) -> AdminParams {
    let bind = section.valid(
        "bind",
        &ADMIN.to_string(),
        &scalar::bind(),
        "Status, health and readiness of the proxy itself.",
    );
    if let Some(bind) = bind {
        binds.claim(bind, &section);
    }
    section.finish();
    AdminParams {
        bind: bind.unwrap_or(ADMIN),
    }
}

/// Whether the system would refuse the second bind.
fn clash(left: SocketAddr, right: SocketAddr) -> bool {
    left.port() != 0 && (takes(left, right) || takes(right, left))
}

/// Whether a connection to `backend` ends at `bind` for certain. A wildcard takes this host's
/// addresses, and which those are, but for the loopback ones, is not for a configuration to know.
fn reaches(backend: SocketAddr, bind: SocketAddr) -> bool {
    takes(bind, backend) && (backend.ip().is_loopback() || !bind.ip().is_unspecified())
}

/// Whether a bind takes a port of an address: a wildcard does of every address, and that of IPv6 also
/// of those of IPv4, unless the system is told otherwise (`ipv6(7)`, `IPV6_V6ONLY`).
fn takes(bind: SocketAddr, address: SocketAddr) -> bool {
    let is_covered = bind.ip().is_unspecified() && (bind.is_ipv6() || address.is_ipv4());
    let is_equal = bind.ip().to_canonical() == address.ip().to_canonical();
    bind.port() == address.port() && (is_covered || is_equal)
}
