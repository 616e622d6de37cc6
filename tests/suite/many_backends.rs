//! Ten thousand backends in one file: a change of all of them is in force at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::harness::{Client, Server, Units, backend, get, proxy, soon};

const COUNT: u32 = 10_000;

/// One of many names for the same server, each at a loopback address of its own.
pub struct Alias {
    pub name: String,
    address: SocketAddr,
}

impl Server for Alias {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

fn alias(number: u32, port: u16) -> Alias {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number);
    Alias {
        name: format!("server{number}"),
        address: (address, port).into(),
    }
}

/// So many names of the server at this port.
pub fn aliases(count: u32, port: u16) -> Vec<Alias> {
    (0..count).map(|number| alias(number, port)).collect()
}

/// Asks again and again on one connection until the status is this one.
async fn until_status(client: &mut Client, status: u16) {
    while client.ask(&get("/home")).await.unwrap().status != status {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_ten_thousand_backends_is_in_force_within_50_ms() {
    let server = backend("all").on_every_address().start().await;
    let port = server.address().port();
    let aliases = aliases(COUNT, port);
    let lb = proxy().upstream("web", &aliases).alone().start().await;
    let mut client = lb.connect().await;
    let sick: Vec<_> = aliases.iter().map(|alias| (alias.name(), false)).collect();
    let (all_sick, all_healthy) = (lb.site().health_text(&sick), lb.site().health_text(&[]));
    let mut times = Vec::new();
    for _ in 0..10 {
        for (text, status) in [(&all_sick, 503), (&all_healthy, 200)] {
            // Writing the new file is not the proxy's time.
            lb.site().write_health_aside(text);
            let renamed = Instant::now();
            lb.site().rename_health();
            soon("the change", 10.secs(), until_status(&mut client, status)).await;
            times.push(renamed.elapsed());
        }
    }
    times.sort();
    let median: Duration = times[times.len() / 2];
    println!(
        "all of {COUNT} backends flipped: median {median:?}, most {:?}",
        times[times.len() - 1]
    );
    if cfg!(not(debug_assertions)) {
        assert!(median <= 50.millis(), "{times:?}");
    }
}
