//! `${…}` in the strings of a connector's transport and format: variables, and secrets by reference.
//!
//! | reference | stands for |
//! |---|---|
//! | `${NAME}`, `${env:NAME}` | a variable of the pipeline's, one of the environment's |
//! | `${file:/path}` | a secret: the content of a file, without the newline at its end |
//! | `${secret:kubernetes:name/key}` | a secret: the content of `kubernetes/name/key` in the directory of secrets, as it is |
//! | `$${` | `${` |
//!
//! Invariants:
//! 1. A reference is resolved when its connector is made, and what it stands for goes to the connector alone.
//! 2. What is said of a connector with secrets has their references in their places (`Secrets::hide`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_storage::disk::{Disk, OpenOptions};
use serde_json::Value;

use super::config::ConnectorConfig;
use super::secrets::Secrets;
use super::{ConnectorError, Context, Result};

/// The variable with the directory of `${secret:…}`.
pub const SECRETS_DIR: &str = "SECRETS_DIR";
/// The largest secret.
const MOST_BYTES: u64 = 1 << 20;

/// A configuration with its references resolved, and the secrets among them. The directory of secrets is on `secrets_disk`, other files on the context's.
///
/// # Errors
/// A variable or secret that is not there, or a `${` without its `}`.
pub fn resolve(
    config: &ConnectorConfig,
    context: &Context,
    secrets_disk: &Arc<dyn Disk>,
) -> Result<(ConnectorConfig, Secrets)> {
    let mut resolver = Resolver { context, secrets_disk, secrets: Secrets::default() };
    let mut config = config.clone();
    resolver.value(&mut config.transport.config)?;
    if let Some(format) = &mut config.format {
        resolver.value(&mut format.config)?;
    }
    Ok((config, resolver.secrets))
}

struct Resolver<'a> {
    context: &'a Context,
    secrets_disk: &'a Arc<dyn Disk>,
    secrets: Secrets,
}

