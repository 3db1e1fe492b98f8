//! A schema registry (Confluent's, or what speaks its protocol): schemas by id, and ids of schemas.
//!
//! Settings, as Feldera's: `registry_urls`, `registry_username` with `registry_password`, or `registry_authorization_token`, `registry_headers`,
//! `registry_timeout_secs` (10).
//!
//! Invariant: an id means one schema for ever, so what was found is not asked for again. No error shows a password, a token, or the user of a URL.

use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Uri;

use crate::connector::options::Options;
use crate::connector::{ConnectorError, Result, http};

/// The settings of a registry.
pub(super) const KEYS: [&str; 6] = [
    "registry_urls",
    "registry_username",
    "registry_password",
    "registry_authorization_token",
    "registry_headers",
    "registry_timeout_secs",
];
/// The longest answer.
const MOST: u64 = 8 << 20;
/// What registries call their JSON.
const JSON: &str = "application/vnd.schemaregistry.v1+json";

/// Answers are asked for at one URL after the other.
pub(super) struct Registry {
    connector: String,
    urls: Vec<String>,
    headers: Vec<(String, String)>,
    timeout: Duration,
    agent: OnceLock<Agent>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("connector", &self.connector).finish_non_exhaustive()
    }
}

/// Status and content of an answer.
type Answer = (u16, Value);

impl Registry {
    /// The registry of a configuration, if it names one.
    pub(super) fn new(options: &Options<'_>, connector: &str) -> Result<Option<Self>> {
        let urls = options.strings("registry_urls")?.unwrap_or_default();
        if urls.is_empty() {
            return match KEYS.iter().skip(1).find(|key| options.value(key).is_some()) {
                Some(key) => Err(options.error(format!("\"{key}\" needs \"registry_urls\""))),
                None => Ok(None),
            };
        }
        for url in &urls {
            let uri: Option<Uri> = url.parse().ok();
            if uri.is_none_or(|u| !matches!(u.scheme_str(), Some("http" | "https")) || u.host().is_none()) {
                let message = "\"registry_urls\" must be a list of URLs, such as [\"http://localhost:8081\"]";
                return Err(options.error(message));
            }
        }
        let mut headers = vec![("Accept".to_owned(), JSON.to_owned())];
        let user = (options.string("registry_username")?, options.string("registry_password")?);
        match (user, options.string("registry_authorization_token")?) {
            ((None, None), None) => {}
            ((Some(user), password), None) => {
                let pair = format!("{user}:{}", password.unwrap_or_default());
                headers.push(("Authorization".to_owned(), format!("Basic {}", STANDARD.encode(pair))));
            }
            ((None, None), Some(token)) => headers.push(("Authorization".to_owned(), format!("Bearer {token}"))),
            ((None, Some(_)), _) => return Err(options.error("\"registry_password\" needs \"registry_username\"")),
            _ => {
                let message = "\"registry_username\" and \"registry_authorization_token\" exclude each other";
                return Err(options.error(message));
            }
        }
        match options.value("registry_headers") {
            None | Some(Value::Null) => {}
            Some(Value::Object(map)) => {
                for (name, value) in map {
                    let Value::String(value) = value else {
                        return Err(options.error(format!("\"registry_headers\": \"{name}\" must be a string")));
                    };
                    headers.push((name.clone(), value.clone()));
                }
            }
            Some(_) => return Err(options.error("\"registry_headers\" must be an object of strings")),
        }
        let timeout = Duration::from_secs(options.u64("registry_timeout_secs")?.unwrap_or(10));
        Ok(Some(Self { connector: connector.to_owned(), urls, headers, timeout, agent: OnceLock::new() }))
    }

    /// The schema of an id; `Err` within: the registry says that it has none that can be used, and why.
    pub(super) fn schema(&self, id: u32) -> Result<Result<String, String>> {
        let (status, answer) = self.ask(&format!("schemas/ids/{id}"), None)?;
        let kind = answer.get("schemaType").and_then(Value::as_str).unwrap_or("AVRO");
        let references = answer.get("references").and_then(Value::as_array).is_some_and(|r| !r.is_empty());
        Ok(match (status, answer.get("schema").and_then(Value::as_str)) {
            (200, Some(_)) if kind != "AVRO" => Err(format!("schema {id} of the registry is of type {kind}, not AVRO")),
            (200, Some(_)) if references => {
                Err(format!("schema {id} of the registry refers to others, which is not supported yet"))
            }
            (200, Some(schema)) => Ok(schema.to_owned()),
            (404, _) => Err(format!("the registry has no schema {id}")),
            _ => return Err(self.refused(&format!("schema {id}"), status, &answer)),
        })
    }

