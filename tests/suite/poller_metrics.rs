//! What the poller tells of itself, beside what its backends and the disk saw.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;

use crate::harness::{Client, Scraped, Units, backend, free_port, get, proxy, scrape, until};

fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

async fn listens(address: SocketAddr) -> bool {
    Client::connect(address).await.is_ok()
}

/// Waits until the poller's page is there.
async fn served(address: SocketAddr) -> Scraped {
    until("the poller tells of itself", 5.secs(), async || {
        listens(address).await
    })
    .await;
    scrape(address).await
}

/// Waits until this metric, of samples with all of these labels, is as large.
async fn reaches(address: SocketAddr, metric: &str, labels: &[&str], least: f64) {
    let what = format!("{metric} {labels:?} is {least}");
    until(&what, 10.secs(), async || {
        scrape(address).await.sum(metric, labels) >= least
    })
    .await;
}

#[tokio::test]
async fn pings_rounds_verdicts_and_writes_are_counted() {
    let group = [
        backend("a").start().await,
        backend("b").start().await,
        backend("c").start().await,
    ];
    let address = local();
    let site = proxy()
        .upstream("web", &group)
        .poll_every(100.millis())
        .poller_key("fall", 20)
        .backend_key("c", "state", "maint")
        .poller_key("metrics", address.to_string())
        .site();
    let _poller = site.start_poller();
    served(address).await;
    let state = async |backend: &str, state: &str| {
        let labels = [
            format!("backend=\"{backend}\""),
            format!("state=\"{state}\""),
        ];
        reaches(
            address,
            "maitred_poller_backend_state",
            &labels.each_ref().map(String::as_str),
            1.0,
        )
        .await;
    };
    state("b", "up").await;
    state("c", "maint").await;
    group[1].kill().await;
    state("b", "down").await;
    group[1].revive().await;
    state("b", "up").await;
    reaches(address, "maitred_poller_rounds_total", &[], 5.0).await;
    reaches(
        address,
        "maitred_poller_file_writes_total",
        &["written"],
        1.0,
    )
    .await;
    // Pings of the page are counted before it is read, those of the backend after.
    let page = scrape(address).await;
    page.assert_strict().await;
    let of = |metric: &str, labels: &[&str]| page.sum(&format!("maitred_poller_{metric}"), labels);
    let good = of("pings_total", &["backend=\"a\"", "result=\"good\""]);
    assert!(good >= 5.0 && good <= group[0].pings() as f64, "{good}");
    let pings = of("pings_total", &["backend=\"a\""]);
    assert_eq!(of("ping_duration_seconds_count", &["backend=\"a\""]), pings);
    assert!(of("pings_total", &["backend=\"b\"", "result=\"refused\""]) >= 2.0);
    assert_eq!(of("pings_total", &["backend=\"c\""]), 0.0);
    assert_eq!(of("transitions_total", &["backend=\"a\""]), 0.0);
    for to in ["to=\"up\"", "to=\"down\""] {
        assert_eq!(of("transitions_total", &["backend=\"b\"", to]), 1.0, "{to}");
    }
    assert!(of("round_age_seconds", &[]) < 5.0);
    assert_eq!(of("file_writes_total", &["failed"]), 0.0);
    assert!(page.sum("process_cpu_seconds_total", &[]) > 0.0);
}

#[tokio::test]
async fn a_write_that_fails_is_counted() {
    let address = local();
    let site = proxy()
        .upstream("web", [&backend("a").start().await])
        .poll_every(100.millis())
        .poller_key("metrics", address.to_string())
        .without_health_file()
        .site();
    fs::create_dir(site.health_path()).unwrap();
    let _poller = site.start_poller();
    served(address).await;
    reaches(
        address,
        "maitred_poller_file_writes_total",
        &["failed"],
        2.0,
    )
    .await;
    let page = scrape(address).await;
    assert_eq!(
        page.sum("maitred_poller_file_writes_total", &["written"]),
        0.0
    );
}

