//! A wall clock that jumps changes nothing about how old a report is.
//!
//! The jumps are `libfaketime`'s, which `tests/all.sh` installs and `MAITRED_FAKETIME` names.

use std::fs;
use std::time::Instant;

use crate::harness::{Proxy, Units, backend, faketime, get, proxy, until};

async fn state(lb: &Proxy) -> String {
    let status = lb.status().await;
    status["report"]["state"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_hour_either_way_makes_no_report_stale_or_fresh() {
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", clock.display());
    let Some(command) = faketime(&[&file, "FAKETIME_NO_CACHE=1"]) else {
        return;
    };
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    let lb = proxy()
        .upstream("web", [&backend("a").start().await])
        .poll_every(500.millis())
        .health_key("stale_after", "2s")
        .health_key("when_stale", "fail_closed")
        .run_by(&command)
        .start()
        .await;
    for jump in ["+1h", "-1h", "+0"] {
        fs::write(&clock, jump).unwrap();
        for _ in 0..6 {
            lb.site().health(&[]);
            tokio::time::sleep(250.millis()).await;
            assert_eq!(state(&lb).await, "ok", "{jump}");
        }
        assert_eq!(lb.ask(get("/home")).await.status, 200);
        // The log's own clock has jumped: or this test would prove nothing.
        let written = Instant::now();
        lb.site().health(&[]);
        until("the report is stale", 30.secs(), async || {
            state(&lb).await == "stale"
        })
        .await;
        let age = written.elapsed();
        assert!(
            age >= 2.secs() && age < 20.secs(),
            "{jump}: stale after {age:?}"
        );
    }
    assert!(has_jumped(&lb), "the clock did not jump: {}", lb.log());
}

/// Whether two lines of the log are more than half an hour apart.
fn has_jumped(lb: &Proxy) -> bool {
    let log = lb.log();
    let hours = log
        .lines()
        .filter_map(|line| line.get(11..16)?.split_once(':'));
    let minutes: Vec<i32> = hours
        .filter_map(|(hour, minute)| {
            Some(hour.parse::<i32>().ok()? * 60 + minute.parse::<i32>().ok()?)
        })
        .collect();
    minutes
        .windows(2)
        .any(|pair| (pair[0] - pair[1]).abs() > 30)
}
