//! `backstay demo`: a pipeline over an auction stream is killed with SIGKILL again and again; its outputs must in the end equal, byte for byte,
//! those of a run that was never killed.
//!
//! It runs `backstay run` in child processes, with what anyone may give it: a SQL file, a configuration, a data directory.

#![expect(
    clippy::disallowed_methods,
    reason = "the demo stands outside of the pipeline: it makes and reads files as a user would, and measures time"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Failure;

const VIEWS: [&str; 3] = ["prices_by_category", "sellers_by_state", "large_bids"];

/// What `demo` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Events of the auction stream.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(50_000..=1_000_000_000))]
    events: u64,
    /// How often the pipeline is killed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    kills: u32,
    /// Seed of the moments at which it is killed; default: from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// Worker threads; default: the cores.
    #[arg(long)]
    workers: Option<usize>,
    /// Where to work; default: a new folder below the temporary directory, removed at the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// One start of the pipeline.
struct Life {
    resumed_at: u64,
    replayed_steps: u64,
    replayed_rows: u64,
    recovery: Duration,
    /// Bytes of output when it was killed; `None`: it ended by itself.
    killed_at: Option<u64>,
    took: Duration,
}

/// Runs the command.
pub(super) fn demo(args: Args) -> Result<(), Failure> {
    let seed = args.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        now.as_micros() as u64 % 1_000_000
    });
    let (dir, temporary) = match &args.dir {
        Some(dir) => (dir.clone(), false),
        None => (std::env::temp_dir().join(format!("backstay-demo-{}", std::process::id())), true),
    };
    let result = fs::create_dir_all(&dir)
        .map_err(|e| Failure::usage(format!("cannot create {}: {e}", dir.display())))
        .and_then(|()| act(&args, seed, &dir));
    if temporary {
        // A left-over folder in the temporary directory harms nobody.
        let _ = fs::remove_dir_all(&dir);
    }
    result
}

fn act(args: &Args, seed: u64, dir: &Path) -> Result<(), Failure> {
    let sql = dir.join("auctions.sql");
    write(&sql, &program(args.events))?;
    write(&dir.join("auctions.config.json"), &configuration(args))?;
    outln!(
        "An auction stream of {} events into {} views; seed {seed}, folder {}",
        args.events,
        VIEWS.len(),
        dir.display()
    );

    let calm = dir.join("never-killed");
    fresh(&calm)?;
    let reference = Pipeline::start(args, &sql, &calm)?.wait()?;
    let total = output_bytes(&calm);
    outln!("never killed:  {:.1} s, {total} bytes of output", reference.took.as_secs_f64());

    let stormy = dir.join("killed");
    fresh(&stormy)?;
    let mut random = Random(seed);
    let mut moments: Vec<u64> = (0..args.kills).map(|_| random.below(total * 8 / 10)).collect();
    moments.sort_unstable();
    let mut lives = Vec::new();
    for moment in moments {
        let jitter = Duration::from_millis(random.below(60));
        lives.push(Pipeline::start(args, &sql, &stormy)?.kill_at(&stormy, moment, jitter)?);
    }
    lives.push(Pipeline::start(args, &sql, &stormy)?.wait()?);
    table(&lives, total);
    verdict(&lives, &calm, &stormy, args.kills)
}

fn table(lives: &[Life], total: u64) {
    outln!("\n start | resumed at | replayed        | recovery | end");
    outln!(" ------+------------+-----------------+----------+------------------------------");
    for (n, life) in lives.iter().enumerate() {
        let end = match life.killed_at {
            Some(bytes) => {
                format!("SIGKILL after {:.2} s, {}% of output", life.took.as_secs_f64(), bytes * 100 / total.max(1))
            }
            None => format!("done after {:.2} s", life.took.as_secs_f64()),
        };
        outln!(
            " {:>5} | step {:>5} | {:>3} st {:>7} r | {:>6.3} s | {end}",
            n + 1,
            life.resumed_at,
            life.replayed_steps,
            life.replayed_rows,
            life.recovery.as_secs_f64(),
        );
    }
}

