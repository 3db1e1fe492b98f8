//! Rows on their way to another worker.
//!
//! Within a process a message moves as it is. Timely also wants to be able to send it to another process: then the rows
//! travel as an Arrow IPC stream.

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::delta::Delta;
use super::plan::NodeId;

/// A chunk for a port of a node.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The worker that it belongs to.
    pub(super) to: usize,
    /// The node that waits for it.
    pub(super) node: NodeId,
    /// The node's input.
    pub(super) port: usize,
    /// Its place among the chunks of that port.
    pub(super) order: u64,
    /// The rows.
    pub(super) delta: Delta,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    to: usize,
    node: NodeId,
    port: usize,
    order: u64,
    weights: Vec<i64>,
    ipc: Vec<u8>,
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = &self.delta.rows;
        let ipc = StreamWriter::try_new(Vec::new(), &rows.schema())
            .and_then(|mut writer| {
                writer.write(rows)?;
                writer.into_inner()
            })
            .map_err(ser::Error::custom)?;
        let Self { to, node, port, order, .. } = *self;
        Wire { to, node, port, order, weights: self.delta.weights.clone(), ipc }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { to, node, port, order, weights, ipc } = Wire::deserialize(deserializer)?;
        let rows: RecordBatch = StreamReader::try_new(ipc.as_slice(), None)
            .map_err(de::Error::custom)?
            .next()
            .ok_or_else(|| de::Error::custom("a message without rows"))?
            .map_err(de::Error::custom)?;
        if rows.num_rows() != weights.len() {
            return Err(de::Error::custom(format!("{} rows with {} weights", rows.num_rows(), weights.len())));
        }
        Ok(Self { to, node, port, order, delta: Delta { rows, weights } })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn a_message_survives_the_wire() -> Result<(), Box<dyn std::error::Error>> {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let rows = RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("t", texts, true)])?;
        let sent = Message { to: 1, node: 2, port: 3, order: 4, delta: Delta { rows, weights: vec![5, -6] } };
        let got: Message = serde_json::from_slice(&serde_json::to_vec(&sent)?)?;
        assert_eq!((got.to, got.node, got.port, got.order), (1, 2, 3, 4));
        assert_eq!((got.delta.rows, got.delta.weights), (sent.delta.rows, sent.delta.weights));
        Ok(())
    }
}
