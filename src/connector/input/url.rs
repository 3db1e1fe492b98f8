//! `url_input`: rows from what an HTTP server has at a URL, read to its end.
//!
//! Settings: `path`, the URL, as Feldera has it. Content that does not change: it is read in pieces (range requests), and again by a replay.
//!
//! The partition is the URL without user, password and query, which may be secrets. A range's identity has the ETag, or else the Last-Modified, beside the
//! content's hashes: what is behind the URL must stay the same until it is read, and be the same for as long as a step may be replayed. How it is read is
//! said in [`records`](super::records).
//!
//! Invariants:
//! 1. All pieces are of one version and length; a piece of another is refused, naming both.
//! 2. No error shows the URL's user, password or query.
//!
//! Limits: a server that does not answer range requests must have less than 64 MiB there, which are held in memory. One that tells neither ETag nor Last-Modified
//! is believed as a file is: by the hashes of the content's start and end. Requests wait: 10 s for a connection, 30 s for an answer or the next bytes.

mod remote;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::super::config::ConnectorConfig;
use super::super::options::Options;
use super::super::{ConnectorError, Context, Input, Result};
use super::content::Content;
use super::records::{self, Source};
use remote::{Client, Remote};

/// How long a replay waits for the server to go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// The one URL of a configuration.
#[derive(Debug)]
struct Url {
    client: Arc<Client>,
    /// What was opened last, with the piece that it has: the next step of a replay is mostly in it.
    opened: Mutex<Option<Arc<Remote>>>,
}

/// The input that a configuration describes.
pub(crate) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Box<dyn Input>> {
    let place = "transport.config of url_input";
    let later = ["pause_timeout", "pause_linger"];
    let options = Options::new(&ctx.name, place, &config.transport.config, &["path"], &later)?;
    let client = Client::new(&ctx.name, options.require_string("path")?).map_err(|e| options.error(e))?;
    let url = Url { client: Arc::new(client), opened: Mutex::default() };
    records::input(ctx, config.format.as_ref(), Box::new(url), false)
}

impl Source for Url {
    fn list(&self) -> Result<Vec<String>> {
        Ok(vec![self.client.name().to_owned()])
    }

    fn selects(&self, partition: &str) -> bool {
        partition == self.client.name()
    }

    fn name(&self, partition: &str) -> String {
        partition.to_owned()
    }

    fn open(&self, partition: &str, offset: u64) -> Result<Content> {
        if !self.selects(partition) {
            return Err(self.missing(partition, offset));
        }
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let remote = match opened.take().filter(|remote| remote.is_good()) {
            Some(remote) => remote,
            None => Arc::new(Remote::open(Arc::clone(&self.client))?),
        };
        *opened = Some(Arc::clone(&remote));
        Content::open(self.client.connector(), remote)
    }

    fn missing(&self, partition: &str, offset: u64) -> ConnectorError {
        let message = format!(
            "{partition}, {offset} bytes of which have been read, is not the configured URL, {}; set the old one again, or start anew with an empty \
             data directory",
            self.client.name()
        );
        ConnectorError::new(self.client.connector(), message)
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}
