//! The subset of Temporal's visibility query language that list and count understand:
//! `WorkflowId` with `=` and `STARTS_WITH`, `WorkflowType`, `RunId`, `ExecutionStatus` with `=`, `StartTime` with `= < <= > >=`, joined by `AND`,
//! and `ORDER BY StartTime [ASC|DESC]`. Anything else is `InvalidArgument` naming the token.

use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};
use tonic::Status;
use uuid::Uuid;

/// One condition; values are bound, never spliced.
#[derive(Clone, Debug, PartialEq)]
enum Condition {
    WorkflowId(String),
    WorkflowIdPrefix(String),
    WorkflowType(String),
    RunId(Uuid),
    Status(i16),
    StartTime(&'static str, DateTime<Utc>),
}

/// A parsed query.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct VisibilityQuery {
    conditions: Vec<Condition>,
    pub(super) ascending: bool,
}

fn unexpected(token: Option<&Token>, wanted: &str) -> Status {
    let found = match token {
        Some(Token::Word(w) | Token::Operator(w)) => format!("{w:?}"),
        Some(Token::Text(t)) => format!("'{t}'"),
        None => "the end".to_owned(),
    };
    Status::invalid_argument(format!("query: {found} where {wanted} is expected"))
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Operator(String),
}

fn tokens(query: &str) -> Result<Vec<Token>, Status> {
    let mut out = Vec::new();
    let mut chars = query.chars().peekable();
    while let Some(&c) = chars.peek() {
        if c.is_whitespace() {
            chars.next();
        } else if c == '\'' || c == '"' {
            chars.next();
            let mut text = String::new();
            loop {
                match chars.next() {
                    Some(end) if end == c => break,
                    Some('\0') | None => return Err(Status::invalid_argument(format!("query: {c} is not closed"))),
                    Some(other) => text.push(other),
                }
            }
            out.push(Token::Text(text));
        } else if "=<>!".contains(c) {
            let mut operator = String::new();
            while let Some(&o) = chars.peek().filter(|o| "=<>!".contains(**o)) {
                operator.push(o);
                chars.next();
            }
            out.push(Token::Operator(operator));
        } else if c.is_alphanumeric() || "_-.:`".contains(c) {
            let mut word = String::new();
            while let Some(&w) = chars.peek().filter(|w| w.is_alphanumeric() || "_-.:`".contains(**w)) {
                word.push(w);
                chars.next();
            }
            out.push(Token::Word(word.trim_matches('`').to_owned()));
        } else {
            return Err(Status::invalid_argument(format!("query: {:?} is not understood", c.to_string())));
        }
    }
    Ok(out)
}

fn is_word(token: Option<&Token>, word: &str) -> bool {
    matches!(token, Some(Token::Word(w)) if w.eq_ignore_ascii_case(word))
}

impl VisibilityQuery {
    pub(super) fn parse(query: &str) -> Result<Self, Status> {
        let mut parsed = Self::default();
        let tokens = tokens(query)?;
        let mut rest = tokens.as_slice();
        if !rest.is_empty() && !is_word(rest.first(), "order") {
            loop {
                let [field, operator, value, ..] = rest else { return Err(incomplete(rest)) };
                parsed.conditions.push(condition(field, operator, value)?);
                rest = &rest[3..];
                if !is_word(rest.first(), "and") {
                    break;
                }
                rest = &rest[1..];
            }
        }
        if is_word(rest.first(), "order") {
            rest = parsed.order(rest)?;
        }
        match rest.first() {
            None => Ok(parsed),
            found => Err(unexpected(found, "AND, ORDER BY or the end")),
        }
    }

    fn order<'a>(&mut self, tokens: &'a [Token]) -> Result<&'a [Token], Status> {
        if !is_word(tokens.get(1), "by") {
            return Err(unexpected(tokens.get(1), "BY"));
        }
        if !matches!(tokens.get(2), Some(Token::Word(w)) if w == "StartTime") {
            return Err(unexpected(tokens.get(2), "StartTime"));
        }
        self.ascending = is_word(tokens.get(3), "asc");
        let explicit = self.ascending || is_word(tokens.get(3), "desc");
        Ok(&tokens[if explicit { 4 } else { 3 }..])
    }

    /// Appends ` where ...` to a query over `engine.executions e`.
    pub(super) fn push_where(&self, sql: &mut QueryBuilder<Postgres>) {
        sql.push(" where true");
        for condition in &self.conditions {
            match condition {
                Condition::WorkflowId(id) => sql.push(" and e.workflow_id = ").push_bind(id.clone()),
                Condition::WorkflowIdPrefix(prefix) => sql.push(" and e.workflow_id ^@ ").push_bind(prefix.clone()),
                Condition::WorkflowType(name) => sql.push(" and e.workflow_type = ").push_bind(name.clone()),
                Condition::RunId(id) => sql.push(" and e.run_id = ").push_bind(*id),
                Condition::Status(status) => sql.push(" and e.status = ").push_bind(*status),
                Condition::StartTime(operator, time) => {
                    sql.push(" and e.start_time ").push(*operator).push(" ").push_bind(*time)
                }
            };
        }
    }
}

