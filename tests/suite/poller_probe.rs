//! What the poller asks, of whom, and which answers are good.

use serde_json::json;

use crate::harness::{Backend, Site, Units, backend, proxy, unix_door, until};

/// For one round, which waits for no interval.
fn site_of(groups: &[(&str, &[Backend])]) -> Site {
    let mut proxy = proxy().poll_every(3.secs());
    for (name, group) in groups {
        proxy = proxy.upstream(name, *group);
    }
    proxy.site()
}

/// One round; the table that it printed.
async fn poll_once(site: &Site) -> String {
    let output = site.poll_once().await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn each_upstream_has_its_own_path_host_and_statuses() {
    let web = [backend("a").status(404).start().await];
    let api = [
        backend("b").status(204).start().await,
        backend("c").status(200).start().await,
    ];
    let site = site_of(&[("web", &web), ("api", &api)]);
    site.edit_config(|config| {
        let ours = &mut config["maitred"];
        ours["poller"]["path"] = "/check?deep=1".into();
        ours["poller"]["host"] = "example.test".into();
        ours["upstreams"]["web"]["poller"] = json!({ "expect_status": ["200-299", 404] });
        ours["upstreams"]["api"]["poller"] =
            json!({ "path": "/alive", "host": "api.test", "expect_status": 204 });
    });
    let table = poll_once(&site).await;
    assert!(site.says_healthy("a") && site.says_healthy("b"), "{table}");
    assert!(!site.says_healthy("c"), "{table}");
    assert!(table.contains("answered 200, expected 204"), "{table}");
    let asked = |backend: &Backend| {
        let ping = &backend.requests()[0];
        let host = ping.header("Host").map(str::to_owned);
        (ping.method.clone(), ping.target.clone(), host.unwrap())
    };
    let expected = |target: &str, host: &str| ("GET".into(), target.into(), host.into());
    assert_eq!(asked(&web[0]), expected("/check?deep=1", "example.test"));
    assert_eq!(asked(&api[0]), expected("/alive", "api.test"));
}

#[tokio::test]
async fn a_backend_with_a_host_name_is_pinged() {
    let group = [backend("a").start().await, backend("b").start().await];
    let site = site_of(&[("web", &group)]);
    let port = group[0].address().port();
    site.edit_config(|config| {
        let backends = &mut config["maitred"]["upstreams"]["web"]["backends"];
        backends[0]["address"] = format!("localhost:{port}").into();
        backends[1]["address"] = "nobody.invalid:80".into();
    });
    let table = poll_once(&site).await;
    assert!(site.says_healthy("a") && !site.says_healthy("b"), "{table}");
    assert_eq!(group[0].pings(), 1);
    // By how long the machine's resolver takes to know.
    let reasons = ["nobody.invalid does not resolve", "no address within"];
    assert!(
        reasons.iter().any(|reason| table.contains(reason)),
        "{table}"
    );
}

#[tokio::test]
async fn a_backend_on_a_unix_socket_is_pinged() {
    let group = [backend("a").start().await];
    let site = site_of(&[("web", &group)]);
    let socket = site.path("app.sock");
    site.edit_config(|config| {
        let backends = &mut config["maitred"]["upstreams"]["web"]["backends"];
        backends[0]["address"] = format!("unix:{}", socket.display()).into();
        config["maitred"]["poller"]["path"] = "/check".into();
    });
    let table = poll_once(&site).await;
    assert!(!site.says_healthy("a"), "{table}");
    assert!(table.contains("no such socket"), "{table}");
    unix_door(&socket, group[0].address());
    let table = poll_once(&site).await;
    assert!(site.says_healthy("a"), "{table}");
    let host = group[0].requests()[0].header("Host").map(str::to_owned);
    assert_eq!(host.as_deref(), Some("localhost"));
}

#[tokio::test]
async fn verbose_logs_every_ping() {
    let group = [backend("a").start().await];
    let site = proxy()
        .upstream("web", &group)
        .poll_every(200.millis())
        .site();
    let poller = site.start_poller_with(&["-v"]);
    until("three pings are logged", 5.secs(), async || {
        poller.log().matches("ping answered").count() >= 3
    })
    .await;
    assert!(poller.log().contains("answer=200 in "), "{}", poller.log());
}
