//! Messages, as a user sees them.

use super::{compiled, view};

/// Before anything runs, not at the first row.
#[test]
fn units_of_date_trunc() {
    for unit in ["'decade'", "'milliseconds'", "NULL", "CAST(a AS VARCHAR)"] {
        let said = view(&format!("SELECT date_trunc({unit}, NOW()) FROM t"));
        assert!(said.contains("date_trunc does not know") && said.contains("quarter, year"), "{said}");
    }
    let said = view("SELECT date_trunc('month', CAST('12:00:00' AS TIME)) FROM t");
    assert!(said.contains("date_trunc does not know the unit month") && !said.contains("year"), "{said}");
}

#[test]
fn names_and_types() {
    assert_eq!(
        view("SELECT aa FROM t"),
        r"p.sql:2:25: error: there is no column `aa`
  CREATE VIEW v AS SELECT aa FROM t
                          ^^
  help: did you mean `a`?"
    );
    assert_eq!(
        view("SELECT t.a FROM t JOIN u ON t.a = u.aa"),
        r"p.sql:2:52: error: there is no column `u.aa`
  CREATE VIEW v AS SELECT t.a FROM t JOIN u ON t.a = u.aa
                                                     ^^^^
  help: did you mean `u.a`?"
    );
    assert_eq!(
        view("SELECT a FROM t JOIN u ON t.a = u.a"),
        r"p.sql:2:25: error: the column `a` is ambiguous
  CREATE VIEW v AS SELECT a FROM t JOIN u ON t.a = u.a
                          ^
  help: write it with its table: table.column"
    );
    assert_eq!(
        view("SELECT a FROM tt"),
        r"p.sql:2:32: error: there is no table or view `tt`
  CREATE VIEW v AS SELECT a FROM tt
                                 ^^
  help: did you mean `t`?"
    );
    assert_eq!(
        view("SELECT a FROM s.t"),
        r"p.sql:2:32: error: there is no table or view `s.t`
  CREATE VIEW v AS SELECT a FROM s.t
                                 ^^^
  help: there is only t, u"
    );
    assert_eq!(
        view("SELECT lenght(b) FROM t"),
        r"p.sql:2:25: error: there is no function `lenght`
  CREATE VIEW v AS SELECT lenght(b) FROM t
                          ^^^^^^
  help: did you mean `length`?"
    );
    assert_eq!(
        view("SELECT length(b, b) FROM t"),
        r"p.sql:2:25: error: there is no function character_length(Utf8, Utf8)
  CREATE VIEW v AS SELECT length(b, b) FROM t
                          ^^^^^^
  help: there is character_length(String); casts may be needed"
    );
    assert_eq!(
        view("SELECT sum(b) FROM t"),
        r"p.sql:2:25: error: there is no function sum(Utf8)
  CREATE VIEW v AS SELECT sum(b) FROM t
                          ^^^
  help: there is sum(Decimal) sum(UInt64) sum(Int64) sum(Float64) sum(Duration) sum(Interval); casts may be needed"
    );
    assert_eq!(
        view("SELECT b + ts FROM t"),
        r"p.sql:2:25: error: Cannot coerce arithmetic expression Utf8 + Timestamp(µs) to valid types
  CREATE VIEW v AS SELECT b + ts FROM t
                          ^^^^^^"
    );
    assert_eq!(
        view("SELECT b, sum(a) FROM t"),
        r"p.sql:2:25: error: 't.b' must appear in GROUP BY clause because it's not an aggregate expression
  CREATE VIEW v AS SELECT b, sum(a) FROM t
                          ^
  help: add it to GROUP BY, or use an aggregate such as MIN or MAX"
    );
    assert_eq!(
        view("SELECT NULL AS n FROM t"),
        r"p.sql:2:25: error: the view v: the column `n` is always NULL and has no type; write CAST(NULL AS type)
  CREATE VIEW v AS SELECT NULL AS n FROM t
                          ^^^^"
    );
    assert_eq!(
        view("SELECT a, a FROM t"),
        r"p.sql:2:28: error: a SELECT has the same column twice
  CREATE VIEW v AS SELECT a, a FROM t
                             ^
  help: give one another name: expression AS name"
    );
    assert_eq!(
        view("SELECT t.a, u.a FROM t JOIN u USING (a)"),
        r"p.sql:2:30: error: the view v has two columns `a`
  CREATE VIEW v AS SELECT t.a, u.a FROM t JOIN u USING (a)
                               ^^^
  help: give one another name: expression AS name"
    );
}

