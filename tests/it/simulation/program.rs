//! The SQL programs that are simulated, and the rows of their sources.
//!
//! Each view has three outputs: a simulated exactly-once sink, a simulated at-least-once one, and a file on the simulated disk.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;

use super::sink::SinkState;
use super::source::Partition;
use crate::rng::Rng;
use backstay::connector::config::Replay;
use backstay::sql::{Program, compile};

/// What the rows of a table are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Inserts only.
    Append,
    /// Inserts, and deletes of what stands before in the same partition.
    Change,
    /// Upserts and deletes by a key that no other partition has.
    Upsert,
}

/// A table: its columns, what its rows are like, its input connectors.
type Table = (&'static str, &'static str, Kind, &'static [&'static str]);
/// A view and its query.
type View = (&'static str, &'static str);

const PROGRAMS: &[(&[Table], &[View])] = &[
    // Filter and projection, with an expression that fails for some rows.
    (
        &[("t", "id BIGINT NOT NULL, g VARCHAR, v BIGINT", Kind::Append, &["a"])],
        &[
            ("doubled", "SELECT id, v * 2 AS w, upper(g) AS g FROM t WHERE v % 3 <> 0"),
            ("divided", "SELECT id, 60 / (v % 4) AS q FROM t"),
        ],
    ),
    // A join, and what stands on it.
    (
        &[
            ("t", "id BIGINT NOT NULL, g VARCHAR, v BIGINT", Kind::Change, &["a"]),
            ("u", "g VARCHAR, name VARCHAR, v BIGINT", Kind::Change, &["b"]),
        ],
        &[
            ("pairs", "SELECT t.id, t.g, u.name FROM t JOIN u ON t.g = u.g"),
            ("few", "SELECT name, count(*) AS n FROM pairs GROUP BY name HAVING count(*) < 9"),
        ],
    ),
    // Aggregates over a table that is read by two connectors.
    (
        &[("t", "id BIGINT NOT NULL, g VARCHAR, v BIGINT", Kind::Change, &["a", "b"])],
        &[
            ("groups", "SELECT g, count(*) AS n, sum(v) AS s, min(v) AS least, max(v) AS most FROM t GROUP BY g"),
            ("total", "SELECT count(*) AS n, avg(v) AS a FROM t"),
        ],
    ),
    // Upserts: the table itself, the extremes of its groups, and a join of the two.
    (
        &[("k", "id BIGINT NOT NULL PRIMARY KEY, g VARCHAR, v BIGINT", Kind::Upsert, &["a", "b"])],
        &[
            ("now_there", "SELECT id, g, v FROM k"),
            ("extremes", "SELECT g, min(v) AS least, max(v) AS most FROM k GROUP BY g"),
            ("greatest", "SELECT k.id, k.g FROM k JOIN extremes e ON k.g = e.g AND k.v = e.most"),
        ],
    ),
    // Operators that keep rows in an order.
    (
        &[
            ("t", "id BIGINT NOT NULL, g VARCHAR, v BIGINT", Kind::Change, &["a"]),
            ("u", "id BIGINT NOT NULL, g VARCHAR, v BIGINT", Kind::Change, &["b"]),
        ],
        &[
            (
                "sessions",
                "SELECT g, CAST(window_start AS BIGINT) AS s, CAST(window_end AS BIGINT) AS e, count(*) AS n FROM SESSION((SELECT g, \
                 CAST(to_timestamp_seconds(v) AS TIMESTAMP) AS ts FROM t), DESCRIPTOR(ts), DESCRIPTOR(g), INTERVAL '2 seconds') \
                 GROUP BY g, window_start, window_end",
            ),
            ("nearest", "SELECT t.id, u.id AS other FROM t LEFT ASOF JOIN u MATCH_CONDITION (t.v >= u.v) ON t.g = u.g"),
            (
                "first",
                "SELECT id, g FROM (SELECT *, row_number() OVER (PARTITION BY g ORDER BY v, id) AS n FROM t) WHERE n <= 2",
            ),
            (
                "rolling",
                "SELECT id, sum(v) OVER (PARTITION BY g ORDER BY v RANGE BETWEEN 2 PRECEDING AND CURRENT ROW) AS s FROM t",
            ),
            ("alone", "SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.g = t.g)"),
        ],
    ),
    // Joins that share arrangements: of a table with itself, of two views with one table, with an outer join among them,
    // and by a primary key.
    (
        &[
            ("t", "id BIGINT NOT NULL, g VARCHAR, v BIGINT", Kind::Change, &["a", "b"]),
            ("k", "id BIGINT NOT NULL PRIMARY KEY, g VARCHAR, v BIGINT", Kind::Upsert, &["c"]),
        ],
        &[
            ("twins", "SELECT x.id, y.id AS other FROM t x JOIN t y ON x.g = y.g AND x.id < y.id"),
            ("named", "SELECT t.id, k.id AS name FROM t JOIN k ON t.g = k.g"),
            ("sums", "SELECT k.id, t.v + k.v AS s FROM k LEFT JOIN t ON t.g = k.g"),
            ("keyed", "SELECT x.id, x.g, y.v FROM k x LEFT JOIN k y ON x.id = y.id AND y.v > 0"),
        ],
    ),
];

