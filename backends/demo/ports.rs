//! The ports of the demo, and which of them are taken.

use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// The servers, in the order of their ports.
pub const SERVERS: [&str; 3] = ["server1", "server2", "server3"];

/// Who listens where, all of them on the loopback interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Clients ask here.
    pub proxy: u16,
    /// In the order of [`SERVERS`].
    pub servers: [u16; 3],
    /// The proxy's status.
    pub admin: u16,
}

/// Ports that cannot be listened on, and why.
#[derive(Debug, thiserror::Error)]
pub struct Taken(Vec<(String, u16, String)>);

impl Ports {
    /// Those that the documentation speaks of, or five in a row from `base` on.
    pub fn from_base(base: Option<u16>) -> Self {
        match base {
            None => Self {
                proxy: 8080,
                servers: [8081, 8082, 8083],
                admin: 9900,
            },
            Some(base) => Self {
                proxy: base,
                servers: [base + 1, base + 2, base + 3],
                admin: base + 4,
            },
        }
    }

    /// Where something of the demo listens.
    pub fn address(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    /// Tries every port.
    ///
    /// # Errors
    /// All that are not free.
    pub fn check(&self) -> Result<(), Taken> {
        let servers = SERVERS.into_iter().zip(self.servers);
        let all = [("the proxy", self.proxy)]
            .into_iter()
            .chain(servers)
            .chain([("the status page", self.admin)]);
        let taken: Vec<_> = all
            .filter_map(|(whose, port)| Some((whose.to_owned(), port, problem(port)?)))
            .collect();
        if taken.is_empty() {
            Ok(())
        } else {
            Err(Taken(taken))
        }
    }
}

/// Why this port is not ours. One that is taken on IPv6 alone counts: `localhost` may mean that one.
fn problem(port: u16) -> Option<String> {
    let bind = |ip: IpAddr| TcpListener::bind((ip, port));
    if let Err(error) = bind(Ipv4Addr::LOCALHOST.into()) {
        return Some(match error.kind() {
            ErrorKind::AddrInUse => "is taken".to_owned(),
            _ => error.to_string(),
        });
    }
    match bind(Ipv6Addr::LOCALHOST.into()) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Some("is taken on [::1]".to_owned()),
        // A system without IPv6 is fine.
        _ => None,
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (whose, port, problem) in &self.0 {
            writeln!(formatter, "port {port} (for {whose}): {problem}")?;
        }
        write!(
            formatter,
            "choose five free ports in a row, for example: cargo run --bin demo -- --base-port 18080"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_gives_five_ports_in_a_row() {
        let ports = Ports::from_base(Some(20_000));
        assert_eq!(
            (ports.proxy, ports.servers, ports.admin),
            (20_000, [20_001, 20_002, 20_003], 20_004)
        );
    }
}
