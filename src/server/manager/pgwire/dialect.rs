//! Words of PostgreSQL's in queries: schemas that are none here, and for the catalog's queries, functions and casts that only clients use.
//!
//! Works on words and signs, not on a syntax tree: what it does not know stays as it is, and the compiler says what it thinks of it.

use datafusion_sql::sqlparser::tokenizer::Token;
use pgwire::error::PgWireResult;

use super::catalog;
use super::statement::{Statement, replace, word};
use crate::sql::quoted_text;

/// A query with the schema `public`, in which all relations are, left out.
///
/// # Errors
/// A text with a string that does not end.
pub(super) fn without_public(sql: &str) -> PgWireResult<String> {
    if !sql.to_ascii_lowercase().contains("public") {
        return Ok(sql.to_owned());
    }
    let Some(statement) = Statement::split(sql)?.into_iter().next() else { return Ok(sql.to_owned()) };
    let is_public = |token: &Token| matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case("public"));
    let ranges = statement.tokens.windows(3).filter_map(|three| match three {
        [(first, from), (Token::Period, _), (Token::Word(_), next)] if is_public(first) => {
            Some((from.start..next.start, String::new()))
        }
        _ => None,
    });
    Ok(replace(&statement.text, ranges))
}

/// A catalog's query in our SQL.
pub(super) fn translate(statement: &Statement, database: &str) -> String {
    Translation { statement, database }.part(0, statement.tokens.len())
}

struct Translation<'a> {
    statement: &'a Statement,
    /// The pipeline's name.
    database: &'a str,
}

/// Schemas whose relations, functions and types are named without them here.
const SCHEMAS: [&str; 3] = ["pg_catalog", "information_schema", "public"];
/// Types that a cast to changes nothing here.
const ALIASES: [&str; 7] = ["regclass", "regtype", "regnamespace", "regproc", "regrole", "oid", "name"];

