//! Which repository the agent works in, and what commands do to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ambient_domain::{
    Entity, RefusalCode,
    session::{Command, Session, Spec, default_branch},
};
use serde_json::{Value, json};
use support::{ID, at, context, create, new_session, spec, step};

fn with(repos: &[&str], main: Option<u32>) -> Spec {
    let repos: Vec<Value> =
        repos.iter().map(|name| json!({"name": name, "url": format!("https://h/o/{name}")})).collect();
    Spec { repos: serde_json::from_value(json!(repos)).unwrap(), main_repo_index: main, ..spec(true, false) }
}

fn remove(session: &Session, name: &str) -> Session {
    step(Some(session), &Command::RemoveRepo { name: name.to_owned() }, &context(9)).unwrap().unwrap().after
}

fn patch(fields: &Value) -> Command {
    let mut patch = json!({"command": "patch"});
    patch.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(patch).unwrap()
}

#[test]
fn a_main_repository_that_is_not_there_is_refused_by_its_field() {
    for (repos, main) in [(&[][..], 0), (&["a", "b"][..], 2), (&["a"][..], u32::MAX)] {
        let refusal = step(None, &create(with(repos, Some(main))), &context(1)).map(|_| ()).unwrap_err();
        assert_eq!(
            (refusal.code, refusal.field.as_deref()),
            (RefusalCode::Conflict, Some("main_repo_index")),
            "{refusal:?}"
        );
    }
    let session = new_session(with(&["a", "b"], Some(1)));
    let fewer = patch(&json!({"repos": [{"name": "a", "url": "https://h/o/a"}]}));
    let refusal = step(Some(&session), &fewer, &context(2)).map(|_| ()).unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("main_repo_index"));
}

#[test]
fn the_main_repository_stays_the_same_when_others_are_removed() {
    let session = new_session(with(&["a", "b", "c"], Some(1)));
    assert_eq!(session.spec.main_repo().unwrap().name, "b");
    let without_one_before = remove(&session, "a");
    assert_eq!(
        (without_one_before.spec.main_repo_index, &*without_one_before.spec.main_repo().unwrap().name),
        (Some(0), "b")
    );
    assert_eq!(remove(&session, "c").spec.main_repo_index, Some(1));
    let without_it = remove(&session, "b");
    assert_eq!((without_it.spec.main_repo_index, without_it.spec.main_repo()), (None, None));
}

#[test]
fn the_main_repository_is_another_only_while_no_run_is_active() {
    let stopped = new_session(with(&["a", "b"], Some(0)));
    let other = patch(&json!({"main_repo_index": 1}));
    assert_eq!(step(Some(&stopped), &other, &context(2)).unwrap().unwrap().after.spec.main_repo_index, Some(1));
    let started = step(Some(&stopped), &Command::Start { prompt: None }, &context(2)).unwrap().unwrap().after;
    for command in [other, Command::RemoveRepo { name: "a".to_owned() }] {
        let refusal = step(Some(&started), &command, &context(3)).map(|_| ()).unwrap_err();
        assert_eq!((refusal.code, refusal.field.as_deref()), (RefusalCode::Phase, Some("main_repo_index")));
    }
    assert_eq!(remove(&started, "b").spec.main_repo_index, Some(0));
}

#[test]
fn operations_of_a_release_that_knew_a_branch_to_push_to_are_decided_as_they_were() {
    let repo = json!({"name": "r", "url": "file:///r", "push_to": "out"});
    let twin = json!({"name": "s", "url": "file:///r", "push_to": "out"});
    let mut command = serde_json::to_value(create(spec(true, false))).unwrap();
    command["spec"]["repos"] = json!([repo, twin]);
    let command: Command = serde_json::from_value(command).unwrap();
    let created = step(None, &command, &context(1)).unwrap().unwrap();
    let mut stored = serde_json::to_value(&created.events).unwrap();
    stored[0]["spec"]["repos"] = json!([repo, twin]);
    let stored: Vec<<Session as Entity>::Event> = serde_json::from_value(stored).unwrap();
    assert_eq!(stored, created.events);
    let folded = stored.iter().fold(None, |state, event| Some(Session::apply(state, event, at(1)))).unwrap();
    assert_eq!(folded.spec, created.after.spec);
    assert!(folded.spec.repos.iter().all(|repo| repo.auto_push && repo.output.target_branch.as_deref() == Some("out")));
}

#[test]
fn sessions_have_branches_of_their_own() {
    assert_eq!(default_branch(ID), "ambient/session-1");
}
