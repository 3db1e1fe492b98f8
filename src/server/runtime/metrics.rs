//! `GET /metrics`: a pipeline's figures in Prometheus' text format, names by its conventions.
//!
//! Counters are of the pipeline's life where the figure behind them is; those of the process begin anew with it, as Prometheus expects.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use serde::Deserialize;

use super::Served;
use super::stats::{cpu_msecs, resident_bytes, stream};
use crate::pipeline::histogram::{BOUNDS_US, Histogram};
use crate::pipeline::status::{Phase, Snapshot};
use crate::server::extract::Query;

/// What Prometheus wants to be told that it is.
pub(in crate::server) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a pipeline is called in its samples: by its own name, if nobody says otherwise.
#[derive(Debug, Deserialize)]
pub(super) struct Label {
    pipeline: Option<String>,
}

pub(super) async fn metrics(State(served): State<Arc<Served>>, Query(label): Query<Label>) -> Response {
    let name = label.pipeline.unwrap_or_else(|| served.name.clone());
    let text = render(&served, name, &served.control.snapshot());
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

/// The text, family by family.
struct Text {
    out: String,
    pipeline: String,
}

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.out, "# HELP backstay_{name} {help}\n# TYPE backstay_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.out, "backstay_{name}{{pipeline=\"{}\"", escaped(&self.pipeline));
        for (label, text) in labels {
            let _ = write!(self.out, ",{label}=\"{}\"", escaped(text));
        }
        let _ = writeln!(self.out, "}} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A family with a sample for each endpoint.
    fn each<'a>(&mut self, name: &str, kind: &str, help: &str, values: impl Iterator<Item = (&'a str, u64)>) {
        self.family(name, kind, help);
        for (endpoint, value) in values {
            self.sample(name, &labels(endpoint), value);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        self.buckets(name, &[], histogram);
    }

    /// A family with a histogram for each endpoint.
    fn histograms<'a>(&mut self, name: &str, help: &str, of: impl Iterator<Item = (&'a str, &'a Histogram)>) {
        self.family(name, "histogram", help);
        for (endpoint, histogram) in of {
            self.buckets(name, &labels(endpoint), histogram);
        }
    }

    fn buckets(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        let mut sum = 0;
        for (bound, count) in BOUNDS_US.iter().zip(&histogram.buckets) {
            sum += count;
            self.sample(&bucket, &[labels, &[("le", &seconds(*bound))]].concat(), sum);
        }
        self.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), histogram.count());
        self.sample(&format!("{name}_sum"), labels, seconds(histogram.sum_us));
        self.sample(&format!("{name}_count"), labels, histogram.count());
    }
}

/// The labels of an endpoint.
fn labels(endpoint: &str) -> [(&str, &str); 2] {
    let relation = stream(endpoint);
    [("relation", relation), ("connector", endpoint.get(relation.len() + 1..).unwrap_or_default())]
}

fn seconds(us: u64) -> String {
    (us as f64 / 1e6).to_string()
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn render(served: &Served, pipeline: String, now: &Snapshot) -> String {
    let mut text = Text { out: String::new(), pipeline };
    let is_running = matches!(now.phase, Phase::Running | Phase::Finished) && !served.control.paused();
    text.one("running", "gauge", "Whether the pipeline makes steps.", u8::from(is_running));
    text.one("steps_total", "counter", "Steps made over the pipeline's life.", now.step);
    text.one("delivered_step", "gauge", "The last step that every output has delivered.", now.delivered_step);
    text.one("replayed_records_total", "counter", "Rows replayed by this process.", now.replayed_rows);
    text.one("late_records_total", "counter", "Rows that were late by LATENESS.", now.late_rows);
    text.one(
        "evaluation_errors_total",
        "counter",
        "Rows that an expression failed for, in this process.",
        now.evaluation_errors,
    );
    text.one("log_bytes", "gauge", "Bytes of log on disk.", now.log_bytes);
    text.one("checkpoints_total", "counter", "Checkpoints committed by this process.", now.checkpoints);
    if let Some((step, at)) = now.checkpoint {
        let age = served.clock.elapsed().saturating_sub(at).as_secs_f64();
        text.one("checkpoint_step", "gauge", "The step of the newest checkpoint.", step);
        text.one("checkpoint_age_seconds", "gauge", "Time since the newest checkpoint was committed.", age);
    }
    let inputs = || now.inputs.iter().map(|i| (i, &*i.name));
    text.each("input_records_total", "counter", "Rows that steps took.", inputs().map(|(i, n)| (n, i.rows)));
    text.each("input_parse_errors_total", "counter", "Rows that did not parse.", inputs().map(|(i, n)| (n, i.errors)));
    text.each(
        "input_buffered_records",
        "gauge",
        "Rows that wait for a step.",
        inputs().map(|(i, n)| (n, i.buffered_rows)),
    );
    let outputs = || now.outputs.iter().map(|o| (o, &*o.name));
    text.each(
        "output_records_total",
        "counter",
        "Rows that the sink came to hold durably, in this process.",
        outputs().map(|(o, n)| (n, o.rows)),
    );
    text.each(
        "output_delivered_step",
        "gauge",
        "The last step delivered.",
        outputs().map(|(o, n)| (n, o.delivered_step)),
    );
    text.each(
        "output_pending_bytes",
        "gauge",
        "Bytes that the sink does not hold durably yet.",
        outputs().map(|(o, n)| (n, o.pending_bytes)),
    );
    let troubles = inputs().map(|(i, n)| (n, &i.trouble)).chain(outputs().map(|(o, n)| (n, &o.trouble)));
    text.each(
        "connector_trouble",
        "gauge",
        "Whether something hinders the connector.",
        troubles.map(|(n, t)| (n, u64::from(t.is_some()))),
    );
    let paused = inputs().map(|(i, n)| (n, i.paused)).chain(outputs().map(|(o, n)| (n, o.paused)));
    let paused = paused.map(|(n, paused)| (n, u64::from(paused)));
    text.each("connector_paused", "gauge", "Whether the connector is paused, or waits for the end of others.", paused);
    let errors = inputs().map(|(i, n)| (n, i.transport_errors));
    let errors = errors.chain(outputs().map(|(o, n)| (n, o.transport_errors)));
    text.each("connector_errors_total", "counter", "Errors that may pass, in this process.", errors);
    text.histogram("step_duration_seconds", "Time that the circuit took for a step.", &now.step_time);
    text.histogram(
        "commit_wait_seconds",
        "Time that a step then waited for its record to be durable.",
        &now.commit_time,
    );
    let sinks = served.control.sink_times();
    text.histograms(
        "output_delivery_seconds",
        "Time that the sink took for a step's changes, in this process.",
        sinks.iter().map(|(name, times)| (&**name, &times.delivery)),
    );
    text.histograms(
        "output_sync_seconds",
        "Time that the sink took to make durable what it has, in this process.",
        sinks.iter().map(|(name, times)| (&**name, &times.sync)),
    );
    text.histogram(
        "checkpoint_duration_seconds",
        "Time from a checkpoint's freeze to its commit.",
        &now.checkpoint_time,
    );
    text.one("process_resident_memory_bytes", "gauge", "Memory of the process.", resident_bytes());
    text.one("process_cpu_seconds_total", "counter", "Processor time of the process.", cpu_msecs() as f64 / 1e3);
    text.out
}
