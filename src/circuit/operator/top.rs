//! The first rows of each partition: for each partition that a step touches, the difference between its head before and after.
//!
//! Invariants:
//! 1. A partition's head is a function of its rows of positive weight alone; a row of weight n counts as n rows.
//! 2. Without a bound the output is the input less the head that is skipped.
//! 3. The work of a step is in proportion to its rows and to the heads of the partitions that they touch, never to partitions.
//!
//! 4. Where no row is ever taken back, what falls behind the head is forgotten: it cannot return.
//!
//! Known limit: a head is read to its end though only its last rows may have changed; without partition columns one worker
//! has all rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::datatypes::SchemaRef;
use backstay_storage::Result as StorageResult;
use backstay_storage::spine::{Cursor, RowBatch, Spine};

use super::ordered::{OrderedRows, Update, in_step, order_key, partitions};
use super::{OpenRole, Operator, StepContext};
use crate::circuit::delta::Delta;
use crate::circuit::error::{CircuitError, Result};
use crate::circuit::plan::{Node, Ranking, TopK};

/// Rows in one output chunk, about.
const OUTPUT_ROWS: usize = 16384;

/// The operator; see the module.
pub struct TopKOperator {
    label: String,
    schema: SchemaRef,
    ordered: OrderedRows,
    ranking: Ranking,
    /// Ranks before the head: none where it is taken away from the rest.
    skip: u64,
    /// The last rank of the head.
    end: u64,
    numbered: bool,
    /// Whether the rows behind the head are asked for.
    rest: bool,
    /// Whether rows behind the head can be forgotten.
    append_only: bool,
}

impl TopKOperator {
    /// The operator of a top-k node over rows of `input`.
    ///
    /// # Errors
    /// Ranks that are not supported together; types without a row encoding; a spine that does not open.
    pub fn new(node: &Node, input: &SchemaRef, top: &TopK, append_only: bool, open: &mut OpenRole<'_>) -> Result<Self> {
        let counts_rows = top.ranking == Ranking::RowNumber && !top.numbered;
        if (top.skip > 0 || top.fetch.is_none()) && !counts_rows {
            return Err(CircuitError::plan(&node.label, "ranks are numbered from the first on, up to a bound"));
        }
        let (skip, end) = match top.fetch {
            Some(fetch) => (top.skip, top.skip.saturating_add(fetch)),
            None => (0, top.skip),
        };
        Ok(Self {
            label: node.label.clone(),
            schema: Arc::clone(&node.schema),
            ordered: OrderedRows::new(input, &top.partition, &top.order, open)?,
            ranking: top.ranking,
            skip,
            end,
            numbered: top.numbered,
            rest: top.fetch.is_none(),
            append_only,
        })
    }

    /// Reads a partition's head: rows → big-endian rank, if it is asked for. Partitions must be asked for in ascending order.
    fn head(&self, cursor: &mut Cursor, partition: &[u8], head: &mut RowBatch) -> StorageResult<()> {
        head.clear();
        if self.end == 0 {
            return Ok(());
        }
        cursor.seek(partition)?;
        let (mut before, mut rank) = (0u64, 0u64);
        while cursor.valid() && cursor.key() == partition {
            let copies = u64::try_from(cursor.weight()).unwrap_or(0);
            if copies > 0 {
                let row = cursor.value();
                if self.ranking == Ranking::RowNumber {
                    let (from, to) = (before.max(self.skip), before.saturating_add(copies).min(self.end));
                    if self.numbered {
                        (from + 1..=to).for_each(|number| head.push(row, &number.to_be_bytes(), 1));
                    } else if from < to {
                        head.push(row, &[], (to - from).cast_signed());
                    }
                } else {
                    let last = head.len().checked_sub(1).map(|i| order_key(head.key(i)));
                    if last != Some(order_key(row)) {
                        rank = if self.ranking == Ranking::Rank { before + 1 } else { rank + 1 };
                    }
                    if rank > self.end {
                        break;
                    }
                    let number = rank.to_be_bytes();
                    head.push(row, if self.numbered { &number } else { &[] }, copies.cast_signed());
                }
                before = before.saturating_add(copies);
                if self.ranking == Ranking::RowNumber && before >= self.end {
                    break;
                }
            }
            cursor.next()?;
        }
        Ok(())
    }

