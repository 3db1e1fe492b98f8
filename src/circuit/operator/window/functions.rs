//! Window functions over whole partitions, columnar.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, UInt32Array, UInt64Array};
use arrow::compute::{interleave, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use hashbrown::HashMap;

use super::frames::Partitions;
use crate::circuit::operator::accumulator::Accumulator;
use crate::circuit::plan::{AggregateFunction, WindowFunction, WindowKind};
use crate::circuit::row::RowCodec;

/// The results of one function.
pub(super) struct Evaluated {
    pub(super) column: ArrayRef,
    /// Rows whose result does not fit its type; they are NULL in the column.
    pub(super) overflowed: Vec<usize>,
}

/// What does not fit in a function of the plan.
pub(super) fn check(function: &WindowFunction, input: &SchemaRef) -> Result<(), String> {
    let argument = function.argument.map(|i| input.field(i).data_type());
    match function.kind {
        WindowKind::Aggregate(AggregateFunction::Min | AggregateFunction::Max)
        | WindowKind::Shift { .. }
        | WindowKind::Nth(_)
            if argument != Some(&function.result) =>
        {
            Err(format!("{} of {argument:?} is not {}", function.kind, function.result))
        }
        WindowKind::Aggregate(AggregateFunction::Min | AggregateFunction::Max) => Ok(()),
        WindowKind::Aggregate(aggregate) => Accumulator::new(aggregate, argument, &function.result).map(|_| ()),
        _ => Ok(()),
    }
}

/// The results of a function over these columns; `frames` are those of the rows, if it looks at them.
pub(super) fn evaluate(
    function: &WindowFunction,
    columns: &[ArrayRef],
    rows: &Partitions,
    frames: &[Range<usize>],
) -> Result<Evaluated, ArrowError> {
    let argument = function.argument.map(|i| &columns[i]);
    let there = argument.filter(|_| function.ignore_nulls).map(There::new);
    let column: ArrayRef = match (function.kind, argument) {
        (WindowKind::RowNumber, _) => numbers(rows, |row, partition| row - partition.start + 1),
        (WindowKind::Rank, _) => numbers(rows, |row, partition| rows.peers(row).start - partition.start + 1),
        (WindowKind::DenseRank, _) => {
            numbers(rows, |row, partition| (rows.group_of[row] - rows.group_of[partition.start]) as usize + 1)
        }
        (WindowKind::Ntile(buckets), _) => numbers(rows, |row, partition| {
            // The first buckets have one row more than the others.
            let (row, buckets) = (row - partition.start, buckets as usize);
            let (size, longer) = (partition.len() / buckets, partition.len() % buckets);
            let in_longer = longer * (size + 1);
            if row < in_longer { row / (size + 1) + 1 } else { longer + (row - in_longer) / size.max(1) + 1 }
        }),
        (WindowKind::PercentRank, _) => fractions(rows, |row, partition| {
            (rows.peers(row).start - partition.start) as f64 / (partition.len() - 1).max(1) as f64
        }),
        (WindowKind::CumeDist, _) => {
            fractions(rows, |row, partition| (rows.peers(row).end - partition.start) as f64 / partition.len() as f64)
        }
        (WindowKind::Shift { offset, default }, Some(argument)) => {
            let target = |row: usize, partition: &Range<usize>| {
                if let Some(there) = &there {
                    return there.shifted(row, offset, partition);
                }
                let place = usize::try_from(i64::try_from(row).ok()?.checked_add(offset)?).ok()?;
                partition.contains(&place).then_some(place)
            };
            let targets: Vec<Option<usize>> =
                rows.ranges().flat_map(|p| p.clone().map(move |row| target(row, &p))).collect();
            match default {
                None => pick(argument, targets.into_iter())?,
                Some(default) => {
                    let places: Vec<(usize, usize)> = targets
                        .into_iter()
                        .enumerate()
                        .map(|(row, target)| target.map_or((1, row), |target| (0, target)))
                        .collect();
                    interleave(&[argument.as_ref(), columns[default].as_ref()], &places)?
                }
            }
        }
        (WindowKind::Nth(n), Some(argument)) => {
            let nth = |frame: &Range<usize>| {
                let skip = usize::try_from(n.unsigned_abs()).ok()?.checked_sub(1)?;
                let nth = |mut range: Range<usize>| if n > 0 { range.nth(skip) } else { range.nth_back(skip) };
                match &there {
                    None => nth(frame.clone()),
                    Some(there) => nth(there.within(frame)).map(|number| there.rows[number]),
                }
            };
            pick(argument, frames.iter().map(nth))?
        }
        (WindowKind::Aggregate(function_kind), argument) => match (function_kind, argument) {
            (AggregateFunction::Min, Some(argument)) => extrema(argument, frames, false)?,
            (AggregateFunction::Max, Some(argument)) => extrema(argument, frames, true)?,
            (AggregateFunction::Count, Some(argument)) if function.distinct => distinct(argument, frames)?,
            _ => {
                let types = argument.map(|a| a.data_type().clone());
                let accumulator = Accumulator::new(function_kind, types.as_ref(), &function.result)
                    .map_err(ArrowError::InvalidArgumentError)?;
                let finished = accumulator.over_frames(argument, frames)?;
                return Ok(Evaluated { column: finished.column, overflowed: finished.overflowed });
            }
        },
        (kind, None) => return Err(ArrowError::InvalidArgumentError(format!("{kind} without an argument"))),
    };
    Ok(Evaluated { column, overflowed: Vec::new() })
}

/// The rows whose argument is not NULL.
struct There {
    rows: Vec<usize>,
    /// For each row, and behind the last, the number of such rows before it.
    before: Vec<usize>,
}

impl There {
    fn new(argument: &ArrayRef) -> Self {
        let nulls = argument.logical_nulls();
        let (mut rows, mut before) = (Vec::new(), Vec::with_capacity(argument.len() + 1));
        for row in 0..argument.len() {
            before.push(rows.len());
            if nulls.as_ref().is_none_or(|n| n.is_valid(row)) {
                rows.push(row);
            }
        }
        before.push(rows.len());
        Self { rows, before }
    }

    /// The numbers of those within a stretch of rows.
    fn within(&self, rows: &Range<usize>) -> Range<usize> {
        self.before[rows.start]..self.before[rows.end]
    }

    /// The one that is so many of them behind a row or, negative, before it.
    fn shifted(&self, row: usize, offset: i64, partition: &Range<usize>) -> Option<usize> {
        if offset == 0 {
            return Some(row);
        }
        // The next one behind the row is the first that is not before it or it.
        let from = if offset > 0 { self.before[row + 1] } else { self.before[row] };
        let number = i64::try_from(from).ok()?.checked_add(offset)?.checked_sub(i64::from(offset > 0))?;
        let number = usize::try_from(number).ok()?;
        self.within(partition).contains(&number).then(|| self.rows[number])
    }
}

/// The number of different values of each frame that are not NULL.
fn distinct(column: &ArrayRef, frames: &[Range<usize>]) -> Result<ArrayRef, ArrowError> {
    let codec = RowCodec::new(&[column.data_type().clone()]);
    let encoded = codec.and_then(|codec| codec.encode(std::slice::from_ref(column), column.len()));
    let encoded = encoded.map_err(|e| ArrowError::ExternalError(Box::new(e)))?;
    let nulls = column.logical_nulls();
    let is_there = |row: &usize| nulls.as_ref().is_none_or(|n| n.is_valid(*row));
    let mut copies: HashMap<&[u8], u32> = HashMap::new();
    let mut counted = 0..0;
    let counts = frames.iter().map(|frame| {
        if frame.start >= counted.end {
            copies.clear();
            counted = frame.start..frame.start;
        }
        for row in (counted.end..frame.end).filter(is_there) {
            *copies.entry(encoded.get(row)).or_default() += 1;
        }
        for row in (counted.start..frame.start).filter(is_there) {
            let value = encoded.get(row);
            match copies.get_mut(value) {
                Some(copies) if *copies > 1 => *copies -= 1,
                _ => drop(copies.remove(value)),
            }
        }
        counted = frame.clone();
        copies.len() as i64
    });
    Ok(Arc::new(Int64Array::from_iter_values(counts)))
}

fn numbers(rows: &Partitions, number: impl Fn(usize, &Range<usize>) -> usize) -> ArrayRef {
    let number = &number;
    let all = rows.ranges().flat_map(|p| p.clone().map(move |row| number(row, &p) as u64));
    Arc::new(all.collect::<UInt64Array>())
}

fn fractions(rows: &Partitions, fraction: impl Fn(usize, &Range<usize>) -> f64) -> ArrayRef {
    let fraction = &fraction;
    let all = rows.ranges().flat_map(|p| p.clone().map(move |row| fraction(row, &p)));
    Arc::new(all.collect::<Float64Array>())
}

/// The values at these rows, NULL where there is none.
fn pick(column: &ArrayRef, rows: impl Iterator<Item = Option<usize>>) -> Result<ArrayRef, ArrowError> {
    let rows: UInt32Array = rows.map(|row| row.map(|row| row as u32)).collect();
    take(column, &rows, None)
}

/// The smallest or, `descending`, largest value of each frame that is not NULL.
fn extrema(column: &ArrayRef, frames: &[Range<usize>], descending: bool) -> Result<ArrayRef, ArrowError> {
    let types = [column.data_type().clone()];
    let codec = if descending { RowCodec::descending(&types) } else { RowCodec::new(&types) };
    let encoded = codec.and_then(|codec| codec.encode(std::slice::from_ref(column), column.len()));
    let encoded = encoded.map_err(|e| ArrowError::ExternalError(Box::new(e)))?;
    let nulls = column.logical_nulls();
    // Candidates in the order of their rows, each better than all that are behind it.
    let mut candidates: VecDeque<usize> = VecDeque::new();
    let mut taken = 0;
    let best = frames.iter().map(|frame| {
        taken = taken.max(frame.start);
        while taken < frame.end {
            if nulls.as_ref().is_none_or(|n| n.is_valid(taken)) {
                while candidates.back().is_some_and(|&last| encoded.get(taken) <= encoded.get(last)) {
                    candidates.pop_back();
                }
                candidates.push_back(taken);
            }
            taken += 1;
        }
        while candidates.front().is_some_and(|&first| first < frame.start) {
            candidates.pop_front();
        }
        candidates.front().copied().filter(|&first| first < frame.end)
    });
    let best: Vec<Option<usize>> = best.collect();
    pick(column, best.into_iter())
}
