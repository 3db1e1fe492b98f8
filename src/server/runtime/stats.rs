//! `GET /stats`: a pipeline's figures, in the shape of Feldera's.
//!
//! What this engine does not have (transactions, bootstrapping) is there as zero or `null`, since clients want the key. Bytes are those that
//! rows take in memory, of this process; so are errors.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Served;
use crate::pipeline::status::{InputFigures, OutputFigures, Phase, Snapshot};

pub(super) async fn stats(State(served): State<Arc<Served>>) -> Json<Value> {
    Json(shape(&served, &served.control.snapshot()))
}

fn shape(served: &Served, now: &Snapshot) -> Value {
    let uptime = served.clock.wall_ms().saturating_sub(served.begun_ms).max(0);
    let state = match now.phase {
        Phase::Running | Phase::Finished if !served.control.paused() => "Running",
        Phase::Stopping => "Terminated",
        _ => "Paused",
    };
    let complete = now.phase == Phase::Finished && now.delivered_step >= now.step && now.pending_bytes == 0;
    let checkpoint = now.checkpoint.map(|(step, at)| {
        let age = served.clock.elapsed().saturating_sub(at);
        json!({ "step": step, "age_msecs": millis(age), "checkpoints": now.checkpoints })
    });
    let measured = now.measured.as_ref();
    json!({
        "global_metrics": {
            "state": state,
            "bootstrap_in_progress": false,
            "transaction_status": "NoTransaction",
            "transaction_id": 0,
            "transaction_msecs": null,
            "transaction_records": null,
            "commit_progress": null,
            "transaction_initiators": { "transaction_id": null, "initiated_by_api": null, "initiated_by_connectors": {} },
            "concurrent_bootstrap_phase": "Inactive",
            "concurrent_bootstrap_progress": null,
            "rss_bytes": resident_bytes(),
            "memory_pressure": "low",
            "memory_pressure_epoch": 0,
            "cpu_msecs": cpu_msecs(),
            "uptime_msecs": uptime,
            "start_time": served.begun_ms / 1000,
            "incarnation_uuid": served.process,
            "initial_start_time": served.begun_ms / 1000,
            "storage_bytes": now.log_bytes,
            "storage_mb_secs": 0,
            "runtime_elapsed_msecs": uptime,
            "buffered_input_records": now.buffered_rows,
            "buffered_input_bytes": now.inputs.iter().map(|i| i.buffered_bytes).sum::<u64>(),
            "total_input_records": now.input_rows + now.buffered_rows,
            "total_input_bytes": now.inputs.iter().map(|i| i.bytes).sum::<u64>(),
            "total_processed_records": now.input_rows,
            "total_processed_bytes": now.inputs.iter().map(|i| i.bytes.saturating_sub(i.buffered_bytes)).sum::<u64>(),
            "total_completed_records": now.completed_rows,
            "output_stall_msecs": 0,
            "total_initiated_steps": now.step,
            "total_completed_steps": now.delivered_step.min(now.step),
            "pipeline_complete": complete,
        },
        "suspend_error": null,
        "inputs": now.inputs.iter().map(|i| input(i, now)).collect::<Vec<_>>(),
        "outputs": now.outputs.iter().map(|o| output(o, now)).collect::<Vec<_>>(),
        "backstay": {
            "pid": std::process::id(),
            "step": now.step,
            "delivered_step": now.delivered_step,
            "parse_errors": now.parse_errors,
            "late_records": now.late_rows,
            "evaluation_errors": now.evaluation_errors,
            "log_bytes": now.log_bytes,
            "state_bytes": measured.map(|m| m.state_bytes),
            "state_records": measured.map(|m| m.state_rows),
            "pending_output_bytes": now.pending_bytes,
            "replayed_records": now.replayed_rows,
            "replay": now.replay.map(|(from, to)| json!({ "from": from, "to": to })),
            "checkpoint": checkpoint,
            "troubles": now.troubles,
        },
    })
}

/// The relation that a connector belongs to.
pub(super) fn stream(endpoint: &str) -> &str {
    endpoint.split_once('.').map_or(endpoint, |(relation, _)| relation)
}

fn health(trouble: &Option<String>) -> Value {
    match trouble {
        None => json!({ "status": "Healthy", "description": null }),
        Some(trouble) => json!({ "status": "Unhealthy", "description": trouble }),
    }
}

fn input(figures: &InputFigures, now: &Snapshot) -> Value {
    json!({
        "endpoint_name": &*figures.name,
        "config": { "stream": stream(&figures.name) },
        "metrics": {
            "total_bytes": figures.bytes,
            "total_records": figures.rows + figures.buffered_rows,
            "buffered_records": figures.buffered_rows,
            "buffered_bytes": figures.buffered_bytes,
            "num_transport_errors": figures.transport_errors,
            "num_parse_errors": figures.errors,
            "end_of_input": figures.ended,
        },
        "fatal_error": null,
        "health": health(&figures.trouble),
        "paused": figures.paused,
        "barrier": false,
        "completed_frontier": null,
        "backstay": { "position": now.measured.as_ref().and_then(|m| m.place(&figures.name)) },
    })
}

fn output(figures: &OutputFigures, now: &Snapshot) -> Value {
    json!({
        "endpoint_name": &*figures.name,
        "config": { "stream": stream(&figures.name) },
        "metrics": {
            "transmitted_records": figures.rows,
            "transmitted_bytes": figures.bytes,
            "queued_records": figures.pending_rows,
            "queued_batches": figures.pending_steps,
            "buffered_records": 0,
            "buffered_batches": 0,
            "num_encode_errors": 0,
            "num_transport_errors": figures.transport_errors,
            "total_processed_input_records": if figures.delivered_step >= now.step { now.input_rows } else { now.completed_rows },
            "total_processed_steps": figures.delivered_step,
            "memory": figures.pending_bytes,
        },
        "fatal_error": null,
        "health": health(&figures.trouble),
        "paused": figures.paused,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Memory of this process that is in RAM.
#[expect(clippy::disallowed_methods, reason = "the kernel's figures of this process are no state")]
pub(super) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Processor time of this process.
pub(super) fn cpu_msecs() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec * 1000 + time.tv_nsec / 1_000_000).unwrap_or(0)
}
