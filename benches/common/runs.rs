//! Whole pipelines, run from their opening to their last checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay::pipeline::query::Asked;
use backstay::pipeline::state::PipelineState;
use backstay::pipeline::{self, Control, Environment, Options, PipelineConfig, Summary, SystemClock, Threads};
use backstay::sql::Program;
use backstay_storage::disk;
use serde_json::Value;

/// What a run came to.
pub struct Run {
    pub summary: Summary,
    pub checkpoints: u64,
    pub took: Duration,
    /// Bytes of the run files that are left: the state, if the last checkpoint holds all of it.
    pub state_bytes: u64,
}

/// For a look at a checkpoint's manifest.
const CACHE_BYTES: u64 = 1 << 20;

/// Has every output throw away what it gets.
pub fn discard_outputs(program: &mut Program) {
    for connector in program.views.iter_mut().flat_map(|view| &mut view.connectors) {
        connector.transport.name = "null_output".into();
        connector.transport.config = Value::Null;
        connector.format = None;
    }
}

/// Runs a pipeline to its end, in a folder of its own, and looks at its last checkpoint.
pub fn run<T>(
    program: &Program,
    config: &PipelineConfig,
    base_dir: &Path,
    folder: &Path,
    look: impl FnOnce(&PipelineState) -> T,
) -> (Run, T) {
    let data_dir = folder.join("run");
    let options = Options { config: config.clone(), name: None, default_name: "bench".into(), until_end: true };
    let env = Environment {
        disk: disk::system(),
        clock: Arc::new(SystemClock::new()),
        scheduler: Arc::new(Threads),
        connectors: Default::default(),
        data_dir: Some(data_dir.clone()),
        base_dir: base_dir.to_owned(),
        variables: BTreeMap::from([("DATA_DIR".into(), data_dir.to_string_lossy().into_owned())]),
        new_id: uuid::Uuid::from_u128(7),
    };
    let control = Arc::new(Control::default());
    let begun = Instant::now();
    let summary = pipeline::run(&Arc::new(program.clone()), &options, &env, &control).expect("a run of the pipeline");
    let took = begun.elapsed();
    assert!(summary.finished && summary.parse_errors == 0, "{summary:?}");
    let files = fs::read_dir(data_dir.join("runs")).into_iter().flatten();
    let state_bytes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum();
    let asked = Asked::open(&env.disk, &data_dir, None, CACHE_BYTES).expect("the last checkpoint");
    let looked = look(asked.state());
    drop(asked);
    fs::remove_dir_all(&data_dir).expect("remove the run's folder");
    (Run { summary, checkpoints: control.snapshot().checkpoints, took, state_bytes }, looked)
}
