//! What must be in the sinks when a pipeline has come to its end.
//!
//! | fault tolerance | cut | exactly-once sinks and files | at-least-once sinks |
//! |---|---|---|---|
//! | exactly_once | fixed | the reference's, byte for byte | the same, with repeats only |
//! | exactly_once | free | each step once, in order; the same in both; integrated, the reference's | the same, with repeats only |
//! | at_least_once | fixed | the reference's, with repeats only | the same |
//! | none | fixed | the last life's part: exactly the rows that were handed out to it, and before them, in order, what a graceful stop had left pending | the same |

use std::collections::{BTreeMap, BTreeSet};

use backstay_storage::disk::sim::CrashPlan;

use super::game::Game;
use super::program::file;
use super::sink::Entry;
use super::world::World;
use backstay::connector::Level;

type Check = Result<(), String>;

/// Compares what stands in the sinks of `world` with those of the reference.
pub(super) fn compare(game: &Game, reference: &World, world: &World) -> Check {
    compare_after(game, reference, world, 0)
}

/// The same, where the sinks begin behind a step.
pub(super) fn compare_after(game: &Game, reference: &World, world: &World, step: u64) -> Check {
    if let Some(problem) = world.state().problems.first() {
        return Err(problem.clone());
    }
    for view in game.subject.views() {
        let at = |what: &str, e: String| format!("{view}.{what}: {e}");
        let entries = |world: &World, what: &str| world.state().sinks[&format!("{view}.{what}")].entries.clone();
        let (once, least) = (entries(world, "once"), entries(world, "least"));
        let mut expected = entries(reference, "once");
        expected.retain(|entry| entry.step > step);
        let written = written(world, view)?;
        match (game.model(), game.is_fixed()) {
            (Level::None, _) => {
                let after = |what: &str| world.state().sinks[&format!("{view}.{what}")].opened_after;
                last_life(world, &expected, &once, after("once")).map_err(|e| at("once", e))?;
                last_life(world, &expected, &least, after("least")).map_err(|e| at("least", e))?;
            }
            (Level::AtLeastOnce, _) => {
                repeats_only(&expected, &once).map_err(|e| at("once", e))?;
                repeats_only(&expected, &least).map_err(|e| at("least", e))?;
                let written = steps(&expected, &written).map_err(|e| at("file", e))?;
                repeats_only(&expected, &written).map_err(|e| at("file", e))?;
            }
            (Level::ExactlyOnce, fixed) => {
                if fixed {
                    same(&text(&expected), &text(&once)).map_err(|e| at("once", e))?;
                } else {
                    ascending(&once).map_err(|e| at("once", e))?;
                    let (expected, got) = match game.subject.is_timed {
                        true => (timed(reference, view, &expected)?, timed(world, view, &once)?),
                        false => (integrated(&expected), integrated(&once)),
                    };
                    same(&format!("{expected:#?}"), &format!("{got:#?}")).map_err(|e| at("once", e))?;
                }
                repeats_only(&once, &least).map_err(|e| at("least", e))?;
                same(&text(&once), &written).map_err(|e| at("file", e))?;
            }
        }
    }
    Ok(())
}

/// A view's file, as a loss of power leaves it.
fn written(world: &World, view: &str) -> Result<String, String> {
    let disk = world.state().disk.power_cycle(CrashPlan::KeepNone);
    let bytes = disk.read_file(file(view)).map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map_err(|e| e.to_string())
}

/// The steps in a file that holds nothing but whole ones of `expected`.
fn steps(expected: &[Entry], mut left: &str) -> Result<Vec<Entry>, String> {
    let mut found = Vec::new();
    while !left.is_empty() {
        let one = |entry: &&Entry| left.starts_with(&entry.text);
        let Some(entry) = expected.iter().find(one) else { return Err(format!("not a step: {left}")) };
        found.push(entry.clone());
        left = &left[entry.text.len()..];
    }
    Ok(found)
}

fn text(entries: &[Entry]) -> String {
    entries.iter().map(|e| e.text.as_str()).collect()
}

fn same(expected: &str, got: &str) -> Check {
    if expected == got {
        return Ok(());
    }
    let line = expected.lines().zip(got.lines()).take_while(|(a, b)| a == b).count();
    let (a, b) = (expected.lines().nth(line), got.lines().nth(line));
    Err(format!("line {}: expected {a:?}, got {b:?}\n--- expected\n{expected}\n--- got\n{got}", line + 1))
}

fn ascending(entries: &[Entry]) -> Check {
    match entries.windows(2).find(|pair| pair[0].step >= pair[1].step) {
        Some(pair) => Err(format!("step {} comes after step {}", pair[1].step, pair[0].step)),
        None => Ok(()),
    }
}

/// Every step of `expected` is there, for the first time in its order; what comes again is the same.
fn repeats_only(expected: &[Entry], got: &[Entry]) -> Check {
    let mut first = Vec::new();
    let mut seen: BTreeMap<u64, &str> = BTreeMap::new();
    for entry in got {
        match seen.insert(entry.step, &entry.text) {
            None => first.push(entry.clone()),
            Some(before) if before == entry.text => {}
            Some(before) => return Err(format!("step {} was {before:?}, then {:?}", entry.step, entry.text)),
        }
    }
    same(&text(expected), &text(&first))
}

