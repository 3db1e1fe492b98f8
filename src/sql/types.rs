//! SQL types → Arrow types, for columns and for casts.
//!
//! Where DataFusion's own mapping differs (timestamps and times of nanoseconds; no BINARY, no ARRAY<…>), ours is used for
//! both, so that a cast to a column's type never changes precision. The length of `VARCHAR(n)` is not enforced.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use datafusion_common::Result;
use datafusion_expr::planner::TypePlanner;
use datafusion_sql::sqlparser::ast::{
    ArrayElemTypeDef, DataType as SqlType, ExactNumberInfo, StructField, TimezoneInfo,
};

use super::ddl::normalized;

/// How deep lists, structs and maps stand in each other. What is done with a type goes through it by recursion, on stacks of any size.
const MAX_NESTING: usize = 64;
/// What is said of deeper ones.
pub(super) const TOO_DEEP: &str = "lists, structs and maps stand in each other at most 64 deep";

/// Whether a type is nested deeper than it may be.
pub(super) fn is_too_deep(data_type: &DataType) -> bool {
    fn is_deeper_than(data_type: &DataType, most: usize) -> bool {
        let Some(below) = most.checked_sub(1) else { return true };
        match data_type {
            DataType::List(item) | DataType::Map(item, _) => is_deeper_than(item.data_type(), below),
            DataType::Struct(fields) => fields.iter().any(|field| is_deeper_than(field.data_type(), below)),
            _ => false,
        }
    }
    // The entries of a map are a struct.
    is_deeper_than(data_type, 2 * MAX_NESTING)
}

/// The Arrow type of a SQL type, or what to use instead.
pub(super) fn arrow_type(sql: &SqlType) -> Result<DataType, &'static str> {
    within(sql, MAX_NESTING)
}

/// As [`arrow_type`], of a type that may be nested so deep.
fn within(sql: &SqlType, most: usize) -> Result<DataType, &'static str> {
    use ExactNumberInfo as Number;
    let below = most.checked_sub(1).ok_or(TOO_DEEP)?;
    let arrow_type = |sql: &SqlType| within(sql, below);
    Ok(match sql {
        SqlType::Boolean | SqlType::Bool => DataType::Boolean,
        SqlType::TinyInt(_) => DataType::Int8,
        SqlType::SmallInt(_) | SqlType::Int2(_) => DataType::Int16,
        SqlType::Int(_) | SqlType::Integer(_) | SqlType::Int4(_) => DataType::Int32,
        SqlType::BigInt(_) | SqlType::Int8(_) => DataType::Int64,
        SqlType::TinyIntUnsigned(_) => DataType::UInt8,
        SqlType::SmallIntUnsigned(_) | SqlType::Int2Unsigned(_) => DataType::UInt16,
        SqlType::IntUnsigned(_) | SqlType::IntegerUnsigned(_) | SqlType::Int4Unsigned(_) => DataType::UInt32,
        SqlType::BigIntUnsigned(_) | SqlType::Int8Unsigned(_) => DataType::UInt64,
        SqlType::Real | SqlType::Float4 | SqlType::Float(Number::None) => DataType::Float32,
        SqlType::Double(Number::None) | SqlType::DoublePrecision | SqlType::Float8 => DataType::Float64,
        SqlType::Numeric(number) | SqlType::Decimal(number) | SqlType::Dec(number) => decimal(number)?,
        SqlType::Varchar(_)
        | SqlType::CharVarying(_)
        | SqlType::CharacterVarying(_)
        | SqlType::Char(_)
        | SqlType::Character(_)
        | SqlType::Text
        | SqlType::String(_) => DataType::Utf8,
        SqlType::Binary(_) | SqlType::Varbinary(_) | SqlType::Bytea => DataType::Binary,
        SqlType::Date => DataType::Date32,
        SqlType::Time(None | Some(0..=6), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            DataType::Time64(TimeUnit::Microsecond)
        }
        SqlType::Timestamp(None | Some(0..=6), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        }
        SqlType::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => {
            return Err("use TIMESTAMP, which is UTC by convention");
        }
        SqlType::Time(..) | SqlType::Timestamp(..) => {
            return Err("TIME and TIMESTAMP have no time zone and at most 6 digits of a second");
        }
        SqlType::Array(ArrayElemTypeDef::AngleBracket(item) | ArrayElemTypeDef::SquareBracket(item, None)) => {
            DataType::List(Arc::new(Field::new_list_field(arrow_type(item)?, true)))
        }
        SqlType::Interval { .. } => return Err("keep the two times, or a number of seconds as BIGINT"),
        SqlType::Struct(fields, _) => {
            let field = |(i, field): (usize, &StructField)| {
                let name = field.field_name.as_ref().map_or_else(|| format!("c{i}"), normalized);
                Ok(Arc::new(Field::new(name, arrow_type(&field.field_type)?, true)))
            };
            DataType::Struct(fields.iter().enumerate().map(field).collect::<Result<_, &'static str>>()?)
        }
        SqlType::Map(key, value) => {
            let key = arrow_type(key)?;
            if key.is_nested() {
                return Err("the keys of a MAP are no lists, structs or maps");
            }
            let entries = [Field::new("key", key, false), Field::new("value", arrow_type(value)?, true)];
            DataType::Map(
                Arc::new(Field::new("entries", DataType::Struct(Fields::from(entries.to_vec())), false)),
                false,
            )
        }
        SqlType::Uuid | SqlType::JSON | SqlType::JSONB => DataType::Utf8,
        SqlType::Custom(name, _) if name.to_string().eq_ignore_ascii_case("variant") => DataType::Utf8,
        _ => {
            return Err(
                "the types are BOOLEAN, TINYINT, SMALLINT, INT, BIGINT (also UNSIGNED), REAL, DOUBLE, DECIMAL(p, s), \
                        VARCHAR, CHAR, TEXT, BINARY, DATE, TIME, TIMESTAMP, UUID, JSON, type ARRAY, ROW(name type, …) and MAP<type, type>",
            );
        }
    })
}

