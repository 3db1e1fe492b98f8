//! What a message carries besides its value, as columns of the table.
//!
//! Settings, as Feldera's: `include_topic`, `include_partition`, `include_offset`, `include_timestamp` and `include_headers`, and ours `include_key`. `true` fills the
//! column `kafka_topic`, `kafka_partition`, … ; a string names another one. The value's format has the other columns.
//!
//! Types: topic VARCHAR; partition INT or BIGINT; offset BIGINT; timestamp TIMESTAMP, or BIGINT for milliseconds; key VARCHAR or VARBINARY; headers
//! MAP<VARCHAR, VARBINARY> or MAP<VARCHAR, VARCHAR>. Of two headers of one name the last one counts.
//!
//! Invariant: the columns have one value a message until [`Metadata::complete`] gives each row that of its message. A message whose metadata do
//! not fit (bytes that are no UTF-8 in a VARCHAR, no key where the column is NOT NULL) is a row that does not parse.
//!
//! Limit: rdkafka panics over a header's name that is not UTF-8, which Kafka's protocol forbids.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Builder, Int64Builder, MapArray, RecordBatch, StringBuilder, StructArray,
    TimestampMicrosecondBuilder, UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use rdkafka::message::{Headers, Message};
use serde_json::Value;

use crate::connector::format::raw::bytes_type;
use crate::connector::options::{Options, suggestion};
use crate::connector::{ConnectorError, Context, Result};

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Key,
    Headers,
    Topic,
    Partition,
    Offset,
    Timestamp,
}

/// The settings, the columns that they fill if they are true, and the types these may have.
const SETTINGS: [(&str, &str, What, &str); 6] = [
    ("include_key", "kafka_key", What::Key, "VARCHAR or VARBINARY"),
    ("include_headers", "kafka_headers", What::Headers, "MAP<VARCHAR, VARBINARY> or MAP<VARCHAR, VARCHAR>"),
    ("include_topic", "kafka_topic", What::Topic, "VARCHAR"),
    ("include_partition", "kafka_partition", What::Partition, "INT or BIGINT"),
    ("include_offset", "kafka_offset", What::Offset, "BIGINT"),
    ("include_timestamp", "kafka_timestamp", What::Timestamp, "TIMESTAMP, or BIGINT for milliseconds"),
];

/// The settings' names.
pub(super) const KEYS: [&str; 6] =
    ["include_key", "include_headers", "include_topic", "include_partition", "include_offset", "include_timestamp"];

/// Which columns of the table are metadata.
#[derive(Debug)]
pub(super) struct Metadata {
    connector: String,
    table: SchemaRef,
    columns: Vec<(usize, What)>,
}

impl What {
    fn fits(self, field: &Field) -> bool {
        match (self, field.data_type()) {
            (Self::Key, _) => bytes_type(field),
            (Self::Topic, data_type) => *data_type == DataType::Utf8 && bytes_type(field),
            (Self::Partition, data_type) => matches!(data_type, DataType::Int32 | DataType::Int64),
            (Self::Offset, data_type) => *data_type == DataType::Int64,
            (Self::Timestamp, data_type) => {
                matches!(data_type, DataType::Int64 | DataType::Timestamp(TimeUnit::Microsecond, None))
            }
            (Self::Headers, data_type) => map_parts(data_type).is_some_and(|(key, value)| {
                *key.data_type() == DataType::Utf8 && matches!(value.data_type(), DataType::Utf8 | DataType::Binary)
            }),
        }
    }
}

/// A map's key and value.
fn map_parts(data_type: &DataType) -> Option<(&Field, &Field)> {
    let DataType::Map(entries, _) = data_type else { return None };
    match entries.data_type() {
        DataType::Struct(parts) => match &parts[..] {
            [key, value] => Some((key, value)),
            _ => None,
        },
        _ => None,
    }
}

