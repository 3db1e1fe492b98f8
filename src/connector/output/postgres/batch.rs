//! Rows on their way: the changes of whole steps, gathered for one transaction.
//!
//! By key, several steps become the one change that they are together; a log of changes keeps them all. Rows are lines of PostgreSQL's
//! text format, put together from the columns' texts.
//!
//! Invariants:
//! 1. A step is in a batch whole, or not at all.
//! 2. By key: what a batch does to a key depends on whether its row was there before the batch and whether it is there after it. A view with two rows of
//!    one key has no such change: an error, that names the key.

use hashbrown::HashMap;

use super::rows::Rows;

/// One transaction's changes.
#[derive(Debug, Default)]
pub(super) struct Batch {
    changes: Changes,
    bytes: u64,
    rows: u64,
}

#[derive(Debug)]
enum Changes {
    /// The net change of each key, in the order in which keys first came.
    ByKey { keys: HashMap<String, usize>, nets: Vec<Net> },
    /// Lines.
    Log(Vec<String>),
}

impl Default for Changes {
    fn default() -> Self {
        Self::Log(Vec::new())
    }
}

/// What happens to a key.
#[derive(Debug)]
struct Net {
    before: bool,
    after: bool,
    /// The row after it, or the last one that was deleted.
    row: String,
}

/// What a change is called, in the stage and in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Op {
    Delete,
    Update,
    Insert,
}

impl Op {
    pub(super) fn letter(self) -> char {
        match self {
            Self::Delete => 'd',
            Self::Update => 'u',
            Self::Insert => 'i',
        }
    }
}

/// What one step does to a key: the rows (by number) that go and come.
#[derive(Clone, Copy, Debug, Default)]
struct Change {
    gone: Option<usize>,
    come: Option<usize>,
}

/// Lines are handed to the server in pieces of about this size, each applied by statements of its own, so that none of them takes long.
const PIECE: usize = 4 << 20;

impl Batch {
    pub(super) fn by_key() -> Self {
        Self { changes: Changes::ByKey { keys: HashMap::new(), nets: Vec::new() }, bytes: 0, rows: 0 }
    }

    pub(super) fn log() -> Self {
        Self::default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn clear(&mut self) {
        match &mut self.changes {
            Changes::ByKey { keys, nets } => {
                keys.clear();
                nets.clear();
            }
            Changes::Log(lines) => lines.clear(),
        }
        (self.bytes, self.rows) = (0, 0);
    }

    /// Takes a step in. `Err`: what is wrong with which key; nothing was taken in.
    pub(super) fn add(&mut self, step: u64, rows: &Rows, weights: &[i64]) -> Result<(), String> {
        let changes = if rows.has_key() { Some(by_key(rows, weights)?) } else { None };
        match &mut self.changes {
            Changes::ByKey { keys, nets } => {
                let changes = changes.unwrap_or_default();
                for (key, change) in &changes {
                    let known = keys.get(key).and_then(|&i| nets.get(i));
                    if known.is_some_and(|net| net.after != change.gone.is_some()) {
                        return Err(two_rows(rows, change));
                    }
                }
                for (key, change) in changes {
                    let Some(row) = change.come.or(change.gone).map(|row| rows.row(row)) else { continue };
                    self.bytes += (row.len() + key.len()) as u64;
                    self.rows += 1;
                    let after = change.come.is_some();
                    match keys.get(&key).and_then(|&i| nets.get_mut(i)) {
                        Some(net) => (net.after, net.row) = (after, row),
                        None => {
                            keys.insert(key, nets.len());
                            nets.push(Net { before: change.gone.is_some(), after, row });
                        }
                    }
                }
            }
            Changes::Log(lines) => {
                let mut push = |op: Op, row: usize| {
                    let line = format!("{}\t{step}\t{}\n", op.letter(), rows.row(row));
                    self.bytes += line.len() as u64;
                    self.rows += 1;
                    lines.push(line);
                };
                for (_, change) in changes.iter().flatten() {
                    match change {
                        Change { gone: Some(_), come: Some(row) } => push(Op::Update, *row),
                        Change { gone: Some(row), come: None } => push(Op::Delete, *row),
                        Change { gone: None, come: Some(row) } => push(Op::Insert, *row),
                        Change { gone: None, come: None } => {}
                    }
                }
                if changes.is_none() {
                    for (row, weight) in weights.iter().enumerate() {
                        let op = if *weight > 0 { Op::Insert } else { Op::Delete };
                        (0..weight.unsigned_abs()).for_each(|_| push(op, row));
                    }
                }
            }
        }
        Ok(())
    }

    /// The lines to copy, in pieces, with the changes that each of them holds: deletes before updates before inserts, so that what one of them makes
    /// room for (under another unique constraint of the table's) is there for the next.
    pub(super) fn pieces(&self) -> Vec<(String, Vec<Op>)> {
        let mut pieces: Vec<(String, Vec<Op>)> = Vec::new();
        let mut put = |op: Op, line: &dyn Fn(&mut String), len: usize| {
            if pieces.last().is_none_or(|(lines, _)| lines.len() + len > PIECE) {
                pieces.push((String::new(), Vec::new()));
            }
            if let Some((lines, ops)) = pieces.last_mut() {
                line(lines);
                if ops.last() != Some(&op) {
                    ops.push(op);
                }
            }
        };
        match &self.changes {
            Changes::Log(log) => log.iter().for_each(|line| put(Op::Insert, &|out| out.push_str(line), line.len())),
            Changes::ByKey { nets, .. } => {
                for op in [Op::Delete, Op::Update, Op::Insert] {
                    for net in nets.iter().filter(|net| net.op() == Some(op)) {
                        let line = |out: &mut String| {
                            out.push(op.letter());
                            out.push('\t');
                            out.push_str(&net.row);
                            out.push('\n');
                        };
                        put(op, &line, net.row.len() + 3);
                    }
                }
            }
        }
        pieces
    }
}

impl Net {
    fn op(&self) -> Option<Op> {
        match (self.before, self.after) {
            (true, true) => Some(Op::Update),
            (true, false) => Some(Op::Delete),
            (false, true) => Some(Op::Insert),
            (false, false) => None,
        }
    }
}

/// The step's change to each key, in the order of the keys' first rows.
fn by_key(rows: &Rows, weights: &[i64]) -> Result<Vec<(String, Change)>, String> {
    let mut places: HashMap<String, usize> = HashMap::with_capacity(weights.len());
    let mut changes: Vec<(String, Change)> = Vec::with_capacity(weights.len());
    for (row, &weight) in weights.iter().enumerate() {
        let key = rows.key(row)?;
        let place = match places.get(&key) {
            Some(&place) => place,
            None => {
                places.insert(key.clone(), changes.len());
                changes.push((key, Change::default()));
                changes.len() - 1
            }
        };
        let Some((_, change)) = changes.get_mut(place) else { continue };
        let side = if weight > 0 { &mut change.come } else { &mut change.gone };
        if weight.abs() != 1 || side.replace(row).is_some() {
            return Err(two_rows(rows, &Change { gone: None, come: Some(row) }));
        }
    }
    Ok(changes)
}

fn two_rows(rows: &Rows, change: &Change) -> String {
    let key = change.come.or(change.gone).map(|row| rows.name_key(row)).unwrap_or_default();
    format!(
        "the view has two rows of the key {key}, and the table can hold one only; choose \"key\" columns that are unique in the \
         view, or \"mode\": \"cdc\""
    )
}
