//! The two halves of the queue, with waiting built around the lock-free ring.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::{Duration, Instant};

use crossbeam::sync::{Parker, Unparker};

use super::ring::{Consumer, Producer, ring};

/// Makes a queue of up to `capacity` items (0 is taken as 1).
///
/// ```
/// let (mut tx, mut rx) = backstay_storage::queue::channel(2);
/// tx.try_send("a")?;
/// tx.try_send("b")?;
/// assert!(tx.try_send("c").is_err_and(|e| e.is_full()));
/// assert_eq!((rx.try_recv(), rx.recv()), (Some("a"), Some("b")));
/// drop(tx);
/// assert_eq!(rx.recv(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (producer, consumer) = ring(capacity);
    let shared = Arc::new(Shared::default());
    let (send_parker, recv_parker) = (Parker::new(), Parker::new());
    let (send_unparker, recv_unparker) = (send_parker.unparker().clone(), recv_parker.unparker().clone());
    (
        Sender { ring: producer, shared: shared.clone(), parker: send_parker, receiver: recv_unparker },
        Receiver { ring: consumer, shared, parker: recv_parker, sender: send_unparker },
    )
}

/// The state beside the ring, one [`Side`] each.
#[derive(Debug, Default)]
struct Shared {
    sender: Side,
    receiver: Side,
}

/// What one half tells the other.
///
/// No wake-up is lost. The waiter (1) stores `waiting`, (2) fences, (3) looks at the ring and the other's `gone`,
/// (4) parks. The mover (a) changes the ring or `gone`, (b) fences, (c) reads `waiting` and unparks if it is set. The
/// two sequentially consistent fences are ordered: if (2) is first, (c) sees `waiting` and unparks; else (3) sees
/// the change and the waiter does not park. An unpark before the park makes the park return at once.
#[derive(Debug, Default)]
struct Side {
    /// It is parked or about to be.
    waiting: AtomicBool,
    /// It was dropped.
    gone: AtomicBool,
}