    /// Takes the rows behind the head of a partition that was just read.
    fn behind(&self, cursor: &mut Cursor, partition: &[u8], out: &mut RowBatch) -> StorageResult<()> {
        let mut is_head = self.ranking == Ranking::RowNumber;
        while self.end > 0 && cursor.valid() && cursor.key() == partition {
            // The head ends with the row whose copies reach its bound.
            if !std::mem::take(&mut is_head) {
                out.push(partition, cursor.value(), cursor.weight().wrapping_neg());
            }
            cursor.next()?;
        }
        Ok(())
    }

    /// The output of rows with their ranks.
    fn emit(&self, changes: &RowBatch, out: &mut Vec<Delta>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut columns = self.ordered.decode(changes.iter().map(|(row, _, _)| row))?;
        if self.numbered {
            let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).unwrap_or_default();
            let numbers: ArrayRef =
                Arc::new(UInt64Array::from_iter_values(changes.iter().map(|(_, bytes, _)| number(bytes))));
            columns.push(numbers);
        }
        let weights = changes.iter().map(|(_, _, weight)| weight).collect();
        out.push(Delta::new(&self.schema, columns, weights).map_err(CircuitError::arrow(&self.label))?);
        Ok(())
    }
}

/// Appends what must be added to one head to get another. Both are sorted.
fn difference(old: &RowBatch, new: &RowBatch, sign: i64, out: &mut RowBatch) {
    let compare = |i: usize, j: usize| (old.key(i), old.value(i)).cmp(&(new.key(j), new.value(j)));
    for places in in_step(0..old.len(), 0..new.len(), compare) {
        let (row, number) = match places {
            (Some(i), _) => (old.key(i), old.value(i)),
            (None, Some(j)) => (new.key(j), new.value(j)),
            (None, None) => continue,
        };
        let before = places.0.map_or(0, |i| old.weight(i));
        let after = places.1.map_or(0, |j| new.weight(j));
        if before != after {
            out.push(row, number, after.wrapping_sub(before).wrapping_mul(sign));
        }
    }
}

impl Operator for TopKOperator {
    fn step(&mut self, _context: &mut StepContext, inputs: Vec<Vec<Delta>>) -> Result<Vec<Delta>> {
        let chunks: Vec<Delta> = inputs.into_iter().flatten().collect();
        let storage = CircuitError::storage;
        let Some(Update { delta, mut before, mut after }) = self.ordered.update(&chunks, &self.label)? else {
            return Ok(Vec::new());
        };
        let mut out = Vec::new();
        let (mut old, mut new, mut changes) = (RowBatch::new(), RowBatch::new(), RowBatch::new());
        let mut behind = RowBatch::new();
        let sign = if self.rest { -1 } else { 1 };
        for rows in partitions(&delta) {
            let partition = delta.key(rows.start);
            self.head(&mut before, partition, &mut old).map_err(storage(&self.label))?;
            self.head(&mut after, partition, &mut new).map_err(storage(&self.label))?;
            if self.append_only {
                self.behind(&mut after, partition, &mut behind).map_err(storage(&self.label))?;
            }
            difference(&old, &new, sign, &mut changes);
            if self.rest {
                rows.for_each(|i| changes.push(delta.value(i), &[], delta.weight(i)));
            }
            if changes.len() >= OUTPUT_ROWS {
                self.emit(&changes, &mut out)?;
                changes.clear();
            }
        }
        self.emit(&changes, &mut out)?;
        if !behind.is_empty() {
            self.ordered.rows.insert_batch(&behind).map_err(storage(&self.label))?;
        }
        Ok(out)
    }

    fn spines(&mut self) -> Vec<&mut Spine> {
        vec![&mut self.ordered.rows]
    }
}

#[cfg(test)]
mod tests;
