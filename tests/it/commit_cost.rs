//! A step's commit costs one durable write, counted by the disk itself.

use std::sync::Arc;

use backstay::pipeline::{Control, Environment, Options, PipelineConfig, SystemClock, Threads, run};
use backstay_storage::disk::{DiskStats, system};

/// Runs `rows` generated rows in steps of ten; gives the steps made and what the disk did.
fn cost(rows: u64) -> (u64, DiskStats) {
    let temp = tempfile::tempdir().unwrap();
    let sql = format!(
        r#"CREATE TABLE t (n BIGINT) WITH ('connectors' = '[{{"transport": {{"name": "datagen", "config": {{"plan": [{{"limit": {rows}}}]}}}}}}]');
           CREATE VIEW v WITH ('connectors' = '[{{"transport": {{"name": "null_output"}}}}]') AS SELECT sum(n) AS s FROM t;"#
    );
    let program = Arc::new(backstay::sql::compile(&sql, "cost.sql").unwrap());
    let config = r#"{"storage": true, "workers": 1, "fault_tolerance": {"checkpoint_interval_secs": null}, "rows_per_step": 10}"#;
    let options = Options {
        config: PipelineConfig::parse(config).unwrap(),
        name: None,
        default_name: "cost".into(),
        until_end: true,
    };
    let disk = system();
    let env = Environment {
        disk: Arc::clone(&disk),
        clock: Arc::new(SystemClock::new()),
        scheduler: Arc::new(Threads),
        connectors: Default::default(),
        data_dir: Some(temp.path().join("data")),
        base_dir: temp.path().to_path_buf(),
        variables: Default::default(),
        new_id: uuid::Uuid::from_u128(1),
    };
    let summary = run(&program, &options, &env, &Arc::new(Control::default())).unwrap();
    (summary.step, disk.stats())
}

#[test]
fn a_step_costs_one_durable_write_and_no_sync() {
    let (few_steps, few) = cost(500);
    let (many_steps, many) = cost(2500);
    assert_eq!((few_steps, many_steps), (50, 250));
    assert_eq!(many.durable_writes - few.durable_writes, 200, "{few:?} {many:?}");
    assert_eq!((many.syncs, many.dir_syncs), (few.syncs, few.dir_syncs), "{few:?} {many:?}");
    assert_eq!(many.writes, few.writes, "{few:?} {many:?}");
}
