//! What is said about models of a session.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ambient_domain::{
    RefusalCode,
    agent::AgentSpec,
    model_rules::ModelRules,
    project::ProjectSpec,
    session::{Command, Session, SessionPatch, Spec},
};
use serde_json::{Value, json};
use support::*;

fn rules(said: Value) -> ModelRules {
    serde_json::from_value(said).unwrap()
}

fn patch(said: Value) -> Command {
    Command::Patch(SessionPatch { models: Some(rules(said)), ..SessionPatch::default() })
}

fn apply(before: &Session, command: &Command) -> Session {
    step(Some(before), command, &context(1)).unwrap().unwrap().after
}

#[test]
fn limits_change_at_any_time_and_the_rest_while_a_session_rests() {
    let session =
        apply(&new_session(spec(true, false)), &patch(json!({ "allowed": ["a"], "limits": { "tokens": 1 } })));
    let active = apply(&session, &start());
    let raised = apply(&active, &patch(json!({ "allowed": ["a"], "limits": { "tokens": 2, "cost_micros": 3 } })));
    assert_eq!(raised.spec.models.limits.tokens, Some(2));
    let endpoint =
        json!({ "allowed": ["a"], "limits": { "tokens": 1 }, "endpoints": { "openai": { "base_url": "https://x" } } });
    for said in
        [json!({ "limits": { "tokens": 1 } }), json!({ "allowed": ["a", "b"], "limits": { "tokens": 1 } }), endpoint]
    {
        let refusal = step(Some(&active), &patch(said.clone()), &context(2)).err().unwrap();
        assert_eq!((refusal.code, refusal.field.as_deref()), (RefusalCode::Phase, Some("models")), "{said}");
        apply(&session, &patch(said));
    }
}

#[test]
fn a_key_is_a_variable_of_the_sessions_and_stays_one() {
    let session = new_session(spec(true, false));
    let keyed = json!({ "endpoints": { "openai": { "key_variable": "KEY" } } });
    let refusal = step(Some(&session), &patch(keyed.clone()), &context(1)).err().unwrap();
    let field = Some("models.endpoints.openai.key_variable");
    assert_eq!((refusal.code, refusal.field.as_deref()), (RefusalCode::Conflict, field));
    let variable = |id: Option<&str>| {
        let variables = [("KEY".to_owned(), id.map(str::to_owned))].into();
        Command::Patch(SessionPatch { environment_variables: Some(variables), ..SessionPatch::default() })
    };
    let session = apply(&apply(&session, &variable(Some("session/s/1"))), &patch(keyed));
    let refusal = step(Some(&session), &variable(None), &context(1)).err().unwrap();
    assert_eq!((refusal.code, refusal.field.as_deref()), (RefusalCode::Conflict, field));
    apply(&apply(&session, &patch(json!({}))), &variable(None));
}

#[test]
fn operations_from_before_are_read_as_saying_nothing_and_written_as_before() {
    let session = json!({
        "display_name": "test", "agent_type": "script", "interactive": true, "inactivity_timeout": 0, "llm_temperature": 0.7,
        "llm_max_tokens": 4000, "stop_on_run_finished": false, "repos": [], "labels": {}, "annotations": {},
    });
    let read: Spec = serde_json::from_value(session.clone()).unwrap();
    assert_eq!((read.models.is_empty(), serde_json::to_value(&read).unwrap()), (true, session));
    let project = json!({
        "display_name": "", "description": "", "prompt": "", "labels": {}, "annotations": {}, "settings": { "llm_model": "m" },
    });
    let read: ProjectSpec = serde_json::from_value(project.clone()).unwrap();
    assert!(read.settings.models.is_empty() && read.settings.model_budget.is_none());
    assert_eq!((read.environment_variables.len(), serde_json::to_value(&read).unwrap()), (0, project));
    let agent = json!({ "display_name": "", "description": "", "prompt": "", "labels": {}, "annotations": {} });
    let read: AgentSpec = serde_json::from_value(agent.clone()).unwrap();
    assert_eq!((read.models.is_empty(), serde_json::to_value(&read).unwrap()), (true, agent));
}
