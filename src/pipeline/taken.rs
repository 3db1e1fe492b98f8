//! Taken records: the rows of an input with `"replay": "bytes"`, logged with the step that took them, so that a replay needs no source.
//!
//! Invariants:
//! 1. The taken records of a step stand in the log before its step record, so that with this they are durable too (write ahead).
//! 2. A step record vouches for them: without one that names the connector, rows and hash they count for nothing. So what a crash leaves of
//!    a step whose own record was lost is passed over; the step of that number that is made then has records of its own.
//! 3. Whoever replays goes by what the log has, whatever the configuration says by then.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use backstay_storage::Store;
use serde::{Deserialize, Serialize};

use super::rows::{self, Kind};
use crate::circuit::Delta;
use crate::pipeline::error::{PipelineError, Result};
use crate::sql::Program;

/// First byte of a taken record.
pub const KIND_TAKEN: u8 = b'T';
const KIND: Kind = Kind { byte: KIND_TAKEN, format: 1, name: "taken" };

/// What a taken record says besides its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenHeader {
    /// The step that took the rows.
    pub step: u64,
    /// The connector, `<table>.<name>`.
    pub connector: String,
    /// The records of a step and connector are numbered from 0.
    pub part: u64,
    /// Number of rows.
    pub rows: u64,
}

/// Logs what a step takes of a connector to a table of this schema: a record for each of its deltas, which are as small as the connector's
/// chunks. There is one at least, even if no row parsed, so that nothing is looked for in the source.
pub(super) fn append(
    store: &Store,
    step: u64,
    connector: &str,
    (schema, deltas): (&SchemaRef, &[Delta]),
) -> Result<()> {
    let none = [Delta::empty(Arc::clone(schema))];
    let deltas = if deltas.is_empty() { &none } else { deltas };
    for (part, delta) in deltas.iter().enumerate() {
        let header = TakenHeader { step, connector: connector.to_owned(), part: part as u64, rows: delta.len() as u64 };
        let rows = rows::encode_rows(&delta.rows, Some(&delta.weights))?;
        store.log().append(&KIND.encode(&header, &rows)?)?;
    }
    Ok(())
}

/// The taken records that a replay has come by and whose step is still to come.
#[derive(Debug, Default)]
pub(super) struct Taken(BTreeMap<String, (u64, Vec<Delta>)>);

impl Taken {
    /// Takes in a record of the log.
    pub(super) fn recover(&mut self, seq: u64, payload: &[u8], program: &Program) -> Result<()> {
        let (header, rows): (TakenHeader, _) = KIND.decode(seq, payload)?;
        // A table's name may have periods, too.
        let is_of = |name: &str| header.connector.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        let by_name = || program.tables.iter().filter(|t| is_of(&t.name)).max_by_key(|t| t.name.len());
        let table = program.table_of(&header.connector).or_else(by_name);
        let Some(table) = table else {
            return Err(PipelineError::State(format!(
                "log record {seq} holds rows of connector {}, whose table the program does not have: put it back",
                header.connector
            )));
        };
        let (rows, weights): (RecordBatch, _) = rows::decode_rows(seq, &table.schema, (header.rows, rows))?;
        let (step, deltas) = self.0.entry(header.connector).or_default();
        if header.part == 0 {
            *step = header.step;
            deltas.clear();
        }
        deltas.push(Delta { rows, weights });
        Ok(())
    }

    /// The rows that a step took of a connector, if they were logged.
    pub(super) fn of(&mut self, step: u64, connector: &str) -> Option<Vec<Delta>> {
        self.0.remove(connector).filter(|(of, _)| *of == step).map(|(_, deltas)| deltas)
    }

    /// A step has been replayed: what is left is of none.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let header = TakenHeader { step: 7, connector: "t.k".into(), part: 1, rows: 2 };
        let golden = r#"{"step":7,"connector":"t.k","part":1,"rows":2}"#;
        let bytes = KIND.encode(&header, b"rows").unwrap();
        let length = u32::try_from(golden.len()).unwrap().to_le_bytes();
        assert_eq!(bytes, [b"T\x01", &length[..], golden.as_bytes(), b"rows"].concat());
        assert_eq!(KIND.decode::<TakenHeader>(1, &bytes).unwrap(), (header, &b"rows"[..]));
    }

    #[test]
    fn what_is_left_of_a_lost_step_is_passed_over() {
        let program = crate::sql::compile("CREATE TABLE t (n BIGINT);", "p.sql").unwrap();
        let delta = |values: Vec<i64>| {
            let weights = vec![-1; values.len()];
            let column = Arc::new(arrow::array::Int64Array::from(values));
            Delta { rows: RecordBatch::try_new(program.tables[0].schema.clone(), vec![column]).unwrap(), weights }
        };
        let mut taken = Taken::default();
        let mut log = |step, part, values: Vec<i64>| {
            let delta = delta(values);
            let header = TakenHeader { step, connector: "t.k".into(), part, rows: delta.len() as u64 };
            let rows = rows::encode_rows(&delta.rows, Some(&delta.weights)).unwrap();
            let bytes = KIND.encode(&header, &rows).unwrap();
            for length in 0..bytes.len() {
                let cut = taken.recover(9, &bytes[..length], &program);
                assert!(cut.is_ok() || cut.unwrap_err().to_string().starts_with("log record 9: "), "{length}");
            }
            taken.recover(9, &bytes, &program).unwrap();
        };
        log(4, 0, vec![1]);
        log(4, 1, vec![2]);
        log(4, 0, vec![3, 4]);
        let rows = |deltas: Vec<Delta>| deltas.iter().map(Delta::len).sum::<usize>();
        assert_eq!(taken.of(4, "t.j").map(rows), None);
        assert_eq!(taken.of(4, "t.k").map(rows), Some(2));
        assert_eq!(taken.of(4, "t.k").map(rows), None);
        let e = taken.recover(9, b"T\x02", &program).unwrap_err().to_string();
        assert!(e.contains("taken format 0x02"), "{e}");
    }
}
