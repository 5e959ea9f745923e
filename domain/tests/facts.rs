//! What is reported can be stored.
#![allow(clippy::unwrap_used, reason = "tests")]

use ambient_domain::session::{Fact, ReconciledRepo, RepoPosition, RepoProblem};

#[test]
fn no_text_of_a_fact_has_a_nul_or_is_longer_than_it_may_be() {
    let odd = format!("a\0{}", "é".repeat(10_000));
    let repo = ReconciledRepo {
        name: odd.clone(),
        url: odd.clone(),
        branch: Some(odd.clone()),
        head: Some(odd.clone()),
        cloned_at: chrono::DateTime::UNIX_EPOCH,
        notices: vec![odd.clone()],
        problem: Some(RepoProblem { missing: true, reason: odd.clone() }),
    };
    for fact in [
        Fact::Exited { code: 1, reason: odd.clone() },
        Fact::RunnerReady { missing_confinement: vec![odd.clone()] },
        Fact::TornDown { evidence: vec![odd.clone(), odd.clone()], not_run: vec![odd.clone()] },
        Fact::Fatal { reason: odd.clone(), message: odd.clone() },
        Fact::Reconciled { generation: 1, repos: vec![repo], playbook: None, marks_running: false },
        Fact::ReposSeen {
            problems: [("a".to_owned(), RepoProblem { missing: false, reason: odd.clone() })].into(),
            positions: [("a".to_owned(), RepoPosition { branch: Some(odd.clone()), head: Some(odd.clone()) })].into(),
        },
    ] {
        let storable = fact.storable();
        let json = serde_json::to_string(&storable).unwrap();
        assert!(!json.contains("\\u0000") && json.contains("a\u{fffd}é") && json.len() < 7 * 9_000, "{json}");
        assert_eq!(storable.clone().storable(), storable);
    }
    assert_eq!(Fact::RunnerLost { reason: "x".to_owned() }.storable(), Fact::RunnerLost { reason: "x".to_owned() });
}
