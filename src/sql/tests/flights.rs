//! A program of the size that people write: five tables of real data, joins of all of them.

use std::collections::BTreeMap;

use super::{compile, compiled};

const TABLES: &str = r#"
CREATE TABLE flights (
  year INT, month INT, day INT, dep_time INT, sched_dep_time INT, dep_delay INT, arr_time INT, sched_arr_time INT, arr_delay INT,
  carrier VARCHAR, flight INT, tailnum VARCHAR, origin VARCHAR, dest VARCHAR, air_time INT, distance INT, hour INT, minute INT,
  time_hour TIMESTAMP
) WITH ('connectors' = '[{
  "transport": {"name": "file_input", "config": {"path": "flights.csv.gz"}},
  "format": {"name": "csv", "config": {"null_values": ["NA"]}}
}]');
CREATE TABLE airlines (carrier VARCHAR NOT NULL PRIMARY KEY, name VARCHAR);
CREATE TABLE airports (faa VARCHAR PRIMARY KEY, name VARCHAR, lat DOUBLE, lon DOUBLE, alt INT, tz INT, dst VARCHAR, tzone VARCHAR);
CREATE TABLE planes (
  tailnum VARCHAR, year INT, type VARCHAR, manufacturer VARCHAR, model VARCHAR, engines INT, seats INT, speed INT, engine VARCHAR,
  PRIMARY KEY (tailnum)
);
CREATE TABLE weather (
  origin VARCHAR, year INT, month INT, day INT, hour INT, temp DOUBLE, dewp DOUBLE, humid DOUBLE, wind_dir INT, wind_speed DOUBLE,
  wind_gust DOUBLE, precip DOUBLE, pressure DOUBLE, visib DOUBLE, time_hour TIMESTAMP
);
"#;

const VIEWS: &str = "
CREATE VIEW delays_by_carrier AS
  SELECT a.name, f.month, count(*) AS flights, avg(f.dep_delay) AS dep_delay, max(f.arr_delay) AS worst
  FROM flights f JOIN airlines a ON f.carrier = a.carrier GROUP BY a.name, f.month;
CREATE VIEW routes AS
  SELECT o.name AS origin, d.name AS dest, count(*) AS flights, sum(CASE WHEN f.arr_delay > 60 THEN 1 ELSE 0 END) AS late
  FROM flights f, airports o, airports d WHERE f.origin = o.faa AND f.dest = d.faa GROUP BY o.name, d.name;
CREATE VIEW worst_routes AS SELECT * FROM routes WHERE late * 10 > flights;
CREATE VIEW wind AS
  SELECT round(w.wind_speed / 5) * 5 AS wind, avg(f.dep_delay) AS delay, count(*) AS flights
  FROM flights f JOIN weather w ON f.origin = w.origin AND f.time_hour = w.time_hour GROUP BY round(w.wind_speed / 5) * 5;
CREATE VIEW fleet_age AS
  SELECT p.manufacturer, f.year - p.year AS age, avg(f.arr_delay) AS delay
  FROM flights f JOIN planes p ON f.tailnum = p.tailnum WHERE p.year IS NOT NULL GROUP BY p.manufacturer, f.year - p.year;
CREATE MATERIALIZED VIEW busiest AS
  SELECT carrier, max(flights) AS flights
  FROM (SELECT carrier, time_hour, count(*) AS flights FROM flights GROUP BY carrier, time_hour) h GROUP BY carrier;
";

