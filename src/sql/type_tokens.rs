//! Types that the parser does not know in the form that people write: `ROW(a INT, b TEXT)`, `MAP<TEXT, INT>`, `INT ARRAY`. In
//! `CREATE TABLE` their tokens are put into forms that it knows: `STRUCT<…>`, `MAP(…)`, `INT[]`.

use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{closing, is_word};

/// The tokens of a statement, with types as the parser knows them if it creates a table.
pub(super) fn known_types(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let creates_table = is_word(tokens.first(), "CREATE") && is_word(tokens.get(1), "TABLE");
    if !creates_table {
        return tokens;
    }
    let mut tokens = one_by_one(tokens);
    let mut at = 1;
    while at < tokens.len() {
        let next = tokens.get(at + 1).map(|t| t.token.clone());
        let (open, close, word, brackets) = match next {
            Some(Token::LParen) if is_word(tokens.get(at), "ROW") => {
                (Token::LParen, Token::RParen, Some("STRUCT"), (Token::Lt, Token::Gt))
            }
            Some(Token::Lt) if is_word(tokens.get(at), "MAP") => {
                (Token::Lt, Token::Gt, None, (Token::LParen, Token::RParen))
            }
            _ => {
                if is_word(tokens.get(at), "ARRAY") && next != Some(Token::Lt) && follows_type(tokens.get(at - 1)) {
                    let span = tokens[at].span;
                    let brackets = [Token::LBracket, Token::RBracket].map(|token| TokenWithSpan { token, span });
                    tokens.splice(at..=at, brackets);
                }
                at += 1;
                continue;
            }
        };
        if let Some(end) = closing(&tokens, at + 1, &open, &close) {
            if let Some(word) = word {
                tokens[at].token = Token::make_keyword(word);
            }
            tokens[at + 1].token = brackets.0;
            tokens[end].token = brackets.1;
        }
        at += 1;
    }
    tokens
}

/// Closing angle brackets side by side are not a shift here.
fn one_by_one(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out = Vec::with_capacity(tokens.len());
    for token in tokens {
        match token.token {
            Token::ShiftRight => {
                let bracket = TokenWithSpan { token: Token::Gt, span: token.span };
                out.extend([bracket.clone(), bracket]);
            }
            _ => out.push(token),
        }
    }
    out
}

/// Whether a type, not the beginning of a column, stands before.
fn follows_type(before: Option<&TokenWithSpan>) -> bool {
    before.is_some_and(|t| matches!(t.token, Token::Word(_) | Token::RParen | Token::RBracket | Token::Gt))
}
