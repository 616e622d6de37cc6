//! The demo: one command that starts three servers, the poller and the proxy as processes of their own, puts a
//! little load on, and shows what maitred makes of it while servers are killed, hang and come back.
//!
//! This file decides who this process is: the demo itself, or one of its parts (`roles`).

mod arguments;
mod children;
mod commands;
mod drain;
mod folder;
mod http;
mod lines;
mod load;
mod model;
mod news;
mod ports;
mod roles;
mod screen;
mod session;
mod status;
mod svg;
mod table;
mod theme;
mod view;

#[path = "../server.rs"]
mod server;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::Arguments;

fn main() -> ExitCode {
    if let Some(code) = roles::play(std::env::args_os()) {
        return code;
    }
    match session::run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
