//! `datagen`: rows of random or counted values.
//!
//! Settings: `seed` (default 1) and `plan`, a list of `{"limit": rows, "fields": {column: {…}}}`, worked off one after the other; only the last may have no
//! `limit`, and then goes on for ever. Without `plan` the rows are counted up for ever. A field has
//! - `strategy`: `increment` (the default: the row's number in its plan, times `scale`, from the range's start on, wrapping at its end) or `uniform`;
//! - `range`: `[from, below]`, whole numbers (of days for a date, of milliseconds for a timestamp) or, for floats, any numbers;
//! - `scale`: a whole number, default 1;
//! - `values`: a list to choose from (in order, or uniformly) instead of a range;
//! - `null_percentage`: 0 to 100.
//!
//! Booleans alternate or are uniform; a VARCHAR without `values` is a number's text. A table's column that no field names is counted up.
//!
//! Invariant: every value is a function of (seed, ordinal, column). There is no `rate` yet, rows come as fast as they are taken.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::kernels::nullif::nullif;
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::super::config::{ConnectorConfig, FormatConfig};
use super::super::format::Format;
use super::super::format::cell::check_types;
use super::super::format::split::{Framing, split};
use super::super::options::{Options, suggestion};
use super::super::{ConnectorError, Context, Result};
use super::generator::{Generator, GeneratorInput};
use super::random::{below, random};

/// Counted up when the same options give other rows.
const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    Increment,
    Uniform,
}

/// What a column's values are made from.
#[derive(Debug)]
enum Values {
    Whole {
        from: i64,
        below: i64,
        scale: u64,
    },
    Float {
        from: f64,
        below: f64,
        scale: f64,
    },
    Bool,
    /// In the column's type.
    List(ArrayRef),
}

#[derive(Debug)]
struct Column {
    strategy: Strategy,
    values: Values,
    null_percentage: u64,
}

#[derive(Debug)]
struct Plan {
    /// Its first ordinal.
    start: u64,
    /// The ordinal after its last.
    end: u64,
    columns: Vec<Column>,
}

/// A configured generator of rows.
#[derive(Debug)]
pub(crate) struct Datagen {
    connector: String,
    schema: SchemaRef,
    /// By column, what keeps its random numbers apart.
    numbers: Vec<u64>,
    seed: u64,
    plans: Vec<Plan>,
    end: Option<u64>,
    identity: String,
}

/// Makes the input of a `datagen` connector.
pub(crate) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<GeneratorInput<Datagen>> {
    Datagen::new(config, ctx).map(GeneratorInput::new)
}

impl Datagen {
    fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Self> {
        let place = "transport.config of datagen";
        let options = Options::new(&ctx.name, place, &config.transport.config, &["plan", "seed"], &["workers"])?;
        check_types(&ctx.name, &ctx.schema)?;
        let seed = options.u64("seed")?.unwrap_or(1);
        let unlimited = json!([{}]);
        let plan = options.value("plan").unwrap_or(&unlimited);
        let Value::Array(items) = plan else {
            return Err(options.error("\"plan\" must be a list: [{\"limit\": 100, \"fields\": {…}}]"));
        };
        let (mut plans, mut start, mut end) = (Vec::new(), 0u64, Some(0));
        for (i, item) in items.iter().enumerate() {
            if end.is_none() {
                return Err(options.error("a plan without \"limit\" never ends, so that the ones behind it would never begin; give it a limit"));
            }
            let place = format!("plan {} of datagen", i + 1);
            let one = Options::new(&ctx.name, &place, item, &["limit", "fields"], &["rate", "worker_chunk_size"])?;
            let limit = one.u64("limit")?;
            end = limit.map(|l| start.saturating_add(l));
            let fields = one.value("fields").unwrap_or(&Value::Null);
            let names: Vec<&str> = ctx.schema.fields().iter().map(|f| f.name().as_str()).collect();
            if let Some(map) = fields.as_object() {
                let unknown = map.keys().find(|k| !names.iter().any(|n| n.eq_ignore_ascii_case(k)));
                if let Some(key) = unknown {
                    return Err(one.error(format!("the table has no column {key}; {}", suggestion(key, &names))));
                }
            } else if !fields.is_null() {
                return Err(one.error("\"fields\" must be an object: {\"column\": {…}}"));
            }
            let column = |field: &Arc<Field>| {
                let found =
                    fields.as_object().and_then(|m| m.iter().find(|(k, _)| k.eq_ignore_ascii_case(field.name())));
                let settings = found.map_or(&Value::Null, |(_, v)| v);
                Column::new(ctx, field, settings, &format!("column {} of plan {} of datagen", field.name(), i + 1))
            };
            let columns = ctx.schema.fields().iter().map(column).collect::<Result<_>>()?;
            plans.push(Plan { start, end: end.unwrap_or(u64::MAX), columns });
            start = end.unwrap_or(u64::MAX);
        }
        // What has been made stays the same if the last plan's limit changes.
        let mut shape = plan.clone();
        if let Some(last) = shape.as_array_mut().and_then(|a| a.last_mut()).and_then(Value::as_object_mut) {
            last.remove("limit");
        }
        let shape = xxh3_64(shape.to_string().as_bytes());
        Ok(Self {
            connector: ctx.name.clone(),
            schema: Arc::clone(&ctx.schema),
            numbers: numbers(ctx),
            seed,
            plans,
            end,
            identity: format!("datagen {VERSION} seed {seed} plan {shape:016x}"),
        })
    }
}

