//! Programs under random changes: what the circuit has added up must be DataFusion's batch answer over the tables as they then are.
//!
//! - `tables`: random tables, and values of a column; `expressions`, `queries`: random views over them;
//! - `changes`: what happens to the tables, cut into steps;
//! - `circuit`: a program run in process; `oracle`: the batch answer, and the comparison with it;
//! - `windows`: limits and window functions, random and written;
//! - `unnest`: lists and structs, in columns and unnested;
//! - `time`: windows of time, and the clock, which goes on between steps;
//! - `lateness`: LATENESS, written and at random;
//! - `programs`: programs that somebody wrote down, one line a construct: **add yours there**; `aggregates`: those about aggregates;
//! - `sharing`: joins that share arrangements; `as_of`: ASOF joins; `joins`: outer, semi, anti and cross joins, and sub-queries in expressions; `tpch`: the 22 queries of TPC-H.
//!
//! `BACKSTAY_SQL_PROGRAMS` is how many random programs are run (default 100), `BACKSTAY_SQL_SEED=<n>` (or `<n>..<m>`) runs one of them (or some), whose
//! number a failure gives together with the whole program.
//!
//! After each phase one of the two circuits is restarted: another number of workers goes on with what the spines hold.
//!
//! Rules of the generator:
//! 1. It makes nothing that fails to evaluate (no division but by a positive literal, no narrowing cast), and nothing that is not
//!    supported: a program of its own that does not compile is a failure.
//! 2. It leaves out what DataFusion gets wrong (see `expressions` and `queries`). A written program for which the oracle is wrong
//!    carries another query that has the same answer ([`check_as`]).
//!    A program that the oracle answers with an internal error of its own counts for nothing; there may be one in twenty.
//! 3. Tables may have negative weights within a phase, between two comparisons, and never at a comparison.

mod aggregates;
mod as_of;
mod changes;
mod circuit;
mod expressions;
mod joins;
mod lateness;
mod nexmark;
mod oracle;
mod programs;
mod queries;
mod set_operations;
mod sharing;
mod tables;
mod time;
mod tpch;
mod unnest;
mod windows;

use std::panic::{AssertUnwindSafe, catch_unwind};

use backstay::sql::{Program, compile};

use crate::rng::{Rng, mix};
use changes::Contents;
use circuit::Circuit;
use oracle::Oracle;

/// Phases of a program: after each one the views are compared.
const PHASES: u64 = 4;

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// `7` or `100..200`.
fn seeds(text: &str) -> std::ops::Range<u64> {
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("BACKSTAY_SQL_SEED={text} is not a number"));
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(text)..number(text) + 1,
    }
}

/// Puts a program under random changes and compares each of its views with DataFusion's answer.
fn check(sql: &str, seed: u64) {
    check_as(sql, &[], seed);
}

/// Like [`check`], with other queries for the oracle in the place of some views' own.
fn check_as(sql: &str, references: &[(&str, &str)], seed: u64) {
    let oracle = Oracle::new();
    if let Err(e) = run(sql, references, &oracle, &mut Rng::new(seed)) {
        panic!("seed {seed}: {e}\n{sql}");
    }
}

fn run(sql: &str, references: &[(&str, &str)], oracle: &Oracle, rng: &mut Rng) -> Result<(), String> {
    let program = compile(sql, "p.sql").map_err(|e| format!("it does not compile: {e}"))?;
    if let Some((name, _)) = references.iter().find(|(name, _)| program.view(name).is_none()) {
        return Err(format!("there is a reference for {name}, which is no view"));
    }
    let mut circuits = [1, 2 + rng.below(3) as usize].map(|workers| Circuit::start(&program, workers, rng.next()));
    let mut contents = Contents::new(&program);
    let mut clock_ms = time::START_MS;
    for phase in 0..PHASES {
        let steps = contents.phase(&program, rng, phase == 0);
        for step in &steps {
            clock_ms += time::pause_ms(rng);
            for circuit in &mut circuits {
                circuit.step(clock_ms, step)?;
            }
        }
        // One of the two goes on as after a restart with another number of workers.
        let [_, restarted] = &mut circuits;
        restarted.restart(&program, 1 + rng.below(4) as usize, rng.next());
        let answers = oracle.answers(&program, references, &|table| contents.batch(table), clock_ms)?;
        for circuit in &circuits {
            for (view, answer) in program.views.iter().zip(&answers) {
                let got = circuit.view(&view.name);
                oracle::compare(&view.schema, got, answer).map_err(|e| {
                    let workers = circuit.workers;
                    format!("view {}, {workers} worker(s), after phase {phase}: {e}\n{contents}", view.name)
                })?;
            }
        }
    }
    Ok(())
}

