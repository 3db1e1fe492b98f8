//! Connectors by the name of their transport: those of this crate, and those that an embedder adds.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::config::ConnectorConfig;
use super::confined::Confined;
use super::input::kafka::KafkaInput;
use super::input::postgres::PostgresInput;
use super::input::{datagen, file, nexmark, objects, url};
use super::options::suggestion;
use super::output::file::FileOutput;
use super::output::kafka::KafkaOutput;
use super::output::null::NullOutput;
use super::output::objects::ObjectsOutput;
use super::output::postgres::PostgresOutput;
use super::output::stdout::StdoutOutput;
use super::secrets::Secrets;
use super::variables::resolve;
use super::{ConnectorError, Context, Input, Output, Result};

/// Input transports.
pub const INPUTS: &[&str] =
    &["file_input", "url_input", "s3_input", "kafka_input", "postgres_input", "nexmark", "datagen"];
/// Output transports.
pub const OUTPUTS: &[&str] =
    &["file_output", "s3_output", "kafka_output", "postgres_output", "stdout_output", "null_output"];
/// Feldera's transports that are not here yet.
const LATER: &[&str] = &[
    "http_input",
    "http_output",
    "adhoc_input",
    "delta_table_input",
    "delta_table_output",
    "iceberg_input",
    "pub_sub_input",
    "redis_output",
];

type Make<T> = Arc<dyn Fn(&ConnectorConfig, Context) -> Result<Box<T>> + Send + Sync>;

/// The transports that a pipeline's connectors may name. By default those of this crate.
#[derive(Clone, Default)]
pub struct Connectors {
    inputs: BTreeMap<String, Make<dyn Input>>,
    outputs: BTreeMap<String, Make<dyn Output>>,
    /// The folders below which files may be read and written; `None`: anywhere.
    roots: Option<Arc<[PathBuf]>>,
}

impl Connectors {
    /// Adds an input transport; one that has the name of another takes its place.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use backstay::connector::{
    ///     Chunk, Connectors, Descriptor, Input, InputReader, Level, Next, NoIdentity, Position, Result,
    /// };
    /// use backstay::pipeline::{self, Control, Environment, Options, PipelineConfig, SystemClock, Threads};
    /// use arrow::array::{Int64Array, RecordBatch};
    /// use arrow::datatypes::SchemaRef;
    ///
    /// /// The numbers below a hundred: a number's offset is the number.
    /// #[derive(Clone, Debug)]
    /// struct Numbers {
    ///     schema: SchemaRef,
    /// }
    ///
    /// impl Numbers {
    ///     fn chunk(&self, start: u64, end: u64) -> Chunk {
    ///         let column = Arc::new(Int64Array::from_iter_values(start as i64..end as i64));
    ///         let rows = RecordBatch::try_new(Arc::clone(&self.schema), vec![column]).expect("one BIGINT column");
    ///         let ends = (start + 1..=end).collect();
    ///         let (partition, identity) = ("0".into(), Arc::new(NoIdentity));
    ///         Chunk { partition, start, end, rows, weights: None, ends, errors: Vec::new(), identity }
    ///     }
    /// }
    ///
    /// #[derive(Debug)]
    /// struct Reader {
    ///     numbers: Numbers,
    ///     next: u64,
    /// }
    ///
    /// impl InputReader for Reader {
    ///     fn next(&mut self) -> Result<Next> {
    ///         let start = self.next;
    ///         self.next = (start + 30).min(100);
    ///         Ok(if start < 100 { Next::Chunk(self.numbers.chunk(start, self.next)) } else { Next::End })
    ///     }
    /// }
    ///
    /// impl Input for Numbers {
    ///     fn level(&self) -> Level {
    ///         Level::ExactlyOnce
    ///     }
    ///     fn is_finite(&self) -> bool {
    ///         true
    ///     }
    ///     fn open(&self, position: &Position) -> Result<Box<dyn InputReader>> {
    ///         let next = position.partitions.first().map_or(0, |p| p.offset);
    ///         Ok(Box::new(Reader { numbers: self.clone(), next }))
    ///     }
    ///     fn replay(&self, descriptor: &Descriptor) -> Result<Vec<Chunk>> {
    ///         Ok(descriptor.ranges.iter().map(|range| self.chunk(range.start, range.end)).collect())
    ///     }
    /// }
    ///
    /// let sql = r#"CREATE TABLE t (n BIGINT NOT NULL) WITH ('connectors' = '[{"transport": {"name": "numbers"}}]');
    ///     CREATE VIEW v WITH ('connectors' = '[{"transport": {"name": "file_output", "config": {"path": "v.ndjson"}},
    ///     "format": {"name": "json"}}]') AS SELECT count(*) AS c, sum(n) AS s FROM t;"#;
    /// let program = Arc::new(backstay::sql::compile(sql, "numbers.sql").expect("a program"));
    /// let dir = tempfile::tempdir().expect("a folder");
    /// let env = Environment {
    ///     disk: backstay_storage::disk::system(),
    ///     clock: Arc::new(SystemClock::new()),
    ///     scheduler: Arc::new(Threads),
    ///     connectors: Connectors::default().with_input("numbers", |_, ctx| Ok(Box::new(Numbers { schema: ctx.schema }))),
    ///     data_dir: Some(dir.path().join("data")),
    ///     base_dir: dir.path().to_owned(),
    ///     variables: Default::default(),
    ///     new_id: uuid::Uuid::new_v4(),
    /// };
    /// let config = PipelineConfig { rows_per_step: Some(100), ..PipelineConfig::exactly_once() };
    /// let options = Options { config, name: None, default_name: "numbers".into(), until_end: true };
    /// pipeline::run(&program, &options, &env, &Arc::new(Control::default())).expect("a run");
    /// let written = std::fs::read_to_string(dir.path().join("v.ndjson")).expect("the view");
    /// assert_eq!(written, "{\"insert\":{\"c\":100,\"s\":4950}}\n");
    /// ```
    #[must_use]
    pub fn with_input(
        mut self,
        transport: &str,
        make: impl Fn(&ConnectorConfig, Context) -> Result<Box<dyn Input>> + Send + Sync + 'static,
    ) -> Self {
        self.inputs.insert(transport.to_owned(), Arc::new(make));
        self
    }

