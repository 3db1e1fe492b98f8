//! Counts, sums and averages of the groups that a step touches, columnar: one entry a group.
//!
//! Invariants: what is saved depends on the multiset of values alone, never on their order; a value taken away leaves
//! no trace. Integers wrap as DataFusion's do, decimals are exact in 256 bits, floats are [exact](ExactSum).

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Decimal256Array, Float64Array, Int64Array, PrimitiveArray,
    UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DECIMAL256_MAX_PRECISION, DataType, Decimal256Type, Float64Type, Int64Type, UInt64Type, i256};
use arrow::error::ArrowError;

use crate::circuit::exact::ExactSum;
use crate::circuit::plan::AggregateFunction;

/// What a result column of some groups looks like.
pub(super) struct Finished {
    pub(super) column: ArrayRef,
    /// Groups whose result does not fit the result's type; they are NULL in the column.
    pub(super) overflowed: Vec<usize>,
}

/// An aggregate whose state is a few numbers a group, over the groups that a step touches.
pub(super) trait Accumulate: Send {
    /// An accumulator of the same kind, without groups.
    fn fresh(&self) -> Box<dyn Accumulate>;

    /// Adds a group without values.
    fn push_empty(&mut self);

    /// Adds a group from the front of its saved state; `None` if the state is too short.
    fn push_saved(&mut self, state: &mut &[u8]) -> Option<()>;

    /// Appends a group's state.
    fn save(&self, group: usize, out: &mut Vec<u8>);

    /// Whether a group's state says nothing, so that it need not be kept.
    fn is_zero(&self, group: usize) -> bool;

    /// Adds rows of the arguments' columns to their groups.
    fn update(&mut self, columns: &[ArrayRef], weights: &[i64], groups: &[u32]) -> Result<(), ArrowError>;

    /// The result of each group.
    fn finish(&self) -> Result<Finished, ArrowError>;
}

/// One count, sum or average over the groups that a step touches.
pub(super) struct Accumulator {
    average: bool,
    result: DataType,
    /// Values that are not NULL.
    pub(super) counts: Vec<i64>,
    sums: Sums,
}

enum Sums {
    /// Only the count is asked for.
    None,
    /// Wrapping; unsigned values and durations by their bits.
    Int(Vec<i64>),
    /// Scale of the argument.
    Decimal(i8, Vec<i256>),
    Float(Vec<ExactSum>),
}

impl Accumulator {
    /// An accumulator without groups, or what does not fit.
    pub(super) fn new(
        function: AggregateFunction,
        argument: Option<&DataType>,
        result: &DataType,
    ) -> Result<Self, String> {
        let scale = match argument {
            Some(
                DataType::Decimal32(_, s)
                | DataType::Decimal64(_, s)
                | DataType::Decimal128(_, s)
                | DataType::Decimal256(_, s),
            ) => Some(*s),
            _ => None,
        };
        let average = function == AggregateFunction::Avg;
        let sums = match (function, result) {
            (AggregateFunction::Count, DataType::Int64) => Sums::None,
            (AggregateFunction::Sum | AggregateFunction::Avg, _) if argument.is_none() => {
                return Err(format!("{function:?} without an argument"));
            }
            (AggregateFunction::Sum, DataType::Int64 | DataType::UInt64) => Sums::Int(Vec::new()),
            (AggregateFunction::Sum | AggregateFunction::Avg, DataType::Duration(_)) => Sums::Int(Vec::new()),
            (AggregateFunction::Sum | AggregateFunction::Avg, DataType::Float64) => Sums::Float(Vec::new()),
            (AggregateFunction::Sum | AggregateFunction::Avg, result) if result.is_decimal() => match scale {
                Some(scale) => Sums::Decimal(scale, Vec::new()),
                None => return Err(format!("{function:?} of {argument:?} cannot be {result}")),
            },
            _ => return Err(format!("{function:?} of {argument:?} with result {result} is not supported")),
        };
        Ok(Self { average, result: result.clone(), counts: Vec::new(), sums })
    }

    /// The results over stretches of rows, whose ends only move forward from one to the next.
    pub(super) fn over_frames(
        mut self,
        column: Option<&ArrayRef>,
        frames: &[Range<usize>],
    ) -> Result<Finished, ArrowError> {
        let Some(column) = column else {
            self.counts = frames.iter().map(|f| f.len() as i64).collect();
            return self.finish();
        };
        if let Sums::Float(_) = self.sums {
            return self.floats_over_frames(column, frames);
        }
        // Each row as a group, then sums of the groups before a row: they wrap, so that differences are right.
        let rows = column.len();
        (0..rows).for_each(|_| self.push_empty());
        self.update(std::slice::from_ref(column), &vec![1; rows], &(0..rows as u32).collect::<Vec<_>>())?;
        self.counts = differences(&self.counts, frames, 0, i64::wrapping_add, i64::wrapping_sub);
        match &mut self.sums {
            Sums::Int(sums) => *sums = differences(sums, frames, 0, i64::wrapping_add, i64::wrapping_sub),
            Sums::Decimal(_, sums) => {
                *sums = differences(sums, frames, i256::ZERO, i256::wrapping_add, i256::wrapping_sub);
            }
            Sums::None | Sums::Float(_) => {}
        }
        self.finish()
    }