/// What changes when time passes: the rows with the clock, and two temporal filters over times around the beginning of the simulation.
const TIMED: (&[Table], &[View]) = (
    &[("t", "id BIGINT NOT NULL, g VARCHAR, v BIGINT", Kind::Change, &["a", "b"])],
    &[
        ("stamped", "SELECT id, v, CAST(now() AS BIGINT) AS at FROM t"),
        ("come", "SELECT id, v FROM t WHERE to_timestamp_seconds(1700000000 + v) <= now()"),
        ("recent", "SELECT id, v FROM t WHERE to_timestamp_seconds(1700000000 + v) > now() - INTERVAL '2' SECOND"),
    ],
);

/// What connectors' configurations say besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Plain,
    /// The last input starts after the first; few rows wait at inputs and outputs.
    Ordered,
    /// What the first input gave is logged: it can be gone on with, and not be read again.
    Logged,
}

const MANNERS: [Manner; 3] = [Manner::Plain, Manner::Ordered, Manner::Logged];

impl Manner {
    /// The keys of the input at a place among so many.
    fn input(self, place: usize, of: usize) -> &'static str {
        match self {
            Manner::Plain => "",
            Manner::Ordered if place == 0 => r#""labels": ["first"], "max_queued_records": 4, "#,
            Manner::Ordered if place + 1 == of => r#""start_after": "first", "max_batch_size": 3, "#,
            Manner::Logged if place == 0 => r#""replay": "bytes", "#,
            Manner::Ordered | Manner::Logged => "",
        }
    }

    fn output(self) -> &'static str {
        match self {
            Manner::Plain | Manner::Logged => "",
            Manner::Ordered => r#""max_queued_records": 5, "max_queued_bytes": 2000, "#,
        }
    }
}

/// Number of programs, in all manners.
pub(super) const COUNT: usize = PROGRAMS.len() * MANNERS.len();
/// The program whose views are rows of their table, one by one.
pub(super) const LINEAR: usize = 0;

/// A compiled program with what surrounds it.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) program: Arc<Program>,
    /// Whether its views depend on the clock, which differs between two lives.
    pub(super) is_timed: bool,
    tables: &'static [Table],
    views: &'static [View],
}

impl Subject {
    pub(super) fn new(number: usize) -> Self {
        Self::of(PROGRAMS[number % PROGRAMS.len()], MANNERS[number / PROGRAMS.len()])
    }

    /// The program whose views change when time passes.
    pub(super) fn timed() -> Self {
        Self { is_timed: true, ..Self::of(TIMED, Manner::Plain) }
    }

    fn of((tables, views): (&'static [Table], &'static [View]), manner: Manner) -> Self {
        let mut sql = String::new();
        let inputs = tables.iter().map(|(_, _, _, connectors)| connectors.len()).sum();
        let mut places = 0..;
        for (name, columns, _, connectors) in tables {
            let mut one = |c: &&str| {
                let more = manner.input(places.next().unwrap(), inputs);
                format!(r#"{{{more}"name": "{c}", "transport": {{"name": "sim_input"}}}}"#)
            };
            let connectors = connectors.iter().map(&mut one).collect::<Vec<_>>().join(", ");
            writeln!(sql, "CREATE TABLE {name} ({columns}) WITH ('connectors' = '[{connectors}]');").unwrap();
        }
        for (name, query) in views {
            let more = manner.output();
            let format = r#""format": {"name": "json", "config": {"include_step": true}}"#;
            writeln!(
                sql,
                r#"CREATE VIEW {name} WITH ('connectors' = '[{{{more}"name": "once", "transport": {{"name": "sim_once"}}}},
                {{{more}"name": "least", "transport": {{"name": "sim_least"}}}},
                {{"name": "file", "transport": {{"name": "file_output", "config": {{"path": "{}"}}}}, {format}}}]') AS {query};"#,
                file(name)
            )
            .unwrap();
        }
        let program = compile(&sql, "simulation.sql").unwrap_or_else(|e| panic!("{e:?}\n{sql}"));
        Self { program: Arc::new(program), tables, views, is_timed: false }
    }

