//! The checks of outputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use backstay::circuit::Delta;
use backstay::connector::{Level, Output, Resume, SinkPosition};

/// An output to be checked.
pub(super) struct Case<'a> {
    pub(super) name: &'a str,
    /// A new instance for the sink of this number, of which each is empty at first.
    pub(super) make: &'a dyn Fn(usize) -> Box<dyn Output>,
    /// What that sink holds, an item a change; `None`: nobody can know.
    pub(super) content: &'a dyn Fn(usize) -> Option<Vec<String>>,
    /// Every how many calls the process ends: sinks at servers are slow.
    pub(super) every: usize,
}

/// The last step.
const STEPS: u64 = 9;

/// Rows of one key each, that come and go again three steps later; some steps change nothing.
fn delta(step: u64, schema: &SchemaRef) -> Delta {
    let rows = |step: u64| if step.is_multiple_of(4) { 0..0 } else { step * 10..step * 10 + step % 3 + 1 };
    let come = rows(step).map(|id| (id as i64, 1));
    let go = step.checked_sub(3).into_iter().flat_map(rows).map(|id| (id as i64, -1));
    let changes: Vec<(i64, i64)> = go.chain(come).collect();
    let ids: Int64Array = changes.iter().map(|(id, _)| Some(*id)).collect();
    let names: StringArray = changes.iter().map(|(id, _)| (id % 3 != 0).then(|| format!("n{id}"))).collect();
    let rows = RecordBatch::try_new(Arc::clone(schema), vec![Arc::new(ids), Arc::new(names)]).unwrap();
    Delta { rows, weights: changes.iter().map(|(_, weight)| *weight).collect() }
}

/// What the pipeline knows when it starts.
#[derive(Clone, Debug, Default)]
struct Known {
    checkpoint: Option<SinkPosition>,
    /// The last durable step record.
    last_step: u64,
    epoch: u64,
}

/// Lives until its calls are used up, or the end. True: it came to the end.
fn live(case: &Case<'_>, sink: usize, known: &mut Known, schema: &SchemaRef, calls: &mut usize) -> bool {
    macro_rules! call {
        ($call:expr) => {{
            if *calls == 0 {
                return false;
            }
            *calls -= 1;
            $call.unwrap_or_else(|e| panic!("{}, sink {sink}: {e}", case.name))
        }};
    }
    known.epoch += 1;
    let mut output = (case.make)(sink);
    let resume = Resume {
        checkpoint: known.checkpoint.clone(),
        step: 0,
        last_step: known.last_step,
        replayed: true,
        copy: false,
        incarnation: uuid::Uuid::from_u128(7),
        epoch: known.epoch,
    };
    call!(output.open(&resume));
    if known.checkpoint.is_none() {
        known.checkpoint = Some(call!(output.sync()));
    }
    let replayed = known.last_step;
    let first = known.checkpoint.as_ref().map_or(0, |c| c.step) + 1;
    if first > replayed {
        call!(output.replay_done());
    }
    for step in first..=STEPS {
        // The record is durable before anything of the step leaves.
        known.last_step = known.last_step.max(step);
        call!(output.deliver(step, &delta(step, schema)));
        if step == replayed {
            call!(output.replay_done());
        }
        if step % 2 == 0 {
            call!(output.flush());
        }
        // What a sink says of itself is as good as what it says when it is asked to sync.
        if let Some(position) = output.durable() {
            assert!(position.step <= step, "{}: {position:?} of step {step}", case.name);
            known.checkpoint = Some(position);
        }
        if step % 3 == 0 {
            let position = call!(output.sync());
            assert!(position.step <= step, "{}: {position:?} of step {step}", case.name);
            known.checkpoint = Some(position);
        }
    }
    known.checkpoint = Some(call!(output.sync()));
    assert_eq!(known.checkpoint.as_ref().map(|c| c.step), Some(STEPS), "{}", case.name);
    true
}

fn counted(items: Vec<String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    items.into_iter().for_each(|item| *counts.entry(item).or_default() += 1);
    counts
}

pub(super) fn check(case: &Case<'_>, schema: &SchemaRef) {
    let name = case.name;
    let mut calls = usize::MAX;
    assert!(live(case, 0, &mut Known::default(), schema, &mut calls));
    let all = usize::MAX - calls;
    let expected = (case.content)(0).map(counted);
    assert!(expected.as_ref().is_none_or(|e| !e.is_empty()), "{name}: nothing was delivered");
    let level = (case.make)(0).level();
    let mut ended = 0;
    for (sink, end) in (1..all).step_by(case.every).enumerate() {
        let sink = sink + 1;
        let mut known = Known::default();
        let mut calls = end;
        assert!(!live(case, sink, &mut known, schema, &mut calls), "{name}");
        // It ends once more, in the middle of what it does again.
        let mut calls = end / 2 + 1;
        let mut is_over = live(case, sink, &mut known, schema, &mut calls);
        while !is_over {
            calls = usize::MAX;
            is_over = live(case, sink, &mut known, schema, &mut calls);
        }
        let (Some(expected), Some(got)) = (&expected, (case.content)(sink).map(counted)) else { continue };
        match level {
            Level::ExactlyOnce => assert_eq!(expected, &got, "{name}: ended behind call {end}"),
            _ => {
                let missing: Vec<_> = expected.iter().filter(|(item, n)| got.get(*item) < Some(n)).collect();
                assert!(missing.is_empty(), "{name}: ended behind call {end}, these are missing: {missing:?}");
            }
        }
        ended += 1;
    }
    assert!(expected.is_none() || ended > 2, "{name}: too few ends to check anything");
}
