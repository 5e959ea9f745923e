use proptest::prelude::*;
use sqlx::QueryBuilder;
use temporalio_common::protos::temporal::api::enums::v1::IndexedValueType as Type;

use super::{fields::Known, parser, sql};

fn known() -> Known {
    let types = [
        ("Colour", Type::Keyword),
        ("Tags", Type::KeywordList),
        ("Notes", Type::Text),
        ("Size", Type::Int),
        ("Weight", Type::Double),
        ("Good", Type::Bool),
        ("Due", Type::Datetime),
    ];
    types.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect()
}

fn compile(query: &str) -> Result<String, String> {
    let parsed = parser::parse(query).map_err(|s| s.message().to_owned())?;
    let mut builder = QueryBuilder::new("");
    if let Some(filter) = &parsed.filter {
        sql::push(&mut builder, filter, &known(), false).map_err(|s| s.message().to_owned())?;
    }
    Ok(builder.into_string())
}

#[test]
fn precedence_and_negation_are_those_of_sql() {
    for (query, expected) in [
        ("  ", ""),
        ("WorkflowId = 'a'", "((e.workflow_id = $1))"),
        (
            "WorkflowId = 'a' OR WorkflowType='b' and not TaskQueue != \"c\"",
            "(((e.workflow_id = $1)) or (((e.workflow_type = $2)) and ((e.task_queue = $3))))",
        ),
        (
            "NOT (ExecutionStatus = 'Running' AND StartTime >= '2026-01-02T03:04:05Z')",
            "((not (e.status = $1)) or (not (e.start_time >= $2)))",
        ),
        ("`Colour` = 'red'", "((e.attributes @> $1))"),
        (
            "Colour NOT IN ('a', 'b')",
            "(not (e.attributes @> $1 or e.attributes @> $2) and (e.attributes ->> $3) is not null)",
        ),
        ("CloseTime is not null order by StartTime desc", "(not (e.close_time is null))"),
        (
            "WorkflowId BETWEEN 'a' AND 'b' AND RunId IS NULL",
            "(((e.workflow_id between $1 and $2)) and ((e.run_id is null)))",
        ),
    ] {
        assert_eq!(compile(query).as_deref(), Ok(expected), "{query}");
    }
}

#[test]
fn values_are_read_as_their_fields_say() {
    for query in [
        "ExecutionStatus = 3 or ExecutionStatus IN ('TimedOut', 'ContinuedAsNew')",
        "ExecutionDuration > '1h30m' or ExecutionDuration < '00:00:10' or ExecutionDuration = 1000000000",
        "StartTime > 1700000000000000000 and ExecutionTime <= '2026-01-02T03:04:05.123+02:00'",
        "Size between -1 and 3 and Weight > 1.5e3 and Weight < 2 and Good = true and Due < '2026-01-02T03:04:05Z'",
        "Notes = 'quick fox' and Tags IN ('x') and Colour STARTS_WITH 'r' and Colour not starts_with 'ro' and Colour < 'z'",
        "HistoryLength > 10 and HistorySizeBytes <= 4096 and ParentWorkflowId is null and RootWorkflowId = 'it''s \\'fine\\''",
        "WorkflowType = 'x' GROUP BY ExecutionStatus",
    ] {
        assert!(compile(query).is_ok(), "{query}: {:?}", compile(query));
    }
}

#[test]
fn what_is_not_understood_is_named() {
    for (query, named) in [
        ("Shape = 'a'", "Shape"),
        ("BuildIds = 'a'", "BuildIds is not supported"),
        ("WorkflowId =", "the end"),
        ("WorkflowId = 'a", "not closed"),
        ("WorkflowId = a", "\"a\""),
        ("WorkflowId ~ 'a'", "~"),
        ("ExecutionStatus = 'Paused'", "Paused"),
        ("ExecutionStatus = 9", "9"),
        ("ExecutionStatus > 'Running'", ">"),
        ("RunId = 7", "7"),
        ("RunId STARTS_WITH 'x'", "STARTS_WITH"),
        ("(WorkflowId = 'a'", "the end"),
        ("WorkflowId = 'a' extra", "extra"),
        ("StartTime > 'yesterday'", "yesterday"),
        ("Size = 'big'", "big"),
        ("Size = 1.5", "1.5"),
        ("Good = 7", "7"),
        ("Tags > 'a'", ">"),
        ("ExecutionDuration > 'long'", "long"),
        ("WorkflowId IN ()", "\")\""),
        ("WorkflowId IS 'a'", "'a'"),
        ("WorkflowId = 'a' ORDER StartTime", "StartTime"),
        ("Size = 12a", "12a"),
    ] {
        let refused = compile(query).unwrap_err();
        assert!(refused.contains(named), "{query}: {refused}");
    }
    let deep = format!("{}WorkflowId = 'a'{}", "(".repeat(1000), ")".repeat(1000));
    assert!(compile(&deep).unwrap_err().contains("nested"));
}

proptest! {
    #[test]
    fn no_query_panics_and_no_value_becomes_sql(query in ".{0,120}", value in "[^\\\\'\0]{0,30}") {
        let _ = compile(&query);
        let marked = format!("zq{value}");
        let text = compile(&format!("WorkflowId = '{marked}' or Colour IN ('{marked}') or Notes != '{marked}'")).unwrap();
        prop_assert!(!text.contains("zq"));
    }

    #[test]
    fn words_of_the_language_in_any_order_do_not_panic(words in proptest::collection::vec(
        prop::sample::select(vec!["WorkflowId", "Colour", "Size", "=", "!=", "<", "(", ")", ",", "and", "or", "not", "in", "between",
            "is", "null", "starts_with", "'a'", "1", "-2.5", "true", "order", "by", "group", "StartTime", "`Due`", "\\", "'"]), 0..24))
    {
        let _ = compile(&words.join(" "));
    }
}
