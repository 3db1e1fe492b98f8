//! Backstay's spine beside other engines' tables, in one run on one file system.
//!
//! Each figure is a table: every contender's, Backstay's ratio to it, the target. `--check` ends with status 1 if a target is missed.
//!
//! - A child process for each contender's turn. Contenders take turns, every other round backwards; a figure is the median of the
//!   rounds (the lower of two), with least and most.
//! - All are given the same memory. One engine's data is on disk at a time, and removed after its turn.
//! - Making rows and keys is not timed, making an engine's batch of them is.
//! - What is read is counted and checked: an engine that loses a row ends the run.
//!
//! Known limits: engines work on in the background while the bench makes rows, about a tenth of the time. fjall reads through the page
//! cache, which only a cgroup bounds.

#![expect(clippy::disallowed_methods, reason = "a bench measures time, and its peers use files as other programs do")]

#[path = "../../../common/mod.rs"]
mod common;
#[path = "../../../common/figures.rs"]
mod figures;

mod cold;
mod data;
mod engine;
mod limits;
mod report;
mod rows;
mod task;
mod workload;

use std::path::Path;
use std::process::ExitCode;

use backstay_storage::disk;

use common::Args;
use engine::{BACKSTAY, Given, PEERS};
use report::{Figures, Report};
use rows::{ALL, Workload};
use task::Task;

/// Rows of the ingest by default, and with `--full`.
const ROWS: u64 = 1_000_000;
const FULL_ROWS: u64 = 20_000_000;
/// Seconds of a loop that is measured by time.
const SECONDS: u64 = 2;
const FULL_SECONDS: u64 = 20;
/// An even number, so that each contender is as often early as late.
const ROUNDS: usize = 2;

/// What the bench is told.
struct Bench {
    rows: u64,
    memory: u64,
    seconds: u64,
    rounds: usize,
    only: Option<Vec<String>>,
    /// Contenders that are left out.
    without: Vec<String>,
}

fn main() -> ExitCode {
    if let Some(task) = Task::of_child() {
        workload::child(&task);
        return ExitCode::SUCCESS;
    }
    let (mut full, mut check) = (false, false);
    let (mut rows, mut memory, mut rounds, mut only, mut without) = (None, None, None, None, Vec::new());
    let own = ["--full", "--check", "--rows=N", "--memory=MIB", "--rounds=N", "--only=NAME,…", "--without=NAME,…"];
    let args = Args::parse(&own, |flag| {
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        match name {
            "--full" => full = true,
            "--check" => check = true,
            "--rows" => rows = Some(number(value)),
            "--memory" => memory = Some(number(value)),
            "--rounds" => rounds = Some(number(value) as usize),
            "--without" => without = value.split(',').map(str::to_owned).collect(),
            _ => only = Some(value.split(',').map(str::to_owned).collect()),
        }
    });
    let rows: u64 = rows.unwrap_or(if full { FULL_ROWS } else { ROWS });
    let bench = Bench {
        rows,
        // A quarter of what comes in, so that tables are larger than caches.
        memory: memory.map_or((rows * data::ROW / 4).max(16 << 20), |mib| mib << 20),
        seconds: args.seconds.unwrap_or(if full { FULL_SECONDS } else { SECONDS }),
        rounds: rounds.unwrap_or(ROUNDS),
        only: only.or_else(|| args.filter.clone().map(|word| vec![word])),
        without,
    };
    let parts: Vec<&str> = ALL.iter().flat_map(|workload| workload.parts).copied().collect();
    let none = |word: &&String| !parts.iter().any(|part| part.contains(word.as_str()));
    if let Some(word) = bench.only.iter().flatten().find(none) {
        eprintln!("nothing is called {word:?}; there are {}", parts.join(", "));
        return ExitCode::from(2);
    }
    let folder = args.folder();
    bench.describe(folder.path());

    let mut report = Report::default();
    for workload in &ALL {
        bench.run(workload, folder.path(), &mut report);
    }
    let met = report.summary();
    ExitCode::from(u8::from(check && !met))
}

fn number(value: &str) -> u64 {
    value.parse().unwrap_or_else(|_| {
        eprintln!("{value:?} is not a number");
        std::process::exit(2);
    })
}

