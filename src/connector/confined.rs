//! Connectors that reach no file outside of certain folders: for programs that come over the service's API.
//!
//! Invariant: every path that a connector gives to its disk is resolved first, symbolic links and `..` included, and refused where it does not end
//! up below a root. What is opened is the resolved path.
//!
//! Limits: settings that name files for a library of another's are known by their keys (`names_a_file`). A store of objects at a `file:` URL is checked at its
//! folder: links below that are followed. Whoever may change links below a root may change them between the check and the opening.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use backstay_storage::disk::{DirEntry, DirLock, Disk, DiskInfo, DiskStats, File, IoQueue, Map, Metadata, OpenOptions};
use backstay_storage::{Error, Result};
use serde_json::Value;

use super::ConnectorError;
use super::config::ConnectorConfig;

/// A disk that only has what is below its roots.
#[derive(Clone, Debug)]
pub struct Confined {
    inner: Arc<dyn Disk>,
    roots: Arc<[PathBuf]>,
}

impl Confined {
    /// `roots` are resolved paths, or of folders that are not there yet.
    pub(super) fn new(inner: Arc<dyn Disk>, roots: Arc<[PathBuf]>) -> Self {
        Self { inner, roots }
    }

    /// Where a path leads, if that is allowed.
    fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let resolved = resolved(path).map_err(|e| Error::io("resolve", path, e))?;
        if self.roots.iter().any(|root| resolved.starts_with(root)) {
            return Ok(resolved);
        }
        let roots: Vec<String> = self.roots.iter().map(|root| root.display().to_string()).collect();
        let source = std::io::Error::new(
            std::io::ErrorKind::PermissionDenied,
            format!(
                "it leads out of the folders that this service's pipelines may use ({}); `backstay serve --allow-root` allows others",
                roots.join(", ")
            ),
        );
        Err(Error::io("use", path, source))
    }

    /// Refuses settings by which a library would open a file outside of the roots. Settings of ours name theirs from the program's folder (`base_dir`) on,
    /// a library's, which have dots, from the process's.
    pub(super) fn check(&self, connector: &str, config: &ConnectorConfig, base_dir: &Path) -> super::Result<()> {
        let Value::Object(settings) = &config.transport.config else { return Ok(()) };
        for (key, value) in settings {
            if let Value::Object(options) = value {
                // Those of a store of objects, some of which have a file's content sent as who one is.
                if let Some(option) = options.keys().find(|option| reads_a_file(option)) {
                    let message = format!(
                        "transport.config: \"{key}\": a service's pipelines may not use \"{option}\", which names a file; write the credential itself"
                    );
                    return Err(ConnectorError::new(connector, message));
                }
            }
            let refused = |why: String| ConnectorError::new(connector, format!("transport.config: \"{key}\": {why}"));
            if runs_code(key) {
                return Err(refused("a service's pipelines may not have code run; leave it out".to_owned()));
            }
            if let (true, Value::String(path)) = (names_a_file(key), value) {
                let path = if key.contains('.') { PathBuf::from(path) } else { base_dir.join(path) };
                self.resolve(&path).map_err(|e| refused(e.to_string()))?;
            }
            if let (Some(Ok(url)), "url") = (value.as_str().map(url::Url::parse), key.as_str()) {
                let Some(path) = (url.scheme() == "file").then(|| url.to_file_path()) else { continue };
                let path = path.map_err(|()| refused("it names no folder of this machine".to_owned()))?;
                self.resolve(&path).map_err(|e| refused(e.to_string()))?;
            }
        }
        Ok(())
    }
}

/// Whether a setting of a library's names a file.
fn names_a_file(key: &str) -> bool {
    key.ends_with(".location") || key.ends_with(".keytab") || key.ends_with("_location") || key.ends_with("_path")
}

/// Whether an option of a store of objects names a file, or a server that names one.
fn reads_a_file(option: &str) -> bool {
    let option = option.to_ascii_lowercase();
    option.ends_with("_file")
        || option.ends_with("_path")
        || option.contains("application_credentials")
        || option.contains("credentials_full_uri")
        || matches!(option.as_str(), "google_service_account" | "service_account")
}

/// Whether a setting of a library's makes it load or run what it names.
fn runs_code(key: &str) -> bool {
    matches!(key, "plugin.library.paths" | "ssl.engine.location" | "ssl.providers") || key.ends_with(".cmd")
}

/// A path without links and `..`, absolute. Its last parts need not be there yet.
pub fn resolved(path: &Path) -> std::io::Result<PathBuf> {
    let mut there = std::path::absolute(path)?;
    let mut missing: Vec<std::ffi::OsString> = Vec::new();
    loop {
        match there.canonicalize() {
            Ok(mut real) => {
                real.extend(missing.iter().rev());
                return Ok(real);
            }
            // A link that leads to nothing would be followed once that is there.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !there.is_symlink() => {
                let name = match there.components().next_back() {
                    Some(Component::Normal(name)) => name.to_owned(),
                    _ => return Err(std::io::Error::other("\"..\" behind what is not there")),
                };
                missing.push(name);
                there = there.parent().unwrap_or(Path::new(OsStr::new("/"))).to_owned();
            }
            Err(e) => return Err(e),
        }
    }
}

