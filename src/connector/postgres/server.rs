//! The server of a connector: what `uri` says, and how TLS is spoken with it.
//!
//! Settings: `uri`, and Feldera's for TLS: `ssl_ca_location` or `ssl_ca_pem`, `ssl_client_location` or `ssl_client_pem`, `ssl_client_key_location` or
//! `ssl_client_key`, and `verify_hostname`. libpq's options of a `uri` say the same: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`.
//!
//! Invariant: no text that leaves this file holds the password. What is told of the connection is put together from its parts; a `uri`
//! that does not parse is not shown, as its parts are not known.

use std::time::Duration;

use pgwire_replication::{ReplicationConfig, TlsConfig};
use tokio_postgres::config::{Host, SslMode};
use url::form_urlencoded;

use super::tls::{Check, Pem, Tls};
use crate::connector::options::{Options, suggestion};
use crate::connector::{Context, Result};

/// How long a connection may take to come about, unless `uri` says otherwise.
const CONNECT: Duration = Duration::from_secs(5);
/// After how long without an answer a connection is taken for dead.
const DEAD: Duration = Duration::from_secs(15);

/// How often a server whose log is read is told how far.
const STATUS: Duration = Duration::from_secs(2);

/// The settings that say which server, and how to speak to it.
pub(in crate::connector) const KEYS: [&str; 8] = [
    "uri",
    "ssl_ca_location",
    "ssl_ca_pem",
    "ssl_client_location",
    "ssl_client_pem",
    "ssl_client_key_location",
    "ssl_client_key",
    "verify_hostname",
];
/// libpq's options that tokio-postgres does not know, or knows a part of.
const OF_TLS: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];
/// What `sslmode` may be.
const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// A server, and how it is spoken to.
#[derive(Clone, Debug)]
pub(in crate::connector) struct Server {
    /// The connection; its own `Debug` leaves the password out.
    pub(in crate::connector) config: tokio_postgres::Config,
    /// `host:port/database`.
    pub(in crate::connector) place: String,
    pub(super) tls: Tls,
}

impl Server {
    /// Reads the settings; files are read when it is connected to.
    pub(in crate::connector) fn new(options: &Options<'_>, ctx: &Context) -> Result<Self> {
        let (uri, of_tls) = parted(options.require_string("uri")?);
        let mut config: tokio_postgres::Config = uri.parse().map_err(|error| {
            options.error(format!(
                "\"uri\" is not one of PostgreSQL's (postgresql://user:password@host:port/database){}; in user name and password \
                 special characters are written %XX",
                unknown_option(&error)
            ))
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(options.error("\"uri\" names no host"));
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(DEAD);
        }
        config.keepalives_idle(config.get_keepalives_idle().min(DEAD));
        if config.get_application_name().is_none() {
            config.application_name("backstay");
        }
        let tls = tls(options, ctx, &mut config, &of_tls)?;
        Ok(Self { place: place_of(&config), config, tls })
    }
}

impl Server {
    /// The same server for the replication protocol. Of several hosts the first one is taken.
    pub(in crate::connector) fn replication(&self, slot: &str, publication: &str) -> Result<ReplicationConfig, String> {
        let config = &self.config;
        let host = match (config.get_hostaddrs().first(), config.get_hosts().first()) {
            (Some(address), _) => address.to_string(),
            (None, Some(Host::Tcp(name))) => name.clone(),
            #[cfg(unix)]
            (None, Some(Host::Unix(path))) => path.display().to_string(),
            (None, None) => return Err("\"uri\" names no host".to_owned()),
        };
        let Some(user) = config.get_user() else { return Err("\"uri\" names no user".to_owned()) };
        let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
        let database = config.get_dbname().unwrap_or(user);
        let mut made = ReplicationConfig::new(host, user, password, database, slot, publication);
        made.port = config.get_ports().first().copied().unwrap_or(5432);
        made.status_interval = STATUS;
        made.application_name = Some("backstay".to_owned());
        made.tls = self.replication_tls(&made.host)?;
        Ok(made)
    }

