//! Secrets in connectors' settings, taken out of what clients are shown.
//!
//! Known by the setting's key, or as the password of a URL. A text that refers to a secret (`${secret:…}`, `${env:…}`) is no secret.
//!
//! Limit: the program's own text is shown as it was written, since clients edit it: let it refer to secrets.

use serde_json::Value;

/// What is shown in the place of a secret.
const MASK: &str = "***";
/// Parts of the keys of settings that hold secrets.
const SECRET_KEYS: &[&str] = &[
    "password",
    "secret",
    "token",
    "private_key",
    "client_key",
    "key.pem",
    "access_key",
    "account_key",
    "credential",
    "sas_key",
    "authorization",
    "cookie",
];
/// Parts of keys that have such a part, and hold none.
const PLAIN_KEYS: &[&str] = &["access_key_id", "token_endpoint", "token.endpoint"];

/// Masks every secret in a setting, and in those within it.
pub fn mask(value: &mut Value) {
    match value {
        Value::Object(settings) => {
            for (key, value) in settings {
                match value {
                    Value::String(text) if is_secret(key) && !is_reference(text) => MASK.clone_into(text),
                    // Whatever their names: keys come this way.
                    Value::Object(headers) if key.to_lowercase().contains("headers") => {
                        headers.values_mut().for_each(|value| *value = MASK.into());
                    }
                    other => mask(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::String(text) => {
            if let Some(masked) = without_password(text) {
                *text = masked;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    SECRET_KEYS.iter().any(|part| key.contains(part)) && !PLAIN_KEYS.iter().any(|part| key.contains(part))
}

/// Whether a text is a reference to a secret, and nothing else.
fn is_reference(text: &str) -> bool {
    text.starts_with("${") && text.find('}') == Some(text.len() - 1)
}

/// A URL that has a password or a query, without them; libpq's `password=…` in any text.
fn without_password(text: &str) -> Option<String> {
    if !text.contains("://") {
        let (before, _) = text.split_once("password=")?;
        return Some(format!("{before}password={MASK}"));
    }
    let mut url = url::Url::parse(text).ok()?;
    let (has_password, has_query) = (url.password().is_some(), url.query().is_some());
    if has_password {
        url.set_password(Some(MASK)).ok()?;
    }
    if has_query {
        // A signature, as a rule.
        url.set_query(Some(MASK));
    }
    (has_password || has_query).then(|| url.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_masked_and_nothing_else() {
        let mut settings = json!({
            "path": "https://me:s3cret@host/x.csv?sig=s3cret",
            "uri": "postgresql://me:s3cret@host:5432/db",
            "sasl.password": "s3cret",
            "aws_secret_access_key": "s3cret",
            "aws_access_key_id": "AKIA",
            "options": { "google_service_account_key": "s3cret", "azure_storage_sas_token": "s3cret" },
            "list": ["https://x:s3cret@y/"],
            "password": "${secret:pg/password}",
            "bootstrap.servers": "a:1,b:2",
            "url": "s3://bucket/key",
            "limit": 7,
        });
        mask(&mut settings);
        assert!(!settings.to_string().contains("s3cret"), "{settings:#}");
        let kept =
            ["aws_access_key_id", "bootstrap.servers", "url", "limit", "password"].map(|key| settings[key].clone());
        assert_eq!(
            kept,
            [json!("AKIA"), json!("a:1,b:2"), json!("s3://bucket/key"), json!(7), json!("${secret:pg/password}")]
        );
        assert_eq!(settings["uri"], "postgresql://me:***@host:5432/db");
    }
}
