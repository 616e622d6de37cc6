//! One ping of each target, for cron jobs and for a look: no history, no schedule.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::PINGS_MAX;
use super::file::{WriteError, write_locked};
use super::plan::{Plan, Target};
use super::polling::{begin, finish};
use super::record::{Judgement, Record};
use crate::health::{HealthFile, Writer};

/// What one target came to; `None`: it is in maintenance and was not pinged.
type Row<'a> = (&'a Target, Option<Judgement>);

/// Pings every target that is not in maintenance once, all at the same time (up to 256), and writes
/// what that comes to into the health file: the single ping decides. Gives a table for a terminal,
/// in the order of the targets.
///
/// # Errors
///
/// When another poller has the lock, then without a ping, or when the file could not be written.
pub async fn once(plan: &Plan) -> Result<String, WriteError> {
    let mut lock = Some(Writer::open(plan.file.clone())?);
    let rows = round(plan).await;
    let entries: Vec<_> = rows
        .iter()
        .filter_map(|(target, judgement)| Some((target.name.clone(), judgement.clone()?)))
        .collect();
    write_locked(&plan.file, &mut lock, &entries, plan.detail)?;
    Ok(table(&rows))
}

async fn round(plan: &Plan) -> Vec<Row<'_>> {
    let file = HealthFile::open(plan.file.clone());
    let report = file.latest().report.as_deref();
    let turns = Arc::new(Semaphore::new(PINGS_MAX));
    let begun: Vec<_> = plan
        .targets
        .iter()
        .map(|target| (!target.is_in_maintenance(report)).then(|| begin(target, &turns)))
        .collect();
    let mut rows = Vec::new();
    for (target, ping) in plan.targets.iter().zip(begun) {
        let judgement = match ping {
            Some(ping) => {
                let outcome = finish(&target.name, ping).await;
                Some(Record::new(&target.params, None).judge(&target.params, &outcome))
            }
            None => None,
        };
        rows.push((target, judgement));
    }
    rows
}

/// A head, then a line for each target, columns aligned.
fn table(rows: &[Row<'_>]) -> String {
    let head = ["NAME", "ADDRESS", "STATE", "DETAIL"].map(str::to_owned);
    let lines: Vec<[String; 4]> = std::iter::once(head)
        .chain(rows.iter().map(cells))
        .collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let [name, address, state] = [0, 1, 2].map(|column| width(column).unwrap_or(0));
    lines
        .iter()
        .map(|[a, b, c, d]| format!("{a:name$}  {b:address$}  {c:state$}  {d}\n"))
        .collect()
}

fn cells((target, judgement): &Row<'_>) -> [String; 4] {
    let (state, detail) = match judgement {
        None => ("maint", "not pinged"),
        Some(Judgement {
            healthy, reason, ..
        }) => (
            if *healthy { "healthy" } else { "unhealthy" },
            reason.as_str(),
        ),
    };
    [
        target.name.to_string(),
        target.address.to_string(),
        state.to_owned(),
        detail.to_owned(),
    ]
}