    /// Adds an output transport; one that has the name of another takes its place.
    #[must_use]
    pub fn with_output(
        mut self,
        transport: &str,
        make: impl Fn(&ConnectorConfig, Context) -> Result<Box<dyn Output>> + Send + Sync + 'static,
    ) -> Self {
        self.outputs.insert(transport.to_owned(), Arc::new(make));
        self
    }

    /// Keeps connectors to files below these folders, which are resolved paths ([`resolved`](super::confined::resolved)).
    #[must_use]
    pub fn within(mut self, roots: Vec<PathBuf>) -> Self {
        self.roots = Some(roots.into());
        self
    }

    /// The configuration with its references resolved, and the files that the connector may use.
    fn resolved(&self, config: &ConnectorConfig, mut ctx: Context) -> Result<(ConnectorConfig, Context, Secrets)> {
        // The directory of secrets is whose service it is: nothing but a reference to one of them reaches it.
        let secrets_disk = Arc::clone(&ctx.disk);
        let confined =
            self.roots.as_ref().map(|roots| Arc::new(Confined::new(Arc::clone(&ctx.disk), Arc::clone(roots))));
        if let Some(disk) = &confined {
            ctx.disk = Arc::clone(disk) as _;
        }
        let (config, secrets) = resolve(config, &ctx, &secrets_disk)?;
        if let Some(disk) = confined {
            disk.check(&ctx.name, &config, &ctx.base_dir).map_err(|e| secrets.hide(e))?;
        }
        Ok((config, ctx, secrets))
    }

    /// Makes the input connector that `config` describes: as [`input()`], but for the added ones.
    pub(crate) fn input(&self, config: &ConnectorConfig, ctx: Context) -> Result<Box<dyn Input>> {
        let (config, ctx, secrets) = self.resolved(config, ctx)?;
        let made = match self.inputs.get(&config.transport.name) {
            Some(make) => make(&config, ctx),
            None => make_input(&config, &ctx),
        };
        made.map_err(|e| secrets.hide(e)).map(|input| secrets.clone().guard_input(input))
    }

