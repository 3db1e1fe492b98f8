//! `s3_input`: rows from the objects of a bucket, read to their ends.
//!
//! Settings: the [store's](super::super::objects), and `key`, one object, or `prefix`, all objects whose keys begin with it, in the order of
//! their keys. A partition is an object, named by its key. A range's identity has the object's ETag beside the content's hashes: an object must stay the
//! same until it is read, and for as long as a step may be replayed. How it is read is said in [`records`](super::records).
//!
//! Limits: objects are looked for when a run begins; one that comes later is read by the next run, after those that were known. One whose key sorts before them too.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStoreExt as _};

use super::super::config::ConnectorConfig;
use super::super::objects::{KEYS, Objects};
use super::super::options::Options;
use super::super::{ConnectorError, Context, Input, Result};
use super::content::{Blob, Content, Piece};
use super::records::{self, Source};

/// How much is asked for at once.
const PIECE: u64 = 4 << 20;
/// How long a replay waits for the store to go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// The objects of a configuration.
#[derive(Debug)]
struct Bucket {
    objects: Arc<Objects>,
    selector: Selector,
    /// What was opened last, with the piece that it has: the next step of a replay is mostly in it.
    opened: Mutex<Option<Arc<Opened>>>,
}

#[derive(Debug)]
enum Selector {
    Key(String),
    Prefix(String),
}

/// The input that a configuration describes.
pub(crate) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Box<dyn Input>> {
    let known = [&["key", "prefix"][..], &KEYS].concat();
    let later = ["streaming", "max_concurrent_fetches"];
    let options = Options::new(&ctx.name, "transport.config of s3_input", &config.transport.config, &known, &later)?;
    let selector = match (options.string("key")?, options.string("prefix")?) {
        (Some(key), None) => Selector::Key(key.to_owned()),
        (None, Some(prefix)) => Selector::Prefix(prefix.to_owned()),
        (None, None) => return Err(options.error("\"key\" is missing, or \"prefix\" for several objects")),
        (Some(_), Some(_)) => return Err(options.error("\"key\" and \"prefix\" exclude each other")),
    };
    let objects = Arc::new(Objects::new(&options, ctx)?);
    let bucket = Bucket { objects, selector, opened: Mutex::default() };
    records::input(ctx, config.format.as_ref(), Box::new(bucket), false)
}

impl Source for Bucket {
    fn list(&self) -> Result<Vec<String>> {
        let prefix = match &self.selector {
            Selector::Key(key) => return Ok(vec![key.clone()]),
            Selector::Prefix(prefix) => prefix,
        };
        let found = self.objects.list(prefix, None)?;
        if found.is_empty() {
            return Err(self.objects.error(prefix, "no object's key begins like that; check \"prefix\""));
        }
        Ok(found.into_iter().map(|(key, _)| key).collect())
    }

    fn selects(&self, partition: &str) -> bool {
        match &self.selector {
            Selector::Key(key) => key == partition,
            Selector::Prefix(prefix) => partition.starts_with(prefix),
        }
    }

    fn name(&self, partition: &str) -> String {
        self.objects.name(partition)
    }

    fn open(&self, partition: &str, offset: u64) -> Result<Content> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let object = match opened.take().filter(|o| o.key == partition && o.piece.is_good()) {
            Some(object) => object,
            None => {
                let path = self.objects.path(partition)?;
                match self.objects.wait(partition, self.objects.store().head(&path))? {
                    Ok(meta) => Arc::new(Opened::new(Arc::clone(&self.objects), partition, path, meta)),
                    Err(_) => return Err(self.missing(partition, offset)),
                }
            }
        };
        *opened = Some(Arc::clone(&object));
        Content::open(self.objects.connector(), object)
    }

    fn missing(&self, partition: &str, offset: u64) -> ConnectorError {
        let message = match offset {
            0 => "there is no such object; check \"key\" and the bucket".to_owned(),
            _ => format!(
                "it is gone, {offset} bytes of which have been read; put it back, or start anew with an empty data directory"
            ),
        };
        self.objects.error(partition, message)
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}

/// One version of an object.
#[derive(Debug)]
struct Opened {
    objects: Arc<Objects>,
    key: String,
    path: Path,
    version: String,
    /// What the store is asked to match.
    e_tag: Option<String>,
    len: u64,
    piece: Piece,
}

impl Opened {
    fn new(objects: Arc<Objects>, key: &str, path: Path, meta: ObjectMeta) -> Self {
        let version = meta.e_tag.clone().unwrap_or_else(|| format!("{}-{}", meta.last_modified, meta.size));
        Self { objects, key: key.to_owned(), path, version, e_tag: meta.e_tag, len: meta.size, piece: Piece::default() }
    }

    fn fetch(&self, at: u64) -> Result<(u64, Vec<u8>)> {
        let range: Range<u64> = at..at.saturating_add(PIECE).min(self.len);
        let options =
            GetOptions { if_match: self.e_tag.clone(), range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let changed = |got: &str| {
            self.objects.error(
                &self.key,
                format!(
                    "it changed while it was read: expected {} of {} bytes, got {got}; put the old content back, or start anew with an empty data directory",
                    self.version, self.len
                ),
            )
        };
        let call = async {
            let answer = self.objects.store().get_opts(&self.path, options).await?;
            let (e_tag, len) = (answer.meta.e_tag.clone(), answer.meta.size);
            Ok((e_tag, len, answer.bytes().await?))
        };
        match self.objects.wait(&self.key, call)? {
            Ok((e_tag, len, _)) if (&e_tag, len) != (&self.e_tag, self.len) => {
                Err(changed(&format!("{} of {len} bytes", e_tag.as_deref().unwrap_or("no version"))))
            }
            Ok((_, _, bytes)) if bytes.is_empty() => Err(ConnectorError {
                retry: true,
                ..self.objects.error(&self.key, format!("nothing came of the bytes from {at} on"))
            }),
            Ok((_, _, bytes)) => Ok((at, bytes.into())),
            Err(Error::NotFound { .. }) => Err(self.objects.error(&self.key, "it is gone; put it back")),
            Err(_) => Err(changed("another version")),
        }
    }
}

impl Blob for Opened {
    fn name(&self) -> String {
        self.objects.name(&self.key)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        self.piece.read_at(buf, at, self.len, |from| self.fetch(from))
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn version(&self) -> &str {
        &self.version
    }
}
