//! Owns the schedule: which backend gets which fault and when, and what is written into the health file. Every lane
//! draws from a generator of its own that the seed decides, so the same seed deals the same faults.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use fastrand::Rng;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::farm::{Backend, Farm, UPSTREAMS};
use crate::fault::{Deck, Fault, some_millis};
use crate::gate::Gate;

/// As many faults each upstream has at a time.
const LANES: usize = 2;

/// The lanes of all upstreams.
pub struct Mischief {
    lanes: Vec<(usize, Rng, Deck)>,
    health: Rng,
}

impl Mischief {
    pub fn new(rng: &mut Rng, kinds: &[Fault]) -> Self {
        let lanes = (0..UPSTREAMS.len() * LANES)
            .map(|lane| (lane / LANES, rng.fork(), Deck::new(kinds.to_vec())))
            .collect();
        let health = rng.fork();
        Self { lanes, health }
    }

    /// Until the gate closes. Then everybody is sound, and the file says so.
    pub async fn make(&mut self, farm: &Rc<Farm>, gate: &Gate, file: &HealthFile) -> Result<()> {
        let mut tasks = JoinSet::new();
        for (upstream, mut rng, mut deck) in self.lanes.drain(..) {
            let (farm, gate) = (Rc::clone(farm), gate.clone());
            tasks.spawn_local(async move {
                let outcome = lane(&farm, &gate, upstream, &mut rng, &mut deck).await;
                outcome.map(|()| (upstream, rng, deck))
            });
        }
        write_health(farm, gate, &mut self.health, file).await?;
        for lane in tasks.join_all().await {
            self.lanes.push(lane?);
        }
        self.lanes.sort_by_key(|(upstream, ..)| *upstream);
        Ok(())
    }
}

async fn lane(
    farm: &Farm,
    gate: &Gate,
    upstream: usize,
    rng: &mut Rng,
    deck: &mut Deck,
) -> Result<()> {
    while gate.wait(some_millis(rng, 50..500)).await {
        let Some(backend) = farm.claim(upstream, rng) else {
            continue;
        };
        if let Some(fault) = deck.deal(rng) {
            let length = some_millis(rng, 200..3_000);
            let until = async {
                gate.wait(length).await;
            };
            farm.strike(backend, fault, rng, until).await?;
        }
        backend.release();
    }
    Ok(())
}

/// The health file, and what it says of whom.
pub struct HealthFile {
    path: PathBuf,
}

impl HealthFile {
    /// In which everybody is healthy.
    pub fn new(path: &Path, farm: &Farm) -> Result<Self> {
        let file = Self {
            path: path.to_owned(),
        };
        file.rename_to(&file.text(farm, &BTreeMap::new()))?;
        Ok(file)
    }

    fn text(&self, farm: &Farm, others: &BTreeMap<&str, Value>) -> String {
        let verdict = |backend: &Backend| {
            let other = others.get(backend.name.as_str());
            (backend.name.clone(), other.cloned().unwrap_or(json!(true)))
        };
        let report: BTreeMap<String, Value> = farm.backends().iter().map(verdict).collect();
        json!(report).to_string()
    }

    fn rename_to(&self, text: &str) -> Result<()> {
        let new = self.path.with_extension("new");
        fs::write(&new, text)?;
        Ok(fs::rename(new, &self.path)?)
    }
}

/// Calls backends sick for a while, one of each upstream at a time, in the ways in which people write files.
async fn write_health(farm: &Farm, gate: &Gate, rng: &mut Rng, file: &HealthFile) -> Result<()> {
    let verdicts = [
        json!(false),
        json!({ "healthy": false, "reason": "soak" }),
        json!({ "healthy": true, "state": "drain" }),
        json!({ "healthy": true, "state": "maint" }),
    ];
    while gate.wait(some_millis(rng, 100..1_000)).await {
        let claimed: Vec<&Backend> = (0..UPSTREAMS.len())
            .filter_map(|upstream| farm.claim(upstream, rng))
            .collect();
        let verdict = &verdicts[rng.usize(..verdicts.len())];
        let others = claimed.iter().map(|it| (it.name.as_str(), verdict.clone()));
        let text = file.text(farm, &others.collect());
        match rng.u8(..4) {
            0 => fs::write(&file.path, &text)?,
            1 => {
                // Half of it is a report that is broken: the last one holds.
                fs::write(&file.path, &text[..text.len() / 2])?;
                gate.wait(some_millis(rng, 0..300)).await;
                file.rename_to(&text)?;
            }
            2 => {
                fs::remove_file(&file.path)?;
                gate.wait(some_millis(rng, 0..300)).await;
                file.rename_to(&text)?;
            }
            _ => file.rename_to(&text)?,
        }
        gate.wait(some_millis(rng, 100..2_000)).await;
        file.rename_to(&file.text(farm, &BTreeMap::new()))?;
        for backend in claimed {
            backend.release();
        }
    }
    Ok(())
}
