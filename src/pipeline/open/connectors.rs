//! A pipeline's connectors before they are at work: made of their configurations, checked against the pipeline and each other, opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use crossbeam::sync::Parker;

use crate::connector::config::{ConnectorConfig, Replay};
use crate::connector::variables::resolve;
use crate::connector::{ConnectorError, Context, Input, Level, Output, Resume};
use crate::pipeline::config::PipelineConfig;
use crate::pipeline::controller::Environment;
use crate::pipeline::error::{PipelineError, Result};
use crate::pipeline::output::RETRY;
use crate::pipeline::push::{CONNECTOR, is_pushed};
use crate::pipeline::state::InputState;
use crate::pipeline::status::Control;
use crate::sql::Program;

/// An input connector whose settings are checked.
pub(super) struct MadeInput {
    pub(super) name: String,
    pub(super) table: usize,
    pub(super) input: Arc<dyn Input>,
    pub(super) config: ConnectorConfig,
}

/// An output connector whose settings are checked.
pub(super) struct MadeOutput {
    pub(super) name: String,
    pub(super) view: usize,
    pub(super) output: Box<dyn Output>,
    pub(super) config: ConnectorConfig,
}

/// Opens a sink. One that is away and that the checkpoint names is opened later, beside the steps (false); one that is to begin is waited for,
/// since a checkpoint must say where it stands before anything is delivered.
pub(super) fn open_output(
    output: &mut dyn Output,
    resume: &Resume,
    env: &Environment,
    control: &Control,
    parker: &Parker,
) -> Result<bool> {
    loop {
        match output.open(resume) {
            Ok(()) => return Ok(true),
            Err(away) if away.retry && resume.checkpoint.is_some() => return Ok(false),
            Err(away) if away.retry && control.stopping() => return Err(PipelineError::Stopped),
            Err(away) if away.retry => {
                control.update(|s| s.troubles = vec![away.to_string()]);
                env.scheduler.wait(parker, RETRY);
            }
            Err(wrong) => return Err(wrong.into()),
        }
    }
}

pub(super) fn make_inputs(
    program: &Program,
    (pipeline, model): (&str, Level),
    env: &Environment,
) -> Result<Vec<MadeInput>> {
    let mut made = Vec::new();
    for (table, definition) in program.tables.iter().enumerate() {
        for config in &definition.connectors {
            let name = format!("{}.{}", definition.name, config.name);
            if config.name == CONNECTOR {
                let message = format!(
                    "input {name}: the name {CONNECTOR:?} is that of rows that are pushed; give it another one"
                );
                return Err(PipelineError::Config(message));
            }
            let context = Context {
                declared: definition.declared.clone(),
                primary_key: definition.primary_key.clone(),
                append_only: definition.is_append_only(),
                rereads: model == Level::ExactlyOnce && config.replay == Replay::Source,
                ..context(env, pipeline, &name, &definition.schema)
            };
            let input = Arc::from(env.connectors.input(config, context).map_err(misconfigured)?);
            made.push(MadeInput { name, table, input, config: config.clone() });
        }
    }
    Ok(made)
}

pub(super) fn make_outputs(program: &Program, pipeline: &str, env: &Environment) -> Result<Vec<MadeOutput>> {
    let mut made: Vec<MadeOutput> = Vec::new();
    for (view, definition) in program.views.iter().enumerate() {
        for config in &definition.connectors {
            let name = format!("{}.{}", definition.name, config.name);
            let context = context(env, pipeline, &name, &definition.schema);
            let output = env.connectors.output(config, context).map_err(misconfigured)?;
            if let Some(target) = output.target()
                && let Some(other) = made.iter().find(|o| o.output.target().as_ref() == Some(&target))
            {
                return Err(PipelineError::Config(format!(
                    "outputs {} and {name} both write to {target}, and would spoil each other's content; give each its own",
                    other.name
                )));
            }
            made.push(MadeOutput { name, view, output, config: config.clone() });
        }
    }
    Ok(made)
}