impl Metadata {
    pub(super) fn new(options: &Options<'_>, ctx: &Context) -> Result<Self> {
        let fields = ctx.schema.fields();
        let names: Vec<&str> = fields.iter().map(|f| f.name().as_str()).collect();
        let mut columns: Vec<(usize, What)> = Vec::new();
        for (key, default, what, types) in SETTINGS {
            let name = match options.value(key) {
                None | Some(Value::Null | Value::Bool(false)) => continue,
                Some(Value::Bool(true)) => default,
                Some(Value::String(name)) => name.as_str(),
                Some(_) => {
                    return Err(options.error(format!("\"{key}\" must be true, false, or the name of a column")));
                }
            };
            let Some((place, field)) = fields.iter().enumerate().find(|(_, f)| f.name() == name) else {
                return Err(options.error(format!(
                    "\"{key}\" fills the column {name}, which the table does not have: add it ({types}), or name another one as \"{key}\": \"column\"; {}",
                    suggestion(name, &names)
                )));
            };
            if !what.fits(field) {
                return Err(options.error(format!(
                    "\"{key}\" fills the column {name}, which has the type {}; it must be {types}",
                    field.data_type()
                )));
            }
            if columns.iter().any(|(other, _)| *other == place) {
                return Err(options.error(format!("\"{key}\" fills the column {name}, and so does another setting")));
            }
            columns.push((place, what));
        }
        Ok(Self { connector: ctx.name.clone(), table: Arc::clone(&ctx.schema), columns })
    }

    /// The table as the value's format sees it: without these columns.
    pub(super) fn rest(&self, ctx: &Context) -> Context {
        let kept: Vec<usize> =
            (0..ctx.schema.fields().len()).filter(|i| self.columns.iter().all(|(c, _)| c != i)).collect();
        let primary_key = ctx.primary_key.iter().filter_map(|key| kept.iter().position(|i| i == key)).collect();
        let fields: Vec<Field> = kept.iter().map(|i| ctx.schema.field(*i).clone()).collect();
        Context { schema: Arc::new(Schema::new(fields)), primary_key, ..ctx.clone() }
    }

    /// The table's columns.
    pub(super) fn table(&self) -> &SchemaRef {
        &self.table
    }

    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The columns, of no message yet.
    pub(super) fn columns(&self) -> Vec<Column> {
        self.columns.iter().map(|(place, what)| Column::new(*what, self.table.field(*place))).collect()
    }

    /// The rows with their messages' metadata; `messages` says for each row which one it is of.
    pub(super) fn complete(&self, rows: &RecordBatch, columns: Vec<Column>, messages: Vec<u32>) -> Result<RecordBatch> {
        let fail = |e| ConnectorError::new(&self.connector, format!("the metadata do not fit the table: {e}"));
        let messages = UInt32Array::from(messages);
        let mut made: BTreeMap<usize, ArrayRef> = BTreeMap::new();
        for ((place, _), column) in self.columns.iter().zip(columns) {
            let array = column.finish(self.table.field(*place)).map_err(fail)?;
            made.insert(*place, take(&array, &messages, None).map_err(fail)?);
        }
        let mut others = rows.columns().iter();
        let arrays = (0..self.table.fields().len()).filter_map(|i| made.remove(&i).or_else(|| others.next().cloned()));
        RecordBatch::try_new(Arc::clone(&self.table), arrays.collect()).map_err(fail)
    }
}

/// Text or bytes.
#[derive(Debug)]
enum Bytes {
    Text(StringBuilder),
    Binary(BinaryBuilder),
}

impl Bytes {
    fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Binary => Self::Binary(BinaryBuilder::new()),
            _ => Self::Text(StringBuilder::new()),
        }
    }

    /// Adds a value; false: it is not UTF-8, and stands there as NULL.
    fn push(&mut self, value: Option<&[u8]>) -> bool {
        match self {
            Self::Binary(builder) => builder.append_option(value),
            Self::Text(builder) => {
                let text = value.map(std::str::from_utf8);
                builder.append_option(text.and_then(Result::ok));
                return !matches!(text, Some(Err(_)));
            }
        }
        true
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::Binary(mut builder) => Arc::new(builder.finish()),
        }
    }
}

