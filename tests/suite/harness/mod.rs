//! What the tests are written in: backends, the proxy as a process, clients and a load, in words
//! that read as sentences.
//!
//! Nothing here uses the crate: what the tests prove is seen from outside, by a server and a client
//! of our own. A wait is a condition with a deadline ([`until`]), never a sleep and a hope; a test
//! sleeps only where time passing is the scenario itself.

mod backend;
mod backend_process;
mod client;
mod duration;
mod load;
mod needs;
mod own_network;
mod patience;
mod ports;
mod program;
mod proxy;
mod pseudo_terminal;
mod raw_server;
mod room;
mod scrape;
mod site;
mod unix_door;
mod verdicts;
mod wire;
mod wsgi;

pub use backend::{Backend, Fault, Seen, Step, backend};
pub use backend_process::BackendProcess;
pub use client::{Client, Ending, Request, Response, get, head, post, request};
pub use duration::Units;
pub use load::{Tally, ask_on, load};
pub use needs::{faketime, is_root, may_drop_packets, may_mount, prometheus_s, python};
pub use own_network::{is_in_own_network, run_in_own_network};
pub use patience::{soon, until};
pub use ports::{consecutive_ports, free_port};
pub use program::{Program, run_to_end};
pub use proxy::{Proxy, ProxyBuilder, Server, proxy};
pub use pseudo_terminal::PseudoTerminal;
pub use raw_server::{RawServer, raw_server};
pub use room::Room;
pub use scrape::{Scraped, scrape};
pub use site::Site;
pub use unix_door::unix_door;
pub use verdicts::Verdicts;
pub use wire::{Framing, Wire};
pub use wsgi::{Wsgi, WsgiServer};