#[tokio::test]
async fn a_busy_backend_s_pings_are_inconclusive_and_evidence_is_counted() {
    let address = local();
    let a = backend("a").held().pings_wait().start().await;
    let mut lb = proxy()
        .upstream("web", [&a])
        .poll_every(200.millis())
        .poller_key("metrics", address.to_string())
        .alone()
        .start()
        .await;
    let _poller = lb.site().start_poller();
    served(address).await;
    let _client = lb.send(&get("/home")).await;
    a.working_on(1).await;
    reaches(
        address,
        "maitred_poller_pings_total",
        &["inconclusive"],
        2.0,
    )
    .await;
    reaches(
        address,
        "maitred_poller_backend_state",
        &["state=\"busy\""],
        1.0,
    )
    .await;
    let proxy = format!("proxy=\"{}\"", lb.site().admin());
    let page = scrape(address).await;
    page.assert_strict().await;
    assert!(page.sum("maitred_poller_evidence_reads_total", &[&proxy, "read"]) >= 2.0);
    assert_eq!(
        page.sum("maitred_poller_evidence_reads_total", &["failed"]),
        0.0
    );
    lb.program().kill();
    reaches(
        address,
        "maitred_poller_evidence_reads_total",
        &[&proxy, "failed"],
        1.0,
    )
    .await;
    // What the proxy knew excuses until the backend has answered.
    a.release(1);
    reaches(
        address,
        "maitred_poller_backend_state",
        &["state=\"up\""],
        1.0,
    )
    .await;
    let mut other = Client::connect(a.address()).await.unwrap();
    other.send(&get("/")).await.unwrap();
    reaches(
        address,
        "maitred_poller_pings_total",
        &["result=\"timeout\""],
        1.0,
    )
    .await;
}

#[tokio::test]
async fn the_page_is_where_the_configuration_says_and_tells_of_reloads() {
    let site = proxy()
        .upstream("web", [&backend("a").start().await])
        .poll_every(100.millis())
        .site();
    let poller = site.start_poller();
    // Before, a SIGHUP would end it.
    until("it polls", 5.secs(), async || {
        poller.log().contains("polling")
    })
    .await;
    let places = [local(), local()];
    // Whoever asks gets a reload, and one of the file may have come before.
    let (mut hash, mut generation) = (0.0, 1.0);
    for place in &places {
        site.edit_config(|config| config["maitred"]["poller"]["metrics"] = json!(place));
        poller.hang_up();
        let page = served(*place).await;
        assert!(page.sum("maitred_config_generation", &[]) > generation);
        generation = page.sum("maitred_config_generation", &[]);
        assert_ne!(page.sum("maitred_config_hash", &[]), hash);
        hash = page.sum("maitred_config_hash", &[]);
    }
    until("the first place is free", 2.secs(), async || {
        !listens(places[0]).await
    })
    .await;
    let successful = "maitred_config_last_reload_successful";
    site.edit_config(|config| config["maitred"]["poller"]["rise"] = json!(-1));
    poller.hang_up();
    until("the mistake shows", 5.secs(), async || {
        scrape(places[1]).await.sum(successful, &[]) == 0.0
    })
    .await;
    site.edit_config(|config| config["maitred"]["poller"]["rise"] = json!(2));
    poller.hang_up();
    reaches(places[1], successful, &[], 1.0).await;
    let next = generation + 1.0;
    reaches(places[1], "maitred_config_generation", &[], next).await;
    let page = scrape(places[1]).await;
    // What it says now was the default before.
    assert_eq!(page.sum("maitred_config_hash", &[]), hash);
    // The proxy that is started now has the same.
    let lb = site.started().await;
    assert_eq!(
        scrape(lb.site().admin())
            .await
            .sum("maitred_config_hash", &[]),
        hash
    );
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_and_served_once_it_is_free() {
    let a = backend("a").start().await;
    let address = local();
    let taken = tokio::net::TcpListener::bind(address).await.unwrap();
    let site = proxy()
        .upstream("web", [&a])
        .poll_every(100.millis())
        .poller_key("metrics", address.to_string())
        .site();
    let poller = site.start_poller();
    until("it is told", 5.secs(), async || {
        poller.log().contains("no metrics yet")
    })
    .await;
    until("a is pinged all the same", 5.secs(), async || a.pings() > 3).await;
    drop(taken);
    until("it is served", 5.secs(), async || {
        poller.log().contains("metrics address")
    })
    .await;
    served(address).await;
}

/// Name, kind and description of each metric, as a page in the text format has them.
async fn described(address: SocketAddr) -> BTreeSet<[String; 3]> {
    let text = get("/metrics").send_to(address).await.unwrap().text();
    let lines: Vec<_> = text.lines().collect();
    let pairs = lines.windows(2).filter_map(|pair| {
        let (name, help) = pair[0].strip_prefix("# HELP ")?.split_once(' ')?;
        let kind = pair[1].strip_prefix("# TYPE ")?.rsplit_once(' ')?.1;
        Some([name, kind, help].map(str::to_owned))
    });
    pairs.collect()
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_one_is_there() {
    let address = local();
    let lb = proxy()
        .upstream("web", [&backend("a").start().await])
        .poller_key("metrics", address.to_string())
        .start()
        .await;
    let _poller = lb.site().start_poller();
    served(address).await;
    let mut told = described(lb.site().admin()).await;
    told.extend(described(address).await);
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<_> = line
            .strip_prefix("| `")?
            .split('|')
            .map(str::trim)
            .collect();
        Some([cells[0].trim_matches('`'), cells[1], cells[3]].map(str::to_owned))
    });
    assert_eq!(rows.collect::<BTreeSet<_>>(), told);
}