#[test]
fn joins() {
    assert_eq!(
        view("SELECT t.b FROM t JOIN u"),
        r"p.sql:2:36: error: a JOIN without ON or USING is not supported yet
  CREATE VIEW v AS SELECT t.b FROM t JOIN u
                                     ^^^^
  help: add ON left.column = right.column, or write CROSS JOIN"
    );
    assert_eq!(
        view("SELECT * FROM t LEFT JOIN u"),
        r"p.sql:2:39: error: a JOIN without ON or USING is not supported yet
  CREATE VIEW v AS SELECT * FROM t LEFT JOIN u
                                        ^^^^
  help: add ON left.column = right.column, or write CROSS JOIN"
    );
    assert_eq!(
        view("SELECT a FROM t FULL OUTER JOIN u USING (a)"),
        r"p.sql:2:34: error: RIGHT or FULL JOIN with USING or NATURAL is not supported yet
  CREATE VIEW v AS SELECT a FROM t FULL OUTER JOIN u USING (a)
                                   ^^^^
  help: write ON left.column = right.column, and COALESCE of both"
    );
}

#[test]
fn asof_joins() {
    let message = "ASOF JOIN takes MATCH_CONDITION (left.time >= right.time), also with >, <= or <, and equalities of both sides in ON";
    for (join, place) in [
        ("MATCH_CONDITION (t.a = u.a)", "t.a = u.a"),
        ("MATCH_CONDITION (t.a >= t.a) ON t.a = u.a", "t.a >= t.a"),
        ("MATCH_CONDITION (t.a >= 5)", "t.a >= 5"),
        ("MATCH_CONDITION (t.a >= u.a AND t.b > u.x)", "t.a >= u.a AND t.b > u.x"),
        ("MATCH_CONDITION (t.a >= u.a) ON t.b < u.x", "t.a >= u.a"),
        ("MATCH_CONDITION (t.a >= u.a) ON t.b = 'x'", "t.a >= u.a"),
    ] {
        for kind in ["ASOF JOIN", "LEFT ASOF JOIN"] {
            let sql = format!("SELECT t.a FROM t {kind} u {join}");
            let column = sql.find(place).unwrap() + 18;
            let got = view(&sql);
            assert!(got.starts_with(&format!("p.sql:2:{column}: error: {message}\n")), "{sql}\n{got}");
            assert!(got.ends_with(&format!(" {}", "^".repeat(place.len()))), "{sql}\n{got}");
        }
    }
    assert_eq!(
        view("SELECT t.a FROM t ASOF JOIN u MATCH_CONDITION (t.a >= u.a) USING (a)"),
        r"p.sql:2:36: error: ASOF JOIN with USING or NATURAL is not supported yet
  CREATE VIEW v AS SELECT t.a FROM t ASOF JOIN u MATCH_CONDITION (t.a >= u.a) USING (a)
                                     ^^^^
  help: write ON left.column = right.column"
    );
    assert!(view("SELECT a FROM t WHERE asof_match(a > 1)").contains("there is no function `asof_match`"));
    assert!(view("SELECT a FROM t ASOF JOIN u ON t.a = u.a").contains("expected MATCH_CONDITION"));
}

#[test]
fn sub_queries() {
    assert_eq!(
        view("SELECT a FROM t WHERE EXISTS (SELECT max(u.a) FROM u WHERE u.x = t.b)"),
        r"p.sql:2:48: error: EXISTS or IN over an aggregate without GROUP BY that reads columns of the query around it is not supported yet
  CREATE VIEW v AS SELECT a FROM t WHERE EXISTS (SELECT max(u.a) FROM u WHERE u.x = t.b)
                                                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  help: compare with the aggregate as a scalar sub-query instead"
    );
    assert_eq!(
        view("SELECT t.a FROM t LEFT JOIN u ON t.a = u.a AND EXISTS (SELECT 1 FROM u w WHERE w.a = t.a)"),
        r"p.sql:2:73: error: this sub-query cannot be turned into a join, and is not supported yet
  CREATE VIEW v AS SELECT t.a FROM t LEFT JOIN u ON t.a = u.a AND EXISTS (SELECT 1 FROM u w WHERE w.a = t.a)
                                                                          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  help: join with the sub-query in FROM instead"
    );
    let may_be_null = view("SELECT a, a IN (SELECT a FROM u) AS e FROM t");
    assert!(may_be_null.contains("error: this sub-query cannot be turned into a join"), "{may_be_null}");
    assert_eq!(
        view("SELECT sum((SELECT max(a) FROM u)) AS s FROM t"),
        r"p.sql:2:30: error: this sub-query cannot be turned into a join, and is not supported yet
  CREATE VIEW v AS SELECT sum((SELECT max(a) FROM u)) AS s FROM t
                               ^^^^^^^^^^^^^^^^^^^^
  help: join with the sub-query in FROM instead"
    );
    assert_eq!(
        view("SELECT a, (SELECT x FROM u WHERE u.a = t.a) AS m FROM t"),
        r"p.sql:2:29: error: Correlated scalar subquery must be aggregated to return at most one row
  CREATE VIEW v AS SELECT a, (SELECT x FROM u WHERE u.a = t.a) AS m FROM t
                              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"
    );
}