    fn floats_over_frames(&self, column: &ArrayRef, frames: &[Range<usize>]) -> Result<Finished, ArrowError> {
        let column = cast(column, &DataType::Float64)?;
        let values = column.as_primitive::<Float64Type>();
        let (mut sum, mut count, mut summed) = (ExactSum::default(), 0i64, 0..0);
        let mut results = Vec::with_capacity(frames.len());
        for frame in frames {
            if frame.start >= summed.end {
                (sum, count, summed) = (ExactSum::default(), 0, frame.start..frame.start);
            }
            for (rows, weight) in [(summed.end..frame.end, 1), (summed.start..frame.start, -1)] {
                for row in rows.filter(|&row| values.is_valid(row)) {
                    sum.add(values.value(row), weight);
                    count += weight;
                }
            }
            summed = frame.clone();
            let value = || if self.average { sum.value() / count as f64 } else { sum.value() };
            results.push((count != 0).then(value));
        }
        Ok(Finished { column: Arc::new(Float64Array::from(results)), overflowed: Vec::new() })
    }

    fn finish_decimal(&self, scale: i8, sums: &[i256]) -> Result<Finished, ArrowError> {
        let result_scale = match &self.result {
            DataType::Decimal32(_, s) | DataType::Decimal64(_, s) => *s,
            DataType::Decimal128(_, s) | DataType::Decimal256(_, s) => *s,
            _ => scale,
        };
        // As DataFusion's average does: scale up, then divide, cutting off what is left.
        let up = match self.average {
            true => i256::from(10).checked_pow(u32::try_from(i32::from(result_scale) - i32::from(scale)).unwrap_or(0)),
            false => Some(i256::ONE),
        };
        let values = sums.iter().zip(&self.counts).map(|(sum, &count)| match self.average {
            _ if count == 0 => None,
            true => sum.checked_mul(up?)?.checked_div(i256::from(count)),
            false => Some(*sum),
        });
        let values = Decimal256Array::from_iter(values)
            .with_precision_and_scale(DECIMAL256_MAX_PRECISION, if self.average { result_scale } else { scale })?;
        let column = cast_with_options(&values, &self.result, &CastOptions { safe: true, ..Default::default() })?;
        let overflowed = (0..sums.len()).filter(|&i| self.counts[i] != 0 && column.is_null(i)).collect();
        Ok(Finished { column, overflowed })
    }
}

impl Accumulate for Accumulator {
    fn fresh(&self) -> Box<dyn Accumulate> {
        let sums = match &self.sums {
            Sums::None => Sums::None,
            Sums::Int(_) => Sums::Int(Vec::new()),
            Sums::Decimal(scale, _) => Sums::Decimal(*scale, Vec::new()),
            Sums::Float(_) => Sums::Float(Vec::new()),
        };
        Box::new(Self { average: self.average, result: self.result.clone(), counts: Vec::new(), sums })
    }

    fn push_empty(&mut self) {
        self.counts.push(0);
        match &mut self.sums {
            Sums::None => {}
            Sums::Int(sums) => sums.push(0),
            Sums::Decimal(_, sums) => sums.push(i256::ZERO),
            Sums::Float(sums) => sums.push(ExactSum::default()),
        }
    }

    fn push_saved(&mut self, state: &mut &[u8]) -> Option<()> {
        self.counts.push(i64::from_le_bytes(split(state)?));
        match &mut self.sums {
            Sums::None => {}
            Sums::Int(sums) => sums.push(i64::from_le_bytes(split(state)?)),
            Sums::Decimal(_, sums) => sums.push(i256::from_le_bytes(split(state)?)),
            Sums::Float(sums) => sums.push(ExactSum::load(state)?),
        }
        Some(())
    }

