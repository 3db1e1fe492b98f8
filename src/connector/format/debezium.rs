//! Debezium's change events in JSON: `{"before": {…}, "after": {…}, "op": "c"}`, as it is or as the `payload` of an object with a `schema`.
//!
//! `op` `c` (create) and `r` (read, of a snapshot) insert `after`; `d` deletes `before`; `u` deletes `before` and inserts `after`. In a
//! table with a primary key an update is an upsert of `after`, and `before` matters only if its key is another one. Other keys (`source`,
//! `ts_ms`, …) are passed over. A message without a value, or with `null`, is the tombstone behind a delete, and is no row.
//!
//! Invariant: the rows of one event are in the batch together: they have one end, and one that does not parse takes the other with it.
//!
//! Limits: a `before` that has the key only (PostgreSQL's default REPLICA IDENTITY) deletes nothing from a table without a primary key that has
//! the whole row. `t` (TRUNCATE) and `m` (a message of PostgreSQL's log) are rows that do not parse.

use super::Parsed;
use super::cell::{Cells, Kind, finish};
use super::json::Json;
use super::scan::{Error, Scan};
use super::split::Record;
use crate::connector::Result;

/// What an event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Insert,
    Update,
    Delete,
}

/// Where the parts of an event stand in its text.
#[derive(Debug, Default)]
struct Event {
    /// `None`: not there, or null.
    before: Option<usize>,
    after: Option<usize>,
    op: Option<Op>,
    is_tombstone: bool,
}

impl Event {
    fn read(&mut self, scan: &mut Scan<'_>, is_payload: bool) -> Result<(), Error> {
        enum Part {
            Before,
            After,
            Op,
            Payload,
            Other,
        }
        scan.open(b'{', "a change event: {\"before\": …, \"after\": …, \"op\": …}")?;
        if scan.empty(b'}') {
            return Ok(());
        }
        loop {
            let key = scan.key()?;
            let part = match scan.text(&key) {
                b"before" => Part::Before,
                b"after" => Part::After,
                b"op" => Part::Op,
                b"payload" if !is_payload => Part::Payload,
                _ => Part::Other,
            };
            match part {
                Part::Payload if scan.null()? => self.is_tombstone = true,
                Part::Payload => self.read(scan, true)?,
                Part::Before => self.before = image(scan)?,
                Part::After => self.after = image(scan)?,
                Part::Op => {
                    let value = scan.value()?;
                    self.op = match scan.text(&value) {
                        b"c" | b"r" => Some(Op::Insert),
                        b"u" => Some(Op::Update),
                        b"d" => Some(Op::Delete),
                        other => {
                            let other = String::from_utf8_lossy(other).into_owned();
                            return Err(scan.error(format!("expected the \"op\" c, r, u or d, got \"{other}\"")));
                        }
                    };
                }
                Part::Other => {
                    scan.value()?;
                }
            }
            if !scan.more()? {
                return Ok(());
            }
        }
    }
}

/// Passes over a row, and gives its place.
fn image(scan: &mut Scan<'_>) -> Result<Option<usize>, Error> {
    let at = scan.position();
    let value = scan.value()?;
    Ok((value.kind != Kind::Null).then_some(at))
}

/// Parses records.
pub(super) fn parse(json: &Json, block: &[u8], base: u64, records: &[Record]) -> Result<Parsed> {
    let mut cells = Cells::new(block, json.schema.fields().len(), records.len() * 2);
    cells.is_json = true;
    cells.flavor = json.flavor;
    let mut arena = Vec::new();
    let mut rows: Vec<Record> = Vec::with_capacity(records.len());
    let mut weights: Vec<i64> = Vec::with_capacity(records.len());
    for record in records.iter().filter(|r| !r.absent) {
        let text = block.get(..record.text_end).unwrap_or_default();
        let mut scan = Scan::new(text, record.start, &mut arena);
        let row = rows.len();
        let made: &[i64] = match event(json, &mut scan, row, &mut cells) {
            Ok(made) => made,
            Err(e) => {
                cells.clear(row + 1);
                cells.mark(row, format!("not JSON as expected, at byte {}: {e}", e.at.saturating_sub(record.start)));
                &[1]
            }
        };
        for (i, weight) in made.iter().enumerate() {
            if *weight < 0 && !json.primary_key.is_empty() {
                json.fill(row + i, &mut cells);
            }
            rows.push(*record);
            weights.push(*weight);
        }
    }
    cells.truncate(rows.len());
    cells.arena = arena;
    let weights = weights.contains(&-1).then_some(weights);
    finish(&json.connector, cells, &json.schema, &[], base, &rows, weights)
}

