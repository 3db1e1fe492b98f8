//! The client of a service's REST API, for the commands.
//!
//! Exit codes: what the service refuses (4xx) is 2, as wrong usage is; that it cannot be reached, or failed, is 1.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Request, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Body};

use crate::cli::{Failure, read_text};

/// How long a connection, and the head of an answer, are waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a pipeline is looked at that something is awaited of.
const POLL: Duration = Duration::from_millis(100);
/// The most bytes of an answer that is read whole.
const WHOLE_BYTES: u64 = 256 << 20;

/// Which service is meant.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct Service {
    /// The service's address.
    #[arg(long, env = "BACKSTAY_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A key of its API.
    #[arg(long, env = "BACKSTAY_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Certificates (PEM) to be trusted in the place of the system's.
    #[arg(long, env = "BACKSTAY_CA_CERT", value_name = "FILE")]
    ca_cert: Option<PathBuf>,
}

/// A service that can be asked.
pub(in crate::cli) struct Client {
    agent: Agent,
    url: String,
    key: Option<String>,
}

impl Client {
    pub(in crate::cli) fn new(service: &Service) -> Result<Self, Failure> {
        let url = service.url.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Failure::usage(format!("--url {url}: expected http://… or https://…")));
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .max_redirects(0)
            .user_agent(concat!("backstay/", env!("CARGO_PKG_VERSION")));
        if url.starts_with("https://") {
            let tls = TlsConfig::builder()
                .provider(TlsProvider::Rustls)
                .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .root_certs(RootCerts::new_with_certs(&certificates(service)?));
            config = config.tls_config(tls.build());
        }
        Ok(Self { agent: config.build().new_agent(), url, key: service.api_key.clone() })
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let wrong = |e| Failure::usage(format!("--url or --api-key: {e}"));
        let answer = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json").body(body.to_string());
                self.agent.run(request.map_err(wrong)?)
            }
            None => self.agent.run(request.body(()).map_err(wrong)?),
        };
        let answer = answer.map_err(|e| {
            let e = e.to_string();
            let hint = match e.contains("CaUsedAsEndEntity") {
                true => "its certificate is an authority's (CA:TRUE), as `openssl req -x509` makes them: add -addext basicConstraints=critical,CA:FALSE",
                false => "is `backstay serve` running there?",
            };
            Failure::new(1, format!("{} cannot be asked: {e}; {hint}", self.url))
        })?;
        match answer.status().as_u16() {
            200..300 => Ok(answer),
            status => Err(refusal(status, &text(answer)?)),
        }
    }

    /// Asks, and reads the whole answer.
    pub(in crate::cli) fn text(&self, method: &str, path: &str, body: Option<&Value>) -> Result<String, Failure> {
        text(self.call(method, path, body)?)
    }

    /// Asks, and reads the answer as JSON; null if there is none.
    pub(in crate::cli) fn json(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let text = self.text(method, path, body)?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|e| Failure::new(1, format!("{}{path} answers no JSON: {e}", self.url)))
    }

    /// Asks, and gives the answer as it comes.
    pub(in crate::cli) fn stream(&self, path: &str) -> Result<impl BufRead + use<>, Failure> {
        Ok(BufReader::new(self.call("GET", path, None)?.into_body().into_reader()))
    }

    /// Asks until `is_so` says yes of the answer, or why it never will.
    pub(in crate::cli) fn wait(
        &self,
        path: &str,
        mut is_so: impl FnMut(&Value) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let clock = crate::pipeline::SystemClock::new();
        while !is_so(&self.json("GET", path, None)?)? {
            crate::pipeline::Clock::sleep(&clock, POLL);
        }
        Ok(())
    }
}

/// The path of a pipeline.
pub(in crate::cli) fn of(name: &str) -> String {
    format!("/v0/pipelines/{}", escaped(name))
}

/// The path of a pipeline's status.
pub(in crate::cli) fn status_of(name: &str) -> String {
    format!("{}?selector=status", of(name))
}

/// Text as a part of a path or query.
pub(in crate::cli) fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

fn certificates(service: &Service) -> Result<Vec<Certificate<'static>>, Failure> {
    let Some(path) = &service.ca_cert else {
        let known = rustls_native_certs::load_native_certs().certs;
        return Ok(known.iter().map(|c| Certificate::from_der(c).to_owned()).collect());
    };
    let text = read_text(path, "certificates")?;
    let wrong = || Failure::usage(format!("--ca-cert {}: there is no certificate (PEM) in it", path.display()));
    let mut found = Vec::new();
    for item in parse_pem(text.as_bytes()) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| wrong())? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(wrong()) } else { Ok(found) }
}

fn text(answer: Response<Body>) -> Result<String, Failure> {
    let mut text = String::new();
    let read = answer.into_body().into_with_config().limit(WHOLE_BYTES).reader().read_to_string(&mut text);
    read.map_err(|e| Failure::new(1, format!("the answer was cut off: {e}")))?;
    Ok(text)
}

/// What the service says against it.
fn refusal(status: u16, body: &str) -> Failure {
    let said = serde_json::from_str::<Value>(body).ok();
    let message = said.as_ref().and_then(|body| body.get("message")).and_then(Value::as_str);
    let message = message.map_or_else(|| format!("the service answers {status}: {body}"), str::to_owned);
    Failure::new(if (400..500).contains(&status) { 2 } else { 1 }, message)
}