fn verdict(lives: &[Life], calm: &Path, stormy: &Path, wanted: u32) -> Result<(), Failure> {
    let kills = lives.iter().filter(|l| l.killed_at.is_some()).count();
    let (mut rows, mut duplicates, mut losses) = (0, 0, 0);
    let mut equal = true;
    for view in VIEWS {
        let expected = read(&output_file(calm, view))?;
        let got = read(&output_file(stormy, view))?;
        equal &= expected == got;
        let mut count: BTreeMap<&[u8], i64> = BTreeMap::new();
        for line in expected.split_inclusive(|b| *b == b'\n') {
            rows += 1;
            *count.entry(line).or_default() -= 1;
        }
        for line in got.split_inclusive(|b| *b == b'\n') {
            *count.entry(line).or_default() += 1;
        }
        duplicates += count.values().filter(|n| **n > 0).sum::<i64>();
        losses -= count.values().filter(|n| **n < 0).sum::<i64>();
    }
    let replayed: u64 = lives.iter().map(|l| l.replayed_steps).sum();
    outln!("\nkills {kills}, steps replayed {replayed}, output rows {rows}, duplicates {duplicates}, losses {losses}");
    if !equal || duplicates != 0 || losses != 0 {
        return Err(Failure::new(3, "the outputs differ from those of the run that was never killed"));
    }
    if kills < wanted as usize {
        return Err(Failure::new(1, format!("only {kills} of {wanted} kills came before the end: give more --events")));
    }
    outln!("The outputs are byte for byte those of the run that was never killed.");
    Ok(())
}

/// A `backstay run` in a child process.
struct Pipeline {
    child: Child,
    begun: Instant,
    log: std::thread::JoinHandle<String>,
}

