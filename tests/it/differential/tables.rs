//! Random tables, and random values of a column.
//!
//! Domains are small, so that keys meet, groups have members and rows repeat.

use arrow::array::StructArray;
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::ScalarValue;

use crate::rng::Rng;

/// Types of columns, the likely ones several times.
pub(super) const TYPES: [&str; 13] = [
    "INT",
    "INT",
    "BIGINT",
    "BIGINT",
    "SMALLINT",
    "INT UNSIGNED",
    "DOUBLE",
    "REAL",
    "DECIMAL(10, 2)",
    "VARCHAR",
    "VARCHAR",
    "DATE",
    "TIMESTAMP",
];
/// Types of which a primary key is made.
const KEY_TYPES: [&str; 4] = ["INT", "BIGINT", "VARCHAR", "DATE"];

/// Two or three tables.
pub(super) fn create(rng: &mut Rng) -> String {
    let mut sql = String::new();
    for table in 0..2 + rng.below(2) {
        let mut columns = Vec::new();
        let keys = rng.below(3);
        for column in 0..keys + 1 + rng.below(4) {
            let data_type = match column {
                0 => rng.one_of(&["INT", "BIGINT"]),
                column if column < keys => rng.one_of(&KEY_TYPES),
                _ if rng.once_in(10) => "BOOLEAN",
                _ => rng.one_of(&TYPES),
            };
            let not_null = if column >= keys && rng.once_in(5) { " NOT NULL" } else { "" };
            columns.push(format!("k{column} {data_type}{not_null}"));
        }
        if keys > 0 {
            let names: Vec<String> = (0..keys).map(|i| format!("k{i}")).collect();
            columns.push(format!("PRIMARY KEY ({})", names.join(", ")));
        }
        let append_only = if keys == 0 && rng.once_in(3) { " WITH ('append_only' = 'true')" } else { "" };
        sql.push_str(&format!("CREATE TABLE t{table} ({}){append_only};\n", columns.join(", ")));
    }
    sql
}

/// A value of a table's column.
pub(super) fn value(rng: &mut Rng, field: &Field) -> ScalarValue {
    if field.is_nullable() && rng.once_in(6) {
        return ScalarValue::try_from(field.data_type()).unwrap();
    }
    let small = rng.below(6) as i64 - 1;
    let natural = rng.below(6);
    let day = rng.below(5) as i64;
    match field.data_type() {
        DataType::Boolean => ScalarValue::Boolean(Some(rng.once_in(2))),
        DataType::Int8 => ScalarValue::Int8(Some(small as i8)),
        DataType::Int16 => ScalarValue::Int16(Some(small as i16)),
        DataType::Int32 if rng.once_in(60) => ScalarValue::Int32(Some(i32::MAX)),
        DataType::Int32 => ScalarValue::Int32(Some(small as i32)),
        DataType::Int64 if rng.once_in(60) => ScalarValue::Int64(Some(i64::MAX)),
        DataType::Int64 => ScalarValue::Int64(Some(small)),
        DataType::UInt8 => ScalarValue::UInt8(Some(natural as u8)),
        DataType::UInt16 => ScalarValue::UInt16(Some(natural as u16)),
        DataType::UInt32 => ScalarValue::UInt32(Some(natural as u32)),
        DataType::UInt64 => ScalarValue::UInt64(Some(natural)),
        DataType::Float32 => ScalarValue::Float32(Some(float(rng) as f32)),
        DataType::Float64 => ScalarValue::Float64(Some(float(rng))),
        DataType::Decimal128(precision, scale) => {
            ScalarValue::Decimal128(Some(i128::from(small) * 50), *precision, *scale)
        }
        DataType::Utf8 => ScalarValue::Utf8(Some(rng.one_of(&["", "a", "b", "ab", "B", "\u{e9}"]).to_owned())),
        DataType::Binary => ScalarValue::Binary(Some(vec![0, natural as u8])),
        DataType::Date32 => ScalarValue::Date32(Some(19_800 + day as i32)),
        DataType::Time64(TimeUnit::Microsecond) => ScalarValue::Time64Microsecond(Some(day * 3_600_000_000)),
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            let hour = 3_600_000_000;
            ScalarValue::TimestampMicrosecond(Some((19_800 * 24 + 12 * day) * hour + natural as i64 * hour / 4), None)
        }
        DataType::List(item) => {
            let items: Vec<ScalarValue> = (0..rng.below(4)).map(|_| value(rng, item)).collect();
            ScalarValue::List(ScalarValue::new_list(&items, item.data_type(), true))
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().map(|field| (field.clone(), value(rng, field).to_array().unwrap()));
            ScalarValue::Struct(std::sync::Arc::new(StructArray::from(columns.collect::<Vec<_>>())))
        }
        other => panic!("no values of type {other}"),
    }
}

/// Multiples of a quarter, whose sums are exact, NaN, and both zeros. No infinities: their difference is a NaN with a sign, which
/// compares differently before and after it was stored.
fn float(rng: &mut Rng) -> f64 {
    match rng.below(20) {
        0 => f64::NAN,
        1 | 2 => -0.0,
        n => (n as f64 - 8.0) * 0.25,
    }
}