#[test]
fn queries() {
    assert_eq!(
        view("SELECT a FROM t LIMIT 3 BY a"),
        r"p.sql:2:42: error: LIMIT … BY is not supported yet
  CREATE VIEW v AS SELECT a FROM t LIMIT 3 BY a
                                           ^^
  help: number the rows: QUALIFY row_number() OVER (PARTITION BY …) <= n"
    );
    assert_eq!(
        view("SELECT a FROM t ORDER BY a FETCH FIRST 3 ROWS WITH TIES"),
        r"p.sql:2:45: error: FETCH with PERCENT or WITH TIES is not supported yet
  CREATE VIEW v AS SELECT a FROM t ORDER BY a FETCH FIRST 3 ROWS WITH TIES
                                              ^^^^^
  help: QUALIFY rank() OVER (…) <= n has the ties"
    );
    assert_eq!(
        view("SELECT a FROM t LIMIT -1"),
        r"p.sql:2:41: error: the view v: Error during planning: LIMIT must be >= 0, '-1' was provided
  CREATE VIEW v AS SELECT a FROM t LIMIT -1
                                          ^"
    );
    assert_eq!(
        view("WITH RECURSIVE r AS (SELECT a FROM t UNION ALL SELECT a + 1 FROM r) SELECT * FROM r"),
        r"p.sql:2:18: error: WITH RECURSIVE is not supported yet
  CREATE VIEW v AS WITH RECURSIVE r AS (SELECT a FROM t UNION ALL SELECT a + 1 FROM r) SELECT * FROM r
                   ^^^^"
    );
    assert_eq!(
        view("SELECT FROM t"),
        r"p.sql:2:18: error: a SELECT without columns is not supported yet
  CREATE VIEW v AS SELECT FROM t
                   ^^^^^^"
    );
    assert_eq!(
        view("SELECT * FROM generate_series(1, 3)"),
        r"p.sql:2:32: error: the table function generate_series is not supported yet
  CREATE VIEW v AS SELECT * FROM generate_series(1, 3)
                                 ^^^^^^^^^^^^^^^
  help: there are TUMBLE, HOP and SESSION"
    );
    assert_eq!(
        view("SELECT a FROM t WHERE a = $1"),
        r"p.sql:2:44: error: the parameter $1 is not supported yet
  CREATE VIEW v AS SELECT a FROM t WHERE a = $1
                                             ^^
  help: write the value itself"
    );
}

