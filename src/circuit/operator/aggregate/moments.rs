//! Variance, covariance, correlation and linear regression over the groups that a step touches.
//!
//! Kept are the exact sums of the values and of their products, each product as its rounded value and the error of that
//! (both are floats). So what is saved depends on the multiset of values alone, a value taken away leaves no trace, and a result
//! is rounded a few times only, however near to each other the values are.
//!
//! Known limits: products over 1e308 give infinities and so NaN; errors of products below 1e-308 are lost, by value, so that
//! they are taken away as they came.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;

use super::super::accumulator::{Accumulate, Finished, split};
use crate::circuit::exact::ExactSum;
use crate::circuit::plan::AggregateFunction;

/// One statistic of one or two columns over the groups that a step touches. Rows with a NULL in a column do not count.
pub(super) struct Moments {
    function: AggregateFunction,
    /// One column or two.
    width: usize,
    /// Values, or pairs of them.
    counts: Vec<i64>,
    sums: Vec<Sums>,
}

/// The sums of a group. Of one column, `y` and what is made with it stay zero.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sums {
    x: ExactSum,
    y: ExactSum,
    xx: ExactSum,
    yy: ExactSum,
    xy: ExactSum,
}

impl Sums {
    fn of(&self, width: usize) -> impl Iterator<Item = &ExactSum> {
        let two = [&self.y, &self.yy, &self.xy].into_iter().take(if width == 2 { 3 } else { 0 });
        [&self.x, &self.xx].into_iter().chain(two)
    }

    fn load(state: &mut &[u8], width: usize) -> Option<Self> {
        let mut sums = Self { x: ExactSum::load(state)?, xx: ExactSum::load(state)?, ..Self::default() };
        if width == 2 {
            (sums.y, sums.yy) = (ExactSum::load(state)?, ExactSum::load(state)?);
            sums.xy = ExactSum::load(state)?;
        }
        Some(sums)
    }
}

impl Moments {
    /// Statistics without groups, if `function` is one.
    pub(super) fn new(function: AggregateFunction, arguments: usize, result: &DataType) -> Option<Self> {
        use AggregateFunction as F;
        let (width, result_type) = match function {
            F::VarSamp | F::VarPop | F::StddevSamp | F::StddevPop => (1, DataType::Float64),
            F::CovarSamp | F::CovarPop | F::Corr => (2, DataType::Float64),
            F::RegrSlope | F::RegrIntercept | F::RegrR2 | F::RegrAvgx | F::RegrAvgy => (2, DataType::Float64),
            F::RegrSxx | F::RegrSyy | F::RegrSxy => (2, DataType::Float64),
            F::RegrCount => (2, DataType::UInt64),
            _ => return None,
        };
        (width == arguments && result_type == *result).then(|| Self::empty(function, width))
    }

    fn empty(function: AggregateFunction, width: usize) -> Self {
        Self { function, width, counts: Vec::new(), sums: Vec::new() }
    }

    fn result(&self, group: usize) -> Option<f64> {
        use AggregateFunction as F;
        let (n, sums) = (self.counts[group], &self.sums[group]);
        let count = n as f64;
        // Sums of squares and of products of what lies off the mean.
        let sxx = || deviation(n, &sums.xx, &sums.x, &sums.x);
        let syy = || deviation(n, &sums.yy, &sums.y, &sums.y);
        let sxy = || deviation(n, &sums.xy, &sums.x, &sums.y);
        let sample = |sum: &dyn Fn() -> f64| (n > 1).then(|| sum() / (count - 1.0));
        let population = |sum: &dyn Fn() -> f64| (n > 0).then(|| sum() / count);
        let slope = || (n > 1).then(|| (sxx(), sxy())).filter(|(xx, _)| *xx != 0.0).map(|(xx, xy)| xy / xx);
        match self.function {
            F::VarSamp => sample(&sxx),
            F::VarPop => population(&sxx),
            F::StddevSamp => sample(&sxx).map(f64::sqrt),
            F::StddevPop => population(&sxx).map(f64::sqrt),
            F::CovarSamp => sample(&sxy),
            F::CovarPop => population(&sxy),
            F::Corr if sums.x.value().is_nan() && sums.y.value().is_nan() => Some(f64::NAN),
            F::Corr if sums.x.value().is_nan() || sums.y.value().is_nan() || n < 2 => None,
            F::Corr => {
                let (xx, yy) = (sxx(), syy());
                (xx != 0.0 && yy != 0.0).then(|| (sxy() / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0))
            }
            F::RegrSlope => slope(),
            F::RegrIntercept => slope().map(|slope| (sums.y.value() - slope * sums.x.value()) / count),
            F::RegrR2 => {
                let (xx, yy) = (sxx(), syy());
                (n > 1 && xx != 0.0 && yy != 0.0).then(|| (sxy() / xx) * (sxy() / yy))
            }
            F::RegrAvgx => (n > 0).then(|| sums.x.value() / count),
            F::RegrAvgy => (n > 0).then(|| sums.y.value() / count),
            F::RegrSxx => (n > 0).then(sxx),
            F::RegrSyy => (n > 0).then(syy),
            F::RegrSxy => (n > 0).then(sxy),
            _ => Some(count),
        }
    }
}

