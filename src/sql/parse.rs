//! SQL text → statements with their places.
//!
//! The text is cut at semicolons before it is parsed, so that a syntax error in one statement does not hide those of the
//! next. The dialect is sqlparser's generic one, unwrapped: the parser asks for it by type.

use datafusion_sql::sqlparser::ast::Statement;
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Word};

use super::as_of::without_left;
use super::error::{Mistake, Source};
use super::lateness::{self, Clause};
use super::table_functions::without_table;
use super::type_tokens::known_types;

/// A statement and where it stands.
#[derive(Debug)]
pub(super) struct Parsed {
    pub statement: Statement,
    /// From its first token to its last.
    pub span: Span,
    /// Its tokens, without white space and comments.
    pub tokens: Vec<TokenWithSpan>,
    /// LATENESS of columns, which is not in the statement.
    pub lateness: Vec<Clause>,
}

/// A text, cut and parsed.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// In the order of the text.
    pub statements: Vec<Parsed>,
    /// Names that statements with syntax errors were to define: nobody is told that these are missing.
    pub broken: Vec<String>,
}

/// The most tokens of a statement: the planner's recursion is bounded by it.
pub(super) const MAX_TOKENS: usize = 20_000;

/// Cuts and parses a text. Statements come in its order.
pub(super) fn parse(source: Source<'_>, mistakes: &mut Vec<Mistake>) -> Text {
    let tokens = match Tokenizer::new(&GenericDialect, source.text).tokenize_with_location() {
        Ok(tokens) => tokens,
        Err(e) => {
            let end = Location { line: e.location.line, column: e.location.column + 1 };
            mistakes.push(Mistake::new(Span::new(e.location, end), lower_first(&e.message)));
            return Text::default();
        }
    };
    let mut text = Text::default();
    for chunk in tokens.split(|t| t.token == Token::SemiColon) {
        let is_real = |t: &&TokenWithSpan| !matches!(t.token, Token::Whitespace(_) | Token::EOF);
        let tokens: Vec<TokenWithSpan> = chunk.iter().filter(is_real).cloned().collect();
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { continue };
        let (span, end) = (Span::new(first.span.start, last.span.end), last.span.end);
        if tokens.len() > MAX_TOKENS {
            let message =
                format!("this statement has {} words and signs; at most {MAX_TOKENS} are supported", tokens.len());
            mistakes.push(Mistake::new(first.span, message).help("split it into several views"));
            text.broken.extend(defined_name(&tokens));
            continue;
        }
        match parse_one(&tokens) {
            Ok((statement, lateness)) => text.statements.push(Parsed { statement, span, tokens, lateness }),
            Err(mistake) => {
                mistakes.push(mistake.or_at(Span::new(end, end)));
                text.broken.extend(defined_name(&tokens));
            }
        }
    }
    text
}

/// The word behind the first TABLE or VIEW of a statement, or the third word.
fn defined_name(tokens: &[TokenWithSpan]) -> Option<String> {
    let mut words = tokens.iter().filter_map(|t| match &t.token {
        Token::Word(word) => Some(word),
        _ => None,
    });
    let kind = |w: &&Word| ["TABLE", "VIEW"].iter().any(|k| w.value.eq_ignore_ascii_case(k));
    // CREATE TABEL name
    let name = if words.clone().any(|w| kind(&w)) { words.skip_while(|w| !kind(w)).nth(1) } else { words.nth(2) };
    name.map(|w| if w.quote_style.is_some() { w.value.clone() } else { w.value.to_lowercase() })
}

/// The mistake has an empty span where the statement ended too early.
fn parse_one(tokens: &[TokenWithSpan]) -> Result<(Statement, Vec<Clause>), Mistake> {
    let (tokens, lateness) = lateness::cut(tokens)?;
    let mut parser =
        Parser::new(&GenericDialect).with_tokens_with_locations(known_types(without_left(without_table(&tokens))));
    let statement = parser.parse_statement().map_err(|e| syntax_error(e, &tokens))?;
    let next = parser.peek_token();
    match next.token {
        Token::EOF => Ok((statement, lateness)),
        _ => Err(Mistake::new(next.span, format!("expected the end of the statement, found `{next}`"))
            .help("statements are separated by `;`")),
    }
}

