//! What a child process is told and how it answers: a process for each engine and turn, so that none inherits another's heap.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::limits::{self, Limit};

/// The first word of a child's command line.
const CHILD: &str = "--child";

/// One contender's turn at one workload.
#[derive(Clone, Debug)]
pub struct Task {
    pub workload: String,
    pub contender: String,
    pub folder: PathBuf,
    /// Rows of the ingest; the other workloads' numbers follow from it.
    pub rows: u64,
    /// Bytes that the engine is given.
    pub memory: u64,
    /// Seconds of each loop that is measured by time.
    pub seconds: f64,
    /// What of the workload is wanted.
    pub parts: Vec<String>,
    pub limit: Option<Limit>,
}

impl Task {
    /// What this process was told, if it is a child.
    pub fn of_child() -> Option<Self> {
        let mut words = std::env::args().skip(1);
        if words.next().as_deref() != Some(CHILD) {
            return None;
        }
        let mut word = || words.next().expect("a child is told seven things");
        let mut task = Self {
            workload: word(),
            contender: word(),
            folder: word().into(),
            rows: word().parse().expect("rows"),
            memory: word().parse().expect("bytes"),
            seconds: word().parse().expect("seconds"),
            parts: word().split(',').map(str::to_owned).collect(),
            limit: None,
        };
        task.limit = Limit::enter(std::process::id()).ok();
        Some(task)
    }

    /// Whether a part of the workload is wanted.
    pub fn wants(&self, part: &str) -> bool {
        self.parts.iter().any(|p| p == part)
    }

    /// Begins a part in which the engine has so many bytes: the process gets those and what is beside them.
    pub fn begin(&self, engine_bytes: u64) {
        if let Some(limit) = &self.limit {
            limit.set(limits::of(engine_bytes));
        }
        limits::reset_peak();
    }

    /// Ends a part: its figure, and how much memory the process had at its most.
    pub fn figure(&self, name: &str, figure: f64) {
        println!("figure {name} {figure}");
        println!("figure {name}:peak {}", limits::peak() as f64 / f64::from(1 << 20));
    }

    /// Starts the child.
    pub fn start(&self) -> Child {
        let program = std::env::current_exe().expect("the path of this program");
        Command::new(program)
            .args([CHILD, &self.workload, &self.contender])
            .arg(&self.folder)
            .args([self.rows.to_string(), self.memory.to_string(), self.seconds.to_string(), self.parts.join(",")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child")
    }

    /// Runs a child to its end and gives its figures.
    pub fn run(&self) -> BTreeMap<String, f64> {
        let mut child = self.start();
        let figures = listen(&mut child, None);
        let ended = child.wait().expect("wait for the child");
        limits::clear(child.id());
        assert!(ended.success(), "{} of {} ended with {ended}", self.workload, self.contender);
        figures
    }
}

/// Reads a child's figures until its end or a line that is `until`; passes on the lines that are for people.
pub fn listen(child: &mut Child, until: Option<&str>) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::new();
    let output = child.stdout.take().expect("the child's output");
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if Some(line.as_str()) == until {
            break;
        }
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("figure"), Some(name), Some(figure)) => {
                figures.insert(name.to_owned(), figure.parse().expect("a figure"));
            }
            _ => println!("  {line}"),
        }
    }
    figures
}
