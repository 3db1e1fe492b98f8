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