#[test]
fn functions() {
    assert_eq!(
        view("SELECT stddev(c) OVER (ORDER BY a) AS r FROM t"),
        r"p.sql:2:25: error: the window function STDDEV … OVER is not supported yet
  CREATE VIEW v AS SELECT stddev(c) OVER (ORDER BY a) AS r FROM t
                          ^^^^^^
  help: with OVER there are COUNT, SUM, AVG, MIN, MAX, ROW_NUMBER, RANK, DENSE_RANK, PERCENT_RANK, CUME_DIST, NTILE, LAG, LEAD, FIRST_VALUE, LAST_VALUE and NTH_VALUE"
    );
    assert_eq!(
        view("SELECT rank(), lag(a) FILTER (WHERE a > 1) OVER (ORDER BY a) AS r FROM t"),
        r"p.sql:2:25: error: the window function RANK without OVER is not supported yet
  CREATE VIEW v AS SELECT rank(), lag(a) FILTER (WHERE a > 1) OVER (ORDER BY a) AS r FROM t
                          ^^^^

p.sql:2:33: error: LAG(…) FILTER is not supported yet
  CREATE VIEW v AS SELECT rank(), lag(a) FILTER (WHERE a > 1) OVER (ORDER BY a) AS r FROM t
                                  ^^^
  help: FILTER stands behind aggregates only"
    );
    assert_eq!(
        view("SELECT sum(DISTINCT a) OVER (ORDER BY a) AS r FROM t"),
        r"p.sql:2:25: error: the view v: SUM(DISTINCT …) OVER is not supported yet
  CREATE VIEW v AS SELECT sum(DISTINCT a) OVER (ORDER BY a) AS r FROM t
                          ^^^"
    );
    assert_eq!(
        view("SELECT sum(a) OVER (ORDER BY b RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) AS r FROM t"),
        r"p.sql:2:25: error: the view v: RANGE with the distance 1 over an ORDER BY of Utf8 is not supported
  CREATE VIEW v AS SELECT sum(a) OVER (ORDER BY b RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) AS r FROM t
                          ^^^
  help: a distance is a number over numbers, and an INTERVAL over DATE and TIMESTAMP"
    );
    assert_eq!(
        view("SELECT lag(a, a) OVER (ORDER BY a) AS r FROM t"),
        r"p.sql:2:25: error: the view v: LAG takes a whole number, not `t.a`
  CREATE VIEW v AS SELECT lag(a, a) OVER (ORDER BY a) AS r FROM t
                          ^^^"
    );
    assert_eq!(
        view("SELECT length(DISTINCT b), upper(b) FILTER (WHERE b > 'x') FROM t"),
        r"p.sql:2:25: error: LENGTH(DISTINCT …) is not supported yet
  CREATE VIEW v AS SELECT length(DISTINCT b), upper(b) FILTER (WHERE b > 'x') FROM t
                          ^^^^^^
  help: DISTINCT stands in aggregates only

p.sql:2:45: error: UPPER(…) FILTER is not supported yet
  CREATE VIEW v AS SELECT length(DISTINCT b), upper(b) FILTER (WHERE b > 'x') FROM t
                                              ^^^^^
  help: FILTER stands behind aggregates only"
    );
    assert_eq!(
        view("SELECT approx_distinct(a), upper(b ORDER BY a) FROM t"),
        r"p.sql:2:25: error: the aggregate APPROX_DISTINCT is not supported yet
  CREATE VIEW v AS SELECT approx_distinct(a), upper(b ORDER BY a) FROM t
                          ^^^^^^^^^^^^^^^
  help: use COUNT(DISTINCT …), which is exact

p.sql:2:45: error: a clause inside UPPER(…), such as ORDER BY, is not supported yet
  CREATE VIEW v AS SELECT approx_distinct(a), upper(b ORDER BY a) FROM t
                                              ^^^^^"
    );
    assert_eq!(
        view("SELECT array_agg(DISTINCT b ORDER BY a) AS l FROM t"),
        r"p.sql:2:25: error: the view v: `array_agg(DISTINCT t.b) ORDER BY [t.a ASC NULLS LAST]`: with DISTINCT the values can only be ordered by themselves
  CREATE VIEW v AS SELECT array_agg(DISTINCT b ORDER BY a) AS l FROM t
                          ^^^^^^^^^
  help: order by the argument, or leave DISTINCT out"
    );
    assert_eq!(
        view("SELECT string_agg(b, x.b) AS l FROM t x"),
        r"p.sql:2:25: error: the view v: `string_agg(x.b, x.b)`: the delimiter must be a constant
  CREATE VIEW v AS SELECT string_agg(b, x.b) AS l FROM t x
                          ^^^^^^^^^^"
    );
    assert_eq!(
        view("SELECT random() AS r, uuid() AS u FROM t"),
        r"p.sql:2:25: error: RANDOM is not supported yet
  CREATE VIEW v AS SELECT random() AS r, uuid() AS u FROM t
                          ^^^^^^
  help: its result is another one at each call, so a view over it cannot be maintained

p.sql:2:40: error: UUID is not supported yet
  CREATE VIEW v AS SELECT random() AS r, uuid() AS u FROM t
                                         ^^^^
  help: its result is another one at each call, so a view over it cannot be maintained"
    );
    assert_eq!(
        view("SELECT current_time() AS x FROM t"),
        r"p.sql:2:25: error: CURRENT_TIME is not supported yet
  CREATE VIEW v AS SELECT current_time() AS x FROM t
                          ^^^^^^^^^^^^
  help: take it from NOW()"
    );
    let refused = view("SELECT t.a FROM t JOIN u ON t.a + date_part('day', now()) = u.a");
    assert!(refused.contains("error: the view v: the clock in `"), "{refused}");
    assert_eq!(
        view("SELECT x FROM t LEFT JOIN UNNEST(make_array(t.a)) AS e(x) ON x > 1"),
        r"p.sql:2:51: error: LEFT JOIN UNNEST takes ON TRUE only
  CREATE VIEW v AS SELECT x FROM t LEFT JOIN UNNEST(make_array(t.a)) AS e(x) ON x > 1
                                                    ^^^^^^^^^^^^^^
  help: put the condition into WHERE, or unnest in a sub-query"
    );
}

