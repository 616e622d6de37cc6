//! Ports for servers under test.
//!
//! They lie below the range from which the kernel takes the ports of outgoing connections (32768 on
//! Linux): a port from that range that is closed for a moment, as a killed backend's is, may become
//! the source port of one of the thousands of connections that these tests make, and could then
//! not be opened again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;
const END: u16 = 30_000;
/// More than one run of all tests needs.
const BLOCK: u16 = 2_000;

/// The ports of this process. Several test processes may run at once: each holds the first port of
/// its block for as long as it lives, and no other touches the rest.
static OURS: LazyLock<(TcpListener, u16)> = LazyLock::new(|| {
    (FIRST..END)
        .step_by(BLOCK.into())
        .find_map(|first| Some((listen(first)?, first)))
        .expect("a block of ports that no other test process holds")
});

/// A port of 127.0.0.1 that was free a moment ago and is not given out again by this process.
pub fn free_port() -> u16 {
    consecutive_ports(1)
}

/// The first of `count` ports in a row, each as [`free_port`] has it.
pub fn consecutive_ports(count: u16) -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(1);
    loop {
        let taken = TAKEN.fetch_add(count, Ordering::Relaxed);
        assert!(taken + count <= BLOCK, "all {BLOCK} ports were given out");
        let base = OURS.1 + taken;
        if (base..base + count).all(|port| listen(port).is_some()) {
            return base;
        }
    }
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok()
}