/// The places of the columns among those that were declared: skipped ones change no other's values.
fn numbers(ctx: &Context) -> Vec<u64> {
    let place = |(i, field): (usize, &Arc<Field>)| {
        let declared = ctx.declared.iter().position(|column| column.field.name() == field.name());
        declared.unwrap_or(i) as u64
    };
    ctx.schema.fields().iter().enumerate().map(place).collect()
}

impl Column {
    fn new(ctx: &Context, field: &Field, settings: &Value, place: &str) -> Result<Self> {
        let known = ["strategy", "range", "scale", "values", "null_percentage"];
        let options = Options::new(&ctx.name, place, settings, &known, &["e", "fields", "key", "value"])?;
        let strategy = match options.string("strategy")? {
            None | Some("increment") => Strategy::Increment,
            Some("uniform") => Strategy::Uniform,
            Some(other) => {
                let there = "there are: increment, uniform";
                return Err(options.error(format!("\"strategy\": \"{other}\" is not supported yet; {there}")));
            }
        };
        let null_percentage = options.u64("null_percentage")?.unwrap_or(0);
        if null_percentage > 100 || (null_percentage > 0 && !field.is_nullable()) {
            return Err(options.error("\"null_percentage\" is 0 to 100, and 0 for a column that is NOT NULL"));
        }
        let values = if let Some(list) = options.value("values") {
            Values::List(list_values(ctx, field, list, &options)?)
        } else {
            range(field, &options)?
        };
        Ok(Self { strategy, values, null_percentage })
    }

    /// Values of `ordinals`; `number` keeps the column's random numbers apart.
    fn array(
        &self,
        seed: u64,
        number: u64,
        start: u64,
        ordinals: &[u64],
        to: &DataType,
    ) -> Result<ArrayRef, arrow::error::ArrowError> {
        let drawn = |o: u64| random(seed, o, number * 2);
        let index = |o: u64, n: u64, scale: u64| match self.strategy {
            Strategy::Increment => ((u128::from(o - start) * u128::from(scale)) % u128::from(n.max(1))) as u64,
            Strategy::Uniform => below(drawn(o), n),
        };
        let rows = ordinals.iter().copied();
        let array: ArrayRef = match &self.values {
            Values::Whole { from, below, scale } => {
                let n = below.abs_diff(*from);
                Arc::new(Int64Array::from_iter_values(rows.map(|o| from.wrapping_add_unsigned(index(o, n, *scale)))))
            }
            Values::Float { from, below, scale } => {
                Arc::new(Float64Array::from_iter_values(rows.map(|o| match self.strategy {
                    Strategy::Increment => from + ((o - start) as f64 * scale) % (below - from),
                    Strategy::Uniform => from + (drawn(o) >> 11) as f64 / (1u64 << 53) as f64 * (below - from),
                })))
            }
            Values::Bool => Arc::new(BooleanArray::from(rows.map(|o| index(o, 2, 1) == 1).collect::<Vec<_>>())),
            Values::List(list) => {
                let n = list.len() as u64;
                take(list, &UInt64Array::from_iter_values(rows.map(|o| index(o, n, 1))), None)?
            }
        };
        let array = cast_to(array, to)?;
        if self.null_percentage == 0 {
            return Ok(array);
        }
        let is_null = |o: &u64| below(random(seed, *o, number * 2 + 1), 100) < self.null_percentage;
        nullif(&array, &BooleanArray::from(ordinals.iter().map(is_null).collect::<Vec<_>>()))
    }
}

/// Casts whole numbers to the column's type: days to dates, milliseconds to timestamps and times.
fn cast_to(array: ArrayRef, to: &DataType) -> Result<ArrayRef, arrow::error::ArrowError> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let via = match (array.data_type(), to) {
        (from, to) if from == to => return Ok(array),
        (DataType::Int64, DataType::Date32) => DataType::Int32,
        (DataType::Int64, DataType::Timestamp(..)) => DataType::Timestamp(TimeUnit::Millisecond, None),
        _ => return cast_with_options(&array, to, &strict),
    };
    cast_with_options(&cast_with_options(&array, &via, &strict)?, to, &strict)
}

