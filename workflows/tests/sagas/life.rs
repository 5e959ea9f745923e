//! The whole life of a project with its sessions: every step of every workflow fails a few times, or is done twice, and everything
//! ends as it would without that.

use ambient_domain::{
    agent::Agent,
    definition,
    project::{self, Project},
    session::{Command, Lifecycle, Phase, Session, StopReason, workflow_id},
};
use ambient_persistence::new_id;
use ambient_workflows::{
    ExecutionFilter, project_delete, project_provision, session_delete, session_reconcile, session_start, session_stop,
    step::Step,
};

use crate::{
    faults::Fault,
    world::{World, wait_for},
};

/// What people see of a session at a point of its life, without ids and times.
#[derive(Debug, PartialEq)]
struct Seen {
    phase: Option<Phase>,
    outcome: Option<String>,
    attempt: Option<i32>,
    generations: (i64, i64),
    conditions: Vec<String>,
    repos: Vec<(String, Option<String>, Option<String>)>,
    /// Turns that the agent made.
    turns: usize,
}

fn seen(world: &World, session: &Session) -> Seen {
    let conditions = session.conditions.iter().map(|c| format!("{:?} {:?} {}", c.condition_type, c.status, c.reason));
    let repos = session.reconciled_repos.iter().map(|r| (r.name.clone(), r.branch.clone(), r.head.clone()));
    Seen {
        phase: session.phase(),
        outcome: match &session.lifecycle {
            Lifecycle::Stopping { outcome, .. } | Lifecycle::Ended { outcome, .. } => Some(format!("{outcome:?}")),
            _ => None,
        },
        attempt: session.run().map(|run| run.attempt),
        generations: (session.generation, session.observed_generation),
        conditions: conditions.collect(),
        repos: repos.collect(),
        turns: world.marks(session),
    }
}

/// Everything that a life leaves to be compared.
#[derive(Debug, PartialEq)]
struct Life {
    running: Seen,
    reconciled: Seen,
    stopped: Seen,
    of_session: Vec<(String, String)>,
    of_unstarted: Vec<(String, String)>,
    of_project: Vec<(String, String)>,
}

struct Ids {
    project: String,
    session: String,
    unstarted: String,
}

async fn life(world: &World, name: &str, faults: &[Fault]) -> (Life, Ids) {
    let ids = Ids { project: new_id(), session: new_id(), unstarted: new_id() };
    let id = ids.session.as_str();
    for entity in [&ids.project, &ids.session, &ids.unstarted] {
        world.faults.plan(entity, faults);
    }
    world.new_project(&ids.project, name).await;
    world.new_session(id, &ids.project, world.interactive(), true).await;
    world.new_session(&ids.unstarted, &ids.project, world.interactive(), false).await;
    let session = world.idle(id).await;
    let running = seen(world, &session);
    assert_eq!(world.end_of(&workflow_id::start(id, 1, 1)).await, "Completed");
    world.ask::<Session>(id, Command::AddRepo(world.repo("second"))).await.unwrap();
    let both = |s: &Session| s.observed_generation == s.generation && s.reconciled_repos.len() == 2;
    let session = world.session_where(id, "two repositories", both).await;
    let reconciled = seen(world, &session);
    // A stop would end it before it has repeated its step.
    assert_eq!(world.end_of(&format!("session-reconcile/{id}/1.2")).await, "Completed");
    let stop = Command::Stop { reason: StopReason::UserStopped, seen_seq: None, run: None, force: false };
    world.ask::<Session>(id, stop).await.unwrap();
    let session = world.in_phase(id, Phase::Stopped).await;
    let stopped = seen(world, &session);
    world.torn_down(&session).await;
    world.ask::<Session>(id, Command::Delete).await.unwrap();
    let of_session = closed_with_delete(world, id).await;
    assert!(!world.paths(&session).root.exists(), "the workspace is still there");
    let agent = new_id();
    let (project_id, spec) = (ids.project.clone(), Box::default());
    let create = definition::Command::Create { id: agent.clone(), project_id, name: "reviewer".to_owned(), spec };
    world.ask::<Agent>(&agent, create).await.unwrap();
    world.ask::<Project>(&ids.project, project::Command::Delete).await.unwrap();
    gone(world, &ids.project).await;
    assert!(
        world.db.load::<Agent>(&agent).await.unwrap().unwrap().deleted_at.is_some(),
        "its definitions are still there"
    );
    let of_unstarted = closed_with_delete(world, &ids.unstarted).await;
    let of_project = world.closed(&ids.project).await;
    (Life { running, reconciled, stopped, of_session, of_unstarted, of_project }, ids)
}

