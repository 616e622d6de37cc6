//! The lock of the slots: `parking_lot` in the programs, `shuttle`'s in the model checker, which
//! needs to see every lock to explore the schedules around it.

#[cfg(not(feature = "shuttle"))]
pub(super) use parking_lot::Mutex;

#[cfg(feature = "shuttle")]
pub(super) use checked::Mutex;

#[cfg(feature = "shuttle")]
mod checked {
    /// `shuttle`'s mutex with `parking_lot`'s interface.
    pub(in super::super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in super::super) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(in super::super) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0
                .lock()
                .expect("no schedule panics while it holds the lock")
        }
    }
}
