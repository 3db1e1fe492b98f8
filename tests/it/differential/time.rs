//! Windows of time (TUMBLE, HOP, SESSION) and the clock. The oracle knows neither: it gets what windows stand for, made of `date_bin` and of window functions, and the
//! time itself for `now()`.

use std::fmt::Write;

use arrow::datatypes::{DataType, SchemaRef};

use super::expressions::{Kind, Scope};
use super::{check, check_as};
use crate::rng::Rng;

/// Slides and sizes, each a multiple of the one before.
const LENGTHS: [&str; 4] = ["30 minutes", "1 hour", "6 hours", "2 days"];
/// How many of the first go into the second.
fn times(slide: usize, size: usize) -> u64 {
    let minutes = [30, 60, 360, 2880];
    minutes[size] / minutes[slide]
}

/// A window function over a relation, if that has a time.
pub(super) fn windows(rng: &mut Rng, relation: &str, schema: &SchemaRef) -> Option<String> {
    let is_time = |f: &&arrow::datatypes::FieldRef| matches!(f.data_type(), DataType::Timestamp(_, None));
    let added = |f: &arrow::datatypes::FieldRef| f.name().starts_with("window_");
    let columns: Vec<&str> = schema.fields().iter().filter(is_time).map(|f| f.name().as_str()).collect();
    if columns.is_empty() || schema.fields().iter().any(added) {
        return None;
    }
    let column = rng.one_of(&columns);
    if rng.once_in(3) {
        let is_key = |f: &&arrow::datatypes::FieldRef| {
            matches!(f.data_type(), DataType::Utf8 | DataType::Int32 | DataType::Int64)
        };
        let keys: Vec<&str> = schema.fields().iter().filter(is_key).map(|f| f.name().as_str()).collect();
        let gap = LENGTHS[rng.below(4) as usize];
        let partition = match keys.is_empty() || rng.once_in(3) {
            true => String::new(),
            false => format!(" PARTITION BY {}", rng.one_of(&keys)),
        };
        return Some(format!("SESSION(TABLE {relation}{partition}, DESCRIPTOR({column}), INTERVAL '{gap}')"));
    }
    let size = rng.below(4) as usize;
    let slide = rng.below(size as u64 + 1) as usize;
    let slide = if times(slide, size) > 12 { size } else { slide };
    let offset = if rng.once_in(3) { ", INTERVAL '7 minutes'" } else { "" };
    Some(match slide == size {
        true => format!("TUMBLE(TABLE {relation}, DESCRIPTOR({column}), INTERVAL '{}'{offset})", LENGTHS[size]),
        false => format!(
            "HOP(TABLE {relation}, DESCRIPTOR({column}), INTERVAL '{}', INTERVAL '{}'{offset})",
            LENGTHS[slide], LENGTHS[size]
        ),
    })
}

/// The clock at the beginning: the first time that columns have.
pub(super) const START_MS: i64 = 19_800 * 86_400_000;

/// How much later the next step is.
pub(super) fn pause_ms(rng: &mut Rng) -> i64 {
    let quarter = 900_000;
    match rng.below(4) {
        0 => 0,
        1 => rng.below(3 * quarter) as i64,
        _ => (rng.below(70) * quarter) as i64,
    }
}

/// A comparison with the clock, if there is a time to compare.
pub(super) fn condition(rng: &mut Rng, scope: &Scope) -> Option<String> {
    let kind = rng.one_of(&[Kind::Timestamp, Kind::Timestamp, Kind::Date]);
    let column = scope.column(rng, kind)?;
    let operator = rng.one_of(&["<", "<=", "=", ">=", ">"]);
    let length = rng.one_of(&LENGTHS);
    Some(match (kind, rng.below(6)) {
        (Kind::Timestamp, 0) => format!("{column} {operator} now()"),
        (Kind::Timestamp, 1) => format!("now() - INTERVAL '{length}' {operator} {column}"),
        (Kind::Timestamp, 2) => format!("{column} + INTERVAL '{length}' {operator} now() - INTERVAL '1 hour'"),
        (Kind::Timestamp, 3) => {
            format!("{column} BETWEEN now() - INTERVAL '{length}' AND now() + INTERVAL '1 hour'")
        }
        (_, 4) => format!("{column} {operator} CURRENT_DATE"),
        _ => format!("CURRENT_DATE - INTERVAL '1 day' {operator} {column}"),
    })
}

