//! A session's own limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ambient_domain::{
    RefusalCode,
    session::{Command, Fact, ResourceOverrides, ResourcePatch, Session, SessionPatch, Spec},
};
use serde_json::json;
use support::*;

fn patch(resource_overrides: ResourcePatch) -> Command {
    Command::Patch(SessionPatch { resource_overrides: Some(resource_overrides), ..SessionPatch::default() })
}

fn memory(text: &str) -> ResourcePatch {
    ResourcePatch { memory: Some(Some(text.parse().unwrap())), ..ResourcePatch::default() }
}

fn apply(before: &Session, command: &Command) -> Session {
    step(Some(before), command, &context(1)).unwrap().unwrap().after
}

#[test]
fn limits_change_while_a_session_rests_and_not_while_a_run_has_used_them() {
    let session = apply(&new_session(spec(true, false)), &patch(memory("2Gi")));
    assert_eq!(session.spec.resource_overrides.memory, Some("2Gi".parse().unwrap()));
    let mut active = apply(&session, &start());
    let facts = [Fact::Provisioning, Fact::MarkRunning, fatal()];
    for fact in facts.map(Some).into_iter().chain([None]) {
        let refusal = step(Some(&active), &patch(memory("1Gi")), &context(2)).err().unwrap();
        assert_eq!((refusal.code, refusal.field.as_deref()), (RefusalCode::Phase, Some("resource_overrides")));
        // What changes nothing is no change.
        assert!(step(Some(&active), &patch(memory("2048Mi")), &context(2)).unwrap().is_none());
        let Some(fact) = fact else { break };
        active = apply(&active, &now(&active, fact));
    }
    let over = apply(&active, &now(&active, torn_down()));
    let cleared = ResourcePatch { memory: Some(None), ..ResourcePatch::default() };
    assert!(apply(&over, &patch(cleared)).spec.resource_overrides.is_empty());
}

#[test]
fn operations_from_before_there_were_limits_are_read_as_leaving_them_to_the_server_and_written_as_before() {
    let old = json!({
        "display_name": "test", "agent_type": "script", "interactive": true, "inactivity_timeout": 0, "llm_temperature": 0.7,
        "llm_max_tokens": 4000, "stop_on_run_finished": false, "repos": [], "labels": {}, "annotations": {},
    });
    let spec: Spec = serde_json::from_value(old.clone()).unwrap();
    assert!(spec.resource_overrides.is_empty());
    assert_eq!(serde_json::to_value(&spec).unwrap(), old);
    let with = Spec {
        resource_overrides: ResourceOverrides { cpu: Some("0.5".parse().unwrap()), ..ResourceOverrides::default() },
        ..spec
    };
    let stored = serde_json::to_value(&with).unwrap();
    assert_eq!(stored["resource_overrides"], json!({"cpu": "500m"}));
    assert_eq!(serde_json::from_value::<Spec>(stored).unwrap(), with);
}

#[test]
fn what_cannot_be_a_limit_is_refused_with_its_field() {
    let session = new_session(spec(true, false));
    for (limits, field) in [
        (ResourcePatch { processes: Some(Some(1)), ..ResourcePatch::default() }, "resource_overrides.processes"),
        (ResourcePatch { open_files: Some(Some(1)), ..ResourcePatch::default() }, "resource_overrides.open_files"),
    ] {
        let refusal = step(Some(&session), &patch(limits), &context(1)).err().unwrap();
        assert_eq!((refusal.code, refusal.field.as_deref()), (RefusalCode::Invalid, Some(field)));
    }
    let asked: ResourceOverrides = serde_json::from_value(json!({"memory": "8Gi", "processes": 100})).unwrap();
    let most: ResourceOverrides = serde_json::from_value(json!({"memory": "4Gi"})).unwrap();
    let refusal = asked.within(&most).unwrap_err();
    assert!(refusal.reason.contains("4Gi") && refusal.field.as_deref() == Some("resource_overrides.memory"));
    asked.within(&ResourceOverrides::default()).unwrap();
}
