//! SIGKILL of the real process at random moments, over the flights example: each output equals the uninterrupted run's.

use std::path::Path;
use std::time::Duration;

use crate::process::{Victim, files, integrate, repository, succeed};
use crate::rng::{Rng, number_from};

/// Kills in each of the scenarios.
fn kills() -> u64 {
    number_from("BACKSTAY_KILLS", 20)
}

/// Runs the example to its end in `dir`, under `kills` SIGKILLs.
fn run(sql: &Path, dir: &Path, workers: &str, kills: u64, total: u64, random: &mut Rng) -> u64 {
    let out = dir.join("out");
    let dir = dir.to_str().unwrap();
    let args = ["run", sql.to_str().unwrap(), "--data-dir", dir, "--until-end", "--workers", workers];
    let mut moments: Vec<u64> = (0..kills).map(|_| random.below(total * 9 / 10)).collect();
    moments.sort_unstable();
    let mut killed = 0;
    for moment in moments {
        let later = Duration::from_millis(random.below(30));
        killed += u64::from(Victim::start(&args, &out).kill_at(moment, later));
    }
    succeed(args);
    killed
}

#[test]
fn with_a_fixed_cut_the_files_are_byte_for_byte_the_same() {
    let (mut random, seed) = Rng::from_env(20_130_101);
    let sql = repository().join("examples/flights/flights.sql");
    let temp = tempfile::tempdir().unwrap();
    let calm = temp.path().join("calm");
    run(&sql, &calm, "1", 0, 0, &mut random);
    let expected = files(&calm.join("out"));
    assert_eq!(expected.len(), 7, "one file a view");
    let total = expected.values().map(|f| f.len() as u64).sum();
    for workers in ["1", "2"] {
        let dir = temp.path().join(workers);
        let killed = run(&sql, &dir, workers, kills(), total, &mut random);
        println!("seed {seed}, {workers} workers: {killed} kills");
        assert!(killed >= kills() * 4 / 5, "seed {seed}: only {killed} kills hit");
        let got = files(&dir.join("out"));
        assert_eq!(expected.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>(), "seed {seed}");
        for (name, bytes) in &expected {
            assert!(bytes == &got[name], "seed {seed}, {workers} workers: {name} differs from the uninterrupted run's");
        }
    }
}

#[test]
fn with_free_cuts_the_contents_are_the_same_and_each_step_stands_there_once() {
    let (mut random, seed) = Rng::from_env(20_131_231);
    let temp = tempfile::tempdir().unwrap();
    let sql = temp.path().join("flights.sql");
    let example = repository().join("examples/flights");
    // The example's program with its cuts free, the data where it is, and step numbers in the outputs.
    let text = std::fs::read_to_string(example.join("flights.sql")).unwrap();
    let text = text.replace("\"path\": \"data/", &format!("\"path\": \"{}/data/", example.display())).replace(
        "\"format\": {\"name\": \"json\"}",
        "\"format\": {\"name\": \"json\", \"config\": {\"include_step\": true}}",
    );
    std::fs::write(&sql, text).unwrap();
    let config = r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 1}, "max_rows_per_step": 3000}"#;
    std::fs::write(temp.path().join("flights.config.json"), config).unwrap();

    let calm = temp.path().join("calm");
    run(&sql, &calm, "2", 0, 0, &mut random);
    let expected = files(&calm.join("out"));
    let total = expected.values().map(|f| f.len() as u64).sum();
    for workers in ["1", "2"] {
        let dir = temp.path().join(workers);
        let killed = run(&sql, &dir, workers, kills(), total, &mut random);
        println!("seed {seed}, {workers} workers: {killed} kills");
        let got = files(&dir.join("out"));
        for (name, bytes) in &expected {
            let (expected, got) = (integrate(name, bytes), integrate(name, &got[name]));
            assert!(got.values().all(|w| *w > 0), "seed {seed}: {name} deletes rows that it never inserted");
            assert!(expected == got, "seed {seed}, {workers} workers: {name} adds up to other rows");
        }
        for (name, bytes) in got.iter().filter(|(name, _)| name.ends_with(".ndjson")) {
            let mut last = 0;
            for line in std::str::from_utf8(bytes).unwrap().lines() {
                let step = line
                    .strip_prefix("{\"step\":")
                    .and_then(|l| l.split_once(','))
                    .map(|(step, _)| step.parse::<u64>());
                let Some(Ok(step)) = step else { panic!("{name}: no step in {line}") };
                assert!(step >= last, "seed {seed}: {name} has step {step} again after step {last}");
                last = step;
            }
        }
    }
}
