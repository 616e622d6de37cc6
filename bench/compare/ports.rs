//! Owns the choice of ports. They lie below the range from which the kernel takes those of outgoing connections
//! (32768 on Linux), and below those of the test suite: what is free when it is chosen is free when a program that
//! was started meanwhile opens it.

use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use anyhow::{Result, bail};

const FIRST: u16 = 5_000;
const COUNT: u16 = 5_000;

/// Where to look next: another run begins elsewhere.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..COUNT)));

/// Different ports that nobody listens at, and that are not given to anybody else here.
pub fn free(count: usize) -> Result<Vec<u16>> {
    (0..count).map(|_| one()).collect()
}

/// One of them.
pub fn one() -> Result<u16> {
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Relaxed) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}

/// For scripts: one line.
pub fn print(count: usize) -> Result<ExitCode> {
    let ports: Vec<String> = free(count)?.iter().map(u16::to_string).collect();
    println!("{}", ports.join(" "));
    Ok(ExitCode::SUCCESS)
}
