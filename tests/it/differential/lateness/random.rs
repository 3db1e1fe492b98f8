//! Random programs with LATENESS, under random streams: each view is the batch answer over the rows that were not late, and state is freed.
//!
//! A seed fixes the program, the rows and where the steps are cut. `BACKSTAY_SQL_PROGRAMS` and `BACKSTAY_SQL_SEED` mean what they mean for
//! all [random programs](super::super).

use std::collections::BTreeMap;

use backstay::circuit::Watermarks;
use backstay::sql::compile;

use super::super::circuit::Circuit;
use super::super::oracle::{self, Oracle};
use super::super::{PHASES, run_all, skipping, time, with_views};
use super::queries;
use super::stream::{self, Stream};
use crate::rng::Rng;

/// Rows that a program's state shows at its end: with its watermarks, and as if there were none.
struct State {
    freed: usize,
    kept: usize,
}

fn run(sql: &str, oracle: &Oracle, rng: &mut Rng) -> Result<State, String> {
    let program = compile(sql, "p.sql").map_err(|e| format!("it does not compile: {e}"))?;
    let mut marks = Watermarks::new(&program.plan, &BTreeMap::new());
    // The last one is not told the watermarks, and so keeps all.
    let mut circuits = [1, 2 + rng.below(3) as usize, 1].map(|workers| Circuit::start(&program, workers, rng.next()));
    let mut stream = Stream::new(&program);
    let mut clock_ms = time::START_MS;
    for phase in 0..PHASES {
        for _ in 0..2 + rng.below(4) {
            clock_ms += time::pause_ms(rng);
            let values = marks.values();
            let mut tables = stream.step(&program, rng);
            marks.advance(&mut tables).unwrap();
            if marks.late_rows() != stream.late_rows {
                return Err(format!("{} rows were late, should be {}\n{stream}", marks.late_rows(), stream.late_rows));
            }
            let [one, several, all] = &mut circuits;
            one.step_from(clock_ms, &tables, &values)?;
            several.step_from(clock_ms, &tables, &values)?;
            all.step_from(clock_ms, &tables, &[])?;
        }
        // One goes on as after a restart with another number of workers, and so do the watermarks.
        circuits[1].restart(&program, 1 + rng.below(4) as usize, rng.next());
        marks = Watermarks::new(&program.plan, &marks.marks());
        let answers = oracle.answers(&program, &[], &|table| stream.batch(table), clock_ms)?;
        for (circuit, told) in circuits.iter().zip([true, true, false]) {
            for (view, answer) in program.views.iter().zip(&answers) {
                oracle::compare(&view.schema, circuit.view(&view.name), answer).map_err(|e| {
                    let (workers, told) = (circuit.workers, if told { "" } else { ", without watermarks" });
                    format!("view {}, {workers} worker(s){told}, after phase {phase}: {e}\n{stream}", view.name)
                })?;
            }
        }
    }
    let [one, _, all] = &mut circuits;
    Ok(State { freed: one.state_rows(), kept: all.state_rows() })
}

#[test]
fn random_programs_with_lateness() {
    let (mut programs, mut smaller, mut freed, mut kept) = (0_usize, 0_usize, 0, 0);
    let make = |rng: &mut Rng| {
        let tables = stream::create(rng);
        let sql = with_views(rng, tables, queries::query)?;
        Ok(if rng.once_in(4) { skipping(&sql) } else { sql })
    };
    run_all(make, |sql, oracle, rng| {
        let state = run(sql, oracle, rng)?;
        programs += 1;
        smaller += usize::from(state.freed < state.kept);
        freed += state.freed;
        kept += state.kept;
        match state.freed <= state.kept {
            true => Ok(()),
            false => Err(format!("{} rows of state with watermarks, {} without", state.freed, state.kept)),
        }
    });
    println!("watermarks freed state of {smaller} of {programs} programs: {freed} rows were left of {kept}");
    // One seed may be one whose views free nothing.
    assert!(programs < 50 || smaller * 2 > programs, "state of {smaller} of {programs} programs was freed");
}
