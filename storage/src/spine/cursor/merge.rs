//! A consolidating merge of sources, in either direction.
//!
//! Invariants:
//! 1. Sources stand newest first. Between two calls, while the merge stands on a row, each source is at its end or at its first row
//!    beyond the current one in the direction of the walk; only the current row's own source, the newest that has it, stands on it.
//! 2. `heap` is a binary heap of the sources that stand on a row, the next in order at its root, of equal rows the newest: finding the
//!    next row takes about two comparisons a level, and none at all for a single source. Abbreviated keys stand in the heap itself.

use std::cmp::Ordering;
use std::mem;
use std::sync::Arc;

use super::source::{Goal, Source};
use crate::Result;
use crate::spine::{Discipline, Floor};

/// A source that stands on a row.
#[derive(Clone, Copy, Debug)]
struct Head {
    prefix: u64,
    source: usize,
}

/// See the module's head.
#[derive(Debug)]
pub(in crate::spine) struct Merge {
    discipline: Discipline,
    /// Whether tombstones are shown: something older that is not merged may hold their keys.
    tombstones: bool,
    /// Which rows are passed over.
    floor: Option<Arc<Floor>>,
    /// Newest first.
    sources: Vec<Source>,
    heap: Vec<Head>,
    backward: bool,
    /// Whether it stands on the row at the heap's root.
    standing: bool,
    weight: i64,
    /// Where it stood, while it turns round.
    turn: (Vec<u8>, Vec<u8>),
}

impl Merge {
    /// A merge that stands nowhere: rewind or seek it.
    pub(in crate::spine) fn new(
        discipline: Discipline,
        tombstones: bool,
        floor: Option<Arc<Floor>>,
        sources: Vec<Source>,
    ) -> Self {
        Self {
            discipline,
            tombstones,
            floor,
            sources,
            heap: Vec::new(),
            backward: false,
            standing: false,
            weight: 0,
            turn: (Vec::new(), Vec::new()),
        }
    }

    /// Goes to the first row.
    pub(in crate::spine) fn rewind(&mut self) -> Result<()> {
        self.place(false, Goal::First)
    }

    /// Goes to the last row.
    pub(in crate::spine) fn seek_last(&mut self) -> Result<()> {
        self.place(true, Goal::Last)
    }

    /// Goes to the first row at or above `(key, value)`.
    pub(in crate::spine) fn seek(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        // In a latest spine a key has one row: its value plays no part in the order.
        let value = if self.discipline == Discipline::Latest { &[] } else { value };
        self.place(false, Goal::AtOrAbove(key, value))
    }

    /// Goes to the last row whose key is at most `key`.
    pub(in crate::spine) fn seek_for_prev(&mut self, key: &[u8]) -> Result<()> {
        let mut next = mem::take(&mut self.turn.0);
        next.clear();
        next.extend_from_slice(key);
        next.push(0);
        let placed = self.place(true, Goal::Below(&next, &[]));
        self.turn.0 = next;
        placed
    }

    pub(in crate::spine) fn next(&mut self) -> Result<()> {
        if !self.standing {
            return Ok(());
        }
        if self.backward {
            return self.turn_round();
        }
        self.go_on()
    }

    pub(in crate::spine) fn prev(&mut self) -> Result<()> {
        if !self.standing {
            return Ok(());
        }
        if !self.backward {
            return self.turn_round();
        }
        self.go_on()
    }

    fn go_on(&mut self) -> Result<()> {
        self.standing = false;
        self.step(0)?;
        self.settle()?;
        self.pass_hidden()
    }

    /// Goes to the row before the current one if it went forward, else to the one after it.
    fn turn_round(&mut self) -> Result<()> {
        let (mut key, mut value) = mem::take(&mut self.turn);
        key.clear();
        key.extend_from_slice(self.key());
        value.clear();
        if self.discipline == Discipline::Weighted {
            value.extend_from_slice(self.value());
        }
        let placed = if self.backward {
            // The least row above the current one.
            if self.discipline == Discipline::Weighted {
                value.push(0)
            } else {
                key.push(0)
            }
            self.place(false, Goal::AtOrAbove(&key, &value))
        } else {
            self.place(true, Goal::Below(&key, &value))
        };
        self.turn = (key, value);
        placed
    }

    /// Puts all sources somewhere and goes on from there to a row that is not hidden.
    fn place(&mut self, backward: bool, goal: Goal<'_>) -> Result<()> {
        self.put(backward, goal)?;
        self.pass_hidden()
    }