/// Σ(a − mean of a)(b − mean of b) = (n Σab − Σa Σb) / n, the difference without rounding.
fn deviation(n: i64, products: &ExactSum, a: &ExactSum, b: &ExactSum) -> f64 {
    if ![products, a, b].iter().all(|sum| sum.value().is_finite()) {
        return f64::NAN;
    }
    let mut difference = ExactSum::default();
    products.parts(|part| difference.add(part, n));
    a.parts(|part| b.parts(|other| difference.add_product(-part, other, 1)));
    difference.value() / n as f64
}

impl Accumulate for Moments {
    fn fresh(&self) -> Box<dyn Accumulate> {
        Box::new(Self::empty(self.function, self.width))
    }

    fn push_empty(&mut self) {
        self.counts.push(0);
        self.sums.push(Sums::default());
    }

    fn push_saved(&mut self, state: &mut &[u8]) -> Option<()> {
        self.counts.push(i64::from_le_bytes(split(state)?));
        self.sums.push(Sums::load(state, self.width)?);
        Some(())
    }

    fn save(&self, group: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.counts[group].to_le_bytes());
        self.sums[group].of(self.width).for_each(|sum| sum.save(out));
    }

    fn is_zero(&self, group: usize) -> bool {
        self.counts[group] == 0 && self.sums[group].of(self.width).all(ExactSum::is_zero)
    }

    fn update(&mut self, columns: &[ArrayRef], weights: &[i64], groups: &[u32]) -> Result<(), ArrowError> {
        let columns = columns.iter().map(|c| cast(c, &DataType::Float64)).collect::<Result<Vec<_>, _>>()?;
        // The functions of two columns are called with (y, x).
        let x: &Float64Array = columns[self.width - 1].as_primitive::<Float64Type>();
        let y: &Float64Array = columns[0].as_primitive::<Float64Type>();
        let two = self.width == 2;
        for (row, (&group, &weight)) in groups.iter().zip(weights).enumerate() {
            if x.is_null(row) || y.is_null(row) {
                continue;
            }
            let (count, sums) = (&mut self.counts[group as usize], &mut self.sums[group as usize]);
            let (x, y) = (x.value(row), y.value(row));
            *count = count.wrapping_add(weight);
            sums.x.add(x, weight);
            sums.xx.add_product(x, x, weight);
            if two {
                sums.y.add(y, weight);
                sums.yy.add_product(y, y, weight);
                sums.xy.add_product(x, y, weight);
            }
        }
        Ok(())
    }

    fn finish(&self) -> Result<Finished, ArrowError> {
        let column: ArrayRef = match self.function {
            AggregateFunction::RegrCount => {
                Arc::new(UInt64Array::from_iter_values(self.counts.iter().map(|n| n.cast_unsigned())))
            }
            _ => Arc::new(Float64Array::from_iter((0..self.counts.len()).map(|group| self.result(group)))),
        };
        Ok(Finished { column, overflowed: Vec::new() })
    }
}

#[cfg(test)]
mod tests;
