//! The clock: what is a temporal filter, and what joins with the clock.

use super::view;

#[test]
fn temporal_filters() {
    let conditions = [
        "ts > now()",
        "now() - INTERVAL '1' HOUR <= ts AND a > 1",
        "now() - ts < INTERVAL '90' MINUTE",
        "ts BETWEEN CURRENT_TIMESTAMP - INTERVAL '1' DAY AND LOCALTIMESTAMP",
        "CAST(ts AS DATE) = CURRENT_DATE",
        "ts > CURRENT_DATE",
        "ts + INTERVAL '1' HOUR > TIMESTAMP '2024-01-01' AND TIMESTAMP '2024-01-01' < now()",
    ];
    let plans =
        conditions.map(|condition| format!("{condition}\n{}", view(&format!("SELECT a FROM t WHERE {condition}"))));
    assert_eq!(
        plans.join("\n\n"),
        r"ts > now()
2 = linear(0) project [a@0, ts@4] -> (a Int32, ts Timestamp(µs))  -- v: project
3 = temporal(2) while 1 > now -> (a Int32, ts Timestamp(µs))  -- v: temporal filter
4 = linear(3) project [a@0] -> (a Int32)  -- v: project
view v = 4

now() - INTERVAL '1' HOUR <= ts AND a > 1
2 = linear(0) project [a@0, ts@4] filter a@0 > 1 -> (a Int32, ts Timestamp(µs))  -- v: filter and project
3 = temporal(2) while 1 +3600000000 us >= now -> (a Int32, ts Timestamp(µs))  -- v: temporal filter
4 = linear(3) project [a@0] -> (a Int32)  -- v: project
view v = 4

now() - ts < INTERVAL '90' MINUTE
2 = linear(0) project [a@0, ts@4] -> (a Int32, ts Timestamp(µs))  -- v: project
3 = temporal(2) while 1 +5400000000 us > now -> (a Int32, ts Timestamp(µs))  -- v: temporal filter
4 = linear(3) project [a@0] -> (a Int32)  -- v: project
view v = 4

ts BETWEEN CURRENT_TIMESTAMP - INTERVAL '1' DAY AND LOCALTIMESTAMP
2 = linear(0) project [a@0, ts@4] -> (a Int32, ts Timestamp(µs))  -- v: project
3 = temporal(2) while 1 +86400000000 us >= now while 1 <= now -> (a Int32, ts Timestamp(µs))  -- v: temporal filter
4 = linear(3) project [a@0] -> (a Int32)  -- v: project
view v = 4

CAST(ts AS DATE) = CURRENT_DATE
2 = linear(0) project [a@0, ts@4, CAST(CAST(ts@4 AS Date32) AS Timestamp(µs))] -> (a Int32, ts Timestamp(µs), t.ts Timestamp(µs))  -- v: project
3 = temporal(2) while 2 <= today while 2 >= today -> (a Int32, ts Timestamp(µs), t.ts Timestamp(µs))  -- v: temporal filter
4 = linear(3) project [a@0] -> (a Int32)  -- v: project
view v = 4

ts > CURRENT_DATE
2 = linear(0) project [a@0, ts@4] -> (a Int32, ts Timestamp(µs))  -- v: project
3 = temporal(2) while 1 > today -> (a Int32, ts Timestamp(µs))  -- v: temporal filter
4 = linear(3) project [a@0] -> (a Int32)  -- v: project
view v = 4

ts + INTERVAL '1' HOUR > TIMESTAMP '2024-01-01' AND TIMESTAMP '2024-01-01' < now()
2 = linear(0) project [a@0, ts@4] filter ts@1 + IntervalMonthDayNano { months: 0, days: 0, nanoseconds: 3600000000000 } > 1704067200000000 project [a@0, ts@1, 1704067200000000] -> (a Int32, ts Timestamp(µs), TimestampMicrosecond(1704067200000000, None) Timestamp(µs))  -- v: filter and project
3 = temporal(2) while 2 < now -> (a Int32, ts Timestamp(µs), TimestampMicrosecond(1704067200000000, None) Timestamp(µs))  -- v: temporal filter
4 = linear(3) project [a@0] -> (a Int32)  -- v: project
view v = 4"
    );
}

#[test]
fn anything_else_joins_with_the_clock() {
    assert_eq!(
        view("SELECT a, now() AS n FROM t WHERE ts > now() - INTERVAL '1' MONTH"),
        r"2 = clock() -> (now Timestamp(µs))  -- v: clock
3 = linear(0) project [a@0, ts@4] -> (a Int32, ts Timestamp(µs))  -- v: project
4 = join(3, 2) on [] = [] -> (a Int32, ts Timestamp(µs), now Timestamp(µs))  -- v: join with the clock
5 = linear(4) filter ts@1 > the step's clock@2 - IntervalMonthDayNano { months: 1, days: 0, nanoseconds: 0 } project [a@0, ts@1] -> (a Int32, ts Timestamp(µs))  -- v: filter and project
6 = join(5, 2) on [] = [] -> (a Int32, ts Timestamp(µs), now Timestamp(µs))  -- v: join with the clock
7 = linear(6) project [a@0, the step's clock@2] -> (a Int32, n Timestamp(µs))  -- v: project
view v = 7"
    );
}
