//! Aggregates that look at all values of a group in order: `array_agg`, `string_agg`, `nth_value`, `median`, `percentile_cont`.
//!
//! Invariants:
//! 1. The values of every group are in a weighted spine, each behind the columns of its ORDER BY, so that bytes compare as
//!    the order asks for; ties are broken by the value itself. Aggregates of the same columns, order and filter share one.
//! 2. A value counts as often as its weight says, with DISTINCT once, with a negative weight not at all.
//!
//! Known limit: a step reads all values of the groups that it touches.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal256Array, Float64Array, LargeStringBuilder, ListArray, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{CastOptions, SortOptions, cast, cast_with_options};
use arrow::datatypes::{DECIMAL256_MAX_PRECISION, DataType, Decimal256Type, Float64Type, i256};
use arrow::error::ArrowError;
use backstay_storage::spine::{Discipline, KeyBatch, Probe, RowBatch, Spine};
use datafusion_common::ScalarValue;

use super::selection::Selection;
use crate::circuit::error::CircuitError;
use crate::circuit::plan::{Aggregate, AggregateFunction};
use crate::circuit::row::RowCodec;

/// The values of some columns over all groups, the last column being the aggregate's argument.
pub(super) struct OrderedValues {
    pub(super) columns: Vec<usize>,
    pub(super) filter: Option<usize>,
    options: Vec<SortOptions>,
    ignore_nulls: bool,
    codec: RowCodec,
    null_row: Vec<u8>,
    /// Group key → order columns and value.
    pub(super) values: Spine,
}

/// What is made of a group's values.
pub(super) enum OrderedResult {
    Array,
    Text {
        delimiter: String,
    },
    /// From 1; negative from the end, from −1.
    Nth(i64),
    /// Of the values that are not NULL, by interpolation between two of them.
    Quantile(f64),
}

/// An aggregate of this kind and the columns, with their order, that it wants in a spine.
pub(super) struct OrderedCall {
    pub(super) result: OrderedResult,
    pub(super) distinct: bool,
    data_type: DataType,
    columns: Vec<usize>,
    options: Vec<SortOptions>,
    ignore_nulls: bool,
}

type Result<T, E = CircuitError> = std::result::Result<T, E>;

const ASCENDING: SortOptions = SortOptions { descending: false, nulls_first: true };

impl OrderedCall {
    /// `None` if the aggregate is of another kind.
    pub(super) fn new(aggregate: &Aggregate) -> Option<Self> {
        use AggregateFunction as F;
        let (result, ignore_nulls) = match (aggregate.function, &aggregate.parameter) {
            (F::ArrayAgg, None) => (OrderedResult::Array, aggregate.ignore_nulls),
            (F::StringAgg, Some(delimiter)) => {
                let delimiter = delimiter.try_as_str()?.unwrap_or_default().to_owned();
                (OrderedResult::Text { delimiter }, true)
            }
            (F::NthValue, Some(ScalarValue::Int64(Some(n)))) => (OrderedResult::Nth(*n), aggregate.ignore_nulls),
            (F::Median, None) => (OrderedResult::Quantile(0.5), true),
            (F::PercentileCont, Some(ScalarValue::Float64(Some(p)))) => (OrderedResult::Quantile(*p), true),
            _ => return None,
        };
        let &value = aggregate.arguments.first()?;
        let (mut columns, mut options) = (Vec::new(), Vec::new());
        if aggregate.distinct {
            // The order can only be the value's own.
            options.push(aggregate.order_by.first().map_or(ASCENDING, |sort| sort.options));
        } else {
            columns.extend(aggregate.order_by.iter().map(|sort| sort.column));
            options.extend(aggregate.order_by.iter().map(|sort| sort.options));
            options.push(ASCENDING);
        }
        columns.push(value);
        Some(Self {
            result,
            distinct: aggregate.distinct,
            data_type: aggregate.result.clone(),
            columns,
            options,
            ignore_nulls,
        })
    }

    /// Whether `values` are those that this looks at.
    pub(super) fn is_over(&self, values: &OrderedValues, filter: Option<usize>) -> bool {
        self.columns == values.columns
            && self.options == values.options
            && self.ignore_nulls == values.ignore_nulls
            && filter == values.filter
    }

