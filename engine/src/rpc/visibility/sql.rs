//! A query as SQL. Names come from our own tables; values are bound, never spliced in.

use serde_json::json;
use sqlx::{Postgres, QueryBuilder};
use temporalio_common::protos::temporal::api::enums::v1::IndexedValueType as Type;
use tonic::Status;

use super::{
    fields::{Bound, Field, Kind, Known},
    lexer::refuse,
    parser::{Filter, Test, Value},
};

type Sql = QueryBuilder<Postgres>;

/// Appends a condition over `engine.executions e left join engine.runs r`. Negation is pushed down to the individual tests, so that a
/// missing value matches neither a test nor its negation, as in SQL.
pub(super) fn push(sql: &mut Sql, filter: &Filter, known: &Known, negated: bool) -> Result<(), Status> {
    match filter {
        Filter::All(parts) => joined(sql, parts, if negated { " or " } else { " and " }, known, negated),
        Filter::Any(parts) => joined(sql, parts, if negated { " and " } else { " or " }, known, negated),
        Filter::Not(inner) => push(sql, inner, known, !negated),
        Filter::Test(name, Test::Compare("!=", value)) => {
            let equal = Test::Compare("=", value.clone());
            single(sql, name, &Field::find(name, known)?, &equal, !negated)
        }
        Filter::Test(name, test) => single(sql, name, &Field::find(name, known)?, test, negated),
    }
}

fn joined(sql: &mut Sql, parts: &[Filter], by: &'static str, known: &Known, negated: bool) -> Result<(), Status> {
    sql.push("(");
    for (position, part) in parts.iter().enumerate() {
        if position > 0 {
            sql.push(by);
        }
        push(sql, part, known, negated)?;
    }
    sql.push(")");
    Ok(())
}

fn single(sql: &mut Sql, name: &str, field: &Field, test: &Test, negated: bool) -> Result<(), Status> {
    sql.push(if negated { "(not (" } else { "((" });
    test_of(sql, name, field, test)?;
    sql.push(")");
    if negated && *test != Test::IsNull && matches!(field, Field::Custom(..)) {
        sql.push(" and ");
        operand(sql, field, true);
        sql.push(" is not null");
    }
    sql.push(")");
    Ok(())
}

fn unfit(name: &str, field: &Field, operator: &str) -> Status {
    let kind = match field {
        Field::System(_, kind) => format!("{kind:?}"),
        Field::Custom(_, kind) => format!("{kind:?}"),
    };
    refuse(format_args!("{name} ({kind}) cannot be compared with {operator}"))
}

fn test_of(sql: &mut Sql, name: &str, field: &Field, test: &Test) -> Result<(), Status> {
    match test {
        Test::IsNull => {
            operand(sql, field, true);
            sql.push(" is null");
        }
        Test::Compare("=", value) => equal(sql, name, field, value)?,
        Test::Compare(operator, value) => {
            ordered(name, field, operator)?;
            operand(sql, field, false);
            sql.push(" ").push(*operator).push(" ");
            bound(sql, field.bind(name, value)?);
        }
        Test::Among(values) => {
            for (position, value) in values.iter().enumerate() {
                if position > 0 {
                    sql.push(" or ");
                }
                equal(sql, name, field, value)?;
            }
        }
        Test::Between(low, high) => {
            ordered(name, field, "BETWEEN")?;
            operand(sql, field, false);
            sql.push(" between ");
            bound(sql, field.bind(name, low)?);
            sql.push(" and ");
            bound(sql, field.bind(name, high)?);
        }
        Test::StartsWith(value) => {
            let texts = matches!(field, Field::System(_, Kind::Text) | Field::Custom(_, Type::Keyword));
            let Value::Text(prefix) = value else { return Err(unfit(name, field, "STARTS_WITH and no text")) };
            if !texts {
                return Err(unfit(name, field, "STARTS_WITH"));
            }
            operand(sql, field, false);
            sql.push(" ^@ ").push_bind(prefix.clone());
        }
    }
    Ok(())
}

/// Kinds whose values are ordered.
fn ordered(name: &str, field: &Field, operator: &str) -> Result<(), Status> {
    let without = matches!(
        field,
        Field::System(_, Kind::Status | Kind::Id) | Field::Custom(_, Type::Bool | Type::KeywordList | Type::Text)
    );
    if without { Err(unfit(name, field, operator)) } else { Ok(()) }
}

fn equal(sql: &mut Sql, name: &str, field: &Field, value: &Value) -> Result<(), Status> {
    let value = field.bind(name, value)?;
    match (field, value) {
        // Containment: uses the index.
        (Field::Custom(key, Type::Keyword), Bound::Text(text)) => contains(sql, json!({key: text})),
        (Field::Custom(key, Type::KeywordList), Bound::Text(text)) => contains(sql, json!({key: [text]})),
        (Field::Custom(key, Type::Bool), Bound::Bool(value)) => contains(sql, json!({key: value})),
        (Field::Custom(key, Type::Int), Bound::Int(value)) => contains(sql, json!({key: value})),
        // One word of the text, any of them.
        (Field::Custom(_, Type::Text), Bound::Text(text)) => {
            let words = text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase);
            sql.push("regexp_split_to_array(lower(");
            operand(sql, field, false);
            sql.push("), '[^[:alnum:]]+') && ").push_bind(words.collect::<Vec<_>>());
        }
        (_, value) => {
            operand(sql, field, false);
            sql.push(" = ");
            bound(sql, value);
        }
    }
    Ok(())
}

fn contains(sql: &mut Sql, value: serde_json::Value) {
    sql.push("e.attributes @> ").push_bind(value);
}

/// The field's value; `raw`: only whether there is one matters. A value of another type than the registered one counts as none.
fn operand(sql: &mut Sql, field: &Field, raw: bool) {
    let (key, kind) = match field {
        Field::System(expression, _) => {
            sql.push(*expression);
            return;
        }
        Field::Custom(key, kind) => (key, *kind),
    };
    let (json, cast) = match kind {
        Type::Int => ("number", "::numeric"),
        Type::Double => ("number", "::float8"),
        Type::Bool => ("boolean", "::boolean"),
        Type::Datetime => ("string", "::timestamptz"),
        _ => {
            sql.push("(e.attributes ->> ").push_bind(key.clone()).push(")");
            return;
        }
    };
    if raw {
        sql.push("(e.attributes ->> ").push_bind(key.clone()).push(")");
        return;
    }
    sql.push("(case when jsonb_typeof(e.attributes -> ").push_bind(key.clone()).push(") = '").push(json);
    sql.push("' then (e.attributes ->> ").push_bind(key.clone()).push(")").push(cast).push(" end)");
}

fn bound(sql: &mut Sql, value: Bound) {
    match value {
        Bound::Text(value) => sql.push_bind(value),
        Bound::Id(value) => sql.push_bind(value),
        Bound::Status(value) => sql.push_bind(value),
        Bound::Time(value) => sql.push_bind(value),
        Bound::Micros(value) => sql.push("(").push_bind(value).push(" * interval '1 microsecond')"),
        Bound::Int(value) => sql.push_bind(value),
        Bound::Double(value) => sql.push_bind(value),
        Bound::Bool(value) => sql.push_bind(value),
    };
}
