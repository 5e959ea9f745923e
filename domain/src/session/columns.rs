//! What lists of sessions filter and order by.

use serde_json::json;

use super::Session;
use crate::column::{
    self,
    ColumnType::{Boolean, Integer, Json, Text, Time},
};

type Column = column::Column<Session>;

/// Values of the filter `phase`; `New` stands for a session that was never started, whose column is null.
const PHASES: &[&str] = &["New", "Pending", "Creating", "Running", "Stopping", "Stopped", "Completed", "Failed"];

pub(super) const COLUMNS: &[Column] = &[
    Column::new("display_name", Text, |s| json!(s.spec.display_name))
        .shown_as("name")
        .filtered("Exact name.")
        .ordered(),
    Column::new("phase", Text, |s| json!(s.phase()))
        .filtered(
            "`New` (never started), `Pending`, `Creating`, `Running`, `Stopping`, `Stopped`, `Completed` or `Failed`.",
        )
        .one_of(PHASES)
        .ordered(),
    Column::new("agent_id", Text, |s| json!(s.spec.agent_id)).filtered("Only those of this agent."),
    Column::new("agent_type", Text, |s| json!(s.spec.agent_type)).filtered("Program that runs as the agent.").ordered(),
    Column::new("interactive", Boolean, |s| json!(s.spec.interactive)).filtered("Chat (true) or batch."),
    Column::new("llm_model", Text, |s| json!(s.spec.llm_model)).filtered("Model."),
    Column::new("run", Integer, |s| json!(s.run_number())).ordered(),
    Column::new("attempt", Integer, |s| json!(s.run().map_or(0, |run| run.attempt))),
    Column::new("generation", Integer, |s| json!(s.generation)),
    Column::new("observed_generation", Integer, |s| json!(s.observed_generation)),
    Column::new("created_by", Text, |s| json!(s.created_by))
        .shown_as("created_by_user_id")
        .filtered("User id of its creator.")
        .ordered(),
    Column::new("parent_session_id", Text, |s| json!(s.spec.parent_session_id))
        .filtered("Session that they were made from."),
    Column::new("start_time", Time, |s| json!(s.start_time)).ordered(),
    Column::new("completion_time", Time, |s| json!(s.completion_time)).ordered(),
    Column::new("waiting", Integer, |s| json!(s.waiting_count())).ordered(),
    Column::new("runner_due", Boolean, |s| json!(s.runner_due())),
    Column::new("labels", Json, |s| json!(s.spec.labels)),
];
