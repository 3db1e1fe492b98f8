//! The atomics, cells and threads of the lock-free structures: std's, or loom's when built with `--cfg loom` to check them.

#[cfg(loom)]
pub(super) use loom::{
    cell::UnsafeCell,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence},
    thread::{self, Thread},
};

#[cfg(not(loom))]
pub(super) use self::std_cell::UnsafeCell;
#[cfg(not(loom))]
pub(super) use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence},
    thread::{self, Thread},
};

/// Waits for another thread to go on: a few turns of spinning, then by giving the processor away.
pub(super) struct Patience(#[cfg(not(loom))] crossbeam::utils::Backoff);

impl Patience {
    pub(super) fn new() -> Self {
        Self(
            #[cfg(not(loom))]
            crossbeam::utils::Backoff::new(),
        )
    }

    pub(super) fn wait(&self) {
        #[cfg(not(loom))]
        self.0.snooze();
        #[cfg(loom)]
        thread::yield_now();
    }
}

#[cfg(not(loom))]
mod std_cell {
    /// [`std::cell::UnsafeCell`] with loom's way of access, so that each structure is one source.
    #[derive(Debug)]
    pub(in crate::queue) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(in crate::queue) fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        /// Calls `f` with a pointer to the value that is only read; what may be done with it is the caller's argument.
        #[inline]
        pub(in crate::queue) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Calls `f` with a pointer to the value; what may be done with it is the caller's argument.
        #[inline]
        pub(in crate::queue) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}
