//! What `s3_input` and `s3_output` share: the store of objects that a configuration names, and waiting for it.
//!
//! Settings, as Feldera's `s3_input` has them: `bucket_name`, `region`, `aws_access_key_id`, `aws_secret_access_key`, `no_sign_request`, `endpoint_url`; what is
//! not given comes from AWS's variables of the environment. Ours, for other stores: `url`, such as `gs://bucket`, `az://container` or `file:///folder`,
//! and `options`, which the store knows by the names of the crate `object_store` (`google_service_account`, …).
//!
//! Invariant: every call ends within [`CALL`]; what may pass is an error that says so (`retry`).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, RetryConfig, parse_url_opts};
use serde_json::Value;
use tokio::runtime::Runtime;
use url::Url;

use super::options::Options;
use super::{ConnectorError, Context, Result};

/// The longest that one call waits.
const CALL: Duration = Duration::from_secs(30);
const LATE: &str = "the store does not answer in time";
/// How long the store's client tries by itself within that.
const TRIES: Duration = Duration::from_secs(20);

/// The settings of a store.
pub(super) const KEYS: [&str; 8] = [
    "bucket_name",
    "region",
    "aws_access_key_id",
    "aws_secret_access_key",
    "no_sign_request",
    "endpoint_url",
    "url",
    "options",
];

/// A store of objects.
#[derive(Debug)]
pub(super) struct Objects {
    connector: String,
    /// The bucket as a URL, which ends without a slash.
    name: String,
    store: Arc<dyn ObjectStore>,
    /// What the keys of the configuration begin with in the store.
    base: Path,
    runtime: Runtime,
}

impl Objects {
    /// The store that a configuration names; nothing is asked of it yet.
    pub(super) fn new(options: &Options<'_>, ctx: &Context) -> Result<Self> {
        // Made before any client: they all take it from here. Another one that is there already does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (store, name, base) = match (options.string("bucket_name")?, options.string("url")?) {
            (Some(bucket), None) => (s3(options, bucket)?, format!("s3://{bucket}"), Path::default()),
            (None, Some(url)) => by_url(options, url)?,
            (None, None) => {
                return Err(options.error("\"bucket_name\" is missing, or \"url\", such as \"file:///folder\""));
            }
            (Some(_), Some(_)) => return Err(options.error("\"bucket_name\" and \"url\" exclude each other")),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|e| ConnectorError::new(&ctx.name, format!("cannot begin to wait for a store: {e}")))?;
        Ok(Self { connector: ctx.name.clone(), name, store, base, runtime })
    }

    pub(super) fn connector(&self) -> &str {
        &self.connector
    }

    pub(super) fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    /// The place of a key in the store.
    pub(super) fn path(&self, key: &str) -> Result<Path> {
        let path = match self.base.as_ref() {
            "" => Path::parse(key),
            base => Path::parse(format!("{base}/{key}")),
        };
        path.map_err(|e| self.error(key, format!("it is no key: {e}")))
    }

    /// The key of a place in the store.
    pub(super) fn key<'a>(&self, path: &'a Path) -> &'a str {
        let key = path.as_ref().strip_prefix(self.base.as_ref()).unwrap_or(path.as_ref());
        key.strip_prefix('/').unwrap_or(key)
    }

    /// A key as a URL.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}/{key}", self.name)
    }

    pub(super) fn error(&self, key: &str, message: impl std::fmt::Display) -> ConnectorError {
        ConnectorError::new(&self.connector, format!("{}: {message}", self.name(key)))
    }

    /// Waits for a call about `key`. `Ok(Err)` is an answer that the caller knows what to do with.
    pub(super) fn wait<T>(
        &self,
        key: &str,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<Result<T, Error>> {
        match self.runtime.block_on(async { tokio::time::timeout(CALL, call).await }) {
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(e @ (Error::NotFound { .. } | Error::AlreadyExists { .. } | Error::Precondition { .. }))) => {
                Ok(Err(e))
            }
            Ok(Err(e)) => Err(self.failed(key, &e)),
            Err(_) => Err(ConnectorError { retry: true, ..self.error(key, LATE) }),
        }
    }

    /// Makes calls side by side, each of which is waited for by itself.
    pub(super) fn all<F: Future<Output = Result<()>>>(
        &self,
        calls: impl Iterator<Item = (String, F)>,
        at_once: usize,
    ) -> Result<()> {
        let calls = calls.map(|(key, call)| async move {
            let late = |_| ConnectorError { retry: true, ..self.error(&key, LATE) };
            tokio::time::timeout(CALL, call).await.unwrap_or_else(|e| Err(late(e)))
        });
        self.runtime.block_on(stream::iter(calls).buffer_unordered(at_once).try_collect::<Vec<()>>()).map(drop)
    }

    /// The objects whose keys begin like this, and stand behind `after`, sorted, with their lengths.
    pub(super) fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<(String, u64)>> {
        // A store lists by whole parts of keys only.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let folder = self.path(folder)?;
        let mut found = match after {
            Some(key) => self.store().list_with_offset(Some(&folder), &self.path(key)?),
            None => self.store().list(Some(&folder)),
        };
        let mut keys: Vec<(String, u64)> = Vec::new();
        loop {
            // Each is waited for by itself: a store lists a thousand at a time.
            match self.wait(prefix, found.try_next())? {
                Ok(Some(meta)) => keys.push((self.key(&meta.location).to_owned(), meta.size)),
                Ok(None) | Err(Error::NotFound { .. }) => break,
                Err(e) => return Err(self.failed(prefix, &e)),
            }
        }
        keys.retain(|(key, _)| key.starts_with(prefix));
        keys.sort();
        Ok(keys)
    }

    /// An error of the store's; most pass by themselves.
    pub(super) fn failed(&self, key: &str, error: &Error) -> ConnectorError {
        let is_final = matches!(
            error,
            Error::PermissionDenied { .. }
                | Error::Unauthenticated { .. }
                | Error::InvalidPath { .. }
                | Error::NotSupported { .. }
                | Error::NotImplemented { .. }
                | Error::UnknownConfigurationKey { .. }
                | Error::NotFound { .. }
                | Error::Precondition { .. }
                | Error::AlreadyExists { .. }
        );
        ConnectorError { retry: !is_final, ..self.error(key, error) }
    }
}

