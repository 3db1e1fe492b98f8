//! One worker's share of the circuit: its operators, what waits for them, and where their output goes. It knows neither
//! threads nor Timely; [`runtime`](super::runtime) carries the messages.
//!
//! Invariants:
//! 1. What waits on a port is ordered by [`Message::order`] before the operator sees it, so that neither the timing nor the
//!    order of messages reaches a result.
//! 2. When the last stage of a step has run, nothing waits: a message that comes before the next step begins belongs to it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, UInt32Array};
use backstay_storage::spine::{Snapshot, Spine};

use super::append_only::only_inserts;
use super::delta::{Delta, ViewHash};
use super::error::{CircuitError, Result};
use super::figures::{NodeFigures, Stopwatch};
use super::floors::NodeFloor;
use super::message::Message;
use super::operator::arrange::Arrangements;
use super::operator::{self, EvalErrors, Operator, StateKeys, StepContext, pick};
use super::placement::{Place, place};
use super::plan::{CircuitPlan, NodeId};
use super::row::{RowCodec, normalise};
use super::step::{OnEvalError, OpenSpine, RuntimeOptions, StepInput};
use super::vnode::{vnode, worker_of};
use crate::sabotage::{Check, checked};

/// Rows of a table's chunk below which it is not worth while to spread it over the workers.
const SPREAD_ROWS: usize = 1024;

/// A piece of a table's input, for whichever worker parses it out to the others.
#[derive(Clone, Debug)]
pub(super) struct TableChunk {
    table: usize,
    /// Place in the order of arrival.
    order: u64,
    delta: Delta,
}

/// What a worker did to the views, each consolidated by itself.
#[derive(Debug, Default)]
pub(super) struct WorkerOutput {
    pub(super) views: Vec<(Delta, ViewHash)>,
    pub(super) eval_errors: EvalErrors,
    pub(super) next_due: Option<i64>,
}

/// One worker.
pub(super) struct Worker {
    index: usize,
    workers: usize,
    plan: Arc<CircuitPlan>,
    places: Vec<Place>,
    nodes: Vec<NodeState>,
    view_codecs: Vec<RowCodec>,
    views: Vec<Vec<Delta>>,
    on_eval_error: OnEvalError,
    stopwatch: Stopwatch,
    context: StepContext,
}

struct NodeState {
    /// `None`: what comes in goes out.
    operator: Option<Box<dyn Operator>>,
    /// For each port the codec of its distribution key, if rows are exchanged.
    exchange: Vec<Option<RowCodec>>,
    /// For each port what waits.
    inbox: Vec<Vec<(u64, Delta)>>,
    figures: NodeFigures,
    busy: Duration,
}

impl Worker {
    /// Worker `index` of the plan, its spines opened by `open`.
    pub(super) fn new(
        plan: &Arc<CircuitPlan>,
        options: &RuntimeOptions,
        index: usize,
        open: &mut OpenSpine<'_>,
    ) -> Result<Self> {
        let places = place(plan, options.workers);
        let owns_global = worker_of(vnode(&[]), options.workers) == index;
        let inserts = only_inserts(plan);
        let mut nodes = Vec::with_capacity(places.len());
        let mut arrangements = Arrangements::default();
        for (id, (node, place)) in plan.nodes.iter().zip(&places).enumerate() {
            let append_only = node.inputs.iter().all(|&input| inserts[input]);
            let mut open = |role: &str, discipline| {
                open(index, &format!("{id}.{role}#{index}"), discipline).map_err(CircuitError::storage(&node.label))
            };
            let operator = operator::build(plan, id, owns_global, append_only, &mut arrangements, &mut open)?;
            let exchange = place.ports.iter().enumerate().map(|(port, p)| {
                let schema = node.inputs.get(port).map_or(&node.schema, |&input| &plan.nodes[input].schema);
                let types =
                    |key: &Vec<usize>| key.iter().map(|&i| schema.field(i).data_type().clone()).collect::<Vec<_>>();
                p.exchange.as_ref().map(|key| RowCodec::new(&types(key))).transpose()
            });
            let exchange = exchange.collect::<Result<Vec<_>>>()?;
            let inbox = vec![Vec::new(); place.ports.len()];
            nodes.push(NodeState { operator, exchange, inbox, figures: NodeFigures::default(), busy: Duration::ZERO });
        }
        let view_codecs = plan.views.iter().map(|v| RowCodec::of_schema(&plan.nodes[v.node].schema));
        Ok(Self {
            index,
            workers: options.workers,
            plan: Arc::clone(plan),
            places,
            nodes,
            view_codecs: view_codecs.collect::<Result<_>>()?,
            views: vec![Vec::new(); plan.views.len()],
            on_eval_error: options.on_eval_error,
            stopwatch: options.stopwatch.clone(),
            context: StepContext::new(0, 0, options.on_eval_error, arrangements),
        })
    }

