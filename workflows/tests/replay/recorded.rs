//! The recorded corpus: complete, and replayed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use ambient_workflows::{
    ENTITY_WORKFLOWS, PLATFORM_WORKFLOWS,
    replay::{RecordedHistory, ReplayResult, replay, workflows},
    session_start,
};
use futures::{StreamExt as _, stream};
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes;

use crate::{branch::branch_of, corpus::Corpus};

/// Bytes of a folder.
const BUDGET: u64 = 1 << 20;

pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name)
}

/// Recordings of this program, of an engine each; the embedded one's must be there.
const ENGINES: [&str; 2] = ["embedded", "temporal"];

/// Those, and under `kept/` what older ones went through: some executions still go that way, and it is not recorded any more.
fn corpora() -> Vec<(String, Corpus)> {
    let kept = files_below(&folder("kept")).into_iter().filter(|path| path.ends_with("manifest.json"));
    let kept = kept.map(|manifest| {
        let within = manifest.strip_prefix(folder("")).unwrap().parent().unwrap();
        within.to_str().unwrap().to_owned()
    });
    let all = ENGINES.map(str::to_owned).into_iter().chain(kept);
    let all = all.map(|name| (name.clone(), Corpus::open(&folder(&name))));
    all.filter(|(name, corpus)| name == "embedded" || corpus.entries().next().is_some()).collect()
}

