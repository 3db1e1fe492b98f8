//! `LATENESS` on columns of tables, as Feldera writes it: `ts TIMESTAMP NOT NULL LATENESS INTERVAL '5' MINUTE`.
//!
//! The parser does not know the clause: it is cut out of the tokens of a `CREATE TABLE` before they are parsed.

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use arrow::datatypes::{DataType, Field};
use datafusion_sql::sqlparser::ast::{Expr, Interval, Value};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

use super::error::Mistake;
use super::table_functions::micros;

/// The microseconds of a day.
pub(super) const DAY_US: i64 = 86_400_000_000;

/// One clause.
#[derive(Clone, Debug)]
pub(super) struct Clause {
    /// The column's name, lower case unless it was quoted.
    pub column: String,
    /// The clause's place.
    pub span: Span,
    bound: Expr,
}

/// Cuts the clauses out of a `CREATE TABLE`; other statements stay as they are.
pub(super) fn cut(tokens: &[TokenWithSpan]) -> Result<(Vec<TokenWithSpan>, Vec<Clause>), Mistake> {
    let mut words = tokens.iter().take(4).filter_map(word);
    if !words.any(|w| is(w, "TABLE")) || !tokens.first().and_then(word).is_some_and(|w| is(w, "CREATE")) {
        return Ok((tokens.to_vec(), Vec::new()));
    }
    let (mut kept, mut clauses) = (Vec::with_capacity(tokens.len()), Vec::new());
    let (mut depth, mut column, mut is_first) = (0, None, false);
    let mut rest = tokens.iter().peekable();
    while let Some(token) = rest.next() {
        if let (1, false, Some(name), Some(column)) = (depth, is_first, word(token), &column)
            && is(name, "LATENESS")
        {
            let mut bound = Vec::new();
            let mut inner = 0;
            while let Some(next) = rest.peek() {
                match (&next.token, word(next)) {
                    (Token::Comma | Token::RParen, _) if inner == 0 => break,
                    (_, Some(w)) if inner == 0 && ["NOT", "NULL", "PRIMARY", "DEFAULT"].iter().any(|o| is(w, o)) => {
                        break;
                    }
                    (Token::LParen, _) => inner += 1,
                    (Token::RParen, _) => inner -= 1,
                    _ => {}
                }
                bound.extend(rest.next().cloned());
            }
            clauses.push(Clause { column: String::clone(column), span: token.span, bound: parse(token.span, bound)? });
            continue;
        }
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        match (&token.token, depth) {
            (Token::LParen | Token::Comma, 1) => is_first = true,
            (_, 1) if is_first => {
                is_first = false;
                column = word(token).map(|w| match w.quote_style {
                    Some(_) => w.value.clone(),
                    None => w.value.to_lowercase(),
                });
            }
            _ => {}
        }
        kept.push(token.clone());
    }
    Ok((kept, clauses))
}

fn word(token: &TokenWithSpan) -> Option<&Word> {
    match &token.token {
        Token::Word(word) => Some(word),
        _ => None,
    }
}

fn is(word: &Word, name: &str) -> bool {
    word.quote_style.is_none() && word.value.eq_ignore_ascii_case(name)
}

const HELP: &str = "write LATENESS INTERVAL '5 minutes' for a TIMESTAMP, LATENESS INTERVAL '1' DAY for a DATE, LATENESS 100 for a whole number";

fn parse(place: Span, tokens: Vec<TokenWithSpan>) -> Result<Expr, Mistake> {
    let wrong = || Mistake::new(place, "LATENESS is followed by an interval or a number").help(HELP);
    let mut parser = Parser::new(&GenericDialect).with_tokens_with_locations(tokens);
    let expr = parser.parse_expr().map_err(|_| wrong())?;
    match parser.peek_token().token {
        Token::EOF => Ok(expr),
        _ => Err(wrong()),
    }
}

impl Clause {
    /// By how much a value may be behind the largest one before it, in the unit of the column's type: microseconds, days, or what the
    /// numbers count.
    pub(super) fn bound(&self, field: &Field) -> Result<i64, Mistake> {
        let refused = |message: String| Mistake::new(self.span, message);
        if field.is_nullable() {
            let message = format!("`{}` has LATENESS and may be NULL, which is neither late nor not", self.column);
            return Err(refused(message).help("make it NOT NULL"));
        }
        let bound = match field.data_type() {
            DataType::Timestamp(..) => self.interval(),
            DataType::Date32 => self.interval().filter(|us| us % DAY_US == 0).map(|us| us / DAY_US),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => self.number(),
            other => {
                let message = format!("a column of type {other} cannot have LATENESS");
                return Err(refused(message).help("TIMESTAMP, DATE and signed whole numbers can"));
            }
        };
        bound.filter(|bound| *bound >= 0).ok_or_else(|| {
            refused(format!("`{}` is no LATENESS for a column of type {}", self.bound, field.data_type())).help(HELP)
        })
    }

    fn interval(&self) -> Option<i64> {
        let Expr::Interval(Interval { value, leading_field, .. }) = &self.bound else { return None };
        let text = match value.as_ref() {
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) | Value::Number(text, _) => text.clone(),
                _ => return None,
            },
            _ => return None,
        };
        let text = leading_field.as_ref().map_or_else(|| text.clone(), |unit| format!("{text} {unit}"));
        micros(parse_interval_month_day_nano(&text).ok()?)
    }

    fn number(&self) -> Option<i64> {
        let Expr::Value(value) = &self.bound else { return None };
        match &value.value {
            Value::Number(text, _) => text.parse().ok(),
            _ => None,
        }
    }
}
