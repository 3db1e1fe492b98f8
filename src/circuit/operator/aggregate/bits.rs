//! `bool_and`, `bool_or`, `bit_and`, `bit_or` and `bit_xor`: for each bit how many of the values have it.
//!
//! Known limit: a group in memory is 520 bytes, whatever the width of the type; saved, only the counts that are not zero.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, UInt64Type};
use arrow::error::ArrowError;

use super::super::accumulator::{Accumulate, Finished, split};
use crate::circuit::plan::AggregateFunction;

const BITS: usize = u64::BITS as usize;

/// One of these functions over the groups that a step touches.
pub(super) struct Bits {
    function: AggregateFunction,
    result: DataType,
    /// Values that are not NULL.
    counts: Vec<i64>,
    ones: Vec<[i64; BITS]>,
}

impl Bits {
    /// A function of bits without groups, if `function` is one of this type.
    pub(super) fn new(function: AggregateFunction, result: &DataType) -> Option<Self> {
        use AggregateFunction as F;
        let fits = match function {
            F::BoolAnd | F::BoolOr => *result == DataType::Boolean,
            F::BitAnd | F::BitOr | F::BitXor => result.is_integer(),
            _ => false,
        };
        fits.then(|| Self { function, result: result.clone(), counts: Vec::new(), ones: Vec::new() })
    }

    fn result(&self, group: usize) -> Option<u64> {
        use AggregateFunction as F;
        let count = self.counts[group];
        let has = |ones: i64| match self.function {
            F::BoolAnd | F::BitAnd => ones == count,
            F::BoolOr | F::BitOr => ones != 0,
            _ => ones % 2 != 0,
        };
        let bits = self.ones[group].iter().enumerate().filter(|(_, ones)| has(**ones));
        (count != 0).then(|| bits.fold(0, |bits, (i, _)| bits | 1 << i))
    }
}

impl Accumulate for Bits {
    fn fresh(&self) -> Box<dyn Accumulate> {
        let (function, result) = (self.function, self.result.clone());
        Box::new(Self { function, result, counts: Vec::new(), ones: Vec::new() })
    }

    fn push_empty(&mut self) {
        self.counts.push(0);
        self.ones.push([0; BITS]);
    }

    fn push_saved(&mut self, state: &mut &[u8]) -> Option<()> {
        self.counts.push(i64::from_le_bytes(split(state)?));
        let kept = u64::from_le_bytes(split(state)?);
        let mut ones = [0; BITS];
        for (_, count) in ones.iter_mut().enumerate().filter(|(i, _)| kept >> i & 1 == 1) {
            *count = i64::from_le_bytes(split(state)?);
        }
        self.ones.push(ones);
        Some(())
    }

    fn save(&self, group: usize, out: &mut Vec<u8>) {
        let kept = || self.ones[group].iter().enumerate().filter(|(_, count)| **count != 0);
        out.extend_from_slice(&self.counts[group].to_le_bytes());
        out.extend_from_slice(&kept().fold(0u64, |bits, (i, _)| bits | 1 << i).to_le_bytes());
        kept().for_each(|(_, count)| out.extend_from_slice(&count.to_le_bytes()));
    }

    fn is_zero(&self, group: usize) -> bool {
        self.counts[group] == 0 && self.ones[group].iter().all(|count| *count == 0)
    }

    fn update(&mut self, columns: &[ArrayRef], weights: &[i64], groups: &[u32]) -> Result<(), ArrowError> {
        // Sign bits and all; narrower types come back as they went.
        let bits: UInt64Array = match &self.result {
            unsigned if unsigned.is_unsigned_integer() => cast(&columns[0], &DataType::UInt64)?.as_primitive().clone(),
            _ => cast(&columns[0], &DataType::Int64)?
                .as_primitive::<Int64Type>()
                .unary::<_, UInt64Type>(i64::cast_unsigned),
        };
        for (row, (&group, &weight)) in groups.iter().zip(weights).enumerate() {
            if bits.is_null(row) {
                continue;
            }
            let (count, ones) = (&mut self.counts[group as usize], &mut self.ones[group as usize]);
            *count = count.wrapping_add(weight);
            let mut rest = bits.value(row);
            while rest != 0 {
                let one = &mut ones[rest.trailing_zeros() as usize];
                *one = one.wrapping_add(weight);
                rest &= rest - 1;
            }
        }
        Ok(())
    }

    fn finish(&self) -> Result<Finished, ArrowError> {
        let results = (0..self.counts.len()).map(|group| self.result(group));
        let column: ArrayRef = match &self.result {
            DataType::Boolean => Arc::new(results.map(|r| r.map(|bits| bits != 0)).collect::<BooleanArray>()),
            unsigned if unsigned.is_unsigned_integer() => cast(&results.collect::<UInt64Array>(), unsigned)?,
            signed => cast(&results.map(|r| r.map(u64::cast_signed)).collect::<Int64Array>(), signed)?,
        };
        Ok(Finished { column, overflowed: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int16Array;
    use arrow::datatypes::Int16Type;

    use super::*;

    fn bits(function: AggregateFunction, values: Vec<Option<i16>>) -> Option<i16> {
        let fresh = Bits::new(function, &DataType::Int16).unwrap();
        let mut bits = fresh.fresh();
        bits.push_empty();
        let (weights, groups) = (vec![1; values.len()], vec![0; values.len()]);
        let columns: Vec<ArrayRef> = vec![Arc::new(Int16Array::from(values))];
        bits.update(&columns, &weights, &groups).unwrap();
        let mut state = Vec::new();
        bits.save(0, &mut state);
        let mut loaded = fresh.fresh();
        let mut rest = state.as_slice();
        loaded.push_saved(&mut rest).unwrap();
        assert!(rest.is_empty());
        let result = loaded.finish().unwrap().column;
        loaded.update(&columns, &weights.iter().map(|w| -w).collect::<Vec<_>>(), &groups).unwrap();
        assert!(loaded.is_zero(0));
        let result = result.as_primitive::<Int16Type>();
        (!result.is_null(0)).then(|| result.value(0))
    }

    #[test]
    fn signed_values_keep_their_sign() {
        use AggregateFunction as F;
        let values = || vec![Some(-2), None, Some(7), Some(-1), Some(7)];
        assert_eq!(bits(F::BitAnd, values()), Some(-2 & 7));
        assert_eq!(bits(F::BitOr, values()), Some(-1));
        assert_eq!(bits(F::BitXor, values()), Some(-2 ^ -1));
        assert_eq!(bits(F::BitAnd, vec![Some(i16::MIN)]), Some(i16::MIN));
        assert_eq!(bits(F::BitXor, vec![None]), None);
        assert!(Bits::new(F::BitOr, &DataType::Utf8).is_none());
    }
}
