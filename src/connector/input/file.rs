//! `file_input`: rows from files, plain or gzip.
//!
//! Settings: `path` (a file, or a pattern with `*`, `?`, `[…]`) or `paths` (a list of them), `follow` (default false: the files are read to
//! their ends; true: they are watched, and so are patterns for new files). Relative paths start at the SQL file's folder.
//!
//! Files are read one after the other: a list's in its order, a pattern's by name. A partition is a file, named by its path as
//! configured, without `./`; how it is read is said in [`records`](super::records).
//!
//! Limits: a file that is moved is another file, and is read again. gzip cannot be followed, and is decompressed from its start at a restart.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::glob::Pattern;
use backstay_storage::disk::{Disk, File, OpenOptions};

use super::super::config::ConnectorConfig;
use super::super::options::Options;
use super::super::{ConnectorError, Context, Input, Result};
use super::content::{Blob, Content};
use super::glob;
use super::records::{self, Source};

/// The files of a configuration.
#[derive(Debug)]
struct Files {
    connector: String,
    disk: Arc<dyn Disk>,
    base_dir: PathBuf,
    paths: Vec<Selector>,
    follow: bool,
}

/// One entry of the list of paths.
#[derive(Debug)]
enum Selector {
    File(String),
    Pattern(Pattern),
}

/// The input that a configuration describes.
pub(crate) fn new(config: &ConnectorConfig, ctx: &Context) -> Result<Box<dyn Input>> {
    let place = "transport.config of file_input";
    let options =
        Options::new(&ctx.name, place, &config.transport.config, &["path", "paths", "follow"], &["buffer_size_bytes"])?;
    let paths = match (options.string("path")?, options.strings("paths")?) {
        (Some(path), None) => vec![path.to_owned()],
        (None, Some(paths)) if !paths.is_empty() => paths,
        (None, Some(_)) => return Err(options.error("\"paths\" is empty; name at least one file")),
        (Some(_), Some(_)) => {
            return Err(options.error("\"path\" and \"paths\" exclude each other; name all in \"paths\""));
        }
        (None, None) => {
            return Err(options.error("\"path\" is missing: a file, or a pattern such as \"data/*.csv\""));
        }
    };
    let selector = |path: String| {
        let path = plain(&path);
        if path.is_empty() {
            Err(options.error("a path is empty"))
        } else if glob::is_pattern(&path) {
            glob::check(&ctx.name, &path).map(Selector::Pattern)
        } else {
            Ok(Selector::File(path))
        }
    };
    let follow = options.bool("follow")?.unwrap_or(false);
    let files = Files {
        connector: ctx.name.clone(),
        disk: Arc::clone(&ctx.disk),
        base_dir: ctx.base_dir.clone(),
        paths: paths.into_iter().map(selector).collect::<Result<_>>()?,
        follow,
    };
    records::input(ctx, config.format.as_ref(), Box::new(files), follow)
}

/// A path without what names nothing (`./`, doubled slashes): a file must not be another partition because it is spelled otherwise.
fn plain(path: &str) -> String {
    let root = if path.starts_with('/') { "/" } else { "" };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("{root}{}", parts.join("/"))
}

impl Files {
    fn path(&self, partition: &str) -> PathBuf {
        self.base_dir.join(partition)
    }

    fn find(&self, path: &Path) -> Result<Option<Content>> {
        let fail = |e| ConnectorError::file(&self.connector, "open", path, &e);
        match self.disk.metadata(path).map_err(fail)? {
            None => return Ok(None),
            Some(m) if m.is_dir => {
                let message =
                    format!("{} is a directory; name a file, or a pattern such as \"{0}/*.csv\"", path.display());
                return Err(ConnectorError::new(&self.connector, message));
            }
            Some(m) if !m.is_file => {
                let message = format!(
                    "{} is a pipe or a device, which cannot be read a second time after a crash; name a regular file",
                    path.display()
                );
                return Err(ConnectorError::new(&self.connector, message));
            }
            Some(_) => {}
        }
        let file = self.disk.open(path, OpenOptions::READ).map_err(fail)?;
        let blob = Opened { connector: self.connector.clone(), path: path.to_owned(), file };
        Content::open(&self.connector, Arc::new(blob)).map(Some)
    }
}

impl Source for Files {
    fn list(&self) -> Result<Vec<String>> {
        let mut partitions: Vec<String> = Vec::new();
        for selector in &self.paths {
            match selector {
                Selector::File(path) => partitions.push(path.clone()),
                Selector::Pattern(pattern) => {
                    let found = glob::list(&self.connector, &*self.disk, &self.base_dir, pattern.as_str())?;
                    if found.is_empty() && !self.follow {
                        let message = format!(
                            "no file is named like \"{}\" (relative paths start at {}); set \"follow\": true to wait for one",
                            pattern.as_str(),
                            self.base_dir.display()
                        );
                        return Err(ConnectorError::new(&self.connector, message));
                    }
                    partitions.extend(found);
                }
            }
        }
        // A file that is named twice is read once, at its first place.
        let mut seen = std::collections::BTreeSet::new();
        partitions.retain(|p| seen.insert(p.clone()));
        Ok(partitions)
    }

    fn selects(&self, partition: &str) -> bool {
        self.paths.iter().any(|s| match s {
            Selector::File(path) => path == partition,
            Selector::Pattern(pattern) => glob::matches(pattern, partition),
        })
    }

    fn name(&self, partition: &str) -> String {
        self.path(partition).display().to_string()
    }

    fn open(&self, partition: &str, offset: u64) -> Result<Content> {
        let path = self.path(partition);
        let content = self.find(&path)?.ok_or_else(|| self.missing(partition, offset))?;
        if self.follow && content.is_gzip() {
            let message =
                format!("{}: \"follow\" is not supported for gzip; decompress it, or read it without", path.display());
            return Err(ConnectorError::new(&self.connector, message));
        }
        Ok(content)
    }

    fn missing(&self, partition: &str, offset: u64) -> ConnectorError {
        let path = self.path(partition);
        let message = if offset == 0 {
            format!("{} does not exist; check \"path\" (relative paths start at the SQL file's folder)", path.display())
        } else {
            format!(
                "{} is gone, {offset} bytes of which have been read; put it back, or start anew with an empty data directory",
                path.display()
            )
        };
        ConnectorError::new(&self.connector, message)
    }

    fn len(&self, partition: &str) -> Result<Option<u64>> {
        let path = self.path(partition);
        let found =
            self.disk.metadata(&path).map_err(|e| ConnectorError::file(&self.connector, "look at", &path, &e))?;
        Ok(found.map(|m| m.len))
    }
}

/// An open file.
#[derive(Debug)]
struct Opened {
    connector: String,
    path: PathBuf,
    file: Arc<dyn File>,
}

impl Blob for Opened {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        self.file.read_at(buf, at).map_err(|e| ConnectorError::file(&self.connector, "read", &self.path, &e))
    }

    fn len(&self) -> Result<u64> {
        self.file.len().map_err(|e| ConnectorError::file(&self.connector, "measure", &self.path, &e))
    }
}