    fn save(&self, group: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.counts[group].to_le_bytes());
        match &self.sums {
            Sums::None => {}
            Sums::Int(sums) => out.extend_from_slice(&sums[group].to_le_bytes()),
            Sums::Decimal(_, sums) => out.extend_from_slice(&sums[group].to_le_bytes()),
            Sums::Float(sums) => sums[group].save(out),
        }
    }

    fn is_zero(&self, group: usize) -> bool {
        self.counts[group] == 0
            && match &self.sums {
                Sums::None => true,
                Sums::Int(sums) => sums[group] == 0,
                Sums::Decimal(_, sums) => sums[group] == i256::ZERO,
                Sums::Float(sums) => sums[group].is_zero(),
            }
    }

    fn update(&mut self, columns: &[ArrayRef], weights: &[i64], groups: &[u32]) -> Result<(), ArrowError> {
        let column = &columns[0];
        count(&mut self.counts, column.logical_nulls().as_ref(), weights, groups);
        match &mut self.sums {
            Sums::None => {}
            Sums::Int(sums) if self.result == DataType::UInt64 => {
                let column = cast(column, &DataType::UInt64)?;
                each::<UInt64Type>(&column, weights, groups, |group, value, weight| {
                    sums[group] = sums[group].wrapping_add(value.cast_signed().wrapping_mul(weight));
                });
            }
            Sums::Int(sums) => {
                let column = match &self.result {
                    DataType::Int64 => cast(column, &DataType::Int64)?,
                    duration => cast(&cast(column, duration)?, &DataType::Int64)?,
                };
                each::<Int64Type>(&column, weights, groups, |group, value, weight| {
                    sums[group] = sums[group].wrapping_add(value.wrapping_mul(weight));
                });
            }
            Sums::Decimal(scale, sums) => {
                let column = cast(column, &DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale))?;
                each::<Decimal256Type>(&column, weights, groups, |group, value, weight| {
                    sums[group] = sums[group].wrapping_add(value.wrapping_mul(i256::from(weight)));
                });
            }
            Sums::Float(sums) => {
                let column = cast(column, &DataType::Float64)?;
                each::<Float64Type>(&column, weights, groups, |group, value, weight| sums[group].add(value, weight));
            }
        }
        Ok(())
    }

    /// The result of each group; NULL for sums and averages without values.
    fn finish(&self) -> Result<Finished, ArrowError> {
        let average = self.average;
        let counted = |i: usize| self.counts[i] != 0;
        let column: ArrayRef = match &self.sums {
            Sums::None => Arc::new(Int64Array::from(self.counts.clone())),
            Sums::Int(sums) => {
                let values = sums
                    .iter()
                    .enumerate()
                    .map(|(i, &sum)| counted(i).then(|| if average { sum.wrapping_div(self.counts[i]) } else { sum }));
                match &self.result {
                    DataType::UInt64 => Arc::new(UInt64Array::from_iter(values.map(|v| v.map(i64::cast_unsigned)))),
                    DataType::Int64 => Arc::new(Int64Array::from_iter(values)),
                    duration => cast(&Int64Array::from_iter(values), duration)?,
                }
            }
            Sums::Float(sums) => Arc::new(Float64Array::from_iter(sums.iter().enumerate().map(|(i, sum)| {
                counted(i).then(|| if average { sum.value() / self.counts[i] as f64 } else { sum.value() })
            }))),
            Sums::Decimal(scale, sums) => return self.finish_decimal(*scale, sums),
        };
        Ok(Finished { column, overflowed: Vec::new() })
    }
}

/// Counts the rows that are not NULL.
pub(super) fn count(counts: &mut [i64], nulls: Option<&NullBuffer>, weights: &[i64], groups: &[u32]) {
    for (i, (&weight, &group)) in weights.iter().zip(groups).enumerate() {
        if nulls.is_none_or(|n| n.is_valid(i)) {
            counts[group as usize] = counts[group as usize].wrapping_add(weight);
        }
    }
}

fn each<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    weights: &[i64],
    groups: &[u32],
    mut add: impl FnMut(usize, T::Native, i64),
) {
    let column: &PrimitiveArray<T> = column.as_primitive();
    let rows = column.values().iter().zip(weights).zip(groups);
    match column.nulls() {
        None => rows.for_each(|((&value, &weight), &group)| add(group as usize, value, weight)),
        Some(nulls) => rows
            .enumerate()
            .filter(|(i, _)| nulls.is_valid(*i))
            .for_each(|(_, ((&value, &weight), &group))| add(group as usize, value, weight)),
    }
}

/// Takes `N` bytes off the front.
pub(super) fn split<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// The sums over stretches of values.
fn differences<T: Copy>(
    values: &[T],
    frames: &[Range<usize>],
    zero: T,
    add: impl Fn(T, T) -> T,
    subtract: impl Fn(T, T) -> T,
) -> Vec<T> {
    let mut before = Vec::with_capacity(values.len() + 1);
    before.push(zero);
    before.extend(values.iter().scan(zero, |sum, &value| {
        *sum = add(*sum, value);
        Some(*sum)
    }));
    frames.iter().map(|frame| subtract(before[frame.end], before[frame.start])).collect()
}

#[cfg(test)]
mod tests;
