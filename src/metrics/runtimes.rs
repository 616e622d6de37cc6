//! The runtimes that serve clients, and how many tasks they have: what is never done shows there.

use parking_lot::Mutex;
use tokio::runtime::Handle;

/// Those in which a client was served so far: one, or one for each thread where work is not shared.
#[derive(Debug, Default)]
pub struct Runtimes(Mutex<Vec<Handle>>);

impl Runtimes {
    /// Adds the runtime in which this is called, if it is not there yet; outside of any it does nothing.
    pub fn note(&self) {
        let Ok(current) = Handle::try_current() else {
            return;
        };
        let mut known = self.0.lock();
        if known.iter().all(|it| it.id() != current.id()) {
            known.push(current);
        }
    }

    /// How many tasks they have that are not done.
    pub fn tasks(&self) -> u64 {
        let known = self.0.lock();
        let tasks = known.iter().map(|it| it.metrics().num_alive_tasks());
        tasks.sum::<usize>() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_those_of_every_runtime_and_of_each_once() {
        let runtimes = Runtimes::default();
        runtimes.note();
        assert_eq!(runtimes.tasks(), 0);
        let executors = [(); 2].map(|()| {
            tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
        });
        for executor in &executors {
            executor.block_on(async {
                runtimes.note();
                runtimes.note();
                tokio::spawn(std::future::pending::<()>());
            });
        }
        assert_eq!(runtimes.tasks(), 2);
    }
}
