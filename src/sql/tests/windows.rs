//! TUMBLE, HOP and SESSION: plans and refusals.

use super::{compiled, view};

#[test]
fn plans() {
    assert_eq!(
        view("SELECT a, window_start, window_end FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10 seconds')"),
        r"2 = linear(0) project [a@0, ts@4] filter ts@1 IS NOT NULL project [CAST(ts@1 AS Int64), a@0] project [__common_expr_2@0 - (__common_expr_2@0 % 10000000 + 10000000) % 10000000, a@1] project [a@1, CAST(__common_expr_1@0 AS Timestamp(µs)), CAST(__common_expr_1@0 + 10000000 AS Timestamp(µs))] -> (a Int32, window_start Timestamp(µs), window_end Timestamp(µs))  -- v: filter and project
view v = 2"
    );
    assert_eq!(
        view(
            "SELECT window_start AS w, count(*) AS n FROM TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '2' SECOND, \
              INTERVAL '4' SECOND, INTERVAL '-1' SECOND)) h WHERE h.a > 1 GROUP BY window_start"
        ),
        r"2 = linear(0) project [a@0, ts@4] filter ts@1 IS NOT NULL AND a@0 > 1 project [CAST(ts@1 AS Int64)] project [CAST(__common_expr_2@0 - ((__common_expr_2@0 - -1000000) % 2000000 + 2000000) % 2000000 AS Timestamp(µs))] -> (window_start Timestamp(µs))  -- v: filter and project
3 = linear(0) project [a@0, ts@4] filter ts@1 IS NOT NULL AND a@0 > 1 project [CAST(ts@1 AS Int64)] project [CAST(__common_expr_4@0 - ((__common_expr_4@0 - -1000000) % 2000000 + 2000000) % 2000000 - 2000000 AS Timestamp(µs))] -> (window_start Timestamp(µs))  -- v: filter and project
4 = union(2, 3) -> (window_start Timestamp(µs))  -- v: union
5 = aggregate(4) by [0] [count(*)] -> (w Timestamp(µs), n Int64)  -- v: group by
view v = 5"
    );
}

#[test]
fn session_plans() {
    let flink = view(
        "SELECT a, window_end, count(*) AS n FROM SESSION(TABLE t PARTITION BY a, DESCRIPTOR(ts), INTERVAL '1' MINUTE) \
         WHERE a > 1 GROUP BY a, window_end",
    );
    // The condition on the partition key is below, and columns that nobody reads are gone.
    assert_eq!(
        flink,
        r"2 = linear(0) project [a@0, ts@4] filter ts@1 IS NOT NULL AND a@0 > 1 -> (a Int32, ts Timestamp(µs))  -- v: filter and project
3 = session(2) by [0] time 1 gap 60000000 us -> (a Int32, ts Timestamp(µs), window_start Timestamp(µs), window_end Timestamp(µs))  -- v: session
4 = linear(3) project [a@0, window_end@3] -> (a Int32, window_end Timestamp(µs))  -- v: project
5 = aggregate(4) by [0, 1] [count(*)] -> (a Int32, window_end Timestamp(µs), n Int64)  -- v: group by
view v = 5"
    );
    let calcite = view(
        "SELECT a, window_end, count(*) AS n FROM TABLE(SESSION((SELECT * FROM t), DESCRIPTOR(ts), DESCRIPTOR(a), INTERVAL '60 seconds')) \
         WHERE a > 1 GROUP BY a, window_end",
    );
    assert_eq!(flink, calcite);
    let two = view("SELECT * FROM SESSION(TABLE t PARTITION BY (a, b), DESCRIPTOR(ts), INTERVAL '1' MINUTE)");
    assert!(two.contains("by [0, 1] time "), "{two}");
}

#[test]
fn the_relation_may_be_a_common_table_expression_or_a_query() {
    let with = view(
        "WITH x AS (SELECT a, ts FROM t WHERE a > 1) SELECT a, window_end FROM TUMBLE(TABLE x, DESCRIPTOR(ts), INTERVAL '1' DAY)",
    );
    let query = view(
        "SELECT a, window_end FROM TUMBLE((SELECT a, ts FROM t WHERE a > 1), DESCRIPTOR(ts), INTERVAL '1' DAY) AS x",
    );
    assert_eq!(with, query);
    assert!(with.contains("view v = "), "{with}");
}

