//! Simulated sinks, and the output connectors that write to them.
//!
//! - *exactly_once*: a sink with transactions. What is delivered is a transaction that `sync` commits, together with a marker, the
//!   last step. A start checks that checkpoint ≤ marker ≤ last record, and what it is sent up to the marker it compares and drops.
//! - *at_least_once*: a sink that appends. Up to a sync, what was delivered is on its way: a crash keeps any first part of it.
//!
//! Both refuse now and then with an error that may pass, and an at-least-once sink may have taken the step all the same.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use uuid::Uuid;

use super::world::{State, World};
use backstay::circuit::Delta;
use backstay::connector::{ConnectorError, Context, Level, Output, Result, Resume, SinkPosition};

/// In the position of an exactly-once sink that has no marker yet.
const NEW: &str = "new";

/// A step's rendering, and the life of the pipeline that delivered it. Empty deltas are not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) life: u64,
    pub(super) step: u64,
    pub(super) text: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct SinkState {
    pub(super) entries: Vec<Entry>,
    /// At-least-once: how many of them no crash can take.
    durable: usize,
    marker: u64,
    /// The incarnation and epoch that delivered last.
    pub(super) owner: Option<(Uuid, u64)>,
    /// The step of the checkpoint that this life went on from: what is delivered of earlier ones was pending in it.
    pub(super) opened_after: u64,
    /// Exactly-once: whether a position is that of the marker, ahead of what has been replayed.
    pub(super) ahead: bool,
    /// Sabotage: the marker is not looked at.
    pub(super) ignore_marker: bool,
}

impl SinkState {
    /// What a crash leaves; `dice` says how much of what is on its way.
    pub(super) fn crash(&mut self, dice: u64) {
        let on_its_way = self.entries.len() - self.durable;
        self.entries.truncate(self.durable + (dice % (on_its_way as u64 + 1)) as usize);
        self.durable = self.entries.len();
    }
}

/// The connector.
#[derive(Debug)]
pub(super) struct SimOutput {
    world: World,
    name: String,
    level: Level,
    transaction: Vec<Entry>,
    /// The incarnation and epoch of this life.
    me: Option<(Uuid, u64)>,
    /// The last step that was delivered in this life.
    last: u64,
    /// What is dropped because the sink has it.
    has: u64,
}

impl SimOutput {
    pub(super) fn new(world: World, level: Level, ctx: &Context) -> Self {
        Self { world, name: ctx.name.clone(), level, transaction: Vec::new(), me: None, last: 0, has: 0 }
    }
}

/// A delta's lines, as a file output writes them.
fn rendered(step: u64, delta: &Delta) -> String {
    let mut text = String::new();
    let schema = delta.rows.schema();
    for (row, weight) in delta.weights.iter().enumerate() {
        let value = |column: &ArrayRef| match column.data_type() {
            _ if column.is_null(row) => "null".to_owned(),
            DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
            DataType::Float64 => format!("{:?}", column.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => format!("\"{}\"", column.as_string::<i32>().value(row)),
            other => panic!("{other} is not rendered"),
        };
        let named = schema.fields().iter().zip(delta.rows.columns());
        let columns: Vec<String> = named.map(|(f, column)| format!("\"{}\":{}", f.name(), value(column))).collect();
        let operation = if *weight > 0 { "insert" } else { "delete" };
        for _ in 0..weight.unsigned_abs() {
            writeln!(text, "{{\"step\":{step},\"{operation}\":{{{}}}}}", columns.join(",")).expect("a line");
        }
    }
    text
}

fn sink<'a>(state: &'a mut State, name: &str) -> &'a mut SinkState {
    state.sinks.get_mut(name).expect("the program's sinks are in the world")
}

/// An error that may pass, now and then.
fn maybe_busy(state: &mut State, name: &str) -> Result<()> {
    if state.rng.once_in(24) {
        return Err(ConnectorError { retry: true, ..ConnectorError::new(name, "the sink is busy") });
    }
    Ok(())
}

impl Output for SimOutput {
    fn level(&self) -> Level {
        self.level
    }

