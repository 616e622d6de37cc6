//! The addresses that the proxy itself listens on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::scalar;
use super::section::{Place, Section};

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

/// All listeners, at least one, and the admin address; no two of them get in each other's way.
pub(super) fn read(section: &mut Section<'_>) -> (Vec<ListenerParams>, AdminParams) {
    let mut taken: Vec<(SocketAddr, Place)> = Vec::new();
    let mut listeners = vec![ListenerParams { bind: LISTENER }];
    match section.find("listeners") {
        None => taken.push((LISTENER, section.place_of("listeners"))),
        Some(value) => {
            let values = value.filled_list("a list such as [{ bind: 0.0.0.0:8080 }]");
            let sections = values
                .iter()
                .flatten()
                .filter_map(|value| value.section("a mapping"));
            listeners = sections
                .filter_map(|section| listener(section, &mut taken))
                .collect();
        }
    }
    let mut admin = section.section("admin");
    let before = admin.problems().count();
    let bind = admin.value("bind", ADMIN, scalar::bind);
    if admin.problems().count() == before {
        take(bind, &admin, &mut taken);
    }
    admin.finish();
    (listeners, AdminParams { bind })
}

fn listener(
    mut section: Section<'_>,
    taken: &mut Vec<(SocketAddr, Place)>,
) -> Option<ListenerParams> {
    let bind = section.required("bind", scalar::bind);
    if let Some(bind) = bind {
        take(bind, &section, taken);
    }
    section.finish();
    Some(ListenerParams { bind: bind? })
}

fn take(bind: SocketAddr, section: &Section<'_>, taken: &mut Vec<(SocketAddr, Place)>) {
    let place = section.place_of("bind");
    if let Some((other, first)) = taken.iter().find(|(other, _)| clash(bind, *other)) {
        let by = format!("{} on line {}", first.path, first.line);
        section
            .problems()
            .add(&place, format!("{bind} is taken by {other} of {by}"));
    }
    taken.push((bind, place));
}

/// Whether the system would refuse the second bind: a wildcard takes the port of every address.
fn clash(left: SocketAddr, right: SocketAddr) -> bool {
    let is_wild = left.ip().is_unspecified() || right.ip().is_unspecified();
    left.port() == right.port()
        && left.port() != 0
        && left.is_ipv4() == right.is_ipv4()
        && (is_wild || left.ip() == right.ip())
}