/// A random program.
fn random_program(rng: &mut Rng) -> Result<String, String> {
    let tables = tables::create(rng);
    with_views(rng, tables, queries::query)
}

/// Tables, and one to four views over them and each other.
fn with_views(rng: &mut Rng, mut sql: String, query: fn(&mut Rng, &Program) -> String) -> Result<String, String> {
    let relations = |sql: &str| -> Result<Program, String> {
        compile(sql, "p.sql").map_err(|e| format!("it does not compile: {e}\n{sql}"))
    };
    for view in 0..1 + rng.below(4) {
        let program = relations(&sql)?;
        let query = query(rng, &program);
        sql.push_str(&format!("CREATE VIEW v{view} AS {query};\n"));
    }
    relations(&sql)?;
    Ok(sql)
}

/// The program with tables that leave out the columns that nothing reads.
fn skipping(sql: &str) -> String {
    let option = "'skip_unused_columns' = 'true'";
    let statement = |line: &str| match (line.starts_with("CREATE TABLE"), line.split_once(" WITH (")) {
        (false, _) => format!("{line}\n"),
        (true, Some((columns, options))) => format!("{columns} WITH ({option}, {options}\n"),
        (true, None) => format!("{} WITH ({option});\n", line.trim_end_matches(';')),
    };
    sql.lines().map(statement).collect()
}

/// Makes the programs of the seeds that the environment names, and runs each one.
fn run_all(
    make: impl Fn(&mut Rng) -> Result<String, String>,
    mut run: impl FnMut(&str, &Oracle, &mut Rng) -> Result<(), String>,
) {
    let seeds = match std::env::var("BACKSTAY_SQL_SEED") {
        Ok(text) => seeds(&text),
        Err(_) => 0..number_from("BACKSTAY_SQL_PROGRAMS").unwrap_or(100),
    };
    let oracle = Oracle::new();
    let start = std::time::Instant::now();
    let (mut failures, mut unanswered) = (Vec::new(), 0);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        if seed % 500 == 499 {
            // A long run says how far it is.
            println!("at {seed}, {:.0} s, {} failed", start.elapsed().as_secs_f64(), failures.len());
        }
        let mut rng = Rng::new(mix(seed));
        let outcome = match catch_unwind(AssertUnwindSafe(|| make(&mut rng))) {
            Ok(Ok(sql)) => match catch_unwind(AssertUnwindSafe(|| run(&sql, &oracle, &mut rng))) {
                Ok(outcome) => outcome.map_err(|e| format!("{e}\n{sql}")),
                Err(_) => Err(format!("a panic (see above)\n{sql}")),
            },
            Ok(Err(e)) => Err(e),
            Err(_) => Err("a panic while the program was made (see above)".to_owned()),
        };
        // Plans on which the oracle's optimizer stumbles over its own checks, that compare two widths of numbers, or whose columns differ by a cast.
        let own = [
            "Internal error",
            "Invalid comparison operation",
            "duplicate unqualified field name",
            "Projections require unique expression names",
        ];
        if outcome.as_ref().is_err_and(|e| e.starts_with("the oracle's") && own.iter().any(|own| e.contains(own))) {
            unanswered += 1;
            continue;
        }
        if let Err(e) = outcome {
            println!("BACKSTAY_SQL_SEED={seed}: {e}\n");
            failures.push(format!("BACKSTAY_SQL_SEED={seed}: {e}"));
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{count} programs in {seconds:.1} s, {:.1} a second; {unanswered} without an answer",
        count as f64 / seconds
    );
    assert!(unanswered * 20 <= count, "the oracle did not answer {unanswered} of {count} programs");
    assert!(failures.is_empty(), "{} of {count} programs failed\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn random_programs() {
    run_all(random_program, |sql, oracle, rng| run(sql, &[], oracle, rng));
}

/// The same programs where tables leave out what no view reads: answers stay the same, whatever stands in those columns.
#[test]
fn random_programs_that_skip_columns() {
    let (mut programs, mut skipped) = (0_usize, 0_usize);
    run_all(
        |rng| random_program(rng).map(|sql| skipping(&sql)),
        |sql, oracle, rng| {
            let program = compile(sql, "p.sql").map_err(|e| format!("it does not compile: {e}"))?;
            programs += 1;
            skipped += usize::from(program.tables.iter().any(|table| !table.declared.is_empty()));
            run(sql, &[], oracle, rng)
        },
    );
    println!("{skipped} of {programs} programs skip columns");
    assert!(programs < 50 || skipped * 3 > programs, "{skipped} of {programs} programs skip columns");
}