impl Pipeline {
    fn start(args: &Args, sql: &Path, data_dir: &Path) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|e| Failure::new(1, format!("cannot find this program: {e}")))?;
        let mut command = Command::new(program);
        command.arg("run").arg(sql).arg("--data-dir").arg(data_dir).arg("--until-end");
        if let Some(workers) = args.workers {
            command.arg("--workers").arg(workers.to_string());
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Failure::new(1, format!("cannot start the pipeline: {e}")))?;
        let stderr = child.stderr.take();
        let log = std::thread::Builder::new()
            .spawn(move || {
                let mut text = String::new();
                if let Some(stderr) = stderr {
                    // What was read until then is shown; there is nothing else to do about a broken pipe.
                    let _ = BufReader::new(stderr).read_to_string(&mut text);
                }
                text
            })
            .map_err(|e| Failure::new(1, format!("cannot start a thread: {e}")))?;
        Ok(Self { child, begun: Instant::now(), log })
    }

    /// Waits for its end.
    fn wait(mut self) -> Result<Life, Failure> {
        let status = self.child.wait().map_err(|e| Failure::new(1, format!("the pipeline is gone: {e}")))?;
        if !status.success() {
            let log = self.log.join().unwrap_or_default();
            return Err(Failure::new(1, format!("the pipeline ended with {status}:\n{log}")));
        }
        Ok(self.life(None))
    }

    /// Kills it once `moment` bytes of output stand in the files, and a little later.
    fn kill_at(mut self, data_dir: &Path, moment: u64, jitter: Duration) -> Result<Life, Failure> {
        loop {
            if let Some(status) = self.child.try_wait().map_err(|e| Failure::new(1, e))? {
                if status.success() {
                    return Ok(self.life(None));
                }
                let log = self.log.join().unwrap_or_default();
                return Err(Failure::new(1, format!("the pipeline ended with {status}:\n{log}")));
            }
            if output_bytes(data_dir) >= moment {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(jitter);
        self.child.kill().map_err(|e| Failure::new(1, format!("cannot kill the pipeline: {e}")))?;
        let status = self.child.wait().map_err(|e| Failure::new(1, e))?;
        let killed = (!status.success()).then(|| output_bytes(data_dir));
        Ok(self.life(killed))
    }

    fn life(self, killed_at: Option<u64>) -> Life {
        let took = self.begun.elapsed();
        let log = self.log.join().unwrap_or_default();
        let resumed =
            BufReader::new(log.as_bytes()).lines().map_while(Result::ok).find(|l| l.starts_with("resumed at step"));
        let numbers: Vec<f64> = resumed
            .unwrap_or_default()
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .filter_map(|word| word.parse().ok())
            .collect();
        let number = |i: usize| numbers.get(i).copied().unwrap_or(0.0);
        Life {
            resumed_at: number(0) as u64,
            replayed_steps: number(1) as u64,
            replayed_rows: number(2) as u64,
            recovery: Duration::from_secs_f64(number(3)),
            killed_at,
            took,
        }
    }
}

fn program(events: u64) -> String {
    let table = |name: &str, columns: &str| {
        format!(
            "CREATE TABLE {name} ({columns}) WITH ('connectors' = '[{{\n  \"transport\": {{\"name\": \"nexmark\", \
             \"config\": {{\"table\": \"{name}\", \"options\": {{\"events\": {events}}}}}}}\n}}]');\n"
        )
    };
    let view = |name: &str, query: &str| {
        format!(
            "CREATE VIEW {name} WITH ('connectors' = '[{{\n  \"transport\": {{\"name\": \"file_output\", \
             \"config\": {{\"path\": \"${{DATA_DIR}}/out/{name}.ndjson\"}}}},\n  \"format\": {{\"name\": \"json\"}}\n}}]') AS\n{query};\n"
        )
    };
    [
        table("person", "id BIGINT NOT NULL PRIMARY KEY, name VARCHAR, city VARCHAR, state VARCHAR"),
        table("auction", "id BIGINT NOT NULL PRIMARY KEY, seller BIGINT, category BIGINT, reserve BIGINT"),
        table("bid", "auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, datetime TIMESTAMP"),
        view(
            VIEWS[0],
            "SELECT a.category, count(*) AS bids, avg(b.price) AS avg_price, max(b.price) AS max_price\n\
             FROM bid b JOIN auction a ON b.auction = a.id GROUP BY a.category",
        ),
        view(
            VIEWS[1],
            "SELECT p.state, count(*) AS auctions, sum(a.reserve) AS reserve\n\
             FROM auction a JOIN person p ON a.seller = p.id GROUP BY p.state",
        ),
        view(VIEWS[2], "SELECT auction, bidder, price, channel, datetime FROM bid WHERE price > 10000000"),
    ]
    .join("\n")
}

fn configuration(args: &Args) -> String {
    // A fixed cut, about 400 steps: two runs then make the same steps, and their outputs can be compared byte for byte.
    let rows = (args.events / 400).max(1);
    format!(
        "{{\"storage\": true, \"fault_tolerance\": {{\"checkpoint_interval_secs\": 1}}, \"rows_per_step\": {rows}}}\n"
    )
}

fn fresh(dir: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::usage(format!("cannot empty {}: {e}", dir.display())))
        }
        _ => Ok(()),
    }
}

fn output_file(data_dir: &Path, view: &str) -> PathBuf {
    data_dir.join("out").join(format!("{view}.ndjson"))
}

fn output_bytes(data_dir: &Path) -> u64 {
    VIEWS.iter().filter_map(|view| fs::metadata(output_file(data_dir, view)).ok()).map(|m| m.len()).sum()
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|e| Failure::new(1, format!("cannot read {}: {e}", path.display())))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|e| Failure::usage(format!("cannot write {}: {e}", path.display())))
}

/// splitmix64: enough to choose moments by a seed that can be given again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}
