//! TLS, client certificates and passwords, against a real broker.

use std::path::PathBuf;
use std::time::Duration;

use super::broker::{Broker, ids};
use crate::process::Running;

const PATIENCE: Duration = Duration::from_secs(60);

/// A program that copies `in` to topic `out`, at an address and with settings of librdkafka's (`"key": "value", …`).
struct Copier(tempfile::TempDir);

impl Copier {
    fn new(address: &str, settings: &str, out: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let server = format!(r#""bootstrap.servers": "{address}", {settings}"#);
        let sql = format!(
            r#"CREATE TABLE t (id BIGINT NOT NULL) WITH ('connectors' = '[{{"name": "in", "transport": {{"name": "kafka_input", "config":
            {{{server}, "topic": "in"}}}}, "format": {{"name": "json", "config": {{"update_format": "raw"}}}}}}]');
            CREATE VIEW v WITH ('connectors' = '[{{"name": "out", "transport": {{"name": "kafka_output", "config": {{{server}, "topic": "{out}",
            "initialization_timeout_secs": 5}}}}, "format": {{"name": "json"}}}}]') AS SELECT id FROM t;"#
        );
        std::fs::write(temp.path().join("p.sql"), sql).unwrap();
        std::fs::write(temp.path().join("p.config.json"), r#"{"storage": true, "fault_tolerance": true}"#).unwrap();
        Self(temp)
    }

    fn start(&self) -> Running {
        let path = |name: &str| -> PathBuf { self.0.path().join(name) };
        Running::start(&path("p.sql"), &path("data"), &["--workers", "1"])
    }
}

fn tls(broker: &Broker, authority: &str) -> String {
    format!(r#""security.protocol": "SSL", "ssl.ca.location": "{}""#, broker.certificate(authority))
}

fn password(broker: &Broker, mechanism: &str, password: &str) -> String {
    let tls = tls(broker, "ca.pem").replace("SSL", "SASL_SSL");
    format!(r#"{tls}, "sasl.mechanism": "{mechanism}", "sasl.username": "tester", "sasl.password": "{password}""#)
}

fn client(broker: &Broker) -> String {
    let (certificate, key) = (broker.certificate("client.pem"), broker.certificate("client.key"));
    format!(r#"{}, "ssl.certificate.location": "{certificate}", "ssl.key.location": "{key}""#, tls(broker, "ca.pem"))
}

#[test]
fn topics_are_copied_by_tls_with_certificates_and_with_passwords() {
    let Some(broker) = Broker::start_secure() else { return };
    let [plain, clients, sasl] = broker.secure.as_slice() else { panic!("{:?}", broker.secure) };
    let ways = [
        ("tls", plain, tls(&broker, "ca.pem")),
        ("client", clients, client(&broker)),
        ("plain", sasl, password(&broker, "PLAIN", "secret/7")),
        ("scram256", sasl, password(&broker, "SCRAM-SHA-256", "secret/7")),
        ("scram512", sasl, password(&broker, "SCRAM-SHA-512", "secret/7")),
    ];
    broker.create(&[("in", 1), ("tls", 1), ("client", 1), ("plain", 1), ("scram256", 1), ("scram512", 1)]);
    broker.send("in", &ids(0..10));
    let copiers = ways.map(|(name, address, settings)| (name, Copier::new(address, &settings, name)));
    let count = |topic: &str| broker.read(topic).values().map(Vec::len).sum::<usize>();
    for (name, copier) in &copiers {
        let mut running = copier.start();
        running.wait_until(name, PATIENCE, || count(name) == 10);
        running.kill();
    }
    broker.send("in", &ids(10..20));
    for (name, copier) in &copiers {
        let mut running = copier.start();
        running.wait_until(name, PATIENCE, || count(name) >= 20);
        running.stop();
        assert_eq!(count(name), 20, "{name}");
    }
}

#[test]
fn a_wrong_certificate_or_password_is_told() {
    let Some(broker) = Broker::start_secure() else { return };
    let [plain, clients, sasl] = broker.secure.as_slice() else { panic!("{:?}", broker.secure) };
    broker.create(&[("in", 1), ("out", 1)]);
    let missing = broker.certificate("nobody.pem");
    let cases = [
        (plain, tls(&broker, "stranger.pem"), "broker certificate could not be verified"),
        (plain, r#""security.protocol": "SSL""#.to_owned(), "broker certificate could not be verified"),
        (plain, tls(&broker, "nobody.pem"), missing.as_str()),
        (clients, tls(&broker, "ca.pem"), "certificate"),
        (sasl, password(&broker, "PLAIN", "wrong"), "Authentication failed"),
        (sasl, password(&broker, "SCRAM-SHA-512", "wrong"), "Authentication failed"),
        (sasl, password(&broker, "GSSAPI", "wrong"), "GSSAPI"),
    ];
    for (address, settings, words) in cases {
        let said = Copier::new(address, &settings, "out").start().fails(PATIENCE);
        assert!(said.contains(words), "no \"{words}\" in: {said}");
        assert!(!said.contains("secret/7") && !said.contains("wrong\""), "the password: {said}");
    }
}
