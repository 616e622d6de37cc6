//! One ping of each target, for cron jobs and for a look: no history, no schedule.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::PINGS_MAX;
use super::file::judged;
use super::look::{Memory, Turns, begin, finish};
use super::plan::{Plan, Target};
use super::record::{Judgement, Record};
use crate::health::{HealthFile, Report, State, WriteError, Writer};

/// How long to wait until nobody else is at the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one target came to; `None`: it is in maintenance and was not pinged.
type Row<'a> = (&'a Target, Option<Judgement>);

/// Pings every target that is not in maintenance once, all at the same time (up to 256), and writes
/// what that comes to into the health file: the single ping decides, unless it is inconclusive; that keeps
/// what the file says. Gives a table for a terminal,
/// in the order of the targets.
///
/// # Errors
///
/// When another poller has the lock, or the file is spoilt, then without a ping; or when it could not be
/// written.
pub async fn once(plan: &Plan) -> Result<String, WriteError> {
    let mut writer = Writer::new(plan.file.clone());
    writer.hold()?;
    let maintained = patiently(|| writer.maintained()).await?;
    let file = HealthFile::open(plan.file.clone());
    let report = file.latest().report.as_deref();
    let rows = round(plan, &maintained.into_iter().collect(), report).await;
    let entries: Vec<_> = rows
        .iter()
        .filter_map(|(target, judgement)| Some((target.name.clone(), judgement.clone()?)))
        .collect();
    patiently(|| writer.write(judged(&entries), plan.detail)).await?;
    Ok(table(&rows))
}

/// Tries again while somebody else is at the file.
async fn patiently<T>(mut work: impl FnMut() -> Result<T, WriteError>) -> Result<T, WriteError> {
    let start = Instant::now();
    loop {
        match work() {
            Err(WriteError::Busy { wait, .. }) if start.elapsed() < PATIENCE => sleep(wait).await,
            result => return result,
        }
    }
}

async fn round<'a>(
    plan: &'a Plan,
    maintained: &HashSet<String>,
    report: Option<&Report>,
) -> Vec<Row<'a>> {
    let turns = Arc::new(Turns::new(PINGS_MAX, Arc::default()));
    let begun: Vec<_> = plan
        .targets
        .iter()
        .map(|target| {
            let is_pinged =
                target.state != State::Maint && !maintained.contains(target.name.as_str());
            is_pinged.then(|| begin(target, &turns, Memory::default()))
        })
        .collect();
    let mut rows = Vec::new();
    for (target, ping) in plan.targets.iter().zip(begun) {
        let judgement = match ping {
            Some(ping) => {
                let look = finish(&target.name, ping).await;
                // What was known counts only where the look says nothing.
                let is_conclusive = look.reading.is_good().is_some();
                let known = report.and_then(|report| report.verdict(target.name.as_str()));
                let known = known.filter(|_| !is_conclusive).map(|known| known.healthy);
                Some(Record::new(&target.params, known).judge(&target.params, &look))
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
        Some(judgement) => (judgement.verdict.name(), judgement.reason.as_str()),
    };
    [
        target.name.to_string(),
        target.address.to_string(),
        state.to_owned(),
        detail.to_owned(),
    ]
}