/// The executions of a deleted session; deletion is the last of them.
async fn closed_with_delete(world: &World, id: &str) -> Vec<(String, String)> {
    wait_for("session-delete", || async {
        let all = world.closed(id).await;
        all.iter().any(|(workflow, _)| workflow == "session-delete").then_some(all)
    })
    .await
}

async fn gone(world: &World, id: &str) {
    let closed = world.closed(id).await;
    wait_for(&format!("the project gone after {closed:?}"), || async {
        let project = world.db.load::<Project>(id).await.unwrap().unwrap();
        project.deleted_at.is_some().then_some(())
    })
    .await;
}

fn steps(tables: &[&'static [Step]]) -> Vec<&'static str> {
    tables.iter().copied().flatten().map(Step::name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_fail_for_a_while_or_are_done_twice_lead_to_the_same_life() {
    let world = World::new().await;
    let (failing, twice) = ([Fault::everywhere(2)], [Fault::all_twice()]);
    let (plain, failing, twice) =
        tokio::join!(life(&world, "plain", &[]), life(&world, "failing", &failing), life(&world, "twice", &twice),);
    assert_eq!(plain.0.running.turns, 1);
    assert_eq!(plain.0, failing.0, "every step failed twice before its work");
    assert_eq!(plain.0, twice.0, "every step was done twice");
    assert!(plain.0.of_session.iter().all(|(_, status)| status == "Completed"), "{:?}", plain.0.of_session);
    let of_session =
        steps(&[session_start::STEPS, session_stop::STEPS, session_delete::STEPS, session_reconcile::STEPS]);
    let of_project = steps(&[project_provision::STEPS, project_delete::STEPS]);
    for (entity, steps) in [(twice.1.session, of_session), (twice.1.project, of_project)] {
        for step in steps {
            assert!(world.faults.done(&entity, step) >= 2, "{step} was not done twice");
        }
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executions_of_a_project_are_found_whatever_began_them() {
    let world = World::new().await;
    let (project, id, other, beside) = (world.project().await, new_id(), new_id(), new_id());
    world.new_project(&other, "other").await;
    for (session, project) in [(&id, &project), (&beside, &other)] {
        world.new_session(session, project, world.interactive(), true).await;
        world.idle(session).await;
    }
    // Begun by another workflow.
    world.ask::<Session>(&id, Command::AddRepo(world.repo("second"))).await.unwrap();
    assert_eq!(world.end_of(&format!("session-reconcile/{id}/1.2")).await, "Completed");
    let found = async |project_ids: &[&String], workflow: Option<&str>| {
        let project_ids = Some(project_ids.iter().map(|id| (*id).clone()).collect());
        let workflow = workflow.map(str::to_owned);
        let filter = ExecutionFilter { workflow, project_ids, page: 1, size: 100, ..ExecutionFilter::default() };
        let (found, total) = world.executions.list(&filter).await.unwrap();
        assert_eq!(total, i64::try_from(found.len()).unwrap());
        found.into_iter().map(|execution| execution.id).collect::<Vec<_>>()
    };
    let of_project = ["project-provision", "session-start", "session-supervise", "token-refresh", "session-reconcile"];
    wait_for("all executions of the project", || async {
        let found = found(&[&project], None).await;
        assert!(found.iter().all(|one| one.contains(&project) || one.contains(&id)), "{found:?}");
        let is_found = |workflow: &&str| found.iter().any(|one| one.starts_with(*workflow));
        of_project.iter().all(is_found).then_some(())
    })
    .await;
    assert_eq!(found(&[&other, &project], Some("session-supervise")).await.len(), 2);
    assert_eq!(found(&[], None).await, [""; 0]);
    for session in [&id, &beside] {
        world.ask::<Session>(session, Command::Delete).await.unwrap();
        closed_with_delete(&world, session).await;
    }
    if !crate::engine::is_temporal() {
        // As an older release left them, until the migration has seen them.
        let before = found(&[&project], None).await;
        let forgotten = "update engine.executions set attributes = null";
        sqlx::query(forgotten).execute(world.db.pool()).await.unwrap();
        assert_eq!(found(&[&project], None).await, [""; 0]);
        let migration = include_str!("../../../migrations/0008_executions_by_project.sql");
        sqlx::raw_sql(migration).execute(world.db.pool()).await.unwrap();
        assert_eq!(found(&[&project], None).await, before);
    }
    world.end().await;
}
