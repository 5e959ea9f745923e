//! The network of a session.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ambient_domain::{
    RefusalCode,
    network::{Network, NetworkMode},
    session::{Command, Session, SessionPatch},
};
use support::*;

fn patch(network: Option<Network>) -> Command {
    Command::Patch(SessionPatch { network: Some(network), ..SessionPatch::default() })
}

fn apply(before: &Session, command: &Command) -> Session {
    step(Some(before), command, &context(1)).unwrap().unwrap().after
}

fn network(mode: NetworkMode, allow: &[&str]) -> Network {
    Network { mode, allow: allow.iter().map(|&entry| entry.to_owned()).collect() }
}

#[test]
fn it_changes_while_a_session_rests_and_not_while_a_run_uses_it() {
    let none = network(NetworkMode::None, &[]);
    let session = apply(&new_session(spec(true, false)), &patch(Some(none.clone())));
    assert_eq!(session.spec.network, Some(none.clone()));
    let active = apply(&session, &start());
    let refusal = step(Some(&active), &patch(None), &context(2)).err().unwrap();
    assert_eq!((refusal.code, refusal.field.as_deref()), (RefusalCode::Phase, Some("network")));
    assert!(
        step(Some(&active), &patch(Some(none)), &context(2)).unwrap().is_none(),
        "what changes nothing is no change"
    );
    assert_eq!(apply(&session, &patch(None)).spec.network, None);
}

#[test]
fn a_list_belongs_to_its_mode_and_has_bounds() {
    let many = vec!["a.test"; 101];
    for (wrong, field) in [
        (network(NetworkMode::AllowList, &[]), "network.allow"),
        (network(NetworkMode::Open, &["a.test"]), "network.allow"),
        (network(NetworkMode::None, &["a.test"]), "network.allow"),
        (network(NetworkMode::AllowList, &many), "network.allow"),
        (network(NetworkMode::AllowList, &["a.test", "b test"]), "network.allow[1]"),
    ] {
        let refusal = step(Some(&new_session(spec(true, false))), &patch(Some(wrong)), &context(1)).err().unwrap();
        assert_eq!((refusal.code, refusal.field.as_deref()), (RefusalCode::Invalid, Some(field)));
    }
    apply(&new_session(spec(true, false)), &patch(Some(network(NetworkMode::AllowList, &many[..100]))));
}
