//! What views have changed lately, kept for those that listen: each step's delta once it may leave the process.
//!
//! Invariants:
//! 1. Of a view all deltas of the steps after [`Changes::from`] are there, up to the last step; older ones are dropped when there are more bytes of
//!    them, or they are older, than is configured. So a listener that knows how far it came misses and repeats nothing,
//!    or is told that it fell behind.
//! 2. A listener never makes the pipeline wait.
//!
//! Known limits: it is in memory. After a restart it begins with the steps that are replayed: behind the newest checkpoint.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::config::HttpConfig;
use crate::circuit::Delta;

/// About as many bytes of deltas are handed to a listener at a time.
const PART_BYTES: usize = 4 << 20;

/// All views' changes.
#[derive(Debug)]
pub struct Feed {
    /// The life that step numbers belong to: the pipeline's, if replays make the same steps; the process's otherwise.
    pub scope: uuid::Uuid,
    config: HttpConfig,
    views: Vec<Mutex<View>>,
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct View {
    /// Deltas that are not empty, by step.
    deltas: VecDeque<(u64, Arc<Delta>, Duration)>,
    bytes: usize,
    /// Steps after it are all here.
    from: u64,
}

/// A view's changes after some step.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The first step after which all changes are known. Above what was asked for: some are gone.
    pub from: u64,
    /// By step; steps that did not change the view are left out.
    pub deltas: Vec<(u64, Arc<Delta>)>,
    /// The last step, whether or not it changed the view.
    pub last: u64,
}

impl Feed {
    /// A feed of this many views that begins after a step.
    pub(super) fn new(views: usize, step: u64, scope: uuid::Uuid, config: HttpConfig) -> Self {
        let view = || Mutex::new(View { from: step, ..View::default() });
        Self { scope, config, views: (0..views).map(|_| view()).collect(), last: watch::Sender::new(step) }
    }

    /// Adds a step's deltas, one a view.
    pub(super) fn publish(&self, step: u64, deltas: &[Arc<Delta>], now: Duration) {
        let HttpConfig { egress_max_bytes, egress_max_age, .. } = self.config;
        for (view, delta) in self.views.iter().zip(deltas) {
            let view = &mut *view.lock().unwrap_or_else(PoisonError::into_inner);
            if !delta.is_empty() {
                view.bytes += size(delta);
                view.deltas.push_back((step, Arc::clone(delta), now));
            }
            let is_old = |(_, _, at): &(u64, Arc<Delta>, Duration)| now.saturating_sub(*at) > egress_max_age;
            // The newest is there for those that keep up, however large it is.
            let is_over = |view: &View| view.bytes as u64 > egress_max_bytes && view.deltas.len() > 1;
            while view.deltas.front().is_some_and(|oldest| is_over(view) || is_old(oldest)) {
                if let Some((step, delta, _)) = view.deltas.pop_front() {
                    view.bytes -= size(&delta);
                    view.from = step;
                }
            }
        }
        self.last.send_replace(step);
    }

    /// What a view changed after a step, as far as it is known: of many deltas the first only.
    pub fn after(&self, view: usize, step: u64) -> Option<Changes> {
        let last = *self.last.borrow();
        let view = self.views.get(view)?.lock().unwrap_or_else(PoisonError::into_inner);
        let first = view.deltas.partition_point(|(s, ..)| *s <= step);
        let mut bytes = 0;
        let mut deltas = Vec::new();
        for (s, delta, _) in view.deltas.iter().skip(first) {
            if bytes > PART_BYTES {
                return Some(Changes { from: view.from, last: deltas.last().map_or(step, |(s, _)| *s), deltas });
            }
            bytes += size(delta);
            deltas.push((*s, Arc::clone(delta)));
        }
        // A step that is being published may be here already.
        Some(Changes { from: view.from, last: deltas.last().map_or(last, |(s, _)| last.max(*s)), deltas })
    }

    /// Tells of each new step.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}

fn size(delta: &Delta) -> usize {
    delta.rows.get_array_memory_size() + 8 * delta.len()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn delta(rows: usize) -> Arc<Delta> {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let column = Arc::new(Int64Array::from_value(7, rows));
        Arc::new(Delta::inserts(RecordBatch::try_new(schema, vec![column]).unwrap()))
    }

    #[test]
    fn what_is_too_much_or_too_old_is_dropped_and_told() {
        let (egress_max_bytes, egress_max_age) = (1 << 20, Duration::from_secs(60));
        let config = HttpConfig { egress_max_bytes, egress_max_age, ..HttpConfig::default() };
        let feed = Feed::new(2, 10, uuid::Uuid::nil(), config);
        feed.publish(11, &[delta(1), delta(0)], Duration::ZERO);
        feed.publish(12, &[delta(2), delta(3)], Duration::from_secs(1));
        let steps = |view: usize, after: u64| {
            let changes = feed.after(view, after).unwrap();
            (changes.from, changes.deltas.iter().map(|(step, _)| *step).collect::<Vec<_>>(), changes.last)
        };
        assert_eq!(steps(0, 10), (10, vec![11, 12], 12));
        assert_eq!(steps(0, 11), (10, vec![12], 12));
        assert_eq!(steps(1, 10), (10, vec![12], 12));
        let large = (1 << 20) / 16 - 10;
        feed.publish(13, &[delta(large), delta(0)], Duration::from_secs(2));
        assert_eq!(steps(0, 10).0, 12, "the small ones had to go");
        assert_eq!(steps(0, 12), (12, vec![13], 13));
        feed.publish(14, &[delta(0), delta(0)], egress_max_age + Duration::from_secs(3));
        assert_eq!(steps(1, 12), (12, vec![], 14));
        assert_eq!(steps(0, 13), (13, vec![], 14));
        assert!(feed.after(2, 0).is_none());
    }
}