fn incomplete(rest: &[Token]) -> Status {
    let wanted = ["a field", "an operator", "a value"][rest.len().min(2)];
    unexpected(None, wanted)
}

fn condition(field: &Token, operator: &Token, value: &Token) -> Result<Condition, Status> {
    if let (Token::Word(name), true, Token::Text(prefix)) = (field, is_word(Some(operator), "starts_with"), value)
        && name == "WorkflowId"
    {
        return Ok(Condition::WorkflowIdPrefix(prefix.clone()));
    }
    let (Token::Word(name), Token::Operator(op)) = (field, operator) else {
        let wrong = if matches!(field, Token::Word(_)) { (operator, "an operator") } else { (field, "a field") };
        return Err(unexpected(Some(wrong.0), wrong.1));
    };
    let text = match value {
        Token::Text(text) | Token::Word(text) => text.clone(),
        Token::Operator(_) => return Err(unexpected(Some(value), "a value")),
    };
    if name == "StartTime" {
        let op = ["=", "<", "<=", ">", ">="].into_iter().find(|o| o == op);
        let op = op.ok_or_else(|| unexpected(Some(operator), "one of = < <= > >="))?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(|_| unexpected(Some(value), "an RFC 3339 time"))?;
        return Ok(Condition::StartTime(op, time.to_utc()));
    }
    if op != "=" {
        return Err(unexpected(Some(operator), "="));
    }
    match name.as_str() {
        "WorkflowId" => Ok(Condition::WorkflowId(text)),
        "WorkflowType" => Ok(Condition::WorkflowType(text)),
        "RunId" => Uuid::parse_str(&text).map(Condition::RunId).map_err(|_| unexpected(Some(value), "a run id")),
        "ExecutionStatus" => status(&text).ok_or_else(|| unexpected(Some(value), "an execution status")),
        _ => Err(unexpected(Some(field), "WorkflowId, WorkflowType, RunId, ExecutionStatus or StartTime")),
    }
}

fn status(name: &str) -> Option<Condition> {
    let names = ["Running", "Completed", "Failed", "Canceled", "Terminated", "ContinuedAsNew", "TimedOut"];
    let position = names.iter().position(|n| *n == name)?;
    i16::try_from(position + 1).ok().map(Condition::Status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_subset() {
        let q = "WorkflowType = 'a b' AND ExecutionStatus=\"Running\" and StartTime >= '2026-01-02T03:04:05Z' order by StartTime asc";
        let parsed = VisibilityQuery::parse(q).unwrap();
        assert!(parsed.ascending);
        assert_eq!(parsed.conditions[0], Condition::WorkflowType("a b".into()));
        assert_eq!(parsed.conditions[1], Condition::Status(1));
        let prefix = VisibilityQuery::parse("WorkflowId STARTS_WITH 'session-start/'").unwrap();
        assert_eq!(prefix.conditions, [Condition::WorkflowIdPrefix("session-start/".into())]);
        assert_eq!(VisibilityQuery::parse("  ").unwrap(), VisibilityQuery::default());
    }

    #[test]
    fn names_what_it_does_not_understand() {
        for (query, named) in [
            ("WorkflowId = 'a' OR RunId = 'b'", "OR"),
            ("CustomField = 'a'", "CustomField"),
            ("WorkflowId != 'a'", "!="),
            ("WorkflowId =", "the end"),
            ("WorkflowId = 'a", "not closed"),
            ("ExecutionStatus = 'Paused'", "Paused"),
            ("RunId = 'x'", "'x'"),
            ("RunId STARTS_WITH 'x'", "STARTS_WITH"),
            ("(WorkflowId = 'a')", "("),
            ("StartTime > 'yesterday'", "yesterday"),
            ("WorkflowId = 'a' ORDER BY CloseTime", "CloseTime"),
        ] {
            let status = VisibilityQuery::parse(query).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().contains(named), "{query}: {}", status.message());
        }
    }
}
