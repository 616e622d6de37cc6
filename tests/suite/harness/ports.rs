//! Ports for servers under test.
//!
//! They lie below the range from which the kernel takes the ports of outgoing connections (32768 on
//! Linux): a port from that range that is closed for a moment, as a killed backend's is, may become
//! the source port of one of the thousands of connections that these tests make, and could then
//! not be opened again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port of 127.0.0.1 that was free a moment ago and is not given out again by this process.
pub fn free_port() -> u16 {
    consecutive_ports(1)
}

/// The first of `count` ports in a row, each as [`free_port`] has it.
pub fn consecutive_ports(count: u16) -> u16 {
    // Several test processes may run at once: each starts elsewhere.
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id() % 199) as u16 * 100;
    for _ in 0..COUNT {
        let taken = TAKEN.fetch_add(count, Ordering::Relaxed);
        let base = FIRST + offset.wrapping_add(taken) % (COUNT - count);
        if (base..base + count).all(is_free) {
            return base;
        }
    }
    panic!(
        "no {count} free ports in a row in {FIRST}..{}",
        FIRST + COUNT
    );
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok()
}
