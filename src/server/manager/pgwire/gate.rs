//! Who may be connected: so many who have said who they are, and so many who have not yet.
//!
//! Invariants:
//! 1. Places of those who were let in are held by nobody else: who is silent, or guesses keys, keeps no client out.
//! 2. Who is not let in within [`PATIENCE`] is dropped, whatever it sends; and before that, whoever has been at it longest, when there are
//!    [`STARTING`] of them and one more comes.
//! 3. Who was refused is dropped once it may have been told why: it asks nothing.
//!
//! Who was let in may be silent for as long as it likes, as in PostgreSQL.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::super::lock;

/// Connections of clients that were let in.
pub(super) const CONNECTIONS: usize = 100;
/// Connections of clients that were not let in yet.
const STARTING: usize = 100;
/// How long a client may take to be let in: PostgreSQL's `authentication_timeout`.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a client that was refused may take to read why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The places of all connections.
#[derive(Debug)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    starting: Mutex<VecDeque<Arc<Visitor>>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(CONNECTIONS)), starting: Mutex::default() }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Visitor {
    is: watch::Sender<Is>,
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Starting,
    LetIn,
    Refused,
    /// Its place is another's.
    Dropped,
}

impl Gate {
    /// One who has come, and not said who it is.
    pub(super) fn arrive(&self) -> Arc<Visitor> {
        let visitor = Arc::new(Visitor { is: watch::Sender::new(Is::Starting), place: Mutex::default() });
        let mut starting = lock(&self.starting);
        if starting.len() >= STARTING
            && let Some(oldest) = starting.pop_front()
        {
            oldest.is.send_replace(Is::Dropped);
        }
        starting.push_back(Arc::clone(&visitor));
        visitor
    }

    /// Gives one who has said who it is a place among those who were let in. False: there is none.
    pub(super) fn let_in(&self, visitor: &Arc<Visitor>) -> bool {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return false };
        *lock(&visitor.place) = Some(place);
        self.leave(visitor);
        // One that was dropped in this moment stays so.
        visitor.is.send_if_modified(|is| {
            let comes_in = *is == Is::Starting;
            if comes_in {
                *is = Is::LetIn;
            }
            comes_in
        });
        true
    }

    /// It is no more among those who have not said who they are.
    pub(super) fn leave(&self, visitor: &Arc<Visitor>) {
        lock(&self.starting).retain(|other| !Arc::ptr_eq(other, visitor));
    }
}

impl Visitor {
    /// Whether it was let in, and may ask.
    pub(super) fn is_in(&self) -> bool {
        *self.is.borrow() == Is::LetIn
    }

    /// It is told why it is not served, and is to go.
    pub(super) fn refuse(&self) {
        self.is.send_replace(Is::Refused);
    }

    /// Returns when it is to be dropped.
    pub(super) async fn is_to_go(&self) {
        self.is_to_go_after(PATIENCE).await;
    }

    async fn is_to_go_after(&self, patience: Duration) {
        let mut seen = self.is.subscribe();
        // The sender is here.
        let is_late = tokio::time::timeout(patience, seen.wait_for(|is| *is != Is::Starting)).await.is_err();
        if is_late {
            return;
        }
        let end = seen.wait_for(|is| matches!(is, Is::Refused | Is::Dropped)).await.map(|is| *is);
        if matches!(end, Ok(Is::Refused)) {
            tokio::time::sleep(LAST_WORDS).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    async fn goes(visitor: &Visitor, patience: Duration) -> bool {
        tokio::time::timeout(3 * SOON, visitor.is_to_go_after(patience)).await.is_ok()
    }

    #[tokio::test]
    async fn who_is_not_let_in_in_time_goes_and_who_was_let_in_stays() {
        let gate = Gate::default();
        let (silent, known) = (gate.arrive(), gate.arrive());
        assert!(gate.let_in(&known) && known.is_in() && !silent.is_in());
        assert!(goes(&silent, SOON).await);
        assert!(!goes(&known, SOON).await, "it may be silent");
        known.refuse();
        assert!(!known.is_in());
        assert!(!goes(&known, SOON).await, "it is given time to read why");
        assert!(tokio::time::timeout(2 * LAST_WORDS, known.is_to_go_after(SOON)).await.is_ok());
    }

    #[tokio::test]
    async fn the_one_that_has_started_longest_makes_room() {
        let gate = Gate::default();
        let known = gate.arrive();
        assert!(gate.let_in(&known));
        let silent: Vec<_> = (0..STARTING).map(|_| gate.arrive()).collect();
        assert!(!goes(&silent[0], PATIENCE).await);
        let late = gate.arrive();
        assert!(goes(&silent[0], PATIENCE).await);
        for stays in [&known, &silent[1], &late] {
            assert!(!goes(stays, PATIENCE).await);
        }
        // One that has been dropped is not let in.
        assert!(gate.let_in(&silent[0]) && !silent[0].is_in());
        gate.leave(&silent[1]);
        let _another = gate.arrive();
        assert!(!goes(&silent[2], PATIENCE).await);
    }

    #[test]
    fn there_are_so_many_places_and_they_come_back() {
        let gate = Gate::default();
        let mut visitors: Vec<_> = (0..CONNECTIONS).map(|_| gate.arrive()).collect();
        assert!(visitors.iter().all(|visitor| gate.let_in(visitor)));
        let more = gate.arrive();
        assert!(!gate.let_in(&more) && !more.is_in());
        gate.leave(&visitors.pop().unwrap());
        assert!(gate.let_in(&more) && more.is_in());
    }
}