fn syntax_error(error: ParserError, tokens: &[TokenWithSpan]) -> Mistake {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => {
            return Mistake::new(Span::empty(), "expressions or queries are nested too deeply");
        }
    };
    let (message, location) = split_location(&message);
    let token = location.and_then(|l| tokens.iter().find(|t| t.span.start == l));
    if let Some(TokenWithSpan { token: Token::Word(word), span }) = token
        && word.value.eq_ignore_ascii_case("WATERMARK")
    {
        return Mistake::new(*span, "WATERMARK is not supported").help("write LATENESS behind a column of a table");
    }
    let message = match message.split_once(", found: ") {
        Some((expected, "EOF")) => format!("{}, found the end of the statement", lower_first(expected)),
        Some((expected, found)) => format!("{}, found `{found}`", lower_first(expected)),
        None => lower_first(message),
    };
    let span = match (token, location) {
        (Some(token), _) => token.span,
        (None, Some(l)) => Span::new(l, l),
        (None, None) => Span::empty(),
    };
    Mistake::new(span, message.replacen("expected: ", "expected ", 1))
}

/// Cuts ` at Line: 1, Column: 2` off a parser's message.
fn split_location(message: &str) -> (&str, Option<Location>) {
    let parts = message.rsplit_once(" at Line: ").and_then(|(rest, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((rest, Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? }))
    });
    match parts {
        Some((rest, location)) => (rest, Some(location)),
        None => (message, None),
    }
}

fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        let source = Source { name: "p.sql", text };
        let mut mistakes = Vec::new();
        parse(source, &mut mistakes);
        mistakes.into_iter().map(|m| source.locate(m).to_string()).collect()
    }

    #[test]
    fn each_statement_has_its_own_errors() {
        assert_eq!(
            errors("CREATE TABEL t (a INT);\nCREATE TABLE u (a INT);\nCREATE VIEW v AS\n  SELECT a FROM 3"),
            [
                "p.sql:1:8: error: expected an object type after CREATE, found `TABEL`\n  CREATE TABEL t (a INT);\n         ^^^^^",
                "p.sql:4:17: error: expected identifier, found `3`\n    SELECT a FROM 3\n                  ^",
            ]
        );
    }

    #[test]
    fn a_statement_that_ends_too_early() {
        assert_eq!(
            errors("CREATE TABLE t (a INT"),
            ["p.sql:1:22: error: expected ',' or ')' after column definition, found the end of the statement\n  \
              CREATE TABLE t (a INT\n                       ^"]
        );
    }

    #[test]
    fn words_after_a_statement() {
        assert_eq!(
            errors("DROP TABLE t banana"),
            [
                "p.sql:1:14: error: expected the end of the statement, found `banana`\n  DROP TABLE t banana\n               ^^^^^^\n  \
              help: statements are separated by `;`"
            ]
        );
    }

    #[test]
    fn lateness_is_cut_out() {
        let source = Source {
            name: "p.sql",
            text: "CREATE TABLE t (ts TIMESTAMP LATENESS INTERVAL '1' HOUR NOT NULL, \"N\" INT NOT NULL LATENESS 5)",
        };
        let mut mistakes = Vec::new();
        let text = parse(source, &mut mistakes);
        assert!(mistakes.is_empty());
        let columns: Vec<&str> = text.statements[0].lateness.iter().map(|c| c.column.as_str()).collect();
        assert_eq!(columns, ["ts", "N"]);
        assert_eq!(
            errors("CREATE TABLE t (ts TIMESTAMP LATENESS)"),
            [
                "p.sql:1:30: error: LATENESS is followed by an interval or a number\n  CREATE TABLE t (ts TIMESTAMP LATENESS)\n  \
              \u{20}                            ^^^^^^^^\n  help: write LATENESS INTERVAL '5 minutes' for a TIMESTAMP, LATENESS \
              INTERVAL '1' DAY for a DATE, LATENESS 100 for a whole number"
            ]
        );
    }

    #[test]
    fn an_unterminated_string() {
        let errors = errors("CREATE TABLE t (a INT);\nSELECT 'abc");
        assert_eq!(errors, ["p.sql:2:8: error: unterminated string literal\n  SELECT 'abc\n         ^"]);
    }
}