/// The query without window functions, ASOF joins and clock.
pub(super) fn standard(sql: &str, clock_ms: i64) -> String {
    let now = format!("to_timestamp_millis({clock_ms})");
    let sql = sql.replace("now()", &now).replace("CURRENT_DATE", &format!("CAST({now} AS DATE)"));
    super::as_of::ranked(without_windows(&sql))
}

fn without_windows(sql: &str) -> String {
    let mut out = String::new();
    let mut rest = sql;
    while let Some(start) = ["TUMBLE(", "HOP(", "SESSION("].iter().filter_map(|name| rest.find(name)).min() {
        out.push_str(&rest[..start]);
        let open = start + rest[start..].find('(').unwrap();
        let (mut depth, mut from, mut close) = (0, open + 1, open);
        let mut arguments: Vec<&str> = Vec::new();
        for (i, c) in rest.char_indices().skip_while(|(i, _)| *i < open) {
            depth += i32::from(c == '(') - i32::from(c == ')');
            if depth == 0 || (depth == 1 && c == ',') {
                arguments.push(rest[from..i].trim());
                from = i + 1;
            }
            if depth == 0 {
                close = i;
                break;
            }
        }
        match &rest[start..open] {
            "SESSION" => out.push_str(&session(&arguments)),
            name => out.push_str(&derived(name == "HOP", &arguments)),
        }
        rest = &rest[close + 1..];
    }
    out + rest
}

/// Sessions by window functions. A parsed query has `partition_by(k)` for what was `PARTITION BY k`.
fn session(arguments: &[&str]) -> String {
    let inside = |argument: &str| argument.split_once('(').unwrap().1.trim_end_matches(')').to_owned();
    let [relation, rest @ ..] = arguments else { panic!("{arguments:?}") };
    let (partition, time, gap) = match rest {
        [time, gap] => (String::new(), inside(time), gap),
        [partition, time, gap] => (inside(partition), inside(time), gap),
        _ => panic!("{arguments:?}"),
    };
    let by = |more: &str| match [partition.as_str(), more].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>() {
        columns if columns.is_empty() => String::new(),
        columns => format!("PARTITION BY {}", columns.join(", ")),
    };
    let (key, session) = (by(""), by("s_"));
    format!(
        "(SELECT * EXCEPT (f_, s_), min({time}) OVER ({session}) AS window_start, max({time}) OVER ({session}) + {gap} AS window_end FROM \
         (SELECT *, sum(f_) OVER ({key} ORDER BY {time}) AS s_ FROM \
         (SELECT *, CASE WHEN {time} <= lag({time}) OVER ({key} ORDER BY {time}) + {gap} THEN 0 ELSE 1 END AS f_ \
         FROM {relation} WHERE {time} IS NOT NULL)))"
    )
}

fn derived(is_hop: bool, arguments: &[&str]) -> String {
    let (relation, numbers) = (arguments[0].trim_start_matches("TABLE "), &arguments[2..]);
    let column = arguments[1].trim_start_matches("DESCRIPTOR(").trim_end_matches(')');
    let (slide, size, offset) = match (is_hop, numbers) {
        (false, [size, rest @ ..]) => (*size, *size, rest.first()),
        (true, [slide, size, rest @ ..]) => (*slide, *size, rest.first()),
        _ => panic!("{arguments:?}"),
    };
    let origin = "TIMESTAMP '1970-01-01 00:00:00'";
    let origin = offset.map_or(origin.to_owned(), |o| format!("{origin} + {o}"));
    let place = |length: &str| LENGTHS.iter().position(|l| length.contains(&format!("'{l}'"))).unwrap();
    let mut sql = String::from("(");
    for back in 0..times(place(slide), place(size)) {
        if back > 0 {
            sql.push_str(" UNION ALL ");
        }
        let mut start = format!("date_bin({slide}, {column}, {origin})");
        (0..back).for_each(|_| write!(start, " - {slide}").unwrap());
        write!(
            sql,
            "SELECT *, {start} AS window_start, {start} + {size} AS window_end FROM {relation} WHERE {column} IS NOT NULL"
        )
        .unwrap();
    }
    sql + ")"
}

const TABLES: &str = "
CREATE TABLE t (a INT, b VARCHAR, ts TIMESTAMP);
CREATE TABLE k (id BIGINT PRIMARY KEY, a INT, at TIMESTAMP NOT NULL);
";

