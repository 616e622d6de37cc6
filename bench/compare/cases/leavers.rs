//! Clients that leave in mid-service: the backend works on for them, and whoever takes it for free gives it two
//! requests at once.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{sleep, timeout};

use super::Case;
use crate::contenders::{Contender, Setting};
use crate::http::{Client, request};
use crate::serial::{self, Backend};
use crate::table::{Table, count};

const WORK: Duration = Duration::from_millis(100);
/// The first to come have the three backends, then others come, then the first ones leave.
const OTHERS_COME: Duration = Duration::from_millis(20);
const FIRST_LEAVE: Duration = Duration::from_millis(30);
const WAVES: usize = 30;
const WAVES_IF_QUICK: usize = 10;
/// Those who stay have waited for two services by then, twenty times over.
const PATIENCE: Duration = Duration::from_secs(4);

pub async fn run(setting: &Setting, contenders: &[Contender], quick: bool) -> Result<Case> {
    let waves = if quick { WAVES_IF_QUICK } else { WAVES };
    let mut table = Table::new(&[
        "",
        "overlaps in a backend",
        "served",
        "stayed",
        "answered of those",
    ]);
    for contender in contenders {
        eprintln!("clients that leave: {}", contender.name);
        table.row(one(setting, contender, waves).await?);
    }
    let text = format!(
        "{waves} waves. In each, three clients have the three backends, whose work takes {} ms; {} ms later \
         three others ask; after {} ms more the first three hang up, two by closing and one by a reset. *Served* \
         are the requests that backends worked on to the end, for whomever. Without \
         slots the three others overlap whether anybody leaves or not.",
        WORK.as_millis(),
        OTHERS_COME.as_millis(),
        FIRST_LEAVE.as_millis(),
    );
    Ok(Case {
        title: "Clients that leave in mid-service",
        text,
        table,
    })
}

async fn one(setting: &Setting, contender: &Contender, waves: usize) -> Result<Vec<String>> {
    let backends = serial::three(WORK).await?;
    let running = contender.start(setting, serial::ports(&backends)).await?;
    let mut answered = 0;
    for _ in 0..waves {
        answered += wave(running.port).await?;
        until_idle(&backends).await;
    }
    Ok(vec![
        contender.name.into(),
        count(serial::overlaps(&backends)),
        count(serial::served(&backends)),
        count(3 * waves as u64),
        count(answered),
    ])
}

/// How many of the three that stay are answered with 200.
async fn wave(port: u16) -> Result<u64> {
    let mut first = three_ask(port).await?;
    sleep(OTHERS_COME).await;
    let others = three_ask(port).await?;
    sleep(FIRST_LEAVE).await;
    if let Some(client) = first.pop() {
        client.reset()?;
    }
    drop(first);
    let mut answered = 0;
    for mut client in others {
        let answer = timeout(PATIENCE, client.answer()).await;
        answered += u64::from(matches!(answer, Ok(Ok(answer)) if answer.status == 200));
    }
    Ok(answered)
}

async fn three_ask(port: u16) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(port).await?;
        client.send(&request("/home")).await?;
        clients.push(client);
    }
    Ok(clients)
}

/// Waves must not meet.
async fn until_idle(backends: &[Backend]) {
    let idle = async {
        while !serial::are_idle(backends) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = timeout(PATIENCE, idle).await;
    // For the balancer to see what the backends have seen.
    sleep(Duration::from_millis(30)).await;
}