#[test]
fn statements() {
    assert_eq!(
        compiled(""),
        r"p.sql:1:1: error: there is no statement
  
  ^
  help: a program starts with CREATE TABLE"
    );
    assert_eq!(
        compiled("SELECT 1"),
        r"p.sql:1:1: error: SELECT is not supported
  SELECT 1
  ^^^^^^^^
  help: a program has CREATE TABLE and CREATE VIEW statements only"
    );
    assert_eq!(
        compiled(
            r"DROP TABLE t;
INSERT INTO t VALUES (1);
CREATE INDEX i ON t (a)"
        ),
        r"p.sql:1:1: error: DROP TABLE is not supported
  DROP TABLE t;
  ^^^^^^^^^^^^
  help: a program has CREATE TABLE and CREATE VIEW statements only

p.sql:2:1: error: INSERT is not supported
  INSERT INTO t VALUES (1);
  ^^^^^^^^^^^^^^^^^^^^^^^^
  help: a program has CREATE TABLE and CREATE VIEW statements only

p.sql:3:1: error: CREATE INDEX is not supported
  CREATE INDEX i ON t (a)
  ^^^^^^^^^^^^^^^^^^^^^^^
  help: a program has CREATE TABLE and CREATE VIEW statements only"
    );
}

#[test]
fn tables() {
    assert_eq!(
        compiled("CREATE TABLE t (a INT, A INT)"),
        r"p.sql:1:24: error: t has two columns `a`
  CREATE TABLE t (a INT, A INT)
                         ^"
    );
    assert_eq!(
        compiled("CREATE TABLE t (a UUID, b INTERVAL, c TIMESTAMP WITH TIME ZONE, d DECIMAL(50))"),
        r"p.sql:1:25: error: the type INTERVAL is not supported for a column
  CREATE TABLE t (a UUID, b INTERVAL, c TIMESTAMP WITH TIME ZONE, d DECIMAL(50))
                          ^
  help: keep the two times, or a number of seconds as BIGINT

p.sql:1:37: error: the type TIMESTAMP WITH TIME ZONE is not supported for a column
  CREATE TABLE t (a UUID, b INTERVAL, c TIMESTAMP WITH TIME ZONE, d DECIMAL(50))
                                      ^
  help: use TIMESTAMP, which is UTC by convention

p.sql:1:65: error: the type DECIMAL(50) is not supported for a column
  CREATE TABLE t (a UUID, b INTERVAL, c TIMESTAMP WITH TIME ZONE, d DECIMAL(50))
                                                                  ^
  help: DECIMAL(p, s) has 1 <= p <= 38 and 0 <= s <= p"
    );
    assert_eq!(
        compiled(
            r"CREATE TABLE t (
  a INT DEFAULT 3,
  b INT UNIQUE,
  PRIMARY KEY (c),
  UNIQUE (a))"
        ),
        r"p.sql:2:17: error: `DEFAULT 3` is not supported for a column
    a INT DEFAULT 3,
                  ^
  help: a column has NOT NULL and PRIMARY KEY only

p.sql:3:3: error: `UNIQUE` is not supported for a column
    b INT UNIQUE,
    ^
  help: a column has NOT NULL and PRIMARY KEY only

p.sql:4:16: error: t has no column `c`
    PRIMARY KEY (c),
                 ^
  help: there is only a, b

p.sql:5:11: error: the constraint `UNIQUE (a)` is not supported
    UNIQUE (a))
            ^
  help: only PRIMARY KEY (columns) is"
    );
    assert_eq!(
        compiled("CREATE TABLE t (a INT PRIMARY KEY, b INT PRIMARY KEY)"),
        r"p.sql:1:36: error: t has two primary keys
  CREATE TABLE t (a INT PRIMARY KEY, b INT PRIMARY KEY)
                                     ^
  help: a key of several columns is PRIMARY KEY (a, b) behind the columns"
    );
    assert_eq!(
        compiled("CREATE OR REPLACE TABLE t (a INT)"),
        r"p.sql:1:25: error: CREATE TABLE t: OR REPLACE is not supported
  CREATE OR REPLACE TABLE t (a INT)
                          ^
  help: the form is CREATE TABLE name (column type [NOT NULL | PRIMARY KEY], …) WITH ('key' = 'value', …)"
    );
    assert_eq!(
        compiled("CREATE TABLE t AS SELECT 1"),
        r"p.sql:1:14: error: CREATE TABLE t: AS SELECT is not supported
  CREATE TABLE t AS SELECT 1
               ^
  help: the form is CREATE TABLE name (column type [NOT NULL | PRIMARY KEY], …) WITH ('key' = 'value', …)"
    );
    assert_eq!(
        compiled("CREATE TABLE s.t (a INT)"),
        r"p.sql:1:14: error: `s.t`: names have one part, there are no schemas
  CREATE TABLE s.t (a INT)
               ^^^"
    );
    assert_eq!(
        compiled(
            r"CREATE TABLE t (ts TIMESTAMP LATENESS INTERVAL '1' HOUR);
CREATE VIEW v AS SELECT ts FROM t"
        ),
        r"p.sql:1:30: error: `ts` has LATENESS and may be NULL, which is neither late nor not
  CREATE TABLE t (ts TIMESTAMP LATENESS INTERVAL '1' HOUR);
                               ^^^^^^^^
  help: make it NOT NULL"
    );
    assert_eq!(
        compiled("CREATE TABLE t (a INT NOT NULL LATENESS INTERVAL '1' HOUR, b INT PRIMARY KEY)"),
        r"p.sql:1:32: error: t has a primary key, and so cannot have LATENESS
  CREATE TABLE t (a INT NOT NULL LATENESS INTERVAL '1' HOUR, b INT PRIMARY KEY)
                                 ^^^^^^^^
  help: an update of an old row would be late; leave out PRIMARY KEY, or LATENESS"
    );
    assert_eq!(
        compiled("CREATE TABLE t (a TIMESTAMP NOT NULL LATENESS 7, b VARCHAR NOT NULL LATENESS 7)"),
        r"p.sql:1:38: error: `7` is no LATENESS for a column of type Timestamp(µs)
  CREATE TABLE t (a TIMESTAMP NOT NULL LATENESS 7, b VARCHAR NOT NULL LATENESS 7)
                                       ^^^^^^^^
  help: write LATENESS INTERVAL '5 minutes' for a TIMESTAMP, LATENESS INTERVAL '1' DAY for a DATE, LATENESS 100 for a whole number

p.sql:1:69: error: a column of type Utf8 cannot have LATENESS
  CREATE TABLE t (a TIMESTAMP NOT NULL LATENESS 7, b VARCHAR NOT NULL LATENESS 7)
                                                                      ^^^^^^^^
  help: TIMESTAMP, DATE and signed whole numbers can"
    );
}

