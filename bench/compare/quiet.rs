//! Owns the question whether the machine is ours: what other programs take distorts every figure, by time on the
//! core and even more by what they leave in its caches.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::process::{Program, cpu_time_of};

/// The unit of `/proc/stat` (`USER_HZ`, which is 100 wherever Linux runs today).
const TICK: Duration = Duration::from_millis(10);
/// How long to look before saying that it is quiet.
const LOOK: Duration = Duration::from_millis(400);
/// Up to this share of a core it is.
const QUIET: f64 = 0.1;

/// A moment: the time, what all processors have done, and what we have.
pub struct Moment {
    at: Instant,
    everybody: Duration,
    own: Duration,
}

impl Moment {
    /// `programs`: those of ours that do anything.
    pub fn now(programs: &[&Program]) -> Result<Self> {
        let mut own = cpu_time_of(Path::new("/proc/self"))?;
        for program in programs {
            own += program.cpu_time()?;
        }
        let stat = fs::read_to_string("/proc/stat")?;
        let everybody = busy(&stat).context("/proc/stat has no line for all processors")?;
        Ok(Self {
            at: Instant::now(),
            everybody,
            own,
        })
    }

    /// What others took since this moment, as a share of one core.
    pub fn others_until(&self, later: &Self) -> f64 {
        let everybody = later.everybody.saturating_sub(self.everybody);
        let own = later.own.saturating_sub(self.own);
        let elapsed = later.at.duration_since(self.at).max(TICK);
        everybody.saturating_sub(own).as_secs_f64() / elapsed.as_secs_f64()
    }
}

/// Waits until others are quiet or `patience` is used up; takes what it waited off it.
pub async fn wait(patience: &mut Duration) -> Result<()> {
    while !patience.is_zero() {
        let before = Moment::now(&[])?;
        tokio::time::sleep(LOOK).await;
        if before.others_until(&Moment::now(&[])?) <= QUIET {
            return Ok(());
        }
        *patience = patience.saturating_sub(LOOK);
    }
    Ok(())
}

/// User, nice, system, interrupts of both kinds; not idle, not waiting, and not what other machines stole.
fn busy(stat: &str) -> Option<Duration> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u32> = line
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let ticks = [0, 1, 2, 5, 6]
        .iter()
        .map(|&field| fields.get(field))
        .sum::<Option<u32>>()?;
    Some(TICK * ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_processors_are_not_busy() {
        let stat = "cpu  100 1 20 9999 9999 3 4 9999 0 0\ncpu0 1 2 3\n";
        assert_eq!(busy(stat), Some(Duration::from_millis(1280)));
        assert_eq!(busy("cpu0 1 2 3"), None);
    }

    #[test]
    fn what_is_not_ours_is_the_others() {
        let seconds = Duration::from_secs;
        let at = Instant::now();
        let before = Moment {
            at,
            everybody: seconds(10),
            own: seconds(5),
        };
        let later = Moment {
            at: at + seconds(2),
            everybody: seconds(14),
            own: seconds(8),
        };
        assert!((before.others_until(&later) - 0.5).abs() < 1e-9);
    }
}