    /// Makes the output connector that `config` describes: as [`output()`], but for the added ones.
    pub(crate) fn output(&self, config: &ConnectorConfig, ctx: Context) -> Result<Box<dyn Output>> {
        let (config, ctx, secrets) = self.resolved(config, ctx)?;
        let made = match self.outputs.get(&config.transport.name) {
            Some(make) => make(&config, ctx),
            None => make_output(&config, &ctx),
        };
        made.map_err(|e| secrets.hide(e)).map(|output| secrets.clone().guard_output(output))
    }
}

impl fmt::Debug for Connectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (inputs, outputs) = (self.inputs.keys(), self.outputs.keys());
        f.debug_struct("Connectors").field("inputs", &inputs).field("outputs", &outputs).finish()
    }
}

/// Makes the input connector that `config` describes. Its settings are checked; files are not touched before it is opened.
///
/// # Errors
/// A transport that is not an input, and whatever its settings have wrong.
pub fn input(config: &ConnectorConfig, ctx: Context) -> Result<Box<dyn Input>> {
    Connectors::default().input(config, ctx)
}

fn make_input(config: &ConnectorConfig, ctx: &Context) -> Result<Box<dyn Input>> {
    match config.transport.name.as_str() {
        "file_input" => file::new(config, ctx),
        "s3_input" => objects::new(config, ctx),
        "url_input" => url::new(config, ctx),
        "kafka_input" => Ok(Box::new(KafkaInput::new(config, ctx)?)),
        "postgres_input" => Ok(Box::new(PostgresInput::new(config, ctx)?)),
        "nexmark" => generated(config, ctx).and_then(|()| Ok(Box::new(nexmark::new(config, ctx)?) as Box<dyn Input>)),
        "datagen" => generated(config, ctx).and_then(|()| Ok(Box::new(datagen::new(config, ctx)?) as Box<dyn Input>)),
        other => Err(unknown(&ctx.name, other, "a table", INPUTS, OUTPUTS)),
    }
}

/// Makes the output connector that `config` describes. Its settings are checked; files are not touched before it is opened.
///
/// # Errors
/// A transport that is not an output, and whatever its settings have wrong.
pub fn output(config: &ConnectorConfig, ctx: Context) -> Result<Box<dyn Output>> {
    Connectors::default().output(config, ctx)
}

fn make_output(config: &ConnectorConfig, ctx: &Context) -> Result<Box<dyn Output>> {
    match config.transport.name.as_str() {
        "file_output" => Ok(Box::new(FileOutput::new(config, ctx)?)),
        "kafka_output" => Ok(Box::new(KafkaOutput::new(config, ctx)?)),
        "null_output" => Ok(Box::new(NullOutput::new(config, ctx)?)),
        "s3_output" => Ok(Box::new(ObjectsOutput::new(config, ctx)?)),
        "stdout_output" => Ok(Box::new(StdoutOutput::new(config, ctx, std::io::stdout())?)),
        "postgres_output" => Ok(Box::new(PostgresOutput::new(config, ctx)?)),
        other => Err(unknown(&ctx.name, other, "a view", OUTPUTS, INPUTS)),
    }
}

/// A generator has no bytes, and so no format.
fn generated(config: &ConnectorConfig, ctx: &Context) -> Result<()> {
    match &config.format {
        None => Ok(()),
        Some(_) => {
            let message =
                format!("{} makes rows, not bytes, and so has no \"format\"; leave it out", config.transport.name);
            Err(ConnectorError::new(&ctx.name, message))
        }
    }
}

fn unknown(connector: &str, transport: &str, relation: &str, here: &[&str], there: &[&str]) -> ConnectorError {
    let why = if LATER.contains(&transport) {
        format!("the transport \"{transport}\" is not supported yet; there are: {}", here.join(", "))
    } else if there.contains(&transport) {
        format!("the transport \"{transport}\" is not one for {relation}; there are: {}", here.join(", "))
    } else {
        format!("there is no transport \"{transport}\"; {}", suggestion(transport, here))
    };
    ConnectorError::new(connector, why)
}
