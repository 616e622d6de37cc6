//! A Unix socket in front of a backend, for backends that are reached by one.

use std::net::SocketAddr;
use std::path::Path;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};

/// Listens at `path` and passes every connection on to `address`, byte by byte, both ways. It ends with
/// the runtime of its test.
pub fn unix_door(path: &Path, address: SocketAddr) {
    let listener = UnixListener::bind(path).expect("the folder can be written");
    tokio::spawn(async move {
        while let Ok((mut outside, _)) = listener.accept().await {
            tokio::spawn(async move {
                // A backend that is down: the connection is closed.
                if let Ok(mut inside) = TcpStream::connect(address).await {
                    let _ = copy_bidirectional(&mut outside, &mut inside).await;
                }
            });
        }
    });
}
