//! session-start: fail at every step, every undo twice.

use ambient_domain::{
    agent::{Agent, AgentSpec},
    definition,
    permission::Permissions,
    project::{self, Project},
    session::{Command, ConditionStatus, ConditionType, Phase, Repo, Session, SessionPatch, Spec, workflow_id},
};
use ambient_persistence::new_id;
use ambient_runner_protocol::LaunchSpec;
use ambient_workflows::{session_start, step::Step};
use futures::future::join_all;

use crate::{
    faults::Fault,
    world::{World, wait_for},
};

/// What undoes these steps, in the order it must be done.
fn undone(steps: &[Step]) -> Vec<&'static str> {
    steps.iter().rev().flat_map(|step| step.undo).map(|undo| undo.name()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_at_any_step_is_undone_and_the_session_ends_failed_and_torn_down() {
    let world = World::new().await;
    let project = world.project().await;
    let failing = (0..session_start::STEPS.len()).map(|at| fails_at(&world, &project, at));
    join_all(failing).await;
    world.end().await;
}

async fn fails_at(world: &World, project: &str, at: usize) {
    let (id, steps) = (new_id(), &session_start::STEPS[..=at]);
    world.faults.plan(&id, &[Fault::fatal(session_start::STEPS[at].name())]);
    world.new_session(&id, project, world.interactive(), true).await;
    let session = world.in_phase(&id, Phase::Failed).await;
    let why = session.status_detail.as_ref().map(|detail| detail.reason.as_str());
    assert_eq!(why, Some("Injected"), "failed at {}: {:?}", session_start::STEPS[at].name(), session.lifecycle);
    assert_eq!(session.run().map(|run| run.attempt), Some(1), "failed at {}", session_start::STEPS[at].name());
    let statuses = world.closed(&id).await;
    let expected = |workflow: &str| if workflow == "session-start" { "Failed" } else { "Completed" };
    for (workflow, status) in &statuses {
        assert_eq!(status, expected(workflow), "{workflow} of the start that failed at {}", steps[at].name());
    }
    // The order of effects is the table's, and so is the order of undoing.
    let mut asked = world.activities_of(&workflow_id::start(&id, 1, 1)).await;
    asked.retain(|name| name != "place-session" && name != "report-failure");
    let done = steps.iter().map(Step::name);
    assert_eq!(asked, done.chain(undone(steps)).collect::<Vec<_>>());
    world.torn_down(&session).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_made_the_session_run_and_is_repeated_does_not_end_it() {
    let world = World::new().await;
    let (project, id) = (world.project().await, new_id());
    let (fault, let_go) = Fault::after("reconcile-and-mark-running");
    world.faults.plan(&id, &[fault]);
    world.new_session(&id, &project, world.interactive(), true).await;
    world.in_phase(&id, Phase::Running).await;
    // It runs by now: what is wrong with a change is told, and is no reason to end it.
    let broken = Repo { url: "file:///nowhere/at/all".to_owned(), ..world.repo("second") };
    world.ask::<Session>(&id, Command::AddRepo(broken)).await.unwrap();
    drop(let_go);
    assert_eq!(world.end_of(&workflow_id::start(&id, 1, 1)).await, "Completed");
    let session = world.session(&id).await;
    assert_eq!((session.phase(), world.faults.begun(&id, "reconcile-and-mark-running")), (Some(Phase::Running), 2));
    world.ask::<Session>(&id, Command::Delete).await.unwrap();
    world.closed(&id).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_failed_is_told_as_failed_however_often_it_is_tried() {
    let world = World::new().await;
    let (project, fails, runs) = (world.project().await, new_id(), new_id());
    let broken = Repo { url: "file:///nowhere/at/all".to_owned(), ..world.repo("second") };
    let reason = |session: &Session| {
        let condition = session.condition(ConditionType::ReposReconciled).unwrap();
        (condition.status, condition.reason.clone(), condition.message.starts_with("repository 'second': "))
    };
    let failed = (ConditionStatus::False, "RepoCloneFailed".to_owned(), true);

    let spec = Spec { repos: vec![broken.clone()], ..world.interactive() };
    world.new_session(&fails, &project, spec, true).await;
    assert_eq!(reason(&world.in_phase(&fails, Phase::Failed).await), failed);

    world.new_session(&runs, &project, world.interactive(), true).await;
    world.idle(&runs).await;
    world.ask::<Session>(&runs, Command::AddRepo(broken)).await.unwrap();
    let attempts = |count: usize| {
        let (world, runs) = (&world, &runs);
        wait_for("attempts to clone", move || async move {
            (world.faults.begun(runs, "reconcile-repos") >= count).then_some(())
        })
    };
    attempts(3).await;
    let told = world.session(&runs).await;
    assert_eq!(reason(&told), failed);
    attempts(5).await;
    assert_eq!(world.session(&runs).await.version, told.version, "attempts that fail alike are no news");
    world.ask::<Session>(&runs, Command::RemoveRepo { name: "second".to_owned() }).await.unwrap();
    world.session_where(&runs, "repositories as wanted", |session| reason(session).0 == ConditionStatus::True).await;
    for id in [&fails, &runs] {
        world.ask::<Session>(id, Command::Delete).await.unwrap();
        world.closed(id).await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_that_is_done_twice_leaves_what_one_leaves() {
    let world = World::new().await;
    let project = world.project().await;
    let undoing = (0..session_start::STEPS.len()).filter(|at| !session_start::STEPS[*at].undo.is_empty());
    join_all(undoing.map(|at| undone_twice(&world, &project, at))).await;
    world.end().await;
}

/// The step after the one to be undone fails; teardown is held back, so that what is seen is the undo's doing.
async fn undone_twice(world: &World, project: &str, at: usize) {
    let (id, steps) = (new_id(), &session_start::STEPS[..=at]);
    let fails = session_start::STEPS[at + 1].name();
    let held = ambient_workflows::session_stop::STEPS[0].name();
    world.faults.plan(&id, &[Fault::fatal(fails), Fault::twice(undone(steps)), Fault::endless(held)]);
    world.new_session(&id, project, world.interactive(), true).await;
    assert_eq!(world.end_of(&workflow_id::start(&id, 1, 1)).await, "Failed");
    for undo in undone(steps) {
        assert_eq!(world.faults.done(&id, undo), 2, "{undo}");
    }
    wait_for("session-stop at its first step", || async { (world.faults.begun(&id, held) > 0).then_some(()) }).await;
    world.nothing_left(&world.session(&id).await).await;
    world.faults.clear(&id);
    let session = world.in_phase(&id, Phase::Failed).await;
    assert_eq!(session.status_detail.as_ref().map(|detail| detail.reason.as_str()), Some("Injected"));
    world.closed(&id).await;
    world.torn_down(&session).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launch_goes_by_what_session_agent_and_project_say_about_permissions_and_a_later_change_is_told() {
    let world = World::new().await;
    let (project, agent, id) = (world.project().await, new_id(), new_id());
    let allowing = |command: &str| {
        let rules = serde_json::json!({"rules": [{"effect": "allow", "command": command}]});
        serde_json::from_value::<Permissions>(rules).unwrap()
    };
    let settings = project::Settings { permissions: allowing("of the project"), ..project::Settings::default() };
    let patch = project::ProjectPatch { settings: Some(settings), ..project::ProjectPatch::default() };
    world.ask::<Project>(&project, project::Command::Patch(Box::new(patch))).await.unwrap();
    let spec = AgentSpec { permissions: allowing("of the agent"), ..AgentSpec::default() };
    let (id_of_agent, project_id, name) = (agent.clone(), project.clone(), "tester".to_owned());
    let create = definition::Command::Create { id: id_of_agent, project_id, name, spec: Box::new(spec) };
    world.ask::<Agent>(&agent, create).await.unwrap();
    let spec = Spec { agent_id: Some(agent), permissions: allowing("of the session"), ..world.interactive() };
    world.new_session(&id, &project, spec, true).await;
    let session = world.idle(&id).await;
    let launch = std::fs::read(world.paths(&session).launch(1, 1)).unwrap();
    let launch: LaunchSpec = serde_json::from_slice(&launch).unwrap();
    let commands: Vec<_> = launch.permissions.rules.iter().filter_map(|rule| rule.command.as_deref()).collect();
    assert_eq!(commands, ["of the session", "of the agent", "of the project"]);
    assert!(!session.runner_due());

    let patch = SessionPatch { permissions: Some(allowing("changed")), ..SessionPatch::default() };
    world.ask::<Session>(&id, Command::Patch(patch)).await.unwrap();
    world.session_where(&id, "the runner is told", |session| session.permissions_in_force == 1).await;
    world.ask::<Session>(&id, Command::Delete).await.unwrap();
    world.closed(&id).await;
    world.end().await;
}