    /// Number of stages, at least one.
    pub(super) fn stages(&self) -> usize {
        self.places.iter().map(|p| p.stage).max().unwrap_or(0) + 1
    }

    /// Starts a step: gives the messages that the worker's share of the input makes.
    pub(super) fn begin(
        &mut self,
        step: u64,
        clock_ms: i64,
        floors: &[NodeFloor],
        input: Vec<TableChunk>,
    ) -> Result<Vec<Message>> {
        let arrangements = std::mem::take(&mut self.context.arrangements);
        self.context = StepContext::new(step, clock_ms, self.on_eval_error, arrangements);
        for floor in floors {
            self.raise(floor)?;
        }
        let mut out = Vec::new();
        for TableChunk { table, order, delta } in input {
            let node = self.plan.tables[table].node;
            self.send(node, 0, order, delta, &mut out)?;
        }
        Ok(out)
    }

    /// Lets a node's spines forget what lies below a floor.
    fn raise(&mut self, NodeFloor { node, spine, floor }: &NodeFloor) -> Result<()> {
        let label = &self.plan.nodes[*node].label;
        let spines = spines(*node, &mut self.nodes[*node], &mut self.context.arrangements);
        for (_, one) in spines.into_iter().enumerate().filter(|(i, _)| spine.is_none_or(|wanted| wanted == *i)) {
            one.raise_floor(floor.clone()).map_err(CircuitError::storage(label))?;
        }
        Ok(())
    }

    /// Takes a message for a later stage.
    pub(super) fn accept(&mut self, message: Message) {
        self.nodes[message.node].inbox[message.port].push((message.order, message.delta));
    }

    /// Runs the nodes of a stage; gives what other stages' nodes wait for.
    pub(super) fn run_stage(&mut self, stage: usize) -> Result<Vec<Message>> {
        let mut out = Vec::new();
        for id in 0..self.nodes.len() {
            if self.places[id].stage == stage {
                let chunks = self.run_node(id)?;
                self.distribute(id, chunks, &mut out)?;
            }
        }
        Ok(out)
    }

    fn run_node(&mut self, id: NodeId) -> Result<Vec<Delta>> {
        let node = &mut self.nodes[id];
        let inputs = node.inbox.iter_mut().map(|port| {
            let mut chunks = std::mem::take(port);
            if checked(Check::MessageOrder) {
                chunks.sort_by_key(|(order, _)| *order);
            }
            chunks.into_iter().map(|(_, delta)| delta).filter(|delta| !delta.is_empty()).collect::<Vec<_>>()
        });
        let inputs: Vec<Vec<Delta>> = inputs.collect();
        let idle = inputs.iter().all(Vec::is_empty);
        let begun = self.stopwatch.now();
        let rows = |chunks: &[Delta]| chunks.iter().map(|delta| delta.len() as u64).sum::<u64>();
        node.figures.rows_in += inputs.iter().map(|chunks| rows(chunks)).sum::<u64>();
        let chunks = match &mut node.operator {
            Some(operator) if idle && !operator.runs_without_input() => Vec::new(),
            Some(operator) => operator.step(&mut self.context, inputs)?,
            None => {
                // Union and tables without a key: only the names of the columns may change.
                let plan = &self.plan.nodes[id];
                let rename = |d: Delta| Delta::new(&plan.schema, d.rows.columns().to_vec(), d.weights);
                let renamed: Result<_, _> = inputs.into_iter().flatten().map(rename).collect();
                renamed.map_err(CircuitError::arrow(&plan.label))?
            }
        };
        node.figures.rows_out += rows(&chunks);
        node.busy += self.stopwatch.now().saturating_sub(begun);
        Ok(chunks.into_iter().filter(|delta| !delta.is_empty()).collect())
    }

