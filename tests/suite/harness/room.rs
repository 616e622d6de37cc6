//! Who may use the machine: tests that measure time have it to themselves, all others share it.
//!
//! A test holds one room at a time: a second one could wait behind a test that waits for the first.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::const_new(());

/// Leave to use the machine, until dropped.
pub enum Room {
    /// Beside others.
    Shared {
        _guard: RwLockReadGuard<'static, ()>,
    },
    /// With no other.
    Alone {
        _guard: RwLockWriteGuard<'static, ()>,
    },
}

impl Room {
    pub async fn shared() -> Self {
        Self::Shared {
            _guard: MACHINE.read().await,
        }
    }

    pub async fn alone() -> Self {
        Self::Alone {
            _guard: MACHINE.write().await,
        }
    }
}
