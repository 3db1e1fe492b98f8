//! `WITH ('connectors' = '[…]', 'key' = 'value')` of a table or view, with places inside the JSON text.

use std::collections::BTreeMap;

use datafusion_sql::sqlparser::ast::{CreateTableOptions, Expr, Spanned, SqlOption, Value};
use datafusion_sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use super::error::{Mistake, Source, suggestion};
use crate::connector::config::ConnectorConfig;

/// What `WITH` says.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub connectors: Vec<ConnectorConfig>,
    pub properties: BTreeMap<String, String>,
}

/// The property that names the table for late rows; all others are 'true' or 'false'.
pub(super) const LATE_ROWS: &str = "late_rows";

/// Reads the options of `relation`, which may have the properties `known` besides `connectors`.
pub(super) fn read(
    source: Source<'_>,
    relation: &str,
    (place, tokens): (Span, &[TokenWithSpan]),
    options: &CreateTableOptions,
    known: &[&str],
    mistakes: &mut Vec<Mistake>,
) -> Options {
    let mut result = Options::default();
    let list = match options {
        CreateTableOptions::None => return result,
        CreateTableOptions::With(list) => list,
        _ => {
            mistakes.push(Mistake::new(place, "options other than WITH (…) are not supported"));
            return result;
        }
    };
    let mut seen: Vec<&str> = Vec::new();
    for option in list {
        let SqlOption::KeyValue { key, value } = option else {
            mistakes.push(Mistake::new(option.span(), "an option is `'key' = 'value'`").or_at(place));
            continue;
        };
        let name = key.value.as_str();
        // A quoted key has no span of its own.
        let is_key = |t: &&TokenWithSpan| matches!(&t.token, Token::SingleQuotedString(text) if text == name);
        let key_span =
            if key.span == Span::empty() { tokens.iter().find(is_key).map_or(place, |t| t.span) } else { key.span };
        let Expr::Value(literal) = value else {
            let mistake = Mistake::new(value.span(), format!("the value of `{name}` must be a string"));
            mistakes.push(mistake.or_at(key_span));
            continue;
        };
        if seen.contains(&name) {
            mistakes.push(Mistake::new(key_span, format!("`{name}` is given twice")));
            continue;
        }
        seen.push(name);
        let Some(text) = string(&literal.value) else {
            mistakes.push(Mistake::new(literal.span, format!("the value of `{name}` must be a string")));
            continue;
        };
        if name == "connectors" {
            match connectors(source, relation, text, literal.span) {
                Ok(connectors) => result.connectors = connectors,
                Err(mistake) => mistakes.push(mistake),
            }
        } else if known.contains(&name) {
            if name == LATE_ROWS {
                if text.is_empty() {
                    mistakes.push(Mistake::new(literal.span, format!("`{name}` is the name of a table")));
                }
            } else if !["true", "false"].contains(&text) {
                mistakes.push(Mistake::new(literal.span, format!("`{name}` is 'true' or 'false', not '{text}'")));
            }
            result.properties.insert(name.to_owned(), text.to_owned());
        } else {
            let names: Vec<String> = ["connectors"].iter().chain(known).map(ToString::to_string).collect();
            let mut mistake = Mistake::new(key_span, format!("`{name}` is not an option of {relation}"));
            mistake.help = suggestion(name, "only", &names);
            mistakes.push(mistake);
        }
    }
    result
}

fn string(value: &Value) -> Option<&str> {
    match value {
        Value::SingleQuotedString(text) => Some(text),
        _ => None,
    }
}

fn connectors(source: Source<'_>, relation: &str, text: &str, span: Span) -> Result<Vec<ConnectorConfig>, Mistake> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| {
        let before: usize = text.split_inclusive('\n').take(e.line().saturating_sub(1)).map(str::len).sum();
        let at = inside(source, span, before + e.column().saturating_sub(1));
        let message = e.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
        Mistake::new(at, format!("the JSON of 'connectors' does not parse: {message}"))
    })?;
    ConnectorConfig::from_value(relation, &value).map_err(|e| {
        // The message quotes the key or value that it is about; its first place in the text is most likely the one.
        let quoted = e.message.split('"').nth(1).map(|word| format!("\"{word}\""));
        let found = quoted.as_ref().and_then(|word| text.find(word.as_str()));
        let at = match (found, quoted) {
            (Some(i), Some(word)) => {
                Span::new(inside(source, span, i).start, inside(source, span, i + word.len()).start)
            }
            _ => span,
        };
        Mistake::new(at, format!("connector {}: {}", e.connector, e.message))
    })
}

/// The place in the SQL text of byte `offset` of a string literal's value; in the literal every quote is written twice.
fn inside(source: Source<'_>, literal: Span, offset: usize) -> Span {
    let Location { mut line, mut column } = literal.start;
    let raw = source.text.get(source.offset(literal.start)..).unwrap_or("");
    let mut chars = raw.chars();
    // The opening quote; what else a literal may start with is no plain string.
    chars.next();
    column += 1;
    let mut bytes = 0;
    while bytes < offset {
        let Some(c) = chars.next() else { break };
        match c {
            '\n' => (line, column) = (line + 1, 1),
            '\'' => {
                chars.next();
                column += 2;
            }
            _ => column += 1,
        }
        bytes += c.len_utf8();
    }
    Span::new(Location { line, column }, Location { line, column: column + 1 })
}