#[test]
fn options() {
    assert_eq!(
        compiled("CREATE TABLE t (a INT) WITH ('conectors' = '[]')"),
        r"p.sql:1:30: error: `conectors` is not an option of t
  CREATE TABLE t (a INT) WITH ('conectors' = '[]')
                               ^^^^^^^^^^^
  help: did you mean `connectors`?"
    );
    assert_eq!(
        compiled("CREATE TABLE t (a INT) WITH ('connectors' = 3)"),
        r"p.sql:1:45: error: the value of `connectors` must be a string
  CREATE TABLE t (a INT) WITH ('connectors' = 3)
                                              ^"
    );
    assert_eq!(
        compiled("CREATE TABLE t (a INT) WITH ('connectors' = '[]', 'connectors' = '[]')"),
        r"p.sql:1:30: error: `connectors` is given twice
  CREATE TABLE t (a INT) WITH ('connectors' = '[]', 'connectors' = '[]')
                               ^^^^^^^^^^^^"
    );
    assert_eq!(
        compiled(
            r#"CREATE TABLE t (a INT) WITH ('connectors' = '[{"name": "it''s",
   "transport": {"name": "x"},}]')"#
        ),
        r#"p.sql:2:31: error: the JSON of 'connectors' does not parse: trailing comma
     "transport": {"name": "x"},}]')
                                ^"#
    );
    assert_eq!(
        compiled(r#"CREATE TABLE t (a INT) WITH ('connectors' = '[{"name": "it''s", "transprot": {"name": "x"}}]')"#),
        r#"p.sql:1:65: error: connector t.it's: the connector: "transprot" is not known; did you mean "transport"? there are: name, transport, format, max_batch_size, max_queued_records, max_queued_bytes, paused, labels, start_after, replay
  CREATE TABLE t (a INT) WITH ('connectors' = '[{"name": "it''s", "transprot": {"name": "x"}}]')
                                                                  ^^^^^^^^^^^"#
    );
}