impl Side {
    /// Steps (b) and (c) above, of the other side's move.
    #[inline]
    fn wake(&self, unparker: &Unparker) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) && self.waiting.swap(false, Ordering::Relaxed) {
            unparker.unpark();
        }
    }

    /// Steps (1) to (4): parks until woken, `ready` or the deadline. `false` once the deadline has passed.
    fn wait(&self, parker: &Parker, deadline: Option<Instant>, ready: impl FnOnce() -> bool) -> bool {
        self.waiting.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let in_time = match deadline {
            _ if ready() => true,
            None => {
                parker.park();
                true
            }
            Some(deadline) => {
                parker.park_deadline(deadline);
                now() < deadline
            }
        };
        self.waiting.store(false, Ordering::Relaxed);
        in_time
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

#[expect(clippy::disallowed_methods, reason = "bounds how long a caller sleeps; no result depends on it")]
fn now() -> Instant {
    Instant::now()
}

/// When a wait of `timeout` ends; `None` if that is beyond what the clock can name, so never.
fn deadline(timeout: Duration) -> Option<Instant> {
    now().checked_add(timeout)
}

/// The sending half. One thread at a time uses it; it may move between threads.
pub struct Sender<T> {
    ring: Producer<T>,
    shared: Arc<Shared>,
    parker: Parker,
    receiver: Unparker,
}

/// The receiving half. One thread at a time uses it; it may move between threads.
pub struct Receiver<T> {
    ring: Consumer<T>,
    shared: Arc<Shared>,
    parker: Parker,
    sender: Unparker,
}

impl<T> Sender<T> {
    /// Sends if there is room, and gives the item back if there is none or the receiver is gone. Never waits.
    ///
    /// ```
    /// let (mut tx, rx) = backstay_storage::queue::channel(1);
    /// assert!(tx.try_send(1).is_ok());
    /// drop(rx);
    /// assert!(tx.try_send(2).is_err_and(|e| e.is_disconnected() && e.into_inner() == 2));
    /// ```
    pub fn try_send(&mut self, item: T) -> Result<(), TrySendError<T>> {
        if self.shared.receiver.is_gone() {
            return Err(TrySendError::Disconnected(item));
        }
        self.ring.push(item).map_err(TrySendError::Full)?;
        self.shared.receiver.wake(&self.receiver);
        Ok(())
    }

    /// Sends, waiting for room. The item comes back if the receiver is gone.
    ///
    /// ```
    /// let (mut tx, mut rx) = backstay_storage::queue::channel(1);
    /// assert_eq!(tx.send(1), Ok(()));
    /// assert_eq!(rx.recv(), Some(1));
    /// drop(rx);
    /// assert_eq!(tx.send(2), Err(2));
    /// ```
    pub fn send(&mut self, item: T) -> Result<(), T> {
        self.send_until(item, None).map_err(TrySendError::into_inner)
    }

    /// Sends, waiting up to `timeout` for room.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let (mut tx, _rx) = backstay_storage::queue::channel(1);
    /// assert!(tx.send_timeout(1, Duration::from_millis(1)).is_ok());
    /// assert!(tx.send_timeout(2, Duration::from_millis(1)).is_err_and(|e| e.is_full()));
    /// ```
    pub fn send_timeout(&mut self, item: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.send_until(item, deadline(timeout))
    }

    fn send_until(&mut self, mut item: T, deadline: Option<Instant>) -> Result<(), TrySendError<T>> {
        loop {
            item = match self.try_send(item) {
                Err(TrySendError::Full(item)) => item,
                done => return done,
            };
            let Self { ring, shared, parker, .. } = self;
            let in_time = shared.sender.wait(parker, deadline, || !ring.is_full() || shared.receiver.is_gone());
            if !in_time {
                return self.try_send(item);
            }
        }
    }

    /// Items that wait to be received.
    ///
    /// ```
    /// let (mut tx, rx) = backstay_storage::queue::channel(4);
    /// assert!(tx.is_empty());
    /// tx.try_send(())?;
    /// assert_eq!((tx.len(), rx.len(), rx.is_empty(), tx.capacity()), (1, 1, false, 4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether nothing waits to be received.
    ///
    /// ```
    /// assert!(backstay_storage::queue::channel::<u8>(1).0.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many items fit.
    ///
    /// ```
    /// assert_eq!(backstay_storage::queue::channel::<u8>(0).0.capacity(), 1);
    /// ```
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// Whether the receiver was dropped: nothing more can be sent.
    ///
    /// ```
    /// let (tx, rx) = backstay_storage::queue::channel::<u8>(1);
    /// drop(rx);
    /// assert!(tx.is_disconnected());
    /// ```
    pub fn is_disconnected(&self) -> bool {
        self.shared.receiver.is_gone()
    }
}

impl<T> Receiver<T> {
    /// Takes the oldest item, if there is one. Never waits.
    ///
    /// ```
    /// let (mut tx, mut rx) = backstay_storage::queue::channel(1);
    /// assert_eq!(rx.try_recv(), None);
    /// tx.try_send(7)?;
    /// assert_eq!(rx.try_recv(), Some(7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_recv(&mut self) -> Option<T> {
        let item = self.ring.pop()?;
        self.shared.sender.wake(&self.sender);
        Some(item)
    }

    /// Takes the oldest item, waiting for one. `None` once the sender is gone and all is received.
    ///
    /// ```
    /// let (mut tx, mut rx) = backstay_storage::queue::channel(1);
    /// tx.try_send(7)?;
    /// drop(tx);
    /// assert_eq!((rx.recv(), rx.recv()), (Some(7), None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv(&mut self) -> Option<T> {
        self.recv_until(None).ok()
    }

    /// Takes the oldest item, waiting up to `timeout` for one.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use backstay_storage::queue::{channel, RecvTimeoutError};
    /// let (tx, mut rx) = channel::<u8>(1);
    /// assert_eq!(rx.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
    /// drop(tx);
    /// assert_eq!(rx.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Disconnected));
    /// ```
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_until(deadline(timeout))
    }

    fn recv_until(&mut self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        let mut in_time = true;
        loop {
            // Read before the ring is: what was sent before the sender went must be seen.
            let gone = self.shared.sender.is_gone();
            match self.try_recv() {
                Some(item) => return Ok(item),
                None if gone => return Err(RecvTimeoutError::Disconnected),
                None if !in_time => return Err(RecvTimeoutError::Timeout),
                None => {}
            }
            let Self { ring, shared, parker, .. } = self;
            in_time = shared.receiver.wait(parker, deadline, || !ring.is_empty() || shared.sender.is_gone());
        }
    }

    /// Items that wait to be received.
    ///
    /// ```
    /// assert_eq!(backstay_storage::queue::channel::<u8>(1).1.len(), 0);
    /// ```
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether nothing waits to be received.
    ///
    /// ```
    /// assert!(backstay_storage::queue::channel::<u8>(1).1.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the sender was dropped: what is still in the queue is all there will be.
    ///
    /// ```
    /// let (tx, rx) = backstay_storage::queue::channel::<u8>(1);
    /// drop(tx);
    /// assert!(rx.is_disconnected());
    /// ```
    pub fn is_disconnected(&self) -> bool {
        self.shared.sender.is_gone()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.sender.gone.store(true, Ordering::Release);
        self.shared.receiver.wake(&self.receiver);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receiver.gone.store(true, Ordering::Release);
        self.shared.sender.wake(&self.sender);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("len", &self.len()).field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Why an item was not sent. It holds the item.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<T> {
    /// There was no room (in time).
    #[error("the queue is full")]
    Full(T),
    /// The receiver is gone.
    #[error("the receiver of the queue is gone")]
    Disconnected(T),
}

/// Why an item was not sent in time.
pub type SendTimeoutError<T> = TrySendError<T>;

impl<T> TrySendError<T> {
    /// The item that was not sent.
    ///
    /// ```
    /// assert_eq!(backstay_storage::queue::TrySendError::Full(3).into_inner(), 3);
    /// ```
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(item) | Self::Disconnected(item) => item,
        }
    }

    /// Whether there was no room.
    ///
    /// ```
    /// assert!(backstay_storage::queue::TrySendError::Full(3).is_full());
    /// ```
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Whether the receiver is gone.
    ///
    /// ```
    /// assert!(backstay_storage::queue::TrySendError::Disconnected(3).is_disconnected());
    /// ```
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected(_))
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_full() { "Full(..)" } else { "Disconnected(..)" })
    }
}

/// Why nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecvTimeoutError {
    /// Nothing came in time.
    #[error("nothing was sent in time")]
    Timeout,
    /// The sender is gone and all it sent is received.
    #[error("the sender of the queue is gone")]
    Disconnected,
}

#[cfg(all(test, not(loom)))]
mod tests;
