//! Rows a second of whole pipelines, with fault tolerance off and on, from opening to the last checkpoint.
//!
//! Both keep state in a store. Off: one checkpoint, at the end. On: a durable record for each step and a checkpoint a second. The
//! runs take turns, each round in the other direction; the figures are medians.

#![expect(clippy::disallowed_methods, reason = "a bench measures time, and makes folders as a user would")]

mod common;
#[path = "common/figures.rs"]
mod figures;
#[path = "common/runs.rs"]
mod runs;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backstay::connector::Level;
use backstay::pipeline::PipelineConfig;
use backstay::pipeline::config::{FaultTolerance, StorageConfig};
use backstay::sql::{self, Program};
use backstay_storage::disk;

use common::Args;
use figures::median;
use runs::Run;

/// Events of the auction stream.
const EVENTS: u64 = 500_000;
/// At least so many rounds, whatever the time.
const ROUNDS: usize = 3;

/// A pipeline and how its steps are cut.
struct Subject {
    name: String,
    program: Program,
    base_dir: PathBuf,
    rows_per_step: u64,
}

/// One way to run a subject.
#[derive(Clone, Copy)]
struct Way {
    subject: usize,
    workers: usize,
    files: bool,
}

/// What was measured of a way, fault tolerance off and on.
#[derive(Default)]
struct Figures {
    rates: [Vec<f64>; 2],
    steps: u64,
    checkpoints: u64,
    state_bytes: u64,
}

fn main() {
    let args = Args::parse(&[], |_| {});
    let folder = args.folder();
    println!("pipelines: rows a second from opening to the last checkpoint, fault tolerance off and on");
    let probed = disk::system();
    probed.probe(folder.path()).expect("probe");
    common::describe_machine(folder.path(), &*probed);
    let subjects = subjects();
    let mut ways: Vec<Way> = Vec::new();
    for subject in 0..subjects.len() {
        for workers in [1, 2] {
            ways.extend([false, true].map(|files| Way { subject, workers, files }));
        }
    }
    ways.retain(|way| args.filter.as_ref().is_none_or(|word| label(&subjects, way).contains(word)));
    let mut figures: Vec<Figures> = ways.iter().map(|_| Figures::default()).collect();
    let (begun, budget) = (Instant::now(), Duration::from_secs(args.seconds.unwrap_or(120)));
    let mut rounds = 0;
    while rounds < ROUNDS || begun.elapsed() < budget {
        let mut order: Vec<(usize, usize)> = (0..ways.len()).flat_map(|way| [(way, 0), (way, 1)]).collect();
        if rounds % 2 == 1 {
            order.reverse();
        }
        for (i, on) in order {
            let way = &ways[i];
            let Run { summary, checkpoints, took, state_bytes } =
                run(&subjects[way.subject], way, on == 1, folder.path());
            figures[i].rates[on].push(summary.new_rows as f64 / took.as_secs_f64());
            if on == 1 {
                (figures[i].steps, figures[i].checkpoints, figures[i].state_bytes) =
                    (summary.step, checkpoints, state_bytes);
            }
        }
        rounds += 1;
        // One round more must fit.
        if rounds >= ROUNDS && begun.elapsed() + begun.elapsed() / rounds as u32 > budget {
            break;
        }
    }
    println!("\n{rounds} rounds; rows/s in thousands: median (least to most)\n");
    println!(
        "{:<44} {:>22} {:>22} {:>7} {:>6} {:>11} {:>9}",
        "", "off", "on", "on/off", "steps", "checkpoints", "state KiB"
    );
    for (way, figures) in ways.iter().zip(&figures) {
        let [off, on] = &figures.rates;
        println!(
            "{:<44} {:>22} {:>22} {:>6.0}% {:>6} {:>11} {:>9}",
            label(&subjects, way),
            spread(off),
            spread(on),
            100.0 * median(on) / median(off),
            figures.steps,
            figures.checkpoints,
            figures.state_bytes >> 10
        );
    }
}

