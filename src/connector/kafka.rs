//! What `kafka_input` and `kafka_output` share: librdkafka's settings, its clients, and which of its errors pass.
//!
//! Settings that are not the connector's own go to librdkafka as they stand (`bootstrap.servers`, `security.protocol`, …), which refuses
//! what it does not know. Some are ours to decide, since exactly-once rests on them. TLS is by the OpenSSL that is linked in; certificates are the
//! system's unless `ssl.ca.location` or `ssl.ca.pem` say which.
//!
//! Limit: no Kerberos (`GSSAPI`), and no `OAUTHBEARER` by OIDC (librdkafka is built without them).

mod topic_ids;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, DeliveryResult};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use serde_json::Value;

use super::{ConnectorError, Result};
pub(super) use topic_ids::{MadeAnew, TopicIds};

/// How long one request to the brokers is waited for.
pub(super) const REQUEST: Duration = Duration::from_secs(10);

/// How many of a client's events are looked at for why it has no connection.
const EVENTS: usize = 16;

/// Settings that the connectors decide themselves.
const RESERVED: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "request.required.acks",
    "transactional.id",
];

/// Keeps what librdkafka says of its connections: a request that had no answer does not say why. And of topics' ids, if it was asked to.
#[derive(Debug, Default)]
pub(super) struct Said {
    trouble: Mutex<Option<(Code, String)>>,
    pub(super) ids: TopicIds,
}

impl ClientContext for Said {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.ids.hear(line);
        if (level as i32) <= RDKafkaLogLevel::Critical as i32 {
            tracing::error!(target: "librdkafka", "{facility} {line}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // That all are down comes after why they are.
        if let Some(code) = code(&error).filter(|code| *code != Code::AllBrokersDown) {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Said {}

impl ProducerContext for Said {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// A consumer that knows why it cannot connect.
pub(super) type Consumer = BaseConsumer<Said>;
/// Such a producer.
pub(super) type Producer = BaseProducer<Said>;

/// Makes a client.
pub(super) fn client<T: rdkafka::config::FromClientConfigAndContext<Said>>(
    settings: &ClientConfig,
) -> Result<T, KafkaError> {
    settings.create_with_context(Said::default())
}

/// What a consumer has now: a message, an error, nothing.
pub(super) fn poll(consumer: &Consumer) -> Option<Result<BorrowedMessage<'_>, KafkaError>> {
    loop {
        let lines = consumer.context().ids.lines();
        let polled = consumer.poll(Duration::ZERO);
        // It is nothing, too, if a line of the log stood there.
        if polled.is_some() || consumer.context().ids.lines() == lines {
            return polled;
        }
    }
}

/// Parts the settings of a connector: those with keys of `own`, as they stand, and all others, which are librdkafka's.
pub(super) fn settings(connector: &str, place: &str, config: &Value, own: &[&str]) -> Result<(Value, ClientConfig)> {
    let error = |message: String| ConnectorError::new(connector, format!("{place}: {message}"));
    let empty = serde_json::Map::new();
    let map = match config {
        Value::Object(map) => map,
        Value::Null => &empty,
        _ => return Err(error("it must be a JSON object".to_owned())),
    };
    let mut ours = serde_json::Map::new();
    let mut settings = ClientConfig::new();
    for (key, value) in map {
        if own.contains(&key.as_str()) {
            ours.insert(key.clone(), value.clone());
            continue;
        }
        if RESERVED.contains(&key.as_str()) {
            return Err(error(format!(
                "\"{key}\" is the connector's own to decide, exactly-once rests on it; leave it out"
            )));
        }
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(error(format!("\"{key}\" must be a string, a number, true or false"))),
        };
        settings.set(key, text);
    }
    if settings.get("bootstrap.servers").is_none_or(str::is_empty) {
        return Err(error("\"bootstrap.servers\" is missing, such as \"localhost:9092\"".to_owned()));
    }
    let is_tls = settings.get("security.protocol").is_some_and(|p| p.to_ascii_lowercase().ends_with("ssl"));
    if is_tls && settings.get("ssl.ca.location").is_none() && settings.get("ssl.ca.pem").is_none() {
        // Where distributions keep them, not where this OpenSSL was built to look.
        settings.set("ssl.ca.location", "probe");
    }
    // What librdkafka does not know is told now, not when the first message comes.
    let made: Result<BaseConsumer, KafkaError> = settings.create();
    // A file that cannot be read is named by its setting only.
    let file = |text: &str| {
        let mut files =
            settings.config_map().into_iter().filter(|(key, _)| key.ends_with(".location") && text.contains(key));
        files.next().map(|(_, path)| format!(" ({path})")).unwrap_or_default()
    };
    made.map_err(|e| match e {
        // Without the value, which may be a secret.
        KafkaError::ClientConfig(_, what, key, _) => error(format!("\"{key}\": {}", what.trim())),
        other => error(format!("{other}{}", file(&other.to_string()))),
    })?;
    settings.set_log_level(RDKafkaLogLevel::Critical);
    Ok((Value::Object(ours), settings))
}

/// Whether an error stays whatever is tried: what is wrong is the configuration, the permissions or the data.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::InvalidTopic
            | Code::InvalidTransactionTimeout
            | Code::MessageSizeTooLarge
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::PolicyViolation
            | Code::InvalidRecord
            | Code::NotImplemented
    )
}

/// Code of an error.
pub(super) fn code(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::Transaction(e) => Some(e.code()),
        other => other.rdkafka_error_code(),
    }
}