impl Disk for Confined {
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn File>> {
        self.inner.open(&self.resolve(path)?, options)
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.inner.create_dir_all(&self.resolve(path)?)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.inner.sync_dir(&self.resolve(dir)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.inner.rename(&self.resolve(from)?, &self.resolve(to)?)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.inner.remove(&self.resolve(path)?)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        self.inner.list(&self.resolve(dir)?)
    }

    fn metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        self.inner.metadata(&self.resolve(path)?)
    }

    fn lock_dir(&self, dir: &Path) -> Result<DirLock> {
        self.inner.lock_dir(&self.resolve(dir)?)
    }

    fn queue(&self, depth: usize) -> Result<Box<dyn IoQueue>> {
        self.inner.queue(depth)
    }

    fn probe(&self, dir: &Path) -> Result<()> {
        self.inner.probe(&self.resolve(dir)?)
    }

    fn map(&self, file: &Arc<dyn File>, len: u64) -> Result<Map> {
        self.inner.map(file, len)
    }

    fn threads(&self) -> bool {
        self.inner.threads()
    }

    fn info(&self) -> DiskInfo {
        self.inner.info()
    }

    fn stats(&self) -> DiskStats {
        self.inner.stats()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test makes links and files as their owner would")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out_of_the_roots() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (root, out) = (dir.join("root"), dir.join("out"));
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir_all(&out).unwrap();
        std::fs::create_dir_all(dir.join("root2")).unwrap();
        for file in [root.join("in.csv"), out.join("secret"), dir.join("root2/secret")] {
            std::fs::write(file, "x").unwrap();
        }
        symlink(&out, root.join("link")).unwrap();
        symlink(out.join("secret"), root.join("file")).unwrap();
        symlink(out.join("later"), root.join("dangling")).unwrap();
        symlink(root.join("in.csv"), root.join("sub/inside")).unwrap();
        let disk = Confined::new(backstay_storage::disk::system(), Arc::from([root.clone(), dir.join("not-yet")]));
        for good in ["in.csv", "sub/../in.csv", "sub/inside", "../root/in.csv"] {
            assert!(disk.open(&root.join(good), OpenOptions::READ).is_ok(), "{good}");
        }
        for good in ["new", "sub/a/b", "../not-yet/x"] {
            assert!(disk.metadata(&root.join(good)).unwrap().is_none(), "{good}");
        }
        let create = OpenOptions { write: true, create: backstay_storage::disk::Create::IfAbsent, direct: false };
        let bad = [
            "../out/secret",
            "link/secret",
            "file",
            "dangling",
            "link/new",
            "sub/../../out/x",
            "../root2/secret",
            "no/../../out/x",
        ];
        for bad in bad.map(|bad| root.join(bad)).into_iter().chain([PathBuf::from("/etc/passwd"), PathBuf::from("/")]) {
            assert!(disk.open(&bad, create).is_err(), "{}", bad.display());
            assert!(disk.metadata(&bad).is_err() && disk.list(&bad).is_err(), "{}", bad.display());
            assert!(disk.remove(&bad).is_err() && disk.create_dir_all(&bad).is_err(), "{}", bad.display());
            assert!(disk.rename(&root.join("in.csv"), &bad).is_err(), "{}", bad.display());
        }
        let said = disk.open(&out.join("secret"), OpenOptions::READ).unwrap_err().to_string();
        assert!(said.contains("--allow-root") && said.contains(root.to_str().unwrap()), "{said}");
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
    }

    #[test]
    fn settings_of_libraries_are_held_to_it() {
        let disk = Confined::new(backstay_storage::disk::system(), Arc::from([PathBuf::from("/allowed")]));
        let check = |config: Value| {
            let json = serde_json::json!({ "name": "c", "transport": { "name": "kafka_input", "config": config } });
            disk.check("t.c", &serde_json::from_value(json).unwrap(), Path::new("/allowed/p"))
                .map_err(|e| e.to_string())
        };
        assert_eq!(check(serde_json::json!({ "ssl.ca.location": "/allowed/ca.pem", "url": "s3://bucket" })), Ok(()));
        assert_eq!(check(serde_json::json!({ "ssl_ca_location": "ca.pem" })), Ok(()));
        for (bad, said) in [
            (serde_json::json!({ "ssl.ca.location": "/etc/shadow" }), "--allow-root"),
            (serde_json::json!({ "ssl.key.location": "/allowed/../etc/key" }), "ssl.key.location"),
            (serde_json::json!({ "ssl.ca.location": "ca.pem" }), "--allow-root"),
            (serde_json::json!({ "ssl_ca_location": "../../etc/shadow" }), "ssl_ca_location"),
            (serde_json::json!({ "plugin.library.paths": "/allowed/x.so" }), "code"),
            (serde_json::json!({ "sasl.kerberos.kinit.cmd": "rm -rf /" }), "code"),
            (serde_json::json!({ "url": "file:///etc" }), "--allow-root"),
            (
                serde_json::json!({ "options": { "azure_federated_token_file": "/etc/shadow" } }),
                "azure_federated_token_file",
            ),
            (serde_json::json!({ "options": { "AWS_Web_Identity_Token_File": "/etc/shadow" } }), "names a file"),
            (serde_json::json!({ "options": { "google_service_account": "/etc/shadow" } }), "names a file"),
        ] {
            let error = check(bad.clone()).unwrap_err();
            assert!(error.contains(said), "{bad}: {error}");
        }
    }
}
