//! What the pipeline keeps in a checkpoint besides operator state: the manifest's blob.
//!
//! One format byte, then JSON, as in [`super::record`]: it is small, and read by `inspect` and by people.
//!
//! Invariant: all parts are as of the end of the same step, except the sinks' positions, which may be of another step: the deltas
//! between a sink's position and the checkpoint's step are named by `pending`, and a sink that is ahead is not sent
//! the steps that it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::circuit::plan::NodeId;
use crate::circuit::{CircuitPlan, Mark, NodeFigures, ROW_FORMAT, ViewHash};
use crate::connector::{Level, Position, SinkPosition};
use crate::pipeline::config::OnError;
use crate::pipeline::error::{PipelineError, Result};
use crate::pipeline::recovery::Recovery;
use crate::sql::Program;

/// The format of blobs that this build writes and reads.
pub const FORMAT: u8 = 1;

/// The pipeline's part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineState {
    /// The pipeline's name, fixed at first open.
    pub name: String,
    /// The lineage that sinks know it by.
    pub incarnation: uuid::Uuid,
    /// The step after which this checkpoint was taken; 0: before the first.
    pub step: u64,
    /// That step's clock.
    pub clock_ms: i64,
    /// The clock, in ms, at which time alone changes a view next; it may be too early, never too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due_ms: Option<i64>,
    /// Worker threads whose spines the checkpoint has.
    pub workers: usize,
    /// Generation of the configuration.
    pub generation: u64,
    /// The configuration's part that reaches deltas.
    pub semantics: Semantics,
    /// The fault tolerance that the steps after this checkpoint are made under. Only after `exactly_once` what a sink holds beyond
    /// its position is what a replay renders.
    pub model: Level,
    /// The engine that wrote it.
    pub engine: String,
    /// The row format of keys and values in the spines.
    pub row_format: u32,
    /// Normalised definitions of tables and views, without connectors.
    pub program: BTreeMap<String, String>,
    /// The layout of the circuit that the program was compiled to.
    pub fingerprint: u64,
    /// What queries can read, and what they cannot, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub relations: BTreeMap<String, RelationState>,
    /// By connector: how far it has been taken.
    pub inputs: BTreeMap<String, InputState>,
    /// By connector: where the sink stands.
    pub outputs: BTreeMap<String, OutputState>,
    /// By connector: whether the API asked for it to be paused (or started) last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub paused: BTreeMap<String, bool>,
    /// What was chosen where a replay was impossible, for as long as it matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// How far the columns with LATENESS have come, by `table.column`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub watermarks: BTreeMap<String, Mark>,
    /// What the operators have done since the pipeline began, and what they keep, by node id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<OperatorState>,
    /// Counts and hashes of step `step`'s deltas, by view in the program's order.
    pub views: Vec<ViewHash>,
}

/// An operator as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorState {
    /// What it does, e.g. `join`.
    pub kind: String,
    /// The view it was made for and the SQL construct.
    pub label: String,
    /// The operators that its rows come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<NodeId>,
    /// Its figures.
    #[serde(flatten)]
    pub figures: NodeFigures,
}

impl OperatorState {
    /// The operators of a plan with these figures of now, and those of `before` added to them.
    pub fn of(plan: &CircuitPlan, figures: &[NodeFigures], before: &[Self]) -> Vec<Self> {
        let nodes = plan.nodes.iter().zip(figures).enumerate();
        let operators = nodes.map(|(id, (node, figures))| {
            let mut figures = *figures;
            if let Some(before) = before.get(id) {
                figures.add_work(&before.figures);
            }
            let (kind, label) = (node.kind.name().to_owned(), node.label.clone());
            Self { kind, label, inputs: node.inputs.clone(), figures }
        });
        operators.collect()
    }
}

/// A table or view as queries see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationState {
    /// Its columns.
    pub columns: Vec<ColumnState>,
    /// Where its rows are; `None` if they are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptState>,
}

/// A column of a relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnState {
    /// Its name.
    pub name: String,
    /// Its type, as Arrow writes it.
    #[serde(rename = "type")]
    pub data_type: String,
}

