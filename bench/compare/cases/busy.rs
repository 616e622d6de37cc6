//! Busy, not dead: a check that waits behind a long request says nothing about the server's health.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Case;
use crate::clients::Clients;
use crate::contenders::{Contender, Setting};
use crate::serial;
use crate::table::{Table, count};
use crate::verdicts::Verdicts;

const CLIENTS: usize = 12;
const WORK: Duration = Duration::from_secs(3);
/// How soon a client that was refused comes back. Without it, refusals would only count how fast they are made.
const PAUSE: Duration = Duration::from_secs(1);
const LASTS: Duration = Duration::from_secs(60);
const LASTS_IF_QUICK: Duration = Duration::from_secs(24);

/// All at the same time, each with backends of its own: everybody sleeps nearly all the time.
pub async fn run(setting: &Rc<Setting>, contenders: &[Contender], quick: bool) -> Result<Case> {
    let lasts = if quick { LASTS_IF_QUICK } else { LASTS };
    eprintln!("busy, not dead: everybody at once, {} s", lasts.as_secs());
    let mut tasks = JoinSet::new();
    for (place, contender) in contenders.iter().copied().enumerate() {
        let setting = Rc::clone(setting);
        tasks.spawn_local(async move { Ok((place, one(&setting, &contender, lasts).await?)) });
    }
    let mut rows: Vec<(usize, Vec<String>)> = tasks
        .join_all()
        .await
        .into_iter()
        .collect::<Result<_>>()
        .context("busy, not dead")?;
    rows.sort_by_key(|(place, _)| *place);
    let mut table = Table::new(&[
        "",
        "answered",
        "failed",
        "backend called down",
        "overlaps in a backend",
    ]);
    table.rows = rows.into_iter().map(|(_, row)| row).collect();
    let text = format!(
        "{CLIENTS} clients, requests of {} s, for {} s: three backends can answer {} requests in that time. \
         A client that was refused comes back after a second. `/ping` waits behind the request in hand, \
         and every check gives up after a second.",
        WORK.as_secs(),
        lasts.as_secs(),
        3 * lasts.as_secs() / WORK.as_secs(),
    );
    Ok(Case {
        title: "Busy, not dead",
        text,
        table,
    })
}

async fn one(setting: &Setting, contender: &Contender, lasts: Duration) -> Result<Vec<String>> {
    let backends = serial::three(WORK).await?;
    let running = contender.start(setting, serial::ports(&backends)).await?;
    let verdicts = Verdicts::watch(contender, &running);
    let clients = Clients::start(running.port, CLIENTS, PAUSE);
    // A little more, so that answers which are due at the very end are counted.
    sleep(lasts + WORK / 10).await;
    let outcome = clients.so_far();
    let called_down = verdicts.count(&running).await?;
    Ok(vec![
        contender.name.into(),
        count(outcome.answered),
        count(outcome.failed),
        called_down.map_or_else(|| "has no checks".into(), count),
        count(serial::overlaps(&backends)),
    ])
}