impl Resolver<'_> {
    /// Resolves the references in every string.
    fn value(&mut self, value: &mut Value) -> Result<()> {
        match value {
            Value::String(s) if s.contains("${") => *s = self.text(s)?,
            Value::Array(items) => {
                for item in items {
                    self.value(item)?;
                }
            }
            Value::Object(map) => {
                for (_, item) in map {
                    self.value(item)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Resolves the references in one string.
    fn text(&mut self, text: &str) -> Result<String> {
        let fail = |what: String| ConnectorError::new(&self.context.name, what);
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(literal) = before.strip_suffix('$') {
                out.push_str(literal);
                out.push_str("${");
                rest = after;
                continue;
            }
            let Some((name, behind)) = after.split_once('}') else {
                return Err(fail(format!(
                    "\"{text}\" has a \"${{\" without its \"}}\"; write \"$${{\" for the plain text"
                )));
            };
            let found = match (name.strip_prefix("file:"), name.strip_prefix("secret:")) {
                (Some(path), _) => self.file(path),
                (_, Some(secret)) => self.secret(secret),
                _ => self.variable(name),
            };
            let found = found.map_err(|what| fail(format!("in \"{text}\": {what}")))?;
            if name.starts_with("file:") || name.starts_with("secret:") {
                self.secrets.add(&found, name);
            }
            out.push_str(before);
            out.push_str(&found);
            rest = behind;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        let variables = &self.context.variables;
        variables.get(name).cloned().ok_or_else(|| match name.strip_prefix("env:") {
            Some(env) => format!("the environment variable {env} is not set; set it, or write the value itself"),
            None if name == "DATA_DIR" => "there is no data directory: give --data-dir".to_owned(),
            None => {
                let known = variables.keys().map(String::as_str).filter(|k| !k.starts_with("env:"));
                let known = known.collect::<Vec<_>>().join(", ");
                format!("there is no variable {name}; there are ${{env:NAME}}, ${{file:/path}} and: {known}")
            }
        })
    }

    fn file(&self, path: &str) -> Result<String, String> {
        let mut text = self.read(&self.context.disk, &self.context.base_dir.join(path))?;
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(text)
    }

    fn secret(&self, reference: &str) -> Result<String, String> {
        let is_name = |part: &str| {
            let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty() && part.chars().all(is_known) && !part.chars().all(|c| c == '.')
        };
        let parts = reference.strip_prefix("kubernetes:").and_then(|rest| rest.split_once('/'));
        let Some((name, key)) = parts.filter(|(name, key)| is_name(name) && is_name(key)) else {
            return Err("a reference to a secret is ${secret:kubernetes:name/key}".to_owned());
        };
        let Some(dir) = self.context.variables.get(SECRETS_DIR) else {
            return Err("there is no directory of secrets here".to_owned());
        };
        self.read(self.secrets_disk, &PathBuf::from(dir).join("kubernetes").join(name).join(key))
    }

    /// The text of a small file. What is told of it is no part of it.
    fn read(&self, disk: &Arc<dyn Disk>, path: &Path) -> Result<String, String> {
        let fail = |e: backstay_storage::Error| format!("the secret cannot be read: {e}");
        let file = disk.open(path, OpenOptions::READ).map_err(fail)?;
        let len = file.len().map_err(fail)?;
        if len > MOST_BYTES {
            return Err(format!("{} has {len} bytes; a secret has at most {MOST_BYTES}", path.display()));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        let read = file.read_at(&mut bytes, 0).map_err(fail)?;
        bytes.truncate(read);
        String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::datatypes::Schema;

    use super::*;

    fn context(dir: &Path) -> Context {
        let variables = [("DATA_DIR", "/d"), ("env:X", "1"), (SECRETS_DIR, dir.to_str().unwrap())];
        let variables: BTreeMap<_, _> = variables.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let base_dir = dir.to_owned();
        Context { variables, base_dir, ..Context::of_format("t.c".into(), &Arc::new(Schema::empty())) }
    }

    fn text(text: &str, context: &Context) -> Result<String, String> {
        let mut resolver = Resolver { context, secrets_disk: &context.disk, secrets: Secrets::default() };
        resolver.text(text).map_err(|e| e.message)
    }

    #[test]
    fn variables() {
        let context = context(Path::new("/none"));
        let text = |t: &str| text(t, &context);
        assert_eq!(text("${DATA_DIR}/a${env:X}.csv").unwrap(), "/d/a1.csv");
        assert_eq!(text("$${DATA_DIR}").unwrap(), "${DATA_DIR}");
        assert!(text("${DATA}").unwrap_err().contains("DATA_DIR"));
        assert!(text("${env:Y}").unwrap_err().contains("Y is not set"));
        assert!(text("${DATA_DIR").unwrap_err().contains("without its"));
        let config = r#"[{"transport": {"name": "a", "config": {"paths": ["${DATA_DIR}/b"]}}}]"#;
        let config = ConnectorConfig::parse_list("t", config).unwrap().remove(0);
        assert_eq!(resolve(&config, &context, &context.disk).unwrap().0.transport.config["paths"][0], "/d/b");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a user's files")]
    fn secrets() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("kubernetes/name")).unwrap();
        std::fs::write(dir.path().join("kubernetes/name/key"), "k8s\n").unwrap();
        std::fs::write(dir.path().join("pw"), "hunter2\r\n").unwrap();
        std::fs::write(dir.path().join("bad"), [0xff]).unwrap();
        let context = context(dir.path());
        let text = |t: &str| text(t, &context);
        let absolute = dir.path().join("pw");
        assert_eq!(text(&format!("a${{file:{}}}b", absolute.display())).unwrap(), "ahunter2b");
        assert_eq!(text("${file:pw}").unwrap(), "hunter2");
        assert_eq!(text("${secret:kubernetes:name/key}").unwrap(), "k8s\n");
        for (wrong, said) in [
            ("${file:gone}", "gone"),
            ("${file:bad}", "not UTF-8"),
            ("${secret:kubernetes:name/other}", "other"),
            ("${secret:kubernetes:../pw}", "${secret:kubernetes:name/key}"),
            ("${secret:vault:a/b}", "${secret:kubernetes:name/key}"),
        ] {
            let e = text(wrong).unwrap_err();
            assert!(e.contains(said) && e.starts_with("in \"${"), "{wrong}: {e}");
        }
    }
}