    /// The values that this looks at. `types` are the columns'.
    pub(super) fn open<'a>(
        &self,
        filter: Option<usize>,
        type_of: impl Fn(usize) -> &'a DataType,
        values: Spine,
    ) -> Result<OrderedValues> {
        let fields: Vec<_> = self.columns.iter().zip(&self.options).map(|(&c, o)| (type_of(c).clone(), *o)).collect();
        let codec = RowCodec::ordered(&fields)?;
        let nulls: Vec<ArrayRef> = codec.types().iter().map(|t| new_null_array(t, 1)).collect();
        let null_row = codec.encode(&nulls, 1)?.get(0).to_vec();
        let (columns, options) = (self.columns.clone(), self.options.clone());
        Ok(OrderedValues { columns, filter, options, ignore_nulls: self.ignore_nulls, codec, null_row, values })
    }

    /// The result of each group over its rows in `values`.
    pub(super) fn finish(&self, values: &OrderedValues, rows: &Probe, label: &str) -> Result<ArrayRef> {
        match &self.result {
            OrderedResult::Array => self.lists(values, rows, label),
            OrderedResult::Text { delimiter } => self.texts(values, rows, delimiter, label),
            OrderedResult::Nth(n) => {
                let index = |count: u64| match *n {
                    n if n > 0 => Some(n.unsigned_abs() - 1),
                    n => count.checked_sub(n.unsigned_abs()).filter(|_| n < 0),
                };
                values.decode((0..groups(rows)).map(|group| self.at(rows, group, index(self.count(rows, group))?)))
            }
            OrderedResult::Quantile(share) => self.quantiles(values, rows, *share, label),
        }
    }

    fn copies(&self, weight: i64) -> u64 {
        if self.distinct { u64::from(weight > 0) } else { weight.max(0).unsigned_abs() }
    }

    /// The number of values of a group.
    fn count(&self, rows: &Probe, group: usize) -> u64 {
        rows.range(group).fold(0u64, |sum, row| sum.saturating_add(self.copies(rows.rows.weight(row))))
    }

    /// Value `at`, from 0, of a group.
    fn at<'a>(&self, rows: &'a Probe, group: usize, at: u64) -> Option<&'a [u8]> {
        let mut rest = at;
        rows.range(group).find_map(|row| match self.copies(rows.rows.weight(row)) {
            copies if rest < copies => Some(rows.rows.value(row)),
            copies => {
                rest -= copies;
                None
            }
        })
    }

    /// All values of all groups, and where each group's start.
    fn all(&self, values: &OrderedValues, rows: &Probe, label: &str) -> Result<(ArrayRef, Vec<i32>)> {
        let mut offsets = vec![0i32];
        let mut total = 0i32;
        for group in 0..groups(rows) {
            let count = i32::try_from(self.count(rows, group)).ok();
            total = count.and_then(|count| total.checked_add(count)).ok_or_else(|| {
                CircuitError::plan(label, format!("the groups of one step have more than {} values to list", i32::MAX))
            })?;
            offsets.push(total);
        }
        let each = (0..groups(rows)).flat_map(|group| rows.range(group)).flat_map(|row| {
            let copies = usize::try_from(self.copies(rows.rows.weight(row))).unwrap_or(usize::MAX);
            std::iter::repeat_n(Some(rows.rows.value(row)), copies)
        });
        Ok((values.decode(each)?, offsets))
    }

    fn lists(&self, values: &OrderedValues, rows: &Probe, label: &str) -> Result<ArrayRef> {
        let (items, offsets) = self.all(values, rows, label)?;
        let DataType::List(field) = &self.data_type else {
            return Err(CircuitError::plan(label, format!("array_agg cannot be {}", self.data_type)));
        };
        let nulls = NullBuffer::from_iter(offsets.windows(2).map(|w| w[0] < w[1]));
        let list = ListArray::try_new(Arc::clone(field), OffsetBuffer::new(offsets.into()), items, Some(nulls));
        Ok(Arc::new(list.map_err(CircuitError::arrow(label))?))
    }

    fn texts(&self, values: &OrderedValues, rows: &Probe, delimiter: &str, label: &str) -> Result<ArrayRef> {
        let (items, offsets) = self.all(values, rows, label)?;
        let items = cast(&items, &DataType::LargeUtf8).map_err(CircuitError::arrow(label))?;
        let items = items.as_string::<i64>();
        let mut texts = LargeStringBuilder::new();
        let mut text = String::new();
        for range in offsets.windows(2).map(|w| w[0] as usize..w[1] as usize) {
            if range.is_empty() {
                texts.append_null();
                continue;
            }
            text.clear();
            for item in range.clone() {
                if item > range.start {
                    text.push_str(delimiter);
                }
                text.push_str(items.value(item));
            }
            texts.append_value(&text);
        }
        cast(&texts.finish(), &self.data_type).map_err(CircuitError::arrow(label))
    }

    /// Value `share` of the way from the first value to the last, between two of them in proportion.
    fn quantiles(&self, values: &OrderedValues, rows: &Probe, share: f64, label: &str) -> Result<ArrayRef> {
        let places = (0..groups(rows)).map(|group| match self.count(rows, group) {
            0 => (0, 0, 0.0),
            count => {
                let place = share * (count - 1) as f64;
                (place.floor() as u64, place.ceil() as u64, place.fract())
            }
        });
        let places: Vec<(u64, u64, f64)> = places.collect();
        let at = |pick: fn(&(u64, u64, f64)) -> u64| {
            values.decode(places.iter().enumerate().map(|(group, place)| self.at(rows, group, pick(place))))
        };
        let (low, high) = (at(|p| p.0)?, at(|p| p.1)?);
        let column = match self.data_type.is_floating() {
            true => self.between_floats(&low, &high, &places),
            false => self.midpoints(&low, &high),
        };
        column.map_err(CircuitError::arrow(label))
    }

    fn between_floats(
        &self,
        low: &ArrayRef,
        high: &ArrayRef,
        places: &[(u64, u64, f64)],
    ) -> Result<ArrayRef, ArrowError> {
        let (low, high) = (cast(low, &DataType::Float64)?, cast(high, &DataType::Float64)?);
        let pairs = low.as_primitive::<Float64Type>().iter().zip(high.as_primitive::<Float64Type>());
        let column = pairs.zip(places).map(|((low, high), &(_, _, part))| match (low?, high?) {
            // Also of infinities, whose difference is NaN.
            (low, high) if part == 0.0 || low == high => Some(low),
            (low, high) => Some(low + (high - low) * part),
        });
        cast(&column.collect::<Float64Array>(), &self.data_type)
    }

    /// Halfway between integers or decimals, cut off.
    fn midpoints(&self, low: &ArrayRef, high: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let scale = match &self.data_type {
            DataType::Decimal32(_, s) | DataType::Decimal64(_, s) => *s,
            DataType::Decimal128(_, s) | DataType::Decimal256(_, s) => *s,
            _ => 0,
        };
        let wide = DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale);
        let (low, high) = (cast(low, &wide)?, cast(high, &wide)?);
        let pairs = low.as_primitive::<Decimal256Type>().iter().zip(high.as_primitive::<Decimal256Type>());
        let two = i256::from(2);
        let column = pairs.map(|(low, high)| low?.wrapping_add(high?).checked_div(two));
        let column = column.collect::<Decimal256Array>().with_precision_and_scale(DECIMAL256_MAX_PRECISION, scale)?;
        cast_with_options(&column, &self.data_type, &CastOptions { safe: false, ..Default::default() })
    }
}