#[test]
fn views() {
    assert_eq!(
        compiled("CREATE TABLE t (a INT); CREATE OR REPLACE VIEW v AS SELECT a FROM t"),
        r"p.sql:1:48: error: CREATE VIEW v: OR REPLACE is not supported
  CREATE TABLE t (a INT); CREATE OR REPLACE VIEW v AS SELECT a FROM t
                                                 ^
  help: the form is CREATE [MATERIALIZED] VIEW name [(column, …)] [WITH ('key' = 'value', …)] AS SELECT …"
    );
    assert_eq!(
        compiled("CREATE TABLE t (a INT); CREATE VIEW v (x, y) AS SELECT a FROM t"),
        r"p.sql:1:37: error: the view v: the query has 1 column(s), and 2 names are given
  CREATE TABLE t (a INT); CREATE VIEW v (x, y) AS SELECT a FROM t
                                      ^"
    );
    assert_eq!(
        compiled(
            r"CREATE TABLE t (a INT);
CREATE VIEW t AS SELECT a FROM t"
        ),
        r"p.sql:2:13: error: `t` is defined twice, first in line 1
  CREATE VIEW t AS SELECT a FROM t
              ^"
    );
    assert_eq!(
        compiled(
            r"CREATE TABLE t (a INT);
CREATE VIEW v AS SELECT a FROM w;
CREATE VIEW w AS SELECT a FROM t"
        ),
        r"p.sql:2:32: error: `w` is created below, in line 3
  CREATE VIEW v AS SELECT a FROM w;
                                 ^
  help: a view reads tables and views that were created above it"
    );
    assert_eq!(
        compiled(
            r#"CREATE TABLE "T" ("A b" INT); CREATE VIEW v AS SELECT "A b" FROM "T"; CREATE VIEW w AS SELECT a FROM T"#
        ),
        r#"p.sql:1:102: error: there is no table or view `t`
  CREATE TABLE "T" ("A b" INT); CREATE VIEW v AS SELECT "A b" FROM "T"; CREATE VIEW w AS SELECT a FROM T
                                                                                                       ^
  help: did you mean `T`?"#
    );
}

#[test]
fn one_mistake_is_told_once() {
    assert_eq!(
        compiled(
            r"CREATE TABEL t (a INT);
CREATE VIEW v AS SELECT q FROM t;
CREATE VIEW w AS SELECT a FROM v;
CREATE TABLE u (a INT);
CREATE VIEW x AS SELECT b FROM u"
        ),
        r"p.sql:1:8: error: expected an object type after CREATE, found `TABEL`
  CREATE TABEL t (a INT);
         ^^^^^

p.sql:5:25: error: there is no column `b`
  CREATE VIEW x AS SELECT b FROM u
                          ^
  help: there are u.a"
    );
}

#[test]
fn depth_and_length_are_bounded() {
    let chain = |n: usize| view(&format!("SELECT {} AS s FROM t", vec!["a"; n].join(" + ")));
    assert!(chain(150).starts_with("2 = linear(0)"));
    assert!(chain(1000).contains("error: an expression is nested more than 200 levels deep"));
    assert!(chain(9000).contains("error: an expression is nested more than 200 levels deep"));
    assert!(chain(20_000).contains("words and signs; at most 20000 are supported"));
    // What is done with types goes through them by recursion, on ordinary stacks.
    let deep = "stand in each other at most 64 deep";
    let rows = |n: usize| compiled(&format!("CREATE TABLE r (a {}INT{});", "ROW(x ".repeat(n), ")".repeat(n)));
    let arrays = |n: usize| compiled(&format!("CREATE TABLE r (a INT{});", " ARRAY".repeat(n)));
    assert!(!rows(60).contains(deep) && rows(70).contains(deep) && rows(1000).contains(deep));
    assert!(!arrays(60).contains(deep) && arrays(70).contains(deep) && arrays(5000).contains(deep));
    let views: String =
        (1..150).map(|i| format!("CREATE VIEW v{i} AS SELECT make_array(a) AS a FROM v{};\n", i - 1)).collect();
    assert!(compiled(&format!("CREATE VIEW v0 AS SELECT 1 AS a;\n{views}")).contains(deep));
}

#[test]
fn options_of_tables() {
    let errors = [
        "CREATE TABLE t (a INT PRIMARY KEY) WITH ('append_only' = 'true')",
        "CREATE TABLE t (a INT) WITH ('append_only' = 'yes')",
        "CREATE TABLE t (a INT) WITH ('late_rows' = 'late')",
        "CREATE TABLE late (b INT); CREATE TABLE t (a INT NOT NULL LATENESS 1) WITH ('late_rows' = 'late')",
        "CREATE TABLE t (a INT NOT NULL LATENESS 1) WITH ('late_rows' = 'late'); CREATE VIEW late AS SELECT a FROM t",
        "CREATE TABLE t (a INT NOT NULL LATENESS 1) WITH ('late_rows' = 't')",
        "CREATE TABLE t (a INT) WITH ('append_onyl' = 'true')",
    ];
    assert_eq!(
        errors.map(compiled).join("\n\n"),
        r"p.sql:1:14: error: t has a primary key, and so cannot be append-only
  CREATE TABLE t (a INT PRIMARY KEY) WITH ('append_only' = 'true')
               ^
  help: an insert may take the row of its key away; leave out one of the two

p.sql:1:46: error: `append_only` is 'true' or 'false', not 'yes'
  CREATE TABLE t (a INT) WITH ('append_only' = 'yes')
                                               ^^^^^

p.sql:1:14: error: t has `late_rows`, but no column with LATENESS: no row is ever late
  CREATE TABLE t (a INT) WITH ('late_rows' = 'late')
               ^
  help: write LATENESS behind a column, or leave the option out

p.sql:1:41: error: `late`, the table for late rows, is defined in line 1 too
  CREATE TABLE late (b INT); CREATE TABLE t (a INT NOT NULL LATENESS 1) WITH ('late_rows' = 'late')
                                          ^
  help: give it another name

p.sql:1:85: error: `late` is defined twice, first in line 1
  CREATE TABLE t (a INT NOT NULL LATENESS 1) WITH ('late_rows' = 'late'); CREATE VIEW late AS SELECT a FROM t
                                                                                      ^^^^

p.sql:1:14: error: `t`, the table for late rows, is defined in line 1 too
  CREATE TABLE t (a INT NOT NULL LATENESS 1) WITH ('late_rows' = 't')
               ^
  help: give it another name

p.sql:1:30: error: `append_onyl` is not an option of t
  CREATE TABLE t (a INT) WITH ('append_onyl' = 'true')
                               ^^^^^^^^^^^^^
  help: did you mean `append_only`?"
    );
}

