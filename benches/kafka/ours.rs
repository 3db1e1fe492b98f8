//! The same as a pipeline.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use backstay::connector::Level;
use backstay::pipeline::config::{FaultTolerance, StorageConfig};
use backstay::pipeline::{self, Control, Environment, Options, PipelineConfig, SystemClock, Threads};
use backstay::sql;
use backstay_storage::disk;
use rdkafka::Message;
use rdkafka::producer::{BaseProducer, Producer};

use super::broker::{Broker, PATIENCE, send};

/// What the messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Bytes as they are: half of them long ones, which pass.
    Raw,
    /// Documents: those with an even number pass.
    Json,
}

/// A way to run the pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Ours {
    pub rows: Rows,
    pub exactly_once: bool,
}

/// Whether a raw message passes.
pub fn is_long(bytes: usize) -> bool {
    bytes > 100
}

impl Rows {
    pub fn topic(self) -> &'static str {
        match self {
            Rows::Raw => "in-raw",
            Rows::Json => "in-json",
        }
    }

    pub fn message(self, n: u64) -> String {
        match self {
            Rows::Raw => format!("{n:0width$}", width = if n.is_multiple_of(2) { 108 } else { 92 }),
            Rows::Json => format!(r#"{{"id": {n}, "even": {}, "name": "{n:060}"}}"#, n.is_multiple_of(2)),
        }
    }

    pub fn passes(self, n: u64) -> bool {
        n.is_multiple_of(2)
    }
}

impl Ours {
    pub fn label(self) -> String {
        let level = if self.exactly_once { "exactly once" } else { "at least once" };
        format!("Backstay, {:?}, {level}", self.rows).to_lowercase()
    }

    fn sql(self, broker: &Broker, input: &str, output: &str) -> String {
        let (columns, condition, format) = match self.rows {
            Rows::Raw => ("v VARCHAR", "octet_length(v) > 100", r#"{"name": "raw"}"#),
            Rows::Json => (
                "id BIGINT, even BOOLEAN, name VARCHAR",
                "even",
                r#"{"name": "json", "config": {"update_format": "raw"}}"#,
            ),
        };
        let connector = |transport: &str, topic: &str| {
            let address = &broker.address;
            format!(
                r#"[{{"name": "k", "transport": {{"name": "{transport}", "config": {{"bootstrap.servers": "{address}", "topic": "{topic}"}}}}, "format": {format}}}]"#
            )
        };
        let (from, to) = (connector("kafka_input", input), connector("kafka_output", output));
        format!(
            "CREATE TABLE t ({columns}) WITH ('append_only' = 'true', 'connectors' = '{from}');
             CREATE VIEW v WITH ('connectors' = '{to}') AS SELECT * FROM t WHERE {condition};"
        )
    }
}

/// A pipeline that runs.
struct Running {
    control: Arc<Control>,
    thread: JoinHandle<()>,
}

impl Running {
    fn start(ours: Ours, broker: &Broker, (input, output): (&str, &str), data: &Path) -> Self {
        let program = Arc::new(sql::compile(&ours.sql(broker, input, output), "bench.sql").expect("a program"));
        let model = if ours.exactly_once { Level::ExactlyOnce } else { Level::AtLeastOnce };
        let config = PipelineConfig {
            workers: Some(1),
            storage: Some(StorageConfig::default()),
            fault_tolerance: FaultTolerance { model, checkpoint_interval: Some(Duration::from_secs(10)) },
            ..PipelineConfig::default()
        };
        let options = Options { config, name: None, default_name: format!("bench-{output}"), until_end: false };
        let env = Environment {
            disk: disk::system(),
            clock: Arc::new(SystemClock::new()),
            scheduler: Arc::new(Threads),
            connectors: Default::default(),
            data_dir: Some(data.to_owned()),
            base_dir: data.to_owned(),
            variables: BTreeMap::new(),
            new_id: uuid::Uuid::new_v4(),
        };
        let control = Arc::new(Control::default());
        let door = Arc::clone(&control);
        let thread = std::thread::spawn(move || {
            pipeline::run(&program, &options, &env, &door).expect("a run");
        });
        Self { control, thread }
    }

    fn stop(self, data: &Path) {
        self.control.request_stop();
        self.thread.join().expect("it ends");
        fs::remove_dir_all(data).expect("its folder goes");
    }
}

/// Runs the pipeline until all is delivered; says how long that took, from its start.
pub fn run(ours: Ours, broker: &Broker, output: &str, folder: &Path, count: u64) -> Duration {
    let data = folder.join("data");
    let begun = Instant::now();
    let running = Running::start(ours, broker, (ours.rows.topic(), output), &data);
    loop {
        let now = running.control.snapshot();
        if now.input_rows >= count && now.delivered_step >= now.step && now.outputs.iter().all(|o| o.pending_steps == 0)
        {
            break;
        }
        assert!(!running.thread.is_finished() && now.parse_errors == 0, "{now:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = begun.elapsed();
    running.stop(&data);
    took
}

/// How late messages are.
pub struct Late {
    pub p50: Duration,
    pub p99: Duration,
}

fn micros() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_micros() as u64)
}

/// Sends messages with the time in them at a rate, and reads what comes out.
pub fn latency(broker: &Broker, folder: &Path, rate: u64, time: Duration) -> Late {
    let (input, output, data) = ("in-late", "out-late", folder.join("data"));
    broker.create(input, 1);
    broker.create(output, 1);
    let running = Running::start(Ours { rows: Rows::Raw, exactly_once: true }, broker, (input, output), &data);
    let producer: BaseProducer = broker.settings().set("linger.ms", "2").create().expect("a producer");
    let reader = broker.reader(output);
    let sender = {
        let topic = input.to_owned();
        std::thread::spawn(move || {
            let begun = Instant::now();
            let mut sent = 0;
            while begun.elapsed() < time {
                let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
                for _ in sent..due {
                    send(&producer, &topic, format!("{:0108}", micros()).as_bytes());
                }
                sent = due;
                producer.poll(Duration::from_millis(1));
            }
            producer.flush(PATIENCE).expect("a flush");
            sent
        })
    };
    let mut late: Vec<u64> = Vec::new();
    let begun = Instant::now();
    // The first seconds are the start's.
    let warm = micros() + time.as_micros() as u64 / 4;
    let mut read = 0;
    let mut sent = None;
    let mut sender = Some(sender);
    while sent.is_none_or(|sent| read < sent) {
        if sender.as_ref().is_some_and(JoinHandle::is_finished) {
            sent = sender.take().map(|s| s.join().expect("the sender ends"));
        }
        assert!(begun.elapsed() < time + PATIENCE, "{read} of {sent:?} messages came");
        let Some(Ok(message)) = reader.poll(Duration::from_millis(10)) else { continue };
        read += 1;
        let at: u64 = String::from_utf8_lossy(message.payload().unwrap_or_default()).parse().expect("a time");
        if at > warm {
            late.push(micros().saturating_sub(at));
        }
    }
    running.stop(&data);
    late.sort_unstable();
    let at = |share: f64| Duration::from_micros(late[((late.len() - 1) as f64 * share) as usize]);
    Late { p50: at(0.5), p99: at(0.99) }
}