/// Spines with the rows of a relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptState {
    /// The spines' name, to which worker and number of workers are added.
    pub spine: String,
    /// Whether a row is the value of its primary key. Otherwise it is the key, behind the vnode.
    pub by_key: bool,
}

impl RelationState {
    /// The relations of a program.
    pub fn of(program: &Program) -> BTreeMap<String, Self> {
        let tables = program.tables.iter().zip(&program.plan.tables).map(|(t, n)| (&t.name, &t.schema, n.node));
        let views = program.views.iter().zip(&program.plan.views).map(|(v, n)| (&v.name, &v.schema, n.node));
        let relation = |(name, schema, node): (&String, &SchemaRef, NodeId)| {
            let column = |f: &FieldRef| ColumnState { name: f.name().clone(), data_type: f.data_type().to_string() };
            let kept = program.plan.kept(node);
            let kept = kept.map(|k| KeptState { spine: format!("{}.rows", k.node), by_key: k.by_key });
            (name.clone(), Self { columns: schema.fields().iter().map(column).collect(), kept })
        };
        tables.chain(views).map(relation).collect()
    }

    /// Its columns, all nullable.
    pub fn schema(&self) -> Result<SchemaRef> {
        let field = |c: &ColumnState| {
            let data_type = c.data_type.parse::<DataType>().map_err(|e| {
                PipelineError::State(format!("the checkpoint has a column {} of type {}: {e}", c.name, c.data_type))
            })?;
            Ok(Field::new(&c.name, data_type, true))
        };
        Ok(Arc::new(Schema::new(self.columns.iter().map(field).collect::<Result<Vec<_>>>()?)))
    }
}

/// The name of a worker's spine in the store. The number of workers is part of it, so that the shards of two numbers can stand side by
/// side while rows move.
pub(super) fn spine_name(base: &str, worker: usize, workers: usize) -> String {
    format!("{base}#{worker}/{workers}")
}

/// The part of a configuration that reaches deltas: replay uses the one that the steps were made under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Semantics {
    /// What happens to a row for which an expression fails.
    pub on_evaluation_error: OnError,
}

/// An input connector's part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputState {
    /// How far it has been taken.
    pub position: Position,
    /// Rows taken so far.
    pub rows: u64,
    /// Rows that did not parse so far.
    pub errors: u64,
}

/// An output connector's part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputState {
    /// Where the sink stands durably.
    pub sink: SinkPosition,
    /// Files with the deltas after the sink's step, up to the checkpoint's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,
}