/// Sums of whole numbers wrap around, so that a watermark says nothing of them.
#[test]
fn a_sum_of_whole_numbers_is_not_bounded() {
    let sql = "CREATE TABLE t (x BIGINT NOT NULL LATENESS 2, ts TIMESTAMP NOT NULL LATENESS INTERVAL '1' DAY);
               CREATE VIEW sums AS SELECT x + 1 AS q, count(*) AS c FROM t GROUP BY x + 1;
               CREATE VIEW differences AS SELECT x - 1 AS q, count(*) AS c FROM t GROUP BY x - 1;
               CREATE VIEW plain AS SELECT x AS q, count(*) AS c FROM t GROUP BY x;
               CREATE VIEW times AS SELECT ts + INTERVAL '1' DAY AS q, count(*) AS c FROM t GROUP BY ts + INTERVAL '1' DAY;";
    let program = crate::sql::compile(sql, "p.sql").unwrap();
    let growing = crate::circuit::growing_state(&program.plan).into_iter().map(|g| g.label).collect::<Vec<_>>();
    assert_eq!(growing, ["sums: group by", "differences: group by"]);
}

#[test]
fn what_is_kept_for_queries_grows() {
    let sql = "CREATE TABLE t (a INT) WITH ('materialized' = 'true'); CREATE TABLE k (a INT NOT NULL PRIMARY KEY);
               CREATE MATERIALIZED VIEW v AS SELECT a + 1 AS a FROM t; CREATE MATERIALIZED VIEW w AS SELECT a FROM k;
               CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM t;";
    let program = crate::sql::compile(sql, "p.sql").unwrap();
    let growing = crate::circuit::growing_state(&program.plan);
    assert_eq!(growing.iter().map(|g| g.keeps).collect::<Vec<_>>(), ["all rows, for queries"; 2], "{growing:?}");
}

#[test]
fn what_grows_over_append_only_tables() {
    let grows = |options: &str| {
        let sql = format!(
            "CREATE TABLE t (a INT, b INT) WITH ('append_only' = '{options}');
             CREATE VIEW total AS SELECT max(b) AS m, count(*) AS n FROM t;
             CREATE VIEW groups AS SELECT a, min(b) AS m, first_value(b ORDER BY a) AS f FROM t GROUP BY a;
             CREATE VIEW top AS SELECT * FROM t ORDER BY b LIMIT 3;
             CREATE VIEW heads AS SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY a ORDER BY b) AS n FROM t) AS x WHERE n < 3;
             CREATE VIEW again AS SELECT max(m) AS m FROM groups"
        );
        let program = crate::sql::compile(&sql, "p.sql").unwrap();
        let growing = crate::circuit::growing_state(&program.plan).into_iter();
        growing.map(|g| format!("{}: {}", g.label, g.keeps)).collect::<Vec<_>>()
    };
    let values = "the values of MIN, MAX, DISTINCT and the like";
    assert_eq!(
        grows("false"),
        [
            format!("total: group by: {values}"),
            format!("groups: group by: a row for each group, and {values}"),
            "top: top: all rows".to_owned(),
            "heads: top: all rows".to_owned(),
            format!("again: group by: {values}"),
        ]
    );
    assert_eq!(
        grows("true"),
        [
            "groups: group by: a row for each group".to_owned(),
            "heads: top: the first rows of each partition".to_owned(),
            // Groups change, so that what lies over them is taken back.
            format!("again: group by: {values}"),
        ]
    );
}
