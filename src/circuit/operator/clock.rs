//! The clock as a relation: one row with the step's time, in the place of the one of the step before.
//!
//! Invariant: one worker alone has the row, the one that owns the rows of no key; its spine holds the time that was put out last.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use backstay_storage::spine::{Discipline, RowBatch, Spine};

use super::{OpenRole, Operator, StepContext};
use crate::circuit::delta::Delta;
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::Node;
use crate::circuit::vnode::vnode;

/// The operator; see the module.
pub struct Clock {
    label: String,
    schema: SchemaRef,
    is_owner: bool,
    /// The vnode of no key → the time, ms.
    shown: Spine,
    /// The time that this process has put out last.
    last: Option<i64>,
}

impl Clock {
    /// The operator of a clock node.
    ///
    /// # Errors
    /// A spine that does not open.
    pub fn new(node: &Node, is_owner: bool, open: &mut OpenRole<'_>) -> Result<Self> {
        let shown = open("shown", Discipline::Latest)?;
        Ok(Self { label: node.label.clone(), schema: node.schema.clone(), is_owner, shown, last: None })
    }
}

impl Operator for Clock {
    fn step(&mut self, context: &mut StepContext, _inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        if !self.is_owner {
            return Ok(Vec::new());
        }
        let now = context.clock_ms;
        let key = [vnode(&[])];
        let shown = self.shown.get(&key).map_err(CircuitError::storage(&self.label))?;
        let shown = match shown.as_deref().map(<[u8; 8]>::try_from) {
            None => None,
            Some(Ok(bytes)) => Some(i64::from_be_bytes(bytes)),
            Some(Err(_)) => {
                return Err(CircuitError::RowFormat(format!("{}: the saved time has not 8 bytes", self.label)));
            }
        };
        self.last = Some(now);
        if shown == Some(now) {
            return Ok(Vec::new());
        }
        let mut update = RowBatch::new();
        update.push(&key, &now.to_be_bytes(), 1);
        self.shown.insert_batch(&update).map_err(CircuitError::storage(&self.label))?;
        let times = shown.into_iter().chain([now]).map(|ms| ms.saturating_mul(1000));
        let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(times));
        let weights = if shown.is_some() { vec![-1, 1] } else { vec![1] };
        let delta = Delta::new(&self.schema, vec![column], weights).map_err(CircuitError::arrow(&self.label))?;
        Ok(vec![delta])
    }

    fn runs_without_input(&self) -> bool {
        true
    }

    fn next_due(&self) -> Option<i64> {
        self.last.map(|last| last.saturating_add(1))
    }

    fn spines(&mut self) -> Vec<&mut Spine> {
        vec![&mut self.shown]
    }
}