/// Branches that there must be: the outcome (or one of several, as it happens), and what the history must have gone through.
fn required() -> Vec<(&'static str, String, &'static [&'static str])> {
    let mut required: Vec<(&str, String, &[&str])> = Vec::new();
    let undone = session_start::STEPS.iter().position(|step| !step.undo.is_empty()).unwrap();
    for (at, step) in session_start::STEPS.iter().enumerate() {
        let undo: &[&str] = if at >= undone { &["undone"] } else { &[] };
        required.push(("session-start", format!("failed-at-{}", step.name()), undo));
        required.push(("session-start", format!("canceled-at-{}", step.name()), &[]));
        required.push(("session-start", format!("superseded-at-{}", step.name()), &[]));
    }
    let rest: [(&str, &str, &[&str]); 43] = [
        ("session-start", "completed", &[]),
        ("session-start", "completed|superseded-at-deliver-prompt", &["after-backoff"]),
        ("session-start", "failed-at-await-runner", &["report-superseded"]),
        ("session-start", "failed-at-await-runner", &["undone", "undo-failed"]),
        ("session-start", "failed-at-reconcile-and-mark-running", &["undone", "step-timed-out"]),
        ("session-start", "canceled-at-bring-up-runner", &["step-failed"]),
        ("session-start", "canceled-at-await-runner", &["step-failed"]),
        ("session-stop", "completed", &[]),
        ("session-stop", "superseded-at-prove-torn-down", &["told"]),
        ("session-stop", "canceled-at-raise-fence", &[]),
        ("session-stop", "canceled-at-raise-fence", &["step-failed"]),
        ("session-supervise", "completed", &[]),
        ("session-supervise", "completed", &["clock"]),
        ("session-supervise", "completed", &["woken"]),
        ("session-supervise", "completed", &["reconciled"]),
        ("session-supervise", "completed", &["reconciled-before"]),
        ("session-supervise", "completed", &["reconciliation-canceled"]),
        ("session-supervise", "continued-as-new", &["at-its-longest"]),
        ("session-supervise", "canceled", &[]),
        ("session-supervise", "running", &[]),
        ("session-reconcile", "completed", &[]),
        ("session-reconcile", "superseded-at-reconcile-repos", &[]),
        ("session-reconcile", "canceled-at-reconcile-repos", &[]),
        ("session-reconcile", "canceled-at-reconcile-repos", &["step-failed"]),
        ("session-delete", "completed", &[]),
        ("session-delete", "canceled-at-raise-fence-for-good", &[]),
        ("session-delete", "canceled-at-raise-fence-for-good", &["step-failed"]),
        ("token-refresh", "superseded-at-refresh-token", &[]),
        ("token-refresh", "superseded-at-refresh-token", &["clock"]),
        ("token-refresh", "continued-as-new", &["at-its-longest"]),
        ("token-refresh", "canceled", &["woken-before"]),
        ("token-refresh", "canceled", &[]),
        ("token-refresh", "canceled", &["step-failed"]),
        ("project-provision", "completed", &[]),
        ("project-provision", "canceled-at-ensure-project-space", &[]),
        ("project-provision", "canceled-at-ensure-project-space", &["step-failed"]),
        ("project-delete", "completed", &[]),
        ("project-delete", "canceled-at-delete-sessions", &[]),
        ("project-delete", "canceled-at-delete-sessions", &["step-failed"]),
        ("sweep", "running", &["clock"]),
        ("sweep", "canceled", &[]),
        ("sweep", "continued-as-new", &["at-its-longest"]),
        ("sweep", "continued-as-new", &["clock"]),
    ];
    required.extend(rest.map(|(workflow, outcome, features)| (workflow, outcome.to_owned(), features)));
    required
}

/// Whether it takes minutes to hours, which a test can move on the embedded engine only.
fn needs_time(outcome: &str, through: &[&str]) -> bool {
    let slow = ["clock", "told", "step-timed-out", "woken-before"];
    outcome == "running" || outcome == "continued-as-new" || slow.iter().any(|feature| through.contains(feature))
}

#[test]
fn the_corpus_has_a_history_of_every_workflow_and_branch() {
    for (engine, corpus) in corpora().into_iter().filter(|(engine, _)| ENGINES.contains(&engine.as_str())) {
        let recorded: BTreeSet<&str> = corpus.entries().map(|entry| entry.workflow.as_str()).collect();
        for workflow in ENTITY_WORKFLOWS.into_iter().chain(PLATFORM_WORKFLOWS) {
            assert!(recorded.contains(workflow), "{engine}: no history of {workflow}: make corpus");
        }
        let has = |workflow: &str, outcome: &str, features: &[&str]| {
            corpus.entries().filter(|entry| entry.workflow == workflow).any(|entry| {
                let mut parts = entry.branch.split('+');
                let (found, through) = (parts.next(), parts.collect::<BTreeSet<_>>());
                found.is_some_and(|found| outcome.split('|').any(|one| one == found))
                    && features.iter().all(|feature| through.contains(feature))
            })
        };
        let needed =
            |(_, outcome, through): &(&str, String, &[&str])| engine == "embedded" || !needs_time(outcome, through);
        let needed = required().into_iter().filter(needed);
        let missing: Vec<_> = needed.filter(|(w, outcome, through)| !has(w, outcome, through)).collect();
        assert!(missing.is_empty(), "{engine}: branches without a history (make corpus): {missing:#?}");
    }
}

#[test]
fn the_manifest_says_what_is_there() {
    for (engine, corpus) in corpora() {
        let (mut listed, mut size) = (BTreeSet::from([folder(&engine).join("manifest.json")]), 0);
        for entry in corpus.entries() {
            let recorded = corpus.read(entry);
            assert_eq!(
                (branch_of(&recorded), &recorded.workflow),
                (entry.branch.clone(), &entry.workflow),
                "{}",
                entry.file
            );
            size += corpus.path(entry).metadata().unwrap().len();
            listed.insert(corpus.path(entry));
        }
        assert!(size < BUDGET, "{engine}: {size} bytes");
        let there: BTreeSet<PathBuf> = files_below(&folder(&engine)).into_iter().collect();
        assert_eq!(there, listed, "{engine}: a file that no manifest knows, or one that is missing");
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Without them the replayer compares neither types nor ids of activities, timers and children.
#[test]
fn every_history_says_which_checks_of_the_sdk_it_was_recorded_with() {
    for (engine, corpus) in corpora() {
        for entry in corpus.entries() {
            let flags = core_flags(&corpus.read(entry));
            assert!([1, 2, 3].iter().all(|flag| flags.contains(flag)), "{engine}: {}: {flags:?}", entry.file);
        }
    }
}

fn core_flags(recorded: &RecordedHistory) -> BTreeSet<u32> {
    let of_task = recorded.history.events.iter().filter_map(|event| match event.attributes.as_ref()? {
        Attributes::WorkflowTaskCompletedEventAttributes(a) => Some(&a.sdk_metadata.as_ref()?.core_used_flags),
        _ => None,
    });
    of_task.flatten().copied().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_program_goes_on_with_every_history() {
    let workflows = &workflows().unwrap();
    for (engine, corpus) in corpora() {
        let (engine, corpus) = (&engine, &corpus);
        let verdicts = stream::iter(corpus.entries()).map(|entry| async move {
            let verdict = replay(workflows, &corpus.read(entry)).await.unwrap();
            (verdict != ReplayResult::Identical).then(|| format!("{engine}/{}: {verdict:#?}", entry.file))
        });
        let diverged: Vec<String> = verdicts.buffered(2).filter_map(async |found| found).collect().await;
        assert!(diverged.is_empty(), "{}", diverged.join("\n"));
    }
}
