//! What the unit tests of this module start from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::plan::Target;
use crate::address::Address;
use crate::config::{PollerParams, ProbeParams};
use crate::health::State;

/// The defaults, but that one ping decides.
pub(super) fn params() -> PollerParams {
    PollerParams {
        interval: Duration::from_secs(10),
        fast_interval: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        jitter_percent: 0,
        rise: 1,
        fall: 1,
        detail: false,
        evidence: Arc::new([]),
        skip_when_busy: false,
        metrics: None,
        probes: BTreeMap::new(),
    }
}

pub(super) fn target(name: &str, address: Address, params: &Arc<PollerParams>) -> Target {
    Target {
        name: name.into(),
        address,
        state: State::Ready,
        busy_limit: Duration::from_secs(60),
        probe: ProbeParams::default(),
        params: params.clone(),
    }
}

/// A proxy whose evidence is this, once: whoever asks again is refused.
pub(super) async fn witness(page: &str) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let length = page.len();
    let answer = format!("HTTP/1.1 200 x\r\nContent-Length: {length}\r\n\r\n{page}");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(listener);
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    address.into()
}