/// Checks the settings of a program's connectors, as a run does before it opens any of them. Gives what it cannot check: those that refer to
/// a variable or a secret that is not here.
///
/// # Errors
/// The first connector whose settings are wrong.
pub fn check_connectors(program: &Program, pipeline: &str, env: &Environment) -> Result<Vec<String>> {
    let mut program = program.clone();
    let mut unknown = Vec::new();
    let mut keep = |relation: &str, schema: &SchemaRef, connectors: &mut Vec<ConnectorConfig>| {
        connectors.retain(|config| {
            let context = context(env, pipeline, &format!("{relation}.{}", config.name), schema);
            resolve(config, &context, &env.disk).map_err(|e| unknown.push(e.to_string())).is_ok()
        });
    };
    program.tables.iter_mut().for_each(|t| keep(&t.name, &t.schema, &mut t.connectors));
    program.views.iter_mut().for_each(|v| keep(&v.name, &v.schema, &mut v.connectors));
    make_inputs(&program, (pipeline, Level::None), env)?;
    make_outputs(&program, pipeline, env)?;
    Ok(unknown)
}

/// What is wrong with a connector before it is opened is its configuration.
pub(super) fn misconfigured(error: ConnectorError) -> PipelineError {
    PipelineError::Config(error.to_string())
}

fn context(env: &Environment, pipeline: &str, name: &str, schema: &SchemaRef) -> Context {
    Context {
        name: name.to_string(),
        pipeline: pipeline.to_string(),
        schema: Arc::clone(schema),
        declared: Vec::new(),
        primary_key: Vec::new(),
        append_only: false,
        rereads: false,
        disk: Arc::clone(&env.disk),
        base_dir: env.base_dir.clone(),
        variables: env.variables.clone(),
    }
}

/// A position is kept by connector: one that took over a partition from another one of its table would read it a second time.
/// `inputs` are the connectors of now, `known` is what has been read.
pub(crate) fn check_places(inputs: &[(&str, &dyn Input)], known: &BTreeMap<String, InputState>) -> Result<()> {
    fn table(name: &str) -> &str {
        name.split_once('.').map_or(name, |(table, _)| table)
    }
    for (name, input) in inputs {
        let own = known.get(*name).map(|s| s.position.partitions.as_slice()).unwrap_or_default();
        // What was pushed stands in the log, which no connector reads.
        let others = known.iter().filter(|(other, _)| *other != name && table(other) == table(name));
        for (other, state) in others.filter(|(other, _)| !is_pushed(other)) {
            let other_now = inputs.iter().find(|(n, _)| n == other).map(|(_, input)| *input);
            let taken = state.position.partitions.iter().map(|p| p.partition.as_str()).find(|partition| {
                input.selects(partition)
                    && !other_now.is_some_and(|other| other.selects(partition))
                    && !own.iter().any(|p| p.partition == *partition)
            });
            if let Some(partition) = taken {
                return Err(PipelineError::Config(format!(
                    "connector {name} now names {partition}, which {other} has read: its rows would be counted twice. A position is kept \
                     by a connector's \"name\": give the connector that reads {partition} the name that it had"
                )));
            }
        }
    }
    Ok(())
}

/// A pipeline configured stronger than its inputs is refused, every offender named.
pub(super) fn check_levels(model: Level, inputs: &[MadeInput]) -> Result<()> {
    let weak: Vec<String> = inputs
        .iter()
        .filter(|i| i.level() < model)
        .map(|i| format!("{} ({})", i.name, level_name(i.input.level())))
        .collect();
    if weak.is_empty() {
        return Ok(());
    }
    Err(PipelineError::Config(format!(
        "fault_tolerance is {}, but these inputs cannot give it: {}; lower \"fault_tolerance\" or change the connectors \
         (those that are at_least_once can be with \"replay\": \"bytes\")",
        level_name(model),
        weak.join(", ")
    )))
}

/// A cut that is fixed cannot depend on bytes, which differ from run to run.
pub(super) fn check_bounds(config: &PipelineConfig, inputs: &[MadeInput]) -> Result<()> {
    match inputs.iter().find(|i| config.rows_per_step.is_some() && i.config.max_queued_bytes.is_some()) {
        Some(input) => Err(PipelineError::Config(format!(
            "input {} has \"max_queued_bytes\", which cannot be where \"rows_per_step\" fixes the cut; use \"max_queued_records\"",
            input.name
        ))),
        None => Ok(()),
    }
}

impl MadeInput {
    /// What it can promise. One that can be read on from a position, and whose rows the log has, loses and repeats nothing. Without
    /// positions, what was read and no step had taken would be lost.
    fn level(&self) -> Level {
        match (self.input.level(), self.config.replay) {
            (Level::AtLeastOnce, Replay::Bytes) if self.input.resumes() => Level::ExactlyOnce,
            (own, _) => own,
        }
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::None => "none",
        Level::AtLeastOnce => "at_least_once",
        Level::ExactlyOnce => "exactly_once",
    }
}
