//! The states of the groups that a step touches, while it runs.

use backstay_storage::spine::Probe;

use super::super::accumulator::{Accumulate, split};
use super::super::extrema::Current;

/// The states of the groups that a step touches.
pub(super) struct States {
    /// Whether the group had a state before the step.
    pub(super) known: Vec<bool>,
    pub(super) rows: Vec<i64>,
    pub(super) values: Vec<Values>,
    /// All values of these groups, an entry a spine of them. They are not part of the saved states.
    pub(super) ordered: Vec<Probe>,
}

/// The states of one aggregate: one entry a group.
pub(super) enum Values {
    Rows,
    /// Made of [`States::ordered`].
    Ordered,
    Accumulated(Box<dyn Accumulate>),
    Extremum(Current),
}

impl States {
    pub(super) fn push_empty(&mut self) {
        self.rows.push(0);
        for values in &mut self.values {
            match values {
                Values::Rows | Values::Ordered => {}
                Values::Accumulated(accumulator) => accumulator.push_empty(),
                Values::Extremum(current) => current.push_empty(),
            }
        }
    }

    pub(super) fn push_saved(&mut self, mut state: &[u8]) -> Option<()> {
        self.rows.push(i64::from_le_bytes(split(&mut state)?));
        for values in &mut self.values {
            match values {
                Values::Rows | Values::Ordered => {}
                Values::Accumulated(accumulator) => accumulator.push_saved(&mut state)?,
                Values::Extremum(current) => current.push_saved(&mut state)?,
            }
        }
        state.is_empty().then_some(())
    }

    pub(super) fn save(&self, group: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.rows[group].to_le_bytes());
        for values in &self.values {
            match values {
                Values::Rows | Values::Ordered => {}
                Values::Accumulated(accumulator) => accumulator.save(group, out),
                Values::Extremum(current) => current.save(group, out),
            }
        }
    }

    pub(super) fn is_zero(&self, group: usize) -> bool {
        self.rows[group] == 0
            && self.values.iter().all(|values| match values {
                Values::Rows | Values::Ordered => true,
                Values::Accumulated(accumulator) => accumulator.is_zero(group),
                Values::Extremum(current) => current.is_zero(group),
            })
    }
}
