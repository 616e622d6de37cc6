//! The black hole: a backend that refuses connections is done with each request at once, so it looks like the
//! emptiest one.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::Case;
use crate::clients::Clients;
use crate::contenders::{Contender, Setting};
use crate::serial;
use crate::table::{Table, count};

const CLIENTS: usize = 200;
const WORK: Duration = Duration::from_millis(10);
const DEAD_FROM: Duration = Duration::from_secs(1);
const DEAD_FOR: Duration = Duration::from_secs(3);
const BACK_FOR: Duration = Duration::from_secs(1);
/// For the requests under way at the end: one backend alone would be done with them in two seconds.
const PATIENCE: Duration = Duration::from_secs(15);

pub async fn run(setting: &Setting, contenders: &[Contender]) -> Result<Case> {
    let mut table = Table::new(&["", "failed", "of", "overlaps in a backend"]);
    for contender in contenders {
        eprintln!("black hole: {}", contender.name);
        table.row(one(setting, contender).await?);
    }
    let text = format!(
        "{CLIENTS} clients ask again as soon as they are answered or refused. A request takes {} ms. One of \
         three backends refuses connections from second {} to second {}, and {} s later no more requests are sent. *Overlaps* \
         are requests that a backend was given while it had one in hand.",
        WORK.as_millis(),
        DEAD_FROM.as_secs(),
        (DEAD_FROM + DEAD_FOR).as_secs(),
        BACK_FOR.as_secs(),
    );
    Ok(Case {
        title: "A black hole",
        text,
        table,
    })
}

async fn one(setting: &Setting, contender: &Contender) -> Result<Vec<String>> {
    let mut backends = serial::three(WORK).await?;
    let running = contender.start(setting, serial::ports(&backends)).await?;
    let clients = Clients::start(running.port, CLIENTS, Duration::ZERO);
    sleep(DEAD_FROM).await;
    backends[1].die().await;
    sleep(DEAD_FOR).await;
    backends[1].revive().await?;
    sleep(BACK_FOR).await;
    let outcome = clients.finish(PATIENCE).await;
    Ok(vec![
        contender.name.into(),
        count(outcome.failed),
        count(outcome.answered + outcome.failed),
        count(serial::overlaps(&backends)),
    ])
}