    /// Goes on, in the direction of the walk, to a row that is not hidden.
    fn pass_hidden(&mut self) -> Result<()> {
        let Some(floor) = self.floor.clone() else { return Ok(()) };
        while self.standing && floor.hides(self.key()) {
            if self.backward {
                // All before with the same front are hidden, too.
                let front = self.key().get(..floor.skip).unwrap_or_default().to_vec();
                self.put(true, Goal::Below(&front, &[]))?;
            } else {
                let next = floor.first_after(self.key());
                self.put(false, Goal::AtOrAbove(&next, &[]))?;
            }
        }
        Ok(())
    }

    fn put(&mut self, backward: bool, goal: Goal<'_>) -> Result<()> {
        (self.standing, self.backward) = (false, backward);
        self.heap.clear();
        Source::ask(&mut self.sources, goal)?;
        for (number, source) in self.sources.iter_mut().enumerate() {
            source.go(goal)?;
            if source.valid() {
                self.heap.push(Head { prefix: source.prefix(), source: number });
            }
        }
        for at in (0..self.heap.len() / 2).rev() {
            self.sift_down(at);
        }
        self.settle()
    }

    /// Goes on from the root until a row is there to be shown.
    fn settle(&mut self) -> Result<()> {
        while let Some(root) = self.heap.first() {
            let mut weight = self.sources.get(root.source).map_or(0, Source::weight);
            // An equal row is at the root's lesser child, as long as there is one.
            while let Some(child) = self.lesser_child(0)
                && self.order(child, 0).0 == Ordering::Equal
            {
                if self.discipline == Discipline::Weighted {
                    weight = weight.wrapping_add(self.head(child).map_or(0, Source::weight));
                }
                self.step(child)?;
            }
            let shown = match self.discipline {
                Discipline::Weighted => weight != 0,
                Discipline::Latest => weight > 0 || self.tombstones,
            };
            if shown {
                (self.standing, self.weight) = (true, weight);
                return Ok(());
            }
            self.step(0)?;
        }
        Ok(())
    }

    /// Moves the source at `at` of the heap on by a row.
    fn step(&mut self, at: usize) -> Result<()> {
        let alone = self.heap.len() == 1;
        let Some(head) = self.heap.get_mut(at) else { return Ok(()) };
        let Some(source) = self.sources.get_mut(head.source) else { return Ok(()) };
        if self.backward {
            source.prev()?
        } else {
            source.next()?
        }
        // A source that is alone is compared with none.
        if source.valid() && alone {
            return Ok(());
        }
        if source.valid() {
            head.prefix = source.prefix();
        } else {
            self.heap.swap_remove(at);
        }
        self.sift_down(at);
        Ok(())
    }

    fn head(&self, at: usize) -> Option<&Source> {
        self.heap.get(at).and_then(|head| self.sources.get(head.source))
    }

    /// The order of the rows of two places of the heap in the direction of the walk, and of their sources.
    fn order(&self, a: usize, b: usize) -> (Ordering, Ordering) {
        let (Some(x), Some(y)) = (self.heap.get(a), self.heap.get(b)) else {
            return (Ordering::Equal, Ordering::Equal);
        };
        let mut order = x.prefix.cmp(&y.prefix);
        if order == Ordering::Equal
            && let (Some(a), Some(b)) = (self.sources.get(x.source), self.sources.get(y.source))
        {
            order = a.compare(b, self.discipline);
        }
        (if self.backward { order.reverse() } else { order }, x.source.cmp(&y.source))
    }

    fn lesser_child(&self, at: usize) -> Option<usize> {
        let left = at * 2 + 1;
        if left >= self.heap.len() {
            return None;
        }
        let right = left + 1;
        Some(if right < self.heap.len() && self.order(right, left) < (Ordering::Equal, Ordering::Equal) {
            right
        } else {
            left
        })
    }

    fn sift_down(&mut self, mut at: usize) {
        while let Some(child) = self.lesser_child(at)
            && self.order(child, at) < (Ordering::Equal, Ordering::Equal)
        {
            self.heap.swap(child, at);
            at = child;
        }
    }

    pub(in crate::spine) fn valid(&self) -> bool {
        self.standing
    }

    fn current(&self) -> Option<&Source> {
        if self.standing { self.head(0) } else { None }
    }

    pub(in crate::spine) fn key(&self) -> &[u8] {
        self.current().map_or(&[], Source::key)
    }

    pub(in crate::spine) fn value(&self) -> &[u8] {
        self.current().map_or(&[], Source::value)
    }

    pub(in crate::spine) fn weight(&self) -> i64 {
        if self.standing { self.weight } else { 0 }
    }
}
