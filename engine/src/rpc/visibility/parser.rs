//! From tokens to the tree of a query. Field names and value types are checked later.

use tonic::Status;

use super::lexer::{Token, refuse, tokens};

/// Maximum nesting depth of parentheses and NOTs.
const MAX_DEPTH: usize = 32;

/// A value as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "'{text}'"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Double(number) => write!(f, "{number}"),
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}

/// A condition on one field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    /// `=`, `!=`, `<`, `<=`, `>`, `>=`
    Compare(&'static str, Value),
    Among(Vec<Value>),
    Between(Value, Value),
    StartsWith(Value),
    IsNull,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Test(String, Test),
}

/// A whole query.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parsed {
    pub(super) filter: Option<Filter>,
    pub(super) group_by: Option<String>,
    /// Field, and whether ascending.
    pub(super) order_by: Option<(String, bool)>,
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    depth: usize,
}

pub(super) fn parse(query: &str) -> Result<Parsed, Status> {
    let mut parser = Parser { tokens: tokens(query)?.into_iter().peekable(), depth: 0 };
    let mut parsed = Parsed::default();
    if parser.tokens.peek().is_some() && !parser.at("order") && !parser.at("group") {
        parsed.filter = Some(parser.any()?);
    }
    if parser.keyword("group") {
        parser.expect("by")?;
        parsed.group_by = Some(parser.word("a field")?);
    }
    if parser.keyword("order") {
        parser.expect("by")?;
        let field = parser.word("a field")?;
        let ascending = parser.keyword("asc") || !parser.keyword("desc");
        parsed.order_by = Some((field, ascending));
    }
    match parser.tokens.next() {
        None => Ok(parsed),
        found => Err(unexpected(found.as_ref(), "AND, OR, GROUP BY, ORDER BY or the end")),
    }
}

fn unexpected(token: Option<&Token>, wanted: &str) -> Status {
    match token {
        Some(token) => refuse(format_args!("{token} where {wanted} is expected")),
        None => refuse(format_args!("the end where {wanted} is expected")),
    }
}

impl Parser {
    fn at(&mut self, keyword: &str) -> bool {
        matches!(self.tokens.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword))
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let found = self.at(keyword);
        if found {
            self.tokens.next();
        }
        found
    }

    fn expect(&mut self, keyword: &str) -> Result<(), Status> {
        if self.keyword(keyword) {
            return Ok(());
        }
        Err(unexpected(self.tokens.peek(), &keyword.to_uppercase()))
    }

    fn word(&mut self, wanted: &str) -> Result<String, Status> {
        match self.tokens.next() {
            Some(Token::Word(word)) => Ok(word),
            found => Err(unexpected(found.as_ref(), wanted)),
        }
    }

    fn any(&mut self) -> Result<Filter, Status> {
        let mut parts = vec![self.all()?];
        while self.keyword("or") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::Any(parts) })
    }

    fn all(&mut self) -> Result<Filter, Status> {
        let mut parts = vec![self.one()?];
        while self.keyword("and") {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::All(parts) })
    }

    fn one(&mut self) -> Result<Filter, Status> {
        let negated = self.keyword("not");
        let nested = matches!(self.tokens.peek(), Some(Token::Open));
        if !negated && !nested {
            return self.test();
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(refuse(format_args!("nested deeper than {MAX_DEPTH}")));
        }
        let inner = if negated {
            Filter::Not(Box::new(self.one()?))
        } else {
            self.tokens.next();
            let inner = self.any()?;
            match self.tokens.next() {
                Some(Token::Close) => inner,
                found => return Err(unexpected(found.as_ref(), "AND, OR or \")\"")),
            }
        };
        self.depth -= 1;
        Ok(inner)
    }

    fn test(&mut self) -> Result<Filter, Status> {
        let field = self.word("a field")?;
        if let Some(Token::Operator(operator)) = self.tokens.peek() {
            let operator = *operator;
            self.tokens.next();
            return Ok(Filter::Test(field, Test::Compare(operator, self.value()?)));
        }
        if self.keyword("is") {
            let negated = self.keyword("not");
            self.expect("null")?;
            return Ok(negate(negated, Filter::Test(field, Test::IsNull)));
        }
        let negated = self.keyword("not");
        let test = if self.keyword("in") {
            Test::Among(self.values()?)
        } else if self.keyword("between") {
            let low = self.value()?;
            self.expect("and")?;
            Test::Between(low, self.value()?)
        } else if self.keyword("starts_with") {
            Test::StartsWith(self.value()?)
        } else {
            let wanted = if negated { "IN, BETWEEN or STARTS_WITH" } else { "an operator" };
            return Err(unexpected(self.tokens.peek(), wanted));
        };
        Ok(negate(negated, Filter::Test(field, test)))
    }

    fn values(&mut self) -> Result<Vec<Value>, Status> {
        match self.tokens.next() {
            Some(Token::Open) => {}
            found => return Err(unexpected(found.as_ref(), "\"(\"")),
        }
        let mut values = vec![self.value()?];
        loop {
            match self.tokens.next() {
                Some(Token::Comma) => values.push(self.value()?),
                Some(Token::Close) => return Ok(values),
                found => return Err(unexpected(found.as_ref(), "\",\" or \")\"")),
            }
        }
    }

    fn value(&mut self) -> Result<Value, Status> {
        match self.tokens.next() {
            Some(Token::Text(text)) => Ok(Value::Text(text)),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("true") => Ok(Value::Bool(true)),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("false") => Ok(Value::Bool(false)),
            Some(Token::Number(text)) => {
                let double = || text.parse::<f64>().ok().filter(|n| n.is_finite()).map(Value::Double);
                let number = text.parse::<i64>().ok().map(Value::Int).or_else(double);
                number.ok_or_else(|| unexpected(Some(&Token::Number(text)), "a value (texts are in quotes)"))
            }
            found => Err(unexpected(found.as_ref(), "a value (texts are in quotes)")),
        }
    }
}

fn negate(negated: bool, filter: Filter) -> Filter {
    if negated { Filter::Not(Box::new(filter)) } else { filter }
}