#[derive(Debug)]
enum Values {
    Bytes(Bytes),
    Int(Int32Builder),
    Long(Int64Builder),
    Time(TimestampMicrosecondBuilder),
    Map { names: StringBuilder, values: Bytes, lengths: Vec<usize> },
}

/// One column of metadata, a value a message.
#[derive(Debug)]
pub(super) struct Column {
    what: What,
    name: String,
    is_nullable: bool,
    values: Values,
}

impl Column {
    fn new(what: What, field: &Field) -> Self {
        let values = match field.data_type() {
            DataType::Int32 => Values::Int(Int32Builder::new()),
            DataType::Int64 => Values::Long(Int64Builder::new()),
            DataType::Timestamp(..) => Values::Time(TimestampMicrosecondBuilder::new()),
            map @ DataType::Map(..) => Values::Map {
                names: StringBuilder::new(),
                values: Bytes::new(map_parts(map).map_or(&DataType::Utf8, |(_, value)| value.data_type())),
                lengths: Vec::new(),
            },
            other => Values::Bytes(Bytes::new(other)),
        };
        Self { what, name: field.name().clone(), is_nullable: field.is_nullable(), values }
    }

    /// Adds a message's value; gives what is wrong with it.
    pub(super) fn push(&mut self, message: &impl Message) -> Option<String> {
        let name = &self.name;
        let bytes = match self.what {
            What::Key => message.key(),
            What::Topic => Some(message.topic().as_bytes()),
            _ => None,
        };
        let number = match self.what {
            What::Partition => Some(i64::from(message.partition())),
            What::Offset => Some(message.offset()),
            What::Timestamp => message.timestamp().to_millis(),
            _ => None,
        };
        let (is_there, is_right) = match &mut self.values {
            Values::Bytes(builder) => (bytes.is_some(), builder.push(bytes)),
            Values::Int(builder) => {
                builder.append_option(number.and_then(|n| i32::try_from(n).ok()));
                (number.is_some(), true)
            }
            Values::Long(builder) => {
                builder.append_option(number);
                (number.is_some(), true)
            }
            Values::Time(builder) => {
                builder.append_option(number.and_then(|ms| ms.checked_mul(1_000)));
                (number.is_some(), true)
            }
            Values::Map { names, values, lengths } => {
                let headers: BTreeMap<&str, Option<&[u8]>> =
                    message.headers().into_iter().flat_map(|h| h.iter()).map(|h| (h.key, h.value)).collect();
                lengths.push(headers.len());
                let mut is_right = true;
                for (name, value) in headers {
                    names.append_value(name);
                    is_right &= values.push(value);
                }
                (true, is_right)
            }
        };
        match (is_there, is_right) {
            (_, false) => Some(format!("column {name}: the message's bytes are not UTF-8; VARBINARY takes any")),
            (false, _) if !self.is_nullable => Some(format!("column {name} is NOT NULL, and the message has none")),
            _ => None,
        }
    }

