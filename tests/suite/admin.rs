//! The admin pages say what docs/admin.md says that they do, no more and no less.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Units, backend, get, proxy, until};

/// Every leaf's path; names that the configuration chose are `NAME`.
fn paths(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    let Value::Object(fields) = value else {
        into.insert(path.to_owned());
        return;
    };
    let is_named = path.ends_with("upstreams") || path.ends_with("backends");
    for (field, value) in fields {
        let step = if is_named { "NAME" } else { field };
        let separator = if path.is_empty() { "" } else { "." };
        paths(value, &format!("{path}{separator}{step}"), into);
    }
}

/// The fields in the first column of a table, from a heading on.
fn documented(heading: &str) -> BTreeSet<String> {
    let text = include_str!("../../docs/admin.md");
    let (_, table) = text.split_once(heading).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn every_field_of_the_status_is_documented_and_the_other_way_round() {
    let [a, b] = [backend("a").start().await, backend("b").start().await];
    let dead = backend("dead").start().await;
    let named = format!("localhost:{}", b.address().port());
    let lb = proxy()
        .upstream("web", [&a, &b, &dead])
        .backend_key("b", "address", named)
        .start()
        .await;
    dead.kill().await;
    until("the dead one is ejected", 5.secs(), async || {
        assert_eq!(lb.ask(get("/home")).await.status, 200);
        !lb.is_eligible("dead").await
    })
    .await;
    lb.health(&[("b", false)]).await;
    let mut said = BTreeSet::new();
    until("there was a change of the file", 5.secs(), async || {
        lb.status().await["report"]["in_force"].is_object()
    })
    .await;
    paths(&lb.status().await, "", &mut said);
    assert_eq!(said, documented("## Status\n"));
}

#[tokio::test]
async fn every_page_that_is_documented_answers() {
    let a = backend("a").start().await;
    let lb = proxy().upstream("web", [&a]).start().await;
    for page in documented("# The admin pages\n") {
        if page.starts_with('/') {
            assert_eq!(lb.admin(&page).await.status, 200, "{page}");
        }
    }
    assert_eq!(lb.admin("/nothing").await.status, 404);
}
