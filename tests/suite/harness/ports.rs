//! Ports for servers under test.
//!
//! They lie below the range from which the kernel takes the ports of outgoing connections (32768 on
//! Linux): a port from that range that is closed for a moment, as a killed backend's is, may become
//! the source port of one of the thousands of connections that these tests make, and could then
//! not be opened again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

const FIRST: u16 = 10_000;
const END: u16 = 30_000;
const BLOCK: u16 = 2_000;

/// Several test processes may run at once: each holds the first port of its blocks for as long as
/// it lives, and no other touches the rest.
struct Blocks {
    held: Vec<TcpListener>,
    next: u16,
    end: u16,
}

/// The ports of this process, and the ones that it has not given out yet.
static OURS: Mutex<Blocks> = Mutex::new(Blocks {
    held: Vec::new(),
    next: 0,
    end: 0,
});

/// A port of 127.0.0.1 that was free a moment ago and is not given out again by this process.
pub fn free_port() -> u16 {
    consecutive_ports(1)
}

/// The first of `count` ports in a row, each as [`free_port`] has it.
pub fn consecutive_ports(count: u16) -> u16 {
    assert!(count < BLOCK, "{count} ports in a row: a block has {BLOCK}");
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let base = ours.take(count);
        if (base..base + count).all(|port| listen(port).is_some()) {
            return base;
        }
    }
}

impl Blocks {
    fn take(&mut self, count: u16) -> u16 {
        if self.next + count > self.end {
            self.hold_another();
        }
        let base = self.next;
        self.next += count;
        base
    }

    /// What is left of the last block stays unused.
    fn hold_another(&mut self) {
        let (first, listener) = (FIRST..END)
            .step_by(BLOCK.into())
            .find_map(|first| Some((first, listen(first)?)))
            .expect("a block of ports that no test process holds");
        self.held.push(listener);
        self.next = first + 1;
        self.end = first + BLOCK;
    }
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok()
}
