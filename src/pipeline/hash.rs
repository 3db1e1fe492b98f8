//! Hashes of parsed rows, for the verification of replays (invariant 3).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::circuit::CircuitError;
use crate::circuit::row::RowCodec;

/// Hashes the rows of one table. Cheap to clone; used on reader threads.
#[derive(Clone, Debug)]
pub struct RowHasher {
    codec: Arc<RowCodec>,
    /// Whether the table takes no deletes.
    pub append_only: bool,
}

impl RowHasher {
    /// A hasher for rows of this schema, of a table that takes no deletes or one that does.
    pub fn new(schema: &SchemaRef, append_only: bool) -> Result<Self, CircuitError> {
        Ok(Self { codec: Arc::new(RowCodec::of_schema(schema)?), append_only })
    }

    /// One hash a row, over its encoding and weight.
    pub fn hash(&self, rows: &RecordBatch, weights: Option<&[i64]>) -> Result<Vec<u64>, CircuitError> {
        let encoded = self.codec.encode(rows.columns(), rows.num_rows())?;
        let weight = |i: usize| weights.and_then(|w| w.get(i)).copied().unwrap_or(1);
        Ok((0..encoded.len()).map(|i| xxh3_64_with_seed(encoded.get(i), weight(i).cast_unsigned())).collect())
    }
}
