//! Reading a JSON object of settings: known keys only, of the right type, with errors that say which connector and where.

use serde_json::{Map, Value};

use super::{ConnectorError, Result};
use crate::suggest::nearest;

/// `; did you mean "x"?` or nothing, and the list of what there is.
pub(crate) fn suggestion(word: &str, names: &[&str]) -> String {
    let hint = nearest(word, names.iter().copied()).map(|n| format!("did you mean \"{n}\"? ")).unwrap_or_default();
    if names.is_empty() { format!("{hint}there is none") } else { format!("{hint}there are: {}", names.join(", ")) }
}

/// One object of settings, its keys checked.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    connector: &'a str,
    place: &'a str,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Options<'a> {
    /// The settings in `value` (an object; null is an empty one), which may have the keys `known`. Those in `later` are refused
    /// as not supported yet, all others as not known.
    pub(crate) fn new(
        connector: &'a str,
        place: &'a str,
        value: &'a Value,
        known: &[&str],
        later: &[&str],
    ) -> Result<Self> {
        let map = match value {
            Value::Null => None,
            Value::Object(map) => Some(map),
            other => {
                let message = format!("{place} must be a JSON object, and is {}", kind(other));
                return Err(ConnectorError::new(connector, message));
            }
        };
        let this = Self { connector, place, map };
        for key in map.into_iter().flat_map(|m| m.keys()) {
            if later.contains(&key.as_str()) {
                return Err(this.error(format!("\"{key}\" is not supported yet; leave it out")));
            }
            if !known.contains(&key.as_str()) {
                return Err(this.error(format!("\"{key}\" is not known; {}", suggestion(key, known))));
            }
        }
        Ok(this)
    }

    /// An error about these settings.
    pub(crate) fn error(&self, message: impl std::fmt::Display) -> ConnectorError {
        ConnectorError::new(self.connector, format!("{}: {message}", self.place))
    }

    /// An error about a setting that has none of the values that there are.
    pub(crate) fn unknown(&self, key: &str, value: &str, there_are: &[&str]) -> ConnectorError {
        self.error(format!("there is no \"{key}\": \"{value}\"; {}", suggestion(value, there_are)))
    }

    fn mismatch(&self, key: &str, expected: &str, got: &Value) -> ConnectorError {
        self.error(format!("\"{key}\" must be {expected}, and is {}", kind(got)))
    }

    /// A setting as it stands.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.and_then(|m| m.get(key))
    }

    /// A setting that must be there.
    pub(crate) fn require(&self, key: &str) -> Result<&'a Value> {
        self.value(key).ok_or_else(|| self.error(format!("\"{key}\" is missing")))
    }

    /// A string.
    pub(crate) fn string(&self, key: &str) -> Result<Option<&'a str>> {
        match self.value(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(self.mismatch(key, "a string", other)),
        }
    }

    /// A string that must be there.
    pub(crate) fn require_string(&self, key: &str) -> Result<&'a str> {
        self.string(key)?.ok_or_else(|| self.error(format!("\"{key}\" is missing")))
    }

    /// A truth value.
    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.value(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(self.mismatch(key, "true or false", other)),
        }
    }

    /// A whole number from 0 on.
    pub(crate) fn u64(&self, key: &str) -> Result<Option<u64>> {
        match self.value(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => v.as_u64().map(Some).ok_or_else(|| self.mismatch(key, "a whole number from 0 on", v)),
        }
    }

    /// A string, or a list of them.
    pub(crate) fn string_or_strings(&self, key: &str) -> Result<Vec<String>> {
        match self.value(key) {
            Some(Value::String(s)) => Ok(vec![s.clone()]),
            _ => Ok(self.strings(key)?.unwrap_or_default()),
        }
    }

    /// A list of strings.
    pub(crate) fn strings(&self, key: &str) -> Result<Option<Vec<String>>> {
        match self.value(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(items)) => {
                let strings = items.iter().map(|i| match i {
                    Value::String(s) => Ok(s.clone()),
                    other => Err(self.mismatch(key, "a list of strings", other)),
                });
                strings.collect::<Result<_>>().map(Some)
            }
            Some(other) => Err(self.mismatch(key, "a list of strings", other)),
        }
    }
}

/// A value's kind, and the value itself where that is short.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_near() {
        assert_eq!(nearest("file_inptu", ["file_input", "file_output"]), Some("file_input"));
        assert_eq!(nearest("kafka", ["file_input", "nexmark"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