/// What the text in a column is, beyond its Arrow type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Semantics {
    /// A JSON document.
    Json,
    /// A UUID, in lower case with hyphens.
    Uuid,
}

impl Semantics {
    const KEY: &'static str = "backstay";

    /// What the column of a table holds; views keep the text only.
    pub fn of(field: &Field) -> Option<Self> {
        match field.metadata().get(Self::KEY)?.as_str() {
            "json" => Some(Self::Json),
            "uuid" => Some(Self::Uuid),
            _ => None,
        }
    }

    /// The column, marked with what its SQL type says beyond the Arrow type.
    pub(super) fn mark(field: Field, sql: &SqlType) -> Field {
        let name = match sql {
            SqlType::Uuid => "uuid",
            SqlType::JSON | SqlType::JSONB | SqlType::Custom(..) => "json",
            _ => return field,
        };
        field.with_metadata([(Self::KEY.to_owned(), name.to_owned())].into())
    }
}

fn decimal(number: &ExactNumberInfo) -> Result<DataType, &'static str> {
    let (precision, scale) = match *number {
        // As DataFusion has it in casts.
        ExactNumberInfo::None => (38, 10),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(p @ 1..=38), Ok(s @ 0..)) if i16::from(s) <= i16::from(p) => Ok(DataType::Decimal128(p, s)),
        _ => Err("DECIMAL(p, s) has 1 <= p <= 38 and 0 <= s <= p"),
    }
}

/// Whether SQL's `sum` and `avg` over this type are maintained.
pub(super) fn is_summable(data_type: &DataType) -> bool {
    use DataType::{Decimal32, Decimal64, Decimal128, Decimal256, Float32, Float64};
    data_type.is_integer()
        || matches!(data_type, Float32 | Float64 | Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..))
}

/// Makes DataFusion's planner use [`arrow_type`] in casts.
#[derive(Debug)]
pub(super) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        // What we don't know (INTERVAL literals, say) is DataFusion's to map.
        Ok(arrow_type(sql_type).ok().map(|data_type| Arc::new(Field::new("", data_type, true))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        assert_eq!(decimal(&ExactNumberInfo::None), Ok(DataType::Decimal128(38, 10)));
        assert_eq!(decimal(&ExactNumberInfo::Precision(5)), Ok(DataType::Decimal128(5, 0)));
        assert_eq!(decimal(&ExactNumberInfo::PrecisionAndScale(12, 2)), Ok(DataType::Decimal128(12, 2)));
        for (p, s) in [(0, 0), (39, 0), (5, 6), (5, -1)] {
            assert!(decimal(&ExactNumberInfo::PrecisionAndScale(p, s)).is_err(), "DECIMAL({p}, {s})");
        }
    }
}