    /// Makes a schema a version of a subject, or finds it there; gives its id.
    pub(super) fn register(&self, subject: &str, schema: &str) -> Result<u32> {
        let name: String =
            url::form_urlencoded::byte_serialize(subject.as_bytes()).collect::<String>().replace('+', "%20");
        let (status, answer) = self.ask(&format!("subjects/{name}/versions"), Some(&json!({"schema": schema})))?;
        let id = answer.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        match (status, id) {
            (200 | 201, Some(id)) => Ok(id),
            _ => Err(self.refused(&format!("the schema of subject {subject}"), status, &answer)),
        }
    }

    /// An answer that is none that was hoped for.
    fn refused(&self, what: &str, status: u16, answer: &Value) -> ConnectorError {
        let said = answer.get("message").and_then(Value::as_str).unwrap_or("no reason");
        let retry = matches!(status, 408 | 429 | 500..=599);
        let fix = match status {
            401 | 403 => {
                "; correct \"registry_username\" and \"registry_password\", or \"registry_authorization_token\""
            }
            409 => "; give the subject another compatibility level, or the view its old columns",
            _ => "",
        };
        let message = format!("the schema registry at {} refuses {what}: {status}, {said}{fix}", self.places());
        ConnectorError { retry, ..ConnectorError::new(&self.connector, message) }
    }

    /// The URLs without what may be secret.
    fn places(&self) -> String {
        let place = |url: &String| {
            let uri: Uri = url.parse().unwrap_or_default();
            let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}{port}", uri.host().unwrap_or_default())
        };
        self.urls.iter().map(place).collect::<Vec<_>>().join(", ")
    }

    fn ask(&self, path: &str, body: Option<&Value>) -> Result<Answer> {
        let error = |message: &str, retry| {
            let message = format!("the schema registry at {}: {message}", self.places());
            ConnectorError { retry, ..ConnectorError::new(&self.connector, message) }
        };
        let mut last = error("there is none", false);
        for url in &self.urls {
            let agent = match self.agent.get() {
                Some(agent) => agent,
                None => {
                    let made = http::agent(url, self.timeout).map_err(|e| error(e, false))?;
                    self.agent.get_or_init(|| made)
                }
            };
            match self.ask_at(agent, &format!("{}/{path}", url.trim_end_matches('/')), body) {
                // Another one may know better.
                Ok((status, answer)) if status >= 500 => last = self.refused(path, status, &answer),
                Ok(answer) => return Ok(answer),
                Err(e) => {
                    let (message, retry) = http::explain(&e);
                    last = error(&message, retry);
                }
            }
        }
        Err(last)
    }

    fn ask_at(&self, agent: &Agent, url: &str, body: Option<&Value>) -> Result<Answer, ureq::Error> {
        let mut response = match body {
            None => {
                let request = self.headers.iter().fold(agent.get(url), |r, (name, value)| r.header(name, value));
                request.call()?
            }
            Some(body) => {
                let request = self.headers.iter().fold(agent.post(url), |r, (name, value)| r.header(name, value));
                request.header("Content-Type", JSON).send(body.to_string())?
            }
        };
        let text = response.body_mut().with_config().limit(MOST).read_to_vec()?;
        Ok((response.status().as_u16(), serde_json::from_slice(&text).unwrap_or(Value::Null)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let error = |settings: Value| {
            let options = Options::new("t.c", "format.config of avro", &settings, &KEYS, &[]).unwrap();
            Registry::new(&options, "t.c").unwrap_err().to_string()
        };
        assert!(error(json!({"registry_username": "a"})).contains("needs \"registry_urls\""));
        assert!(error(json!({"registry_urls": ["localhost:8081"]})).contains("must be a list of URLs"));
        let both =
            json!({"registry_urls": ["http://h"], "registry_username": "a", "registry_authorization_token": "b"});
        assert!(error(both).contains("exclude each other"));
    }
}