    fn open(&mut self, resume: &Resume) -> Result<()> {
        let Self { world, name, level, me, last, has, .. } = self;
        let error = |message: String| Err(ConnectorError::new(name, message));
        world.call(name, "open", resume.step, |state| {
            maybe_busy(state, name)?;
            let sink = sink(state, name);
            let owner = (resume.incarnation, resume.epoch);
            if let Some((incarnation, epoch)) = sink.owner
                && (incarnation != owner.0 || epoch >= owner.1)
            {
                return error(format!("it belongs to {incarnation} in epoch {epoch}, not to {owner:?}"));
            }
            *me = Some(owner);
            sink.opened_after = resume.step;
            *last = resume.checkpoint.as_ref().map_or(resume.step, |c| c.step);
            if *level < Level::ExactlyOnce || sink.ignore_marker {
                return Ok(());
            }
            match &resume.checkpoint {
                None if sink.marker > 0 => error(format!("it holds step {}, no checkpoint knows of it", sink.marker)),
                None => Ok(()),
                Some(_) if !resume.replayed => Ok(()),
                Some(c) if sink.marker == 0 && c.detail.contains_key(NEW) => Ok(()),
                Some(c) if (c.step..=resume.last_step.max(c.step)).contains(&sink.marker) => {
                    *has = sink.marker;
                    Ok(())
                }
                Some(c) => error(format!(
                    "it holds step {}, which is not between the checkpoint's {} and the log's {}",
                    sink.marker, c.step, resume.last_step
                )),
            }
        })
    }

    fn deliver(&mut self, step: u64, delta: &Delta) -> Result<()> {
        let text = rendered(step, delta);
        let Self { world, name, level, transaction, me, last, has } = self;
        world.call(name, "deliver", step, |state| {
            let busy = maybe_busy(state, name);
            let (life, taken) = (state.life, state.rng.once_in(2));
            if step <= *last {
                state.problems.push(format!("{name} was sent step {step} after step {last}"));
            }
            state.note(&text, step);
            let entry = Entry { life, step, text };
            if step <= *has {
                let had = sink(state, name).entries.iter().find(|e| e.step == step).map(|e| e.text.clone());
                if had.as_ref() != Some(&entry.text).filter(|text| !text.is_empty()) {
                    state.problems.push(format!("{name} holds of step {step}: {had:?}, it was sent {:?}", entry.text));
                }
            } else if *level == Level::ExactlyOnce {
                transaction.extend(busy.is_ok().then_some(entry));
            } else if (busy.is_ok() || taken) && !entry.text.is_empty() {
                sink(state, name).entries.push(entry);
            }
            busy?;
            sink(state, name).owner = *me;
            *last = step;
            Ok(())
        })
    }

    fn flush(&mut self) -> Result<()> {
        let Self { world, name, .. } = self;
        world.call(name, "flush", 0, |state| maybe_busy(state, name))
    }

    fn replay_done(&mut self) -> Result<()> {
        let Self { world, name, .. } = self;
        world.call(name, "replay_done", 0, |_| Ok(()))
    }

    fn sync(&mut self) -> Result<SinkPosition> {
        let Self { world, name, level, transaction, me, last, .. } = self;
        world.call(name, "sync", *last, |state| {
            // A new sink is asked where it stands before the pipeline runs, when nobody would ask again.
            if sink(state, name).owner == *me {
                maybe_busy(state, name)?;
            }
            let sink = sink(state, name);
            if *level == Level::ExactlyOnce {
                sink.entries.extend(transaction.drain(..).filter(|e| !e.text.is_empty()));
                // Of a sink that nothing was delivered to, no checkpoint may ever know.
                if sink.owner == *me {
                    sink.marker = sink.marker.max(*last);
                }
            }
            sink.durable = sink.entries.len();
            let is_new = *level == Level::ExactlyOnce && sink.marker == 0;
            let detail = is_new.then(|| (NEW.to_owned(), true.into())).into_iter().collect();
            let ahead = sink.ahead && *level == Level::ExactlyOnce;
            Ok(SinkPosition { step: if ahead { sink.marker.max(*last) } else { *last }, detail })
        })
    }
}
