//! The load balancer. See `maitred::programs::proxy`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    maitred::programs::proxy::run(std::env::args_os())
}
