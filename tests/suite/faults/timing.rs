//! An answer that comes in the very moment in which it is given up on.

use super::crowd::Crowd;
use crate::harness::{Units, backend, get, proxy};

/// It may have been read already, by a request that is over: then there is nothing left to wait for, and the slot
/// must not be kept for an answer that has come.
#[tokio::test]
async fn an_answer_that_comes_with_its_timeout_keeps_no_slot() {
    let start = async |name| backend(name).takes(15.millis()).start().await;
    let group = [start("a").await, start("b").await];
    let lb = proxy()
        .upstream("web", &group)
        .response_header_timeout(17.millis())
        .key(
            "maitred.upstreams.web.outlier_detection.consecutive_errors",
            "off",
        )
        .queue_timeout(500.millis())
        .start()
        .await;
    let crowd = Crowd::of(10, lb.address(), || get("/home"));
    tokio::time::sleep(2.secs()).await;
    let outcomes = crowd.ends().await;
    let late = outcomes.iter().filter(|one| !one.is_served()).count();
    println!("{late} of {} came too late", outcomes.len());
    lb.has_freed_all().await;
}
