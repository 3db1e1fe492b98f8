//! The atomics and cell of the ring: std's, or loom's when built with `--cfg loom` to check it.

#[cfg(loom)]
pub(super) use loom::{
    cell::UnsafeCell,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};

#[cfg(not(loom))]
pub(super) use self::std_cell::UnsafeCell;
#[cfg(not(loom))]
pub(super) use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

#[cfg(not(loom))]
mod std_cell {
    /// [`std::cell::UnsafeCell`] with loom's way of access, so that the ring is one source.
    #[derive(Debug)]
    pub(in crate::queue) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(in crate::queue) fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        /// Calls `f` with a pointer to the value; what may be done with it is the caller's argument.
        #[inline]
        pub(in crate::queue) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}
