//! Step records: the log entry of one step.
//!
//! A log payload is one kind byte, one format byte, then JSON. JSON because records are few (one a step), must stay readable across
//! versions, and are read by people when something is wrong; rows never stand in them.
//!
//! Invariant: a record holds all that a step depends on besides the state before it: the inputs' descriptors, the clock, the
//! configuration's generation. What it holds beyond that (row counts, hashes) is there to verify a replay (invariant 3 of the design).

use serde::{Deserialize, Serialize};

use crate::circuit::ViewHash;
use crate::connector::Descriptor;
use crate::pipeline::error::{PipelineError, Result};

/// First byte of a step record.
pub const KIND_STEP: u8 = b'S';
/// The format of records that this build writes and reads.
pub const FORMAT: u8 = 1;

/// What one step took from one input connector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputBatch {
    /// The connector, `<table>.<name>`.
    pub connector: String,
    /// What to read again.
    pub descriptor: Descriptor,
    /// Rows that parsed.
    pub rows: u64,
    /// Rows that did not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub errors: u64,
    /// Hash over the parsed rows in order, weights included.
    pub hash: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The log entry of one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step's number.
    pub step: u64,
    /// The store's epoch when it was made.
    pub epoch: u64,
    /// The step's clock, in ms since 1970.
    pub clock_ms: i64,
    /// Generation of the pipeline's configuration.
    pub generation: u64,
    /// The engine that made it.
    pub engine: String,
    /// By connector, in the program's order; connectors that gave nothing are left out.
    pub inputs: Vec<InputBatch>,
    /// Counts and hashes of the *previous* step's deltas, by view in the program's order.
    pub previous: Vec<ViewHash>,
}

impl StepRecord {
    /// The log payload.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![KIND_STEP, FORMAT];
        serde_json::to_writer(&mut bytes, self)
            .map_err(|e| PipelineError::State(format!("step record {} cannot be written: {e}", self.step)))?;
        Ok(bytes)
    }

    /// Reads a log payload. `seq` is its place in the log, for the error.
    pub fn decode(seq: u64, payload: &[u8]) -> Result<Self> {
        match payload {
            [KIND_STEP, FORMAT, json @ ..] => serde_json::from_slice(json).map_err(|e| {
                PipelineError::State(format!("log record {seq}: not a step record of format {FORMAT}: {e}"))
            }),
            [kind, format, ..] => Err(PipelineError::State(format!(
                "log record {seq}: kind {kind:#04x} format {format}, this version reads kind {KIND_STEP:#04x} format {FORMAT}; \
                 use the version that wrote it"
            ))),
            short => {
                Err(PipelineError::State(format!("log record {seq}: {} bytes are too few for a record", short.len())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::Range;

    fn record() -> StepRecord {
        StepRecord {
            step: 7,
            epoch: 2,
            clock_ms: 1_700_000_000_000,
            generation: 1,
            engine: "0.1.0".into(),
            inputs: vec![InputBatch {
                connector: "t.file".into(),
                descriptor: Descriptor {
                    ranges: vec![Range { partition: "a.csv".into(), start: 0, end: 10, identity: "x".into() }],
                },
                rows: 3,
                errors: 0,
                hash: u64::MAX,
            }],
            previous: vec![ViewHash { rows: 1, hash: 5 }],
        }
    }

    #[test]
    fn golden_bytes() {
        let golden = r#"{"step":7,"epoch":2,"clock_ms":1700000000000,"generation":1,"engine":"0.1.0","inputs":[{"connector":"t.file","descriptor":{"ranges":[{"partition":"a.csv","start":0,"end":10,"identity":"x"}]},"rows":3,"hash":18446744073709551615}],"previous":[{"rows":1,"hash":5}]}"#;
        let bytes = record().encode().unwrap();
        assert_eq!(bytes, [b"S\x01", golden.as_bytes()].concat());
        assert_eq!(StepRecord::decode(1, &bytes).unwrap(), record());
    }

    #[test]
    fn damage_is_an_error_with_its_place() {
        let mut bytes = record().encode().unwrap();
        bytes.truncate(40);
        assert!(StepRecord::decode(9, &bytes).unwrap_err().to_string().starts_with("log record 9: not a step record"));
        assert!(StepRecord::decode(9, b"X\x01{}").unwrap_err().to_string().contains("kind 0x58"));
        assert!(StepRecord::decode(9, b"").unwrap_err().to_string().contains("0 bytes are too few"));
    }
}