fn groups(rows: &Probe) -> usize {
    rows.offsets.len().saturating_sub(1)
}

impl OrderedValues {
    /// The rows of groups.
    pub(super) fn load(&mut self, keys: &KeyBatch, label: &str) -> Result<Probe> {
        self.values.probe(keys).map_err(CircuitError::storage(label))
    }

    /// Adds the rows of a step to the spine and to what was loaded of it. `keys` are the groups' keys, ascending.
    pub(super) fn update(
        &mut self,
        rows: &Selection<'_>,
        keys: &KeyBatch,
        loaded: &mut Probe,
        label: &str,
    ) -> Result<()> {
        let encoded = self.codec.encode(&rows.columns, rows.weights.len())?;
        let nulls = rows.columns.last().filter(|_| self.ignore_nulls).and_then(|value| value.logical_nulls());
        let mut changes = RowBatch::new();
        for (i, (&group, &weight)) in rows.groups.iter().zip(rows.weights.iter()).enumerate() {
            if nulls.as_ref().is_none_or(|n| n.is_valid(i)) {
                changes.push(keys.get(group as usize), encoded.get(i), weight);
            }
        }
        changes.consolidate(Discipline::Weighted);
        self.values.insert_batch(&changes).map_err(CircuitError::storage(label))?;
        let mut all = std::mem::take(&mut loaded.rows);
        for (key, value, weight) in changes.iter() {
            all.push(key, value, weight);
        }
        all.consolidate(Discipline::Weighted);
        let mut end = 0;
        loaded.offsets.clear();
        loaded.offsets.push(0);
        for group in 0..keys.len() {
            while end < all.len() && all.key(end) == keys.get(group) {
                end += 1;
            }
            // No more than a probe and a step have.
            loaded.offsets.push(u32::try_from(end).unwrap_or(u32::MAX));
        }
        loaded.rows = all;
        Ok(())
    }

    /// The arguments of these rows; NULL for none.
    fn decode<'a>(&'a self, rows: impl Iterator<Item = Option<&'a [u8]>>) -> Result<ArrayRef> {
        let mut columns = self.codec.decode(rows.map(|row| row.unwrap_or(&self.null_row)))?;
        columns.pop().ok_or_else(|| CircuitError::RowFormat("a value without columns".to_owned()))
    }
}
