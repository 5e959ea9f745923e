//! Tokens of the query language.

use tonic::Status;

/// Longest query, in bytes.
const MAX_BYTES: usize = 32 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A keyword, a field (also in backquotes), `true` or `false`.
    Word(String),
    /// A text in quotes.
    Text(String),
    Number(String),
    /// `=`, `!=`, `<`, `<=`, `>`, `>=`
    Operator(&'static str),
    Open,
    Close,
    Comma,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(text) | Self::Number(text) => write!(f, "{text:?}"),
            Self::Text(text) => write!(f, "'{text}'"),
            Self::Operator(operator) => write!(f, "{operator:?}"),
            Self::Open => f.write_str("\"(\""),
            Self::Close => f.write_str("\")\""),
            Self::Comma => f.write_str("\",\""),
        }
    }
}

pub(super) fn refuse(what: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("query: {what}"))
}

const OPERATORS: [&str; 7] = ["<=", ">=", "!=", "<>", "=", "<", ">"];

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':')
}

pub(super) fn tokens(query: &str) -> Result<Vec<Token>, Status> {
    if query.len() > MAX_BYTES {
        return Err(refuse(format_args!("longer than {MAX_BYTES} bytes")));
    }
    let mut out = Vec::new();
    let mut rest = query.trim_start();
    while let Some(c) = rest.chars().next() {
        let (token, after) = match c {
            '(' => (Token::Open, &rest[1..]),
            ')' => (Token::Close, &rest[1..]),
            ',' => (Token::Comma, &rest[1..]),
            '\'' | '"' => quoted(rest, c).map(|(text, after)| (Token::Text(text), after))?,
            '`' => quoted(rest, c).map(|(text, after)| (Token::Word(text), after))?,
            c if is_word(c) || c == '+' => word(rest),
            _ => operator(rest).ok_or_else(|| refuse(format_args!("{:?} is not understood", c.to_string())))?,
        };
        out.push(token);
        rest = after.trim_start();
    }
    Ok(out)
}

fn operator(rest: &str) -> Option<(Token, &str)> {
    let operator = OPERATORS.into_iter().find(|o| rest.starts_with(o))?;
    let after = &rest[operator.len()..];
    Some((Token::Operator(if operator == "<>" { "!=" } else { operator }), after))
}

fn word(rest: &str) -> (Token, &str) {
    let end =
        rest.char_indices().find(|(at, c)| !(is_word(*c) || *at == 0 && *c == '+')).map_or(rest.len(), |(at, _)| at);
    let (text, after) = rest.split_at(end);
    let begins_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    let token = if begins_number { Token::Number(text.to_owned()) } else { Token::Word(text.to_owned()) };
    (token, after)
}

/// A string up to its closing quote: the quote itself is written twice, or after a backslash.
fn quoted(rest: &str, quote: char) -> Result<(String, &str), Status> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\0' {
            return Err(refuse("a text contains a NUL"));
        }
        if c == quote {
            if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
                text.push(quote);
                continue;
            }
            return Ok((text, &rest[at + quote.len_utf8()..]));
        }
        if c == '\\'
            && let Some((_, next)) = chars.next_if(|(_, next)| matches!(next, '\'' | '"' | '\\'))
        {
            text.push(next);
            continue;
        }
        text.push(c);
    }
    Err(refuse(format_args!("{quote} is not closed")))
}
