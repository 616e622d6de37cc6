//! Owns the choice of ports: whatever the system says is free.

use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

/// Different ports that nobody listens at. They are held until all are found, or one could be given twice.
pub fn free(count: usize) -> Result<Vec<u16>> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<std::io::Result<_>>()
        .context("no port is free")?;
    held.iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}

/// For scripts: one line.
pub fn print(count: usize) -> Result<ExitCode> {
    let ports: Vec<String> = free(count)?.iter().map(u16::to_string).collect();
    println!("{}", ports.join(" "));
    Ok(ExitCode::SUCCESS)
}