/// A bucket of S3's or of what speaks its protocol.
fn s3(options: &Options<'_>, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    if options.value("options").is_some() {
        return Err(options.error("\"options\" goes with \"url\""));
    }
    let retry = RetryConfig { retry_timeout: TRIES, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
    if let Some(region) = options.string("region")? {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = options.string("endpoint_url")? {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    match (options.string("aws_access_key_id")?, options.string("aws_secret_access_key")?) {
        (Some(id), Some(secret)) => builder = builder.with_access_key_id(id).with_secret_access_key(secret),
        (None, None) => {}
        _ => return Err(options.error("\"aws_access_key_id\" and \"aws_secret_access_key\" need each other")),
    }
    if options.bool("no_sign_request")?.unwrap_or(false) {
        builder = builder.with_skip_signature(true);
    }
    Ok(Arc::new(builder.build().map_err(|e| options.error(e))?))
}

/// The store of a URL, the URL without what may be secret, and the place within the store.
fn by_url(options: &Options<'_>, text: &str) -> Result<(Arc<dyn ObjectStore>, String, Path)> {
    for key in KEYS.iter().take(6) {
        if options.value(key).is_some() {
            return Err(options.error(format!("\"{key}\" goes with \"bucket_name\"; with \"url\", use \"options\"")));
        }
    }
    let wrong =
        || options.error("\"url\" must be that of a bucket or folder, such as \"gs://bucket\" or \"file:///folder\"");
    let url = Url::parse(text).map_err(|_| wrong())?;
    let mut given: Vec<(String, String)> = Vec::new();
    match options.value("options") {
        None | Some(Value::Null) => {}
        Some(Value::Object(map)) => {
            for (key, value) in map {
                let value = match value {
                    Value::String(text) => text.clone(),
                    Value::Bool(_) | Value::Number(_) => value.to_string(),
                    _ => {
                        return Err(
                            options.error(format!("\"options\": \"{key}\" must be a string, a number, true or false"))
                        );
                    }
                };
                given.push((key.clone(), value));
            }
        }
        Some(_) => return Err(options.error("\"options\" must be an object of the store's settings")),
    }
    let name = format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path());
    let name = name.trim_end_matches('/').to_owned();
    if url.scheme() == "file" {
        let path = url.to_file_path().map_err(|()| wrong())?;
        let base = Path::from_absolute_path(path).map_err(|e| options.error(e))?;
        return Ok((Arc::new(LocalFileSystem::new().with_fsync(true)), name, base));
    }
    let (store, base) = parse_url_opts(&url, given).map_err(|e| options.error(e))?;
    Ok((Arc::from(store), name, base))
}
