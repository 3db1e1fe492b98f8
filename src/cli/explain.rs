//! `backstay explain`: the circuit of a pipeline with what each operator has done and keeps, as of its newest checkpoint. Takes no lock.

use std::path::PathBuf;

use backstay_storage::disk;

use super::Failure;
use super::inspect::size;
use crate::pipeline::query::Asked;
use crate::pipeline::state::{OperatorState, PipelineState};

/// Only the manifest is read.
const CACHE_BYTES: u64 = 1 << 20;

/// What `explain` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Rows and time are counted since the pipeline began, time over all workers, rows before they cancel
out. `backstay check --explain FILE` shows a program's circuit in detail, before it runs.")]
pub struct Args {
    /// The data directory. The pipeline may be running.
    data_dir: PathBuf,
    /// A savepoint in the place of the newest checkpoint.
    #[arg(long)]
    savepoint: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn explain(args: &Args) -> Result<(), Failure> {
    let asked = Asked::open(&disk::system(), &args.data_dir, args.savepoint.as_deref(), CACHE_BYTES)?;
    let state = asked.state();
    if state.operators.is_empty() {
        return Err(Failure::usage(format!(
            "the checkpoint in {} has no figures of operators: an earlier build wrote it; run the pipeline, and take another",
            args.data_dir.display()
        )));
    }
    match args.json {
        true => outln!("{}", serde_json::json!({ "step": state.step, "operators": state.operators })),
        false => out!("{}", table(state)),
    }
    Ok(())
}

fn table(state: &PipelineState) -> String {
    let operators = &state.operators;
    let busy: u64 = operators.iter().map(|o| o.figures.busy_us).sum();
    let head = ["id", "operator", "of", "rows in", "rows out", "state rows", "state", "time", "", "for"];
    let mut lines: Vec<Vec<String>> = vec![head.map(str::to_owned).to_vec()];
    lines.extend(operators.iter().enumerate().map(|(id, operator)| line(id, operator, busy)));
    let widths: Vec<usize> = (0..head.len())
        .map(|i| lines.iter().filter_map(|l| l.get(i)).map(|c| c.chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = format!("pipeline {} after step {}, {} workers\n", state.name, state.step, state.workers);
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate();
        let padded: Vec<String> = cells
            .map(
                |(i, (cell, &width))| {
                    if (3..9).contains(&i) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                },
            )
            .collect();
        out.push_str(padded.join("  ").trim_end());
        out.push('\n');
    }
    out
}

fn line(id: usize, OperatorState { kind, label, inputs, figures }: &OperatorState, busy: u64) -> Vec<String> {
    let inputs: Vec<String> = inputs.iter().map(ToString::to_string).collect();
    let kept = figures.state_rows > 0 || figures.state_bytes > 0;
    vec![
        id.to_string(),
        kind.clone(),
        inputs.join(", "),
        figures.rows_in.to_string(),
        figures.rows_out.to_string(),
        if kept { figures.state_rows.to_string() } else { String::new() },
        if kept { size(figures.state_bytes) } else { String::new() },
        format!("{:.3} s", figures.busy_us as f64 / 1e6),
        format!("{:.0} %", figures.busy_us as f64 * 100.0 / busy.max(1) as f64),
        label.clone(),
    ]
}
