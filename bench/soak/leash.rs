//! Owns the end of what the soak has started: the kernel kills it when the soak is gone, however that ended, also
//! where it is stopped and could not see it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

#[derive(clap::Args)]
pub struct Arguments {
    soak: i32,
    program: OsString,
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    arguments: Vec<OsString>,
}

/// From now on this process ends with `soak`, which has started it.
pub fn tie(soak: i32) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    ensure!(getppid() == Pid::from_raw(soak), "the soak is gone already");
    Ok(())
}

/// Becomes a program that ends with the soak.
pub fn become_program(arguments: &Arguments) -> Result<ExitCode> {
    tie(arguments.soak)?;
    let mut program = Command::new(&arguments.program);
    let error = program.args(&arguments.arguments).exec();
    Err(error).with_context(|| format!("{} does not start", arguments.program.display()))
}
