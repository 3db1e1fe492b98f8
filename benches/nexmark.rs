//! Nexmark's queries (`examples/nexmark/`), one pipeline each, into outputs that throw everything away: events a second from opening to the
//! last checkpoint, and what the state takes on disk.
//!
//! Events are those of the whole stream, also where a query reads one of its tables only. State is kept in a store either way; with fault
//! tolerance (the default configuration: exactly once, a checkpoint a minute) each step has a durable record, too. The generator alone is
//! what its tables cost to make, on one thread; in a pipeline each table has a thread of its own.
//!
//! What fault tolerance costs is the geometric mean over the queries: one query's two figures differ by more from round to round than it does.
//! Of the slowest queries it is told which operators took the time.

#![expect(clippy::disallowed_methods, reason = "a bench measures time, and makes folders as a user would")]

mod common;
#[path = "common/figures.rs"]
mod figures;
#[path = "common/runs.rs"]
mod runs;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use backstay::connector::{Context, Next, Position, registry};
use backstay::pipeline::PipelineConfig;
use backstay::pipeline::config::FaultTolerance;
use backstay::pipeline::state::OperatorState;
use backstay::sql::{self, Program};
use backstay_storage::disk;

use common::Args;
use figures::median;
use runs::{Run, discard_outputs, run};

const QUERIES: usize = 23;
/// In the queries' files.
const EVENTS: u64 = 1_000_000;
/// The slowest queries, and operators of each, that are shown.
const SHOWN_QUERIES: usize = 3;
const SHOWN_OPERATORS: usize = 6;

/// A query's medians, in thousands of events a second.
struct Measured {
    name: String,
    /// By workers, then fault tolerance.
    rates: [[f64; 2]; 2],
    /// Of the last run.
    operators: Vec<OperatorState>,
}

fn main() {
    let (mut events, mut rounds) = (EVENTS, 1);
    let args = Args::parse(&["--events=N", "--rounds=N"], |flag| {
        let (name, number) = flag.split_once('=').expect("a flag with a value");
        let number = number.parse().unwrap_or_else(|_| panic!("{name} wants a number"));
        if name == "--events" { events = number } else { rounds = number.max(1) }
    });
    let folder = args.folder();
    println!("nexmark: {events} events, thousands of events a second: median of {rounds}");
    let probed = disk::system();
    probed.probe(folder.path()).expect("probe");
    common::describe_machine(folder.path(), &*probed);
    println!(
        "{:<6} {:>10} {:>20} {:>20} {:>16} {:>12}",
        "", "generator", "1 worker", "2 workers", "on/off, 1 and 2", "state"
    );
    println!("{:<6} {:>10} {:>20} {:>20}", "", "alone", "off      on", "off      on");
    let names = (0..QUERIES).map(|n| format!("q{n}"));
    let wanted = names.filter(|name| args.filter.as_ref().is_none_or(|wanted| wanted == name));
    let mut all: Vec<Measured> = wanted.map(|name| measure(name, events, rounds, folder.path())).collect();
    for (workers, what) in ["1 worker", "2 workers"].iter().enumerate() {
        let logs = all.iter().map(|measured| (measured.rates[workers][1] / measured.rates[workers][0]).ln());
        let mean = (logs.sum::<f64>() / all.len() as f64).exp();
        println!("on/off, {what}: {:.1}% (geometric mean over {} queries)", 100.0 * mean, all.len());
    }
    all.sort_by(|a, b| a.rates[1][1].total_cmp(&b.rates[1][1]));
    all.iter_mut().take(SHOWN_QUERIES).for_each(show_operators);
}

/// The operators of a query that took the most time, summed over both workers.
fn show_operators(Measured { name, operators, .. }: &mut Measured) {
    let all: u64 = operators.iter().map(|o| o.figures.busy_us).sum();
    operators.sort_by_key(|operator| std::cmp::Reverse(operator.figures.busy_us));
    println!("{name}: {:.2} s in operators of both workers", all as f64 / 1e6);
    for OperatorState { kind, label, figures, .. } in operators.iter().take(SHOWN_OPERATORS) {
        println!(
            "  {:>6.2} s {:>3.0}%  {:>10} rows in, {:>10} out, {:>9} kept  {kind}: {label}",
            figures.busy_us as f64 / 1e6,
            figures.busy_us as f64 * 100.0 / all.max(1) as f64,
            figures.rows_in,
            figures.rows_out,
            figures.state_rows
        );
    }
}

fn measure(name: String, events: u64, rounds: u64, folder: &Path) -> Measured {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/nexmark/{name}.sql"));
    let text = fs::read_to_string(&file).expect("the query's file");
    let text = text.replace("\"events\": 1000000}", &format!("\"events\": {events}}}"));
    let mut program = sql::compile(&text, &name).unwrap_or_else(|e| panic!("{e}"));
    discard_outputs(&mut program);
    let thousands = |seconds: f64| events as f64 / seconds / 1e3;
    let generator = thousands(generate(&program));
    // By workers, then fault tolerance.
    let mut rates = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    let mut last = None;
    for round in 0..rounds {
        let mut ways = [(0, 0), (0, 1), (1, 0), (1, 1)];
        if round % 2 == 1 {
            ways.reverse();
        }
        for (workers, on) in ways {
            let mut config = PipelineConfig { workers: Some(workers + 1), ..PipelineConfig::exactly_once() };
            if on == 0 {
                config.fault_tolerance = FaultTolerance::NONE;
            }
            let (run, operators) = run(&program, &config, Path::new("."), folder, |state| state.operators.clone());
            rates[workers][on].push(thousands(run.took.as_secs_f64()));
            if (workers, on) == (1, 1) {
                last = Some((run, operators));
            }
        }
    }
    let rates = rates.map(|ways| ways.map(|rates| median(&rates)));
    let [[one_off, one_on], [two_off, two_on]] = rates;
    let (Run { summary, checkpoints, state_bytes, .. }, operators) = last.expect("at least one round");
    println!(
        "{name:<6} {generator:>10.0} {one_off:>11.0} {one_on:>8.0} {two_off:>11.0} {two_on:>8.0} {:>8.0}% {:>6.0}% {:>8.1} MiB {:>7} {checkpoints:>6}",
        100.0 * one_on / one_off,
        100.0 * two_on / two_off,
        state_bytes as f64 / (1 << 20) as f64,
        summary.step
    );
    Measured { name, rates, operators }
}

/// Makes all rows of a program's tables, and says how many seconds it took.
fn generate(program: &Program) -> f64 {
    let begun = Instant::now();
    for table in &program.tables {
        for config in &table.connectors {
            let context = Context {
                append_only: table.is_append_only(),
                rereads: false,
                pipeline: "nexmark".into(),
                name: table.name.clone(),
                schema: table.schema.clone(),
                declared: table.declared.clone(),
                primary_key: table.primary_key.clone(),
                disk: disk::system(),
                base_dir: ".".into(),
                variables: BTreeMap::new(),
            };
            let input = registry::input(config, context).expect("the generator");
            let mut reader = input.open(&Position::default()).expect("the generator");
            while !matches!(reader.next().expect("the generator"), Next::End) {}
        }
    }
    begun.elapsed().as_secs_f64()
}