impl PipelineState {
    /// The manifest's blob.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![FORMAT];
        serde_json::to_writer(&mut bytes, self)
            .map_err(|e| PipelineError::State(format!("the checkpoint's pipeline state cannot be written: {e}")))?;
        Ok(bytes)
    }

    /// Reads a manifest's blob.
    pub fn decode(blob: &[u8]) -> Result<Self> {
        match blob {
            [FORMAT, json @ ..] => serde_json::from_slice(json).map_err(|e| {
                PipelineError::State(format!("the checkpoint's pipeline state is not of format {FORMAT}: {e}"))
            }),
            [other, ..] => Err(PipelineError::State(format!(
                "the checkpoint's pipeline state has format {other}, this version reads {FORMAT}; use the version that wrote it"
            ))),
            [] => Err(PipelineError::State(
                "the checkpoint has no pipeline state: this is not a pipeline's directory".into(),
            )),
        }
    }

    /// Refuses state whose rows this build cannot read.
    pub fn check_row_format(&self) -> Result<()> {
        if self.row_format == ROW_FORMAT {
            return Ok(());
        }
        Err(PipelineError::State(format!(
            "the checkpoint has row format {}, this version reads {ROW_FORMAT}; use backstay {}",
            self.row_format, self.engine
        )))
    }

    /// What a program's definitions changed against the checkpoint's, in words; `None` if nothing.
    pub fn program_changes(&self, now: &BTreeMap<String, String>) -> Option<String> {
        let mut changes = Vec::new();
        for (relation, definition) in now {
            match self.program.get(relation) {
                None => changes.push(format!("{relation} is new")),
                Some(old) if old != definition => changes.push(format!("{relation} changed")),
                Some(_) => {}
            }
        }
        changes.extend(self.program.keys().filter(|r| !now.contains_key(*r)).map(|r| format!("{r} was removed")));
        (!changes.is_empty()).then(|| changes.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{IntervalUnit, TimeUnit};

    use super::*;

    fn relation() -> RelationState {
        let columns = vec![ColumnState { name: "n".into(), data_type: "Int64".into() }];
        RelationState { columns, kept: Some(KeptState { spine: "5.rows".into(), by_key: false }) }
    }

    fn state() -> PipelineState {
        PipelineState {
            name: "p".into(),
            incarnation: uuid::Uuid::from_u128(1),
            step: 3,
            clock_ms: 9,
            next_due_ms: None,
            workers: 2,
            generation: 1,
            semantics: Semantics { on_evaluation_error: OnError::Stop },
            model: Level::ExactlyOnce,
            engine: "0.1.0".into(),
            row_format: 1,
            program: BTreeMap::from([("view v".into(), "SELECT 1".into()), ("table t".into(), "(a INT)".into())]),
            fingerprint: 4,
            relations: BTreeMap::from([("v".into(), relation())]),
            inputs: BTreeMap::new(),
            outputs: BTreeMap::from([("v.f".into(), OutputState::default())]),
            paused: BTreeMap::new(),
            recovery: None,
            watermarks: BTreeMap::new(),
            operators: Vec::new(),
            views: vec![ViewHash { rows: 1, hash: 2 }],
        }
    }

    #[test]
    fn golden_bytes() {
        let golden = r#"{"name":"p","incarnation":"00000000-0000-0000-0000-000000000001","step":3,"clock_ms":9,"workers":2,"generation":1,"semantics":{"on_evaluation_error":"stop"},"model":"exactly_once","engine":"0.1.0","row_format":1,"program":{"table t":"(a INT)","view v":"SELECT 1"},"fingerprint":4,"relations":{"v":{"columns":[{"name":"n","type":"Int64"}],"kept":{"spine":"5.rows","by_key":false}}},"inputs":{},"outputs":{"v.f":{"sink":{"step":0,"detail":{}}}},"views":[{"rows":1,"hash":2}]}"#;
        let bytes = state().encode().unwrap();
        assert_eq!(String::from_utf8(bytes[1..].to_vec()).unwrap(), golden);
        assert_eq!(bytes[0], 1);
        assert_eq!(PipelineState::decode(&bytes).unwrap(), state());
    }

    /// Every type that a column can have.
    #[test]
    fn types_are_read_as_they_are_written() {
        let list = |t| DataType::List(Arc::new(Field::new_list_field(t, true)));
        let fields = vec![Field::new("a b", DataType::Int32, true), Field::new("c", list(DataType::Utf8), true)];
        let types = [
            DataType::Boolean,
            DataType::Int8,
            DataType::UInt64,
            DataType::Float32,
            DataType::Float64,
            DataType::Utf8,
            DataType::Binary,
            DataType::Date32,
            DataType::Time64(TimeUnit::Microsecond),
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())),
            DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Duration(TimeUnit::Millisecond),
            DataType::Decimal128(38, 10),
            DataType::Decimal256(76, 0),
            list(DataType::Int64),
            list(list(DataType::Decimal128(10, 2))),
            DataType::Struct(fields.into()),
        ];
        let columns = types.iter().map(|t| ColumnState { name: t.to_string(), data_type: t.to_string() }).collect();
        let schema = RelationState { columns, kept: None }.schema().unwrap();
        assert_eq!(schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>(), types);
    }

    #[test]
    fn changes_are_named() {
        let now = BTreeMap::from([("view v".into(), "SELECT 2".into()), ("view w".into(), "SELECT 1".into())]);
        assert_eq!(state().program_changes(&now).unwrap(), "view v changed, view w is new, table t was removed");
        assert_eq!(state().program_changes(&state().program), None);
    }

    #[test]
    fn a_foreign_blob_is_refused() {
        assert!(PipelineState::decode(b"").unwrap_err().to_string().contains("not a pipeline's directory"));
        assert!(PipelineState::decode(b"\x09{}").unwrap_err().to_string().contains("has format 9"));
    }
}