    fn finish(self, field: &Field) -> Result<ArrayRef, arrow::error::ArrowError> {
        Ok(match self.values {
            Values::Bytes(builder) => builder.finish(),
            Values::Int(mut builder) => Arc::new(builder.finish()),
            Values::Long(mut builder) => Arc::new(builder.finish()),
            Values::Time(mut builder) => Arc::new(builder.finish()),
            Values::Map { mut names, values, lengths } => {
                let DataType::Map(entries, _) = field.data_type() else {
                    return Ok(arrow::array::new_null_array(field.data_type(), lengths.len()));
                };
                let DataType::Struct(parts) = entries.data_type() else {
                    return Ok(arrow::array::new_null_array(field.data_type(), lengths.len()));
                };
                let rows = StructArray::try_new(parts.clone(), vec![Arc::new(names.finish()), values.finish()], None)?;
                let (offsets, nulls) = (OffsetBuffer::from_lengths(lengths), None::<NullBuffer>);
                Arc::new(MapArray::try_new(Arc::clone(entries), offsets, rows, nulls, false)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use backstay_storage::disk::SimDisk;
    use rdkafka::message::{Header, OwnedHeaders, OwnedMessage, Timestamp};
    use serde_json::json;

    use super::*;
    use crate::connector::testing::{context, text};

    fn table() -> Context {
        let entries = [Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)];
        let map =
            DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries.to_vec().into()), false)), false);
        let fields = vec![
            Field::new("kafka_key", DataType::Utf8, false),
            Field::new("v", DataType::Int64, true),
            Field::new("h", map, true),
            Field::new("kafka_topic", DataType::Utf8, true),
            Field::new("kafka_partition", DataType::Int32, true),
            Field::new("id", DataType::Int64, true),
            Field::new("kafka_offset", DataType::Int64, true),
            Field::new("kafka_timestamp", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ];
        Context { primary_key: vec![0, 5], ..context(Arc::new(SimDisk::new(1)), Arc::new(Schema::new(fields))) }
    }

    fn new(ctx: &Context, settings: &Value) -> Result<Metadata> {
        Metadata::new(&Options::new(&ctx.name, "config", settings, &KEYS, &[])?, ctx)
    }

    fn message(key: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)], offset: i64) -> OwnedMessage {
        let owned = headers.iter().fold(OwnedHeaders::new(), |h, (key, value)| h.insert(Header { key, value: *value }));
        let time = Timestamp::CreateTime(1_357_002_000_123);
        OwnedMessage::new(None, key.map(<[u8]>::to_vec), "t".to_owned(), time, 3, offset, Some(owned))
    }

    #[test]
    fn rows_have_their_messages_metadata() {
        let ctx = table();
        let all = json!({"include_key": true, "include_headers": "h", "include_topic": true, "include_partition": true, "include_offset": true,
            "include_timestamp": true});
        let metadata = new(&ctx, &all).unwrap();
        let rest = metadata.rest(&ctx);
        let names: Vec<&str> = rest.schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!((names, rest.primary_key.as_slice()), (vec!["v", "id"], &[1][..]));
        let mut columns = metadata.columns();
        let mut push = |m: OwnedMessage| columns.iter_mut().find_map(|c| c.push(&m));
        let headers: &[(&str, Option<&[u8]>)] = &[("b", Some(b"1")), ("a", None), ("b", Some(b"\xff"))];
        assert_eq!(push(message(Some(b"k"), headers, 7)), None);
        assert!(push(message(None, &[], 8)).unwrap().contains("kafka_key is NOT NULL"));
        let mut columns = metadata.columns();
        for m in [message(Some(b"k"), headers, 7), message(Some(b"\xff"), &[], 8), message(Some(b""), &[], 9)] {
            let wrong: Vec<String> = columns.iter_mut().filter_map(|c| c.push(&m)).collect();
            assert_eq!(wrong.len(), usize::from(m.offset() == 8), "{wrong:?}");
        }
        let values: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![1, 2, 3]));
        let rows = RecordBatch::try_new(Arc::clone(&rest.schema), vec![Arc::clone(&values), values]).unwrap();
        let rows = metadata.complete(&rows, columns, vec![0, 0, 2]).unwrap();
        let shown: Vec<String> = (0..3).map(|i| text(&rows.slice(i, 1))).collect();
        let time = "2013-01-01T01:00:00.123";
        let expected = [
            format!("k,1,{{a: NULL, b: ff}},t,3,1,7,{time}"),
            format!("k,2,{{a: NULL, b: ff}},t,3,2,7,{time}"),
            format!(",3,{{}},t,3,3,9,{time}"),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn columns_are_checked() {
        let error = |settings: Value| new(&table(), &settings).unwrap_err().to_string();
        let e = error(json!({"include_headers": true}));
        assert!(e.contains("kafka_headers, which the table does not have: add it (MAP<VARCHAR, VARBINARY>"), "{e}");
        assert!(error(json!({"include_topic": "v"})).contains("it must be VARCHAR"));
        assert!(error(json!({"include_topic": 1})).contains("the name of a column"));
        let e = error(json!({"include_key": "kafka_topic", "include_topic": true}));
        assert!(e.contains("so does another setting"), "{e}");
        assert!(new(&table(), &json!({"include_headers": false})).unwrap().is_empty());
    }
}
