//! An unsafe change to a workflow is caught, and the step is named.
//!
//! Each changed workflow has the name of the one it stands for, and its steps, except for the change.

use ambient_domain::WorkflowInput;
use ambient_workflows::{
    replay::{
        CheckOptions, Divergence, HistorySource, RecordedHistory, ReplayError, ReplayResult, Report, check_histories,
        replay,
    },
    step::{Progress, host_queue},
};
use async_trait::async_trait;
use std::time::Duration;
use temporalio_common::{ActivityDefinition, protos::temporal::api::enums::v1::EventType};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ActivityExecutionError, ActivityOptions, WorkflowContext, WorkflowResult,
    workflow_replayer::WorkflowReplayerOptions,
};
use temporalio_workflow::workflows::WorkflowImplementation;

use crate::{corpus::Corpus, recorded::folder};

/// An activity by name.
struct Named(&'static str);

impl ActivityDefinition for Named {
    type Input = WorkflowInput;
    type Output = Progress;
    fn name(&self) -> &str {
        self.0
    }
}

struct Place;

impl ActivityDefinition for Place {
    type Input = WorkflowInput;
    type Output = String;
    fn name(&self) -> &str {
        "place-session"
    }
}

async fn steps<W: WorkflowImplementation>(
    ctx: &WorkflowContext<W>,
    input: &WorkflowInput,
    names: &[&'static str],
) -> Result<Progress, ActivityExecutionError> {
    let options = ActivityOptions::start_to_close_timeout(Duration::from_secs(30));
    let host = ctx.execute_activity(Place, input.clone(), options.clone()).await?;
    for name in names {
        let options = ActivityOptions::with_start_to_close_timeout(Duration::from_secs(30))
            .task_queue(host_queue(ctx.task_queue(), &host))
            .build();
        if ctx.execute_activity(Named(name), input.clone(), options).await? == Progress::Superseded {
            return Ok(Progress::Superseded);
        }
    }
    Ok(Progress::Done)
}

/// A `session-delete` with these steps.
macro_rules! session_delete {
    ($workflow:ident, $steps:expr) => {
        #[workflow]
        #[derive(Default)]
        pub struct $workflow;

        #[workflow_methods]
        impl $workflow {
            #[run(name = "session-delete")]
            pub async fn run(ctx: &mut WorkflowContext<Self>, input: WorkflowInput) -> WorkflowResult<Progress> {
                Ok(steps(ctx, &input, &$steps).await?)
            }
        }
    };
}

const STEPS: [&str; 8] = [
    "raise-fence-for-good",
    "revoke-credentials",
    "terminate-runner",
    "drain-rest-of-log",
    "delete-run-objects",
    "prove-session-gone",
    "forget-secrets",
    "delete-workspace",
];

session_delete!(Unchanged, STEPS);
session_delete!(Swapped, {
    let mut steps = STEPS;
    steps.swap(2, 3);
    steps
});
session_delete!(Shorter, STEPS[..7]);
session_delete!(Longer, {
    let mut steps = STEPS.to_vec();
    steps.push("tell-the-world");
    steps
});

/// A pause that was not there, at the very end.
#[workflow]
#[derive(Default)]
pub struct Paused;

#[workflow_methods]
impl Paused {
    #[run(name = "session-delete")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: WorkflowInput) -> WorkflowResult<Progress> {
        let progress = steps(ctx, &input, &STEPS).await?;
        ctx.timer(Duration::from_secs(1)).await;
        Ok(progress)
    }
}

/// The steps swapped for executions from now on.
#[workflow]
#[derive(Default)]
pub struct Patched;

#[workflow_methods]
impl Patched {
    #[run(name = "session-delete")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: WorkflowInput) -> WorkflowResult<Progress> {
        let mut order = STEPS;
        if ctx.patched("drain-first") {
            order.swap(2, 3);
        }
        Ok(steps(ctx, &input, &order).await?)
    }
}

fn with<W>() -> WorkflowReplayerOptions
where
    W: WorkflowImplementation,
    <W::Run as temporalio_common::WorkflowDefinition>::Input: Send,
{
    WorkflowReplayerOptions::new().register_workflow::<W>().unwrap().build()
}

/// The recorded deletion of a session.
fn deletion() -> RecordedHistory {
    let corpus = Corpus::open(&folder("embedded"));
    let entry = corpus
        .entries()
        .find(|entry| (entry.workflow.as_str(), entry.branch.as_str()) == ("session-delete", "completed"));
    corpus.read(entry.unwrap())
}

