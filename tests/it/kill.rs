//! SIGKILL of the real process at random moments, over the flights example: each output equals the uninterrupted run's.

use std::path::Path;
use std::time::Duration;

use crate::process::{Running, Victim, files, integrate, repository, succeed};
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

/// The complete lines of a file.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    text[..whole].lines().map(str::to_owned).collect()
}

/// What a step says stays said: a replay that saw another clock would give other rows for it, or let others go.
#[test]
fn a_steps_clock_is_the_same_after_a_kill() {
    let (mut random, seed) = Rng::from_env(20_140_101);
    let temp = tempfile::tempdir().unwrap();
    let (sql, input, data) = (temp.path().join("p.sql"), temp.path().join("t.csv"), temp.path().join("data"));
    let sink = |file: &str| {
        format!(
            r#"WITH ('connectors' = '[{{"transport": {{"name": "file_output", "config": {{"path": "${{DATA_DIR}}/{file}.ndjson"}}}},
            "format": {{"name": "json", "config": {{"include_step": true}}}}}}]')"#
        )
    };
    let program = format!(
        r#"CREATE TABLE t (id BIGINT NOT NULL, ts TIMESTAMP NOT NULL) WITH ('connectors' = '[{{"transport": {{"name": "file_input",
           "config": {{"path": "t.csv", "follow": true}}}}, "format": {{"name": "csv", "config": {{"headers": false}}}}}}]');
           CREATE VIEW seen {} AS SELECT n, NOW() AS seen FROM (SELECT count(*) AS n FROM t);
           CREATE VIEW recent {} AS SELECT id FROM t WHERE ts > NOW() - INTERVAL '200 milliseconds';"#,
        sink("seen"),
        sink("recent")
    );
    std::fs::write(&sql, program).unwrap();
    let config =
        r#"{"storage": true, "fault_tolerance": {"checkpoint_interval_secs": 2}, "clock_resolution_usecs": 20000}"#;
    std::fs::write(temp.path().join("p.config.json"), config).unwrap();
    std::fs::write(&input, "").unwrap();
    let outputs = ["seen", "recent"].map(|name| data.join(format!("{name}.ndjson")));
    let mut next = 0;
    let mut append = |rows: u64| {
        use std::io::Write;
        let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).datetime();
        let text: String = (next..next + rows).map(|id| format!("{id},{now}\n")).collect();
        next += rows;
        std::fs::OpenOptions::new().append(true).open(&input).unwrap().write_all(text.as_bytes()).unwrap();
        next
    };
    let mut said: [Vec<String>; 2] = Default::default();
    let mut grown = 0;
    for _ in 0..kills() {
        let mut running = Running::start(&sql, &data, &["--workers", "2"]);
        let more = said[0].len() + 5 + random.below(20) as usize;
        append(1 + random.below(3));
        running.wait_until("output", Duration::from_secs(60), || lines(&outputs[0]).len() > more);
        append(1);
        std::thread::sleep(Duration::from_millis(random.below(60)));
        for (said, path) in said.iter_mut().zip(&outputs) {
            let now = lines(path);
            assert!(now.starts_with(said), "seed {seed}: {} takes back what it had said", path.display());
            grown += now.len() - said.len();
            *said = now;
        }
        running.kill();
    }
    let all = append(1);
    let mut running = Running::start(&sql, &data, &["--workers", "1"]);
    running.wait_until("all rows", Duration::from_secs(60), || {
        lines(&outputs[0]).last().is_some_and(|line| line.contains(&format!("\"n\":{all},")))
            && integrate("recent.ndjson", &std::fs::read(&outputs[1]).unwrap()).is_empty()
    });
    running.stop();
    println!("seed {seed}: {} kills, {grown} lines were there before one", kills());
    for (said, path) in said.iter().zip(&outputs) {
        assert!(lines(path).starts_with(said), "seed {seed}: {} takes back what it had said", path.display());
    }
    // Each step's clock is taken back by the next, and never goes back.
    let rows = integrate("seen.ndjson", &std::fs::read(&outputs[0]).unwrap());
    assert_eq!(rows.values().copied().collect::<Vec<_>>(), [1], "seed {seed}: {rows:?}");
    let (came, went): (Vec<String>, Vec<String>) =
        lines(&outputs[1]).into_iter().partition(|l| l.contains("\"insert\""));
    // A row that stood in the file for longer, while nothing ran, was never there.
    assert!(!came.is_empty() && came.len() as u64 <= all, "seed {seed}: {} of {all} rows came", came.len());
    assert_eq!(came.len(), went.len(), "seed {seed}: each row comes and goes once");
}