    /// TLS for it: the same, but that the library reads its files itself, which [`connect`](super::session::Session::connect) has read by the disk before, and
    /// that it knows other authorities of the system's.
    fn replication_tls(&self, host: &str) -> Result<TlsConfig, String> {
        let mode = match (self.config.get_ssl_mode(), self.tls.check) {
            (SslMode::Disable, _) => return Ok(TlsConfig::disabled()),
            (SslMode::Require, Check::Nothing) => pgwire_replication::SslMode::Require,
            (SslMode::Require, Check::Authority) => pgwire_replication::SslMode::VerifyCa,
            (SslMode::Require, Check::Host) => pgwire_replication::SslMode::VerifyFull,
            _ => pgwire_replication::SslMode::Prefer,
        };
        let file = |pem: &Pem| match pem {
            Pem::File(path) => Ok(path.clone()),
            Pem::Text(_) => {
                Err("the server's log is read with certificates and keys in files: name them by ssl_ca_location, \
                                 ssl_client_location and ssl_client_key_location"
                    .to_owned())
            }
        };
        let authority = self.tls.authority.as_ref().map(file).transpose()?;
        if mode.verifies_certificate() && authority.is_none() {
            return Err("the server's log is read with an authority in a file: name it by sslrootcert in \"uri\" or by ssl_ca_location (the \
                        system's are in /etc/ssl/certs/ca-certificates.crt, as Debian has it)"
                .to_owned());
        }
        let client =
            self.tls.client.as_ref().map(|(certificate, key)| Ok::<_, String>((file(certificate)?, file(key)?)));
        let (certificate, key) = client.transpose()?.unzip();
        let name = self.config.get_hosts().iter().find_map(|host| match host {
            Host::Tcp(name) => Some(name.as_str()),
            #[cfg(unix)]
            Host::Unix(_) => None,
        });
        Ok(TlsConfig {
            mode,
            ca_pem_path: authority,
            sni_hostname: Some(name.unwrap_or(host).to_owned()),
            client_cert_pem_path: certificate,
            client_key_pem_path: key,
        })
    }
}

/// A URI without its options about TLS, and these.
fn parted(uri: &str) -> (String, Vec<(String, String)>) {
    let Some((front, query)) = uri.split_once('?') else { return (uri.to_owned(), Vec::new()) };
    let is_tls = |option: &&str| OF_TLS.contains(&option.split('=').next().unwrap_or_default());
    let (of_tls, others): (Vec<&str>, Vec<&str>) = query.split('&').partition(is_tls);
    // A plus is itself in these URIs.
    let of_tls = of_tls.join("&").replace('+', "%2B");
    let of_tls = form_urlencoded::parse(of_tls.as_bytes()).into_owned().collect();
    let others = if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) };
    (format!("{front}{others}"), of_tls)
}

/// What the settings say of TLS; the mode goes into `config`.
fn tls(
    options: &Options<'_>,
    ctx: &Context,
    config: &mut tokio_postgres::Config,
    of_uri: &[(String, String)],
) -> Result<Tls> {
    let option = |name: &str| of_uri.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    // A file or a text, by the name that libpq or Feldera gives it.
    let pem = |of_libpq: &str, location: &str, text: &str| -> Result<Option<Pem>> {
        let given = [
            option(of_libpq).map(|path| Pem::File(ctx.base_dir.join(path))),
            options.string(location)?.map(|path| Pem::File(ctx.base_dir.join(path))),
            options.string(text)?.map(|text| Pem::Text(text.to_owned())),
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.next()) {
            (first, None) => Ok(first),
            _ => Err(options.error(format!("\"{location}\", \"{text}\" and {of_libpq} of \"uri\" exclude each other"))),
        }
    };
    let authority = match option("sslrootcert") {
        Some("system") => None,
        _ => pem("sslrootcert", "ssl_ca_location", "ssl_ca_pem")?,
    };
    let certificate = pem("sslcert", "ssl_client_location", "ssl_client_pem")?;
    let key = pem("sslkey", "ssl_client_key_location", "ssl_client_key")?;
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(options.error("a client's certificate and its key need each other")),
    };
    let verify = options.bool("verify_hostname")?;
    let by_authority = if verify == Some(false) { Check::Authority } else { Check::Host };
    let mode = option("sslmode");
    let (mode, check) = match mode {
        Some("disable") => (SslMode::Disable, Check::Nothing),
        // With an authority to check it by, as Feldera does it.
        None if authority.is_some() => (SslMode::Require, by_authority),
        None | Some("allow" | "prefer") => (SslMode::Prefer, Check::Nothing),
        // As libpq does it.
        Some("require") if authority.is_some() => (SslMode::Require, Check::Authority),
        Some("require") => (SslMode::Require, Check::Nothing),
        Some("verify-ca") => (SslMode::Require, Check::Authority),
        Some("verify-full") => (SslMode::Require, Check::Host),
        Some(other) => {
            let hint = suggestion(other, &MODES);
            return Err(options.error(format!("\"uri\": there is no sslmode={other}; {hint}")));
        }
    };
    if verify == Some(true) && check != Check::Host {
        return Err(options.error("\"verify_hostname\" needs sslmode=verify-full in \"uri\""));
    }
    config.ssl_mode(mode);
    Ok(Tls { check, authority, client, disk: std::sync::Arc::clone(&ctx.disk) })
}