    pub(super) fn views(&self) -> impl Iterator<Item = &'static str> {
        self.views.iter().map(|(name, _)| *name)
    }

    pub(super) fn sinks(&self) -> BTreeMap<String, SinkState> {
        let names = self.views().flat_map(|view| [format!("{view}.once"), format!("{view}.least")]);
        names.map(|name| (name, SinkState::default())).collect()
    }

    /// Whether the log has what this input gives.
    pub(super) fn is_logged(&self, input: &str) -> bool {
        self.program.inputs().iter().any(|(name, config)| name == input && config.replay == Replay::Bytes)
    }

    /// Every connector.
    pub(super) fn connectors(&self) -> Vec<String> {
        let inputs = self.program.inputs().into_iter().map(|(name, _)| name);
        let outputs = self.views().flat_map(|view| ["once", "least", "file"].map(|name| format!("{view}.{name}")));
        inputs.chain(outputs).collect()
    }

    /// The content of every source: by connector, its partitions.
    pub(super) fn sources(&self, rng: &mut Rng) -> BTreeMap<String, Arc<Vec<Partition>>> {
        let mut sources = BTreeMap::new();
        let mut first_id = 0;
        for ((name, _, kind, connectors), table) in self.tables.iter().zip(&self.program.tables) {
            for connector in *connectors {
                let partitions = 1 + rng.below(3);
                let partitions = (0..partitions).map(|_| {
                    first_id += 1000;
                    partition(*kind, &table.schema, first_id, rng)
                });
                sources.insert(format!("{name}.{connector}"), Arc::new(partitions.collect()));
            }
        }
        sources
    }
}

/// The file that a view is written to.
pub(super) fn file(view: &str) -> String {
    format!("/out/{view}.json")
}

/// `id`, and the other columns.
type Row = (i64, Option<String>, Option<String>, Option<i64>);

/// A partition's content: up to 24 offsets, the last of which is a row.
fn partition(kind: Kind, schema: &arrow::datatypes::SchemaRef, first_id: i64, rng: &mut Rng) -> Partition {
    let mut rows: Vec<Row> = Vec::new();
    let (mut weights, mut at, mut live) = (Vec::new(), Vec::new(), Vec::<usize>::new());
    let offsets = 1 + rng.below(24);
    for offset in 0..offsets {
        if rng.once_in(12) && offset + 1 < offsets {
            at.push(None);
            continue;
        }
        let word = |rng: &mut Rng, n| (!rng.once_in(9)).then(|| rng.one_of(&["a", "b", "c", "d", "e", "f", "g"][..n]));
        let (g, name) = (word(rng, 4).map(str::to_owned), word(rng, 7).map(str::to_owned));
        let v = (!rng.once_in(9)).then(|| rng.below(21) as i64 - 10);
        let row: Row = match kind {
            Kind::Upsert => (first_id + rng.below(6) as i64, g, name, v),
            _ => (first_id + offset as i64, g, name, v),
        };
        let delete = kind != Kind::Append && !live.is_empty() && rng.once_in(4);
        let row = if delete {
            let gone = live.swap_remove(rng.below(live.len() as u64) as usize);
            rows[gone].clone()
        } else {
            live.push(rows.len());
            row
        };
        at.push(Some(rows.len()));
        rows.push(row);
        weights.push(if delete { -1 } else { 1 });
    }
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match (field.name().as_str(), field.data_type()) {
            ("id", _) => Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
            ("g", _) => Arc::new(rows.iter().map(|r| r.1.as_deref()).collect::<StringArray>()),
            ("name", _) => Arc::new(rows.iter().map(|r| r.2.as_deref()).collect::<StringArray>()),
            ("v", DataType::Int64) => Arc::new(rows.iter().map(|r| r.3).collect::<Int64Array>()),
            other => panic!("no rows for the column {other:?}"),
        }
    });
    let rows = RecordBatch::try_new(Arc::clone(schema), columns.collect()).expect("the table's columns");
    Partition { rows, weights, at }
}