/// What the changes add up to: lines without step and operation, with their weights.
fn integrated(entries: &[Entry]) -> BTreeMap<String, i64> {
    let mut rows = BTreeMap::new();
    for line in entries.iter().flat_map(|e| e.text.lines()) {
        let (weight, row) = match (line.split_once("\"insert\":"), line.split_once("\"delete\":")) {
            (Some((_, row)), _) => (1, row),
            (_, Some((_, row))) => (-1, row),
            _ => panic!("not a change: {line}"),
        };
        *rows.entry(row.to_owned()).or_insert(0) += weight;
    }
    rows.retain(|_, weight| *weight != 0);
    rows
}

/// The life that came to its end has delivered what it was handed, whole and once, and nothing that is not the reference's. What it
/// delivers of steps up to `opened_after`, the checkpoint that it went on from, an earlier life was handed.
fn last_life(world: &World, expected: &[Entry], got: &[Entry], opened_after: u64) -> Check {
    let state = world.state();
    let mut ids = BTreeSet::new();
    for (name, source) in &state.sources {
        for (p, partition) in source.partitions.iter().enumerate() {
            // What can be read again is read again from the checkpoint on, which is not looked at here.
            let from = if source.level == Level::None { source.read_before[p] } else { return Ok(()) };
            let rows = partition.at.iter().skip(from as usize).flatten();
            let column = partition.rows.column_by_name("id").ok_or_else(|| format!("{name} has no ids"))?;
            let column = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(column);
            ids.extend(rows.map(|row| column.value(*row)));
        }
    }
    let of_ids = |rows: BTreeMap<String, i64>| -> BTreeMap<String, i64> {
        rows.into_iter().filter(|(row, _)| ids.contains(&id_of(row))).collect()
    };
    let all = integrated(expected);
    let mut last: Vec<Entry> = got.iter().filter(|e| e.life == state.life).cloned().collect();
    // A sink that took a step and said that it was busy was sent it again.
    last.dedup();
    if let Some((row, _)) = integrated(got).iter().find(|(row, _)| !all.contains_key(*row)) {
        return Err(format!("{row} is not a row of the source's"));
    }
    let (pending, own): (Vec<Entry>, Vec<Entry>) = last.into_iter().partition(|e| e.step <= opened_after);
    ascending(&pending)?;
    if let Some((row, _)) = integrated(&pending).iter().find(|(row, _)| ids.contains(&id_of(row))) {
        return Err(format!("{row} was handed to this life, and delivered as one of steps up to {opened_after}"));
    }
    same(&format!("{:#?}", of_ids(all)), &format!("{:#?}", integrated(&own)))
}

/// The id in a line, which is its first column.
fn id_of(row: &str) -> i64 {
    let digits = row.trim_start_matches("{\"id\":");
    digits.split([',', '}']).next().and_then(|d| d.parse().ok()).unwrap_or_else(|| panic!("no id: {row}"))
}

/// What a view of the timed program adds up to, apart from the time of its last step: the rows of `stamped`, which must all have the same
/// clock; of the others how they differ from what that clock makes of these.
fn timed(world: &World, view: &str, entries: &[Entry]) -> Result<BTreeMap<String, i64>, String> {
    let parse = |rows: BTreeMap<String, i64>| -> Vec<(serde_json::Value, i64)> {
        rows.into_iter().map(|(row, weight)| (serde_json::from_str(&row[..row.len() - 1]).unwrap(), weight)).collect()
    };
    let stamped = parse(integrated(&world.state().sinks["stamped.once"].entries));
    let clocks: BTreeSet<i64> = stamped.iter().filter_map(|(row, _)| row["at"].as_i64()).collect();
    if clocks.len() > 1 || stamped.iter().any(|(_, weight)| *weight < 0) {
        return Err(format!("rows of several steps' clocks: {stamped:?}"));
    }
    let Some(&clock) = clocks.first() else { return Ok(integrated(entries)) };
    let mut rows: BTreeMap<String, i64> = BTreeMap::new();
    let name = |row: &serde_json::Value| format!("{} {}", row["id"], row["v"]);
    let time = |row: &serde_json::Value| row["v"].as_i64().map(|v| (1_700_000_000 + v) * 1_000_000);
    for (row, weight) in &stamped {
        let is_there = match view {
            "come" => time(row).is_some_and(|t| t <= clock),
            "recent" => time(row).is_some_and(|t| t > clock - 2_000_000),
            _ => continue,
        };
        *rows.entry(name(row)).or_default() -= weight * i64::from(is_there);
    }
    for (row, weight) in parse(integrated(entries)) {
        *rows.entry(name(&row)).or_default() += weight;
    }
    rows.retain(|_, weight| *weight != 0);
    Ok(rows)
}
