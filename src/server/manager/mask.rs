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
    "passw",
    "passphrase",
    "secret",
    "token",
    "private_key",
    "client_key",
    "customer_key",
    "key.pem",
    "access_key",
    "account_key",
    "credential",
    "sas_key",
    "authorization",
    "api_key",
    "apikey",
    "oauthbearer.config",
    "pwd",
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
                    Value::String(text) if is_secret(key) && is_reference(text) => {}
                    Value::Null | Value::Bool(_) => {}
                    // Of whatever type somebody gave it.
                    other if is_secret(key) => *other = MASK.into(),
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

/// A URL without its password, query and fragment, and without a user's name that stands there alone (a token, as a rule); libpq's `password=…` in any text.
fn without_password(text: &str) -> Option<String> {
    if !text.contains("://") {
        let lower = text.to_ascii_lowercase();
        let is_given =
            |at: &usize| lower.get(at + "password".len()..).is_some_and(|rest| rest.trim_start().starts_with('='));
        let at = lower.match_indices("password").map(|(at, _)| at).find(is_given)?;
        return Some(format!("{}password={MASK}", text.get(..at)?));
    }
    let Ok(mut url) = url::Url::parse(text) else {
        // As PostgreSQL's with several hosts.
        let (scheme, rest) = text.split_once("://")?;
        let (_, place) = rest.rsplit_once('@')?;
        return Some(format!("{scheme}://{MASK}@{}", place.split(['?', '#']).next().unwrap_or_default()));
    };
    let before = url.clone();
    if url.password().is_some() {
        url.set_password(Some(MASK)).ok()?;
    } else if !url.username().is_empty() && url.scheme().starts_with("http") {
        url.set_username(MASK).ok()?;
    }
    if url.query().is_some() {
        // A signature, as a rule.
        url.set_query(Some(MASK));
    }
    if url.fragment().is_some() {
        url.set_fragment(Some(MASK));
    }
    (url != before).then(|| url.to_string())
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
            "list": ["https://x:s3cret@y/", "http://s3cret@h/x#s3cret", "host=h PassWord = s3cret user=me"],
            "uris": "postgresql://me:s3cret@h1:1,h2:2/db?sslkey=s3cret",
            "sasl.oauthbearer.config": "clientId=s3cret",
            "passwrd": "s3cret",
            "sasl.password.list": ["s3cret"],
            "aws_sse_customer_key_base64": "s3cret",
            "password_is_needed": true,
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