    /// Hands a node's output to views and consumers.
    fn distribute(&mut self, id: NodeId, chunks: Vec<Delta>, out: &mut Vec<Message>) -> Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        for i in 0..self.places[id].views.len() {
            let view = self.places[id].views[i];
            self.views[view].extend(chunks.iter().cloned());
        }
        let source = (self.index as u64) << 32;
        for i in 0..self.places[id].consumers.len() {
            let (consumer, port) = self.places[id].consumers[i];
            if self.places[consumer].ports[port].exchange.is_none() {
                let chunks = (source..).zip(chunks.iter().cloned());
                self.nodes[consumer].inbox[port].extend(chunks);
            } else {
                let node = &self.plan.nodes[id];
                let all = Delta::concat(&node.schema, &chunks).map_err(CircuitError::arrow(&node.label))?;
                self.send(consumer, port, source, all, out)?;
            }
        }
        Ok(())
    }

    /// Makes one message for each worker that has rows in `delta`.
    fn send(&self, node: NodeId, port: usize, order: u64, delta: Delta, out: &mut Vec<Message>) -> Result<()> {
        let place = &self.places[node].ports[port];
        let (Some(key), Some(codec)) = (&place.exchange, &self.nodes[node].exchange[port]) else {
            out.push(Message { to: self.index, node, port, order, delta });
            return Ok(());
        };
        let columns: Vec<ArrayRef> = pick(delta.rows.columns(), key).iter().map(normalise).collect();
        let keys = StateKeys::new(codec, &columns, delta.len())?;
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.workers];
        for i in 0..delta.len() {
            rows[worker_of(vnode(keys.distribution(i)), self.workers)].push(i as u32);
        }
        for (to, rows) in rows.into_iter().enumerate() {
            if !rows.is_empty() {
                let delta = delta.take(&UInt32Array::from(rows)).map_err(CircuitError::arrow("exchange"))?;
                out.push(Message { to, node, port, order, delta });
            }
        }
        Ok(())
    }

    /// Ends a step: the changes of the views, as far as this worker has them.
    pub(super) fn finish(&mut self) -> Result<WorkerOutput> {
        for id in self.context.arrangements.changed() {
            let begun = self.stopwatch.now();
            self.context.arrangements.settle(id)?;
            self.nodes[id].busy += self.stopwatch.now().saturating_sub(begun);
        }
        let mut output = WorkerOutput {
            eval_errors: std::mem::take(&mut self.context.eval_errors),
            next_due: self.nodes.iter().filter_map(|n| n.operator.as_ref()?.next_due()).min(),
            ..Default::default()
        };
        for (view, codec) in self.view_codecs.iter().enumerate() {
            let schema = &self.plan.nodes[self.plan.views[view].node].schema;
            let chunks = std::mem::take(&mut self.views[view]);
            let delta = Delta::concat(schema, &chunks).map_err(CircuitError::arrow(&self.plan.views[view].name))?;
            output.views.push(delta.consolidate(codec)?);
        }
        Ok(output)
    }

    /// What its nodes have done and keep.
    pub(super) fn figures(&mut self) -> Vec<NodeFigures> {
        let arrangements = &mut self.context.arrangements;
        let figures = self.nodes.iter_mut().enumerate().map(|(id, node)| {
            let mut figures = node.figures;
            figures.busy_us = u64::try_from(node.busy.as_micros()).unwrap_or(u64::MAX);
            figures.add_state(&spines(id, node, arrangements));
            figures
        });
        figures.collect()
    }

    /// Freezes every spine.
    pub(super) fn freeze(&mut self) -> Vec<Snapshot> {
        let mut frozen = Vec::new();
        for (id, node) in self.nodes.iter_mut().enumerate() {
            frozen.extend(spines(id, node, &mut self.context.arrangements).into_iter().map(Spine::snapshot));
        }
        frozen
    }
}

/// The state of a node: its operator's own, or the arrangement.
fn spines<'a>(id: NodeId, node: &'a mut NodeState, arrangements: &'a mut Arrangements) -> Vec<&'a mut Spine> {
    let own = node.operator.as_mut().map_or_else(Vec::new, |o| o.spines());
    own.into_iter().chain(arrangements.spine(id)).collect()
}

/// Spreads a step's input over the workers: large chunks in equal slices, small ones in turn.
pub(super) fn spread(input: StepInput, workers: usize) -> Vec<Vec<TableChunk>> {
    let mut shares = vec![Vec::new(); workers];
    let mut order = 0;
    for (table, chunks) in input.tables.into_iter().enumerate() {
        for delta in chunks {
            let slices = if delta.len() < SPREAD_ROWS { 1 } else { workers };
            let rows = delta.len().div_ceil(slices).max(1);
            for start in (0..delta.len()).step_by(rows) {
                let slice = if slices == 1 { delta.clone() } else { delta.slice(start, rows.min(delta.len() - start)) };
                shares[order as usize % workers].push(TableChunk { table, order, delta: slice });
                order += 1;
            }
        }
    }
    shares
}
