//! The figures, their targets, and which workload gives them.

use crate::engine::{BACKSTAY, WEIGHTS};
use crate::report::{Row, Target};

/// A workload: what of it can be chosen, who takes part, what it gives.
pub struct Workload {
    pub name: &'static str,
    /// What can be chosen with `--only`, each a turn in the same child.
    pub parts: &'static [&'static str],
    /// Whether each part is a turn of its own, in a child of its own.
    pub apart: bool,
    pub merge: bool,
    pub rows: &'static [Row],
}

const fn row(figure: &'static str, title: &'static str, unit: &'static str, target: Target) -> Row {
    Row { figure, title, unit, target, and: Target::Shown, ours: BACKSTAY, against: &[] }
}

/// All of them, in the order in which they run. `checkpoints` is Backstay alone, `reopen` kills its children: they have ways of their own.
pub const ALL: [Workload; 6] = [
    Workload {
        name: "tables",
        parts: &["ingest", "scan", "probe"],
        apart: false,
        merge: false,
        rows: &[
            row(
                "ingest",
                "random rows in batches of 10,000, all in tables at the end",
                "1,000 rows/s",
                Target::AtLeast(2.0),
            ),
            row("scan", "all rows in order, caches cold at the start", "1,000 rows/s", Target::AtLeast(1.5)),
            row("ranges", "1,000 rows from random starts", "1,000 rows/s", Target::AtLeast(1.5)),
            row("hit-warm", "probes of 1,000 keys that are there, all in cache", "1,000 keys/s", Target::AtLeast(1.0)),
            row("miss-warm", "probes of 1,000 keys that are not, all in cache", "1,000 keys/s", Target::AtLeast(1.0)),
            row(
                "hit-cold",
                "probes of 1,000 keys that are there, nothing in cache",
                "1,000 keys/s",
                Target::AtLeast(1.0),
            ),
            row(
                "miss-cold",
                "probes of 1,000 keys that are not, nothing in cache",
                "1,000 keys/s",
                Target::AtLeast(1.0),
            ),
        ],
    },
    Workload {
        name: "rmw",
        parts: &["rmw-memory", "rmw-beyond"],
        apart: true,
        merge: true,
        rows: &[
            // Reading and writing against that, adding without reading against that.
            Row {
                against: &["rocksdb", "fjall"],
                ..row(
                    "rmw-memory",
                    "counters by Zipf 0.99, memory for all of them",
                    "1,000 events/s",
                    Target::AtLeast(2.0),
                )
            },
            Row {
                ours: WEIGHTS,
                against: &["rocksdb-merge"],
                ..row("rmw-memory", "the same, added to without being read", "1,000 events/s", Target::AtLeast(2.0))
            },
            Row {
                against: &["rocksdb", "fjall"],
                ..row("rmw-beyond", "counters by Zipf 0.99, memory for a tenth", "1,000 events/s", Target::AtLeast(1.5))
            },
            Row {
                ours: WEIGHTS,
                against: &["rocksdb-merge"],
                ..row("rmw-beyond", "the same, added to without being read", "1,000 events/s", Target::AtLeast(1.5))
            },
        ],
    },
    Workload {
        name: "join",
        parts: &["join"],
        apart: false,
        merge: false,
        rows: &[row("join", "deltas of 10,000 keys against a trace of 4 rows a key", "1,000 keys/s", Target::Ahead)],
    },
    Workload {
        name: "size",
        parts: &["size"],
        apart: false,
        merge: false,
        rows: &[
            Row {
                against: &["rocksdb"],
                ..row(
                    "disk",
                    "bytes on disk after the ingest and as many counters' events by half, at rest",
                    "MB",
                    Target::AtMost(1.1),
                )
            },
            row("disk-peak", "the most on the way there", "MB", Target::Shown),
            Row {
                against: &["rocksdb"],
                ..row("amplification", "bytes written for each that came in", "bytes", Target::Below)
            },
        ],
    },
    Workload {
        name: "checkpoints",
        parts: &["checkpoints"],
        apart: false,
        merge: false,
        rows: &[
            row(
                "checkpoint-p99",
                "p99 of steps with a checkpoint each second, of that without",
                "x",
                Target::Under(1.25),
            ),
            row("checkpoint-p99.9", "p99.9 of them", "x", Target::Under(2.0)),
            row("checkpoint-worst", "the worst step with checkpoints", "ms", Target::Under(250.0)),
        ],
    },
    Workload {
        name: "reopen",
        parts: &["reopen"],
        apart: false,
        merge: false,
        rows: &[Row {
            and: Target::Below,
            ..row("reopen", "open and first probe after a kill, caches cold", "ms", Target::Under(1000.0))
        }],
    },
];
