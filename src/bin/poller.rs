//! Pings every backend and writes the health file. See `maitred::programs::poller`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    maitred::programs::poller::run(std::env::args_os())
}