/// Reads one event into the rows from `row` on; gives their weights.
fn event(json: &Json, scan: &mut Scan<'_>, row: usize, cells: &mut Cells<'_>) -> Result<&'static [i64], Error> {
    let mut event = Event::default();
    if scan.null()? {
        event.is_tombstone = true;
    } else {
        event.read(scan, false)?;
    }
    scan.end()?;
    if event.is_tombstone {
        return Ok(&[]);
    }
    let Some(op) = event.op else { return Err(scan.error("the event has no \"op\"")) };
    if json.append_only && op != Op::Insert {
        return Err(scan.error("an update or delete, but the table is append-only"));
    }
    let is_keyed = !json.primary_key.is_empty();
    let missing = |scan: &Scan<'_>| {
        scan.error(
            "\"before\" is missing or null, so that nothing says which row it was: let the database send whole old rows (PostgreSQL: REPLICA IDENTITY \
             FULL), or give the table a PRIMARY KEY",
        )
    };
    let after = |scan: &mut Scan<'_>, cells: &mut Cells<'_>, row: usize| {
        let at = event.after.ok_or_else(|| scan.error("\"after\" is missing or null"))?;
        scan.go_to(at);
        json.row(scan, row, cells)
    };
    match (op, event.before) {
        (Op::Insert, _) => {
            after(scan, cells, row)?;
            Ok(&[1])
        }
        (Op::Delete, Some(before)) => {
            scan.go_to(before);
            json.row(scan, row, cells)?;
            Ok(&[-1])
        }
        (Op::Update, Some(before)) => {
            scan.go_to(before);
            json.row(scan, row, cells)?;
            after(scan, cells, row + 1)?;
            if !is_keyed || json.primary_key.iter().any(|key| differs(scan, cells, *key, row)) {
                return Ok(&[-1, 1]);
            }
            cells.clear(row);
            cells.swap(row, row + 1);
            Ok(&[1])
        }
        (Op::Update, None) if is_keyed => {
            after(scan, cells, row)?;
            Ok(&[1])
        }
        (Op::Delete | Op::Update, None) => Err(missing(scan)),
    }
}