fn label(subjects: &[Subject], way: &Way) -> String {
    let Way { subject, workers, files } = *way;
    let output = if files { "file_output" } else { "null_output" };
    let plural = if workers == 1 { "worker" } else { "workers" };
    format!("{}, {workers} {plural}, {output}", subjects[subject].name)
}

fn spread(rates: &[f64]) -> String {
    let (least, most) = rates.iter().fold((f64::MAX, 0.0_f64), |(least, most), r| (least.min(*r), most.max(*r)));
    format!("{:.0} ({:.0} to {:.0})", median(rates) / 1e3, least / 1e3, most / 1e3)
}

fn subjects() -> Vec<Subject> {
    let flights_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/flights");
    let text = fs::read_to_string(flights_dir.join("flights.sql")).expect("the flights example");
    let flights = sql::compile(&text, "flights.sql").expect("the flights example");
    let shipped = fs::read_to_string(flights_dir.join("flights.config.json")).expect("the example's configuration");
    let cut = PipelineConfig::parse(&shipped).expect("the example's configuration").rows_per_step;
    let subject = |name: &str, program: &Program, rows_per_step| Subject {
        name: format!("{name}, {rows_per_step} rows a step"),
        program: program.clone(),
        base_dir: flights_dir.clone(),
        rows_per_step,
    };
    let nexmark = sql::compile(&auctions(), "nexmark.sql").expect("the Nexmark program");
    vec![
        subject("flights", &flights, cut.expect("the example fixes its cut")),
        subject("flights", &flights, 50_000),
        subject("nexmark", &nexmark, 50_000),
    ]
}

/// Three views over the auction stream: a filter with arithmetic (as Nexmark's q1 and q2), a join (q3), an aggregate.
fn auctions() -> String {
    let table = |name: &str, columns: &str| {
        format!(
            "CREATE TABLE {name} ({columns}) WITH ('connectors' = '[{{\"transport\": {{\"name\": \"nexmark\", \
             \"config\": {{\"table\": \"{name}\", \"options\": {{\"events\": {EVENTS}}}}}}}}}]');\n"
        )
    };
    let view = |name: &str, query: &str| {
        format!(
            "CREATE VIEW {name} WITH ('connectors' = '[{{\"transport\": {{\"name\": \"file_output\", \"config\": \
             {{\"path\": \"${{DATA_DIR}}/out/{name}.ndjson\"}}}}, \"format\": {{\"name\": \"json\"}}}}]') AS {query};\n"
        )
    };
    [
        table("person", "id BIGINT NOT NULL PRIMARY KEY, name VARCHAR, city VARCHAR, state VARCHAR"),
        table("auction", "id BIGINT NOT NULL PRIMARY KEY, seller BIGINT, category BIGINT, reserve BIGINT"),
        table("bid", "auction BIGINT, bidder BIGINT, price BIGINT, datetime TIMESTAMP"),
        view("cheap", "SELECT auction, bidder, price * 89 / 100 AS euro, datetime FROM bid WHERE auction % 10 = 0"),
        view(
            "sellers",
            "SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id \
             WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')",
        ),
        view("bids", "SELECT auction, count(*) AS bids, max(price) AS highest FROM bid GROUP BY auction"),
    ]
    .concat()
}

/// Runs a pipeline to its end, in a folder of its own.
fn run(subject: &Subject, way: &Way, fault_tolerant: bool, folder: &Path) -> Run {
    let mut program = subject.program.clone();
    if !way.files {
        runs::discard_outputs(&mut program);
    }
    let model = if fault_tolerant { Level::ExactlyOnce } else { Level::None };
    let checkpoint_interval = fault_tolerant.then(|| Duration::from_secs(1));
    let config = PipelineConfig {
        workers: Some(way.workers),
        storage: Some(StorageConfig::default()),
        fault_tolerance: FaultTolerance { model, checkpoint_interval },
        rows_per_step: Some(subject.rows_per_step),
        ..PipelineConfig::default()
    };
    runs::run(&program, &config, &subject.base_dir, folder, |_| ()).0
}