impl Bench {
    fn describe(&self, folder: &Path) {
        let disk = disk::system();
        disk.probe(folder).expect("probe");
        println!("spine: Backstay's spine beside other engines' tables");
        common::describe_machine(folder, &*disk);
        println!("memory:      {}", limits::describe());
        if !cold::can_drop_all() {
            println!(
                "caches:      only the files' own pages are dropped before an opening: no right to drop the kernel's caches"
            );
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let given = Given::budget(self.memory);
        println!(
            "sizes:       {} rows of 16 + 100 bytes, {} counters, a trace of {}, {:.1} GB to reopen; {} s a loop, {} rounds",
            self.rows,
            workload::rmw::counters(self.rows),
            workload::join::trace(self.rows),
            workload::reopen::bytes(self.rows) as f64 / 1e9,
            self.seconds,
            self.rounds
        );
        println!(
            "given:       each engine a cache of {:.1} MiB and memtables of {:.1} MiB; probes in cache 3 x the rows as cache, cold ones 8 MiB;",
            mib(given.cache),
            mib(given.memtables)
        );
        let state = workload::rmw::counters(self.rows) * data::ROW;
        println!(
            "             counters of {:.1} MiB, in memory 8 x that, beyond it a tenth; indexes beside, and filters but for Backstay's",
            mib(state)
        );
        engine::describe();
    }

    /// The parts of a workload that are wanted.
    fn parts(&self, workload: &Workload) -> Vec<String> {
        let wanted =
            |part: &str| self.only.as_ref().is_none_or(|only| only.iter().any(|word| part.contains(word.as_str())));
        workload.parts.iter().filter(|part| wanted(part)).map(|part| (*part).to_owned()).collect()
    }

    fn run(&self, workload: &Workload, folder: &Path, report: &mut Report) {
        let parts = self.parts(workload);
        if parts.is_empty() {
            return;
        }
        println!("\n== {}", workload.name);
        let mut contenders = vec![BACKSTAY];
        if workload.name != "checkpoints" {
            contenders.extend(PEERS);
            contenders.extend(engine::SPINES.iter().filter(|_| workload.name == "join"));
            contenders.extend(workload.merge.then_some(engine::WEIGHTS));
            contenders.extend(workload.merge.then_some("rocksdb-merge").filter(|_| cfg!(feature = "rocksdb")));
            contenders.retain(|who| !self.without.iter().any(|without| without == who));
        }
        let turns: Vec<Vec<String>> =
            if workload.apart { parts.into_iter().map(|part| vec![part]).collect() } else { vec![parts] };
        let mut figures = Figures::new();
        // Those that have rounds of their own take all of them in one turn.
        let own_rounds = matches!(workload.name, "checkpoints" | "reopen");
        for parts in turns {
            for round in 0..if own_rounds { 1 } else { self.rounds } {
                let backwards = round % 2 == 1;
                for i in 0..contenders.len() {
                    let who = contenders[if backwards { contenders.len() - 1 - i } else { i }];
                    self.turn(workload, who, parts.clone(), folder, &mut figures);
                }
            }
        }
        for row in workload.rows {
            report.row(row, &contenders, &figures);
        }
    }

    fn turn(&self, workload: &Workload, who: &str, parts: Vec<String>, folder: &Path, figures: &mut Figures) {
        let own = tempfile::tempdir_in(folder).expect("a folder");
        let task = Task {
            workload: workload.name.into(),
            contender: who.into(),
            folder: own.path().into(),
            rows: self.rows,
            memory: self.memory,
            seconds: self.seconds as f64,
            parts,
            limit: None,
        };
        // A turn does not pay for what was done before it.
        let file = std::fs::File::open(folder).expect("the bench's folder");
        rustix::fs::syncfs(&file).expect("syncfs");
        let mut put = |name: &str, figure| figures.entry((name.to_owned(), who.to_owned())).or_default().push(figure);
        if workload.name == "reopen" {
            for (took, peak) in workload::reopen::run(&task, self.rounds) {
                put("reopen", took);
                put("reopen:peak", peak);
            }
            return;
        }
        task.run().iter().for_each(|(name, figure)| put(name, *figure));
    }
}