/// Options of libpq's that may be named without giving anything away.
fn unknown_option(error: &tokio_postgres::Error) -> String {
    const LIBPQ: &[&str] = &[
        "sslcrl",
        "sslpassword",
        "gssencmode",
        "krbsrvname",
        "service",
        "passfile",
        "requirepeer",
        "fallback_application_name",
        "client_encoding",
        "replication",
        "port",
        "connect_timeout",
    ];
    let text = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    LIBPQ
        .iter()
        .find(|option| text.contains(&format!("`{option}`")))
        .map(|option| format!(": its option {option} is not known, or has no such value"))
        .unwrap_or_default()
}

fn place_of(server: &tokio_postgres::Config) -> String {
    let ports = server.get_ports();
    let hosts: Vec<String> = server
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let hosts = if hosts.is_empty() { server.get_hostaddrs().iter().map(ToString::to_string).collect() } else { hosts };
    let with_port = hosts.iter().enumerate().map(|(i, host)| {
        let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
        format!("{host}:{port}")
    });
    let hosts = with_port.collect::<Vec<_>>().join(",");
    match server.get_dbname().or(server.get_user()) {
        Some(database) => format!("{hosts}/{database}"),
        None => hosts,
    }
}

#[cfg(test)]
mod tests {
    use backstay_storage::disk::SimDisk;
    use serde_json::{Value, json};

    use super::*;
    use crate::connector::testing::{context, schema};

    fn server(settings: &Value) -> Result<Server> {
        let ctx = context(std::sync::Arc::new(SimDisk::new(1)), schema());
        Server::new(&Options::new(&ctx.name, "config", settings, &KEYS, &[])?, &ctx)
    }

    #[test]
    fn options_of_tls_are_read_wherever_they_stand() {
        let of = |uri: &str| server(&json!({"uri": uri})).unwrap();
        let plain = of("postgresql://me:secret@h/d?connect_timeout=3");
        assert_eq!((plain.config.get_ssl_mode(), plain.tls.check), (SslMode::Prefer, Check::Nothing));
        assert_eq!(plain.place, "h:5432/d");
        let full = of("postgresql://me:secret@h/d?sslmode=verify-full&connect_timeout=3&sslrootcert=a%20b+c.pem");
        assert_eq!((full.config.get_ssl_mode(), full.tls.check), (SslMode::Require, Check::Host));
        assert_eq!(full.tls.authority, Some(Pem::File("/data/a b+c.pem".into())));
        assert_eq!(full.config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(of("postgresql://h/d?sslmode=require&sslrootcert=/a").tls.check, Check::Authority);
        assert_eq!(of("postgresql://h/d?sslmode=require").tls.check, Check::Nothing);
        assert_eq!(of("postgresql://h/d?sslmode=verify-ca&sslrootcert=system").tls.authority, None);
        let theirs = server(&json!({"uri": "postgresql://h/d", "ssl_ca_pem": "x", "verify_hostname": false})).unwrap();
        assert_eq!((theirs.config.get_ssl_mode(), theirs.tls.check), (SslMode::Require, Check::Authority));

        let error = |settings: Value| server(&settings).unwrap_err().to_string();
        let e = error(json!({"uri": "postgresql://me:secret@h/d?sslmode=verify-fully"}));
        assert!(e.contains("did you mean \"verify-full\"?") && !e.contains("secret"), "{e}");
        let e = error(json!({"uri": "postgresql://h/d?sslrootcert=a", "ssl_ca_location": "b"}));
        assert!(e.contains("exclude each other"), "{e}");
        assert!(error(json!({"uri": "postgresql://h/d?sslcert=a"})).contains("need each other"));
        assert!(error(json!({"uri": "postgresql://h/d", "verify_hostname": true})).contains("verify-full"));
        assert!(error(json!({"uri": "postgresql://h/d?gssencmode=x"})).contains("its option gssencmode"));
    }
}