#[test]
fn tumble_and_hop() {
    for query in [
        "SELECT * FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1 hour')",
        "SELECT * FROM TUMBLE(TABLE k, DESCRIPTOR(at), INTERVAL '6 hours', INTERVAL '7 minutes') AS w WHERE w.a > 1",
        "SELECT window_start, window_end, count(*) AS n, sum(a) AS s FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '6 hours') \
         GROUP BY window_start, window_end",
        "SELECT window_end, b, max(a) AS m FROM HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '30 minutes', INTERVAL '6 hours') \
         GROUP BY window_end, b",
        "SELECT x.b, y.id, x.window_start FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '6 hours') AS x \
         JOIN HOP(TABLE k, DESCRIPTOR(at), INTERVAL '1 hour', INTERVAL '6 hours') AS y ON x.window_start = y.window_start",
    ] {
        for seed in 0..3 {
            check(&format!("{TABLES}CREATE VIEW v AS {query}"), seed);
        }
    }
}

#[test]
fn sessions() {
    for query in [
        "SELECT * FROM SESSION(TABLE t, DESCRIPTOR(ts), INTERVAL '6 hours')",
        "SELECT * FROM SESSION(TABLE t PARTITION BY b, DESCRIPTOR(ts), INTERVAL '6 hours')",
        "SELECT b, window_start, window_end, count(*) AS n, sum(a) AS s FROM SESSION(TABLE t PARTITION BY b, DESCRIPTOR(ts), INTERVAL '6 hours') \
         GROUP BY b, window_start, window_end",
        "SELECT s.b, s.window_end FROM SESSION(TABLE t PARTITION BY b, DESCRIPTOR(ts), INTERVAL '1 hour') AS s WHERE s.b = 'a' AND s.a > 1",
        "SELECT x.a, y.id FROM SESSION(TABLE t PARTITION BY a, DESCRIPTOR(ts), INTERVAL '30 minutes') AS x \
         JOIN SESSION(TABLE k PARTITION BY a, DESCRIPTOR(at), INTERVAL '1 hour') AS y ON x.a = y.a AND x.window_start < y.window_end",
    ] {
        for seed in 0..3 {
            check(&format!("{TABLES}CREATE VIEW v AS {query}"), seed);
        }
    }
}

#[test]
fn temporal_filters() {
    for query in [
        "SELECT a, ts FROM t WHERE ts <= now()",
        "SELECT a, b FROM t WHERE ts BETWEEN now() - INTERVAL '1 day' AND now() + INTERVAL '2 hours' AND a > 1",
        "SELECT id FROM k WHERE at + INTERVAL '6 hours' > now() AND at < now()",
        "SELECT count(*) AS n, max(a) AS m FROM t WHERE now() - ts < INTERVAL '10 hours'",
        "SELECT id, at FROM k WHERE CAST(at AS DATE) = CURRENT_DATE",
        "SELECT t.a, k.id FROM t JOIN k ON t.a = k.a WHERE t.ts > now() AND (k.at > now() OR t.ts > k.at)",
        "SELECT b, m FROM (SELECT b, max(ts) AS m FROM t GROUP BY b) WHERE m >= now() - INTERVAL '12 hours'",
    ] {
        for seed in 0..4 {
            check(&format!("{TABLES}CREATE VIEW v AS {query}"), seed);
        }
    }
}

/// DataFusion compares the days of intervals before their hours.
#[test]
fn ages_in_days() {
    for (query, reference) in [
        ("now() - ts < INTERVAL '1' DAY", "ts > now() - INTERVAL '1 day'"),
        ("now() - ts < INTERVAL '1' DAY OR a = 1", "ts > now() - INTERVAL '1 day' OR a = 1"),
        ("a > 1 AND INTERVAL '1 month' >= now() - ts", "a > 1 AND ts >= now() - INTERVAL '30 days'"),
    ] {
        let view = |condition: &str| format!("SELECT a, ts FROM t WHERE {condition}");
        for seed in 0..4 {
            check_as(&format!("{TABLES}CREATE VIEW v AS {}", view(query)), &[("v", &view(reference))], seed);
        }
    }
}

#[test]
fn the_clock_anywhere() {
    for query in [
        "SELECT a, now() AS n FROM t",
        "SELECT id, CASE WHEN at > now() THEN 'later' ELSE 'earlier' END AS c, CURRENT_DATE AS d FROM k",
        "SELECT at > now() AS x, count(*) AS n FROM k GROUP BY at > now()",
        "SELECT b FROM t WHERE ts > now() OR a = 1",
        "SELECT a FROM t WHERE ts >= CURRENT_DATE + INTERVAL '6 hours'",
        "SELECT sum(CASE WHEN ts > now() THEN a END) AS s FROM t",
    ] {
        for seed in 0..3 {
            check(&format!("{TABLES}CREATE VIEW v AS {query}"), seed);
        }
    }
}
