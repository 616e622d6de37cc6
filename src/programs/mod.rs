//! The programs: arguments, configuration, services, run. The binaries only call them, so that another one
//! can be all of them at once.

pub mod poller;
pub mod proxy;