impl Translation<'_> {
    fn token(&self, at: usize) -> Option<&Token> {
        self.statement.tokens.get(at).map(|(token, _)| token)
    }

    fn word(&self, at: usize) -> Option<String> {
        self.token(at).and_then(word)
    }

    /// Behind a schema's name and its period, if one stands there.
    fn behind_schema(&self, at: usize) -> usize {
        let is_schema = self.word(at).is_some_and(|w| SCHEMAS.contains(&w.as_str()));
        if is_schema && self.token(at + 1) == Some(&Token::Period) { at + 2 } else { at }
    }

    /// The place of the parenthesis that closes the one at `open`.
    fn close(&self, open: usize, to: usize) -> Option<usize> {
        let mut depth = 0_usize;
        (open..to).find(|&at| {
            match self.token(at) {
                Some(Token::LParen) => depth += 1,
                Some(Token::RParen) => depth -= 1,
                _ => {}
            }
            depth == 0
        })
    }

    /// Where the first of a call's arguments ends.
    fn first_argument(&self, from: usize, to: usize) -> usize {
        let mut depth = 0_usize;
        let end = (from..to).find(|&at| {
            match self.token(at) {
                Some(Token::LParen) => depth += 1,
                Some(Token::RParen) => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && self.token(at) == Some(&Token::Comma)
        });
        end.unwrap_or(to)
    }

    fn part(&self, from: usize, to: usize) -> String {
        let (mut text, mut at) = (String::new(), from);
        while at < to {
            self.gap(&mut text, at, from);
            // What follows a schema's name takes its place.
            at = self.one(&mut text, self.behind_schema(at), to);
        }
        text
    }

    /// White space before a word, as it stands.
    fn gap(&self, text: &mut String, at: usize, from: usize) {
        let range = |at: usize| self.statement.tokens.get(at).map(|(_, range)| range.clone());
        if at > from
            && let (Some(before), Some(here)) = (range(at - 1), range(at))
        {
            text.push_str(self.statement.text.get(before.end..here.start).unwrap_or_default());
        }
    }

    /// Whether a sub-query in a SELECT list begins here that reads what pipelines have none of: column defaults, collations.
    fn is_of_nothing(&self, at: usize, close: usize) -> bool {
        let reads = |at| self.word(at).is_some_and(|w| matches!(w.as_str(), "pg_attrdef" | "pg_collation"));
        at > 0
            && self.token(at - 1) == Some(&Token::Comma)
            && self.word(at + 1).is_some_and(|w| w == "select")
            && (at..close).any(reads)
    }

    /// Whether a sub-query begins here that takes the search path apart.
    fn is_search_path(&self, at: usize, close: usize) -> bool {
        let is_path = |at| matches!(self.token(at), Some(Token::SingleQuotedString(name)) if name == "search_path");
        self.word(at + 1).is_some_and(|w| w == "select")
            && (at..close).any(is_path)
            && (at..close).any(|at| self.word(at).is_some_and(|w| w == "string_to_array"))
    }

    /// Writes what stands at a place; gives the place behind it.
    fn one(&self, text: &mut String, at: usize, to: usize) -> usize {
        let here = self.word(at);
        let is_call = self.token(at + 1) == Some(&Token::LParen);
        match here.as_deref() {
            Some("operator") if is_call => {
                if let Some(close) = self.close(at + 1, to) {
                    text.push_str(&self.part(at + 2, close));
                    return close + 1;
                }
            }
            Some("collate") => return self.behind_schema(at + 1) + 1,
            Some(name) if is_call => {
                if let Some(close) = self.close(at + 1, to)
                    && let Some(value) = self.call(name, at + 2, close)
                {
                    text.push_str(&value);
                    return close + 1;
                }
            }
            Some("current_user" | "session_user" | "user" | "current_role") => {
                text.push_str(&quoted_text(catalog::USER));
                return at + 1;
            }
            Some("current_catalog") => {
                text.push_str(&quoted_text(self.database));
                return at + 1;
            }
            _ => {}
        }
        if self.token(at) == Some(&Token::LParen)
            && let Some(close) = self.close(at, to)
        {
            let known = if self.is_of_nothing(at, close) {
                Some("CAST(NULL AS VARCHAR)")
            } else if self.is_search_path(at, close) {
                Some("('public')")
            } else {
                None
            };
            if let Some(known) = known {
                text.push_str(known);
                return close + 1;
            }
        }
        if self.token(at) == Some(&Token::DoubleColon) {
            let of = self.behind_schema(at + 1);
            if self.word(of).is_some_and(|w| ALIASES.contains(&w.as_str())) {
                return of + 1;
            }
        }
        if let Some((_, range)) = self.statement.tokens.get(at) {
            text.push_str(self.statement.text.get(range.clone()).unwrap_or_default());
        }
        at + 1
    }

    /// A function of PostgreSQL's with arguments from `from` to `to`; nothing, if it is none that is answered here.
    fn call(&self, name: &str, from: usize, to: usize) -> Option<String> {
        let first = || self.part(from, self.first_argument(from, to));
        Some(match name {
            "pg_table_is_visible"
            | "pg_function_is_visible"
            | "pg_type_is_visible"
            | "has_table_privilege"
            | "has_schema_privilege"
            | "has_database_privilege"
            | "has_column_privilege"
            | "has_any_column_privilege" => "TRUE".to_owned(),
            "pg_relation_is_publishable" | "pg_is_in_recovery" | "pg_is_other_temp_schema" => "FALSE".to_owned(),
            "pg_get_userbyid" => quoted_text(catalog::USER),
            "pg_encoding_to_char" => "'UTF8'".to_owned(),
            "version" => quoted_text(&catalog::version()),
            "current_database" => quoted_text(self.database),
            "current_schema" => "'public'".to_owned(),
            "pg_backend_pid" => std::process::id().to_string(),
            "current_setting" => match self.token(from) {
                Some(Token::SingleQuotedString(name)) => {
                    catalog::setting(&name.to_lowercase()).map_or_else(|| "NULL".to_owned(), quoted_text)
                }
                _ => return None,
            },
            "parse_ident" => match self.token(from) {
                Some(Token::SingleQuotedString(name)) if from + 1 == to => {
                    let parts: Vec<String> = parts_of_name(name).iter().map(|part| quoted_text(part)).collect();
                    format!("make_array({})", parts.join(", "))
                }
                _ => return None,
            },
            "pg_get_expr"
            | "pg_get_indexdef"
            | "pg_get_constraintdef"
            | "obj_description"
            | "col_description"
            | "shobj_description"
            | "pg_get_viewdef"
            | "pg_get_statisticsobjdef_columns"
            | "pg_get_partkeydef" => "CAST(NULL AS VARCHAR)".to_owned(),
            // Of what is no array here.
            "quote_ident" | "array_to_string" => first(),
            "format_type" => catalog::format_type(&first()),
            _ => return None,
        })
    }
}

