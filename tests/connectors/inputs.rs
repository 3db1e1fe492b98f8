//! The checks of inputs.

use std::time::{Duration, Instant};

use backstay::connector::{Chunk, Descriptor, Input, Level, Next, Position, Range};

use crate::rng::Rng;

const PATIENCE: Duration = Duration::from_secs(30);

/// An input to be checked.
pub(super) struct Case<'a> {
    pub(super) name: &'a str,
    /// A new instance over the same source.
    pub(super) make: &'a dyn Fn() -> Box<dyn Input>,
    /// How many rows there are.
    pub(super) rows: usize,
    /// Makes another source of it, if that is to be noticed.
    pub(super) change: Option<&'a dyn Fn()>,
}

/// A row as text: where it ends, its weight, its values.
type Row = (String, u64, i64, String);

fn rows(chunks: &[Chunk]) -> Vec<Row> {
    let mut all = Vec::new();
    for chunk in chunks {
        let options = arrow::util::display::FormatOptions::default().with_null("NULL");
        let values = |row: usize| {
            let columns = chunk.rows.columns().iter();
            let texts = columns
                .map(|c| arrow::util::display::ArrayFormatter::try_new(c, &options).unwrap().value(row).to_string());
            texts.collect::<Vec<_>>().join(",")
        };
        for (row, end) in chunk.ends.iter().enumerate() {
            let weight = chunk.weights.as_ref().map_or(1, |w| w[row]);
            all.push((chunk.partition.to_string(), *end, weight, values(row)));
        }
    }
    all.sort();
    all
}

/// Reads until there are so many rows, from a position on.
fn read(case: &Case<'_>, position: &Position, wanted: usize) -> Vec<Chunk> {
    let input = (case.make)();
    let mut reader = input.open(position).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let mut chunks: Vec<Chunk> = Vec::new();
    let end = Instant::now() + PATIENCE;
    let mut found = 0;
    while found < wanted || input.is_finite() {
        match reader.next() {
            Ok(Next::Chunk(chunk)) => {
                found += chunk.rows.num_rows();
                chunks.push(chunk);
            }
            Ok(Next::End) => break,
            Ok(Next::Idle) => std::thread::sleep(Duration::from_millis(10)),
            Err(e) => assert!(e.retry && Instant::now() < end, "{}: {e}", case.name),
        }
        assert!(Instant::now() < end, "{}: only {found} of {wanted} rows came", case.name);
    }
    assert_eq!(found, wanted, "{}", case.name);
    chunks
}

/// Cuts as the pipeline does: behind any row, rows that end together staying together.
fn cut(chunks: &[Chunk], random: &mut Rng) -> Vec<Descriptor> {
    let mut steps: Vec<Descriptor> = vec![Descriptor::default()];
    for chunk in chunks {
        let mut start = chunk.start;
        let mut ends: Vec<u64> = chunk.ends.iter().copied().filter(|_| random.once_in(20)).collect();
        ends.retain(|end| *end < chunk.end);
        ends.push(chunk.end);
        ends.dedup();
        for end in ends {
            let (partition, identity) = (chunk.partition.to_string(), chunk.identity.at(end));
            let step = steps.last_mut().unwrap();
            match step.ranges.last_mut() {
                Some(last) if last.partition == partition && last.end == start => {
                    (last.end, last.identity) = (end, identity);
                }
                _ => step.ranges.push(Range { partition, start, end, identity }),
            }
            start = end;
            if random.once_in(2) {
                steps.push(Descriptor::default());
            }
        }
    }
    steps.retain(|step| !step.ranges.is_empty());
    steps
}

pub(super) fn check(case: &Case<'_>, random: &mut Rng) {
    let name = case.name;
    let chunks = read(case, &Position::default(), case.rows);
    let mut ends: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    for chunk in &chunks {
        assert_eq!(chunk.rows.num_rows(), chunk.ends.len(), "{name}");
        assert!(chunk.weights.as_ref().is_none_or(|w| w.len() == chunk.ends.len()), "{name}");
        assert!(chunk.ends.is_sorted() && chunk.ends.last().is_none_or(|end| *end <= chunk.end), "{name}");
        assert!(chunk.ends.first().is_none_or(|end| *end > chunk.start), "{name}");
        let before = ends.insert(chunk.partition.to_string(), chunk.end);
        assert!(before.is_none_or(|end| end == chunk.start), "{name}: the chunks of a partition leave something out");
    }
    let all = rows(&chunks);
    assert_eq!((case.make)().level(), Level::ExactlyOnce, "{name}: another level has other checks");
    let steps = cut(&chunks, random);
    assert!(steps.len() > 2, "{name}: too few steps to check anything");

    let mut position = Position::default();
    let mut so_far = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        let again = (case.make)().replay(step).unwrap_or_else(|e| panic!("{name}, step {i}: {e}"));
        for range in &step.ranges {
            let mut of_range = again
                .iter()
                .filter(|c| *c.partition == *range.partition && c.start >= range.start && c.end <= range.end);
            let last = of_range.next_back().unwrap_or_else(|| panic!("{name}, step {i}: nothing of {range:?}"));
            assert_eq!((last.end, last.identity.at(last.end)), (range.end, range.identity.clone()), "{name}, step {i}");
        }
        so_far.extend(rows(&again));
        position.apply(step);
        // Reading on is slow with servers.
        if i == 0 || i + 1 == steps.len() || random.once_in(steps.len() as u64 / 4 + 1) {
            let rest = rows(&read(case, &position, all.len() - so_far.len()));
            let mut whole: Vec<Row> = so_far.iter().cloned().chain(rest).collect();
            whole.sort();
            assert!(whole == all, "{name}: behind step {i} other rows come");
        }
    }
    so_far.sort();
    assert!(so_far == all, "{name}: the steps replayed are other rows");

    if let Some(change) = case.change {
        change();
        let input = (case.make)();
        let replayed =
            input.replay(&steps[0]).err().unwrap_or_else(|| panic!("{name}: a replay of what changed is not refused"));
        assert!(!replayed.retry && !replayed.message.is_empty(), "{name}: {replayed}");
        let mut reader = match input.open(&position) {
            Err(e) => return assert!(!e.retry, "{name}: {e}"),
            Ok(reader) => reader,
        };
        let end = Instant::now() + PATIENCE;
        loop {
            match reader.next() {
                Err(e) if !e.retry => return,
                Ok(Next::End) => panic!("{name}: it is read on behind what changed"),
                _ => assert!(Instant::now() < end, "{name}: what changed is not noticed"),
            }
        }
    }
}