#[test]
fn refusals() {
    let errors = [
        "TUMBLE(TABLE tt, DESCRIPTOR(ts), INTERVAL '1' DAY)",
        "TUMBLE(TABLE t, DESCRIPTOR(tss), INTERVAL '1' DAY)",
        "TUMBLE(TABLE t, DESCRIPTOR(b), INTERVAL '1' DAY)",
        "TUMBLE(TABLE t, ts, INTERVAL '1' DAY)",
        "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MONTH)",
        "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '0' DAY)",
        "TUMBLE(TABLE t, DESCRIPTOR(ts), 10)",
        "TUMBLE(TABLE t, DESCRIPTOR(ts))",
        "HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '3' DAY, INTERVAL '7' DAY)",
        "HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '1' DAY)",
        "TUMBLE((SELECT ts AS window_end FROM t), DESCRIPTOR(window_end), INTERVAL '1' DAY)",
        "SESSION(TABLE t PARTITION BY c, DESCRIPTOR(ts), INTERVAL '1' DAY)",
        "SESSION(TABLE t PARTITION BY a + 1, DESCRIPTOR(ts), INTERVAL '1' DAY)",
        "SESSION(TABLE t, INTERVAL '1' DAY)",
        "SESSION(TABLE t, DESCRIPTOR(ts), DESCRIPTOR(a), INTERVAL '0' DAY)",
    ];
    let table = "CREATE TABLE t (a INT, b VARCHAR, ts TIMESTAMP);\nCREATE VIEW v AS SELECT *\nFROM";
    let errors = errors.map(|query| compiled(&format!("{table} {query}")));
    assert_eq!(
        errors.join("\n\n"),
        r"p.sql:3:19: error: there is no table or view `tt`
  FROM TUMBLE(TABLE tt, DESCRIPTOR(ts), INTERVAL '1' DAY)
                    ^^
  help: did you mean `t`?

p.sql:3:33: error: there is no column `tss`
  FROM TUMBLE(TABLE t, DESCRIPTOR(tss), INTERVAL '1' DAY)
                                  ^^^
  help: did you mean `ts`?

p.sql:3:33: error: `b` is Utf8, and a window needs a TIMESTAMP
  FROM TUMBLE(TABLE t, DESCRIPTOR(b), INTERVAL '1' DAY)
                                  ^
  help: cast it to TIMESTAMP in a sub-query

p.sql:3:22: error: the second argument must be DESCRIPTOR(column)
  FROM TUMBLE(TABLE t, ts, INTERVAL '1' DAY)
                       ^^
  help: write TUMBLE(TABLE t, DESCRIPTOR(ts), size [, offset])

p.sql:3:47: error: months differ in length, and nothing is shorter than a microsecond
  FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MONTH)
                                                ^^^
  help: use days, hours, minutes, seconds, milliseconds and microseconds

p.sql:3:47: error: the length of a window must be positive
  FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '0' DAY)
                                                ^^^
  help: write it as INTERVAL '10 seconds'

p.sql:3:38: error: this must be an interval
  FROM TUMBLE(TABLE t, DESCRIPTOR(ts), 10)
                                       ^^
  help: write it as INTERVAL '10 seconds'

p.sql:3:6: error: these are not its arguments
  FROM TUMBLE(TABLE t, DESCRIPTOR(ts))
       ^^^^^^
  help: write TUMBLE(TABLE t, DESCRIPTOR(ts), size [, offset])

p.sql:3:62: error: the size of a HOP must be a multiple of its slide
  FROM HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '3' DAY, INTERVAL '7' DAY)
                                                               ^^^
  help: the slide comes first, then the size: HOP(…, slide, size)

p.sql:3:65: error: each row would be in 86400 windows; at most 500 are supported
  FROM HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '1' DAY)
                                                                  ^^^
  help: take a larger slide

p.sql:3:14: error: (SELECT ts AS window_end FROM t) already has a column `window_end`
  FROM TUMBLE((SELECT ts AS window_end FROM t), DESCRIPTOR(window_end), INTERVAL '1' DAY)
               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  help: give it another name in a sub-query

p.sql:3:35: error: there is no column `c`
  FROM SESSION(TABLE t PARTITION BY c, DESCRIPTOR(ts), INTERVAL '1' DAY)
                                    ^
  help: there are t.a, t.b, t.ts

p.sql:3:35: error: sessions are parted by columns
  FROM SESSION(TABLE t PARTITION BY a + 1, DESCRIPTOR(ts), INTERVAL '1' DAY)
                                    ^^^^^
  help: compute it as a column of a sub-query

p.sql:3:6: error: these are not its arguments
  FROM SESSION(TABLE t, INTERVAL '1' DAY)
       ^^^^^^^
  help: write SESSION(TABLE t [PARTITION BY k], DESCRIPTOR(ts), gap)

p.sql:3:63: error: the length of a window must be positive
  FROM SESSION(TABLE t, DESCRIPTOR(ts), DESCRIPTOR(a), INTERVAL '0' DAY)
                                                                ^^^
  help: write it as INTERVAL '10 seconds'"
    );
}
