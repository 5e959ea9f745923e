//! One history against this program's workflows, and where the two first diverge.

use std::time::Duration;

use temporalio_client::WorkflowHistory;
use temporalio_common::protos::temporal::api::history::v1::{History, HistoryEvent};
use temporalio_sdk::workflow_replayer::{WorkflowReplayFailure, WorkflowReplayer, WorkflowReplayerOptions};
use tokio::sync::oneshot;

use super::{
    ReplayError,
    history::{RecordedHistory, in_words, replayable},
};
use crate::worker::{TASK_QUEUE, lifecycles};

/// Longest replay of one history: 50,000 events take seconds, so one that takes longer does not terminate.
const PATIENCE: Duration = Duration::from_secs(120);

/// The result of replaying a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayResult {
    /// The program decides as recorded.
    Identical,
    /// It does not.
    Diverged(Divergence),
}

/// Where program and history diverge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// The recorded step that the program does not take: `activity launch-runner`.
    pub step: String,
    /// The event that recorded it; 0 if the history has none at this point.
    pub event_id: i64,
    /// In the SDK's words.
    pub what: String,
}

/// The workflows that a worker of this program has.
///
/// # Errors
/// When two of them have one name.
pub fn workflows() -> Result<WorkflowReplayerOptions, ReplayError> {
    let options = WorkflowReplayerOptions::new().task_queue(TASK_QUEUE);
    let registered = (|| Ok(lifecycles!(options)))();
    let registered =
        registered.map_err(|e: temporalio_sdk::WorkflowRegistrationError| ReplayError::Replayer(e.to_string()));
    Ok(registered?.build())
}

/// Replays a history against `workflows`. A divergence is narrowed down to the first workflow task with a different decision.
///
/// # Errors
/// When no replayer can be created at all.
pub async fn replay(
    workflows: &WorkflowReplayerOptions,
    recorded: &RecordedHistory,
) -> Result<ReplayResult, ReplayError> {
    let failure = match run(workflows, recorded.history.clone()).await? {
        None => return Ok(ReplayResult::Identical),
        Some(failure) => failure,
    };
    let tasks = recorded.completed_tasks();
    // The first task with which it fails is between `fits` and `fails`.
    let (mut fits, mut fails, mut what) = (0, tasks.len(), failure);
    while fits < fails {
        let middle = fits.midpoint(fails);
        match run(workflows, recorded.up_to(tasks[middle])).await? {
            None => fits = middle + 1,
            Some(failure) => (fails, what) = (middle, failure),
        }
    }
    Ok(ReplayResult::Diverged(located(recorded, tasks.get(fails).copied(), what)))
}

/// Names the step: the command of the diverging task that the SDK's message is about, else the first.
fn located(recorded: &RecordedHistory, task: Option<usize>, what: String) -> Divergence {
    let commands = task.map_or(&[][..], |task| recorded.commands_after(task));
    let numbered = number_after(&what, "id: ").or_else(|| number_after(&what, "event_id: "));
    let by_number = commands.iter().find(|event| Some(event.event_id) == numbered);
    // "… of scheduled event 'a' does not match … of activity command 'b'": the recorded one comes first.
    let quoted = what.split('\'').nth(1).filter(|name| !name.is_empty());
    let named = |event: &&HistoryEvent| quoted.is_some_and(|name| in_words(event).ends_with(&format!(" {name}")));
    match by_number.or_else(|| commands.iter().find(named)).or_else(|| commands.first()) {
        Some(event) => Divergence { step: in_words(event), event_id: event.event_id, what },
        None => Divergence { step: "no step was recorded here".to_owned(), event_id: 0, what },
    }
}

fn number_after(text: &str, mark: &str) -> Option<i64> {
    let (_, rest) = text.split_once(mark)?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    rest[..digits].parse().ok()
}

/// Whether the replayer has no objection to any of these histories; if it has, [`replay`] finds out to which.
pub(super) async fn replay_together(
    workflows: &WorkflowReplayerOptions,
    recorded: impl Iterator<Item = &RecordedHistory>,
) -> Result<bool, ReplayError> {
    let histories: Vec<History> = recorded.filter_map(|recorded| replayable(recorded.history.clone())).collect();
    Ok(run_all(workflows, histories).await?.is_none())
}

async fn run(workflows: &WorkflowReplayerOptions, history: History) -> Result<Option<String>, ReplayError> {
    run_all(workflows, replayable(history).into_iter().collect()).await
}

/// Runs the SDK's replayer on its own thread and runtime: it is not `Send`, and a history it cannot handle must not end the check.
/// None: it has no objection.
async fn run_all(workflows: &WorkflowReplayerOptions, histories: Vec<History>) -> Result<Option<String>, ReplayError> {
    if histories.is_empty() {
        return Ok(None);
    }
    let (workflows, (told, hears)) = (workflows.clone(), oneshot::channel());
    let thread = std::thread::Builder::new().name("replay".to_owned()).spawn(move || {
        let _ = told.send(replay_here(workflows, histories));
    });
    thread.map_err(|error| ReplayError::Replayer(error.to_string()))?;
    match tokio::time::timeout(PATIENCE, hears).await {
        Ok(Ok(outcome)) => outcome.map_err(ReplayError::Replayer),
        // The thread panicked.
        Ok(Err(_)) => Ok(Some("the SDK cannot handle this history".to_owned())),
        Err(_) => Ok(Some(format!("the replay did not come to an end within {} s", PATIENCE.as_secs()))),
    }
}

fn replay_here(workflows: WorkflowReplayerOptions, histories: Vec<History>) -> Result<Option<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let outcome = runtime.block_on(async {
        let replayer = WorkflowReplayer::new(workflows).map_err(|e| e.to_string())?;
        let results = replayer.replay_workflows(histories.into_iter().map(WorkflowHistory::from)).await;
        Ok(match results {
            Ok(results) => results.into_iter().find_map(|result| result.replay_failure).map(|failure| plain(&failure)),
            Err(error) => Some(error.to_string()),
        })
    });
    // The SDK's pollers may be left over; nobody needs them.
    runtime.shutdown_background();
    outcome
}

/// The message without the wrapping that the SDK adds, on one line.
fn plain(failure: &WorkflowReplayFailure) -> String {
    let text = match failure {
        WorkflowReplayFailure::Nondeterminism { message } | WorkflowReplayFailure::WorkflowTaskFailure { message } => {
            message.clone()
        }
        other => other.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
