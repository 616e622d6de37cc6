//! What this binary is besides the demo: it starts itself again, with a first argument that no person types, as
//! each of the demo's parts. So `cargo run --bin demo` needs no other program to be built.
//!
//! Invariant: no part outlives the demo. The kernel kills each one when the demo's main thread ends, whatever
//! ends it; only the sweeper ends by itself, after it has cleaned up.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::net::TcpListener;

use crate::folder;
use crate::ports::{Ports, SERVERS};
use crate::server::{Server, Work};

/// How long each request takes on its server.
pub const WORK: Duration = Duration::from_millis(100);

/// A part of the demo. The command line is `demo @ROLE DEMO_PID ARGUMENTS...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The server of this index; its argument is its port.
    Server(usize),
    /// The poller, with a poller's arguments.
    Poller,
    /// The proxy, with a proxy's arguments.
    Proxy,
    /// Removes the folder that it is told; see [`folder`].
    Sweeper,
}

impl Role {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server(index) => SERVERS[index],
            Self::Poller => "poller",
            Self::Proxy => "proxy",
            Self::Sweeper => "sweeper",
        }
    }

    /// Starts this binary in this role. A group of its own keeps the terminal's Ctrl-C from it: what ends, ends
    /// because the demo wants it.
    ///
    /// # Errors
    /// When the system does not know where this binary is.
    pub fn command(self) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(format!("@{}", self.name()))
            .arg(getpid().as_raw_nonzero().to_string())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(command)
    }

    fn named(argument: &str) -> Option<Self> {
        let servers = (0..SERVERS.len()).map(Self::Server);
        let mut roles = servers.chain([Self::Poller, Self::Proxy, Self::Sweeper]);
        let name = argument.strip_prefix('@')?;
        roles.find(|role| role.name() == name)
    }
}

/// Plays the part that the command line names; `None` if it names none.
pub fn play(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter();
    let program = arguments.next()?;
    let role = Role::named(arguments.next()?.to_str()?)?;
    let demo = arguments.next()?.to_str()?.parse().ok()?;
    if role == Role::Sweeper {
        folder::sweep();
        return Some(ExitCode::SUCCESS);
    }
    if !end_with(demo) {
        return Some(ExitCode::FAILURE);
    }
    match role {
        Role::Server(index) => Some(serve(index, arguments.next()?.to_str()?.parse().ok()?)),
        Role::Poller => Some(maitred::programs::poller::run(
            [program].into_iter().chain(arguments),
        )),
        Role::Proxy => Some(maitred::programs::proxy::run(
            [program].into_iter().chain(arguments),
        )),
        Role::Sweeper => None,
    }
}

/// Asks the kernel to kill this process when the demo ends; `false` if it has ended already.
fn end_with(demo: i32) -> bool {
    set_parent_process_death_signal(Some(Signal::KILL)).is_ok() && getppid() == Pid::from_raw(demo)
}

fn serve(index: usize, port: u16) -> ExitCode {
    let work = Work {
        delay: WORK,
        fail_rate: 0.0,
    };
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| {
            runtime.block_on(async {
                let listener = TcpListener::bind(Ports::address(port)).await?;
                Server::new(SERVERS[index], work).serve(listener).await;
                Ok(())
            })
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} cannot listen on port {port}: {error}", SERVERS[index]);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_found_by_its_argument() {
        assert_eq!(Role::named("@server2"), Some(Role::Server(1)));
        assert_eq!(Role::named("@proxy"), Some(Role::Proxy));
    }

    #[test]
    fn what_a_person_types_is_no_role() {
        for typed in ["proxy", "--plain", "@", "@server4", ""] {
            assert_eq!(Role::named(typed), None, "{typed}");
        }
    }
}