/// Whether a key's column says something else in `row` and in the next. What `before` does not have, has not changed.
fn differs(scan: &Scan<'_>, cells: &Cells<'_>, column: usize, row: usize) -> bool {
    let (before, after) = (cells.get(column, row), cells.get(column, row + 1));
    before.kind != Kind::Missing && scan.text(&before) != scan.text(&after)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use backstay_storage::disk::SimDisk;
    use serde_json::json;

    use super::*;
    use crate::connector::Context;
    use crate::connector::format::split::{Framing, split};
    use crate::connector::testing::{context, schema, text};

    fn parse_lines(ctx: &Context, config: &serde_json::Value, lines: &[&str]) -> Parsed {
        let json = Json::new(config, ctx).unwrap();
        let block = lines.join("\n");
        let mut records = Vec::new();
        split(block.as_bytes(), 0, Framing::Lines, true, usize::MAX, &mut records).unwrap();
        json.parse(block.as_bytes(), 0, &records).unwrap()
    }

    fn rows(parsed: &Parsed) -> Vec<(i64, String)> {
        let weight = |i: usize| parsed.weights.as_ref().map_or(1, |w| w[i]);
        (0..parsed.rows.num_rows()).map(|i| (weight(i), text(&parsed.rows.slice(i, 1)))).collect()
    }

    fn debezium() -> serde_json::Value {
        json!({"update_format": "debezium"})
    }

    const EVENTS: &[&str] = &[
        r#"{"schema": {"fields": []}, "payload": {"before": null, "after": {"id": 1, "name": "a"}, "source": {"x": [1]}, "op": "r", "ts_ms": 7}}"#,
        r#"{"op": "c", "after": {"id": 2, "name": "b\n"}}"#,
        r#"{"before": {"id": 1, "name": "a"}, "after": {"id": 1, "name": "c"}, "op": "u"}"#,
        "null",
        r#"{"before": {"id": 2, "name": "b\n"}, "after": {"id": 3, "name": "b"}, "op": "u"}"#,
        r#"{"payload": null}"#,
        r#"{"before": {"id": 3, "name": null}, "after": null, "op": "d"}"#,
    ];

    #[test]
    fn events_are_rows() {
        let mut ctx = context(Arc::new(SimDisk::new(1)), schema());
        let row = |weight, text: &str| (weight, format!("{text},NULL,NULL"));
        let parsed = parse_lines(&ctx, &debezium(), EVENTS);
        assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
        let expected = [(1, "1,a"), (1, "2,b\n"), (-1, "1,a"), (1, "1,c"), (-1, "2,b\n"), (1, "3,b"), (-1, "3,NULL")];
        assert_eq!(rows(&parsed), expected.map(|(w, t)| row(w, t)));
        assert_eq!(parsed.ends[2], parsed.ends[3]);

        // With a key an update is one row, unless it changes the key.
        ctx.primary_key = vec![0];
        let parsed = parse_lines(&ctx, &debezium(), EVENTS);
        let expected = [(1, "1,a"), (1, "2,b\n"), (1, "1,c"), (-1, "2,b\n"), (1, "3,b"), (-1, "3,NULL")];
        assert_eq!(rows(&parsed), expected.map(|(w, t)| row(w, t)));
        let parsed = parse_lines(&ctx, &debezium(), &[r#"{"op": "u", "before": null, "after": {"id": 1}}"#]);
        assert_eq!(rows(&parsed), [row(1, "1,NULL")]);
    }

    #[test]
    fn an_event_is_taken_whole_or_not_at_all() {
        let ctx = context(Arc::new(SimDisk::new(1)), schema());
        let wrong = [
            r#"{"op": "u", "before": {"id": 1}, "after": {"id": "x"}}"#,
            r#"{"op": "u", "before": {"id": 1}, "after": {"id": 2"#,
            r#"{"op": "u", "before": null, "after": {"id": 1}}"#,
            r#"{"op": "d", "before": null}"#,
            r#"{"op": "c", "before": {"id": 1}}"#,
            r#"{"op": "t"}"#,
            r#"{"after": {"id": 1}}"#,
            r#"[1]"#,
        ];
        let mut lines = wrong.to_vec();
        lines.push(r#"{"op": "c", "after": {"id": 9}}"#);
        let parsed = parse_lines(&ctx, &debezium(), &lines);
        assert_eq!(rows(&parsed), [(1, "9,NULL,NULL,NULL".to_owned())]);
        assert_eq!(parsed.errors.len(), wrong.len(), "{:?}", parsed.errors);
        let said: Vec<&str> = parsed.errors.iter().map(|e| e.message.as_str()).collect();
        assert!(said[0].contains("column id expected a BIGINT"), "{}", said[0]);
        assert!(said[2].contains("REPLICA IDENTITY FULL") && said[3].contains("PRIMARY KEY"), "{said:?}");
        assert!(said[4].contains("\"after\" is missing"), "{}", said[4]);
        assert!(said[5].contains("got \"t\"") && said[6].contains("no \"op\""), "{said:?}");
    }

    #[test]
    fn a_delete_by_key_needs_no_other_column() {
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("n", DataType::Int64, false)];
        let ctx = Context { primary_key: vec![0], ..context(Arc::new(SimDisk::new(1)), Arc::new(Schema::new(fields))) };
        let parsed = parse_lines(&ctx, &debezium(), &[r#"{"op": "d", "before": {"id": 4, "n": null}}"#]);
        assert_eq!(rows(&parsed), [(-1, "4,0".to_owned())]);
    }

    #[test]
    fn numbers_are_times_by_flavor() {
        let fields = vec![
            Field::new("d", DataType::Date32, true),
            Field::new("t", DataType::Time64(TimeUnit::Microsecond), true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ];
        let ctx = context(Arc::new(SimDisk::new(1)), Arc::new(Schema::new(fields)));
        let read = |flavor: &str, time: i64| {
            let event = json!({"op": "c", "after": {"d": 15706, "t": time, "at": 1_357_002_000_123_i64}}).to_string();
            parse_lines(&ctx, &json!({"update_format": "debezium", "json_flavor": flavor}), &[&event])
        };
        let expected = [(1, "2013-01-01,00:00:03.500,2013-01-01T01:00:00.123".to_owned())];
        assert_eq!(rows(&read("debezium_postgres", 3_500)), expected);
        assert_eq!(rows(&read("debezium_mysql", 3_500_000)), expected);
        assert_eq!(read("default", 0).errors.len(), 1);
        let strings =
            r#"{"op": "c", "after": {"d": "2013-01-01", "t": "00:00:03.5", "at": "2013-01-01T01:00:00.123Z"}}"#;
        let config = json!({"update_format": "debezium", "json_flavor": "debezium_mysql"});
        assert_eq!(rows(&parse_lines(&ctx, &config, &[strings])), expected);
        let e = Json::new(&json!({"json_flavor": "debezium_postgre"}), &ctx).unwrap_err().to_string();
        assert!(e.contains("did you mean \"debezium_postgres\"?"), "{e}");
    }
}