const SHAPE: &str = "0 = table() -- table flights
1 = table() key [0] -- table airlines
2 = table() key [0] -- table airports
3 = table() key [0] -- table planes
4 = table() -- table weather
5 = linear(0) project [month@1, dep_delay@5, arr_delay@8, carrier@9] -- delays_by_carrier: project
6 = join(5, 1) on [3] = [0] -- delays_by_carrier: join
7 = linear(6) project [name@5, month@0, CAST(dep_delay@1 AS Float64), arr_delay@2] -- delays_by_carrier: project
8 = aggregate(7) by [0, 1] [count(*), avg(2), max(3)] -- delays_by_carrier: group by
9 = linear(0) project [arr_delay@8, origin@12, dest@13] -- routes: project
10 = linear(2) project [faa@0, name@1] -- routes: project
11 = join(9, 10) on [1] = [0] -- routes: join
12 = linear(11) project [arr_delay@0, dest@2, name@4] -- routes: project
13 = join(12, 10) on [1] = [0] -- routes: join
14 = linear(13) project [name@2, name@4, CASE WHEN arr_delay@0 > 60 THEN 1 ELSE 0 END] -- routes: project
15 = aggregate(14) by [0, 1] [count(*), sum(2)] -- routes: group by
16 = linear(15) filter late@3 * 10 > flights@2 -- worst_routes: filter
17 = linear(0) project [dep_delay@5, origin@12, time_hour@18] -- wind: project
18 = linear(4) project [origin@0, wind_speed@9, time_hour@14] -- wind: project
19 = join(17, 18) on [1, 2] = [0, 2] -- wind: join
20 = linear(19) project [round(wind_speed@4 / 5) * 5, CAST(dep_delay@0 AS Float64)] -- wind: project
21 = aggregate(20) by [0] [avg(1), count(*)] -- wind: group by
22 = linear(0) project [year@0, arr_delay@8, tailnum@11] -- fleet_age: project
23 = linear(3) project [tailnum@0, year@1, manufacturer@3] filter year@1 IS NOT NULL -- fleet_age: filter and project
24 = join(22, 23) on [2] = [0] -- fleet_age: join
25 = linear(24) project [manufacturer@5, year@0 - year@4, CAST(arr_delay@1 AS Float64)] -- fleet_age: project
26 = aggregate(25) by [0, 1] [avg(2)] -- fleet_age: group by
27 = linear(0) project [carrier@9, time_hour@18] -- busiest: project
28 = aggregate(27) by [0, 1] [count(*)] -- busiest: group by
29 = linear(28) project [carrier@0, count(Int64(1))@2] -- busiest: project
30 = aggregate(29) by [0] [max(1)] -- busiest: group by
31 = materialize(30) -- busiest: materialize
table flights = 0
table airlines = 1
table airports = 2
table planes = 3
table weather = 4
view delays_by_carrier = 8
view routes = 15
view worst_routes = 16
view wind = 21
view fleet_age = 26
view busiest = 30
the rows that table airlines keeps are read by 6
the rows that table airports keeps are read by 11, 13";

#[test]
fn the_plan() {
    let plan = compiled(&format!("{TABLES}{VIEWS}"));
    // Schemas stand in the other tests; here the shape is to be seen.
    let shape: Vec<String> = plan
        .lines()
        .map(|line| match (line.split_once(" -> "), line.split_once("  -- ")) {
            (Some((operator, _)), Some((_, label))) => format!("{operator} -- {label}"),
            _ => line.to_owned(),
        })
        .collect();
    assert_eq!(shape.join("\n"), SHAPE);
}

#[test]
fn the_same_text_gives_the_same_plan() {
    let text = format!("{TABLES}{VIEWS}");
    let first = compile(&text, "p.sql").unwrap();
    for _ in 0..8 {
        let again = compile(&text, "p.sql").unwrap();
        assert_eq!(format!("{:?}", again.plan), format!("{:?}", first.plan));
        assert_eq!(again.fingerprint(), first.fingerprint());
    }
}

#[test]
fn identity_is_about_definitions_only() {
    let identity = |text: &str| compile(text, "p.sql").unwrap().state_identity();
    let text = format!("{TABLES}{VIEWS}");
    let first = identity(&text);
    assert_eq!(first["airlines"], r#"table ("carrier" Utf8 NOT NULL, "name" Utf8, PRIMARY KEY ("carrier"))"#);
    assert_eq!(
        first["worst_routes"],
        "view (\"origin\" Utf8, \"dest\" Utf8, \"flights\" Int64, \"late\" Int64) as SELECT * FROM routes WHERE late * 10 > flights"
    );
    assert_eq!(
        identity(&text.replace("flights.csv.gz", "elsewhere.csv").replace("CREATE VIEW", "-- why\nCREATE   VIEW")),
        first
    );
    let changed = identity(&text.replace("late * 10", "late * 9"));
    let differing: BTreeMap<_, _> = changed.iter().filter(|(name, text)| first[*name] != **text).collect();
    assert_eq!(differing.into_keys().collect::<Vec<_>>(), ["worst_routes"]);
}

#[test]
fn what_a_program_says_besides_the_plan() {
    let program = compile(&format!("{TABLES}{VIEWS}"), "p.sql").unwrap();
    let flights = program.table("flights").unwrap();
    assert_eq!(flights.connectors.len(), 1);
    assert_eq!(flights.connectors[0].transport.name, "file_input");
    assert_eq!((flights.place.line, flights.place.column), (2, 14));
    assert_eq!(program.table("planes").unwrap().primary_key, [0]);
    assert!(!program.table("planes").unwrap().schema.field(0).is_nullable());
    assert!(program.view("busiest").unwrap().materialized);
    assert!(!program.view("wind").unwrap().materialized);
    assert!(program.view("flights").is_none());
    for (view, node) in program.views.iter().zip(&program.plan.views) {
        assert_eq!(view.name, node.name);
        assert_eq!(view.schema, program.plan.nodes[node.node].schema, "{}", view.name);
    }
    for (id, node) in program.plan.nodes.iter().enumerate() {
        assert!(node.inputs.iter().all(|input| *input < id), "node {id} reads a later one");
    }
}