/// An error of the brokers', in the connector's words; most pass by themselves.
pub(super) fn failed(connector: &str, what: &str, error: &KafkaError) -> ConnectorError {
    let retry = !code(error).is_some_and(is_final);
    let text = match error {
        KafkaError::Transaction(e) => e.to_string(),
        other => other.rdkafka_error_code().map_or_else(|| other.to_string(), |code| code.to_string()),
    };
    ConnectorError { connector: connector.to_owned(), message: format!("cannot {what}: {text}"), retry }
}

/// As [`failed`], of a request that a consumer without an assignment made: it is asked why.
pub(super) fn unanswered(connector: &str, what: &str, error: &KafkaError, consumer: &Consumer) -> ConnectorError {
    // What it has to say comes where messages would, of which there are none.
    (0..EVENTS).for_each(|_| drop(poll(consumer)));
    explained(failed(connector, what, error), consumer.context())
}

/// As [`unanswered`], for a producer.
pub(super) fn unanswered_by(connector: &str, what: &str, error: &KafkaError, producer: &Producer) -> ConnectorError {
    producer.poll(Duration::ZERO);
    explained(failed(connector, what, error), producer.context())
}

/// An error with what was last said of the connections. Where no broker is reached, what is wrong with certificates or passwords stays wrong.
fn explained(error: ConnectorError, said: &Said) -> ConnectorError {
    let said = said.trouble.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((code, reason)) = said.as_ref().filter(|_| error.retry) else { return error };
    // What a broker says of our certificate comes as a connection that broke.
    let retry = !(is_final(*code) || *code == Code::SSL || reason.contains("SSL alert number"));
    ConnectorError { message: format!("{}: {reason}", error.message), retry, ..error }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_checked() {
        let error = |value: Value| settings("v.k", "transport.config", &value, &["topic"]).unwrap_err().to_string();
        assert!(error(json!({"topic": "t"})).contains("\"bootstrap.servers\" is missing"));
        assert!(error(json!({"bootstrap.servers": "a", "isolation.level": "x"})).contains("leave it out"));
        let e = error(json!({"bootstrap.servers": "a", "compresion.type": "zstd"}));
        assert!(e.contains("compresion.type") && e.contains("No such configuration property"), "{e}");
        let e = error(json!({"bootstrap.servers": "a", "sasl.mechanism": {"x": 1}}));
        assert!(e.contains("must be a string"), "{e}");
        let good = json!({"bootstrap.servers": "a", "topic": "t", "socket.timeout.ms": 3000});
        let (ours, settings) = settings("v.k", "", &good, &["topic"]).unwrap();
        assert_eq!(settings.get("socket.timeout.ms"), Some("3000"));
        assert_eq!(ours, json!({"topic": "t"}));
    }
}
