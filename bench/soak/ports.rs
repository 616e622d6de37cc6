//! Owns the choice of ports. They lie below the range from which the kernel takes those of outgoing connections
//! (32768 on Linux): the port of a backend that was killed could become the source of one of thousands of
//! connections, and then not be opened again. Above those of the test suite, which may run beside us.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};

const FIRST: u16 = 30_000;
const END: u16 = 32_600;
const BLOCK: u16 = 100;

/// Ports that are ours while this lives.
pub struct Ports {
    /// At the first port of the block: so no other soak takes the rest.
    _held: TcpListener,
    free: Vec<u16>,
}

impl Ports {
    pub fn new() -> Result<Self> {
        let (held, first) = (FIRST..END)
            .step_by(BLOCK.into())
            .find_map(|first| Some((listen(first)?, first)))
            .context("no block of ports is free")?;
        let free = (first + 1..first + BLOCK).filter(|port| listen(*port).is_some());
        Ok(Self {
            _held: held,
            free: free.collect(),
        })
    }

    /// One that nobody listens at.
    pub fn take(&mut self) -> Result<u16> {
        self.free.pop().context("no port is free")
    }
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}