/// The event that scheduled an activity.
fn scheduled(recorded: &RecordedHistory, step: usize) -> i64 {
    // The first is place-session.
    let of = |e: &&temporalio_common::protos::temporal::api::history::v1::HistoryEvent| {
        e.event_type() == EventType::ActivityTaskScheduled
    };
    recorded.history.events.iter().filter(of).nth(step + 1).unwrap().event_id
}

/// What was stored when its server died with this step under way.
fn cut_off_at(recorded: &RecordedHistory, step: usize) -> RecordedHistory {
    let mut history = recorded.history.clone();
    history.events.truncate(usize::try_from(scheduled(recorded, step)).unwrap());
    RecordedHistory::new(history, None).unwrap()
}

async fn diverges<W>(recorded: &RecordedHistory) -> Divergence
where
    W: WorkflowImplementation,
    <W::Run as temporalio_common::WorkflowDefinition>::Input: Send,
{
    match replay(&with::<W>(), recorded).await.unwrap() {
        ReplayResult::Diverged(divergence) => divergence,
        ReplayResult::Identical => panic!("not caught"),
    }
}

#[tokio::test]
async fn a_change_is_caught_at_its_step_wherever_the_history_ends() {
    let whole = deletion();
    assert_eq!(replay(&with::<Unchanged>(), &whole).await.unwrap(), ReplayResult::Identical);
    let found = diverges::<Swapped>(&whole).await;
    assert_eq!((found.step.as_str(), found.event_id), ("activity terminate-runner", scheduled(&whole, 2)), "{found:?}");
    assert!(found.what.contains("drain-rest-of-log"), "{found:?}");
    // The step is the last thing that was decided: nothing that follows gives the change away.
    let open = cut_off_at(&whole, 2);
    assert_eq!((open.status, replay(&with::<Unchanged>(), &open).await.unwrap()), ("Running", ReplayResult::Identical));
    assert_eq!(diverges::<Swapped>(&open).await, found);
    // It has not come to the change yet, and can go on with either.
    let earlier = cut_off_at(&whole, 1);
    assert_eq!(replay(&with::<Swapped>(), &earlier).await.unwrap(), ReplayResult::Identical);
}

#[tokio::test]
async fn a_change_of_the_very_end_is_caught() {
    let whole = deletion();
    let found = diverges::<Shorter>(&whole).await;
    assert_eq!((found.step.as_str(), found.event_id), ("activity delete-workspace", scheduled(&whole, 7)), "{found:?}");
    for found in [diverges::<Longer>(&whole).await, diverges::<Paused>(&whole).await] {
        assert_eq!(found.step, "completion of the workflow", "{found:?}");
    }
}

#[tokio::test]
async fn a_change_behind_a_patch_is_safe() {
    let whole = deletion();
    for recorded in [cut_off_at(&whole, 0), cut_off_at(&whole, 2), cut_off_at(&whole, 7), whole] {
        assert_eq!(replay(&with::<Patched>(), &recorded).await.unwrap(), ReplayResult::Identical);
    }
}

#[tokio::test]
async fn a_workflow_that_is_gone_is_named() {
    let found = diverges::<Unchanged>(&cut_off_at(&other_workflow(), 2)).await;
    assert!(found.what.contains("session-stop"), "{found:?}");
}

fn other_workflow() -> RecordedHistory {
    let corpus = Corpus::open(&folder("embedded"));
    let entry = corpus
        .entries()
        .find(|entry| (entry.workflow.as_str(), entry.branch.as_str()) == ("session-stop", "completed"));
    corpus.read(entry.unwrap())
}

struct These(Vec<RecordedHistory>);

#[async_trait]
impl HistorySource for These {
    async fn next(&mut self) -> Result<Option<Result<RecordedHistory, String>>, ReplayError> {
        Ok(self.0.pop().map(Ok))
    }
}

#[tokio::test]
async fn the_table_names_step_and_source_of_the_first_divergence() {
    let whole = deletion();
    let mut report = Report::default();
    let mut source = These(vec![whole.clone(), cut_off_at(&whole, 1), cut_off_at(&whole, 0)]);
    check_histories(&mut source, &with::<Swapped>(), &CheckOptions::default(), &mut report).await.unwrap();
    let (table, json) = (report.to_string(), report.to_json());
    let rows = table.lines().collect::<Vec<_>>();
    let event = scheduled(&whole, 2);
    assert_eq!(
        rows[1],
        format!("workflow session-delete        3          2  activity terminate-runner (event {event})")
    );
    assert!(table.contains(&whole.source()), "{table}");
    assert_eq!(json["rows"][0]["first_divergence"]["source"], whole.source());
    assert_eq!((report.diverged(), json["diverged"].as_u64()), (1, Some(1)));
}
