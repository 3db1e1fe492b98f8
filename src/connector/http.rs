//! A client for HTTP servers: TLS by rustls with the system's certificates, proxies of the environment, bounded waits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Error};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// A client for a URL; an answer, and each piece of it, may take as long as `answer`.
pub(super) fn agent(url: &str, answer: Duration) -> Result<Agent, &'static str> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT.min(answer)))
        .timeout_recv_response(Some(answer))
        .timeout_per_read(Some(answer))
        .accept_encoding("identity")
        .user_agent(concat!("backstay/", env!("CARGO_PKG_VERSION")));
    // A plain server may send on to one with TLS; without certificates that fails when it comes to it.
    let certificates: Vec<Certificate<'static>> =
        rustls_native_certs::load_native_certs().certs.iter().map(|c| Certificate::from_der(c).to_owned()).collect();
    if certificates.is_empty() && url.starts_with("https") {
        return Err("https needs the system's certificates, and there are none: install the package ca-certificates");
    }
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&certificates));
    Ok(config.tls_config(tls.build()).build().new_agent())
}

/// What an error says, without the URL, which may hold secrets, and whether it may pass by itself.
pub(super) fn explain(error: &Error) -> (String, bool) {
    match error {
        // What is wrong with a certificate stays wrong.
        Error::Io(e) => (e.to_string(), e.kind() != io::ErrorKind::InvalidData),
        Error::Timeout(_) => ("the server does not answer in time".to_owned(), true),
        Error::HostNotFound => ("there is no such host, or no answer from the name server".to_owned(), true),
        Error::ConnectionFailed => ("no connection".to_owned(), true),
        Error::Protocol(e) => (e.to_string(), true),
        Error::BodyExceedsLimit(_) => ("the server sends more than was asked for".to_owned(), false),
        Error::BadUri(_) | Error::Http(_) => ("the server sends on to what is no URL".to_owned(), false),
        other => (other.to_string(), false),
    }
}