/// The parts of a name with periods, as PostgreSQL reads it: in lower case, but for what stands in quotes.
fn parts_of_name(name: &str) -> Vec<String> {
    let (mut parts, mut part, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut signs = name.chars().peekable();
    while let Some(sign) = signs.next() {
        match sign {
            '"' if is_quoted && signs.next_if_eq(&'"').is_some() => part.push('"'),
            '"' => is_quoted = !is_quoted,
            '.' if !is_quoted => parts.push(std::mem::take(&mut part)),
            _ if is_quoted => part.push(sign),
            _ => part.extend(sign.to_lowercase()),
        }
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(sql: &str) -> String {
        let statement = Statement::split(sql).unwrap().remove(0);
        translate(&statement, "it's")
    }

    #[test]
    fn words_of_the_catalog() {
        for (sql, expected) in [
            ("SELECT c.oid::pg_catalog.regclass FROM pg_catalog.pg_class c", "SELECT c.oid FROM pg_class c"),
            (
                "SELECT 1 WHERE x OPERATOR(pg_catalog.~) '^(a)$' COLLATE pg_catalog.default",
                "SELECT 1 WHERE x ~ '^(a)$' ",
            ),
            ("SELECT pg_catalog.pg_table_is_visible(c.oid), quote_ident(f(a, b))", "SELECT TRUE, f(a, b)"),
            ("SELECT current_database(), current_user, 'current_user'", "SELECT 'it''s', 'backstay', 'current_user'"),
            ("SELECT current_setting('server_version_num')::int/100", "SELECT '150000'::int/100"),
            ("SELECT pg_get_expr(d.adbin, (d.adrelid), true) x", "SELECT CAST(NULL AS VARCHAR) x"),
            ("SELECT a, (SELECT d.x FROM pg_attrdef d WHERE f(d)) AS x", "SELECT a, CAST(NULL AS VARCHAR) AS x"),
            (
                "SELECT 1 WHERE s IN (SELECT p FROM f(1, g(string_to_array(current_setting('search_path'), ',')))) AND x",
                "SELECT 1 WHERE s IN ('public') AND x",
            ),
            (
                r#"SELECT (parse_ident('A."b.""C"'))[2], parse_ident(x)"#,
                r#"SELECT (make_array('a', 'b."C'))[2], parse_ident(x)"#,
            ),
            // No end of the call: the parser says what it thinks of it.
            ("SELECT pg_get_expr(d", "SELECT pg_get_expr(d"),
        ] {
            assert_eq!(translated(sql), expected, "{sql}");
        }
    }

    #[test]
    fn the_one_schema() {
        let sql = "SELECT public.v.a, 'public.v' FROM \"public\".v";
        assert_eq!(without_public(sql).unwrap(), "SELECT v.a, 'public.v' FROM v");
        assert_eq!(without_public("SELECT public FROM v").unwrap(), "SELECT public FROM v");
    }
}
