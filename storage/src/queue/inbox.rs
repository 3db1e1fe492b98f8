//! Many put, one takes all: a lock-free list (Treiber's stack, R. K. Treiber 1986, that is only ever emptied whole).
//!
//! Invariants, on which the SAFETY arguments rest:
//! 1. A node is reachable from `head` or owned by exactly one [`Taken`], never both: a push links its own new node, a
//!    take unlinks all at once by swapping `head` for null.
//! 2. Nobody follows a pointer that it has not taken: `push` writes the old head into its node without reading through
//!    it. So a node may be freed as soon as it is taken, and that an address comes back is harmless.

use std::ptr;

use super::sync::{AtomicPtr, Ordering};

struct Node<T> {
    item: T,
    next: *mut Node<T>,
}

/// The list. Items come out newest first.
pub(crate) struct Inbox<T> {
    head: AtomicPtr<Node<T>>,
}

// SAFETY: (1) items move in by `push` and out by `take`, each to one thread; the inbox never shares one. (2) What is
// left is dropped by whoever drops the inbox: `T: Send`.
unsafe impl<T: Send> Sync for Inbox<T> {}
// SAFETY: as above: an inbox owns its items.
unsafe impl<T: Send> Send for Inbox<T> {}

impl<T> Inbox<T> {
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    pub(crate) fn push(&self, item: T) {
        let node = Box::into_raw(Box::new(Node { item, next: ptr::null_mut() }));
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: (1) `node` came from a box just now and is not linked yet: it is ours alone (invariant 1).
            unsafe { (*node).next = head };
            // Release: whoever takes the node sees what it holds.
            match self.head.compare_exchange_weak(head, node, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// All that is there.
    pub(crate) fn take(&self) -> Taken<T> {
        // Most calls find nothing: a load does not fight over the cache line.
        if self.is_empty() {
            return Taken { next: ptr::null_mut() };
        }
        // Acquire: pairs with the Release of every push in the list, each of which goes on the release sequence.
        Taken { next: self.head.swap(ptr::null_mut(), Ordering::Acquire) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Items that were taken, newest first.
pub(crate) struct Taken<T> {
    next: *mut Node<T>,
}

impl<T> Iterator for Taken<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.next.is_null() {
            return None;
        }
        // SAFETY: (1) the node came from `Box::into_raw` in `push`, and by invariant 1 it is ours alone since the swap.
        // (2) The Acquire of the swap orders the pusher's writes before this. (3) `next` moves on below, so each node
        // is boxed again once.
        let node = unsafe { Box::from_raw(self.next) };
        self.next = node.next;
        Some(node.item)
    }
}

impl<T> Drop for Taken<T> {
    fn drop(&mut self) {
        for item in self.by_ref() {
            drop(item);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::Inbox;

    #[test]
    fn every_item_is_taken_once() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::new());
            let pushers: Vec<_> = (0..2)
                .map(|i| {
                    let inbox = inbox.clone();
                    thread::spawn(move || inbox.push(Box::new(i)))
                })
                .collect();
            let mut got: Vec<usize> = inbox.take().map(|b| *b).collect();
            pushers.into_iter().for_each(|p| p.join().unwrap());
            got.extend(inbox.take().map(|b| *b));
            got.sort_unstable();
            assert_eq!(got, [0, 1]);
        });
    }

    #[test]
    fn what_is_left_is_dropped_once() {
        loom::model(|| {
            let item = Arc::new(());
            let inbox = Arc::new(Inbox::new());
            let (theirs, copy) = (inbox.clone(), item.clone());
            let pusher = thread::spawn(move || theirs.push(copy));
            inbox.push(item.clone());
            drop(inbox.take().next());
            pusher.join().unwrap();
            drop(inbox);
            assert_eq!(Arc::strong_count(&item), 1);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Inbox;

    #[test]
    fn newest_first_and_all_at_once() {
        let inbox = Inbox::new();
        assert!(inbox.is_empty() && inbox.take().next().is_none());
        (0..3).for_each(|i| inbox.push(i));
        assert!(!inbox.is_empty());
        assert_eq!(inbox.take().collect::<Vec<_>>(), [2, 1, 0]);
        assert!(inbox.is_empty());
    }
}
