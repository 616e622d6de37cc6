//! What reaches the proxy at all: the connection loop, its deadlines, clients that leave.
//!
//! Pingora's own loop keeps an idle client for ever, holds a half-sent header for as long as a byte
//! comes now and then, and keeps a whole session in memory for every idle connection. This one waits
//! for a request with nothing but the stream in hand.

mod client_stream;
mod connections;
mod departure;
mod guard;
mod timer;

pub use client_stream::{Awaited, ClientStream};
pub use connections::Connections;
pub use departure::{Departure, Departures};
pub use guard::Guard;