/// The settings' list of values, in the column's type: read as JSON rows of this column.
fn list_values(ctx: &Context, field: &Field, list: &Value, options: &Options<'_>) -> Result<ArrayRef> {
    if options.value("range").is_some() || options.value("scale").is_some() {
        return Err(options.error("\"values\" stands alone, without \"range\" and \"scale\""));
    }
    let items = list.as_array().filter(|a| !a.is_empty());
    let items = items.ok_or_else(|| options.error("\"values\" must be a list with at least one value"))?;
    let lines: String = items.iter().map(|v| json!({ field.name(): v }).to_string() + "\n").collect();
    let schema = Arc::new(Schema::new(vec![field.clone()]));
    let inner = Context { schema, primary_key: Vec::new(), ..ctx.clone() };
    let raw = FormatConfig { name: "json".to_owned(), config: json!({"update_format": "raw"}) };
    let format = Format::new(Some(&raw), &inner)?;
    let mut records = Vec::new();
    split(lines.as_bytes(), 0, Framing::Lines, true, usize::MAX, &mut records)
        .map_err(|_| options.error("a value is longer than 16 MiB"))?;
    let layout = format.layout("", &[])?;
    let parsed = format.parse(&layout, lines.as_bytes(), 0, &records)?;
    match parsed.errors.first() {
        Some(e) => Err(options.error(format!("in \"values\": {}", e.message))),
        None => Ok(Arc::clone(parsed.rows.column(0))),
    }
}

/// A column's range, by default all of its type from 0 on.
fn range(field: &Field, options: &Options<'_>) -> Result<Values> {
    let range = match options.value("range") {
        None | Some(Value::Null) => None,
        Some(Value::Array(ends)) => match ends.as_slice() {
            [from, below] => Some((from, below)),
            _ => return Err(options.error("\"range\" must be [from, below]")),
        },
        Some(_) => return Err(options.error("\"range\" must be [from, below]")),
    };
    let scale = options.u64("scale")?.unwrap_or(1);
    let most = match field.data_type() {
        DataType::Boolean if range.is_some() => return Err(options.error("a BOOLEAN has no \"range\"; use \"values\"")),
        DataType::Boolean => return Ok(Values::Bool),
        DataType::Float32 | DataType::Float64 => {
            let (from, below) = match range {
                None => {
                    (0.0, if options.string("strategy")? == Some("uniform") { 1.0 } else { 9_007_199_254_740_992.0 })
                }
                Some((from, below)) => {
                    from.as_f64().zip(below.as_f64()).ok_or_else(|| options.error("\"range\" must be two numbers"))?
                }
            };
            if from < below {
                return Ok(Values::Float { from, below, scale: scale as f64 });
            }
            return Err(options.error("\"range\" is empty: it is [from, below]"));
        }
        DataType::Binary => return Err(options.error("a BINARY column needs \"values\"")),
        DataType::Int8 => i64::from(i8::MAX),
        DataType::Int16 => i64::from(i16::MAX),
        DataType::Int32 => i64::from(i32::MAX),
        DataType::UInt8 => i64::from(u8::MAX),
        DataType::UInt16 => i64::from(u16::MAX),
        DataType::UInt32 => i64::from(u32::MAX),
        // 9999-12-31.
        DataType::Date32 => 2_932_896,
        // What nanoseconds hold: 2262-04-11.
        DataType::Timestamp(..) => 9_223_372_036_854,
        DataType::Time32(_) | DataType::Time64(_) => return Err(options.error("a TIME column needs \"values\"")),
        DataType::Decimal128(precision, scale) => {
            let digits = i32::from(*precision) - i32::from(*scale);
            10i64.checked_pow(digits.max(0).unsigned_abs()).unwrap_or(i64::MAX)
        }
        _ => i64::MAX,
    };
    let (from, below) = match range {
        None => (0, most),
        Some((from, below)) => {
            from.as_i64().zip(below.as_i64()).ok_or_else(|| options.error("\"range\" must be two whole numbers"))?
        }
    };
    if from < below && below.saturating_sub(1) <= most && from >= most.saturating_neg().saturating_sub(1) {
        Ok(Values::Whole { from, below, scale })
    } else {
        Err(options.error(format!(
            "\"range\" is [from, below], from less than below, and both within the column's type ({most} at most)"
        )))
    }
}

impl Generator for Datagen {
    fn connector(&self) -> &str {
        &self.connector
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn end(&self) -> Option<u64> {
        self.end
    }

    fn select(&self, from: u64, to: u64, most: usize) -> Vec<u64> {
        // All of one plan, so that a batch has one set of columns.
        let Some(plan) = self.plans.iter().find(|p| from < p.end) else { return Vec::new() };
        let to = to.min(plan.end).min(from.saturating_add(most as u64));
        (from..to).collect()
    }

    fn rows(&self, ordinals: &[u64]) -> Result<RecordBatch> {
        let fail = |e| {
            ConnectorError::new(
                &self.connector,
                format!("a generated value does not fit its column: {e}; set its \"range\""),
            )
        };
        let first = ordinals.first().copied().unwrap_or(0);
        let Some(plan) = self.plans.iter().find(|p| first < p.end) else {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        };
        let columns = plan.columns.iter().zip(self.schema.fields()).zip(&self.numbers);
        let arrays = columns.map(|((c, f), number)| c.array(self.seed, *number, plan.start, ordinals, f.data_type()));
        let arrays = arrays.collect::<Result<Vec<_>, _>>().map_err(fail)?;
        RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(fail)
    }
}

#[cfg(test)]
mod tests;
